/** Region heartbeat streams, public and own: reports in, commands for the store out. */
import type { StoreId } from '../../base/ids.ts';
import { toStoreId } from '../../codec/meta-wire.ts';
import { fromWireReport, toWireReply } from '../../codec/pd-wire.ts';
import { RpcStatus, type ServerCall } from '../../env/net.ts';
import { ErrorType, type RegionHeartbeatResponse } from '../../gen/pdpb.ts';
import type { RegionReport } from '../../gen/braid/placement/v1/placement.ts';
import type { TypedStream } from '../../rpc/call.ts';
import type { ServiceBuilder } from '../../rpc/service-builder.ts';
import { pdMethods, placementMethods } from '../../rpc/services.ts';
import { toRpcError } from '../../rpc/service-builder.ts';
import type { ServiceContext } from './context.ts';

/** Commands queued for a slow store beyond this are dropped; the push loop sends them again. */
const STREAM_BUFFER_MAX_BYTES = 1024 * 1024;

export function addHeartbeatStreams(builder: ServiceBuilder, context: ServiceContext): void {
  builder.stream(pdMethods.regionHeartbeat, (stream, call) =>
    serve(context, stream, call, (heartbeat) => ({ heartbeat, merging: false, refusal: undefined })),
  );
  builder.stream(placementMethods.regionReports, (stream, call) =>
    serve(context, stream, call, (report: RegionReport) => report),
  );
}

function serve<In>(
  context: ServiceContext,
  stream: TypedStream<RegionHeartbeatResponse, In>,
  call: ServerCall,
  open: (message: In) => RegionReport,
): void {
  let bound: { readonly store: StoreId; readonly unbind: () => void } | undefined;
  const bind = (store: StoreId): void => {
    if (bound?.store === store) {
      return;
    }
    bound?.unbind();
    bound = {
      store,
      unbind: context.node.bindStore(store, (reply) => {
        if (stream.bufferedBytes > STREAM_BUFFER_MAX_BYTES) {
          return false;
        }
        stream.send(toWireReply(context.header(), reply));
        return true;
      }),
    };
  };
  stream.onMessage = (message) => {
    try {
      const wire = open(message);
      const request = wire.heartbeat;
      if (request === undefined) {
        throw new Error('a region report needs a heartbeat');
      }
      context.check(request.header, call);
      if (request.leader !== undefined && request.leader.storeId !== 0) {
        bind(toStoreId(request.leader.storeId));
      }
      const error = report(context, wire);
      if (error !== undefined) {
        stream.send({ header: context.errorHeader(error.type, error.message), regionId: request.region?.id ?? 0 });
      }
    } catch (cause) {
      const error = toRpcError(cause);
      stream.cancel(error.status, error.message);
    }
  };
  stream.onHalfClose = () => stream.end();
  stream.onEnd = (end) => {
    bound?.unbind();
    if (end.status !== RpcStatus.OK && bound !== undefined) {
      context.log.info({ storeId: bound.store, status: end.status, reason: end.message }, 'a heartbeat stream ended');
    }
  };
}

/** Stale reports are normal and get no answer; malformed ones are told so. */
function report(
  context: ServiceContext,
  wire: RegionReport,
): { readonly type: ErrorType; readonly message: string } | undefined {
  if (!context.node.isBootstrapped) {
    return { type: ErrorType.NOT_BOOTSTRAPPED, message: 'the cluster is not bootstrapped' };
  }
  const verdict = context.node.onRegionHeartbeat(fromWireReport(wire));
  switch (verdict.type) {
    case 'accepted':
      return undefined;
    case 'stale':
      context.log.debug(
        { regionId: wire.heartbeat?.region?.id, reason: verdict.reason },
        'an outdated region report was dropped',
      );
      return undefined;
    case 'malformed':
      return verdict.reason === 'store-removed'
        ? { type: ErrorType.STORE_TOMBSTONE, message: 'the store was removed from the cluster' }
        : { type: ErrorType.INVALID_VALUE, message: `malformed region report: ${verdict.reason}` };
  }
}
