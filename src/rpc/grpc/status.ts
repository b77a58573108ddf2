/** Maps grpc-js metadata and errors to the words of the network seam. */
import { Metadata, type ServiceError, status as GrpcStatus } from '@grpc/grpc-js';
import { RpcError, RpcStatus, type RpcStatusCode, type StreamEnd } from '../../env/net.ts';
import type { TlsFailure } from '../tls-failure.ts';

/** grpc-js hands out no mark for "never left this process" except this text of its load balancer. */
const NOT_CONNECTED_TEXT = 'No connection established';
const NOT_RESOLVED_TEXT = 'Name resolution failed';

/** A connection that ends under a running call: grpc-js reports INTERNAL or UNAVAILABLE, as the socket happened to end. */
const BROKEN_TEXT = 'Received RST_STREAM with code';

const KNOWN_STATUS: ReadonlySet<number> = new Set(Object.values(RpcStatus));

/** Codes without a name in the seam (data loss, unauthenticated) count as UNKNOWN. */
function toStatusCode(code: number, details: string): RpcStatusCode {
  if (code === GrpcStatus.INTERNAL && details.startsWith(BROKEN_TEXT)) {
    return RpcStatus.UNAVAILABLE;
  }
  return KNOWN_STATUS.has(code) ? (code as RpcStatusCode) : RpcStatus.UNKNOWN;
}

function neverLeft(code: number, details: string): boolean {
  return (
    code === GrpcStatus.UNAVAILABLE && (details.startsWith(NOT_CONNECTED_TEXT) || details.startsWith(NOT_RESOLVED_TEXT))
  );
}

/** @param failure what TLS had to do with it: then nothing was carried out, and it becomes the message and the cause */
export function toCallError(error: ServiceError, failure: TlsFailure | undefined): RpcError {
  return failure === undefined
    ? new RpcError(toStatusCode(error.code, error.details), error.details, {
        sent: !neverLeft(error.code, error.details),
      })
    : new RpcError(RpcStatus.UNAVAILABLE, failure.message, { sent: false, cause: failure });
}

export const toStreamEnd = (
  end: { readonly code: number; readonly details: string },
  failure: TlsFailure | undefined,
): StreamEnd =>
  failure === undefined
    ? { status: toStatusCode(end.code, end.details), message: end.details }
    : { status: RpcStatus.UNAVAILABLE, message: failure.message };

export function toMetadata(values: Readonly<Record<string, string>> | undefined): Metadata {
  const metadata = new Metadata();
  if (values !== undefined) {
    for (const [key, value] of Object.entries(values)) {
      metadata.set(key, value);
    }
  }
  return metadata;
}

/** Text entries only; binary entries (`-bin`) are left out. */
export function fromMetadata(metadata: Metadata): Readonly<Record<string, string>> {
  const values: Record<string, string> = {};
  for (const [key, value] of Object.entries(metadata.getMap())) {
    if (typeof value === 'string') {
      values[key] = value;
    }
  }
  return values;
}
