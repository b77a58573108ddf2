/**
 * A scripted scenario: the same script over many seeds of message delay, disk delay and actor scheduling, with the
 * invariants watched all the time and liveness asked for at the end. The first seed is calm (fair actors, quick
 * network), so that a script that fails there fails for its own reason. `SCENARIO_SEEDS` sets the number of seeds,
 * `SCENARIO_FIRST_SEED` the first.
 */
import { expect, test } from 'vitest';
import { assert } from '../../../src/base/assert.ts';
import { compareBytes, fromUtf8, utf8 } from '../../../src/base/bytes.ts';
import { logIndex, peerId, regionId, storeId } from '../../../src/base/ids.ts';
import { rangeContains } from '../../../src/base/key-range.ts';
import type { AdminType } from '../../../src/codec/command.ts';
import type { PeerMessage } from '../../../src/codec/peer-message.ts';
import { decodeEntry, decodeRaftCommand, decodeRegionLocalState } from '../../../src/codec/raft-records.ts';
import type { RegionLocalState } from '../../../src/codec/store-record.ts';
import { raftLogRange, regionLocalRange, regionStateKey } from '../../../src/engine/keyspace.ts';
import type { FailpointName } from '../../../src/env/failpoint-names.ts';
import { createRng, type Rng } from '../../../src/env/rng.ts';
import { findPeerOnStore, type Peer, type Region, type RegionEpoch } from '../../../src/meta/region.ts';
import type { AdminRequestBody, ApplyResult } from '../../../src/raftstore/msg.ts';
import type { RegionStatus } from '../../../src/raftstore/store/raft-store.ts';
import { EntryType, MsgType } from '../../../src/raft/types.ts';
import { Invariants, InvariantError, type ObservedMachine } from '../../sim/invariants.ts';
import { type ClusterObserver, type ClusterOptions, StoreCluster } from '../../sim/store-cluster.ts';
import { Actors } from './actors.ts';
import { attempt, CONFIG } from '../support.ts';
import { RegisterClients } from './registers.ts';

const SEEDS = Number(process.env['SCENARIO_SEEDS'] ?? 10);
const FIRST_SEED = Number(process.env['SCENARIO_FIRST_SEED'] ?? 1);
/** Real time one seed may take on a busy machine. */
const MS_PER_SEED = 6_000;

/** Logs are compacted early: whoever was away needs a snapshot. */
export const EARLY_GC = { logGcThreshold: 2, logGcCountLimit: 5, mergeMaxLogGap: 4 } as const;

export interface ScenarioOptions extends Partial<ClusterOptions> {
  /** Fair actors and quick links in every seed: the script counts messages or needs exact moments. */
  readonly isExact?: boolean;
  /** At most this many seeds of the bounded run: for scripts that take long. */
  readonly seedsMax?: number;
}

export interface Ticket<T> {
  readonly what: string;
  readonly answers: T[];
  readonly store: number;
  readonly incarnation: number;
}

/** Registers one test that runs the script with every seed. */
export function scenario(name: string, options: ScenarioOptions, script: (s: Scenario) => Promise<void>): void {
  const wanted = process.env['SCENARIO_SEEDS'] === undefined ? Math.min(SEEDS, options.seedsMax ?? SEEDS) : SEEDS;
  test(name, { timeout: 30_000 + wanted * MS_PER_SEED }, async () => {
    for (let seed = FIRST_SEED; seed < FIRST_SEED + wanted; seed++) {
      const s = await Scenario.start(seed, options);
      try {
        await script(s);
        await s.finish();
      } catch (error) {
        const text = error instanceof Error ? error.message : String(error);
        throw new Error(`seed ${seed}: ${text}\n${s.c.describe()}`, { cause: error });
      }
    }
  });
}

/** What became of merges, told by the results of apply: an attempt is committed or rolled back, never both (I14). */
class MergeLedger {
  readonly #ends: Map<string, 'committed' | 'rolled back'> = new Map();
  commits = 0;
  rollbacks = 0;

  onApplied({ results }: ApplyResult): void {
    for (const result of results) {
      if (result.type === 'commit-merge') {
        this.commits++;
        this.#note(`${result.source.id}@${result.source.epoch.version}`, 'committed');
      } else if (result.type === 'rollback-merge') {
        this.rollbacks++;
        this.#note(`${result.region.id}@${result.region.epoch.version - 1}`, 'rolled back');
      }
    }
  }

  #note(attemptName: string, end: 'committed' | 'rolled back'): void {
    const known = this.#ends.get(attemptName);
    if (known !== undefined && known !== end) {
      throw new InvariantError('I14', `the merge of ${attemptName} was ${known} and ${end}`);
    }
    this.#ends.set(attemptName, end);
  }
}

export class Scenario {
  readonly seed: number;
  readonly c: StoreCluster;
  readonly rng: Rng;
  readonly actors: Actors;
  readonly invariants: Invariants;
  readonly merges: MergeLedger = new MergeLedger();
  readonly #tickets: Ticket<unknown>[] = [];
  readonly #rows: Map<string, string | undefined> = new Map();
  #traffic: RegisterClients | undefined;
  #lastMerge: Ticket<string> | undefined;
  #nextMergeMs = 0;

  private constructor(seed: number, cluster: StoreCluster, rng: Rng, isCalm: boolean) {
    this.seed = seed;
    this.c = cluster;
    this.rng = rng;
    const unfair = [
      { chance: 0.02, maxMs: 20 },
      { chance: 0.1, maxMs: 5 },
      { chance: 0.01, maxMs: 150 },
      { chance: 0.3, maxMs: 2 },
    ];
    this.actors = new Actors(cluster, rng.fork('actors'), isCalm ? { chance: 0, maxMs: 0 } : rng.pick(unfair));
    const observed = (id: number): ObservedMachine | undefined => {
      const machine = cluster.machines.get(storeId(id));
      return machine === undefined
        ? undefined
        : { id, store: machine.store, incarnation: machine.incarnation, database: machine.disk.database('db') };
    };
    this.invariants = new Invariants(
      () => [...cluster.machines.keys()].map((id) => observed(id) as ObservedMachine),
      observed,
    );
  }

  static async start(seed: number, options: ScenarioOptions): Promise<Scenario> {
    const rng = createRng(seed * 7919 + 13);
    const isCalm = seed === 1 || options.isExact === true;
    const delays = [
      [0.2, 2],
      [0.1, 0.4],
      [0.2, 12],
      [5, 30],
    ] as const;
    const { isExact: _, seedsMax: __, ...clusterOptions } = options;
    const cluster = await StoreCluster.start({
      seed,
      stores: 3,
      ...clusterOptions,
      config: { ...CONFIG, ...options.config },
      network: isCalm
        ? { ...options.network }
        : { delayMs: rng.pick(delays), duplicateChance: rng.pick([0, 0.05]), ...options.network },
    });
    const s = new Scenario(seed, cluster, rng, isCalm);
    for (const { id, disk, store } of cluster.machines.values()) {
      if (!isCalm) {
        disk.setBehavior({
          writeDelayMs: rng.pick([
            [0.2, 2],
            [0.05, 0.2],
            [0.5, 15],
          ] as const),
        });
      }
      if (store !== undefined) {
        s.actors.attach(id, store);
      }
    }
    s.actors.onPost = (post) => {
      if (post.msg.type === 'applied') {
        s.merges.onApplied(post.msg.result);
      }
    };
    cluster.observer = s.#observer();
    await cluster.mustLeader(1);
    return s;
  }

  #observer(): ClusterObserver {
    const { invariants } = this;
    return {
      afterEvent: (node, kind) => invariants.afterEvent(node, kind),
      onSend: (message, store) => invariants.onSend(message, store),
      onReceive: (message, store) => invariants.onReceive(message, store),
      beforeDeath: (store) => invariants.beforeDeath(store),
      onBoot: (store) => {
        invariants.onBoot(store);
        this.actors.attach(store, this.c.store(store));
      },
    };
  }

  // ------------------------------------------------------------------------------------------ rows

  /** Writes a row that must be there at the end. */
  async put(key: string, value: string): Promise<void> {
    await this.c.mustPut(key, value);
    this.#rows.set(key, value);
  }

  /** What the end expects of a key. */
  expectRow(key: string, value: string | undefined): void {
    this.#rows.set(key, value);
  }

  /** Clients that write and read these keys until the end; their history is checked. */
  traffic(keys: readonly string[]): RegisterClients {
    this.#traffic ??= new RegisterClients(this.c, this.rng.fork('traffic'), keys);
    return this.#traffic;
  }

  // ------------------------------------------------------------------------------------------ regions

  /** Two regions around `k` with a row in each, all leaders on `leader`; the right one keeps the id of the first. */
  async twoRegions(leader: number | undefined = 1): Promise<{ left: Region; right: Region }> {
    await this.put('a', '1');
    await this.put('z', '2');
    const [left, right] = await this.c.mustSplit('k');
    await this.c.settle();
    if (leader !== undefined) {
      await this.lead(left, leader);
      await this.lead(right, leader);
      await this.c.settle();
    }
    return { left: this.now(left), right: this.now(right) };
  }

  /** The newest descriptor of a region any live store has. */
  now(region: Region): Region {
    const found = this.c.region(region.id);
    assert(found !== undefined, 'no store has the region', { region: region.id });
    return found;
  }

  lead(region: Region, store: number): Promise<void> {
    return this.c.mustTransferLeader(region.id, store);
  }

  epoch(region: Region): RegionEpoch {
    return this.now(region).epoch;
  }

  status(store: number, region: Region): RegionStatus | undefined {
    return this.c.isUp(store)
      ? this.c
          .store(store)
          .status()
          .find((s) => s.region.id === region.id)
      : undefined;
  }

  holds(store: number, region: Region): boolean {
    return this.status(store, region) !== undefined;
  }

  /** The durable record of a region on a store. */
  record(store: number, region: Region): RegionLocalState | undefined {
    const bytes = this.c.machine(store).disk.database('db')?.view.get(regionStateKey(region.id));
    return bytes === undefined ? undefined : decodeRegionLocalState(bytes);
  }

  /** Whether any log entry or raft state of the region is left on a store's disk. */
  hasRaftRecords(store: number, region: Region): boolean {
    const { start, end } = regionLocalRange(region.id);
    for (const [key] of this.c.machine(store).disk.database('db')?.view.entriesFrom(start) ?? []) {
      return compareBytes(key, end) < 0;
    }
    return false;
  }

  stores(): number[] {
    return [...this.c.machines.keys()].map(Number);
  }

  memberStores(region: Region): number[] {
    return this.now(region).peers.map((p) => Number(p.storeId));
  }

  async untilState(region: Region, state: RegionLocalState['state'], stores?: readonly number[]): Promise<void> {
    const where = stores ?? region.peers.map((p) => Number(p.storeId));
    await this.c.until(
      `region ${region.id} is ${state} on ${where.join()}`,
      () =>
        where.every((store) => {
          const record = this.record(store, region);
          // The peer learns of the record a moment later.
          const isKnown =
            state !== 'normal' || this.status(store, region)?.region.epoch.version === record?.region.epoch.version;
          return record?.state === state && isKnown;
        }),
      120_000,
    );
  }

  /** Waits until no store runs a replica of the region any more. */
  async untilGone(region: Region, stores: readonly number[] = this.stores(), limitMs = 120_000): Promise<void> {
    await this.c.until(
      `region ${region.id} is gone from ${stores.join()}`,
      () => stores.every((store) => !this.holds(store, region)),
      limitMs,
    );
  }

  /** One attempt of an admin request; its outcome in one word. */
  attempt(region: Region, body: AdminRequestBody): Promise<string> {
    return attempt(this.c, region.id, body);
  }

  async addLearner(region: Region, store: number, id: number = this.c.nextId()): Promise<Peer> {
    const peer: Peer = { id: peerId(id), storeId: storeId(store), role: 'learner' };
    await this.c.mustAdmin(region.id, () => ({ type: 'change-peer', changes: [{ type: 'add-learner', peer }] }));
    return peer;
  }

  async promote(region: Region, peer: Peer): Promise<void> {
    await this.c.mustAdmin(region.id, () => ({
      type: 'change-peer',
      changes: [{ type: 'add-voter', peer: { ...peer, role: 'voter' } }],
    }));
  }

  /** Adds a voter and waits until it has the data. */
  async addVoter(region: Region, store: number): Promise<Peer> {
    const peer = await this.addLearner(region, store);
    await this.c.until(`data of region ${region.id} on store ${store}`, () => {
      const status = this.status(store, region);
      return status !== undefined && status.appliedIndex > 5 && status.state === 'normal';
    });
    await this.promote(region, peer);
    return peer;
  }

  async remove(region: Region, store: number): Promise<void> {
    await this.c.mustAdmin(region.id, () => {
      const peer = findPeerOnStore(this.now(region), storeId(store));
      return { type: 'change-peer', changes: peer === undefined ? [] : [{ type: 'remove', peer }] };
    });
  }

  /** Everything of the region that its members know is applied on the given stores. */
  async caughtUp(region: Region, stores: readonly number[]): Promise<void> {
    await this.c.until(`stores ${stores.join()} caught up in region ${region.id}`, () => {
      const all = stores.map((store) => this.status(store, region));
      return all.every((s) => s !== undefined && s.appliedIndex === s.lastIndex && s.lastIndex === all[0]?.lastIndex);
    });
  }

  /** Starts a merge; CommitMerge is held back until `release`. */
  async prepareHeld(source: Region, target: Region): Promise<() => void> {
    this.c.failpoints.set(`merge::before-commit#${source.id}`, { type: 'pause' });
    await this.c.prepareMerge(source.id, target.id);
    return () => {
      this.c.failpoints.delete(`merge::before-commit#${source.id}`);
    };
  }

  /** Asks for the merge, as a placement service would, until no store has the source any more. */
  mergeAway(source: Region, target: Region): Promise<void> {
    return this.mergeAwayOn(source, target, this.stores());
  }

  async mergeAwayOn(source: Region, target: Region, stores: readonly number[]): Promise<void> {
    for (let i = 0; i < 600 && stores.some((store) => this.holds(store, source)); i++) {
      const { c } = this;
      const expected = c.region(target.id);
      const leader = c.leaderStore(source.id);
      if (expected !== undefined && leader !== undefined && this.status(leader, source)?.state === 'normal') {
        await this.attempt(source, { type: 'merge', target: expected });
      }
      await c.advance(100);
    }
    await this.untilGone(source, stores);
  }

  // ------------------------------------------------------------------------------------------ faults

  /** Cuts the links of one region between stores; others go on. */
  cut(region: Region, store: number): () => void {
    return this.c.drop((m) => m.regionId === region.id && (m.to.storeId === store || m.from.storeId === store));
  }

  /** Holds back everything Raft sends a store for a region, letting the first `allowed` messages of a type through. */
  starve(region: Region, store: number, allowed: Readonly<Partial<Record<keyof typeof MsgType, number>>>): () => void {
    const left = new Map(Object.entries(allowed).map(([name, n]) => [MsgType[name as keyof typeof MsgType], n ?? 0]));
    return this.c.drop((m) => {
      if (m.regionId !== region.id || m.to.storeId !== store || m.body.type !== 'raft') {
        return false;
      }
      const rest = left.get(m.body.message.type) ?? 0;
      left.set(m.body.message.type, rest - 1);
      return rest <= 0;
    });
  }

  /** Copies of the messages a filter names, delivered or not. */
  capture(filter: (message: PeerMessage) => boolean): PeerMessage[] {
    const taken: PeerMessage[] = [];
    this.c.drop((m) => {
      if (filter(m)) {
        taken.push(m);
      }
      return false;
    });
    return taken;
  }

  /** Delivers a message now, whatever the network thinks. */
  deliver(message: PeerMessage): void {
    const { clock, store } = this.c.machine(message.to.storeId);
    clock.deliver(() => {
      this.invariants.onReceive(message, message.to.storeId);
      store?.receive(message);
    }, 'replayed');
  }

  /** Messages for one store that arrive in one event, in this order: nothing is handled in between. */
  deliverTogether(messages: readonly [PeerMessage, ...PeerMessage[]]): void {
    const { clock, store } = this.c.machine(messages[0].to.storeId);
    clock.deliver(() => {
      for (const message of messages) {
        this.invariants.onReceive(message, message.to.storeId);
        store?.receive(message);
      }
    }, 'replayed');
  }

  /** The store dies when it passes this point (for the given region); wait with {@link untilDown}. */
  crashAt(store: number, point: FailpointName, region?: Region): void {
    this.c.failpoints.set(`${store}!${point}${region === undefined ? '' : `#${region.id}`}`, { type: 'crash' });
  }

  async untilDown(store: number): Promise<void> {
    await this.c.until(`store ${store} dies`, () => !this.c.isUp(store), 120_000);
  }

  async restart(...stores: readonly number[]): Promise<void> {
    for (const store of stores) {
      this.c.crash(store);
    }
    for (const store of stores) {
      await this.c.restart(store);
    }
  }

  // ------------------------------------------------------------------------------------------ requests that count answers

  #ticket<T>(what: string, store: number): Ticket<T> {
    const ticket: Ticket<T> = { what, answers: [], store, incarnation: this.c.machine(store).incarnation };
    this.#tickets.push(ticket);
    return ticket;
  }

  /** A write at the region's replica on a store, with a given idea of the region. */
  askWrite(store: number, region: Region, key: string, value: string): Ticket<string> {
    const ticket = this.#ticket<string>(`write ${key}`, store);
    this.c.store(store).write({
      header: this.#header(store, region),
      ops: [{ type: 'put', key: utf8(key), value: utf8(value), expireAtSeconds: 0 }],
      respond: (outcome) => {
        ticket.answers.push(outcome.type === 'ok' ? 'ok' : outcome.error.type);
      },
    });
    return ticket;
  }

  askRead(store: number, region: Region, key: string, replicaRead = false): Ticket<string> {
    const ticket = this.#ticket<string>(`read ${key}`, store);
    this.c.store(store).read({
      header: this.#header(store, region),
      keys: [utf8(key)],
      replicaRead,
      respond: (outcome) => {
        ticket.answers.push(outcome.type === 'ok' ? 'ok' : outcome.error.type);
      },
    });
    return ticket;
  }

  askAdmin(store: number, region: Region, body: AdminRequestBody): Ticket<string> {
    const ticket = this.#ticket<string>(`admin ${body.type}`, store);
    this.c.store(store).admin({
      regionId: regionId(region.id),
      epoch: region.epoch,
      body,
      respond: (outcome) => {
        ticket.answers.push(
          outcome.type === 'ok' ? 'ok' : outcome.type === 'rejected' ? outcome.refusal.code : outcome.error.type,
        );
      },
    });
    return ticket;
  }

  /** Asks the leader on this store for the merge unless it was asked a moment ago or has not answered yet. */
  askAdminOnce(store: number, source: Region, target: Region): void {
    const known = this.status(store, source)?.region;
    const { nowMs } = this.c.scheduler;
    const isAnswered = this.#lastMerge === undefined || this.#lastMerge.answers.length > 0;
    if (known !== undefined && isAnswered && nowMs >= this.#nextMergeMs) {
      this.#nextMergeMs = nowMs + 50;
      this.#lastMerge = this.askAdmin(store, known, { type: 'merge', target: this.now(target) });
    }
  }

  #header(store: number, region: Region) {
    return {
      regionId: region.id,
      epoch: region.epoch,
      peerId: findPeerOnStore(region, storeId(store))?.id ?? peerId(1),
      term: 0,
      deadlineMonoMs: this.c.machine(store).clock.monoMs() + 5_000,
    };
  }

  async answer<T>(ticket: Ticket<T>): Promise<T> {
    await this.c.until(`an answer to ${ticket.what}`, () => ticket.answers.length > 0);
    return ticket.answers[0] as T;
  }

  // ------------------------------------------------------------------------------------------ the end

  /** Ends all faults; nothing else. */
  async heal(): Promise<void> {
    this.actors.calm();
    this.c.filters.clear();
    this.c.failpoints.clear();
    this.c.messageFault = undefined;
    this.c.setNetwork({ delayMs: [0.2, 2], lossChance: 0, duplicateChance: 0, lateChance: 0 });
    for (const machine of this.c.machines.values()) {
      machine.disk.setBehavior({ writeDelayMs: [0.2, 2] });
      machine.rate = 1;
      machine.clock.setRate(1);
      if (machine.store === undefined) {
        await this.c.restart(machine.id);
      }
    }
  }

  /** Heals everything, waits for rest and checks what must hold then. */
  async finish(): Promise<void> {
    await this.heal();
    await this.#traffic?.stop();
    for (const [key, value] of this.#rows) {
      expect(await this.c.mustGet(key), `key ${key}`).toBe(value);
    }
    await this.c.settle(120_000);
    await this.c.checkConsistent();
    this.invariants.checkDisks();
    for (const ticket of this.#tickets) {
      const isSameLife = this.c.machine(ticket.store).incarnation === ticket.incarnation;
      // A process that died took its unanswered requests with it.
      assert(
        ticket.answers.length === 1 || (!isSameLife && ticket.answers.length === 0),
        'a request was not answered once',
        {
          what: ticket.what,
          answers: JSON.stringify(ticket.answers),
        },
      );
    }
    for (const store of this.stores()) {
      await this.c.until(`the notes of store ${store} are empty`, () =>
        Object.values(this.c.store(store).bookkeeping()).every((n) => n === 0),
      );
      await this.#noStrayKeys(store);
    }
  }

  /** I9: no user key outside live regions, once cleaning is done. */
  async #noStrayKeys(store: number): Promise<void> {
    let stray: string[] = [];
    for (let i = 0; i < 20; i++) {
      const regions = this.c
        .store(store)
        .status()
        .map((s) => s.region);
      const keys = await this.c.keysOn(store);
      stray = keys.filter((key) => !regions.some((r) => rangeContains(r.range, utf8(key))));
      if (stray.length === 0) {
        return;
      }
      await this.c.advance(1_000);
    }
    throw new InvariantError('I9', `store ${store} keeps ${stray.join()} outside its regions`);
  }
}

export const startOf = (region: Region): string => fromUtf8(region.range.start);

/** Admin commands in a replica's log on disk, in order. */
export function adminEntries(s: Scenario, store: number, region: Region): { index: number; type: AdminType }[] {
  const out: { index: number; type: AdminType }[] = [];
  const { start, end } = raftLogRange(region.id, logIndex(0), logIndex(Number.MAX_SAFE_INTEGER));
  for (const [key, bytes] of s.c.machine(store).disk.database('db')?.view.entriesFrom(start) ?? []) {
    if (compareBytes(key, end) >= 0) {
      break;
    }
    const entry = decodeEntry(bytes);
    if (entry.type === EntryType.Normal && entry.data.length > 0) {
      const command = decodeRaftCommand(entry.data);
      if (command.type === 'admin') {
        out.push({ index: entry.index, type: command.command.type });
      }
    }
  }
  return out;
}
