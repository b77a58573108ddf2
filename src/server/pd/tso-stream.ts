/** pdpb.PD/Tso and GetMinTS: timestamps in the order they were asked for, per stream. */
import { RpcError, RpcStatus, type ServerCall } from '../../env/net.ts';
import type { TsoRequest, TsoResponse } from '../../gen/pdpb.ts';
import { LOGICAL_MAX } from '../../pd/tso/timestamp-oracle.ts';
import type { TypedStream } from '../../rpc/call.ts';
import type { ServiceBuilder } from '../../rpc/service-builder.ts';
import { toRpcError } from '../../rpc/service-builder.ts';
import { pdMethods } from '../../rpc/services.ts';
import type { ServiceContext } from './context.ts';

/** Requests waiting on one stream; a client that sends more does not wait for its answers. */
const WAITING_MAX = 10_000;

export function addTimestampCalls(builder: ServiceBuilder, context: ServiceContext): void {
  builder.stream(pdMethods.tso, (stream, call) => serve(context, stream, call));
  builder.unary(pdMethods.getMinTS, async (request, call) => {
    context.checkCaller(request.header, call);
    const { physical, logical } = await context.node.timestamps(1);
    return { header: context.header(), timestamp: { physical, logical, suffixBits: 0 } };
  });
}

function serve(context: ServiceContext, stream: TypedStream<TsoResponse, TsoRequest>, call: ServerCall): void {
  let waiting = 0;
  let halfClosed = false;
  let broken = false;
  // Answers leave in the order of the requests: each one starts when the one before is sent.
  let last: Promise<void> = Promise.resolve();
  const fail = (cause: unknown): void => {
    if (!broken) {
      broken = true;
      const error = toRpcError(cause);
      stream.cancel(error.status, error.message);
    }
  };
  stream.onMessage = (request) => {
    waiting++;
    if (waiting > WAITING_MAX) {
      fail(new RpcError(RpcStatus.RESOURCE_EXHAUSTED, 'too many unanswered timestamp requests on one stream'));
      return;
    }
    last = last
      .then(async () => {
        if (!broken) {
          stream.send(await answer(context, request, call));
        }
      })
      .catch(fail)
      .then(() => {
        waiting--;
        if (halfClosed && waiting === 0 && !broken) {
          stream.end();
        }
      });
  };
  stream.onHalfClose = () => {
    halfClosed = true;
    if (waiting === 0 && !broken) {
      stream.end();
    }
  };
  stream.onEnd = () => {
    broken = true;
  };
}

async function answer(context: ServiceContext, request: TsoRequest, call: ServerCall): Promise<TsoResponse> {
  context.checkCaller(request.header, call);
  if (request.count < 1 || request.count > LOGICAL_MAX) {
    throw new RpcError(RpcStatus.INVALID_ARGUMENT, `timestamp count must be between 1 and ${LOGICAL_MAX}`);
  }
  if (request.dcLocation !== '' && request.dcLocation !== 'global') {
    throw new RpcError(RpcStatus.INVALID_ARGUMENT, `there is no timestamp service for ${request.dcLocation}`);
  }
  const { physical, logical } = await context.node.timestamps(request.count);
  return { header: context.header(), count: request.count, timestamp: { physical, logical, suffixBits: 0 } };
}
