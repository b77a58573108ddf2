/**
 * The whole cluster in one process on virtual time: a placement service, stores behind their real services and
 * transport, and SDK clients, all unmodified, on virtual links and memory disks. Runs one case of sixty virtual seconds:
 * work under faults, healing, then rest, the last reads, and the judgement. Slower than the lite world, which speaks to
 * stores directly; it covers what lies between.
 */
import { checkHistory } from '../../jepsen-lite/checkers.ts';
import { type AnyRequest, HistoryRecorder, type Response } from '../../jepsen-lite/history.ts';
import { RpcError } from '../../src/env/net.ts';
import { compareBytes } from '../../src/base/bytes.ts';
import { dataRange, userKeyOf } from '../../src/engine/index.ts';
import { unaryCall } from '../../src/rpc/call.ts';
import { pdMethods } from '../../src/rpc/services.ts';
import type { FullCase } from './full-case.ts';
import {
  ClientWork,
  COUNTERS,
  errorCode,
  Failure,
  LISTS,
  type OperationCounts,
  recordOutcome,
  registerKeys,
  SETS,
  TAGS,
  TTL_KEYS,
} from './full-clients.ts';
import { ClientDiedError, type ClientProcess, FullCluster, type Machine, PD_ADDRESS } from './full-cluster.ts';
import { FullNemesis, ledRegions } from './full-nemesis.ts';
import { Story } from './full-story.ts';
import { InvariantError } from './invariants.ts';
import type { RunFailure, RunResult } from './run-result.ts';
import { WorldError } from './world-error.ts';

/** Virtual time the cluster has to come to rest after everything healed. */
const CONVERGE_MS = 120_000;
/** Time between looks at whether the cluster is at rest. */
const LOOK_MS = 50;
/** Virtual time after which nothing may wait any more at rest, snapshots that nobody fetched among it: like `lite`. */
const WAITING_MAX_MS = 160_000;
/** Time that cleaning of ranges given up may take. */
const CLEANING_MS = 7_000;
/** Mean pause between two questions for timestamps and ids. */
const CLOCKWORK_MS = 150;
/** How often a client hears the map of the placement service beside its work. */
const HEAR_MAP_CHANCE = 0.1;
/** Old messages delivered once more at the end, and the time for what may come of them. */
const OLD_MAIL_AT_REST = 60;
const OLD_MAIL_MS = 500;
const SWITCH_NAMES = [
  'scheduling',
  'joint-state-checker',
  'learner-checker',
  'replica-checker',
  'merge-checker',
  'balance-leader',
  'balance-region',
] as const;

export interface FullRunOptions {
  /** Keep the story for the trace page. */
  readonly trace?: boolean;
}

export class FullWorld {
  readonly simCase: FullCase;
  readonly cluster: FullCluster;
  readonly history: HistoryRecorder;
  readonly actions: Record<string, number> = {};
  readonly story: Story;
  readonly #checks: Record<string, number> = {};
  readonly #counts: OperationCounts = { ok: 0, failed: 0, unknown: 0 };
  #stopping = false;

  constructor(simCase: FullCase, options: FullRunOptions) {
    this.simCase = simCase;
    this.cluster = new FullCluster(simCase.seed, simCase.config);
    this.history = new HistoryRecorder(() => this.#nowNs());
    this.cluster.onOldMail = (change) => this.#countCheck(`old mail ${change}`);
    this.story = new Story(this.cluster, options.trace === true);
  }

  #nowNs(): number {
    return Math.round(this.cluster.scheduler.nowMs * 1e6);
  }

  // ------------------------------------------------------------------------------------------ machinery

  async #pump<T>(promise: Promise<T>, limitMs: number, what: string): Promise<T> {
    const { scheduler } = this.cluster;
    let settled = false;
    const settle = (): void => {
      settled = true;
    };
    promise.then(settle, settle);
    if (!(await scheduler.pump(() => settled, scheduler.nowMs + limitMs))) {
      this.#assertNoFailStop();
      throw new WorldError('liveness', `${what} took longer than ${limitMs} ms\n${this.cluster.describe()}`);
    }
    return promise;
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      this.cluster.scheduler.at(ms, resolve, { node: 0, kind: 'sleep' });
    });
  }

  #assertNoFailStop(): void {
    if (this.cluster.failStops.length > 0) {
      throw new WorldError('fail-stop', this.cluster.failStops.join('; '));
    }
  }

  #countCheck(name: string): void {
    this.#checks[name] = (this.#checks[name] ?? 0) + 1;
  }

  #count(action: string): void {
    this.actions[action] = (this.actions[action] ?? 0) + 1;
  }

  // ------------------------------------------------------------------------------------------ phases

  async run(): Promise<void> {
    const { cluster, simCase } = this;
    const { config, schedule } = simCase;
    await this.#start();
    const admin = (await this.#pump(cluster.connect('admin'), 60_000, 'connecting')).braid.admin();
    const nemesis = new FullNemesis(cluster, admin, {
      count: (action) => this.#count(action),
      fault: (text, lane, forMs) => this.story.fault(text, lane, forMs),
    });
    await this.#pump(this.#setSwitches(admin, config.automaticMerge), 10_000, 'setting switches');
    const clients: Promise<void>[] = [this.#askForIdsAndStamps()];
    for (let n = 0; n < config.clients; n++) {
      clients.push(this.#client(n));
    }
    for (const action of schedule) {
      cluster.scheduler.at(action.atMs, () => nemesis.act(action), { node: 0, kind: `nemesis:${action.kind}` });
    }
    await this.#pump(this.#sleep(config.durationMs), config.durationMs + 1, 'the safety phase');
    this.#assertNoFailStop();
    this.#stopping = true;
    nemesis.heal();
    this.story.note('all faults healed');
    await this.#pump(Promise.all(clients), 60_000, 'the last answers of clients');
    await this.#pump(this.#setSwitches(admin, false), 60_000, 'setting switches');
    await this.#converge();
    // Messages of the whole history arrive once more at a cluster at rest: nothing may come of them.
    cluster.replayMail(OLD_MAIL_AT_REST);
    await this.#pump(this.#sleep(OLD_MAIL_MS), OLD_MAIL_MS + 1, 'old mail');
    await this.#converge();
    await this.#finalReads();
    await this.#checkNothingWaits();
    if (simCase.seed % 3 === 0) {
      await this.#checkLeftovers();
    }
    this.#assertNoFailStop();
    cluster.invariants.checkDisksAtRest();
    this.#judge();
    if (this.#counts.ok < 50) {
      throw new WorldError('vacuous', `only ${this.#counts.ok} operations succeeded`);
    }
  }

  async #start(): Promise<void> {
    const { cluster } = this;
    await this.#pump(cluster.startPd(), 60_000, 'starting the placement service');
    for (const id of cluster.machines.keys()) {
      cluster.bootStore(id);
    }
    const isReplicated = (): boolean => {
      const regions = [...cluster.machines.values()].flatMap(({ store }) => store?.status() ?? []);
      return (
        regions.some((s) => s.role === 'leader' && s.region.peers.filter((p) => p.role === 'voter').length === 3) &&
        !regions.some((s) => s.state !== 'normal')
      );
    };
    if (!(await cluster.scheduler.pump(isReplicated, 60_000))) {
      throw new WorldError('liveness', `the first region did not reach 3 replicas\n${cluster.describe()}`);
    }
  }

  /** Everything the placement service does by itself is on, except what this seed leaves out. */
  async #setSwitches(admin: ReturnType<ClientProcess['braid']['admin']>, merges: boolean): Promise<void> {
    const { balance } = this.simCase.config;
    for (const name of SWITCH_NAMES) {
      const enabled = name === 'merge-checker' ? merges : name.startsWith('balance') ? balance : true;
      while ((await admin.setSwitch(name, enabled).catch(() => undefined)) === undefined) {
        await this.#sleep(200);
        // An injected disk fault may strike only now.
        this.cluster.bootPd();
      }
    }
  }

  /** Every region elects, leaves transitions behind, has its replicas, and the placement service knows it. */
  async #converge(): Promise<void> {
    const { cluster } = this;
    let reason = '';
    const isCalm = (): boolean => {
      // An injected disk fault may strike only now.
      cluster.bootPd();
      for (const id of cluster.machines.keys()) {
        cluster.bootStore(id);
      }
      reason = this.#unrest() ?? '';
      return reason === '';
    };
    // Looking at everything after every event would cost more than the events.
    let looked = -Infinity;
    const isCalmNow = (): boolean => {
      if (cluster.scheduler.nowMs - looked < LOOK_MS) {
        return false;
      }
      looked = cluster.scheduler.nowMs;
      return isCalm();
    };
    if (!(await cluster.scheduler.pump(isCalmNow, cluster.scheduler.nowMs + CONVERGE_MS))) {
      this.#assertNoFailStop();
      throw new WorldError('liveness', `no rest within ${CONVERGE_MS} ms: ${reason}\n${cluster.describe()}`);
    }
    this.#checks['converged'] = 1;
  }

  /** What is not at rest yet. */
  #unrest(): string | undefined {
    const { cluster } = this;
    const applied = new Map<number, number>();
    const replicas = new Map<number, number>();
    for (const { id, store } of cluster.machines.values()) {
      if (store === undefined) {
        return `machine ${id} is down`;
      }
      for (const s of store.status()) {
        const known = applied.get(s.region.id) ?? s.appliedIndex;
        if (s.state !== 'normal' || s.appliedIndex !== s.lastIndex || s.appliedIndex !== known) {
          return `region ${s.region.id} on machine ${id} is ${s.state}, applied ${s.appliedIndex} of ${s.lastIndex}`;
        }
        applied.set(s.region.id, known);
        replicas.set(s.region.id, (replicas.get(s.region.id) ?? 0) + 1);
      }
    }
    const regions = ledRegions(cluster);
    if (regions.length !== applied.size) {
      return `${regions.length} of ${applied.size} regions have a leader`;
    }
    for (const region of regions) {
      const voters = region.peers.filter(({ role }) => role === 'voter').length;
      if (voters !== 3 || region.peers.length !== 3 || replicas.get(region.id) !== 3) {
        return `region ${region.id} has ${voters} voters, ${region.peers.length} peers, ${replicas.get(region.id)} replicas`;
      }
    }
    return cluster.pdChecks.difference(regions);
  }

  async #finalReads(): Promise<void> {
    const { cluster, simCase } = this;
    const { braid } = await this.#pump(cluster.connect('reader'), 60_000, 'connecting');
    const work = new ClientWork({
      n: 99,
      role: 'register',
      readMode: 'leader',
      config: simCase.config,
      rng: cluster.rng.fork('reader'),
      nowNs: () => this.#nowNs(),
    });
    const requests: AnyRequest[] = [
      ...[...registerKeys(simCase.config), ...TAGS, ...TTL_KEYS].map((key): AnyRequest => ({ f: 'get', key })),
      { f: 'scan', start: 'k', end: '', limit: 10_000, isAtomic: false },
      { f: 'scan', start: 'k', end: '', limit: 10_000, isAtomic: false, reverse: true },
      { f: 'scan', start: '', end: 'e', limit: 10_000, isAtomic: false },
      ...SETS.map((key): AnyRequest => ({ f: 'read-set', key })),
      ...LISTS.map((key): AnyRequest => ({ f: 'read-list', key })),
      ...COUNTERS.map((key): AnyRequest => ({ f: 'read-counter', key })),
      // Writing works in every region: at its first key, which is a register or a border.
      ...ledRegions(cluster).map(
        (region): AnyRequest => ({
          f: 'put',
          key: Buffer.from(region.range.start).toString('latin1'),
          value: `final-${region.id}`,
        }),
      ),
    ];
    const collections = new Set<string>([...SETS, ...LISTS, ...COUNTERS]);
    let process = this.history.newProcess();
    for (const request of requests) {
      if (request.f === 'put' && (collections.has(request.key) || (request.key >= 'e' && request.key < 'k'))) {
        // The region begins inside a collection: its liveness is shown by a key behind the border instead.
        const key = toBehind(request.key);
        await this.#mustDo(() => braid.put(key, request.value), `writing to ${request.key}`);
        await this.#mustDo(() => braid.delete(key), `deleting in ${request.key}`);
        continue;
      }
      for (let isDone = false; !isDone; ) {
        const mayFail = cluster.isFaultWaiting;
        this.history.invoke(process, request);
        const answer: Response | Failure = await this.#pump(
          work.perform(braid, request),
          10_000,
          `the last ${request.f}`,
        );
        isDone = !(answer instanceof Failure);
        if (answer instanceof Failure && !mayFail) {
          throw new WorldError('liveness', `the last ${JSON.stringify(request)} ended with ${answer.error}`);
        }
        process = recordOutcome(this.history, process, answer, this.#counts);
        if (!isDone) {
          await this.#converge();
        }
      }
      if (request.f === 'put') {
        this.#checks['final-writes'] = (this.#checks['final-writes'] ?? 0) + 1;
      }
    }
    await this.#pump(this.#sleep(300), 1_000, 'a pause');
    braid.destroy();
  }

  /** Something that may be repeated, and that only a fault that waited until now may make fail. */
  async #mustDo(act: () => Promise<unknown>, what: string): Promise<void> {
    for (;;) {
      const mayFail = this.cluster.isFaultWaiting;
      const error = await this.#pump(
        act().then(
          () => undefined,
          (cause: unknown) => errorCode(cause),
        ),
        10_000,
        what,
      );
      if (error === undefined) {
        return;
      }
      if (!mayFail) {
        throw new WorldError('liveness', `${what} ended with ${error}`);
      }
      await this.#converge();
    }
  }

  /** M1: queues, transitions and staged snapshots have found their ends. */
  async #checkNothingWaits(): Promise<void> {
    const { scheduler, invariants } = this.cluster;
    const endMs = scheduler.nowMs + WAITING_MAX_MS;
    let waiting: readonly string[] = [];
    do {
      await this.#pump(this.#sleep(LOOK_MS * 5), 60_000, 'a pause');
      waiting = invariants.unrest();
    } while (waiting.length > 0 && scheduler.nowMs < endMs);
    if (waiting.length > 0) {
      throw new WorldError('M1', `at rest, and still there: ${waiting.join('; ')}\n${this.cluster.describe()}`);
    }
    this.#checks['nothing-waits'] = 1;
  }

  /** I9: once cleaning had its time, no store holds data outside its live regions. */
  async #checkLeftovers(): Promise<void> {
    const { cluster } = this;
    await this.#pump(this.#sleep(CLEANING_MS), CLEANING_MS + 1, 'cleaning');
    const { start, end } = dataRange({ start: new Uint8Array(0), end: new Uint8Array(0) });
    for (const { id, store, disk } of cluster.machines.values()) {
      for (const [key] of disk.database('db')?.view.entriesFrom(start) ?? []) {
        if (compareBytes(key, end) >= 0) {
          break;
        }
        if (store?.regionOfKey(userKeyOf(key)) === undefined) {
          throw new WorldError(
            'I9',
            `machine ${id} holds ${Buffer.from(userKeyOf(key)).toString('latin1')}, which lies in none of its regions\n${cluster.describe()}`,
          );
        }
      }
    }
    this.#checks['leftovers'] = 1;
  }

  #judge(): void {
    // Regions that split by themselves may split a group of keys: then nothing joins them any more.
    const tagGroups = this.simCase.config.splitKeys === 0 ? [TAGS] : [];
    const report = checkHistory(this.history.events, { tagGroups });
    const [first] = report.problems;
    if (first !== undefined) {
      throw new WorldError(first.promise, first.text);
    }
    this.#checks['keys'] = report.keys;
    this.#checks['undecided'] = report.undecided.length;
    this.#checks['set-elements'] = report.sets.acknowledged;
    this.#checks['set-recovered'] = report.sets.recovered;
  }

  // ------------------------------------------------------------------------------------------ clients

  async #client(n: number): Promise<void> {
    const { cluster, simCase } = this;
    const { config } = simCase;
    const rng = cluster.rng.fork(`client-${n}`);
    const work = new ClientWork({
      n,
      role: config.roles[n] ?? 'register',
      readMode: config.readModes[n] ?? 'mixed',
      config,
      rng,
      nowNs: () => this.#nowNs(),
    });
    let lives = 1;
    let client = await cluster.connect(`client-${n}-${lives}`);
    let process = this.history.newProcess();
    for (;;) {
      await this.#sleep(rng.float() * 2 * config.thinkMs + 5);
      if (this.#stopping) {
        break;
      }
      if (!cluster.clients.has(client)) {
        client = await cluster.connect(`client-${n}-${++lives}`);
        continue;
      }
      if (rng.chance(HEAR_MAP_CHANCE)) {
        client.hearMap().catch(() => undefined);
      }
      const request = work.draw();
      this.history.invoke(process, request);
      const outcome = await Promise.race([work.perform(client.braid, request), client.died]).catch((error: unknown) => {
        if (!(error instanceof ClientDiedError)) {
          throw error;
        }
        return new Failure('info', 'the client died');
      });
      cluster.scheduler.trace.add(outcome instanceof Failure ? outcome.type : 'ok', process);
      process = recordOutcome(this.history, process, outcome, this.#counts);
    }
    client.braid.destroy();
    cluster.clients.delete(client);
  }

  /** PD1: ids and timestamps, asked for on the wire while the placement service comes and goes. */
  async #askForIdsAndStamps(): Promise<void> {
    const { cluster } = this;
    const { pdChecks } = cluster;
    const rng = cluster.rng.fork('clockwork');
    const host = cluster.newHost('clockwork');
    const header = { clusterId: '0', senderId: 0, callerId: '', callerComponent: '' };
    const ask = async (n: number): Promise<void> => {
      const channel = host.net.dial(PD_ADDRESS);
      try {
        if (n % 3 === 0) {
          const count = 1 + rng.below(30);
          const reply = await unaryCall(channel, pdMethods.allocID, { header, count }, { timeoutMs: 2_000 });
          if (reply.header?.error === undefined) {
            pdChecks.onIds(
              Array.from({ length: reply.count }, (_, i) => reply.id - reply.count + 1 + i),
              `caller ${n}`,
            );
          }
        } else {
          const onAnswer = pdChecks.askStamp();
          const { timestamp } = await unaryCall(channel, pdMethods.getMinTS, { header }, { timeoutMs: 2_000 });
          if (timestamp !== undefined) {
            onAnswer({ physical: Number(timestamp.physical), logical: Number(timestamp.logical) });
          }
        }
      } catch (error) {
        if (!(error instanceof RpcError)) {
          throw error;
        }
      } finally {
        channel.close();
      }
    };
    for (let n = 0; !this.#stopping; n++) {
      // Now and then several at once.
      await Promise.all(Array.from({ length: rng.chance(0.2) ? 3 : 1 }, (_, i) => ask(n * 3 + i)));
      await this.#sleep(rng.float() * 2 * CLOCKWORK_MS);
    }
  }

  // ------------------------------------------------------------------------------------------ result

  failureOf(error: unknown): RunFailure {
    const { scheduler, failStops } = this.cluster;
    const base = { atMs: scheduler.nowMs, event: scheduler.steps };
    if (error instanceof WorldError || error instanceof InvariantError) {
      return { ...base, invariant: error.invariant, message: error.message };
    }
    if (failStops.length > 0) {
      return { ...base, invariant: 'fail-stop', message: failStops.join('; ') };
    }
    return {
      ...base,
      invariant: 'crash',
      message: error instanceof Error ? (error.stack ?? error.message) : String(error),
    };
  }

  result(failure: RunFailure | undefined): RunResult {
    const { scheduler, invariants, pdChecks, machines } = this.cluster;
    const pd = Object.fromEntries(Object.entries(pdChecks.counts).map(([name, n]) => [`pd-${name}`, n]));
    return {
      case: this.simCase,
      failure,
      stats: {
        events: scheduler.steps,
        virtualMs: scheduler.nowMs,
        ok: this.#counts.ok,
        failed: this.#counts.failed,
        unknown: this.#counts.unknown,
        actions: this.actions,
        checks: { ...invariants.counts, ...pd, ...this.#checks },
      },
      traceHash: scheduler.trace.text,
      checkpoints: scheduler.trace.checkpoints,
      history: this.history.events,
      timeline: this.story.entries,
      lanes: [
        'cluster',
        ...[...machines.values()].map((m: Machine) => `machine ${m.id}, store ${m.storeId}`),
        'placement service',
      ],
    };
  }
}

const toBehind = (key: string): Uint8Array => new Uint8Array(Buffer.from(`${key}\x00~`, 'latin1'));

export async function runFull(simCase: FullCase, options: FullRunOptions = {}): Promise<RunResult> {
  const world = new FullWorld(simCase, options);
  let failure: RunFailure | undefined;
  try {
    await world.run();
  } catch (error) {
    failure = world.failureOf(error);
  }
  return world.result(failure);
}
