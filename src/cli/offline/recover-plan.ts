/**
 * What `braid offline unsafe-recover` would do: pure decisions over what the directories of the surviving stores say.
 *
 * A region is lost when so many of its voters were on lost stores that no majority is left, in either half of a joint
 * configuration. Of its surviving replicas the one with the greatest (last term, last index) goes on alone: by Raft's
 * election rule its log has everything that any survivor knows to be committed. The others are left as they are: they
 * have no majority without the lost ones and are replaced by the placement service.
 *
 * Entries behind the applied index count from then on, but those that change membership or range were proposed for the
 * old members: their epoch check would refuse them, and with a range change every write behind it. A log with a
 * range change behind the applied index is therefore only declared committed; the store applies it at its next start,
 * and a second run finds regions as they are then.
 */
import { compareBytes } from '../../base/bytes.ts';
import { rangeCovers, rangesOverlap } from '../../base/key-range.ts';
import type { AdminType } from '../../codec/command.ts';
import type { StoreIdent } from '../../codec/store-record.ts';
import { findPeerOnStore, formatRegion, isVoterRole, type Peer, type Region } from '../../meta/region.ts';
import { isLive, lastPosition, type RegionFacts } from './store-content.ts';
import { checkRegion } from './verify-store.ts';

/** Admin commands that change a region's range; every later entry of the log builds on them. */
export const RANGE_CHANGES: ReadonlySet<AdminType> = new Set([
  'batch-split',
  'prepare-merge',
  'commit-merge',
  'rollback-merge',
]);

/** One directory, read. */
export interface Survivor {
  readonly directory: string;
  readonly ident: StoreIdent;
  readonly regions: readonly RegionFacts[];
  /** Of regions with entries behind the applied index: the kinds of admin commands among them. */
  readonly tails: ReadonlyMap<number, ReadonlySet<AdminType>>;
  /** Regions that an earlier run made go on alone. */
  readonly recovered: ReadonlySet<number>;
}

export type RecoverRefusal =
  /** A store that is not lost has a replica too, and nobody looked at it. */
  | 'DirectoryMissing'
  /** The replica's records contradict each other. */
  | 'Damaged'
  /** Every survivor was found to differ from the others. */
  | 'Fenced'
  /** Another replica here owns some of the keys at a later version. */
  | 'Overtaken'
  /** PrepareMerge was applied, and the target may take the data in. */
  | 'MergePrepared';

export type RecoverAction =
  /** Goes on as the only voter. */
  | { readonly type: 'recover'; readonly after: Region }
  /** The store has to start once before; see the head of this file. */
  | { readonly type: 'start-first'; readonly reason: string; readonly commitsLog: boolean }
  | { readonly type: 'refused'; readonly code: RecoverRefusal; readonly reason: string; readonly remedy: string };

export interface RegionPlan {
  readonly region: Region;
  readonly chosen: Survivor;
  readonly facts: RegionFacts;
  /** Undefined only in a damaged replica. */
  readonly peer: Peer | undefined;
  /** Entries that count although nobody knew them to be committed, or that are not applied yet. */
  readonly unappliedEntries: number;
  readonly lostPeers: readonly Peer[];
  /** Replicas that survived as well and do not know more. */
  readonly others: readonly { readonly storeId: number; readonly lastTerm: number; readonly lastIndex: number }[];
  readonly action: RecoverAction;
}

export interface RecoverPlan {
  readonly regions: readonly RegionPlan[];
  /** Live regions of the directories that have their majority. */
  readonly healthy: number;
}

interface Replica {
  readonly survivor: Survivor;
  readonly facts: RegionFacts & { readonly local: NonNullable<RegionFacts['local']> };
}

/** Whether no majority of voters is left, in one half of a joint configuration at least. */
export function lostMajority({ peers }: Region, lost: ReadonlySet<number>): boolean {
  const isShort = (half: readonly Peer[]): boolean =>
    half.filter(({ storeId }) => !lost.has(storeId)).length * 2 <= half.length;
  return (
    isShort(peers.filter(({ role }) => role === 'voter' || role === 'incoming-voter')) ||
    isShort(peers.filter(({ role }) => role === 'voter' || role === 'demoting-voter'))
  );
}

/** Orders replicas by how much they know, best first. */
function byKnowledge(a: Replica, b: Replica): number {
  const [x, y] = [lastPosition(a.facts), lastPosition(b.facts)];
  return (
    y.term - x.term ||
    y.index - x.index ||
    (b.facts.apply?.appliedIndex ?? 0) - (a.facts.apply?.appliedIndex ?? 0) ||
    a.survivor.ident.storeId - b.survivor.ident.storeId
  );
}

/**
 * The region with one voter. Every peer that goes and every change of role counts as one membership change, as if they
 * had been made one by one; `ahead` raises both counters above that.
 */
export function soleVoterRegion(region: Region, survivor: Peer, ahead: number): Region {
  const changes = region.peers.length - 1 + (survivor.role === 'voter' ? 0 : 1);
  return {
    ...region,
    peers: [{ ...survivor, role: 'voter' }],
    epoch: {
      confVer: region.epoch.confVer + Math.max(1, changes) + ahead,
      version: region.epoch.version + ahead,
    },
  };
}

export interface PlanOptions {
  readonly lostStores: ReadonlySet<number>;
  /** How far epochs are raised beyond what was changed. */
  readonly epochAhead: number;
}

export function planRecovery(survivors: readonly Survivor[], options: PlanOptions): RecoverPlan {
  const replicas = new Map<number, Replica[]>();
  for (const survivor of survivors) {
    for (const facts of survivor.regions.filter(isLive)) {
      replicas.set(facts.id, [...(replicas.get(facts.id) ?? []), { survivor, facts }]);
    }
  }
  // The most knowing replica of each region tells what the region is.
  const best = [...replicas.values()].map((all) => all.toSorted(byKnowledge)[0] as Replica);
  const plans: RegionPlan[] = [];
  for (const { survivor, facts } of best) {
    const { region } = facts.local;
    // Recovered before, and not believed: its epoch is raised once more.
    const isRaised = options.epochAhead > 0 && survivor.recovered.has(region.id) && region.peers.length === 1;
    if (!isRaised && !lostMajority(region, options.lostStores)) {
      continue;
    }
    plans.push(planRegion((replicas.get(facts.id) ?? []).toSorted(byKnowledge), best, survivors, options));
  }
  const settled = plans.map((plan) => afterTarget(plan, plans, best));
  return {
    regions: settled.toSorted((a, b) => compareBytes(a.region.range.start, b.region.range.start)),
    healthy: best.length - settled.length,
  };
}

function planRegion(
  ordered: readonly Replica[],
  best: readonly Replica[],
  survivors: readonly Survivor[],
  { lostStores, epochAhead }: PlanOptions,
): RegionPlan {
  const chosen = (ordered.find(({ facts }) => facts.fence === undefined) ?? ordered[0]) as Replica;
  const { survivor, facts } = chosen;
  const { region } = facts.local;
  const peer = findPeerOnStore(region, survivor.ident.storeId as Peer['storeId']);
  const base = {
    region,
    chosen: survivor,
    facts,
    peer,
    unappliedEntries: Math.max(0, lastPosition(facts).index - (facts.apply?.appliedIndex ?? 0)),
    lostPeers: region.peers.filter(({ storeId }) => lostStores.has(storeId)),
    others: ordered
      .filter((one) => one !== chosen)
      .map((one) => ({
        storeId: one.survivor.ident.storeId,
        lastTerm: lastPosition(one.facts).term,
        lastIndex: lastPosition(one.facts).index,
      })),
  };
  const refused = (code: RecoverRefusal, reason: string, remedy: string): RegionPlan => ({
    ...base,
    action: { type: 'refused', code, reason, remedy },
  });
  const given = new Set(survivors.map(({ ident }) => ident.storeId));
  const unseen = [...new Set(region.peers.map(({ storeId }) => storeId))].filter(
    (id) => !given.has(id) && !lostStores.has(id),
  );
  if (unseen.length > 0) {
    return refused(
      'DirectoryMissing',
      `store ${unseen.join(', ')} has a replica, too, which may know more`,
      `name its directory as well, or name it in --lost-stores if it is lost`,
    );
  }
  const [problem] = checkRegion(facts, survivor.ident.storeId);
  if (problem !== undefined || peer === undefined) {
    return refused(
      'Damaged',
      problem?.detail ?? 'the replica does not list its own store',
      `see "braid offline verify ${survivor.directory}"; save its rows with "braid offline dump ${survivor.directory} --region ${region.id}"`,
    );
  }
  if (facts.fence !== undefined) {
    return refused(
      'Fenced',
      'its data were found to differ from those of the other replicas',
      `save its rows with "braid offline dump ${survivor.directory} --region ${region.id}" and judge them yourself`,
    );
  }
  const newer = best.find(
    ({ facts: other }) =>
      other.id !== region.id &&
      rangesOverlap(other.local.region.range, region.range) &&
      other.local.region.epoch.version > region.epoch.version,
  );
  if (newer !== undefined) {
    return refused(
      'Overtaken',
      `${formatRegion(newer.facts.local.region)} on store ${newer.survivor.ident.storeId} owns some of its keys at a later version`,
      `save its rows with "braid offline dump ${survivor.directory} --region ${region.id}" and import those that are missing`,
    );
  }
  if (facts.state === 'applying') {
    return {
      ...base,
      action: { type: 'start-first', reason: 'a snapshot is being installed in it', commitsLog: false },
    };
  }
  const changes = [...(survivor.tails.get(region.id) ?? [])].filter((type) => RANGE_CHANGES.has(type));
  if (changes.length > 0) {
    return {
      ...base,
      action: {
        type: 'start-first',
        reason: `its log holds a ${changes.join(' and a ')} that is not applied yet`,
        commitsLog: true,
      },
    };
  }
  return { ...base, action: { type: 'recover', after: soleVoterRegion(region, peer, epochAhead) } };
}

/**
 * A region in the middle of a merge may go on only if its target cannot have taken it in, now or later: the target is
 * recovered, too, which raises its epoch, so that the merge is refused there and this region rolls it back by itself;
 * or the membership of the target has changed since and its range has not, with the same effect.
 */
function afterTarget(plan: RegionPlan, plans: readonly RegionPlan[], best: readonly Replica[]): RegionPlan {
  const merge = plan.facts.local?.mergeState;
  if (plan.action.type !== 'recover' || plan.facts.state !== 'merging' || merge === undefined) {
    return plan;
  }
  const target = plans.find(({ region }) => region.id === merge.target.id);
  if (target?.action.type === 'recover' && !rangeCovers(target.region.range, plan.region.range)) {
    return plan;
  }
  const known = best.find(({ facts }) => facts.id === merge.target.id)?.facts.local.region.epoch;
  // CommitMerge needs exactly the epoch the merge was prepared for, and would have raised the version.
  if (known?.version === merge.target.epoch.version && known.confVer > merge.target.epoch.confVer) {
    return plan;
  }
  if (target?.action.type === 'start-first') {
    return {
      ...plan,
      action: {
        type: 'start-first',
        reason: `it is being merged into region ${merge.target.id}, which has to start first`,
        commitsLog: false,
      },
    };
  }
  const { directory, ident } = plan.chosen;
  return {
    ...plan,
    action: {
      type: 'refused',
      code: 'MergePrepared',
      reason: `it is being merged into region ${merge.target.id}, which may take its data in or have done so`,
      remedy: `start the store and let region ${merge.target.id} lead on store ${ident.storeId}: it takes the data in from here; or save its rows with "braid offline dump ${directory} --region ${plan.region.id}"`,
    },
  };
}

/** Voters on lost stores, of how many. */
export const lostVoters = ({ region, lostPeers }: RegionPlan): string =>
  `${lostPeers.filter(({ role }) => isVoterRole(role)).length} of ${region.peers.filter(({ role }) => isVoterRole(role)).length}`;
