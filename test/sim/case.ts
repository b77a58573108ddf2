/**
 * What one simulated history consists of, as plain data: a configuration drawn from the seed (swarm: many kinds of
 * faults and operations are left out of any one history) and an explicit schedule of what the nemesis does. Replaying
 * and shrinking work on this data, not on the seed.
 */
import { createRng, type Rng } from '../../src/env/rng.ts';
import { MIB } from '../../src/base/units.ts';
import { MsgType } from '../../src/raft/types.ts';

export const PROFILES = [
  'lite',
  'merge-storm',
  'move-storm',
  'disk',
  'clock',
  'membership',
  'overload',
  'lossy',
  'disaster',
  'unsafe-clock',
  'chaos',
  'chaos-snapshots',
  'chaos-orders',
  'chaos-starved',
  'sweep',
] as const;
export type ProfileName = (typeof PROFILES)[number];

export const NEMESIS_KINDS = [
  // Regions
  'split',
  'merge',
  'transfer',
  'move',
  'joint',
  'learner',
  'leave-joint',
  'compact',
  'retarget',
  'exile',
  'check-hash',
  'pd-step',
  // Machines
  'crash',
  'crash-all',
  'crash-point',
  'stall',
  'clock-rate',
  'clock-wild',
  'wall-jump',
  'wall-shape',
  'suspend',
  // Disks that lose nothing
  'disk-slow',
  'disk-slow-reads',
  'disk-stalls',
  'disk-stuck',
  'disk-error',
  // Disks that lose something: within the budget of the fault atlas, or over it
  'wipe',
  'rollback',
  'bit-flip',
  'log-loss',
  'files-damaged',
  // Network
  'isolate',
  'one-way',
  'bisect',
  'bridge',
  'ring',
  'clog',
  'swizzle',
  'bandwidth',
  'drop-class',
  'delay-class',
  'capture-snapshots',
  'old-mail',
  'pd-cut',
  'clients-cut',
  'reply-lost',
  // Scheduling
  'hold-apply',
  'hold-merge',
  'hold-install',
  // Behind the others, so that their seeds draw as before.
  'starve-apply',
  'repeat-order',
  // Short sequences; see `nemesis/ordeals.ts`.
  'shatter',
  'depose',
  'rivals',
  'restart-voter',
  'lag',
  'forsake',
] as const;
export type NemesisKind = (typeof NEMESIS_KINDS)[number];

/** One thing the nemesis does. The numbers choose among what exists at that moment. */
export interface NemesisAction {
  readonly atMs: number;
  readonly kind: NemesisKind;
  readonly a: number;
  readonly b: number;
  readonly c: number;
  /** How long a fault lasts. */
  readonly forMs: number;
}

/** All faults end; all but one store of a dispensable kind; all but one slow part. */
export type LivenessMode = 'heal' | 'core' | 'gray';

export interface SimConfig {
  readonly world: 'lite' | 'full';
  readonly stores: number;
  readonly keys: number;
  readonly clients: number;
  readonly durationMs: number;
  /** Mean pause of a client between two operations. */
  readonly thinkMs: number;
  readonly reads: number;
  readonly lossChance: number;
  readonly duplicateChance: number;
  readonly lateChance: number;
  readonly delayMs: readonly [number, number];
  readonly writeDelayMs: readonly [number, number];
  readonly logGcThreshold: number;
  readonly logGcCountLimit: number;
  readonly mergeMaxLogGap: number;
  readonly snapshotChunkBytes: number;
  readonly proposalBatchOpsMax: number;
  readonly mailboxLimit: number;
  readonly maxSizePerMsgBytes: number;
  readonly maxInflightMsgs: number;
  readonly maxCommittedPerReadyBytes: number;
  /** 0: leaders do not compare replicas, so that a region without clients has no new entries. */
  readonly consistencyCheckMs: number;
  readonly leaderLeaseMs: number;
  readonly regionsMax: number;
  readonly valueBytes: number;
  readonly oldMail: number;
  readonly splitAtStart: number;
  /** What is healed first after the faults; see `liveness.ts`. */
  readonly liveness: LivenessMode;
  /** Sites of `raftstore/bias.ts` bend the program's choices. */
  readonly isBiased: boolean;
  /** Lossy faults strike as many copies as they like: stores may become unavailable, but must never lie. */
  readonly isOverBudget: boolean;
  /** Clocks run beyond what leases bear: stale reads are expected, everything else holds. */
  readonly isClockUnsafe: boolean;
}

export const keyName = (i: number): string => `k${String(i).padStart(3, '0')}`;

export function messageName(type: number): string {
  return Object.entries(MsgType).find(([, value]) => value === type)?.[0] ?? String(type);
}

export interface SimCase {
  readonly seed: number;
  readonly profile: ProfileName;
  readonly config: SimConfig;
  readonly schedule: readonly NemesisAction[];
}

type Weights = Partial<Record<NemesisKind, number>>;

const REGION_WORK: Weights = {
  split: 6,
  merge: 7,
  transfer: 3,
  move: 4,
  joint: 1,
  learner: 2,
  'leave-joint': 2,
  retarget: 1,
  'check-hash': 1,
  'pd-step': 1,
};
const MACHINE_FAULTS: Weights = {
  crash: 3,
  'crash-point': 3,
  'crash-all': 0.5,
  stall: 1.5,
  suspend: 0.7,
  'wall-shape': 0.5,
  'disk-slow': 0.7,
  'disk-slow-reads': 0.4,
  'disk-stalls': 0.4,
  'disk-stuck': 0.4,
};
const LOSSY: Weights = { wipe: 2, rollback: 2, 'bit-flip': 3, 'log-loss': 2, 'files-damaged': 1 };
const NETWORK_FAULTS: Weights = {
  isolate: 2,
  'one-way': 1.5,
  bisect: 0.7,
  bridge: 0.5,
  ring: 0.5,
  clog: 1,
  swizzle: 0.7,
  bandwidth: 0.5,
  'drop-class': 2,
  'delay-class': 1,
  'capture-snapshots': 0.7,
  'old-mail': 1.5,
  'pd-cut': 1,
  'clients-cut': 0.5,
  'reply-lost': 0.5,
};
const SCHEDULING: Weights = { 'hold-apply': 1.5, 'hold-merge': 0.7, 'hold-install': 0.7 };

/** Five stores, three replicas, twenty regions: everything at once, without the rarer faults of machines and disks. */
const CHAOS: Weights = {
  ...REGION_WORK,
  split: 9,
  merge: 9,
  move: 9,
  transfer: 5,
  crash: 3,
  'crash-point': 2,
  isolate: 1,
  'one-way': 1,
  'drop-class': 2,
  'delay-class': 1,
  'old-mail': 1,
};
const CHAOS_ALWAYS: readonly NemesisKind[] = ['split', 'merge', 'move', 'transfer', 'crash'];
const CHAOS_SHAPE = { meanActionMs: [30, 120], durationMs: 8_000, stores: [5] } as const;

interface ProfileSpec {
  readonly weights: Weights;
  readonly meanActionMs: readonly [number, number];
  readonly durationMs: number;
  readonly stores: readonly number[];
  /** Kinds that swarm selection never leaves out. */
  readonly always: readonly NemesisKind[];
}

const SPECS: Readonly<Record<Exclude<ProfileName, 'sweep'>, ProfileSpec>> = {
  lite: {
    weights: {
      ...REGION_WORK,
      ...MACHINE_FAULTS,
      ...NETWORK_FAULTS,
      ...SCHEDULING,
      exile: 0.7,
      shatter: 1.5,
      depose: 1.5,
      rivals: 2,
      lag: 0.7,
    },
    meanActionMs: [80, 400],
    durationMs: 5_000,
    stores: [3, 3, 3, 4],
    always: ['split', 'merge', 'crash'],
  },
  'merge-storm': {
    weights: {
      ...REGION_WORK,
      ...SCHEDULING,
      exile: 2.5,
      'crash-point': 1.5,
      merge: 20,
      split: 18,
      retarget: 4,
      'hold-merge': 2,
      crash: 2,
      isolate: 1.5,
      'drop-class': 2,
      'delay-class': 1,
      'capture-snapshots': 1,
      'pd-cut': 1,
      'old-mail': 1,
      lag: 3,
      depose: 0.5,
    },
    meanActionMs: [20, 110],
    durationMs: 9_000,
    stores: [3, 4, 4, 5],
    always: ['split', 'merge', 'retarget'],
  },
  'move-storm': {
    weights: {
      ...REGION_WORK,
      ...SCHEDULING,
      exile: 3,
      'crash-point': 1.5,
      move: 14,
      learner: 4,
      split: 4,
      merge: 3,
      crash: 2,
      isolate: 1.5,
      'one-way': 1,
      'drop-class': 2,
      'capture-snapshots': 2,
      bandwidth: 1,
      'old-mail': 2,
      compact: 3,
      lag: 3,
      forsake: 4,
    },
    meanActionMs: [50, 200],
    durationMs: 8_000,
    stores: [4, 5, 5, 6],
    always: ['move', 'split'],
  },
  disk: {
    weights: {
      ...REGION_WORK,
      crash: 8,
      'crash-all': 3,
      'crash-point': 4,
      'disk-slow': 4,
      'disk-slow-reads': 2,
      'disk-stalls': 2,
      'disk-stuck': 2,
      'disk-error': 2,
      'hold-install': 1,
      isolate: 1,
    },
    meanActionMs: [80, 300],
    durationMs: 7_000,
    stores: [3, 4],
    always: ['crash', 'crash-all'],
  },
  clock: {
    weights: {
      transfer: 6,
      split: 2,
      merge: 2,
      stall: 8,
      suspend: 6,
      'clock-rate': 6,
      'wall-jump': 3,
      'wall-shape': 3,
      isolate: 6,
      'one-way': 4,
      crash: 1.5,
      clog: 2,
      'drop-class': 2,
      'reply-lost': 1,
      'clients-cut': 0.5,
      'restart-voter': 5,
      depose: 3,
      rivals: 1,
    },
    meanActionMs: [100, 400],
    durationMs: 9_000,
    stores: [3, 3, 5],
    always: ['isolate', 'stall', 'clock-rate'],
  },
  membership: {
    weights: {
      exile: 2,
      'crash-point': 1,
      move: 10,
      joint: 8,
      learner: 6,
      'leave-joint': 5,
      transfer: 4,
      split: 3,
      merge: 3,
      compact: 2,
      crash: 2.5,
      isolate: 2,
      'one-way': 1.5,
      'drop-class': 2,
      'old-mail': 2,
      'hold-apply': 1.5,
      rivals: 6,
      depose: 1,
      lag: 2,
      forsake: 2,
    },
    meanActionMs: [50, 200],
    durationMs: 8_000,
    stores: [3, 4, 5, 6],
    always: ['move', 'joint', 'learner'],
  },
  overload: {
    weights: {
      split: 3,
      merge: 4,
      transfer: 3,
      'disk-slow': 4,
      'disk-stalls': 2,
      bandwidth: 2,
      clog: 3,
      crash: 1,
      stall: 3,
      'hold-apply': 3,
    },
    meanActionMs: [150, 500],
    durationMs: 5_000,
    stores: [3, 4],
    always: ['disk-slow', 'hold-apply', 'split'],
  },
  lossy: {
    weights: { ...REGION_WORK, ...LOSSY, crash: 2, 'disk-error': 1, isolate: 1, 'drop-class': 1, 'crash-all': 0.3 },
    meanActionMs: [100, 400],
    durationMs: 10_000,
    stores: [3, 4, 4, 5],
    always: ['split', 'merge', 'rollback', 'bit-flip'],
  },
  disaster: {
    weights: { ...REGION_WORK, ...LOSSY, crash: 2, 'disk-error': 1, isolate: 1, 'crash-all': 0.5 },
    meanActionMs: [150, 500],
    durationMs: 6_000,
    stores: [3, 4, 5],
    always: ['wipe', 'rollback', 'bit-flip', 'log-loss'],
  },
  'unsafe-clock': {
    weights: { transfer: 6, split: 2, merge: 2, stall: 4, suspend: 4, 'clock-wild': 8, isolate: 8, 'one-way': 4 },
    meanActionMs: [100, 400],
    durationMs: 6_000,
    stores: [3, 3, 5],
    always: ['isolate', 'clock-wild', 'suspend'],
  },
  chaos: { ...CHAOS_SHAPE, weights: CHAOS, always: CHAOS_ALWAYS },
  // Logs of about ten entries: whoever was away needs a snapshot.
  'chaos-snapshots': {
    ...CHAOS_SHAPE,
    weights: { ...CHAOS, compact: 6, 'capture-snapshots': 3, 'hold-install': 2, isolate: 4 },
    always: [...CHAOS_ALWAYS, 'compact', 'isolate'],
  },
  // A placement service that is slow, goes away, and repeats what it ordered before.
  'chaos-orders': {
    ...CHAOS_SHAPE,
    weights: { ...CHAOS, 'repeat-order': 20, 'pd-cut': 8, retarget: 3 },
    always: [...CHAOS_ALWAYS, 'repeat-order', 'pd-cut'],
  },
  // Apply of one store or another stands still for long.
  'chaos-starved': {
    ...CHAOS_SHAPE,
    weights: { ...CHAOS, 'starve-apply': 8, 'hold-apply': 4, 'hold-merge': 2, 'hold-install': 1 },
    always: [...CHAOS_ALWAYS, 'starve-apply'],
  },
};

const between = (rng: Rng, [low, high]: readonly [number, number]): number => low + rng.float() * (high - low);

export function drawCase(profile: Exclude<ProfileName, 'sweep'>, seed: number): SimCase {
  const spec = SPECS[profile];
  const rng = createRng(seed).fork(`case-${profile}`);
  const config = drawConfig(profile, spec, rng.fork('config'));
  return { seed, profile, config, schedule: drawSchedule(spec, config, rng.fork('nemesis')) };
}

function drawConfig(profile: ProfileName, spec: ProfileSpec, rng: Rng): SimConfig {
  const slowNet = rng.chance(0.2);
  const chaos = profile.startsWith('chaos');
  const logGcCountLimit =
    profile === 'chaos-snapshots' ? rng.pick([10, 12]) : chaos ? 500 : rng.pick([12, 20, 40, 500]);
  const busy = profile === 'overload';
  const storm = profile === 'merge-storm';
  const config: SimConfig = {
    world: 'lite',
    stores: rng.pick(spec.stores),
    keys: chaos ? 40 : rng.pick(storm ? [5, 8, 10, 14, 20] : [5, 6, 8, 10, 14]),
    clients: busy ? 24 : rng.pick(storm ? [2, 3, 4, 5] : [3, 4, 5, 6, 8]),
    durationMs: spec.durationMs,
    thinkMs: busy ? 4 : rng.pick(storm ? [25, 50, 100] : [15, 30, 60]),
    reads: rng.pick([0.25, 0.5, 0.7]),
    lossChance: rng.pick(chaos ? [0, 0.01, 0.05, 0.2] : [0, 0, 0.01, 0.05, 0.15]),
    duplicateChance: rng.pick([0, 0, 0.02, 0.2]),
    lateChance: rng.pick([0, 0, 0.005, 0.03]),
    delayMs: slowNet ? [1, rng.pick([30, 60])] : [0.1, rng.pick([1, 3, 8])],
    writeDelayMs: rng.pick([[0.1, 1] as const, [0.1, 1] as const, [0.5, 8] as const, [2, 30] as const]),
    logGcThreshold: rng.pick(profile === 'chaos-snapshots' ? [2, 3] : [3, 5, 20]),
    logGcCountLimit,
    mergeMaxLogGap: Math.min(logGcCountLimit - 1, rng.pick([2, 5, 10])),
    snapshotChunkBytes: rng.pick([64, 256, 4096]),
    proposalBatchOpsMax: rng.pick([1, 4, 1024]),
    mailboxLimit: busy ? 40 : 20_000,
    ...drawMessageLimits(rng.fork('limits')),
    leaderLeaseMs: rng.pick([90, 450, 800]),
    regionsMax: chaos ? 20 : rng.pick(storm ? [3, 5, 7] : [2, 4, 6]),
    valueBytes: rng.pick([0, 0, 0, 200]),
    oldMail: rng.pick([50, 500]),
    splitAtStart: chaos ? 10 + rng.below(10) : rng.below(storm ? 5 : 3),
    liveness: rng.pick(['heal', 'heal', 'core', 'gray'] as const),
    isBiased: rng.chance(0.6),
    isOverBudget: profile === 'disaster',
    isClockUnsafe: profile === 'unsafe-clock',
    // Who did not hear its leader for an election timeout lacks entries and wins nothing, unless there are none.
    ...(profile === 'clock' && rng.fork('idle').chance(0.6) ? { consistencyCheckMs: 0 } : {}),
  };
  // Two entries per slow write do not catch up with a backlog of hundreds in the time that liveness allows.
  return config.liveness === 'gray' ? { ...config, maxInflightMsgs: 256, maxSizePerMsgBytes: MIB } : config;
}

/** Logs that travel and are applied entry by entry show states that a large message skips. */
export function drawMessageLimits(
  rng: Rng,
): Pick<SimConfig, 'maxSizePerMsgBytes' | 'maxInflightMsgs' | 'maxCommittedPerReadyBytes' | 'consistencyCheckMs'> {
  return {
    maxSizePerMsgBytes: rng.pick([1, 200, MIB, MIB]),
    maxInflightMsgs: rng.pick([2, 256, 256]),
    maxCommittedPerReadyBytes: rng.pick([300, 16 * MIB, 16 * MIB]),
    consistencyCheckMs: rng.pick([700, 700, 0]),
  };
}

function drawSchedule(spec: ProfileSpec, config: SimConfig, rng: Rng): NemesisAction[] {
  const kinds: (readonly [NemesisKind, number])[] = [];
  for (const kind of NEMESIS_KINDS) {
    const weight = spec.weights[kind] ?? 0;
    const isOn = spec.always.includes(kind) || rng.chance(0.5);
    if (weight > 0 && isOn) {
      kinds.push([kind, weight * between(rng, [0.5, 1.5])]);
    }
  }
  const total = kinds.reduce((sum, [, weight]) => sum + weight, 0);
  const meanMs = between(rng, spec.meanActionMs);
  const out: NemesisAction[] = [];
  for (let atMs = 200 + rng.float() * meanMs; atMs < config.durationMs; atMs += rng.float() * 2 * meanMs) {
    let draw = rng.float() * total;
    let kind = (kinds[0] as (typeof kinds)[number])[0];
    for (const [name, weight] of kinds) {
      draw -= weight;
      if (draw < 0) {
        kind = name;
        break;
      }
    }
    out.push({
      atMs: Math.round(atMs * 10) / 10,
      kind,
      a: rng.u32(),
      b: rng.u32(),
      c: rng.u32(),
      forMs: Math.round(rng.pick([30, 150, 600, 1_500, 3_000]) * (0.5 + rng.float())),
    });
  }
  return out;
}
