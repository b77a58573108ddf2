/** One store with one region over the memory engine; writes take effect at once, without Raft. */
import { utf8 } from '../../../src/base/bytes.ts';
import { rangeContains, rangeCovers } from '../../../src/base/key-range.ts';
import { peerId, regionId, storeId } from '../../../src/base/ids.ts';
import { decodeDataValue, encodeDataValue, isExpired } from '../../../src/codec/data-value.ts';
import type { RegionError } from '../../../src/codec/region-error.ts';
import { createMemoryEngineFactory, MemoryDisk } from '../../../src/engine/index.ts';
import { dataKey, dataRange } from '../../../src/engine/keyspace.ts';
import type { CorruptionError, Engine } from '../../../src/env/engine.ts';
import { createRng } from '../../../src/env/rng.ts';
import type { Context } from '../../../src/gen/kvrpcpb.ts';
import type { Region } from '../../../src/meta/region.ts';
import type { AdminOutcome, AdminRequest, OpResult, ReadRequest, WriteRequest } from '../../../src/raftstore/msg.ts';
import { type KvBackend, RawKv } from '../../../src/server/service/raw-kv.ts';
import { ManualClock } from '../../support/manual-clock.ts';

export const CLUSTER = '77';
export const STORE = 4;

export const REGION: Region = {
  id: regionId(2),
  range: { start: utf8('b'), end: utf8('y') },
  epoch: { confVer: 3, version: 5 },
  peers: [{ id: peerId(9), storeId: storeId(STORE), role: 'voter' }],
};

export const context = (change: Partial<Context> = {}): Context => ({
  regionId: REGION.id,
  regionEpoch: { ...REGION.epoch },
  peer: { id: 9, storeId: STORE, role: 0, isWitness: false },
  term: 0,
  priority: 0,
  replicaRead: false,
  maxExecutionDurationMs: 0,
  staleRead: false,
  isRetryRequest: false,
  apiVersion: 0,
  requestSource: '',
  busyThresholdMs: 0,
  keyspaceId: 0,
  clusterId: '0',
  ...change,
});

export class KvFixture implements KvBackend {
  readonly clock: ManualClock;
  readonly engine: Engine;
  readonly kv: RawKv;
  readonly writes: WriteRequest[] = [];
  readonly reads: ReadRequest[] = [];
  readonly admins: AdminRequest[] = [];
  readonly damage: CorruptionError[] = [];
  region: Region = REGION;
  /** Refuses everything with this error. */
  refusal: RegionError | undefined;
  /** Requests stay unanswered until {@link release}. */
  isHolding = false;
  adminOutcome: AdminOutcome = { type: 'ok', regions: [REGION] };
  #held: (() => void)[] = [];

  private constructor(clock: ManualClock, engine: Engine, enableTtl: boolean) {
    this.clock = clock;
    this.engine = engine;
    this.kv = new RawKv({
      identity: { clusterId: CLUSTER, storeId: STORE },
      clock,
      engine,
      backend: this,
      enableTtl,
      keySizeMaxBytes: 16,
      onDamage: (error) => this.damage.push(error),
    });
  }

  static async open(options: { readonly enableTtl?: boolean } = {}): Promise<KvFixture> {
    const clock = new ManualClock();
    const disk = new MemoryDisk(createRng(1), { readDelayMs: [0, 0], writeDelayMs: [0, 0] });
    const engine = await clock.settle(
      createMemoryEngineFactory(disk, clock).open({ path: 'db', createIfMissing: true }),
    );
    return new KvFixture(clock, engine, options.enableTtl ?? true);
  }

  /** Sends one request and lets everything happen. */
  async ask<Request, Reply>(
    method: (
      request: Request,
      call: { nowMs: number; timeoutMs: number | undefined },
      respond: (reply: Reply) => void,
    ) => void,
    request: Request,
  ): Promise<Reply> {
    const reply = new Promise<Reply>((resolve) => {
      method.call(this.kv, request, { nowMs: this.clock.monoMs(), timeoutMs: undefined }, resolve);
    });
    return this.clock.settle(reply);
  }

  async put(key: string, value: string, expireAtSeconds = 0): Promise<void> {
    const batch = this.engine.createBatch();
    batch.put(dataKey(utf8(key)), encodeDataValue(utf8(value), expireAtSeconds));
    await this.clock.settle(this.engine.write(batch));
  }

  async putRaw(key: string, stored: Uint8Array): Promise<void> {
    const batch = this.engine.createBatch();
    batch.put(dataKey(utf8(key)), stored);
    await this.clock.settle(this.engine.write(batch));
  }

  nowSeconds(): number {
    return Math.floor(this.clock.wallMs() / 1000);
  }

  release(): void {
    this.isHolding = false;
    for (const go of this.#held.splice(0)) {
      go();
    }
  }

  // ------------------------------------------------------------------------------------------------- KvBackend

  read(request: ReadRequest): void {
    this.reads.push(request);
    this.#go(() => {
      const outside = request.keys.find((key) => !rangeContains(this.region.range, key));
      if (this.refusal !== undefined) {
        request.respond({ type: 'refused', error: this.refusal });
      } else if (outside !== undefined) {
        request.respond({
          type: 'refused',
          error: { type: 'key-not-in-region', key: outside, regionId: this.region.id, range: this.region.range },
        });
      } else {
        request.respond({ type: 'ok', region: this.region });
      }
    });
  }

  write(request: WriteRequest): void {
    this.writes.push(request);
    this.#go(() => {
      if (this.refusal !== undefined) {
        request.respond({ type: 'refused', error: this.refusal });
        return;
      }
      void this.#apply(request);
    });
  }

  admin(request: AdminRequest): void {
    this.admins.push(request);
    request.respond(this.adminOutcome);
  }

  #go(handle: () => void): void {
    if (this.isHolding) {
      this.#held.push(handle);
    } else {
      handle();
    }
  }

  async #apply(request: WriteRequest): Promise<void> {
    const results: OpResult[] = [];
    for (const op of request.ops) {
      const batch = this.engine.createBatch();
      let result: OpResult = { type: 'done' };
      if (op.type === 'put') {
        batch.put(dataKey(op.key), encodeDataValue(op.value, op.expireAtSeconds));
      } else if (op.type === 'delete') {
        batch.del(dataKey(op.key));
      } else if (op.type === 'delete-range') {
        if (!rangeCovers(this.region.range, op.range)) {
          request.respond({
            type: 'refused',
            error: {
              type: 'key-not-in-region',
              key: op.range.start,
              regionId: this.region.id,
              range: this.region.range,
            },
          });
          return;
        }
        const { entries } = await this.engine.scan({ range: dataRange(op.range), limit: 1000, keysOnly: true });
        for (const [key] of entries) {
          batch.del(key);
        }
      } else if (op.type === 'compare-and-swap') {
        const stored = await this.engine.get(dataKey(op.key));
        const current = stored === undefined ? undefined : decodeDataValue(stored);
        const previous =
          current === undefined || isExpired(current.expireAtSeconds, op.nowSeconds) ? undefined : current.value;
        const matches =
          op.expected === undefined
            ? previous === undefined
            : previous !== undefined && Buffer.compare(previous, op.expected) === 0;
        if (matches && op.deletes) {
          batch.del(dataKey(op.key));
        } else if (matches) {
          batch.put(dataKey(op.key), encodeDataValue(op.value, op.expireAtSeconds));
        }
        result = { type: 'compared', swapped: matches, previous };
      }
      await this.engine.write(batch);
      results.push(result);
    }
    request.respond({ type: 'ok', results });
  }
}
