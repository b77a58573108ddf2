/**
 * The placement service alone: the real node on virtual time, its disk, crashes and clocks included, against scripted
 * stores that obey, refuse, forget and come late. No network and no Raft, so a minute of cluster life takes
 * milliseconds. Ends with healing: then the map must equal the truth, every region must have its replicas, and no
 * operator may be left.
 */
import { AppError } from '../../src/base/app-error.ts';
import { fromUtf8, utf8 } from '../../src/base/bytes.ts';
import { type RegionId, type StoreId, storeId } from '../../src/base/ids.ts';
import { rangeContains } from '../../src/base/key-range.ts';
import { createRng, type Rng } from '../../src/env/rng.ts';
import type { RegionHeartbeat, RegionHeartbeatReply } from '../../src/meta/heartbeat.ts';
import { formatRegion, isInJointState, type Region, type Store } from '../../src/meta/region.ts';
import { DEFAULT_ALLOCATION_CONFIG, DEFAULT_PLACEMENT_CONFIG } from '../../src/pd/defaults.ts';
import type { PdNode, PdNodeConfig } from '../../src/pd/pd-node.ts';
import type { Placement } from '../../src/pd/placement.ts';
import { primaryOf, toJson } from '../../src/pd/resource/resource.ts';
import type { DocumentPlan } from '../../src/pd/resource/resources.ts';
import type { PlacementRule } from '../../src/pd/schedule/placement/rule.ts';
import type { SwitchName } from '../../src/pd/schedule/switches.ts';
import { InvariantError } from './invariants.ts';
import type { PdAction, PdCase, PdWorldConfig } from './pd-case.ts';
import { PdChecks } from './pd-checks.ts';
import { PdDocumentChecks } from './pd-document-checks.ts';
import { brokenRule, drawRule, type RuleView, unmeetable, zoneOf } from './pd-rules.ts';
import { firstModelRegion, type ModelRegion, PdModel } from './pd-model.ts';
import { type PdMachine, PdService } from './pd-service.ts';
import type { RunFailure, RunResult, TimelineEntry } from './run-result.ts';
import { Scheduler, type SimClock } from './scheduler.ts';
import { FailStop } from './store-cluster.ts';
import { WorldError } from './world-error.ts';

/** Virtual time the placement service has to bring everything in order after all faults ended. */
const CONVERGE_MS = 120_000;
const HEARTBEAT_MS = 1_000;
const MAX_PEER_DOWN_MS = 4_000;
/** Time between looks at whether everything is in order. */
const LOOK_MS = 100;
const LATE_MS = 5_000;
const KEPT_MAX = 50;
/** Time a message between members takes. */
const MEMBER_DELAY_MS: readonly [number, number] = [0.3, 8];
const MEMBERS_MAX = 5;
const REMOVE_ROUNDS_MAX = 40;
/** Time that Assignments have to end by themselves once everything healed. */
const PATIENCE_MS = 40_000;
/** How long a restarted service is watched for second thoughts. */
const REST_MS = 5_000;
/** Longer than the longest pause between two attempts. */
const RETRY_MS = 70_000;
const SWITCHES: readonly SwitchName[] = [
  'scheduling',
  'joint-state-checker',
  'learner-checker',
  'replica-checker',
  'merge-checker',
  'balance-leader',
  'balance-region',
];

const pick = <T>(items: readonly T[], number: number): T | undefined => items[number % Math.max(1, items.length)];
const keyOf = (n: number): Uint8Array => utf8(`k${String(n % 1000).padStart(3, '0')}`);

/** How a store treats its link and its commands at present. */
interface Mood {
  isCut: boolean;
  losesReports: boolean;
  losesCommands: boolean;
  refuses: boolean;
  slowByMs: number;
}

const GOOD_MOOD: Readonly<Mood> = {
  isCut: false,
  losesReports: false,
  losesCommands: false,
  refuses: false,
  slowByMs: 0,
};

const nodeConfig = (config: PdWorldConfig): PdNodeConfig => ({
  placement: {
    ...DEFAULT_PLACEMENT_CONFIG,
    storeDisconnectedMs: 3_000,
    storeDownMs: config.storeDownMs,
    stepStoreSilentMs: 4_000,
    storeCheckMs: 1_000,
    patrolIntervalMs: 300,
    schedulerIntervalMs: 700,
    pushIntervalMs: 300,
    pushQuickMs: 600,
    pushSlowMs: 1_200,
    warmupMaxMs: 4_000,
    fastStepMs: 6_000,
    slowStepMs: 12_000,
    splitMergeIntervalMs: 1_000,
    proxyThresholdMs: 2_000,
    jointConsensus: config.jointConsensus,
  },
  allocation: { ...DEFAULT_ALLOCATION_CONFIG, idWindow: 15, tsoUpdateMs: 250, tsoWindowMs: 1_000 },
});

function describeMachine({ name, member, isRetired, isStarting }: PdMachine): string {
  if (member === undefined) {
    return `${name} ${isRetired ? 'left' : isStarting ? 'starts' : 'is down'}`;
  }
  const { id, term, membership, leader } = member.group;
  const { voters, learners } = membership.confState;
  return `${name} is member ${id} in term ${term}, led by ${leader?.name ?? 'nobody'}; voters ${voters.join()}, learners ${learners.join()}`;
}

class PdWorld {
  readonly #case: PdCase;
  readonly #rng: Rng;
  readonly #netRng: Rng;
  readonly #scheduler: Scheduler;
  readonly #service: PdService;
  readonly #model: PdModel = new PdModel();
  readonly #checks: PdChecks = new PdChecks();
  readonly #moods: Map<StoreId, Mood> = new Map();
  readonly #undo: Set<() => void> = new Set();
  readonly #actions: Record<string, number> = {};
  readonly #timeline: TimelineEntry[] = [];
  readonly #keepsTrace: boolean;
  readonly #failStops: string[] = [];
  readonly #oldReports: RegionHeartbeat[] = [];
  readonly #oldCommands: RegionHeartbeatReply[] = [];
  /** What the checks follow now. */
  #watched: PdNode | undefined;
  readonly #documents: PdDocumentChecks = new PdDocumentChecks();
  #documentNumber = 0;
  #mayStop = false;
  #isHealed = false;

  constructor(simCase: PdCase, keepsTrace: boolean) {
    this.#case = simCase;
    this.#keepsTrace = keepsTrace;
    this.#rng = createRng(simCase.seed).fork('pd-world');
    this.#netRng = this.#rng.fork('net');
    this.#scheduler = new Scheduler(this.#rng.fork('sched'));
    this.#scheduler.onThrow = (error) => {
      if (!(error instanceof FailStop)) {
        throw error;
      }
    };
    this.#scheduler.afterEvent = () => this.#follow();
    this.#service = new PdService({
      scheduler: this.#scheduler,
      rng: this.#rng.fork('service'),
      config: nodeConfig(simCase.config),
      writeDelayMs: simCase.config.writeDelayMs,
      delayMs: MEMBER_DELAY_MS,
      lossChance: () => (this.#isHealed ? 0 : simCase.config.lossChance),
      mayStop: () => this.#mayStop,
      onFailStop: (text) => this.#failStops.push(text),
    });
    this.#service.addMachine(undefined, 0);
    this.#model.onChange = (region) => this.#report(region);
    if (keepsTrace) {
      this.#checks.onCommand = (reply) => {
        this.#note(0, 'region', `r${reply.regionId} ${reply.step.type} ${JSON.stringify(reply.step).slice(0, 200)}`);
      };
    }
  }

  #note(lane: number, kind: TimelineEntry['kind'], text: string, more: Partial<TimelineEntry> = {}): void {
    if (this.#keepsTrace) {
      this.#timeline.push({ atMs: this.#scheduler.nowMs, lane, kind, text, ...more });
    }
  }

  #count(action: string): void {
    this.#actions[action] = (this.#actions[action] ?? 0) + 1;
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      this.#scheduler.at(ms, resolve, { node: 0, kind: 'sleep' });
    });
  }

  async #pump(done: () => boolean, limitMs: number, what: () => string): Promise<void> {
    if (!(await this.#scheduler.pump(done, this.#scheduler.nowMs + limitMs))) {
      this.#assertNoFailStop();
      throw new WorldError('liveness', `${what()} within ${limitMs} ms\n${this.#describe()}`);
    }
  }

  #assertNoFailStop(): void {
    if (this.#failStops.length > 0) {
      throw new WorldError('fail-stop', this.#failStops.join('; '));
    }
  }

  #describe(): string {
    const operators = this.#node?.placement.controller.running() ?? [];
    const { store: documents } = this.#node?.placement.resources ?? {};
    const known = [...(this.#node?.placement.cluster.tree.values() ?? [])];
    return [
      ...this.#service.machines.map((machine) => `  ${describeMachine(machine)}`),
      ...known.map(
        (info) =>
          `  the service knows ${formatRegion(info.region)} led by ${info.leader?.id}${info.merging ? ' merging' : ''} pending ${info.pendingPeers.map((p) => p.id).join()} down ${info.downPeers.map((d) => d.peer.id).join()}`,
      ),
      ...this.#model
        .inOrder()
        .map(
          (truth) =>
            `  ${formatRegion(truth.region)} led by ${truth.leaderId}${truth.mergeTarget === undefined ? '' : ' merging'} pending ${[...truth.pending].join()}`,
        ),
      ...this.#unmet().map((line) => `  ${line}`),
      ...[...this.#model.stores.values()].map(
        ({ id, downSinceMs, isGone }) =>
          `  store ${id}${isGone ? ' gone' : downSinceMs === undefined ? '' : ' down'}: ${this.#node?.placement.cluster.store(id)?.record.store.state}`,
      ),
      ...[...(documents?.list('Partition') ?? []), ...(documents?.list('Assignment') ?? [])].map(
        ({ meta, spec, status }) => `  ${meta.name} ${toJson(spec)} ${toJson(status)}`,
      ),
      ...operators.map(
        (op) =>
          `  operator ${op.id} ${op.brief}: ${op.status}, step ${op.currentIndex} ${JSON.stringify(op.currentStep)} ${op.stepTimes[op.currentIndex]?.detail ?? ''}`,
      ),
    ].join('\n');
  }

  // ------------------------------------------------------------------------------------------ the service

  /** The node that serves now; there is none while nothing runs, and another one after each loss of the lead. */
  get #node(): PdNode | undefined {
    return this.#service.node;
  }

  #follow(): void {
    const node = this.#node;
    const { leading } = this.#service;
    if (leading.length > 1) {
      throw new InvariantError('PD1', `${leading.map(({ name }) => name).join(' and ')} serve at the same time`);
    }
    if (node !== undefined && this.#case.config.documents) {
      this.#documents.look(node);
    }
    if (node === this.#watched) {
      return;
    }
    this.#watched = node;
    if (node === undefined) {
      this.#checks.detach();
      return;
    }
    this.#count('lead');
    const clock = this.#service.leader?.clock as SimClock;
    this.#checks.attach(node, () => clock.monoMs());
    for (const id of this.#model.stores.keys()) {
      this.#bind(id);
    }
  }

  /** Every machine that does not run is started. */
  #boot(): void {
    for (const machine of this.#service.active) {
      this.#service.boot(machine);
    }
  }

  /** Runs on the service's machine; not at all while it is down, later while it is stalled. */
  #onPd(kind: string, run: (node: PdNode) => void): void {
    this.#service.leader?.clock.deliver(() => {
      const node = this.#node;
      if (node === undefined || !node.isLeading) {
        return;
      }
      try {
        run(node);
      } catch (error) {
        // A member that is not sure of its lead refuses.
        if (!(error instanceof AppError)) {
          throw error;
        }
      }
    }, kind);
  }

  // ------------------------------------------------------------------------------------------ links

  #mood(id: StoreId): Mood {
    let mood = this.#moods.get(id);
    if (mood === undefined) {
      mood = { ...GOOD_MOOD };
      this.#moods.set(id, mood);
    }
    return mood;
  }

  /** Carries something over a link: perhaps not at all, perhaps twice, perhaps late. */
  #carry(kind: string, arrive: () => void): void {
    const { lossChance, duplicateChance, lateChance, delayMs } = this.#case.config;
    const rng = this.#netRng;
    const [min, max] = delayMs;
    const copies = !this.#isHealed && rng.chance(duplicateChance) ? 2 : 1;
    for (let i = 0; i < copies; i++) {
      if (this.#isHealed || !rng.chance(lossChance)) {
        const lateMs = !this.#isHealed && rng.chance(lateChance) ? rng.float() * LATE_MS : 0;
        this.#scheduler.at(min + rng.float() * (max - min) + lateMs, arrive, { node: 1, kind });
      }
    }
  }

  #report(truth: ModelRegion): void {
    const leader = this.#model.leaderOf(truth);
    if (leader === undefined || !this.#model.isUp(leader.storeId)) {
      return;
    }
    const mood = this.#mood(leader.storeId);
    const report = this.#model.heartbeat(truth, this.#scheduler.nowMs, MAX_PEER_DOWN_MS);
    if (report === undefined || mood.isCut || mood.losesReports) {
      return;
    }
    if (this.#oldReports.length < KEPT_MAX) {
      this.#oldReports.push(report);
    } else {
      this.#oldReports[this.#netRng.below(KEPT_MAX)] = report;
    }
    this.#carry('report', () => this.#onPd('report', (node) => void node.onRegionHeartbeat(report)));
  }

  #bind(id: StoreId): void {
    this.#node?.bindStore(id, (reply) => {
      const mood = this.#mood(id);
      if (mood.isCut || mood.losesCommands || !this.#model.isUp(id)) {
        return false;
      }
      if (this.#oldCommands.length < KEPT_MAX) {
        this.#oldCommands.push(reply);
      } else {
        this.#oldCommands[this.#netRng.below(KEPT_MAX)] = reply;
      }
      this.#carry('command', () => this.#obey(id, reply));
      return true;
    });
  }

  #stepMs(): number {
    const [min, max] = this.#case.config.stepMs;
    return min + this.#netRng.float() * (max - min);
  }

  // ------------------------------------------------------------------------------------------ stores

  /** A store hears a command; what it was told it does, or not, some time later. */
  #obey(id: StoreId, reply: RegionHeartbeatReply): void {
    const mood = this.#mood(id);
    if (!this.#model.isUp(id) || mood.refuses) {
      return;
    }
    this.#scheduler.at(this.#stepMs() + mood.slowByMs, () => this.#execute(id, reply), { node: 2, kind: 'execute' });
  }

  #execute(id: StoreId, { regionId, epoch, targetPeer, step }: RegionHeartbeatReply): void {
    const model = this.#model;
    const truth = model.get(regionId);
    if (
      truth === undefined ||
      truth.leaderId !== targetPeer.id ||
      model.leaderOf(truth)?.storeId !== id ||
      !model.canAct(truth) ||
      truth.mergeTarget !== undefined
    ) {
      return;
    }
    switch (step.type) {
      case 'transfer-leader':
        model.transfer(truth, step.peer.id);
        return;
      case 'change-peer':
      case 'change-peer-joint': {
        const changes = step.type === 'change-peer' ? [step.change] : step.changes;
        if (model.change(truth, epoch.confVer, changes)) {
          this.#count(`executed:${step.type}`);
          for (const peer of [...truth.pending]) {
            this.#copy(regionId, peer);
          }
        }
        return;
      }
      case 'split':
        if (epoch.version === truth.region.epoch.version && epoch.confVer === truth.region.epoch.confVer) {
          // What a Partition needs is never too much.
          this.#split(truth.region, step.keys.length > 0 ? step.keys : [keyOf(this.#netRng.below(1000))], Infinity);
        }
        return;
      case 'merge':
        if (model.prepareMerge(truth, epoch, step.target)) {
          this.#count('executed:merge');
          this.#finishMerge(truth);
        }
    }
  }

  /** A new replica gets its data once its store and a majority run. */
  #copy(regionId: RegionId, peer: ModelRegion['leaderId']): void {
    const [min, max] = this.#case.config.copyMs;
    this.#scheduler.at(
      min + this.#netRng.float() * (max - min),
      () => {
        const truth = this.#model.get(regionId);
        const place = truth?.region.peers.find(({ id }) => id === peer);
        if (truth === undefined || place === undefined || !truth.pending.has(peer)) {
          return;
        }
        if (this.#model.isUp(place.storeId) && this.#model.canAct(truth)) {
          this.#model.caughtUp(truth, peer);
        } else {
          this.#copy(regionId, peer);
        }
      },
      { node: 2, kind: 'copy' },
    );
  }

  #finishMerge(source: ModelRegion): void {
    this.#scheduler.at(
      this.#stepMs(),
      () => {
        const outcome = this.#model.finishMerge(source);
        if (outcome === 'waits') {
          this.#finishMerge(source);
        } else {
          this.#count(`merge:${outcome}`);
        }
      },
      { node: 2, kind: 'finish-merge' },
    );
  }

  /** A leader asks for ids, splits, and names the parts; each of the three may get lost. */
  #split(region: Region, keys: readonly Uint8Array[], regionsMax = this.#case.config.regionsMax): void {
    const usable = keys.filter(
      (key) => rangeContains(region.range, key) && Buffer.compare(key, region.range.start) !== 0,
    );
    const leader = this.#model.get(region.id);
    const place = leader === undefined ? undefined : this.#model.leaderOf(leader);
    if (usable.length === 0 || place === undefined || this.#mood(place.storeId).isCut) {
      return;
    }
    if (this.#model.regions.size >= regionsMax) {
      return;
    }
    this.#carry('ask-split', () =>
      this.#onPd('ask-split', (node) => {
        const asked = node.askBatchSplit(region, usable.length);
        asked.then(
          (answer) => {
            if (answer.type === 'refused') {
              this.#count(`split:${answer.refusal.code}`);
              return;
            }
            this.#checks.onIds(
              answer.value.flatMap(({ newRegionId, newPeerIds }) => [newRegionId, ...newPeerIds]),
              `children of region ${region.id}`,
            );
            this.#carry('split', () => {
              const parts = this.#model.split(region, usable, answer.value);
              if (parts !== undefined) {
                this.#count('executed:split');
                this.#carry('report-split', () => this.#onPd('report-split', (pd) => pd.onSplitReport(parts)));
                for (const part of parts) {
                  for (const peer of this.#model.get(part.id)?.pending ?? []) {
                    this.#copy(part.id, peer);
                  }
                }
              }
            });
          },
          (error: unknown) => {
            if (!(error instanceof AppError)) {
              throw error;
            }
          },
        );
      }),
    );
  }

  /** Store heartbeats, region heartbeats and elections, for ever. */
  #live(id: StoreId): void {
    const beat = (): void => {
      const store = this.#model.stores.get(id);
      if (store === undefined || store.isGone) {
        return;
      }
      if (store.downSinceMs === undefined && !this.#mood(id).isCut) {
        const startedSeconds = 1;
        this.#carry('store-heartbeat', () =>
          this.#onPd('store-heartbeat', (node) => {
            node.onStoreHeartbeat({
              storeId: id,
              capacityBytes: 2 ** 40,
              availableBytes: 2 ** 39,
              usedBytes: 2 ** 30,
              regionCount: 1,
              sendingSnapshots: 0,
              receivingSnapshots: 0,
              applyingSnapshots: 0,
              startTimeSeconds: startedSeconds,
              isBusy: false,
              isStopping: false,
            });
          }),
        );
      }
      for (const truth of this.#model.regions.values()) {
        if (this.#model.leaderOf(truth)?.storeId === id) {
          this.#report(truth);
        }
      }
      this.#scheduler.at(HEARTBEAT_MS * (0.9 + this.#netRng.float() / 5), beat, { node: 2, kind: 'beat' });
    };
    this.#scheduler.at(this.#netRng.float() * HEARTBEAT_MS, beat, { node: 2, kind: 'beat' });
  }

  /** A region whose leader's store is down elects another one after a while. */
  #electWhereNeeded(): void {
    for (const truth of this.#model.regions.values()) {
      if (!this.#model.canAct(truth) || this.#model.leaderOf(truth) === undefined) {
        this.#model.elect(truth, this.#netRng.u32());
      }
    }
    this.#scheduler.at(700 + this.#netRng.float() * 600, () => this.#electWhereNeeded(), { node: 2, kind: 'election' });
  }

  /** Asks for something until the service answers, as clients of it do. */
  async #insist<T>(ask: (node: PdNode) => Promise<T>): Promise<T> {
    for (;;) {
      const node = this.#node;
      if (node?.isLeading === true && this.#service.leader?.clock.stalledMs === 0) {
        const late = Symbol('late');
        const answer = await Promise.race([
          ask(node).catch((error: unknown) => {
            if (!(error instanceof AppError) && !(error instanceof FailStop)) {
              throw error;
            }
            return late;
          }),
          this.#sleep(2_000).then(() => late),
        ]);
        if (answer !== late) {
          return answer as T;
        }
      }
      await this.#sleep(200);
    }
  }

  async #joinStore(): Promise<StoreId> {
    const result = await this.#insist((node) => node.allocIds(1));
    if (result.type === 'refused') {
      throw new WorldError('crash', result.refusal.message);
    }
    const id = storeId(result.value);
    this.#checks.onIds([id], 'a store');
    return id;
  }

  #storeRecord(id: StoreId): Store {
    return {
      id,
      address: `store-${id}:1`,
      statusAddress: '',
      state: 'up',
      labels: [
        { key: 'host', value: `h${id}` },
        { key: 'name', value: `p${id}` },
        ...(this.#case.config.rules ? [{ key: 'zone', value: zoneOf(id) }] : []),
      ],
      version: '1',
      startTimestamp: 1,
    };
  }

  // ------------------------------------------------------------------------------------------ phases

  async run(): Promise<void> {
    const { config, schedule } = this.#case;
    let failure: Error | undefined;
    let isReady = false;
    this.#boot();
    this.#found().then(
      () => {
        isReady = true;
      },
      (error: unknown) => {
        failure = error instanceof Error ? error : new Error(String(error));
      },
    );
    await this.#pump(
      () => isReady || failure !== undefined,
      60_000,
      () => 'the cluster was not founded',
    );
    if (failure !== undefined) {
      throw failure;
    }
    for (const action of schedule) {
      this.#scheduler.at(action.atMs, () => this.#act(action), { node: 0, kind: `nemesis:${action.kind}` });
    }
    void this.#askForStamps();
    const endMs = this.#scheduler.nowMs + config.durationMs;
    await this.#scheduler.pump(() => false, endMs);
    this.#assertNoFailStop();
    this.#heal();
    let reason = '';
    let nextLookMs = 0;
    const isInOrder = (): boolean => {
      const { nowMs } = this.#scheduler;
      if (nowMs < nextLookMs) {
        return false;
      }
      nextLookMs = nowMs + LOOK_MS;
      // An injected disk fault may strike only now.
      if (this.#node === undefined) {
        this.#boot();
        reason = 'the service is down';
        return false;
      }
      reason = this.#disorder(this.#node) ?? '';
      return reason === '';
    };
    if (config.documents) {
      this.#scheduler.at(PATIENCE_MS, () => this.#onPd('documents', (node) => this.#endAssignments(node)), {
        node: 0,
        kind: 'patience',
      });
    }
    await this.#pump(isInOrder, CONVERGE_MS, () => `no order: ${reason}`);
    this.#assertNoFailStop();
    if (config.documents) {
      await this.#restartAll(isInOrder, () => reason);
    }
    if (this.#checks.counts['commands'] === undefined) {
      throw new WorldError('vacuous', 'the placement service never sent a command');
    }
  }

  /** All members that the case begins with are there and vote. */
  async #gather(): Promise<void> {
    const { members } = this.#case.config;
    while (this.#service.voters < members) {
      if (this.#service.voters === this.#service.active.length && this.#service.voters > 0) {
        await this.#service.join();
      }
      await this.#sleep(100);
    }
  }

  /** A service that starts again on the same facts says the same about every document. */
  async #restartAll(isInOrder: () => boolean, reason: () => string): Promise<void> {
    // Order came in the middle of the last decisions about documents, and failed attempts are repeated after a while.
    await this.#scheduler.pump(() => false, this.#scheduler.nowMs + REST_MS);
    const areServed = (): boolean =>
      this.#node?.placement.resources.store.partitions().every((partition) => partition.status.ready) === true;
    await this.#scheduler.pump(areServed, this.#scheduler.nowMs + RETRY_MS);
    // A document that waited behind a slow write may have come true only now.
    await this.#pump(isInOrder, CONVERGE_MS, () => `no order before a restart: ${reason()}`);
    const before = this.#node === undefined ? '' : PdDocumentChecks.shown(this.#node);
    for (const machine of this.#service.active) {
      this.#service.crash(machine, 'power-loss');
    }
    this.#follow();
    this.#boot();
    await this.#pump(isInOrder, CONVERGE_MS, () => `no order after a restart: ${reason()}`);
    const restMs = this.#scheduler.nowMs + REST_MS;
    await this.#scheduler.pump(() => false, restMs);
    const after = this.#node === undefined ? '' : PdDocumentChecks.shown(this.#node);
    if (after !== before) {
      throw new InvariantError('PD2', `after a restart documents are\n${after}\nand were\n${before}`);
    }
    this.#count('documents:restarted');
    this.#assertNoFailStop();
  }

  async #found(): Promise<void> {
    const { config } = this.#case;
    await this.#gather();
    const first = await this.#joinStore();
    const ids = await this.#insist((node) => node.allocIds(2));
    if (ids.type === 'refused') {
      throw new WorldError('crash', ids.refusal.message);
    }
    this.#checks.onIds([ids.value, ids.value + 1], 'the first region and its peer');
    const region = firstModelRegion(ids.value, ids.value + 1, first);
    const refusal = await this.#insist((node) => node.bootstrap(this.#storeRecord(first), region));
    if (refusal !== undefined) {
      throw new WorldError('crash', refusal.message);
    }
    this.#model.found(region);
    await this.#admit(first);
    for (let i = 1; i < config.stores; i++) {
      await this.#admit(await this.#joinStore());
    }
    this.#electWhereNeeded();
    for (const name of SWITCHES) {
      const enabled = this.#defaultOf(name);
      await this.#insist((node) => node.setSwitch(name, enabled, 'case'));
    }
    for (let i = 1; i < config.regionsAtStart; i++) {
      const last = this.#model.inOrder().at(-1);
      if (last !== undefined) {
        this.#split(last.region, [keyOf(i * 150)]);
      }
      await this.#sleep(300);
    }
  }

  /** The store announces itself and begins to report. */
  async #admit(id: StoreId): Promise<void> {
    const refusal = await this.#insist((node) => node.putStore(this.#storeRecord(id)));
    if (refusal !== undefined) {
      throw new WorldError('crash', refusal.message);
    }
    this.#model.addStore(id);
    this.#bind(id);
    this.#live(id);
  }

  #defaultOf(name: SwitchName): boolean {
    const { balance, automaticMerge } = this.#case.config;
    return name === 'merge-checker'
      ? automaticMerge && !this.#isHealed
      : name.startsWith('balance')
        ? balance && !this.#isHealed
        : true;
  }

  async #askForStamps(): Promise<void> {
    const rng = this.#rng.fork('stamps');
    while (!this.#isHealed) {
      const onAnswer = this.#checks.askStamp();
      const stamp = await this.#insist((node) => node.timestamps(1 + rng.below(3)));
      onAnswer(stamp);
      if (rng.chance(0.2)) {
        const count = 1 + rng.below(20);
        const onIds = this.#checks.askIds();
        const ids = await this.#insist((node) => node.allocIds(count));
        if (ids.type === 'ok') {
          onIds(ids.value);
          this.#checks.onIds(
            Array.from({ length: count }, (_, i) => ids.value + i),
            'a caller',
          );
        }
      }
      await this.#sleep(rng.float() * 800);
    }
  }

  #heal(): void {
    this.#isHealed = true;
    for (const undo of this.#undo) {
      undo();
    }
    this.#undo.clear();
    this.#moods.clear();
    for (const { disk } of this.#service.machines) {
      disk.setBehavior({ writeDelayMs: [0.1, 1] });
    }
    for (const store of this.#model.stores.values()) {
      store.downSinceMs = undefined;
    }
    this.#boot();
    const switchOn = async (): Promise<void> => {
      for (const name of SWITCHES) {
        await this.#insist((node) => node.setSwitch(name, this.#defaultOf(name), 'heal'));
      }
    };
    if (this.#case.config.rules) {
      void this.#mendRules();
    }
    void switchOn();
    this.#note(0, 'note', 'all faults healed');
  }

  /** What is not in order yet. */
  #disorder(node: PdNode): string | undefined {
    const regions = this.#model.inOrder();
    for (const truth of regions) {
      const { region } = truth;
      const voters = region.peers.filter(({ role }) => role === 'voter');
      const isWhole =
        (this.#case.config.rules || (voters.length === 3 && region.peers.length === 3)) &&
        truth.pending.size === 0 &&
        truth.mergeTarget === undefined &&
        !isInJointState(region) &&
        region.peers.every(({ storeId: id }) => this.#model.isUp(id));
      if (!isWhole) {
        return `${formatRegion(region)} is not whole`;
      }
      const broken = this.#case.config.rules ? brokenRule(this.#ruleView(node), truth) : undefined;
      if (broken !== undefined) {
        return broken;
      }
    }
    const difference = this.#checks.difference(regions.map(({ region }) => region));
    if (difference !== undefined) {
      return difference;
    }
    const [assignment] = node.placement.resources.store.activeAssignments();
    if (assignment !== undefined) {
      return `Assignment ${assignment.meta.name} is ${assignment.status.phase}: ${JSON.stringify(assignment.status)}`;
    }
    const [operator] = node.placement.controller.running();
    if (operator !== undefined) {
      return `operator ${operator.id} (${operator.brief}) runs`;
    }
    for (const store of this.#model.stores.values()) {
      if (store.isGone && node.placement.cluster.store(store.id)?.record.store.state !== 'tombstone') {
        return `store ${store.id} is gone and not removed`;
      }
    }
    return undefined;
  }

  // ------------------------------------------------------------------------------------------ nemesis

  #later(forMs: number, undo: () => void): void {
    const heal = (): void => {
      if (this.#undo.delete(heal)) {
        undo();
      }
    };
    this.#undo.add(heal);
    this.#scheduler.at(forMs, heal, { node: 0, kind: 'heal' });
  }

  #act(action: PdAction): void {
    if (this.#isHealed) {
      return;
    }
    const { kind, a, b, c, forMs } = action;
    this.#note(0, 'fault', `${kind} ${a % 100}`, { untilMs: this.#scheduler.nowMs + forMs });
    const stores = [...this.#model.stores.values()].filter(({ isGone }) => !isGone);
    const store = pick(stores, a);
    const truth = pick(this.#model.inOrder(), b);
    if (store === undefined || truth === undefined) {
      return;
    }
    switch (kind) {
      case 'split':
      case 'merge':
      case 'move':
      case 'transfer':
      case 'add-learner':
      case 'remove-peer':
      case 'cancel':
        this.#onPd('wish', (node) => this.#wish(node, action, truth.region));
        return;
      case 'switch': {
        const name = pick(SWITCHES, a) as SwitchName;
        this.#count(kind);
        // Whoever repeats this after everything healed must not undo the healing.
        void this.#insist((node) => node.setSwitch(name, this.#isHealed && this.#defaultOf(name), 'nemesis'));
        this.#later(forMs, () => void this.#insist((node) => node.setSwitch(name, this.#defaultOf(name), 'nemesis')));
        return;
      }
      case 'own-split':
        this.#count(kind);
        this.#split(truth.region, [keyOf(c)]);
        return;
      case 'elect':
        this.#count(kind);
        this.#model.elect(truth, c);
        return;
      case 'restart-store':
      case 'stop-store':
        this.#count(kind);
        store.downSinceMs ??= this.#scheduler.nowMs;
        this.#later(kind === 'stop-store' ? forMs * 4 : forMs, () => {
          store.downSinceMs = undefined;
        });
        return;
      case 'wipe-store':
        this.#wipe(store.id);
        return;
      case 'refuse':
        this.#moody(store.id, forMs, kind, { refuses: true });
        return;
      case 'slow-store':
        this.#moody(store.id, forMs, kind, { slowByMs: 500 + (c % 8_000) });
        return;
      case 'cut-store':
        this.#moody(store.id, forMs, kind, { isCut: true });
        return;
      case 'lose-reports':
        this.#moody(store.id, forMs, kind, { losesReports: true });
        return;
      case 'lose-commands':
        this.#moody(store.id, forMs, kind, { losesCommands: true });
        return;
      case 'old-commands':
        this.#count(kind);
        for (let i = 0; i < 1 + (b % 5) && this.#oldCommands.length > 0; i++) {
          const reply = this.#netRng.pick(this.#oldCommands);
          this.#obey(reply.targetPeer.storeId, reply);
        }
        return;
      case 'old-reports':
        this.#count(kind);
        for (let i = 0; i < 1 + (b % 5) && this.#oldReports.length > 0; i++) {
          const report = this.#netRng.pick(this.#oldReports);
          this.#onPd('report', (node) => void node.onRegionHeartbeat(report));
        }
        return;
      case 'crash-pd':
        this.#count(kind);
        this.#crash([this.#service.leader ?? pick(this.#service.active, a)], action);
        return;
      case 'crash-follower':
        this.#count(kind);
        this.#crash([pick(this.#followers(), a)], action);
        return;
      case 'crash-all-pd':
        this.#count(kind);
        this.#crash(this.#service.active, action);
        return;
      case 'stall-pd':
        this.#count(kind);
        pick(this.#service.active, c)?.clock.stall(forMs);
        return;
      case 'cut-pd':
      case 'half-cut-pd': {
        const machine = c % 2 === 0 ? this.#service.leader : pick(this.#service.active, a);
        if (machine !== undefined) {
          this.#count(kind);
          this.#later(forMs, this.#service.isolate(machine, kind === 'half-cut-pd'));
        }
        return;
      }
      case 'transfer-pd':
        this.#transferLead(pick(this.#followers(), a)?.name);
        return;
      case 'join-pd':
        if (this.#service.active.length < MEMBERS_MAX) {
          void this.#service.join().then((isDone) => this.#count(isDone ? kind : `${kind}:not-now`));
        }
        return;
      case 'remove-pd':
      case 'replace-pd':
        this.#removeMember(pick(this.#followers(), a), kind === 'replace-pd');
        return;
      case 'apply-partition':
      case 'merge-parts':
      case 'move-part':
      case 'split-part':
      case 'delete-document':
        this.#changeDocuments(action, truth.region);
        return;
      case 'set-rule':
      case 'delete-rule':
        this.#changeRules(action);
        return;
      case 'wall-jump': {
        this.#count(kind);
        const byMs = (b % 600_000) - 300_000;
        for (const machine of this.#service.active) {
          machine.wallOffsetMs += byMs;
          machine.clock.jumpWall(byMs);
        }
        return;
      }
      case 'disk-slow':
        this.#count(kind);
        for (const { disk } of this.#service.active) {
          disk.setBehavior({ writeDelayMs: [20, 20 + (b % 800)] });
          this.#later(forMs, () => disk.setBehavior({ writeDelayMs: this.#case.config.writeDelayMs }));
        }
        return;
      case 'disk-error': {
        const machine = pick(this.#service.active, a);
        if (machine?.member !== undefined) {
          this.#count(kind);
          this.#mayStop = true;
          machine.disk.failNextWrite(c % 2 === 0 ? 'write-error' : 'sync-error');
          this.#later(forMs + 500, () => this.#boot());
        }
        return;
      }
    }
  }

  #followers(): readonly PdMachine[] {
    const { leader, active } = this.#service;
    return active.filter((machine) => machine !== leader);
  }

  #crash(machines: readonly (PdMachine | undefined)[], { c, forMs }: PdAction): void {
    for (const machine of machines) {
      if (machine !== undefined) {
        this.#service.crash(machine, c % 2 === 0 ? 'kill' : 'power-loss');
        this.#later(forMs, () => this.#service.boot(machine));
      }
    }
    this.#follow();
  }

  #transferLead(to: string | undefined): void {
    try {
      const answer = this.#service.leader?.member?.group.transferLeader(to);
      this.#count(answer?.type === 'ok' ? 'transfer-pd' : 'transfer-pd:not-now');
    } catch (error) {
      // It has just lost the lead.
      if (!(error instanceof AppError)) {
        throw error;
      }
    }
  }

  /** Never below a majority of three; the group refuses what would lose it its quorum. */
  #removeMember(machine: PdMachine | undefined, isReplaced: boolean): void {
    if (machine === undefined || (this.#service.active.length <= this.#case.config.members && !isReplaced)) {
      return;
    }
    const kind = isReplaced ? 'replace-pd' : 'remove-pd';
    const run = async (): Promise<void> => {
      if (isReplaced) {
        // Its disk is gone: it never comes back, and an empty one takes its place.
        const isWhole = this.#service.active.every(({ member }) => member !== undefined);
        const { length } = this.#service.active;
        if (!isWhole || length < 3 || this.#service.voters !== length || !this.#service.isEveryVoterUp) {
          this.#count(`${kind}:not-now`);
          return;
        }
        this.#service.retire(machine);
      }
      for (let round = 0; round < REMOVE_ROUNDS_MAX; round++) {
        if (await this.#service.remove(machine)) {
          this.#count(kind);
          this.#service.retire(machine);
          break;
        }
        if (!isReplaced) {
          this.#count(`${kind}:not-now`);
          return;
        }
        await this.#sleep(500);
      }
      for (let round = 0; isReplaced && round < REMOVE_ROUNDS_MAX && !(await this.#service.join()); round++) {
        await this.#sleep(500);
      }
    };
    void run();
  }

  // ------------------------------------------------------------------------------------------ documents

  /** Applies documents about what there is, in words of users; many are refused, because they make no sense any more. */
  #changeDocuments({ kind, a, b, c }: PdAction, region: Region): void {
    const number = ++this.#documentNumber;
    const plan = ({ placement }: PdNode): DocumentPlan | undefined => {
      const { resources } = placement;
      const parts = [...resources.store.partitions()].sort((x, y) =>
        Buffer.compare(x.spec.range.start, y.spec.range.start),
      );
      const pods = [...this.#model.stores.keys()].map((id) => `p${id}`);
      const part = pick(parts, b);
      const assignment = (spec: object): DocumentPlan =>
        resources.planApply([{ kind: 'Assignment', metadata: { name: `a${number}` }, spec }]);
      switch (kind) {
        case 'apply-partition': {
          // The range of a region, or one that has to be cut out of several.
          const [from, to] = [b % 1000, c % 1000].sort((x, y) => x - y) as [number, number];
          const range =
            c % 3 === 0
              ? { start: fromUtf8(keyOf(from)), end: fromUtf8(keyOf(to + 1)) }
              : { start: fromUtf8(region.range.start), end: fromUtf8(region.range.end) };
          const primary = a % 2 === 0 ? {} : { primary: pick(pods, a >> 1) };
          return resources.planApply([
            { kind: 'Partition', metadata: { name: `part${number}` }, spec: { range, ...primary } },
          ]);
        }
        case 'merge-parts': {
          const at = parts.length < 2 ? 0 : b % (parts.length - 1);
          const names = parts.slice(at, at + 2 + (c % 2)).map(({ meta }) => meta.name);
          return assignment({
            type: 'InWorkerMerge',
            mergeParams: { partitions: names, mergedName: `merged${number}`, proxyThreshold: '2s' },
          });
        }
        case 'move-part': {
          const from = part === undefined ? undefined : primaryOf(part.spec);
          return part === undefined
            ? undefined
            : assignment({
                type: 'InterWorkerMove',
                moveParams: { partition: part.meta.name, from: from ?? 'p0', to: pick(pods, c), proxyThreshold: '2s' },
              });
        }
        case 'split-part':
          return part === undefined
            ? undefined
            : assignment({
                type: 'InWorkerSplit',
                splitParams: { partition: part.meta.name, splitKey: fromUtf8(keyOf(c)) },
              });
        default: {
          const all = [...parts, ...resources.store.activeAssignments()];
          const one = pick(all, c);
          return one === undefined ? undefined : resources.planDelete(one.kind, one.meta.name, 0);
        }
      }
    };
    this.#onPd('documents', (node) => {
      if (this.#isHealed) {
        // It was on its way to a service that stood still.
        return;
      }
      const nothing: DocumentPlan = { refusal: undefined, results: [], change: undefined };
      node
        .changeDocuments(() => plan(node) ?? nothing, { dryRun: false })
        .then(
          ({ refusal }) => this.#count(refusal === undefined ? kind : `${kind}:${refusal.code}`),
          (error: unknown) => {
            if (!(error instanceof AppError) && !(error instanceof FailStop)) {
              throw error;
            }
          },
        );
    });
  }

  /** Assignments that are still under way some time after everything healed are taken back. */
  #endAssignments(node: PdNode): void {
    for (const { meta } of node.placement.resources.store.activeAssignments()) {
      this.#count('assignment:taken-back');
      node
        .changeDocuments(() => node.placement.resources.planDelete('Assignment', meta.name, 0), { dryRun: false })
        .catch((error: unknown) => {
          if (!(error instanceof AppError) && !(error instanceof FailStop)) {
            throw error;
          }
        });
    }
  }

  // ------------------------------------------------------------------------------------------ rules

  /** What the service says of the regions that do not meet their rules. */
  #unmet(): string[] {
    const node = this.#node;
    if (node === undefined || !this.#case.config.rules) {
      return [];
    }
    const view = this.#ruleView(node);
    const broken = this.#model.inOrder().filter((truth) => brokenRule(view, truth) !== undefined);
    return broken.map(({ region }) => {
      const findings = node.placement.explainRegion(region.id) ?? [];
      const words = findings.map(({ name, detail, refusal }) => `${name}: ${refusal?.message ?? detail}`);
      return `region ${region.id}: ${words.join('; ')}`;
    });
  }

  #ruleView(node: PdNode): RuleView {
    const { rules, config } = node.placement.cluster;
    return { rules: rules.rules, maxReplicas: config.maxReplicas };
  }

  #changeRules({ kind, a, b, c }: PdAction): void {
    this.#onPd('rules', (node) => {
      if (this.#isHealed) {
        return;
      }
      const rule = kind === 'set-rule' ? drawRule(a, b, c) : pick(this.#ruleView(node).rules, c);
      if (rule !== undefined) {
        this.#writeRule(node, rule, kind).catch((error: unknown) => {
          if (!(error instanceof AppError) && !(error instanceof FailStop)) {
            throw error;
          }
        });
      }
    });
  }

  /** What a service answered for a rule stays, whatever happens to it: its version never goes back. */
  async #writeRule(node: PdNode, rule: PlacementRule, kind: string): Promise<void> {
    const result = await node.changeRules(
      (placement, version) => {
        this.#checks.onRuleVersion(version);
        return kind === 'set-rule'
          ? placement.planSetRule(version, rule, undefined)
          : placement.planDeleteRule(version, rule.group, rule.id, undefined);
      },
      { dryRun: false, actor: 'nemesis', note: '' },
    );
    if (result.type === 'refused') {
      this.#count(`${kind}:${result.refusal.code}`);
    } else {
      this.#count(kind);
      this.#checks.onRuleWritten(result.value.change?.version ?? 0);
    }
  }

  /** Rules that the stores which are left cannot meet are taken back, as their owner would; some only after others. */
  async #mendRules(): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      const isDone = await this.#insist(async (node) => {
        const stores = [...this.#model.stores.values()].filter(({ isGone }) => !isGone).map(({ id }) => id);
        const rule = pick(unmeetable(this.#ruleView(node), stores), attempt);
        if (rule !== undefined) {
          await this.#writeRule(node, rule, 'delete-rule');
        }
        return rule === undefined;
      });
      // A change that was on its way when everything healed may come through yet.
      await this.#sleep(isDone ? 2_000 : 100);
    }
  }

  #moody(id: StoreId, forMs: number, kind: string, change: Partial<Mood>): void {
    this.#count(kind);
    this.#moods.set(id, { ...this.#mood(id), ...change });
    this.#later(forMs, () => this.#moods.set(id, { ...this.#mood(id), ...GOOD_MOOD }));
  }

  #wish(node: PdNode, { kind, a, c }: PdAction, region: Region): void {
    const stores = [...this.#model.stores.keys()];
    const peer = pick(region.peers, c);
    const free = pick(
      stores.filter((id) => region.peers.every((p) => p.storeId !== id)),
      a,
    );
    const ask = (
      wish: (placement: Placement) => { readonly type: string; readonly refusal?: { code: string } },
    ): void => {
      const answer = node.act(wish);
      this.#count(answer.refusal === undefined ? kind : `${kind}:${answer.refusal.code}`);
    };
    switch (kind) {
      case 'split':
        ask((placement) => placement.splitRegion(region.id, [keyOf(c)]));
        return;
      case 'merge': {
        const order = this.#model.inOrder().map((truth) => truth.region);
        const next = order[order.indexOf(region) + 1];
        if (next !== undefined) {
          const [source, target] = c % 2 === 0 ? [region, next] : [next, region];
          ask((placement) => placement.mergeRegions(source.id, target.id));
        }
        return;
      }
      case 'move':
        if (peer !== undefined && free !== undefined) {
          ask((placement) => placement.moveRegion(region.id, peer.storeId, free));
        }
        return;
      case 'transfer':
        if (peer !== undefined) {
          ask((placement) => placement.transferLeader(region.id, peer.storeId));
        }
        return;
      case 'add-learner':
        if (free !== undefined) {
          ask((placement) => placement.addPeer(region.id, free, 'learner'));
        }
        return;
      case 'remove-peer':
        if (peer !== undefined && region.peers.length > 3) {
          ask((placement) => placement.removePeer(region.id, peer.storeId));
        }
        return;
      default: {
        const operator = pick(node.placement.controller.running(), a);
        if (operator !== undefined) {
          this.#count('cancel');
          node.act((placement) => placement.cancelOperator(operator, 'nemesis'));
        }
      }
    }
  }

  /** A disk is lost for good, if every region has two more sound voters; an operator declares it dead, a new store joins. */
  #wipe(id: StoreId): void {
    const isSafe = this.#model.inOrder().every((truth) => {
      const { peers } = truth.region;
      const isWhole = peers.every(({ role }) => role === 'voter') && truth.pending.size === 0;
      return (
        peers.every((p) => p.storeId !== id) ||
        (isWhole && peers.length === 3 && peers.every((p) => this.#model.isUp(p.storeId)))
      );
    });
    const store = this.#model.stores.get(id);
    const isAnotherLost = [...this.#model.stores.values()].some(
      (other) => other.isGone && this.#model.inOrder().some((t) => t.region.peers.some((p) => p.storeId === other.id)),
    );
    if (!isSafe || isAnotherLost || store === undefined) {
      this.#count('wipe-store:not-now');
      return;
    }
    this.#count('wipe-store');
    store.isGone = true;
    store.downSinceMs = this.#scheduler.nowMs;
    const replace = async (): Promise<void> => {
      await this.#insist((node) =>
        node.setStoreState(id, 'removing', { physicallyDestroyed: true, dryRun: false, actor: 'nemesis' }),
      );
      await this.#admit(await this.#joinStore());
    };
    void replace();
  }

  // ------------------------------------------------------------------------------------------ result

  failureOf(error: unknown): RunFailure {
    const base = { atMs: this.#scheduler.nowMs, event: this.#scheduler.steps };
    if (error instanceof WorldError || error instanceof InvariantError) {
      return { ...base, invariant: error.invariant, message: `${error.message}\n${this.#describe()}` };
    }
    if (this.#failStops.length > 0) {
      return { ...base, invariant: 'fail-stop', message: this.#failStops.join('; ') };
    }
    const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
    return { ...base, invariant: 'crash', message };
  }

  result(failure: RunFailure | undefined): RunResult {
    const sum = (prefix: string): number =>
      Object.entries(this.#actions).reduce((n, [name, times]) => n + (name.startsWith(prefix) ? times : 0), 0);
    return {
      case: this.#case,
      failure,
      stats: {
        events: this.#scheduler.steps,
        virtualMs: this.#scheduler.nowMs,
        ok: sum('executed:') + sum('merge:'),
        failed: 0,
        unknown: 0,
        actions: this.#actions,
        checks: Object.fromEntries(
          Object.entries({ ...this.#checks.counts, ...this.#documents.counts }).map(([name, n]) => [`pd-${name}`, n]),
        ),
      },
      traceHash: this.#scheduler.trace.text,
      checkpoints: this.#scheduler.trace.checkpoints,
      history: [],
      timeline: this.#timeline,
      lanes: ['placement service'],
    };
  }
}

export async function runPd(simCase: PdCase, options: { readonly trace?: boolean } = {}): Promise<RunResult> {
  const world = new PdWorld(simCase, options.trace === true);
  let failure: RunFailure | undefined;
  try {
    await world.run();
  } catch (error) {
    failure = world.failureOf(error);
  }
  return world.result(failure);
}
