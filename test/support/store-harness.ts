/**
 * A store without peers, network or Raft: apply FSMs, workers and the region map over the memory engine, with every
 * message to the outside recorded. Tests decide when rounds happen and at which write the machine dies.
 */
import { LeaseClock } from '../../src/raft/lease.ts';
import { utf8 } from '../../src/base/bytes.ts';
import { peerId, regionId, storeId, type RegionId } from '../../src/base/ids.ts';
import type { AdminCommand, RaftCommand, WriteOp } from '../../src/codec/command.ts';
import { decodeDataValue } from '../../src/codec/data-value.ts';
import {
  decodeApplyState,
  decodeRegionLocalState,
  encodeApplyState,
  encodeRaftCommand,
  encodeRegionLocalState,
} from '../../src/codec/raft-records.ts';
import type { ApplyState, RegionLocalState } from '../../src/codec/store-record.ts';
import { createMemoryEngineFactory } from '../../src/engine/index.ts';
import { MemoryDisk } from '../../src/engine/memory/crash-model.ts';
import { applyStateKey, dataKey, dataRange, regionStateKey, userKeyOf } from '../../src/engine/keyspace.ts';
import type { Engine, WriteBatch } from '../../src/env/engine.ts';
import type { FailpointAction, Failpoints } from '../../src/env/failpoints.ts';
import type { FailpointName } from '../../src/env/failpoint-names.ts';
import { SILENT_LOGGER } from '../../src/env/log.ts';
import { createRng } from '../../src/env/rng.ts';
import type { Peer, Region, RegionEpoch } from '../../src/meta/region.ts';
import { EntryType, type Entry } from '../../src/raft/types.ts';
import { ApplyFsm, type ApplyRegistration } from '../../src/raftstore/apply/apply-fsm.ts';
import { DEFAULT_RAFTSTORE_CONFIG, type RaftstoreConfig } from '../../src/raftstore/config.ts';
import type { Router, StoreContext } from '../../src/raftstore/context.ts';
import type {
  ApplyResult,
  ApplyTask,
  EntryOutcome,
  ExecResult,
  PeerMsg,
  PendingProposal,
  StoreMsg,
} from '../../src/raftstore/msg.ts';
import { StoreMeta } from '../../src/raftstore/store/store-meta.ts';
import { createWorkers, type StoreWorkers } from '../../src/raftstore/worker/workers.ts';
import { drainMicrotasks, ManualClock } from './manual-clock.ts';

export const STORE = 1;
const PATH = 'store';

/** The store stopped itself. */
export class Aborted extends Error {}

export interface RegionSketch {
  readonly id: number;
  readonly start?: string;
  readonly end?: string;
  readonly epoch?: RegionEpoch;
  readonly peers?: readonly Peer[];
}

export const voter = (id: number, store: number, role: Peer['role'] = 'voter'): Peer => ({
  id: peerId(id),
  storeId: storeId(store),
  role,
});

/** Three voters on stores 1 to 3 with ids id*10+1 to id*10+3, unless told otherwise. */
export function sketchRegion(sketch: RegionSketch): Region {
  const { id, start = '', end = '', epoch = { confVer: 1, version: 1 } } = sketch;
  return {
    id: regionId(id),
    range: { start: utf8(start), end: utf8(end) },
    epoch,
    peers: sketch.peers ?? [1, 2, 3].map((store) => voter(id * 10 + store, store)),
  };
}

export const FRESH: ApplyState = {
  appliedIndex: 5,
  appliedTerm: 5,
  commitIndex: 5,
  commitTerm: 5,
  truncatedIndex: 5,
  truncatedTerm: 5,
};

export const put = (key: string, value: string, expireAtSeconds = 0): WriteOp => ({
  type: 'put',
  key: utf8(key),
  value: utf8(value),
  expireAtSeconds,
});

export const del = (key: string): WriteOp => ({ type: 'delete', key: utf8(key) });

export const delRange = (start: string, end: string): WriteOp => ({
  type: 'delete-range',
  range: { start: utf8(start), end: utf8(end) },
});

export const cas = (
  key: string,
  expected: string | undefined,
  value: string,
  more: { readonly deletes?: boolean; readonly nowSeconds?: number; readonly expireAtSeconds?: number } = {},
): WriteOp => ({
  type: 'compare-and-swap',
  key: utf8(key),
  expected: expected === undefined ? undefined : utf8(expected),
  value: utf8(value),
  expireAtSeconds: more.expireAtSeconds ?? 0,
  deletes: more.deletes ?? false,
  nowSeconds: more.nowSeconds ?? 1000,
});

export const writeEntry = (index: number, epoch: RegionEpoch, ops: readonly WriteOp[], term = 6): Entry =>
  commandEntry(index, { type: 'write', epoch, ops }, term);

export const adminEntry = (index: number, epoch: RegionEpoch, command: AdminCommand, term = 6): Entry =>
  commandEntry(index, { type: 'admin', epoch, command }, term);

const commandEntry = (index: number, command: RaftCommand, term: number): Entry => ({
  type: EntryType.Normal,
  term,
  index,
  data: encodeRaftCommand(command),
});

/** The same value with every byte string as a plain Uint8Array; decoders may give Buffers, which compare unequal. */
export function plain<T>(value: T): T {
  const convert = (each: unknown): unknown => {
    if (each instanceof Uint8Array) {
      return new Uint8Array(each);
    }
    if (Array.isArray(each)) {
      return each.map(convert);
    }
    return each !== null && typeof each === 'object' && !(each instanceof Set)
      ? Object.fromEntries(Object.entries(each).map(([key, part]) => [key, convert(part)]))
      : each;
  };
  return convert(value) as T;
}

interface ApplySlot {
  readonly fsm: ApplyFsm;
  readonly mailbox: ApplyTask[];
}

class Points implements Failpoints {
  readonly held: Set<FailpointName> = new Set();

  hit(name: FailpointName): FailpointAction | undefined {
    return this.held.has(name) ? { type: 'pause' } : undefined;
  }
}

export class StoreHarness implements Router {
  readonly clock: ManualClock;
  readonly disk: MemoryDisk;
  readonly config: RaftstoreConfig;
  readonly engine: Engine;
  readonly meta: StoreMeta = new StoreMeta();
  readonly points: Points = new Points();
  readonly ctx: StoreContext;
  readonly workers: StoreWorkers;
  readonly applies: Map<number, ApplySlot> = new Map();
  /** Messages to peer FSMs in order. */
  readonly toPeers: { readonly region: number; readonly msg: PeerMsg }[] = [];
  readonly toStores: StoreMsg[] = [];
  /** Regions that have a peer FSM; all others refuse messages. */
  readonly peers: Set<number> = new Set();
  /** Batches that became durable. */
  writes = 0;
  /** The machine dies right after this batch is durable and before anybody hears of it. */
  crashAtWrite: number | undefined;
  /** Batches handed to the engine. */
  submissions = 0;
  /** The machine dies when this batch is handed over; it may or may not survive. */
  crashAtSubmission: number | undefined;
  isCrashed = false;
  aborted: string | undefined;

  private constructor(disk: MemoryDisk, clock: ManualClock, engine: Engine, config: RaftstoreConfig) {
    this.disk = disk;
    this.clock = clock;
    this.config = config;
    this.engine = this.#watched(engine);
    const abort = (reason: string, cause?: unknown): never => {
      this.aborted ??= reason;
      throw new Aborted(reason, { cause });
    };
    const env = {
      engine: this.engine,
      config,
      clock,
      log: SILENT_LOGGER,
      meta: this.meta,
      failpoints: this.points,
      router: this,
      abort,
    };
    this.workers = createWorkers(env);
    this.ctx = {
      leaseClock: new LeaseClock(clock),
      ...env,
      storeId: STORE,
      rng: createRng(1),
      pendingCreatePeers: new Map(),
      transport: { send: () => {}, sendSnapshot: () => {}, flush: () => {} },
      pd: {
        regionHeartbeat: () => {},
        storeHeartbeat: () => Promise.resolve([]),
        askBatchSplit: () => Promise.resolve([]),
        reportBatchSplit: () => {},
        getRegionById: () => Promise.resolve(undefined),
      },
      workers: this.workers,
      snapshots: this.workers.snapshots,
      write: (batch, done) => {
        void this.engine.write(batch).then(done);
      },
      writeLazily: (batch, done) => {
        void this.engine.write(batch).then(done);
      },
      flushWrites: () => {},
    };
  }

  static async open(config: Partial<RaftstoreConfig> = {}): Promise<StoreHarness> {
    const disk = new MemoryDisk(createRng(7), { earlyVisibleChance: 0.3 });
    return StoreHarness.#openOn(disk, { ...DEFAULT_RAFTSTORE_CONFIG, ...config });
  }

  static async #openOn(disk: MemoryDisk, config: RaftstoreConfig): Promise<StoreHarness> {
    const clock = new ManualClock();
    const factory = createMemoryEngineFactory(disk, clock);
    const engine = await clock.settle(factory.open({ path: PATH, createIfMissing: true }));
    return new StoreHarness(disk, clock, engine, config);
  }

  /** Loses power (unless that has happened already) and comes back with what was durable. */
  async restart(): Promise<StoreHarness> {
    if (!this.isCrashed) {
      this.disk.crash('power-loss');
    }
    return StoreHarness.#openOn(this.disk, this.config);
  }

  #watched(engine: Engine): Engine {
    const write = async (batch: WriteBatch): Promise<void> => {
      const written = engine.write(batch);
      this.submissions++;
      if (this.submissions === this.crashAtSubmission) {
        this.isCrashed = true;
        this.disk.crash('power-loss');
      }
      await written;
      this.writes++;
      if (this.writes === this.crashAtWrite) {
        this.isCrashed = true;
        this.disk.crash('power-loss');
      }
      if (this.isCrashed) {
        await new Promise<never>(() => {});
      }
    };
    return {
      createBatch: () => engine.createBatch(),
      write,
      getSync: (key) => engine.getSync(key),
      get: (key, snapshot) => engine.get(key, snapshot),
      getMany: (keys, snapshot) => engine.getMany(keys, snapshot),
      scan: (options) => engine.scan(options),
      snapshot: () => engine.snapshot(),
      approximateSize: (range) => engine.approximateSize(range),
      health: () => engine.health(),
      onPoisoned: (listener) => engine.onPoisoned(listener),
      close: () => engine.close(),
    };
  }

  // ------------------------------------------------------------------------------------------------ Router

  toPeer(region: RegionId, msg: PeerMsg): boolean {
    if (!this.peers.has(region)) {
      return false;
    }
    this.toPeers.push({ region, msg });
    return true;
  }

  toApply(region: RegionId, task: ApplyTask): boolean {
    const slot = this.applies.get(region);
    slot?.mailbox.push(task);
    return slot !== undefined;
  }

  toStore(msg: StoreMsg): void {
    this.toStores.push(msg);
  }

  hasPeer(region: RegionId): boolean {
    return this.peers.has(region);
  }

  applyConflict(region: RegionId, keys: readonly Uint8Array[] | undefined): number {
    return this.applies.get(region)?.fsm.conflictIndex(keys) ?? 0;
  }

  hasApply(region: RegionId): boolean {
    return this.applies.has(region);
  }

  registerApply(registration: ApplyRegistration): void {
    this.applies.set(registration.region.id, { fsm: new ApplyFsm(this.ctx, registration), mailbox: [] });
  }

  closePeer(region: RegionId): void {
    this.peers.delete(region);
  }

  wake(): void {}

  setMergedInto(): void {}

  mergedInto(): Region | undefined {
    return undefined;
  }

  createSplitPeer(): void {
    throw new Error('the harness creates no peers');
  }

  // ------------------------------------------------------------------------------------------------ driving

  /** One round: every FSM with mail handles what has arrived so far. */
  round(): boolean {
    let worked = false;
    for (const slot of [...this.applies.values()]) {
      const mail = slot.mailbox.splice(0);
      for (const task of mail) {
        slot.fsm.handle(task);
        worked = true;
      }
      if (mail.length > 0) {
        slot.fsm.endRound();
      }
    }
    return worked;
  }

  /** Rounds and completions until nothing is left to happen or `until` holds. */
  async run(until: () => boolean = () => false): Promise<void> {
    await drainMicrotasks();
    for (let steps = 0; steps < 100_000 && !this.isCrashed; steps++) {
      if (until()) {
        return;
      }
      if (!this.round() && !(await this.clock.step())) {
        return;
      }
      await drainMicrotasks();
    }
    if (!this.isCrashed) {
      throw new Error('the store does not come to rest');
    }
  }

  /** Waits for a promise while rounds go on. */
  async wait<T>(promise: Promise<T>): Promise<T> {
    let isSettled = false;
    const mark = (): void => {
      isSettled = true;
    };
    promise.then(mark, mark);
    await this.run(() => isSettled);
    if (!isSettled) {
      throw new Error('nothing left to happen, and the promise is still pending');
    }
    return promise;
  }

  // ------------------------------------------------------------------------------------------------ regions

  /** Puts a region on disk and into the map, with a peer that records its mail. */
  async seed(
    region: Region,
    more: { readonly applyState?: ApplyState; readonly state?: RegionLocalState } = {},
  ): Promise<void> {
    const batch = this.engine.createBatch();
    const state = more.state ?? { state: 'normal', region, mergeState: undefined };
    batch.put(regionStateKey(region.id), encodeRegionLocalState(state));
    batch.put(applyStateKey(region.id), encodeApplyState(more.applyState ?? FRESH));
    await this.wait(this.engine.write(batch));
    this.own(region);
  }

  /** Puts a region into the map only. */
  own(region: Region): void {
    this.meta.regions.set(region.id, region);
    this.meta.insertRange(region);
    this.peers.add(region.id);
  }

  /** Creates the apply FSM of a region from its records on disk. */
  start(id: number): ApplyFsm {
    const state = this.stateOf(id);
    const applyState = this.applyStateOf(id);
    if (state === undefined || applyState === undefined) {
      throw new Error(`region ${id} is not on disk`);
    }
    const { region } = state;
    const self = region.peers.find((peer) => peer.storeId === STORE);
    if (self === undefined) {
      throw new Error(`region ${id} has no peer here`);
    }
    this.peers.add(id);
    this.registerApply({ peerId: self.id, region, applyState, isMerging: state.state === 'merging' });
    return (this.applies.get(id) as ApplySlot).fsm;
  }

  /** Hands entries to the region's apply FSM, with one recorded proposal per entry. */
  apply(
    id: number,
    entries: readonly Entry[],
    commit?: { readonly index: number; readonly term: number },
  ): EntryOutcome[] {
    const last = entries[entries.length - 1] as Entry;
    const outcomes: EntryOutcome[] = [];
    const proposals = entries.map(
      (entry, i): PendingProposal => ({
        index: entry.index,
        term: entry.term,
        complete: (outcome) => {
          if (outcomes[i] !== undefined) {
            throw new Error(`proposal ${entry.index} is completed twice`);
          }
          outcomes[i] = outcome;
        },
      }),
    );
    const delivered = this.toApply(regionId(id), {
      type: 'apply',
      entries,
      commitIndex: commit?.index ?? last.index,
      commitTerm: commit?.term ?? last.term,
      proposals,
    });
    if (!delivered) {
      throw new Error(`region ${id} has no apply FSM`);
    }
    return outcomes;
  }

  // ------------------------------------------------------------------------------------------------ looking

  stateOf(id: number): RegionLocalState | undefined {
    const bytes = this.engine.getSync(regionStateKey(regionId(id)));
    return bytes === undefined ? undefined : decodeRegionLocalState(bytes);
  }

  applyStateOf(id: number): ApplyState | undefined {
    const bytes = this.engine.getSync(applyStateKey(regionId(id)));
    return bytes === undefined ? undefined : decodeApplyState(bytes);
  }

  valueOf(key: string): string | undefined {
    const bytes = this.engine.getSync(dataKey(utf8(key)));
    return bytes === undefined ? undefined : Buffer.from(decodeDataValue(bytes)?.value ?? []).toString();
  }

  /** Every user key on disk. */
  async keys(): Promise<string[]> {
    const full = dataRange({ start: new Uint8Array(0), end: new Uint8Array(0) });
    const page = await this.wait(this.engine.scan({ range: full, limit: 100_000, keysOnly: true }));
    return page.entries.map(([key]) => Buffer.from(userKeyOf(key)).toString());
  }

  messages<T extends PeerMsg['type']>(id: number, type: T): Extract<PeerMsg, { type: T }>[] {
    return this.toPeers.flatMap(({ region, msg }) =>
      region === id && msg.type === type ? [msg as Extract<PeerMsg, { type: T }>] : [],
    );
  }

  results(id: number): ApplyResult[] {
    return this.messages(id, 'applied').map(({ result }) => result);
  }

  execResults<T extends ExecResult['type']>(id: number, type: T): Extract<ExecResult, { type: T }>[] {
    return this.results(id).flatMap(({ results }) =>
      results.flatMap((each) => (each.type === type ? [each as Extract<ExecResult, { type: T }>] : [])),
    );
  }
}
