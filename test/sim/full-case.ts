/**
 * Cases of the full world: what a history of the whole stack consists of, as plain data. Like `case.ts`, but with the
 * kinds of faults that exist where processes, connections and clients do, and with a workload drawn for each client.
 */
import { createRng, type Rng } from '../../src/env/rng.ts';
import { drawMessageLimits, type SimConfig } from './case.ts';

export const FULL_PROFILES = ['full', 'pd-chaos'] as const;
export type FullProfile = (typeof FULL_PROFILES)[number];

export const FULL_KINDS = [
  // Wishes of an administrator, carried out by the placement service
  'split',
  'merge',
  'retarget',
  'transfer',
  'move',
  'add-learner',
  'remove-peer',
  'cancel',
  'switch',
  // Processes
  'crash',
  'crash-all',
  'crash-point',
  'crash-everything',
  'crash-pd',
  'crash-client',
  'stall',
  'stall-pd',
  'clock-rate',
  'pd-clock-rate',
  'wall-jump',
  'pd-wall-jump',
  // Disks
  'disk-slow',
  'disk-slow-pd',
  'disk-error',
  'disk-error-pd',
  'wipe',
  // Network
  'isolate',
  'isolate-leader',
  'one-way',
  'bisect',
  'ring',
  'bridge',
  'cut-pd',
  'cut-clients',
  'swizzle',
  'clog',
  'reset',
  'lose-replies',
  'old-mail',
  'old-commands',
  // Order
  'hold-apply',
  'hold-merge',
  'hold-install',
  // Behind the others, so that their seeds draw as before.
  'deaf-pd',
] as const;
export type FullKind = (typeof FULL_KINDS)[number];

/** One thing the nemesis does. The numbers choose among what exists at that moment. */
export interface FullAction {
  readonly atMs: number;
  readonly kind: FullKind;
  readonly a: number;
  readonly b: number;
  readonly c: number;
  /** How long a fault lasts. */
  readonly forMs: number;
}

/** What a client does all the time. */
export const CLIENT_ROLES = ['register', 'set', 'list', 'counter', 'ttl'] as const;
export type ClientRole = (typeof CLIENT_ROLES)[number];
export type ReadMode = 'leader' | 'follower' | 'mixed';

export interface FullConfig extends SimConfig {
  /** One entry per client. */
  readonly roles: readonly ClientRole[];
  readonly readModes: readonly ReadMode[];
  /** Keys above which a store splits a region by itself; 0 = never. */
  readonly splitKeys: number;
  /** Whether the placement service balances leaders and regions. */
  readonly balance: boolean;
  /** Whether it merges small regions by itself. */
  readonly automaticMerge: boolean;
  readonly pdWriteDelayMs: readonly [number, number];
  /** Silence after which the placement service replaces a store's replicas. */
  readonly storeDownMs: number;
}

export interface FullCase {
  readonly seed: number;
  readonly profile: FullProfile;
  readonly config: FullConfig;
  readonly schedule: readonly FullAction[];
}

type Weights = Partial<Record<FullKind, number>>;

const WISHES: Weights = {
  split: 6,
  merge: 6,
  retarget: 2,
  transfer: 3,
  move: 4,
  'add-learner': 2,
  'remove-peer': 2,
  cancel: 1,
  switch: 0.5,
};
const STORE_FAULTS: Weights = {
  crash: 3,
  'crash-all': 0.4,
  'crash-point': 2,
  stall: 1.5,
  'clock-rate': 1,
  'wall-jump': 0.7,
  'disk-slow': 0.8,
  'disk-error': 0.6,
  wipe: 0.5,
};
const PD_FAULTS: Weights = {
  'crash-pd': 1.5,
  'stall-pd': 0.7,
  'pd-clock-rate': 0.4,
  'pd-wall-jump': 0.5,
  'disk-slow-pd': 0.5,
  'disk-error-pd': 0.3,
  'cut-pd': 1,
  'deaf-pd': 3,
  'crash-everything': 0.2,
};
const NETWORK_FAULTS: Weights = {
  isolate: 1.5,
  'isolate-leader': 1.5,
  'one-way': 1,
  bisect: 0.7,
  ring: 0.5,
  bridge: 0.5,
  'cut-clients': 0.7,
  swizzle: 0.5,
  clog: 0.7,
  reset: 1.5,
  'lose-replies': 1,
  'old-mail': 1.5,
  'crash-client': 0.7,
};
const ORDER: Weights = { 'hold-apply': 1, 'hold-merge': 0.6, 'hold-install': 0.6, 'old-commands': 1 };

interface Spec {
  readonly weights: Weights;
  readonly meanActionMs: readonly [number, number];
  readonly stores: readonly number[];
  /** Kinds that swarm selection never leaves out. */
  readonly always: readonly FullKind[];
  readonly clients: readonly number[];
  readonly thinkMs: readonly number[];
  readonly regionsMax: readonly number[];
}

const SPECS: Readonly<Record<FullProfile, Spec>> = {
  full: {
    weights: { ...WISHES, ...STORE_FAULTS, ...PD_FAULTS, ...NETWORK_FAULTS, ...ORDER },
    meanActionMs: [300, 1_500],
    stores: [3, 3, 4, 5],
    always: ['split', 'merge', 'crash'],
    clients: [4, 6, 8],
    thinkMs: [60, 120, 200],
    regionsMax: [3, 5, 8],
  },
  'pd-chaos': {
    weights: {
      ...WISHES,
      split: 12,
      merge: 10,
      move: 6,
      cancel: 3,
      switch: 2,
      crash: 1.5,
      wipe: 0.5,
      ...PD_FAULTS,
      'crash-pd': 8,
      'stall-pd': 4,
      'cut-pd': 6,
      'disk-slow-pd': 4,
      'disk-error-pd': 1,
      'pd-wall-jump': 2,
      'pd-clock-rate': 1,
      'crash-everything': 0.5,
      'old-commands': 6,
      reset: 2,
      'lose-replies': 3,
      bisect: 0.7,
    },
    meanActionMs: [150, 700],
    stores: [3, 4, 5],
    always: ['split', 'merge', 'crash-pd', 'move'],
    clients: [3, 4],
    thinkMs: [150, 300],
    regionsMax: [6, 10, 14],
  },
};

/** Faults happen during this part of the sixty seconds; the rest is for healing and the last checks. */
const DURATION_MS = 50_000;

const between = (rng: Rng, [low, high]: readonly [number, number]): number => low + rng.float() * (high - low);

export function drawFullCase(profile: FullProfile, seed: number): FullCase {
  const spec = SPECS[profile];
  const rng = createRng(seed).fork(`case-${profile}`);
  const config = drawConfig(spec, rng.fork('config'));
  return { seed, profile, config, schedule: drawSchedule(spec, config, rng.fork('nemesis')) };
}

function drawConfig(spec: Spec, rng: Rng): FullConfig {
  const slowNet = rng.chance(0.2);
  const logGcCountLimit = rng.pick([12, 20, 40, 500]);
  const clients = rng.pick(spec.clients);
  // The first client always works on the hot registers; each other kind of work is left out half of the time.
  const others = CLIENT_ROLES.filter((role) => role === 'register' || rng.chance(0.5));
  const roles = Array.from({ length: clients }, (_, n): ClientRole => (n === 0 ? 'register' : rng.pick(others)));
  return {
    world: 'full',
    stores: rng.pick(spec.stores),
    keys: rng.pick([5, 8, 12, 16]),
    clients,
    durationMs: DURATION_MS,
    thinkMs: rng.pick(spec.thinkMs),
    reads: rng.pick([0.25, 0.5, 0.7]),
    lossChance: rng.pick([0, 0, 0.01, 0.05]),
    duplicateChance: 0,
    lateChance: 0,
    delayMs: slowNet ? [1, rng.pick([20, 40])] : [0.1, rng.pick([1, 3, 8])],
    writeDelayMs: rng.pick([[0.1, 1] as const, [0.1, 1] as const, [0.5, 8] as const, [2, 20] as const]),
    logGcThreshold: rng.pick([3, 5, 20]),
    logGcCountLimit,
    mergeMaxLogGap: Math.min(logGcCountLimit - 1, rng.pick([2, 5, 10])),
    snapshotChunkBytes: rng.pick([256, 1024, 16_384]),
    proposalBatchOpsMax: rng.pick([1, 4, 1024]),
    mailboxLimit: 20_000,
    ...drawMessageLimits(rng.fork('limits')),
    leaderLeaseMs: rng.pick([90, 450, 800]),
    regionsMax: rng.pick(spec.regionsMax),
    valueBytes: 0,
    oldMail: rng.pick([50, 500]),
    splitAtStart: 0,
    liveness: 'heal',
    isBiased: false,
    isOverBudget: false,
    isClockUnsafe: false,
    roles,
    readModes: Array.from({ length: clients }, () => rng.pick(['leader', 'follower', 'mixed'] as const)),
    splitKeys: rng.pick([0, 0, 8, 20]),
    balance: rng.chance(0.5),
    automaticMerge: rng.chance(0.3),
    pdWriteDelayMs: rng.pick([[0.2, 2] as const, [1, 10] as const]),
    storeDownMs: rng.pick([8_000, 30_000]),
  };
}

function drawSchedule(spec: Spec, config: FullConfig, rng: Rng): FullAction[] {
  // Expiry is decided by the wall clocks of leaders: times to live and jumping wall clocks exclude each other.
  const noJumps = config.roles.includes('ttl');
  const kinds: (readonly [FullKind, number])[] = [];
  for (const kind of FULL_KINDS) {
    const weight = kind === 'wall-jump' && noJumps ? 0 : (spec.weights[kind] ?? 0);
    const isOn = spec.always.includes(kind) || rng.chance(0.5);
    if (weight > 0 && isOn) {
      kinds.push([kind, weight * between(rng, [0.5, 1.5])]);
    }
  }
  const total = kinds.reduce((sum, [, weight]) => sum + weight, 0);
  const meanMs = between(rng, spec.meanActionMs);
  const out: FullAction[] = [];
  for (let atMs = 300 + rng.float() * meanMs; atMs < config.durationMs; atMs += rng.float() * 2 * meanMs) {
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
      // Mostly short; now and then long enough for a log to be cut or a store to count as lost.
      forMs: Math.round(rng.pick([50, 200, 600, 1_500, 3_000, 8_000]) * (0.5 + rng.float())),
    });
  }
  return out;
}
