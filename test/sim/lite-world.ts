/**
 * The fast world: real stores on virtual time, a scripted placement service, and clients that speak to stores without
 * the SDK. Runs one case: a safety phase with faults, then everything heals and the cluster must come to rest, answer,
 * and agree. Which store a client asks is chosen without knowing better: whoever claims to lead is asked.
 */
import type { Engine } from '../../src/env/engine.ts';
import { checkHistory } from '../../jepsen-lite/checkers.ts';
import { HistoryRecorder, type Request, type Response } from '../../jepsen-lite/history.ts';
import { compareBytes, fromUtf8, utf8 } from '../../src/base/bytes.ts';
import { peerId, storeId } from '../../src/base/ids.ts';
import { intersectRanges, isLeftNeighbour, rangeContains } from '../../src/base/key-range.ts';
import type { WriteOp } from '../../src/codec/command.ts';
import { decodeDataValue } from '../../src/codec/data-value.ts';
import { FAILPOINT_NAMES } from '../../src/env/failpoint-names.ts';
import type { Rng } from '../../src/env/rng.ts';
import { dataKey, dataRange, userKeyOf } from '../../src/engine/index.ts';
import type { PeerChange } from '../../src/meta/heartbeat.ts';
import { findPeerOnStore, isInJointState, type Peer, type Region } from '../../src/meta/region.ts';
import type { AdminRequestBody, ReadOutcome, RequestHeader, WriteOutcome } from '../../src/raftstore/msg.ts';
import { MsgType } from '../../src/raft/types.ts';
import type { NemesisAction, SimCase } from './case.ts';
import { InvariantError, Invariants } from './invariants.ts';
import type { RunFailure, RunResult, TimelineEntry } from './run-result.ts';
import { StoreCluster } from './store-cluster.ts';

/** Virtual time the cluster has to come to rest after everything healed. */
const SETTLE_MS = 120_000;
const CLIENT_TIMEOUT_MS = 2_500;
/** Time that cleaning of ranges given up may take. */
const CLEANING_MS = 7_000;
/** Keys of the group that is only written together. */
const TAG_KEYS = ['k005a', 'k005b', 'k005c'] as const;
const TIMELINE_MAX = 20_000;

type Answer =
  | { readonly type: 'ok'; readonly response: Response; readonly at?: string }
  | { readonly type: 'fail' | 'info'; readonly error: string };

export interface RunOptions {
  /** Keep the timeline, messages included, for the trace page. */
  readonly trace?: boolean;
}

export async function runLite(simCase: SimCase, options: RunOptions = {}): Promise<RunResult> {
  const { config } = simCase;
  const cluster = await StoreCluster.start({
    seed: simCase.seed,
    stores: config.stores,
    config: {
      pdHeartbeatMs: 500,
      maintenanceTickMs: 200,
      splitCheckMs: 5_000,
      abnormalLeaderMissingMs: 3_000,
      maxLeaderMissingMs: 6_000,
      logGcThreshold: config.logGcThreshold,
      logGcCountLimit: config.logGcCountLimit,
      mergeMaxLogGap: config.mergeMaxLogGap,
      snapshotChunkBytes: config.snapshotChunkBytes,
      proposalBatchOpsMax: config.proposalBatchOpsMax,
      mailboxLimit: config.mailboxLimit,
      leaderLeaseMs: config.leaderLeaseMs,
    },
  });
  const world = new LiteWorld(cluster, simCase, options.trace === true);
  let failure: RunFailure | undefined;
  try {
    await world.run();
  } catch (error) {
    failure = world.failureOf(error);
  }
  return world.result(failure);
}

class WorldError extends Error {
  readonly invariant: string;

  constructor(invariant: string, message: string) {
    super(message);
    this.invariant = invariant;
  }
}

export class LiteWorld {
  readonly cluster: StoreCluster;
  readonly simCase: SimCase;
  readonly history: HistoryRecorder;
  readonly invariants: Invariants;
  readonly actions: Record<string, number> = {};
  readonly timeline: TimelineEntry[] = [];
  readonly #keepsTrace: boolean;
  readonly #heal: Set<() => void> = new Set();
  readonly #lastRoles: Map<string, string> = new Map();
  #stopping = false;
  #ok = 0;
  #failed = 0;
  #unknown = 0;
  #nextValue = 1;

  constructor(cluster: StoreCluster, simCase: SimCase, keepsTrace: boolean) {
    this.cluster = cluster;
    this.simCase = simCase;
    this.#keepsTrace = keepsTrace;
    this.history = new HistoryRecorder(() => Math.round(cluster.scheduler.nowMs * 1e6));
    const machineOf = (id: number) => {
      const machine = cluster.machines.get(storeId(id));
      return machine === undefined
        ? undefined
        : { id, store: machine.store, incarnation: machine.incarnation, database: machine.disk.database('db') };
    };
    this.invariants = new Invariants(
      () => [...cluster.machines.keys()].map((id) => machineOf(id) as NonNullable<ReturnType<typeof machineOf>>),
      machineOf,
    );
    cluster.observer = {
      afterEvent: (node, kind) => {
        this.invariants.afterEvent(node, kind);
        if (this.#keepsTrace && kind === 'store-round') {
          this.#noteRoles(node);
        }
      },
      onSend: (message, store) => {
        this.invariants.onSend(message, store);
        if (this.#keepsTrace) {
          const { body } = message;
          const what = body.type === 'raft' ? messageName(body.message.type) : body.type;
          this.note(store, 'message', `r${message.regionId} ${what}`, { to: message.to.storeId });
        }
      },
      onBoot: (id) => {
        this.invariants.onBoot(id);
        this.note(id, 'note', 'started');
      },
    };
    cluster.oldMailMax = simCase.config.oldMail;
  }

  note(lane: number, kind: TimelineEntry['kind'], text: string, more: Partial<TimelineEntry> = {}): void {
    if (this.#keepsTrace && this.timeline.length < TIMELINE_MAX) {
      this.timeline.push({ atMs: this.cluster.scheduler.nowMs, lane, kind, text, ...more });
    }
  }

  #noteRoles(node: number): void {
    const store = this.cluster.machines.get(storeId(node))?.store;
    for (const s of store?.status() ?? []) {
      const key = `${node}/${s.region.id}`;
      const text = `r${s.region.id} v${s.region.epoch.version}:${s.region.epoch.confVer} [${fromUtf8(s.region.range.start)},${fromUtf8(s.region.range.end)}) peer ${s.peerId} ${s.role} t${s.term} ${s.state}`;
      if (this.#lastRoles.get(key) !== text) {
        this.#lastRoles.set(key, text);
        this.note(node, 'role', text);
      }
    }
  }

  failureOf(error: unknown): RunFailure {
    const { scheduler } = this.cluster;
    const base = { atMs: scheduler.nowMs, event: scheduler.steps };
    if (error instanceof InvariantError || error instanceof WorldError) {
      return { ...base, invariant: error.invariant, message: error.message };
    }
    if (this.cluster.failStops.length > 0) {
      return { ...base, invariant: 'fail-stop', message: this.cluster.failStops.join('; ') };
    }
    return {
      ...base,
      invariant: 'crash',
      message: error instanceof Error ? (error.stack ?? error.message) : String(error),
    };
  }

  result(failure: RunFailure | undefined): RunResult {
    const { scheduler } = this.cluster;
    return {
      case: this.simCase,
      failure,
      stats: {
        events: scheduler.steps,
        virtualMs: scheduler.nowMs,
        ok: this.#ok,
        failed: this.#failed,
        unknown: this.#unknown,
        actions: this.actions,
        checks: this.invariants.counts,
      },
      traceHash: scheduler.trace.text,
      checkpoints: scheduler.trace.checkpoints,
      history: this.history.events,
      timeline: this.timeline,
    };
  }

  count(action: string): void {
    this.actions[action] = (this.actions[action] ?? 0) + 1;
  }

  // ------------------------------------------------------------------------------------------ phases

  async run(): Promise<void> {
    const { cluster, simCase } = this;
    const { config } = simCase;
    await cluster.mustLeader(1);
    for (let i = 0; i < config.splitAtStart; i++) {
      await cluster.mustSplit(keyName(Math.floor(((i + 1) * config.keys) / (config.splitAtStart + 1))));
    }
    cluster.setNetwork({
      lossChance: config.lossChance,
      duplicateChance: config.duplicateChance,
      lateChance: config.lateChance,
      delayMs: config.delayMs,
    });
    for (const { disk } of cluster.machines.values()) {
      disk.setBehavior({ writeDelayMs: config.writeDelayMs });
    }
    const startMs = cluster.scheduler.nowMs;
    for (const action of simCase.schedule) {
      cluster.scheduler.at(action.atMs, () => this.act(action), { node: 0, kind: `nemesis:${action.kind}` });
    }
    const clients: Promise<void>[] = [];
    for (let i = 0; i < config.clients; i++) {
      clients.push(this.#client(i, cluster.rng.fork(`client-${i}`)));
    }
    await cluster.advance(config.durationMs);
    this.#assertNoFailStop();
    this.#stopping = true;
    await this.#healEverything();
    await cluster.run(Promise.all(clients));
    await this.#converge();
    await this.#finalReads();
    await cluster.settle();
    await cluster.checkConsistent();
    this.invariants.checkDisks();
    if (simCase.seed % 3 === 0) {
      await this.#checkLeftovers();
    }
    this.#assertNoFailStop();
    this.#judge();
    if (this.#ok < 10 && cluster.scheduler.nowMs - startMs > 1_000 && !this.#wasHard()) {
      throw new WorldError('vacuous', `only ${this.#ok} operations succeeded`);
    }
  }

  /** Whether so much of the history was spent without a quorum that few successes are no surprise. */
  #wasHard(): boolean {
    return (
      this.simCase.config.lossChance > 0.1 || this.simCase.config.delayMs[1] > 20 || this.simCase.schedule.length > 10
    );
  }

  #assertNoFailStop(): void {
    if (this.cluster.failStops.length > 0) {
      throw new WorldError('fail-stop', this.cluster.failStops.join('; '));
    }
  }

  async #healEverything(): Promise<void> {
    const { cluster } = this;
    for (const heal of this.#heal) {
      heal();
    }
    this.#heal.clear();
    cluster.filters.clear();
    cluster.failpoints.clear();
    cluster.setNetwork({ lossChance: 0, duplicateChance: 0, lateChance: 0, delayMs: [0.2, 2] });
    for (const machine of cluster.machines.values()) {
      machine.disk.setBehavior({ writeDelayMs: [0.1, 1] });
      machine.rate = 1;
      machine.clock.setRate(1);
    }
    for (const id of cluster.machines.keys()) {
      if (!cluster.isUp(id)) {
        await cluster.restart(id);
      }
    }
    this.note(0, 'note', 'all faults healed');
  }

  /** Every region elects, leaves transitions behind and all replicas become equal. */
  async #converge(): Promise<void> {
    const { cluster } = this;
    // A joint configuration stays until somebody asks to leave it: that is the placement service's work.
    const leave = (): void => {
      for (const region of this.#leaders()) {
        if (isInJointState(region)) {
          void cluster.admin(region.id, { type: 'change-peer', changes: [] });
        }
      }
      // An injected disk fault may strike only now.
      for (const id of cluster.mayStop) {
        this.#reboot(id);
      }
      if (!done) {
        cluster.scheduler.at(500, leave, { node: 0, kind: 'leave-joint' });
      }
    };
    let done = false;
    leave();
    try {
      await cluster.settle(SETTLE_MS);
    } catch (error) {
      this.#assertNoFailStop();
      throw new WorldError('liveness', error instanceof Error ? error.message : String(error));
    } finally {
      done = true;
    }
    // Faults that waited for a write have struck by now; from here on every stop is a failure.
    const stuck = [...cluster.machines.values()].flatMap(({ id, store }) =>
      (store?.status() ?? [])
        .filter((s) => s.state !== 'normal')
        .map((s) => `region ${s.region.id} on store ${id} is ${s.state}`),
    );
    if (stuck.length > 0) {
      throw new WorldError('I26', stuck.join('; '));
    }
  }

  async #finalReads(): Promise<void> {
    const { cluster } = this;
    const keys = [...Array.from({ length: this.simCase.config.keys }, (_, i) => keyName(i)), ...TAG_KEYS];
    const process = this.history.newProcess();
    for (const key of keys) {
      this.history.invoke(process, { f: 'get', key });
      const value = await cluster.mustGet(key);
      this.history.ok(process, { f: 'get', value: value ?? null });
    }
    // I28, liveness: writing still works everywhere.
    for (const region of this.#leaders()) {
      const key = fromUtf8(region.range.start);
      const value = `final-${region.id}`;
      this.history.invoke(process, { f: 'put', key, value });
      await cluster.mustPut(key, value);
      this.history.ok(process, { f: 'done' });
    }
  }

  /** I9: once cleaning had its time, no store holds data outside its live regions. */
  async #checkLeftovers(): Promise<void> {
    const { cluster } = this;
    await cluster.advance(CLEANING_MS);
    for (const { id, store, disk } of cluster.machines.values()) {
      const { start, end } = dataRange({ start: utf8(''), end: utf8('') });
      for (const [key] of disk.database('db')?.view.entriesFrom(start) ?? []) {
        if (compareBytes(key, end) >= 0) {
          break;
        }
        if (store?.regionOfKey(userKeyOf(key)) === undefined) {
          throw new WorldError(
            'I9',
            `store ${id} holds ${fromUtf8(userKeyOf(key))}, which lies in none of its regions\n${cluster.describe()}`,
          );
        }
      }
    }
    this.invariants.counts['leftovers'] = (this.invariants.counts['leftovers'] ?? 0) + 1;
  }

  #judge(): void {
    const report = checkHistory(this.history.events, { tagGroups: [TAG_KEYS] });
    const [first] = report.problems;
    if (first !== undefined) {
      throw new WorldError(first.promise, first.text);
    }
  }

  // ------------------------------------------------------------------------------------------ clients

  async #client(n: number, rng: Rng): Promise<void> {
    const { cluster, simCase } = this;
    const { config } = simCase;
    const pinned = rng.chance(0.5) ? 1 + rng.below(config.stores) : 0;
    let process = this.history.newProcess();
    while (!this.#stopping) {
      await cluster.sleep(rng.float() * 2 * config.thinkMs);
      if (this.#stopping) {
        return;
      }
      const request = this.#draw(rng, n);
      this.history.invoke(process, request);
      const answer = await Promise.race([
        this.#perform(request, rng, pinned),
        cluster.sleep(CLIENT_TIMEOUT_MS).then((): Answer => ({ type: 'info', error: 'timeout' })),
      ]);
      cluster.scheduler.trace.add(answer.type, process);
      const isRead = request.f === 'get' || request.f === 'scan' || request.f === 'batch-get';
      if (answer.type === 'ok') {
        this.#ok++;
        this.history.ok(process, answer.response, answer.at);
      } else if (answer.type === 'fail' || isRead) {
        this.#failed++;
        this.history.fail(process, answer.error);
      } else {
        this.#unknown++;
        this.history.info(process, answer.error);
        process = this.history.newProcess();
      }
    }
  }

  #value(n: number): string {
    const id = `${n}:${this.#nextValue++}`;
    const { valueBytes } = this.simCase.config;
    return valueBytes === 0 ? id : id.padEnd(valueBytes, '.');
  }

  #draw(rng: Rng, n: number): Request {
    const { config } = this.simCase;
    const key = keyName(rng.below(config.keys));
    if (rng.chance(config.reads)) {
      const kind = rng.float();
      if (kind < 0.75) {
        return { f: 'get', key };
      }
      return {
        f: 'scan',
        start: rng.chance(0.3) ? '' : key,
        end: rng.chance(0.5) ? '' : `${keyName(rng.below(config.keys))}~`,
        limit: rng.pick([1, 3, 100]),
        isAtomic: true,
      };
    }
    const kind = rng.float();
    if (kind < 0.55) {
      return { f: 'put', key, value: this.#value(n) };
    }
    if (kind < 0.65) {
      return { f: 'delete', key };
    }
    if (kind < 0.83) {
      return { f: 'cas', key, expected: this.#lastSeen.get(key) ?? null, value: this.#value(n) };
    }
    if (kind < 0.95) {
      const value = this.#value(n);
      return { f: 'batch', pairs: TAG_KEYS.map((tag) => [tag, value] as const), isAtomic: true };
    }
    const i = rng.below(config.keys);
    return { f: 'delete-range', start: keyName(i), end: keyName(i + 1 + rng.below(2)) };
  }

  readonly #lastSeen: Map<string, string> = new Map();

  /** A peer that might serve the key, as a client with an old map might choose it. */
  #target(
    key: string,
    rng: Rng,
    pinned: number,
    needsLeader: boolean,
  ): { store: number; region: Region; peer: Peer; isLeader: boolean } | undefined {
    const bytes = utf8(key);
    const found: { store: number; region: Region; peer: Peer; isLeader: boolean }[] = [];
    for (const { id, store } of this.cluster.machines.values()) {
      for (const s of store?.status() ?? []) {
        const isLeader = s.role === 'leader';
        if (s.region.peers.length > 0 && (isLeader || !needsLeader) && rangeContains(s.region.range, bytes)) {
          const peer = findPeerOnStore(s.region, storeId(id));
          if (peer !== undefined) {
            found.push({ store: id, region: s.region, peer, isLeader });
          }
        }
      }
    }
    const own = found.filter((target) => target.store === pinned);
    return own.length > 0 ? rng.pick(own) : found.length > 0 ? rng.pick(found) : undefined;
  }

  #header(region: Region, peer: Peer, store: number): RequestHeader {
    return {
      regionId: region.id,
      epoch: region.epoch,
      peerId: peer.id,
      term: 0,
      deadlineMonoMs: this.cluster.machine(store).clock.monoMs() + CLIENT_TIMEOUT_MS,
    };
  }

  async #perform(request: Request, rng: Rng, pinned: number): Promise<Answer> {
    switch (request.f) {
      case 'get':
        return this.#get(request, rng, pinned);
      case 'scan':
        return this.#scan(request, rng, pinned);
      case 'batch-get':
        return { type: 'fail', error: 'not offered' };
      case 'put':
      case 'delete':
      case 'cas':
      case 'batch':
      case 'delete-range':
        return this.#write(request, rng, pinned);
    }
  }

  /** Carries a request to a store and its answer back, with network delays a client would see. */
  async #there(store: number, rng: Rng): Promise<boolean> {
    await this.cluster.sleep(rng.float() * 2);
    return this.cluster.isUp(store);
  }

  async #get(request: Extract<Request, { f: 'get' }>, rng: Rng, pinned: number): Promise<Answer> {
    const target = this.#target(request.key, rng, pinned, rng.chance(0.75));
    if (target === undefined || !(await this.#there(target.store, rng))) {
      return { type: 'fail', error: 'nobody to ask' };
    }
    const result = await this.#read(target, [utf8(request.key)], true, (engine) =>
      engine
        .get(dataKey(utf8(request.key)))
        .then((stored) => (stored === undefined ? undefined : decodeDataValue(stored)?.value)),
    );
    if (result.type === 'refused') {
      return { type: 'fail', error: result.error };
    }
    const value = result.value === undefined ? null : fromUtf8(result.value);
    if (value !== null) {
      this.#lastSeen.set(request.key, value);
    } else {
      this.#lastSeen.delete(request.key);
    }
    return { type: 'ok', response: { f: 'get', value }, at: whereOf(target) };
  }

  #read<T>(
    target: { store: number; region: Region; peer: Peer; isLeader: boolean },
    keys: readonly Uint8Array[],
    isPointRead: boolean,
    read: (engine: Engine, region: Region) => Promise<T>,
  ): Promise<{ readonly type: 'ok'; readonly value: T } | { readonly type: 'refused'; readonly error: string }> {
    const { store, region, peer, isLeader } = target;
    const { engine, clock } = this.cluster.machine(store);
    return new Promise((resolve) => {
      const respond = (outcome: ReadOutcome): void => {
        if (outcome.type === 'refused' || engine === undefined) {
          resolve({ type: 'refused', error: outcome.type === 'refused' ? outcome.error.type : 'down' });
          return;
        }
        read(engine, outcome.region).then(
          (value) => resolve({ type: 'ok', value }),
          (error: unknown) => resolve({ type: 'refused', error: String(error) }),
        );
      };
      clock.deliver(() => {
        this.cluster.machine(store).store?.read({
          header: this.#header(region, peer, store),
          keys,
          replicaRead: !isLeader,
          isPointRead,
          respond,
        });
      }, 'client');
    });
  }

  async #scan(request: Extract<Request, { f: 'scan' }>, rng: Rng, pinned: number): Promise<Answer> {
    const target = this.#target(request.start, rng, pinned, rng.chance(0.75));
    if (target === undefined || !(await this.#there(target.store, rng))) {
      return { type: 'fail', error: 'nobody to ask' };
    }
    const result = await this.#read(target, [utf8(request.start)], false, async (engine, region) => {
      const clipped = intersectRanges(region.range, { start: utf8(request.start), end: utf8(request.end) });
      if (clipped === undefined) {
        return { rows: [], coveredTo: request.start };
      }
      const page = await engine.scan({ range: dataRange(clipped), limit: request.limit });
      const rows = page.entries.map(
        ([key, value]) =>
          [fromUtf8(userKeyOf(key)), fromUtf8(decodeDataValue(value)?.value ?? new Uint8Array(0))] as const,
      );
      const last = rows.at(-1);
      return { rows, coveredTo: page.more && last !== undefined ? `${last[0]}\u0000` : fromUtf8(clipped.end) };
    });
    return result.type === 'refused'
      ? { type: 'fail', error: result.error }
      : {
          type: 'ok',
          response: { f: 'scan', rows: result.value.rows, coveredTo: result.value.coveredTo },
          at: whereOf(target),
        };
  }

  async #write(
    request: Extract<Request, { f: 'put' | 'delete' | 'cas' | 'batch' | 'delete-range' }>,
    rng: Rng,
    pinned: number,
  ): Promise<Answer> {
    const ops = writeOps(request);
    const key =
      request.f === 'batch'
        ? (request.pairs[0] as readonly [string, string])[0]
        : request.f === 'delete-range'
          ? request.start
          : request.key;
    const target = this.#target(key, rng, pinned, true);
    if (target === undefined || !(await this.#there(target.store, rng))) {
      return { type: 'fail', error: 'nobody to ask' };
    }
    const { store, region, peer } = target;
    const outcome = await new Promise<WriteOutcome>((resolve) => {
      this.cluster.machine(store).clock.deliver(() => {
        this.cluster.machine(store).store?.write({ header: this.#header(region, peer, store), ops, respond: resolve });
      }, 'client');
    });
    if (outcome.type === 'refused') {
      return { type: outcome.error.type === 'undetermined-result' ? 'info' : 'fail', error: outcome.error.type };
    }
    if (request.f !== 'cas') {
      return { type: 'ok', response: { f: 'done' }, at: whereOf(target) };
    }
    const [result] = outcome.results;
    if (result?.type !== 'compared') {
      throw new WorldError('linearizable', 'a compare-and-swap was answered without a comparison');
    }
    const actual = result.previous === undefined ? null : fromUtf8(result.previous);
    if (actual !== null) {
      this.#lastSeen.set(request.key, actual);
    }
    return { type: 'ok', response: { f: 'cas', swapped: result.swapped, actual } };
  }

  // ------------------------------------------------------------------------------------------ nemesis

  /** Descriptors of regions that somebody leads, newest first heard wins, in key order. */
  #leaders(): Region[] {
    const out = new Map<number, { region: Region; term: number }>();
    for (const { store } of this.cluster.machines.values()) {
      for (const s of store?.status() ?? []) {
        const known = out.get(s.region.id);
        if (s.role === 'leader' && s.region.peers.length > 0 && (known === undefined || known.term < s.term)) {
          out.set(s.region.id, { region: s.region, term: s.term });
        }
      }
    }
    return [...out.values()].map(({ region }) => region).sort((x, y) => compareBytes(x.range.start, y.range.start));
  }

  #fire(region: number, body: AdminRequestBody, action: string): void {
    this.cluster.admin(region, body).then(
      (outcome) => {
        this.count(
          outcome.type === 'ok'
            ? action
            : `${action}:${outcome.type === 'rejected' ? outcome.refusal.code : outcome.type === 'refused' ? outcome.error.type : outcome.type}`,
        );
        if (outcome.type === 'ok') {
          this.note(0, 'region', `${action} of r${region} done`);
        }
      },
      () => {},
    );
  }

  #later(forMs: number, what: string, undo: () => void): void {
    let isOver = false;
    const heal = (): void => {
      if (!isOver) {
        isOver = true;
        this.#heal.delete(heal);
        undo();
      }
    };
    this.#heal.add(heal);
    this.cluster.scheduler.at(forMs, heal, { node: 0, kind: `heal:${what}` });
  }

  act(action: NemesisAction): void {
    if (this.#stopping) {
      return;
    }
    const { cluster, simCase } = this;
    const { kind, a, b, c, forMs } = action;
    const pick = <T>(items: readonly T[], number: number): T | undefined => items[number % Math.max(1, items.length)];
    const ids = [...cluster.machines.keys()];
    const up = ids.filter((id) => cluster.isUp(id));
    const regions = this.#leaders();
    const region = pick(regions, a);
    const store = pick(ids, a) as number;
    const fault = (text: string, lane = 0): void => {
      this.count(kind);
      this.note(lane, 'fault', text, { untilMs: cluster.scheduler.nowMs + forMs });
    };
    switch (kind) {
      case 'split':
        if (regions.length > 0 && regions.length < simCase.config.regionsMax) {
          const key = keyName(b % simCase.config.keys);
          const owner = regions.find((r) => rangeContains(r.range, utf8(key)));
          if (owner !== undefined) {
            this.#fire(owner.id, { type: 'split', keys: [utf8(c % 4 === 0 ? `${key}\u0000` : key)] }, kind);
          }
        }
        return;
      case 'merge': {
        const pairs: (readonly [Region, Region])[] = [];
        for (const x of regions) {
          for (const y of regions) {
            if (isLeftNeighbour(x.range, y.range)) {
              pairs.push([x, y], [y, x]);
            }
          }
        }
        const pair = pick(pairs, b);
        if (pair !== undefined) {
          this.#mergeStep(pair[0], pair[1]);
          const mirrored = c % 6 === 0;
          if (mirrored) {
            this.#mergeStep(pair[1], pair[0]);
          }
        }
        return;
      }
      case 'retarget': {
        // Changes a region that may be the target of a merge in flight.
        const merging = cluster.describe().includes('merging') ? regions : [];
        const victim = pick(merging, b);
        if (victim !== undefined) {
          if (c % 2 === 0) {
            this.#fire(victim.id, { type: 'split', keys: [utf8(keyName(c % simCase.config.keys))] }, kind);
          } else {
            this.#moveStep(victim, b, c);
          }
        }
        return;
      }
      case 'transfer': {
        const peer = region === undefined ? undefined : pick(region.peers, b);
        if (region !== undefined && peer !== undefined) {
          this.#fire(region.id, { type: 'transfer-leader', peer }, kind);
        }
        return;
      }
      case 'move':
        if (region !== undefined) {
          this.#moveStep(region, b, c);
        }
        return;
      case 'learner':
        if (region !== undefined) {
          const learner = region.peers.find((p) => p.role === 'learner');
          if (learner !== undefined && b % 2 === 0) {
            this.#fire(
              region.id,
              { type: 'change-peer', changes: [{ type: 'remove', peer: learner }] },
              'remove-learner',
            );
          } else {
            this.#addLearner(region, b);
          }
        }
        return;
      case 'joint':
        if (region !== undefined) {
          this.#jointStep(region, b, c);
        }
        return;
      case 'leave-joint':
        for (const joint of regions.filter(isInJointState)) {
          this.#fire(joint.id, { type: 'change-peer', changes: [] }, kind);
        }
        return;
      case 'compact': {
        const leader = region === undefined ? undefined : cluster.leaderStore(region.id);
        const status =
          leader === undefined
            ? undefined
            : cluster
                .store(leader)
                .status()
                .find((s) => s.region.id === region?.id);
        if (region !== undefined && status !== undefined && status.appliedIndex > status.firstIndex + 1) {
          this.#fire(
            region.id,
            { type: 'compact-log', index: status.appliedIndex - 1 - (b % 3), term: status.term },
            kind,
          );
        }
        return;
      }
      case 'crash':
        if (up.length > 0) {
          const id = pick(up, b) as number;
          fault(`store ${id} crashes (${c % 2 === 0 ? 'killed' : 'power'})`, id);
          cluster.crash(id, c % 2 === 0 ? 'kill' : 'power-loss');
          this.#later(forMs, 'reboot', () => this.#reboot(id));
        }
        return;
      case 'crash-point': {
        const id = pick(up, b);
        const name = pick(FAILPOINT_NAMES, c) as (typeof FAILPOINT_NAMES)[number];
        if (id !== undefined) {
          fault(`store ${id} will die at ${name}`, id);
          const key = `${id}!${name}`;
          cluster.failpoints.set(key, { type: 'crash' });
          this.#later(forMs + 500, 'crash-point', () => {
            cluster.failpoints.delete(key);
            this.#reboot(id);
          });
        }
        return;
      }
      case 'crash-all':
        fault('all stores lose power');
        for (const id of up) {
          cluster.crash(id, 'power-loss');
          this.#later(forMs * (0.1 + ((id * 7919) % 10) / 20), 'reboot', () => this.#reboot(id));
        }
        return;
      case 'stall':
        fault(`store ${store} stalls`, store);
        cluster.machine(store).clock.stall(forMs);
        return;
      case 'clock-rate': {
        const rate = 0.95 + (b % 1001) / 10_000;
        fault(`clock of store ${store} runs at ${rate}`, store);
        cluster.machine(store).rate = rate;
        cluster.machine(store).clock.setRate(rate);
        return;
      }
      case 'wall-jump':
        fault(`wall clock of store ${store} jumps`, store);
        cluster.machine(store).clock.jumpWall((b % 600_000) - 300_000);
        return;
      case 'disk-slow': {
        const { disk } = cluster.machine(store);
        fault(`disk of store ${store} is slow`, store);
        disk.setBehavior({ writeDelayMs: [20, 20 + (b % 400)] });
        this.#later(forMs, 'disk', () => disk.setBehavior({ writeDelayMs: simCase.config.writeDelayMs }));
        return;
      }
      case 'disk-error': {
        const id = pick(up, b);
        if (id !== undefined) {
          fault(`a write of store ${id} fails`, id);
          cluster.mayStop.add(id);
          cluster.machine(id).disk.failNextWrite(c % 2 === 0 ? 'write-error' : 'sync-error');
          this.#later(forMs + 300, 'reboot', () => this.#reboot(id));
        }
        return;
      }
      case 'isolate': {
        const leader = region === undefined ? undefined : cluster.leaderStore(region.id);
        const id = b % 2 === 0 && leader !== undefined ? leader : store;
        fault(`store ${id} is cut off`, id);
        this.#later(forMs, kind, cluster.isolate(id));
        return;
      }
      case 'one-way':
        fault(`store ${store} is ${b % 2 === 0 ? 'mute' : 'deaf'}`, store);
        this.#later(
          forMs,
          kind,
          cluster.drop((m) => (b % 2 === 0 ? m.from.storeId : m.to.storeId) === store),
        );
        return;
      case 'bisect': {
        const side = (id: number): boolean => ((b >>> (id % 16)) & 1) === 1;
        fault('the network falls in two');
        this.#later(
          forMs,
          kind,
          cluster.drop((m) => side(m.from.storeId) !== side(m.to.storeId)),
        );
        return;
      }
      case 'ring': {
        const n = ids.length;
        const near = (x: number, y: number): boolean => [0, 1, n - 1].includes((x - y + n) % n);
        fault('every store sees another majority');
        this.#later(
          forMs,
          kind,
          cluster.drop((m) => !near(m.from.storeId, m.to.storeId)),
        );
        return;
      }
      case 'clog':
        fault('messages take long');
        cluster.setNetwork({ delayMs: [10, 50 + (b % 900)] });
        this.#later(forMs, kind, () => cluster.setNetwork({ delayMs: simCase.config.delayMs }));
        return;
      case 'drop-class': {
        const types = [
          MsgType.Snap,
          MsgType.App,
          MsgType.AppResp,
          MsgType.Vote,
          MsgType.VoteResp,
          MsgType.Heartbeat,
          MsgType.HeartbeatResp,
          MsgType.TimeoutNow,
        ];
        const type = pick(types, b) as MsgType;
        const to = c % 2 === 0 ? store : 0;
        const only = c % 3 === 0 ? region?.id : undefined;
        fault(`messages ${messageName(type)} are lost`, to);
        this.#later(
          forMs,
          kind,
          cluster.drop(
            (m) =>
              m.body.type === 'raft' &&
              m.body.message.type === type &&
              (to === 0 || m.to.storeId === to) &&
              (only === undefined || m.regionId === only),
          ),
        );
        return;
      }
      case 'old-mail':
        fault('old mail arrives again');
        for (let i = 0; i < 1 + (b % 12); i++) {
          cluster.replayOldMail(cluster.rng.fork(`old-${a}-${i}`));
        }
        return;
      case 'hold-apply': {
        const names = [
          'apply::before-write',
          'apply::before-split',
          'apply::before-prepare-merge',
          'apply::before-commit-merge',
          'apply::before-rollback-merge',
          'apply::before-change-peer',
          'apply::before-compact-log',
        ] as const;
        const name = pick(names, c) as (typeof names)[number];
        fault(`apply of store ${store} is held at ${name}`, store);
        this.#hold(store, name, forMs);
        return;
      }
      case 'hold-merge':
        fault(`store ${store} holds CommitMerge back`, store);
        this.#hold(store, 'merge::before-commit', forMs);
        return;
      case 'hold-install':
        fault(`store ${store} holds a snapshot back`, store);
        this.#hold(store, 'snapshot::before-install', forMs);
        return;
    }
  }

  #hold(store: number, name: string, forMs: number): void {
    const key = `${store}!${name}`;
    this.cluster.failpoints.set(key, { type: 'pause' });
    this.#later(forMs, 'hold', () => {
      this.cluster.failpoints.delete(key);
    });
  }

  #reboot(id: number): void {
    if (!this.cluster.isUp(id)) {
      this.cluster.reboot(id);
    }
  }

  #addLearner(region: Region, b: number): void {
    const free = [...this.cluster.machines.keys()].filter((id) => findPeerOnStore(region, id) === undefined);
    const target = free[b % Math.max(1, free.length)];
    if (target !== undefined && region.peers.length < 5 && !isInJointState(region)) {
      const peer: Peer = { id: peerId(this.cluster.nextId()), storeId: target, role: 'learner' };
      this.#fire(region.id, { type: 'change-peer', changes: [{ type: 'add-learner', peer }] }, 'add-learner');
    }
  }

  /** One random step of moving a region: add a learner, promote one, or remove a peer. */
  #moveStep(region: Region, b: number, c: number): void {
    if (isInJointState(region)) {
      this.#fire(region.id, { type: 'change-peer', changes: [] }, 'leave-joint');
      return;
    }
    const learner = region.peers.find((p) => p.role === 'learner');
    if (learner !== undefined && c % 4 !== 0) {
      this.#fire(
        region.id,
        { type: 'change-peer', changes: [{ type: 'add-voter', peer: { ...learner, role: 'voter' } }] },
        'promote',
      );
      return;
    }
    if (region.peers.length <= 3 && learner === undefined) {
      this.#addLearner(region, b);
      return;
    }
    const leader = this.cluster.leaderStore(region.id);
    const removable = region.peers.filter(
      (p) => (p.storeId !== leader || c % 5 === 0) && (region.peers.length > 3 || p.role === 'learner'),
    );
    const victim = removable[b % Math.max(1, removable.length)];
    if (victim !== undefined) {
      this.#fire(region.id, { type: 'change-peer', changes: [{ type: 'remove', peer: victim }] }, 'remove-peer');
    }
  }

  /** Replaces or exchanges peers at once through a joint configuration. */
  #jointStep(region: Region, b: number, c: number): void {
    if (isInJointState(region)) {
      this.#fire(region.id, { type: 'change-peer', changes: [] }, 'leave-joint');
      return;
    }
    const learner = region.peers.find((p) => p.role === 'learner');
    const voters = region.peers.filter((p) => p.role === 'voter');
    const out = voters[b % Math.max(1, voters.length)];
    if (learner === undefined || out === undefined) {
      this.#addLearner(region, b);
      return;
    }
    const leaving: PeerChange =
      c % 2 === 0 ? { type: 'add-learner', peer: { ...out, role: 'learner' } } : { type: 'remove', peer: out };
    this.#fire(
      region.id,
      { type: 'change-peer', changes: [{ type: 'add-voter', peer: { ...learner, role: 'voter' } }, leaving] },
      'joint',
    );
  }

  /** Proposes the merge if both regions have the same replicas, else goes one step towards that. */
  #mergeStep(source: Region, target: Region): void {
    const { cluster } = this;
    const isAligned =
      source.peers.length === target.peers.length &&
      source.peers.every((p) => findPeerOnStore(target, p.storeId)?.role === p.role);
    if (isAligned) {
      this.#fire(source.id, { type: 'merge', target }, 'merge');
      return;
    }
    const missing = target.peers.find((p) => findPeerOnStore(source, p.storeId) === undefined);
    if (missing !== undefined) {
      const peer: Peer = { id: peerId(cluster.nextId()), storeId: missing.storeId, role: 'learner' };
      this.#fire(source.id, { type: 'change-peer', changes: [{ type: 'add-learner', peer }] }, 'align');
      return;
    }
    const learner = source.peers.find(
      (p) => p.role === 'learner' && findPeerOnStore(target, p.storeId)?.role === 'voter',
    );
    if (learner !== undefined) {
      this.#fire(
        source.id,
        { type: 'change-peer', changes: [{ type: 'add-voter', peer: { ...learner, role: 'voter' } }] },
        'align',
      );
      return;
    }
    const extra = source.peers.find((p) => findPeerOnStore(target, p.storeId) === undefined);
    if (extra === undefined) {
      return;
    }
    if (cluster.leaderStore(source.id) === extra.storeId) {
      const other = source.peers.find((p) => p.role === 'voter' && p !== extra);
      if (other !== undefined) {
        this.#fire(source.id, { type: 'transfer-leader', peer: other }, 'align');
      }
    } else {
      this.#fire(source.id, { type: 'change-peer', changes: [{ type: 'remove', peer: extra }] }, 'align');
    }
  }
}

const whereOf = (target: { readonly store: number; readonly region: Region; readonly isLeader: boolean }): string =>
  `store ${target.store}, region ${target.region.id} version ${target.region.epoch.version}${target.isLeader ? ', leader' : ''}`;

export const keyName = (i: number): string => `k${String(i).padStart(3, '0')}`;

export function messageName(type: number): string {
  return Object.entries(MsgType).find(([, value]) => value === type)?.[0] ?? String(type);
}

function writeOps(request: Extract<Request, { f: 'put' | 'delete' | 'cas' | 'batch' | 'delete-range' }>): WriteOp[] {
  switch (request.f) {
    case 'put':
      return [{ type: 'put', key: utf8(request.key), value: utf8(request.value), expireAtSeconds: 0 }];
    case 'delete':
      return [{ type: 'delete', key: utf8(request.key) }];
    case 'batch':
      return request.pairs.map(([key, value]) => ({
        type: 'put',
        key: utf8(key),
        value: utf8(value),
        expireAtSeconds: 0,
      }));
    case 'delete-range':
      return [{ type: 'delete-range', range: { start: utf8(request.start), end: utf8(request.end) } }];
    case 'cas':
      return [
        {
          type: 'compare-and-swap',
          key: utf8(request.key),
          expected: request.expected === null ? undefined : utf8(request.expected),
          value: utf8(request.value ?? ''),
          expireAtSeconds: 0,
          deletes: request.value === null,
          nowSeconds: 0,
        },
      ];
  }
}
