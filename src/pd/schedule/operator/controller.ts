/**
 * Runs operators: admission, at most one per region, sending and sending again, progress on reports, deadlines,
 * cancellation, history. The two operators of a merge are installed, ended and replaced together, each of these in one
 * synchronous call. Synchronous; commands leave through the outbox.
 */
import { assert } from '../../../base/assert.ts';
import type { RegionId, StoreId } from '../../../base/ids.ts';
import { rangesEqual } from '../../../base/key-range.ts';
import type { Clock } from '../../../env/clock.ts';
import type { Rng } from '../../../env/rng.ts';
import type { RegionHeartbeatReply, RegionStep } from '../../../meta/heartbeat.ts';
import { epochsEqual } from '../../../meta/region.ts';
import type { StepRefusal } from '../../../meta/step-refusal.ts';
import type { Cluster } from '../../cluster/cluster.ts';
import { livenessOf, settingsOf } from '../../cluster/store-info.ts';
import type { RegionInfo } from '../../cluster/region-info.ts';
import type { PlacementConfig } from '../../defaults.ts';
import { type Refusal, refuse, regionNotFound } from '../verdict.ts';
import { checkPairHealth, checkReadiness, readSourceReport, targetChanged } from './merge-pair.ts';
import { Operator, type OperatorKind, type OperatorPlan, PRIORITY_ORDER, type Times } from './operator.ts';
import type { EndReason, EndStatus } from './status.ts';
import { quorumRisk } from './quorum-guard.ts';
import { type Step, type StepView, checkStep, commandOf, isQuick } from './step.ts';
import { type LimitUse, StoreLimits, limitUses, peerUse } from './store-limit.ts';
import { type OperatorGroup, WaitingQueue } from './waiting-queue.ts';

/** A command for the leader of a region, addressed to the store it is on. */
export interface OutgoingCommand {
  readonly storeId: StoreId;
  readonly reply: RegionHeartbeatReply;
}

export interface ControllerOptions {
  readonly cluster: Cluster;
  readonly clock: Pick<Clock, 'monoMs' | 'wallMs'>;
  readonly rng: Rng;
  /** Why an operator may not run on its region, which somebody else holds. Asked when it is admitted. */
  readonly guard?: (operator: Operator, info: RegionInfo) => Refusal | undefined;
  /** Called once for every operator that ended. */
  readonly onEnd: (operator: Operator) => void;
  /** A store refused a step of the operator for a new reason, see `lastRefusal`. */
  readonly onRefused: (operator: Operator) => void;
}

/** Waiting operators looked at per promotion round. */
const PROMOTIONS_MAX = 64;
/** Time until a step that its store refused for a passing reason is sent again; what passes mostly passes soon. */
const REFUSED_RETRY_MS = 500;

const RELATED: EndReason = {
  code: 'RelatedMergeRegion',
  text: 'the other half of the merge ended',
  hint: 'look at the operator of the other region for the cause',
};

export class OperatorController {
  readonly #cluster: Cluster;
  readonly #clock: ControllerOptions['clock'];
  readonly #onEnd: (operator: Operator) => void;
  readonly #onRefused: (operator: Operator) => void;
  readonly #guard: NonNullable<ControllerOptions['guard']>;
  readonly #limits: StoreLimits;
  readonly #waiting: WaitingQueue;
  readonly #running = new Map<RegionId, Operator>();
  readonly #nextPushMs = new Map<Operator, number>();
  /** Ended operators by id, oldest first. */
  readonly #history = new Map<number, Operator>();
  #outbox: OutgoingCommand[] = [];
  readonly #view: StepView;

  constructor(options: ControllerOptions) {
    this.#cluster = options.cluster;
    this.#clock = options.clock;
    this.#onEnd = options.onEnd;
    this.#onRefused = options.onRefused;
    this.#guard = options.guard ?? (() => undefined);
    this.#limits = new StoreLimits(
      (store) => settingsOf(this.#cluster.store(store)).limitPerMinute ?? this.#config.storeLimitPerMinute,
    );
    this.#waiting = new WaitingQueue(options.rng);
    const { cluster } = options;
    this.#view = {
      get config() {
        return cluster.config;
      },
      silentMs: (id) => {
        const store = this.#cluster.store(id);
        return store === undefined ? undefined : this.#clock.monoMs() - store.seenAtMs;
      },
    };
  }

  /** Commands to send, in order; empties the outbox. */
  takeOutbox(): OutgoingCommand[] {
    const out = this.#outbox;
    this.#outbox = [];
    return out;
  }

  runningOn(region: RegionId): Operator | undefined {
    return this.#running.get(region);
  }

  /** Running operators in the order they were started. */
  running(): Operator[] {
    return [...this.#running.values()];
  }

  waiting(): Operator[] {
    return this.#waiting.groups().flat();
  }

  /** Ended operators, latest first. */
  history(): Operator[] {
    return [...this.#history.values()].reverse();
  }

  /** A running, waiting or remembered operator. */
  find(id: number): Operator | undefined {
    return (
      this.#history.get(id) ??
      this.running().find((operator) => operator.id === id) ??
      this.waiting().find((operator) => operator.id === id)
    );
  }

  /** Running operators that count against the limit of a kind. */
  countOf(kind: OperatorKind): number {
    let count = 0;
    for (const operator of this.#running.values()) {
      count += operator.limitKind === kind ? 1 : 0;
    }
    return count;
  }

  hasRoomFor(kind: OperatorKind, count: number): boolean {
    const limit: Readonly<Partial<Record<OperatorKind, number>>> = {
      leader: this.#config.leaderScheduleLimit,
      region: this.#config.regionScheduleLimit,
      replica: this.#config.replicaScheduleLimit,
      merge: this.#config.mergeScheduleLimit,
    };
    return this.countOf(kind) + count <= (limit[kind] ?? this.#config.runningOperatorsMax);
  }

  /** Whether an offer by this maker can be taken at the moment, so that planning it is worth while. */
  acceptsFrom(maker: string, kind: OperatorKind): boolean {
    return this.hasRoomFor(kind, kind === 'merge' ? 2 : 1) && this.#admitWaiting(maker) === undefined;
  }

  make(id: number, plan: OperatorPlan): Operator {
    return new Operator(id, plan, this.#config, this.#now());
  }

  /** Ties the two halves of a merge together. Both get the source's time: the target waits while it is aligned. */
  pair(source: Operator, target: Operator): OperatorGroup {
    assert(source.isMergeSource && target.isMergeTarget, 'a merge pair is a source and a target');
    source.related = target;
    target.related = source;
    target.timeoutMs = source.timeoutMs;
    return [source, target];
  }

  /** Why `submit` would refuse the group now; changes nothing. */
  refusalOf(group: OperatorGroup): Refusal | undefined {
    return this.#admit(group) ?? this.#admitTotal(group.length);
  }

  /** Starts operators at once, as administrators ask. Either all of the group run afterwards or nothing changed. */
  submit(group: OperatorGroup): Refusal | undefined {
    const refusal = this.refusalOf(group);
    if (refusal === undefined) {
      this.#install(group);
    }
    return refusal;
  }

  /** Starts operators of checkers and schedulers, now or when the limits allow it. */
  offer(group: OperatorGroup): Refusal | undefined {
    const refusal =
      this.#admit(group) ??
      this.#admitTotal(group.length) ??
      this.#admitStores(group) ??
      this.#admitWaiting(group[0].maker);
    if (refusal === undefined) {
      this.#waiting.push(group);
      this.#promote();
    }
    return refusal;
  }

  /**
   * A leader's report was accepted. `info` is what the map says now. A report that brings a refusal left the store in the
   * moment of refusing: the same command at once would be refused at once, and so on as fast as the network is.
   */
  onRegion(info: RegionInfo, bringsRefusal = false): void {
    const operator = this.#running.get(info.region.id);
    if (operator !== undefined) {
      this.#dispatch(operator, info, bringsRefusal);
    }
  }

  /**
   * The region's leader refused a step since its report before. A passing reason is kept for people and the step sent
   * again; a lasting one ends the operator, provided the region still is as it was when the store refused.
   */
  onRefusal(info: RegionInfo, refusal: StepRefusal): void {
    const operator = this.#running.get(info.region.id);
    const subject = refusal.step === 'commit-merge' ? operator?.related : operator;
    if (operator === undefined || subject === undefined || info.leader === undefined) {
      return;
    }
    const step = subject.currentStep;
    const times = subject.stepTimes[subject.currentIndex];
    if (step === undefined || times === undefined || times.sends === 0 || !isRefusalOf(refusal, step)) {
      return;
    }
    const before = subject.lastRefusal;
    const repeats = before?.code === refusal.code && before.step === refusal.step;
    const { storeId } = info.leader;
    subject.lastRefusal = {
      ...refusal,
      regionId: info.region.id,
      storeId,
      wallMs: this.#clock.wallMs(),
      count: repeats ? before.count + 1 : 1,
    };
    times.detail = `store ${storeId} refused (${refusal.code}): ${refusal.message}`;
    if (!repeats) {
      this.#onRefused(subject);
    }
    if (refusal.outlook === 'passing') {
      const soonMs = this.#clock.monoMs() + REFUSED_RETRY_MS;
      this.#nextPushMs.set(subject, Math.min(soonMs, this.#nextPushMs.get(subject) ?? soonMs));
    }
    const isPlan = epochsEqual(refusal.epoch, info.region.epoch) && refusal.step !== 'commit-merge';
    if (refusal.outlook === 'lasting' && isPlan && subject.mergeProgress.type !== 'prepared') {
      this.#endGroup(subject, 'canceled', {
        code: 'StoreRefused',
        text: `store ${storeId} refused (${refusal.code}): ${refusal.message}`,
        hint: refusal.hint,
      });
    }
  }

  /** Deadlines, lost regions, sending again, waiting operators. Call it every `pushIntervalMs`. */
  tick(): void {
    const now = this.#now();
    for (const operator of [...this.#running.values()]) {
      if (operator.hasEnded) {
        continue;
      }
      const info = this.#cluster.tree.get(operator.regionId);
      if (info === undefined) {
        this.#onRegionGone(operator);
      } else if (operator.isOverdue(now.monoMs)) {
        this.#endOverdue(operator);
      } else if (now.monoMs >= (this.#nextPushMs.get(operator) ?? 0)) {
        this.#dispatch(operator, info);
      }
    }
    for (const group of this.#waiting.groups()) {
      if (group[0].isExpired(now.monoMs, this.#config.operatorExpiryMs)) {
        this.#waiting.remove(group);
        this.#endGroup(group[0], 'expired', {
          code: 'Expired',
          text: 'it waited too long for room to run',
          hint: 'raise the schedule limits if this happens often',
        });
      }
    }
    this.#promote();
  }

  /** Stops an operator and its partner. False if it has ended already. */
  cancel(operator: Operator, reason: EndReason): boolean {
    if (operator.hasEnded) {
      return false;
    }
    for (const group of this.#waiting.groups()) {
      if (group.some((member) => member === operator)) {
        this.#waiting.remove(group);
      }
    }
    this.#endGroup(operator, 'canceled', reason);
    this.#promote();
    return true;
  }

  /** Administrators change some of it at run time. */
  get #config(): PlacementConfig {
    return this.#cluster.config;
  }

  #now(): Times {
    return { monoMs: this.#clock.monoMs(), wallMs: this.#clock.wallMs() };
  }

  // ------------------------------------------------------------------------------------------------ admission

  /** All conditions that hold or fail at this very moment; none of them waits. */
  #admit(group: OperatorGroup): Refusal | undefined {
    const [first, second] = group;
    if (first.isMergeSource !== (second?.isMergeTarget ?? false) || first.isMergeTarget) {
      return refuse('LonelyMerge', 'a merge needs operators on both regions', 'report this: it is a bug');
    }
    for (const operator of group) {
      const refusal = this.#admitOne(operator);
      if (refusal !== undefined) {
        return refusal;
      }
    }
    return undefined;
  }

  #admitOne(operator: Operator): Refusal | undefined {
    const info = this.#cluster.tree.get(operator.regionId);
    if (info === undefined) {
      return regionNotFound(operator.regionId);
    }
    if (!epochsEqual(info.region.epoch, operator.epoch)) {
      return refuse('EpochChanged', `region ${operator.regionId} changed while the plan was made`, 'try again', {
        region_id: operator.regionId,
      });
    }
    const running = this.#running.get(operator.regionId);
    if (running !== undefined && !this.#mayReplace(running, operator)) {
      return refuse(
        'OperatorExists',
        `region ${operator.regionId} already has operator ${running.id} (${running.brief})`,
        'wait until it ended, or cancel it',
        { region_id: operator.regionId, operator_id: running.id },
      );
    }
    if (operator.isExpired(this.#clock.monoMs(), this.#config.operatorExpiryMs)) {
      return refuse('Expired', 'the plan is too old', 'try again');
    }
    assert(operator.status === 'created', 'an operator is admitted once', { operator: operator.id });
    return this.#guard(operator, info);
  }

  /** A merge that may have been prepared is never replaced: the stores go on with it anyway. */
  #mayReplace(running: Operator, operator: Operator): boolean {
    return PRIORITY_ORDER[running.priority] < PRIORITY_ORDER[operator.priority] && running.isCancelable;
  }

  #admitTotal(count: number): Refusal | undefined {
    return this.#running.size + count <= this.#config.runningOperatorsMax
      ? undefined
      : refuse('TooManyOperators', `${this.#running.size} operators are running`, 'wait until some of them ended', {
          limit: this.#config.runningOperatorsMax,
        });
  }

  #admitStores(group: OperatorGroup): Refusal | undefined {
    const lacking = this.#limits.lacking(this.#uses(group), this.#clock.monoMs());
    return lacking === undefined
      ? undefined
      : refuse(
          'StoreLimit',
          `store ${lacking.storeId} has reached its limit of peers to ${lacking.direction} per minute`,
          'wait a minute or raise storeLimitPerMinute',
          { store_id: lacking.storeId },
        );
  }

  #admitWaiting(maker: string): Refusal | undefined {
    return this.#waiting.countOf(maker) < this.#config.waitingPerMakerMax
      ? undefined
      : refuse(
          'TooManyWaiting',
          `${maker} has enough waiting operators`,
          'raise the schedule limits if this happens often',
        );
  }

  /** Whether the limits of a store let it take another replica of this size now. */
  canTakePeer(storeId: StoreId, sizeBytes: number): boolean {
    return this.#limits.lacking([peerUse(storeId, 'add', sizeBytes)], this.#clock.monoMs()) === undefined;
  }

  /** Nothing is spared by leaving a store slowly that is lost or being emptied: the stores that take its replicas set the pace. */
  #isBeingLeft(id: StoreId): boolean {
    const store = this.#cluster.store(id);
    return (
      store === undefined ||
      store.record.store.state !== 'up' ||
      livenessOf(store, this.#config, this.#clock.monoMs()) === 'down'
    );
  }

  #uses(group: OperatorGroup): LimitUse[] {
    return group
      .flatMap((operator) => limitUses(operator.steps, operator.sizeBytes))
      .filter((use) => use.direction === 'add' || !this.#isBeingLeft(use.storeId));
  }

  /** Puts all operators of an admitted group into their slots. Nothing in here can fail half way. */
  #install(group: OperatorGroup): void {
    const now = this.#now();
    for (const operator of group) {
      const replaced = this.#running.get(operator.regionId);
      if (replaced !== undefined) {
        this.#endGroup(replaced, 'replaced', {
          code: 'Replaced',
          text: `replaced by operator ${operator.id} (${operator.brief})`,
          hint: '',
        });
      }
    }
    for (const operator of group) {
      assert(!this.#running.has(operator.regionId), 'a region slot is taken', { region: operator.regionId });
      assert(operator.start(now), 'an admitted operator must start', { operator: operator.id });
      this.#running.set(operator.regionId, operator);
    }
    this.#limits.take(this.#uses(group), now.monoMs);
    for (const operator of group) {
      const info = this.#cluster.tree.get(operator.regionId);
      if (info !== undefined && !operator.hasEnded) {
        this.#dispatch(operator, info);
      }
    }
  }

  #promote(): void {
    for (let i = 0; i < PROMOTIONS_MAX; i++) {
      const group = this.#waiting.take(([first, second]) =>
        this.hasRoomFor(first.limitKind, second === undefined ? 1 : 2),
      );
      if (group === undefined) {
        return;
      }
      const refusal = this.#admit(group) ?? this.#admitStores(group);
      if (refusal === undefined) {
        this.#install(group);
      } else {
        this.#endGroup(group[0], 'canceled', {
          code: refusal.code === 'StoreLimit' ? 'StoreLimit' : 'NotAdmitted',
          text: refusal.message,
          hint: refusal.hint,
        });
      }
    }
  }

  // ------------------------------------------------------------------------------------------------- progress

  #dispatch(operator: Operator, info: RegionInfo, waitsForPush = false): void {
    if (operator.isMergeTarget && this.#watchTarget(operator, info)) {
      return;
    }
    if (operator.mergeProgress.type === 'sent' || operator.mergeProgress.type === 'prepared') {
      this.#watchSource(operator, info);
      return;
    }
    const now = this.#now();
    if (operator.advance(info, now)) {
      this.#endGroup(operator, 'success', undefined);
      return;
    }
    if (operator.isOverdue(now.monoMs)) {
      this.#endOverdue(operator);
      return;
    }
    const reason = this.#staleReason(operator, info);
    if (reason !== undefined) {
      this.#endGroup(operator, 'canceled', reason);
      return;
    }
    const wasSent = (operator.stepTimes[operator.currentIndex]?.sends ?? 0) > 0;
    if (waitsForPush && wasSent && now.monoMs < (this.#nextPushMs.get(operator) ?? 0)) {
      return;
    }
    this.#sendCurrent(operator, info);
  }

  #staleReason(operator: Operator, info: RegionInfo): EndReason | undefined {
    const step = operator.currentStep;
    assert(step !== undefined, 'an unfinished operator has a current step', { operator: operator.id });
    const reason = checkStep(step, info, this.#view);
    if (reason !== undefined) {
      return reason;
    }
    const changed = info.region.epoch.confVer - operator.epoch.confVer;
    if (changed > operator.confVerChanged(info)) {
      return {
        code: 'EpochNotMatch',
        text: `the membership of region ${operator.regionId} was changed by somebody else`,
        hint: 'look at the region and ask again if still wanted',
      };
    }
    const source = operator.isMergeSource ? operator : operator.isMergeTarget ? operator.related : undefined;
    if (source === undefined || source.mergeProgress.type !== 'aligning') {
      return undefined;
    }
    if (operator.isMergeSource && info.region.epoch.version !== operator.epoch.version) {
      return { code: 'EpochNotMatch', text: `region ${operator.regionId} was split or merged`, hint: 'ask again' };
    }
    const sourceInfo = this.#cluster.tree.get(source.regionId);
    const target = source.related;
    assert(target !== undefined, 'half a merge', { operator: operator.id });
    return sourceInfo === undefined
      ? undefined
      : checkPairHealth(sourceInfo, this.#cluster.tree.get(target.regionId), this.#plannedTarget(source), this.#view);
  }

  #plannedTarget(source: Operator): Extract<Step, { type: 'merge-region' }>['target'] {
    const step = source.steps.at(-1);
    assert(step?.type === 'merge-region', 'a merge source ends in its merge step', { operator: source.id });
    return step.target;
  }

  #sendCurrent(operator: Operator, info: RegionInfo): void {
    const step = operator.currentStep;
    const times = operator.stepTimes[operator.currentIndex];
    assert(step !== undefined && times !== undefined, 'an unfinished operator has a current step');
    this.#nextPushMs.set(
      operator,
      this.#clock.monoMs() + (isQuick(step) ? this.#config.pushQuickMs : this.#config.pushSlowMs),
    );
    if (step.type === 'merge-region') {
      this.#sendMerge(operator, step, info);
      return;
    }
    const risk = operator.kinds.includes('admin') ? undefined : quorumRisk(step, info, this.#view);
    if (risk !== undefined) {
      times.detail = risk;
      return;
    }
    const command = commandOf(step, info);
    times.detail = detailOf(operator, step, info, command);
    if (command !== undefined && this.#send(info, command)) {
      times.sends++;
    }
  }

  #sendMerge(operator: Operator, step: Extract<Step, { type: 'merge-region' }>, info: RegionInfo): void {
    const times = operator.stepTimes[operator.currentIndex];
    assert(times !== undefined, 'the merge step exists');
    const target = this.#cluster.tree.get(step.target.id);
    const readiness = checkReadiness(info, target, step.target, this.#view);
    if (readiness.type === 'give-up') {
      this.#endGroup(operator, 'canceled', readiness.reason);
      return;
    }
    if (readiness.type === 'wait') {
      times.detail = readiness.why;
      return;
    }
    if (this.#send(info, { type: 'merge', target: step.target })) {
      times.sends++;
      times.detail = 'sent; waiting until the source has prepared the merge';
      operator.mergeProgress = { type: 'sent', epoch: info.region.epoch };
    }
  }

  #send(info: RegionInfo, step: RegionStep): boolean {
    if (info.leader === undefined) {
      return false;
    }
    this.#outbox.push({
      storeId: info.leader.storeId,
      reply: { regionId: info.region.id, epoch: info.region.epoch, targetPeer: info.leader, step },
    });
    return true;
  }

  // --------------------------------------------------------------------------------------------------- merges

  /** Looks at a report of a source whose merge command was sent. */
  #watchSource(operator: Operator, info: RegionInfo): void {
    const progress = operator.mergeProgress;
    assert(progress.type === 'sent' || progress.type === 'prepared', 'only a sent merge is watched');
    const times = operator.stepTimes[operator.currentIndex];
    const step = operator.currentStep;
    assert(times !== undefined && step?.type === 'merge-region', 'a sent merge is in its merge step');
    const now = this.#now();
    if (operator.isOverdue(now.monoMs)) {
      this.#endOverdue(operator);
      return;
    }
    switch (readSourceReport(progress.epoch, step.source.range, info)) {
      case 'unchanged':
        if (progress.type === 'sent') {
          this.#resendMerge(operator, step, info);
        }
        return;
      case 'prepared':
        if (progress.type === 'sent') {
          operator.mergeProgress = { type: 'prepared', epoch: progress.epoch, wallMs: now.wallMs };
        }
        times.detail = 'prepared; the stores bring the source up to date and commit';
        this.#nextPushMs.set(operator, now.monoMs + this.#config.pushSlowMs);
        return;
      case 'rolled-back':
        operator.mergeProgress = {
          type: 'rolled-back',
          preparedWallMs: progress.type === 'prepared' ? progress.wallMs : now.wallMs,
          wallMs: now.wallMs,
        };
        this.#endGroup(operator, 'canceled', {
          code: 'RolledBack',
          text: `region ${step.target.id} changed before the merge was committed, so the stores rolled it back`,
          hint: 'nothing was lost: ask for the merge again if it is still wanted',
        });
        return;
      case 'changed':
        this.#endGroup(operator, 'canceled', {
          code: 'EpochNotMatch',
          text: `region ${operator.regionId} was changed by somebody else`,
          hint: 'look at the region and ask again if still wanted',
        });
    }
  }

  /** Repeats the command: the first one may have been lost or refused because replicas lagged. */
  #resendMerge(operator: Operator, step: Extract<Step, { type: 'merge-region' }>, info: RegionInfo): void {
    const now = this.#clock.monoMs();
    if (now < (this.#nextPushMs.get(operator) ?? 0)) {
      return;
    }
    this.#nextPushMs.set(operator, now + this.#config.pushQuickMs);
    const times = operator.stepTimes[operator.currentIndex];
    if (times !== undefined && this.#send(info, { type: 'merge', target: step.target })) {
      times.sends++;
    }
  }

  /** Looks at a report of a target. True when that settled the pair or the target has to wait for the source. */
  #watchTarget(operator: Operator, info: RegionInfo): boolean {
    const source = operator.related;
    const step = operator.currentStep;
    assert(
      source !== undefined && step?.type === 'merge-region-passive',
      'a target operator has one step and a source',
    );
    const now = this.#now();
    if (operator.advance(info, now)) {
      const progress = source.mergeProgress;
      source.mergeProgress = {
        type: 'committed',
        preparedWallMs: progress.type === 'prepared' ? progress.wallMs : now.wallMs,
        wallMs: now.wallMs,
      };
      this.#endGroup(operator, 'success', undefined);
      return true;
    }
    const changed =
      !rangesEqual(info.region.range, step.target.range) || info.region.epoch.confVer !== operator.epoch.confVer;
    if (!changed) {
      return false;
    }
    if (source.mergeProgress.type === 'prepared') {
      // The stores will roll back; the source's report will say so.
      return true;
    }
    this.#endGroup(operator, 'canceled', targetChanged(step.target));
    return true;
  }

  /** The region left the map: merged into another one, or never reported after a restart. */
  #onRegionGone(operator: Operator): void {
    const step = operator.steps.at(-1);
    if (step?.type === 'merge-region') {
      const target = this.#cluster.tree.get(step.target.id);
      if (target !== undefined && operator.related !== undefined) {
        this.#dispatch(operator.related, target);
      }
    }
    if (!operator.hasEnded) {
      this.#endGroup(operator, 'canceled', {
        code: 'RegionNotFound',
        text: `region ${operator.regionId} is not known any more`,
        hint: 'it was probably merged into a neighbor: locate its keys',
      });
    }
  }

  // ------------------------------------------------------------------------------------------------------ ends

  #endOverdue(operator: Operator): void {
    const step = operator.currentStep;
    this.#endGroup(operator, 'timeout', {
      code: 'Timeout',
      text: `it did not finish in ${Math.round(operator.timeoutMs / 1000)} s`,
      hint:
        step?.type === 'merge-region'
          ? 'the stores may still commit or roll back the merge: look at both regions'
          : 'look at the region and its stores, then ask again',
    });
  }

  /** Ends an operator and its partner in one go. */
  #endGroup(operator: Operator, status: EndStatus, reason: EndReason | undefined): void {
    const partner = operator.related;
    const now = this.#now();
    if (status === 'success' && partner?.isMergeSource === true && partner.status === 'started') {
      if (partner.currentStep?.type === 'merge-region') {
        partner.finishMerge(now);
      }
    }
    this.#endOne(operator, status, reason, now);
    if (partner !== undefined && !partner.hasEnded) {
      // Success is success for both; any other end of one half says so in the other one and keeps the cause's words.
      this.#endOne(partner, status, reason === undefined ? undefined : partnerReason(reason), now);
    }
  }

  #endOne(operator: Operator, status: EndStatus, reason: EndReason | undefined, now: Times): void {
    const final = operator.status === 'created' && status !== 'expired' ? 'canceled' : status;
    assert(operator.end(final, reason, now), 'an operator ends once', {
      operator: operator.id,
      from: operator.status,
      to: final,
    });
    if (this.#running.get(operator.regionId) === operator) {
      this.#running.delete(operator.regionId);
    }
    this.#nextPushMs.delete(operator);
    this.#history.delete(operator.id);
    this.#history.set(operator.id, operator);
    for (const id of this.#history.keys()) {
      if (this.#history.size <= this.#config.operatorHistoryMax) {
        break;
      }
      this.#history.delete(id);
    }
    this.#onEnd(operator);
  }
}

/** Whether the refused command is the one of this step. */
function isRefusalOf(refusal: StepRefusal, step: Step): boolean {
  switch (step.type) {
    case 'add-learner':
    case 'promote-learner':
    case 'remove-peer':
    case 'enter-joint':
    case 'leave-joint':
      return refusal.step === 'change-peer' || refusal.step === 'change-peer-joint';
    case 'transfer-leader':
      return refusal.step === 'transfer-leader';
    case 'split-region':
      return refusal.step === 'split';
    case 'merge-region':
      return refusal.step === 'merge' || refusal.step === 'commit-merge';
    case 'merge-region-passive':
      return false;
  }
}

function partnerReason(reason: EndReason): EndReason {
  return { code: RELATED.code, text: `${RELATED.text}: ${reason.text}`, hint: reason.hint };
}

function detailOf(operator: Operator, step: Step, info: RegionInfo, command: RegionStep | undefined): string {
  if (info.leader === undefined) {
    return `waiting for a leader of region ${info.region.id}`;
  }
  if (step.type === 'add-learner' && command === undefined) {
    return `snapshot or log on its way to store ${step.storeId}`;
  }
  if (command === undefined) {
    return '';
  }
  const { lastRefusal } = operator;
  return lastRefusal !== undefined && isRefusalOf(lastRefusal, step)
    ? `sent again; store ${lastRefusal.storeId} refused (${lastRefusal.code}): ${lastRefusal.message}`
    : `sent to store ${info.leader.storeId}`;
}
