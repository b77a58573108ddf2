/** Cases of the world that holds nothing but the placement service: a minute of wishes, faults and scripted stores. */
import { createRng, type Rng } from '../../src/env/rng.ts';

export const PD_KINDS = [
  // Wishes of administrators
  'split',
  'merge',
  'move',
  'transfer',
  'add-learner',
  'remove-peer',
  'cancel',
  'switch',
  // What stores do by themselves
  'own-split',
  'elect',
  'restart-store',
  'stop-store',
  'wipe-store',
  // What stores do with commands
  'refuse',
  'slow-store',
  'old-commands',
  // The link between a store and the placement service
  'cut-store',
  'lose-reports',
  'lose-commands',
  'old-reports',
  // The placement service
  'crash-pd',
  'stall-pd',
  'wall-jump',
  'disk-slow',
  'disk-error',
] as const;
/** Only where the service has several members. */
export const PD_MEMBER_KINDS = [
  'cut-pd',
  'half-cut-pd',
  'transfer-pd',
  'join-pd',
  'remove-pd',
  'replace-pd',
  'crash-follower',
  'crash-all-pd',
] as const;
/** Only where there are documents. */
export const PD_DOCUMENT_KINDS = [
  'apply-partition',
  'merge-parts',
  'move-part',
  'split-part',
  'delete-document',
] as const;
/** Only where placement rules are set. */
export const PD_RULE_KINDS = ['set-rule', 'delete-rule'] as const;
export type PdKind =
  | (typeof PD_KINDS)[number]
  | (typeof PD_MEMBER_KINDS)[number]
  | (typeof PD_DOCUMENT_KINDS)[number]
  | (typeof PD_RULE_KINDS)[number];

export interface PdAction {
  readonly atMs: number;
  readonly kind: PdKind;
  readonly a: number;
  readonly b: number;
  readonly c: number;
  readonly forMs: number;
}

export interface PdWorldConfig {
  readonly world: 'pd';
  readonly stores: number;
  /** Members of the placement service at the start. */
  readonly members: number;
  /** Whether Partitions and Assignments are applied. */
  readonly documents: boolean;
  /** Whether placement rules are set and deleted. */
  readonly rules: boolean;
  readonly durationMs: number;
  readonly regionsAtStart: number;
  readonly regionsMax: number;
  /** Share of reports and of commands that get lost, come twice, or come late. */
  readonly lossChance: number;
  readonly duplicateChance: number;
  readonly lateChance: number;
  readonly delayMs: readonly [number, number];
  /** How long stores take for a step, and a new replica for its data. */
  readonly stepMs: readonly [number, number];
  readonly copyMs: readonly [number, number];
  readonly writeDelayMs: readonly [number, number];
  readonly jointConsensus: boolean;
  readonly balance: boolean;
  readonly automaticMerge: boolean;
  readonly storeDownMs: number;
}

export const PD_PROFILES = ['pd', 'pd-members', 'pd-rules'] as const;
export type PdProfile = (typeof PD_PROFILES)[number];

export interface PdCase {
  readonly seed: number;
  readonly profile: PdProfile;
  readonly config: PdWorldConfig;
  readonly schedule: readonly PdAction[];
}

const WEIGHTS: Readonly<Record<PdKind, number>> = {
  split: 5,
  merge: 7,
  move: 5,
  transfer: 2,
  'add-learner': 2,
  'remove-peer': 2,
  cancel: 2,
  switch: 1,
  'own-split': 4,
  elect: 4,
  'restart-store': 3,
  'stop-store': 1,
  'wipe-store': 0.5,
  refuse: 2,
  'slow-store': 2,
  'old-commands': 2,
  'cut-store': 2,
  'lose-reports': 2,
  'lose-commands': 2,
  'old-reports': 3,
  'crash-pd': 3,
  'stall-pd': 1,
  'wall-jump': 1,
  'disk-slow': 1,
  'disk-error': 0.5,
  'cut-pd': 2,
  'half-cut-pd': 1,
  'transfer-pd': 2,
  'join-pd': 1,
  'remove-pd': 1,
  'replace-pd': 1,
  'crash-follower': 2,
  'crash-all-pd': 0.5,
  'apply-partition': 5,
  'merge-parts': 4,
  'move-part': 3,
  'split-part': 2,
  'delete-document': 0.7,
  'set-rule': 7,
  'delete-rule': 2,
};

export function drawPdCase(seed: number, profile: PdProfile = 'pd'): PdCase {
  const rng = createRng(seed).fork(`case-${profile}`);
  const isGroup = profile === 'pd-members';
  const config = {
    ...drawConfig(rng.fork('config')),
    ...(isGroup ? { members: 3, documents: rng.chance(0.5) } : {}),
    ...(profile === 'pd-rules' ? { rules: true, stores: rng.pick([4, 5, 6, 7, 8]) } : {}),
  };
  const kinds: readonly PdKind[] = [
    ...PD_KINDS,
    ...(isGroup ? PD_MEMBER_KINDS : []),
    ...(config.documents ? PD_DOCUMENT_KINDS : []),
    ...(config.rules ? PD_RULE_KINDS : []),
  ];
  return { seed, profile, config, schedule: drawSchedule(config, kinds, rng.fork('nemesis')) };
}

function drawConfig(rng: Rng): PdWorldConfig {
  return {
    world: 'pd',
    members: 1,
    documents: false,
    rules: false,
    stores: rng.pick([3, 4, 5, 6]),
    durationMs: rng.pick([15_000, 30_000]),
    regionsAtStart: rng.pick([1, 3, 6]),
    regionsMax: rng.pick([4, 8, 16]),
    lossChance: rng.pick([0, 0, 0.05, 0.2]),
    duplicateChance: rng.pick([0, 0, 0.1]),
    lateChance: rng.pick([0, 0, 0.02, 0.1]),
    delayMs: rng.pick([[0.1, 2] as const, [0.1, 2] as const, [1, 50] as const, [5, 400] as const]),
    stepMs: rng.pick([[1, 20] as const, [10, 300] as const, [100, 3_000] as const]),
    copyMs: rng.pick([[10, 200] as const, [200, 4_000] as const]),
    writeDelayMs: rng.pick([[0.2, 2] as const, [5, 60] as const]),
    jointConsensus: rng.chance(0.7),
    balance: rng.chance(0.6),
    automaticMerge: rng.chance(0.4),
    storeDownMs: rng.pick([5_000, 12_000]),
  };
}

function drawSchedule(config: PdWorldConfig, all: readonly PdKind[], rng: Rng): PdAction[] {
  const kinds = all
    .filter((kind) => kind === 'split' || kind === 'set-rule' || rng.chance(0.55))
    .map((kind) => [kind, WEIGHTS[kind] * (0.5 + rng.float())] as const);
  const total = kinds.reduce((sum, [, weight]) => sum + weight, 0);
  const meanMs = rng.pick([80, 200, 500]);
  const out: PdAction[] = [];
  for (let atMs = rng.float() * meanMs; atMs < config.durationMs; atMs += rng.float() * 2 * meanMs) {
    let left = rng.float() * total;
    const found = kinds.find(([, weight]) => (left -= weight) < 0) ?? kinds[0];
    out.push({
      atMs: Math.round(atMs * 10) / 10,
      kind: found?.[0] ?? 'split',
      a: rng.u32(),
      b: rng.u32(),
      c: rng.u32(),
      forMs: Math.round(rng.pick([20, 200, 1_000, 4_000]) * (0.5 + rng.float())),
    });
  }
  return out;
}
