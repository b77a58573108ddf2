/**
 * Why a store did not carry out a step of an operator: one word for every reason, with what it means for the plan and
 * what to do next. The store's leader reports its last refusal with its region; the placement service attaches it to
 * the operator. Nothing was changed by a refused step.
 */
import type { RegionEpoch } from './region.ts';

/**
 * `lasting`: as long as the region's epoch stays as it is the same step is refused again, so the plan cannot succeed.
 * `passing`: the obstacle goes away by itself; the step is sent again.
 */
export type RefusalOutlook = 'lasting' | 'passing';

interface RefusalWord {
  readonly outlook: RefusalOutlook;
  /** What to do next, for people. */
  readonly hint: string;
}

const passing = (hint: string): RefusalWord => ({ outlook: 'passing', hint });
const lasting = (hint: string): RefusalWord => ({ outlook: 'lasting', hint });

const SOON = 'it is tried again by itself';

export type StepRefusalCode =
  | 'NotLeader'
  | 'RegionNotFound'
  | 'NotInitialized'
  | 'InstallingSnapshot'
  | 'Merging'
  | 'ApplyNotCaughtUp'
  | 'CommandInFlight'
  | 'LeaderTransferring'
  | 'EpochNotMatch'
  | 'EntryTooLarge'
  | 'ProposalDropped'
  | 'Overtaken'
  | 'Refused'
  | 'JointState'
  | 'MergeWithItself'
  | 'NotNeighbours'
  | 'NotSiblings'
  | 'PeersNotAligned'
  | 'TargetNotHere'
  | 'TargetBehind'
  | 'TargetChanged'
  | 'PeerDown'
  | 'PeerNeedsSnapshot'
  | 'PeerUnknown'
  | 'LogGapTooLarge'
  | 'PeerBehindSnapshot'
  | 'AdminInLogGap'
  | 'EntriesTooLarge'
  | 'BadSplitKeys'
  | 'NoSplitKeys'
  | 'SplitKeyOutOfRange'
  | 'SplitKeysNotIncreasing'
  | 'NothingToSplit'
  | 'SplitRunning'
  | 'NoIds'
  | 'BadIds'
  | 'PeerCountMismatch'
  | 'DuplicateRegionId'
  | 'RemovesLeader'
  | 'ConfChangePending'
  | 'WouldLoseQuorum'
  | 'WouldLackLog'
  | 'InJointState'
  | 'NotInJointState'
  | 'PeerNotFound'
  | 'VoterRemovedInJoint'
  | 'PeerOnOtherStore'
  | 'StoreHasPeer'
  | 'RoleUnchanged'
  | 'DuplicateChange'
  | 'NoVoterLeft'
  | 'CompactBeyondApplied'
  | 'UnknownPeer'
  | 'NotAVoter'
  | 'SnapshotPending'
  | 'TargetLags'
  | 'TransferNotStarted'
  | 'ReplicaDamaged';

/** Every word, grouped by the command it belongs to; docs/placement.md explains each. */
export const STEP_REFUSALS: Readonly<Record<StepRefusalCode, RefusalWord>> = {
  // Of any command.
  NotLeader: passing('wait until the region has a leader; it is tried again there'),
  RegionNotFound: passing('locate the keys of the region: it may have been merged or moved away'),
  NotInitialized: passing('wait for the first snapshot of the replica'),
  InstallingSnapshot: passing(SOON),
  Merging: passing('wait until the merge of the region is committed or rolled back'),
  ApplyNotCaughtUp: passing(SOON),
  CommandInFlight: passing(SOON),
  LeaderTransferring: passing(SOON),
  EpochNotMatch: passing('look at the region: it changed after the step was planned'),
  EntryTooLarge: lasting('split or move fewer things at once'),
  ProposalDropped: passing(SOON),
  Overtaken: passing(SOON),
  Refused: passing('see the message'),
  // Merges, at the source.
  JointState: lasting('wait until the membership change has ended, then ask for the merge again'),
  MergeWithItself: lasting('name a neighbour of the region as the target'),
  NotNeighbours: lasting('merge neighbour by neighbour: list the regions to see their borders'),
  NotSiblings: lasting('merge neighbour by neighbour: list the regions to see their borders'),
  PeersNotAligned: lasting('ask for the merge again: the peers of the source are aligned first'),
  TargetNotHere: passing('wait until the target has a replica on every store of the source'),
  TargetBehind: passing(SOON),
  TargetChanged: lasting('look at the target and ask for the merge again if it is still wanted'),
  // Lasting: a merge that waited would keep the placement service from replacing the very replica it waits for.
  PeerDown: lasting('bring the store back, or wait until its replica was replaced, and ask for the merge again'),
  PeerNeedsSnapshot: passing('wait until the replica has its snapshot'),
  PeerUnknown: passing('wait until every replica has reported its position'),
  LogGapTooLarge: passing('wait until the slowest replica has caught up; check its store if it does not'),
  PeerBehindSnapshot: passing(SOON),
  AdminInLogGap: passing(SOON),
  EntriesTooLarge: passing('wait until the slowest replica has caught up; check its store if it does not'),
  // Splits.
  BadSplitKeys: lasting('choose keys inside the region, in order'),
  NoSplitKeys: lasting('choose keys inside the region, in order'),
  SplitKeyOutOfRange: lasting('choose keys inside the region, in order'),
  SplitKeysNotIncreasing: lasting('choose keys inside the region, in order'),
  NothingToSplit: lasting('a region needs at least two keys to be split in the middle; name a key to split it anyway'),
  SplitRunning: passing('wait until the split under way has ended'),
  NoIds: passing('check that the placement service answers its stores'),
  BadIds: passing(SOON),
  PeerCountMismatch: passing(SOON),
  DuplicateRegionId: passing(SOON),
  // Membership changes.
  RemovesLeader: passing('transfer the leadership to another store first'),
  ConfChangePending: passing(SOON),
  WouldLoseQuorum: passing('bring silent stores back before more replicas are changed'),
  WouldLackLog: passing('wait until the replicas behind the compacted log have been restored'),
  InJointState: lasting('wait until the membership change under way has ended'),
  NotInJointState: lasting('look at the region: the membership change has ended already'),
  PeerNotFound: lasting('look at the peers of the region'),
  VoterRemovedInJoint: lasting('demote the voter first'),
  PeerOnOtherStore: lasting('look at the peers of the region'),
  StoreHasPeer: lasting('look at the peers of the region: a store takes one replica of it'),
  RoleUnchanged: lasting('look at the peers of the region: it is as wanted already'),
  DuplicateChange: lasting('change a store once in one step'),
  NoVoterLeft: lasting('add a voter before the last one leaves'),
  CompactBeyondApplied: passing(SOON),
  // Leadership.
  UnknownPeer: lasting('look at the peers of the region'),
  NotAVoter: lasting('promote the learner first, or choose a voter'),
  SnapshotPending: passing('wait until the replica has its snapshot'),
  TargetLags: passing('wait until the replica has caught up; check its store if it does not'),
  TransferNotStarted: passing(SOON),
  ReplicaDamaged: passing('wait until the damaged replica was replaced: braid ctl check'),
};

/** The step as the placement service sends it; `commit-merge` stands for the target's part of a merge. */
export type RefusedStep = 'change-peer' | 'change-peer-joint' | 'transfer-leader' | 'merge' | 'commit-merge' | 'split';

export const REFUSED_STEPS: readonly RefusedStep[] = [
  'change-peer',
  'change-peer-joint',
  'transfer-leader',
  'merge',
  'commit-merge',
  'split',
];

/** A store's last refusal, as it travels to the placement service. */
export interface StepRefusal {
  readonly step: RefusedStep;
  /** A {@link StepRefusalCode}, or a word of a newer store. */
  readonly code: string;
  readonly message: string;
  readonly hint: string;
  readonly outlook: RefusalOutlook;
  /** The region's epoch on the store when it refused. */
  readonly epoch: RegionEpoch;
}

export function stepRefusal(
  step: RefusedStep,
  code: StepRefusalCode,
  message: string,
  epoch: RegionEpoch,
): StepRefusal {
  const { outlook, hint } = STEP_REFUSALS[code];
  return { step, code, message, hint, outlook, epoch };
}
