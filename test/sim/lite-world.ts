/**
 * The fast world: real stores on virtual time, a scripted placement service, and clients that speak to stores without
 * the SDK. Runs one case: a safety phase with faults, then everything heals and the cluster must come to rest, answer,
 * and agree. Which store a client asks is chosen without knowing better: whoever claims to lead is asked.
 */
import { CorruptionError, type Engine } from '../../src/env/engine.ts';
import { checkHistory } from '../../jepsen-lite/checkers.ts';
import { HistoryRecorder, type Request, type Response } from '../../jepsen-lite/history.ts';
import { compareBytes, fromUtf8, utf8 } from '../../src/base/bytes.ts';
import { storeId } from '../../src/base/ids.ts';
import { intersectRanges, rangeContains } from '../../src/base/key-range.ts';
import type { WriteOp } from '../../src/codec/command.ts';
import type { PeerMessage } from '../../src/codec/peer-message.ts';
import { decodeDataValue } from '../../src/codec/data-value.ts';
import type { Rng } from '../../src/env/rng.ts';
import { dataKey, dataRange, userKeyOf } from '../../src/engine/index.ts';
import { findPeerOnStore, isInJointState, type Peer, type Region } from '../../src/meta/region.ts';
import type { AdminRequestBody, ReadOutcome, RequestHeader, WriteOutcome } from '../../src/raftstore/msg.ts';
import { keyName, messageName, type NemesisAction, type NemesisKind, type SimCase } from './case.ts';
import { InvariantError, Invariants } from './invariants.ts';
import { Bias } from './nemesis/bias.ts';
import { assertFewEvents, assertQuiet, breakForGood, leaderless, LivenessError } from './liveness.ts';
import type { NemesisHost } from './nemesis/host.ts';
import { Nemesis } from './nemesis/nemesis.ts';
import { Coverage, statesOf } from './coverage.ts';
import type { ReadTicket } from './invariants/client-oracle.ts';
import type { RunFailure, RunResult, TimelineEntry } from './run-result.ts';
import { StoreCluster } from './store-cluster.ts';

export { keyName } from './case.ts';

/** Virtual time the cluster has to come to rest after everything healed. */
const SETTLE_MS = 120_000;
const CLIENT_TIMEOUT_MS = 2_500;
/** The latest message of the faulty time has arrived by then. */
const LAST_MAIL_MS = 4_200;
/** Time for whoever survived a disaster to elect leaders. */
const DISASTER_REST_MS = 8_000;
/** Time that cleaning of ranges given up may take. */
const CLEANING_MS = 7_000;
/** Keys of the group that is only written together. */
const TAG_KEYS = ['k005a', 'k005b', 'k005c'] as const;
/** For how long something may wait in a cluster at rest, snapshots that nobody fetched among it; and looks at it. */
const REST_MS = 160_000;
const REST_LOOK_MS = 250;
/** Faults that wait for a region in a precarious state, those states, and for how long: looks times milliseconds. */
const AMBUSHES: ReadonlySet<NemesisKind> = new Set<NemesisKind>([
  'crash',
  'isolate',
  'one-way',
  'drop-class',
  'stall',
  'hold-apply',
  'rivals',
]);
const PRECARIOUS: ReadonlySet<string> = new Set(['merging', 'installing', 'leaving', 'splitting', 'joint']);
const AMBUSH_LOOKS = 60;
const AMBUSH_LOOK_MS = 4;
/** Old messages delivered once more at the end. */
const OLD_MAIL_AT_REST = 60;
const TIMELINE_MAX = 20_000;

type Answer =
  | { readonly type: 'ok'; readonly response: Response; readonly at?: string; readonly store?: number }
  | { readonly type: 'fail' | 'info'; readonly error: string; readonly store?: number };

export interface RunOptions {
  /** Keep the timeline, messages included, for the trace page. */
  readonly trace?: boolean;
}

export async function runLite(simCase: SimCase, options: RunOptions = {}): Promise<RunResult> {
  const { config } = simCase;
  const coverage = new Coverage();
  const cluster = await StoreCluster.start({
    logger: coverage.logger(),
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
      maxSizePerMsgBytes: config.maxSizePerMsgBytes,
      maxInflightMsgs: config.maxInflightMsgs,
      maxCommittedPerReadyBytes: config.maxCommittedPerReadyBytes,
      leaderLeaseMs: config.leaderLeaseMs,
      consistencyCheckMs: config.consistencyCheckMs,
    },
  });
  const world = new LiteWorld(cluster, simCase, options.trace === true, coverage);
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
  readonly coverage: Coverage;
  readonly actions: Record<string, number> = {};
  readonly timeline: TimelineEntry[] = [];
  readonly #keepsTrace: boolean;
  readonly nemesis: Nemesis;
  #openChanges = 0;
  readonly #heal: Set<() => void> = new Set();
  readonly #lastRoles: Map<string, string> = new Map();
  readonly #inFlight: WeakMap<PeerMessage, TimelineEntry> = new WeakMap();
  #stopping = false;
  #ok = 0;
  #failed = 0;
  #unknown = 0;
  #nextValue = 1;

  constructor(cluster: StoreCluster, simCase: SimCase, keepsTrace: boolean, coverage: Coverage) {
    this.coverage = coverage;
    this.cluster = cluster;
    this.simCase = simCase;
    this.#keepsTrace = keepsTrace;
    this.history = new HistoryRecorder(() => Math.round(cluster.scheduler.nowMs * 1e6));
    const machineOf = (id: number) => {
      const machine = cluster.machines.get(storeId(id));
      return machine === undefined
        ? undefined
        : {
            id,
            store: machine.store,
            incarnation: machine.incarnation,
            database: machine.disk.database('db'),
            times: machine.clock.times,
          };
    };
    this.invariants = new Invariants(
      () => [...cluster.machines.keys()].map((id) => machineOf(id) as NonNullable<ReturnType<typeof machineOf>>),
      machineOf,
    );
    this.invariants.relax({ clocks: simCase.config.isClockUnsafe, copies: simCase.config.isOverBudget });
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
          const entry = this.note(store, 'message', `r${message.regionId} ${what}`, { to: message.to.storeId });
          if (entry !== undefined) {
            this.#inFlight.set(message, entry);
          }
        }
      },
      onArrive: (message) => {
        const entry = this.#inFlight.get(message);
        if (entry !== undefined) {
          entry.untilMs ??= cluster.scheduler.nowMs;
        }
      },
      onReceive: (message, store) => this.invariants.onReceive(message, store),
      beforeDeath: (id) => this.invariants.beforeDeath(id),
      onBoot: (id) => {
        this.invariants.onBoot(id);
        this.note(id, 'note', 'started');
      },
    };
    cluster.oldMail.capacity = simCase.config.oldMail;
    cluster.onOldMail = (change) => coverage.mark(`old mail ${change}`);
    this.nemesis = new Nemesis(this.#nemesisHost());
  }

  note(
    lane: number,
    kind: TimelineEntry['kind'],
    text: string,
    more: Partial<TimelineEntry> = {},
  ): TimelineEntry | undefined {
    if (!this.#keepsTrace || this.timeline.length >= TIMELINE_MAX) {
      return undefined;
    }
    const entry: TimelineEntry = { atMs: this.cluster.scheduler.nowMs, lane, kind, text, ...more };
    this.timeline.push(entry);
    return entry;
  }

  #noteRoles(node: number): void {
    const store = this.cluster.machines.get(storeId(node))?.store;
    for (const s of store?.status() ?? []) {
      const key = `${node}/${s.region.id}`;
      const text = `r${s.region.id} v${s.region.epoch.version}:${s.region.epoch.confVer} [${fromUtf8(s.region.range.start)},${fromUtf8(s.region.range.end)}) peer ${s.peerId} ${s.role} t${s.term} ${s.state}`;
      if (this.#lastRoles.get(key) !== text) {
        this.#lastRoles.set(key, text);
        const { id, epoch, range } = s.region;
        const isMerging = s.state === 'merging';
        this.note(node, 'role', text, { region: { id, ...epoch, range, isMerging } });
      }
    }
  }

  failureOf(error: unknown): RunFailure {
    const { scheduler } = this.cluster;
    const base = { atMs: scheduler.nowMs, event: scheduler.steps };
    if (error instanceof LivenessError) {
      return { ...base, invariant: 'liveness', message: `${error.message}\n${this.cluster.describe()}` };
    }
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
        marks: this.coverage.marks,
        cells: this.coverage.cells,
        points: Object.fromEntries([...this.cluster.hits].map(([name, { times }]) => [name, times])),
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
    if (config.isBiased) {
      cluster.bias = new Bias(cluster.rng.fork('bias'), (name) => this.count(name));
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
    if (config.isOverBudget) {
      await this.#askAfterDisaster();
      this.#assertNoFailStop();
      this.#judge();
      return;
    }
    await this.#surviveLastingFault();
    const fromSteps = cluster.scheduler.steps;
    await this.#converge();
    assertFewEvents(cluster, fromSteps);
    if (config.lateChance > 0) {
      await cluster.advance(LAST_MAIL_MS);
    }
    if (simCase.seed % 2 === 0) {
      await this.#deliverOldMail();
    }
    await assertQuiet(cluster);
    await this.#finalReads();
    await cluster.settle();
    await cluster.checkConsistent();
    this.invariants.checkDisksAtRest();
    if (simCase.seed % 3 === 0) {
      await this.#checkLeftovers();
      await this.#checkNothingWaits();
    }
    this.#assertNoFailStop();
    this.invariants.finish();
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
    cluster.bias = undefined;
    cluster.links.healAll();
    cluster.delays.clear();
    cluster.setNetwork({ lossChance: 0, duplicateChance: 0, lateChance: 0, delayMs: [0.2, 2] });
    for (const machine of cluster.machines.values()) {
      machine.disk.setBehavior({ writeDelayMs: [0.1, 1], readDelayMs: [0.02, 0.2] });
      machine.rate = 1;
      machine.clock.setRate(1);
    }
    this.nemesis.atlas.finish();
    for (const { id, disk } of [...cluster.machines.values()]) {
      disk.clearFaults();
      this.#reboot(id);
    }
    await cluster.until('every store runs', () => [...cluster.machines.keys()].every((id) => cluster.isUp(id)));
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
      await cluster.until('lost replicas are replaced', () => !this.nemesis.atlas.isDegraded, SETTLE_MS);
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

  /** With one fault that stays, every region must elect, commit a write and serve it; then that fault heals, too. */
  async #surviveLastingFault(): Promise<void> {
    const { cluster, simCase } = this;
    const { liveness } = simCase.config;
    if (liveness === 'heal' || this.nemesis.atlas.isDegraded) {
      return;
    }
    await this.#raiseStopped();
    const broken = breakForGood(cluster, liveness, cluster.rng.fork('liveness'));
    if (broken === undefined) {
      return;
    }
    this.count(broken.what);
    this.note(0, 'note', `only this stays: ${broken.what}`);
    const fromSteps = cluster.scheduler.steps;
    try {
      await cluster.until('every region is led', () => leaderless(cluster, broken.outside) === undefined, SETTLE_MS);
      const process = this.history.newProcess();
      for (const region of this.#leaders()) {
        const key = fromUtf8(region.range.start);
        const value = `live-${region.id}`;
        this.history.invoke(process, { f: 'put', key, value });
        await cluster.mustPut(key, value, SETTLE_MS);
        this.history.ok(process, { f: 'done' });
        this.history.invoke(process, { f: 'get', key });
        const read = await cluster.mustGet(key, SETTLE_MS);
        this.history.ok(process, { f: 'get', value: read ?? null });
      }
    } catch (error) {
      this.#assertNoFailStop();
      throw new WorldError('liveness', `${broken.what}: ${error instanceof Error ? error.message : String(error)}`);
    }
    assertFewEvents(cluster, fromSteps);
    broken.heal();
    await this.#raiseStopped();
  }

  /** An injected disk fault may strike only after everything healed: a write that was under way then. */
  async #raiseStopped(): Promise<void> {
    const { cluster } = this;
    for (const id of cluster.mayStop) {
      this.#reboot(id);
    }
    await cluster.until('every store runs', () => [...cluster.machines.keys()].every((id) => cluster.isUp(id)));
  }

  /** More was lost than is promised to be kept: whoever still answers must tell the truth, but nobody has to. */
  async #askAfterDisaster(): Promise<void> {
    const { cluster } = this;
    await cluster.advance(DISASTER_REST_MS);
    this.invariants.checkDisks();
    const process = this.history.newProcess();
    for (const key of [...Array.from({ length: this.simCase.config.keys }, (_, i) => keyName(i)), ...TAG_KEYS]) {
      this.history.invoke(process, { f: 'get', key });
      const answer = await cluster.run(
        Promise.race([cluster.readOnce(key), cluster.sleep(CLIENT_TIMEOUT_MS).then(() => undefined)]),
      );
      if (answer !== undefined && 'value' in answer) {
        this.history.ok(process, { f: 'get', value: answer.value ?? null });
        this.count('answered-after-disaster');
      } else {
        this.history.fail(process, 'nobody answers');
        this.count('silent-after-disaster');
      }
    }
  }

  /** Messages of the whole history arrive once more at a cluster at rest: nothing may come of them. */
  async #deliverOldMail(): Promise<void> {
    const { cluster } = this;
    const rng = cluster.rng.fork('old-mail-at-rest');
    for (let i = 0; i < OLD_MAIL_AT_REST; i++) {
      cluster.replayOldMail(rng);
      await cluster.advance(1);
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

  /** M1: at rest every queue, note and staged row finds its end. */
  async #checkNothingWaits(): Promise<void> {
    const deadlineMs = this.cluster.scheduler.nowMs + REST_MS;
    let waiting = this.invariants.unrest();
    while (waiting.length > 0 && this.cluster.scheduler.nowMs < deadlineMs) {
      await this.cluster.advance(REST_LOOK_MS);
      waiting = this.invariants.unrest();
    }
    if (waiting.length > 0) {
      throw new WorldError('M1', `still waiting after ${REST_MS} ms at rest: ${waiting.join('; ')}`);
    }
  }

  #judge(): void {
    const report = checkHistory(this.history.events, { tagGroups: [TAG_KEYS] });
    const [first] = report.problems;
    if (first !== undefined && this.simCase.config.isClockUnsafe && first.promise === 'linearizable') {
      this.count('stale-read-beyond-clock-bound');
    } else if (first !== undefined) {
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
        this.#perform(request, rng, pinned).then((given) =>
          given.store !== undefined && this.nemesis.clients.mute.has(given.store)
            ? new Promise<Answer>(() => {})
            : given,
        ),
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
      for (const { fsm } of store?.inspect().replicas.values() ?? []) {
        const { region, role } = fsm.peer;
        const isLeader = role === 'leader';
        if (region.peers.length > 0 && (isLeader || !needsLeader) && rangeContains(region.range, bytes)) {
          const peer = findPeerOnStore(region, storeId(id));
          if (peer !== undefined) {
            found.push({ store: id, region, peer, isLeader });
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
    const machine = this.cluster.machines.get(storeId(store));
    return machine?.store !== undefined && !this.nemesis.clients.unreachable.has(store);
  }

  async #get(request: Extract<Request, { f: 'get' }>, rng: Rng, pinned: number): Promise<Answer> {
    const target = this.#target(request.key, rng, pinned, rng.chance(0.75));
    if (target === undefined || !(await this.#there(target.store, rng))) {
      return { type: 'fail', error: 'nobody to ask' };
    }
    const ticket = this.invariants.asking((oracle) => oracle.beginRead(!target.isLeader));
    const result = await this.#read(target, ticket, [utf8(request.key)], true, (engine) =>
      engine
        .get(dataKey(utf8(request.key)))
        .then((stored) => (stored === undefined ? undefined : decodeDataValue(stored)?.value)),
    );
    if (result.type === 'refused') {
      return { type: 'fail', error: result.error };
    }
    const value = result.value === undefined ? null : fromUtf8(result.value);
    this.invariants.answering(target.store, (oracle) => oracle.endGet(ticket, request.key, value ?? undefined));
    if (value !== null) {
      this.#lastSeen.set(request.key, value);
    } else {
      this.#lastSeen.delete(request.key);
    }
    return { type: 'ok', response: { f: 'get', value }, at: whereOf(target), store: target.store };
  }

  #read<T>(
    target: { store: number; region: Region; peer: Peer; isLeader: boolean },
    ticket: ReadTicket,
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
        this.invariants.answering(store, (oracle, machine) => oracle.onServed(ticket, outcome.region, machine));
        read(engine, outcome.region).then(
          (value) => resolve({ type: 'ok', value }),
          (error: unknown) => {
            resolve({ type: 'refused', error: String(error) });
            if (error instanceof CorruptionError) {
              // The service of a real store does the same.
              this.cluster.stopDamaged(store, error);
            }
          },
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
    const ticket = this.invariants.asking((oracle) => oracle.beginRead(true));
    const result = await this.#read(target, ticket, [utf8(request.start)], false, async (engine, region) => {
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
    if (result.type === 'ok') {
      const { rows, coveredTo } = result.value;
      this.invariants.answering(target.store, (oracle) => oracle.endScan(ticket, request.start, coveredTo, rows));
    }
    return result.type === 'refused'
      ? { type: 'fail', error: result.error }
      : {
          type: 'ok',
          response: { f: 'scan', rows: result.value.rows, coveredTo: result.value.coveredTo },
          at: whereOf(target),
          store: target.store,
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
    const ticket = this.invariants.asking((oracle) => oracle.beginWrite(ops));
    const outcome = await new Promise<WriteOutcome>((resolve) => {
      const respond = (given: WriteOutcome): void => {
        this.invariants.answering(store, (oracle) => oracle.endWrite(ticket, given));
        resolve(given);
      };
      this.cluster.machine(store).clock.deliver(() => {
        this.cluster.machine(store).store?.write({ header: this.#header(region, peer, store), ops, respond });
      }, 'client');
    });
    if (outcome.type === 'refused') {
      return { type: outcome.error.type === 'undetermined-result' ? 'info' : 'fail', error: outcome.error.type, store };
    }
    if (request.f !== 'cas') {
      return { type: 'ok', response: { f: 'done' }, at: whereOf(target), store };
    }
    const [result] = outcome.results;
    if (result?.type !== 'compared') {
      throw new WorldError('linearizable', 'a compare-and-swap was answered without a comparison');
    }
    const actual = result.previous === undefined ? null : fromUtf8(result.previous);
    if (actual !== null) {
      this.#lastSeen.set(request.key, actual);
    }
    return { type: 'ok', response: { f: 'cas', swapped: result.swapped, actual }, store };
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
    const isChange = body.type === 'change-peer';
    this.#openChanges += isChange ? 1 : 0;
    this.cluster.admin(region, body).then(
      (outcome) => {
        // A request without an answer may still be carried out: it stays open.
        this.#openChanges -= isChange && outcome.type !== 'no-leader' ? 1 : 0;
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

  /** The cluster as the nemesis sees it. */
  #nemesisHost(): NemesisHost {
    const { cluster } = this;
    return {
      cluster,
      config: this.simCase.config,
      openMembershipChanges: () => this.#openChanges,
      leaders: () => this.#leaders(),
      fire: (region, body, action) => this.#fire(region, body, action),
      count: (action) => this.count(action),
      note: (lane, text, forMs) => {
        this.note(lane, 'fault', text, { untilMs: cluster.scheduler.nowMs + forMs });
      },
      later: (forMs, what, undo) => this.#later(forMs, what, undo),
      soon: (ms, act) => {
        cluster.scheduler.at(ms, () => (this.#stopping ? undefined : act()), { node: 0, kind: 'nemesis:on' });
      },
      reboot: (id) => this.#reboot(id),
    };
  }

  /** A third of the faults that matter most in the middle of something wait a moment for that. */
  act(action: NemesisAction): void {
    const waits = AMBUSHES.has(action.kind) && action.c % 3 === 0;
    this.#actSoon(action, waits ? AMBUSH_LOOKS : 0);
  }

  #actSoon(action: NemesisAction, looks: number): void {
    if (this.#stopping) {
      return;
    }
    const stores = [...this.cluster.machines.values()].flatMap(({ store }) => (store === undefined ? [] : [store]));
    if (looks > 0 && !statesOf(stores).some((state) => PRECARIOUS.has(state))) {
      this.cluster.scheduler.at(AMBUSH_LOOK_MS, () => this.#actSoon(action, looks - 1), { node: 0, kind: 'ambush' });
      return;
    }
    this.coverage.onFault(action.kind, stores);
    this.nemesis.act(action);
  }

  #reboot(id: number): void {
    // A store that was retired meanwhile does not come back.
    if (this.cluster.machines.get(storeId(id))?.store === undefined && !this.cluster.retired.has(storeId(id))) {
      this.cluster.reboot(id);
    }
  }
}

const whereOf = (target: { readonly store: number; readonly region: Region; readonly isLeader: boolean }): string =>
  `store ${target.store}, region ${target.region.id} version ${target.region.epoch.version}${target.isLeader ? ', leader' : ''}`;

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
