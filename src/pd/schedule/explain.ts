/** Why the service does, or does not do, something with a region, a store or a scheduler. Changes nothing. */
import type { StoreId } from '../../base/ids.ts';
import { escapeKey } from '../../base/bytes.ts';
import { formatBytes, formatDurationMs } from '../../base/units.ts';
import type { Cluster } from '../cluster/cluster.ts';
import { type RegionInfo, isHealthy, votersOf } from '../cluster/region-info.ts';
import { settingsOf } from '../cluster/store-info.ts';
import { CHECKERS, type CheckerContext } from './checker/checkers.ts';
import { firstRefusal, mergeChecks } from './checker/merge-checks.ts';
import type { Coordinator } from './coordinator.ts';
import { checkLeaderTarget, checkPeerTarget, checkRoom } from './filter/store-filter.ts';
import type { OperatorController } from './operator/controller.ts';
import type { OperatorFactory } from './operator/create.ts';
import { hasRole } from './placement/fit.ts';
import { type ParameterUnit, parametersOf } from './parameters.ts';
import { formatConstraint, ruleName } from './placement/rule.ts';
import { ledTraffic } from './scheduler/hot-region.ts';
import { leaderScore, projectedLoads, regionScore } from './scheduler/load.ts';
import { notAdded } from './scheduler-plan.ts';
import { SWITCHES, type SwitchName, type Switches } from './switches.ts';
import { type Refusal, refuse } from './verdict.ts';

export interface Finding {
  /** Stable word such as `replica-checker` or `takes-replicas`. */
  readonly name: string;
  /** What is the case; empty if only the refusal says something. */
  readonly detail: string;
  /** Undefined when nothing is in the way. */
  readonly refusal: Refusal | undefined;
}

export interface ExplainContext {
  readonly cluster: Cluster;
  readonly controller: OperatorController;
  readonly coordinator: Coordinator;
  readonly factory: OperatorFactory;
  readonly switches: Switches;
  readonly nowMs: number;
}

const fine = (name: string, detail: string): Finding => ({ name, detail, refusal: undefined });

function switchFinding(context: ExplainContext, name: SwitchName): Finding {
  const absent = notAdded(context.cluster, name);
  if (absent !== undefined) {
    return { name: 'switched-on', detail: '', refusal: absent };
  }
  if (!context.switches.isOn(name)) {
    return {
      name: 'switched-on',
      detail: '',
      refusal: refuse('SwitchedOff', `${name} is switched off`, `switch it on: braid ctl switch on ${name}`, { name }),
    };
  }
  const idle = context.coordinator.idleReason(name);
  return idle === undefined
    ? fine('switched-on', 'it runs')
    : {
        name: 'switched-on',
        detail: '',
        refusal: refuse('Idle', `${name} does nothing now: ${idle}`, 'wait, or look at the switches', { name }),
      };
}

/** Health of a region, what every checker would do with it now, and merges with its neighbours. */
export function explainRegion(context: ExplainContext, info: RegionInfo): Finding[] {
  const { cluster, controller, coordinator } = context;
  const { id } = info.region;
  const details = { region_id: id };
  const running = controller.runningOn(id);
  const paused = cluster.claims.pausedReason(info);
  const findings: Finding[] = [
    paused === undefined
      ? fine('not-paused', 'operators may run')
      : { name: 'not-paused', detail: '', refusal: paused },
    info.leader === undefined
      ? {
          name: 'leader',
          detail: '',
          refusal: refuse('NoLeader', `region ${id} has no known leader`, 'check its stores', details),
        }
      : fine('leader', `peer ${info.leader.id} on store ${info.leader.storeId}`),
    isHealthy(info)
      ? fine(
          'healthy',
          `${votersOf(info.region).length} of ${cluster.wantedVotersOf(info)} voters, none down or catching up`,
        )
      : {
          name: 'healthy',
          detail: '',
          refusal: refuse(
            info.downPeers.length > 0 ? 'DownPeer' : info.pendingPeers.length > 0 ? 'PendingPeer' : 'JointState',
            `down: ${info.downPeers.map((down) => down.peer.storeId).join(', ') || 'none'}; catching up: ${info.pendingPeers.map((peer) => peer.storeId).join(', ') || 'none'} (stores)`,
            'it is repaired when enough stores are up',
            details,
          ),
        },
    running === undefined
      ? fine('operator', 'none is running')
      : {
          name: 'operator',
          detail: '',
          refusal: refuse(
            'OperatorExists',
            `operator ${running.id} (${running.brief}) is running`,
            `show it: braid ctl operator show ${running.id}`,
            { ...details, operator_id: running.id },
          ),
        },
  ];
  findings.push(...ruleFindings(cluster, info));
  const merge = coordinator.mergeContext();
  const checker: CheckerContext = { cluster, factory: context.factory, nowMs: context.nowMs, merge };
  for (const one of CHECKERS) {
    const state = switchFinding(context, one.name);
    if (state.refusal !== undefined) {
      findings.push({ ...state, name: one.name });
      continue;
    }
    if (paused !== undefined && one.name !== 'joint-state-checker') {
      findings.push({ name: one.name, detail: '', refusal: paused });
      continue;
    }
    const verdict = one.check(info, checker);
    findings.push(
      verdict.type === 'blocked'
        ? { name: one.name, detail: '', refusal: verdict.refusal }
        : fine(one.name, verdict.type === 'nothing' ? 'nothing to do' : `would ${verdict.group[0].brief}`),
    );
  }
  const blocked = coordinator.blockedReason(id);
  if (blocked !== undefined) {
    findings.push({ name: 'latest-attempt', detail: '', refusal: blocked });
  }
  const { previous, next } = cluster.tree.neighbours(info);
  for (const other of [previous, next]) {
    if (other !== undefined) {
      const refusal = firstRefusal(mergeChecks(merge, id, other.region.id, false));
      findings.push(
        refusal === undefined
          ? fine(`merge-into-${other.region.id}`, 'possible')
          : { name: `merge-into-${other.region.id}`, detail: '', refusal },
      );
    }
  }
  return findings;
}

/** Which rules hold for a region, and what each has. */
function ruleFindings(cluster: Cluster, info: RegionInfo): Finding[] {
  const [border] = cluster.rules.bordersIn(info.region.range);
  const { rules } = cluster.rulesOf(info);
  const fit = cluster.fit(info);
  const details = { region_id: info.region.id };
  const findings = rules.map((rule): Finding => {
    const slots = fit.slots.filter((slot) => slot.rule === rule);
    const held = slots.filter(({ peer }) => peer !== undefined && hasRole(peer, rule));
    const name = `rule ${ruleName(rule)}`;
    const where = rule.constraints.length === 0 ? '' : ` where ${rule.constraints.map(formatConstraint).join(' and ')}`;
    const text = `${held.length} of ${rule.count} ${rule.role}${rule.count === 1 ? '' : 's'}${where}, on stores ${held.map(({ peer }) => peer?.storeId).join(', ') || 'none'}`;
    return held.length === rule.count
      ? fine(name, text)
      : {
          name,
          detail: '',
          refusal: refuse('NotFullyReplicated', text, 'the replica-checker says what it would do', details),
        };
  });
  if (border !== undefined) {
    findings.push({
      name: 'rule-border',
      detail: '',
      refusal: refuse(
        'RuleBorder',
        `placement rules change at ${escapeKey(border)}`,
        'the split-checker splits it there',
        details,
      ),
    });
  }
  return findings;
}

/** What a store may be given, what it holds, and what keeps it from being removed. */
export function explainStore(context: ExplainContext, id: StoreId, blockers: readonly Refusal[]): Finding[] {
  const { cluster, controller, nowMs } = context;
  const info = cluster.store(id);
  const { leadersEvicted, leaderWeight, regionWeight, limitPerMinute } = settingsOf(info);
  const load = projectedLoads(cluster, controller).find((one) => one.storeId === id);
  const usable = checkPeerTarget(cluster, id, nowMs);
  const room = checkRoom(cluster, id);
  const leads = checkLeaderTarget(cluster, id, nowMs);
  const limit = limitPerMinute ?? cluster.config.storeLimitPerMinute;
  const finding = (name: string, detail: string, refusal: Refusal | undefined): Finding =>
    refusal === undefined ? fine(name, detail) : { name, detail: '', refusal };
  return [
    finding('usable', 'up and heard from', usable),
    finding('has-room', 'space, snapshots and pending peers are within their limits', room),
    finding('may-lead', leadersEvicted ? '' : 'leaders may move there', leads),
    fine(
      'limits',
      `${limit === 0 ? 'no limit' : `${limit} large peers a minute`}, ${controller.canTakePeer(id, LARGE_BYTES) ? 'free now' : 'used up for the moment'}`,
    ),
    fine(
      'leaders',
      `${load?.leaders ?? 0}, weight ${leaderWeight}, score ${load === undefined ? 0 : round(leaderScore(load))}`,
    ),
    fine(
      'data',
      `${load?.regions ?? 0} replicas, ${formatBytes(load?.sizeBytes ?? 0)}, weight ${regionWeight}, score ${load === undefined ? 0 : formatBytes(regionScore(load))}`,
    ),
    fine('traffic', `${formatBytes(ledTraffic(cluster, id))} a second through its leaders`),
    ...blockers.map((refusal) => ({ name: 'keeps-it-from-being-removed', detail: '', refusal })),
  ];
}

const LARGE_BYTES = 32 * 1024 * 1024;
const round = (n: number): string => String(Math.round(n * 100) / 100);

/** Whether a scheduler runs, what it compares, and how much room it has. Undefined for an unknown name. */
export function explainScheduler(context: ExplainContext, name: string): Finding[] | undefined {
  const known = SWITCHES.find((one) => one.name === name);
  if (known === undefined) {
    return undefined;
  }
  const { cluster, controller } = context;
  const findings = [switchFinding(context, known.name)];
  const kind =
    name === 'balance-region' || name === 'shuffle-region'
      ? 'region'
      : name === 'merge-checker' || name === 'random-merge'
        ? 'merge'
        : name.endsWith('checker')
          ? 'replica'
          : 'leader';
  const count = controller.countOf(kind);
  findings.push(
    controller.hasRoomFor(kind, 1)
      ? fine('limit', `${count} operators of kind ${kind} are running`)
      : {
          name: 'limit',
          detail: '',
          refusal: refuse(
            'TooManyOperators',
            `${count} operators of kind ${kind} are running, that is the limit`,
            'wait until some have ended',
            { kind },
          ),
        },
  );
  const describe: Readonly<Partial<Record<SwitchName, (load: ReturnType<typeof projectedLoads>[number]) => string>>> = {
    'balance-leader': (load) => `${load.leaders} leaders, score ${round(leaderScore(load))}`,
    'balance-region': (load) =>
      `${load.regions} replicas, ${formatBytes(load.sizeBytes)}, score ${formatBytes(regionScore(load))}`,
    'evict-leader': (load) =>
      `${settingsOf(cluster.store(load.storeId)).leadersEvicted ? 'is to lead nothing' : 'may lead'}, leads ${load.leaders}`,
    'hot-region': (load) => `${formatBytes(ledTraffic(cluster, load.storeId))} a second`,
    'grant-leader': (load) =>
      `${cluster.schedulers.record('grant-leader').stores.includes(load.storeId) ? 'is to lead what it can' : 'leads what is left'}, leads ${load.leaders} of ${load.regions}`,
    'shuffle-leader': (load) => `leads ${load.leaders} of ${load.regions}`,
    'shuffle-region': (load) => `${load.regions} replicas`,
  };
  const text = describe[known.name];
  if (text !== undefined) {
    for (const load of projectedLoads(cluster, controller)) {
      const refusal =
        kind === 'region'
          ? (checkPeerTarget(cluster, load.storeId, context.nowMs) ?? checkRoom(cluster, load.storeId))
          : checkLeaderTarget(cluster, load.storeId, context.nowMs);
      findings.push({ name: `store-${load.storeId}`, detail: text(load), refusal });
    }
  }
  findings.push(...parameterFindings(cluster, known.name));
  return findings;
}

/** The parameters in force, and which of them are not as by default. */
function parameterFindings({ schedulers }: Cluster, name: SwitchName): Finding[] {
  return parametersOf(name).map((spec) => {
    const value = schedulers.valueOf(name, spec);
    const initial = spec.defaultOf(schedulers.configured);
    const note = value === initial ? 'the default' : `by default ${formatParameter(initial, spec.unit)}`;
    return fine(`parameter ${spec.name}`, `${formatParameter(value, spec.unit)}, ${note}: ${spec.description}`);
  });
}

function formatParameter(value: number, unit: ParameterUnit): string {
  switch (unit) {
    case 'count':
    case 'ratio':
      return String(value);
    case 'bytes':
      return formatBytes(value);
    case 'bytes-per-second':
      return `${formatBytes(value)} a second`;
    case 'milliseconds':
      return formatDurationMs(value);
  }
}
