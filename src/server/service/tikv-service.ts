/** tikvpb.Tikv of a store: the batch stream and the unary twins of its commands. */
import type { Clock } from '../../env/clock.ts';
import { RpcError, RpcStatus, type ServerCall } from '../../env/net.ts';
import type { UnaryMethod } from '../../rpc/method.ts';
import type { ServiceBuilder } from '../../rpc/service-builder.ts';
import { tikvMethods } from '../../rpc/services.ts';
import { BatchCommandsStream } from './batch-stream.ts';
import type { CallInfo, RawKv, Respond } from './raw-kv.ts';
import { FORWARDED } from './redirecting-kv.ts';
import type { RequestMetrics, RequestType } from './request-metrics.ts';

/** Metadata of a client that wants this store to pass its calls on to another one. */
const FORWARDED_HOST = 'tikv-forwarded-host';

export interface TikvServiceOptions {
  readonly kv: RawKv;
  /** Every `host:port` under which clients know this store. */
  readonly ownAddresses: readonly string[];
  readonly clock: Clock;
  readonly metrics: RequestMetrics;
}

export class TikvService {
  readonly #options: TikvServiceOptions;
  readonly #streams = new Set<BatchCommandsStream>();

  constructor(options: TikvServiceOptions) {
    this.#options = options;
  }

  get streamCount(): number {
    return this.#streams.size;
  }

  addTo(builder: ServiceBuilder): void {
    const { kv } = this.#options;
    builder.rawStream(tikvMethods.batchCommands.path, (stream, call) => {
      this.#refuseForwarding(call);
      this.#streams.add(new BatchCommandsStream(stream, this.#options, (ended) => this.#streams.delete(ended)));
    });
    this.#unary(builder, tikvMethods.rawGet, 'raw_get', (request, call, respond) => kv.rawGet(request, call, respond));
    this.#unary(builder, tikvMethods.rawPut, 'raw_put', (request, call, respond) => kv.rawPut(request, call, respond));
    this.#unary(builder, tikvMethods.rawDelete, 'raw_delete', (request, call, respond) =>
      kv.rawDelete(request, call, respond),
    );
    this.#unary(builder, tikvMethods.rawBatchGet, 'raw_batch_get', (request, call, respond) =>
      kv.rawBatchGet(request, call, respond),
    );
    this.#unary(builder, tikvMethods.rawBatchPut, 'raw_batch_put', (request, call, respond) =>
      kv.rawBatchPut(request, call, respond),
    );
    this.#unary(builder, tikvMethods.rawBatchDelete, 'raw_batch_delete', (request, call, respond) =>
      kv.rawBatchDelete(request, call, respond),
    );
    this.#unary(builder, tikvMethods.rawScan, 'raw_scan', (request, call, respond) =>
      kv.rawScan(request, call, respond),
    );
    this.#unary(builder, tikvMethods.rawBatchScan, 'raw_batch_scan', (request, call, respond) =>
      kv.rawBatchScan(request, call, respond),
    );
    this.#unary(builder, tikvMethods.rawDeleteRange, 'raw_delete_range', (request, call, respond) =>
      kv.rawDeleteRange(request, call, respond),
    );
    this.#unary(builder, tikvMethods.rawCompareAndSwap, 'raw_compare_and_swap', (request, call, respond) =>
      kv.rawCompareAndSwap(request, call, respond),
    );
    this.#unary(builder, tikvMethods.rawGetKeyTTL, 'raw_get_key_ttl', (request, call, respond) =>
      kv.rawGetKeyTTL(request, call, respond),
    );
    this.#unary(builder, tikvMethods.rawChecksum, 'raw_checksum', (request, call, respond) =>
      kv.rawChecksum(request, call, respond),
    );
    this.#unary(builder, tikvMethods.splitRegion, 'split_region', (request, call, respond) =>
      kv.splitRegion(request, call, respond),
    );
    this.#unary(builder, tikvMethods.rawCoprocessor, 'other', (request, call, respond) =>
      kv.rawCoprocessor(request, call, respond),
    );
    this.#unary(builder, tikvMethods.unsafeDestroyRange, 'other', (request, call, respond) =>
      kv.unsafeDestroyRange(request, call, respond),
    );
    this.#unary(builder, tikvMethods.getHealthFeedback, 'other', (request, call, respond) =>
      kv.getHealthFeedback(request, call, respond),
    );
  }

  /** Ends every batch stream after its last reply. */
  endStreams(): void {
    for (const stream of [...this.#streams]) {
      stream.end();
    }
  }

  /** Nothing is passed on: the client then goes to the other store itself. */
  #refuseForwarding(call: ServerCall): void {
    const wanted = call.metadata[FORWARDED_HOST];
    if (wanted !== undefined && !this.#options.ownAddresses.includes(wanted.replace(/^[a-z]+:\/\//, ''))) {
      throw new RpcError(RpcStatus.UNAVAILABLE, `this store does not forward to ${wanted}`);
    }
  }

  #unary<Request, Reply extends { readonly regionError?: unknown }>(
    builder: ServiceBuilder,
    method: UnaryMethod<Request, Reply>,
    type: RequestType,
    handle: (request: Request, call: CallInfo, respond: Respond<Reply>) => void,
  ): void {
    const { clock, metrics } = this.#options;
    builder.unary(
      method,
      (request: Request, serverCall: ServerCall) =>
        new Promise<Reply>((resolve) => {
          this.#refuseForwarding(serverCall);
          const nowMs = clock.monoMs();
          const isForwarded = serverCall.metadata[FORWARDED] !== undefined;
          handle(request, { nowMs, timeoutMs: serverCall.timeoutMs, isForwarded }, (reply) => {
            metrics.done(type, clock.monoMs() - nowMs, reply.regionError !== undefined);
            resolve(reply);
          });
        }),
    );
  }
}
