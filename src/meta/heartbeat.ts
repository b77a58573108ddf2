/** What stores tell the placement service and what it answers (the domain form of pdpb heartbeats). */
import type { PeerId, RegionId, StoreId, Term } from '../base/ids.ts';
import type { Peer, Region, RegionEpoch } from './region.ts';
import type { StepRefusal } from './step-refusal.ts';

/** Report about one region by its leader; sent periodically and at once after every change. */
export interface RegionHeartbeat {
  readonly region: Region;
  readonly leader: Peer;
  readonly term: Term;
  readonly downPeers: readonly { readonly peer: Peer; readonly downSeconds: number }[];
  /** Peers whose log position is unknown or below the leader's first log index. */
  readonly pendingPeers: readonly Peer[];
  /** 0 means unknown. */
  readonly approximateSizeBytes: number;
  readonly approximateKeys: number;
  readonly bytesWritten: number;
  readonly keysWritten: number;
  readonly bytesRead: number;
  readonly keysRead: number;
  /** Merge phase of the region on the reporting store. */
  readonly merging: boolean;
  /** The last step that was refused since the report before; every refusal is reported once. */
  readonly refusal?: StepRefusal;
  /** Undefined until this leader has finished a check. */
  readonly consistency?: ConsistencyReport;
  /** Interval the flow figures cover, Unix seconds. */
  readonly intervalStartSeconds: number;
  readonly intervalEndSeconds: number;
}

/** A replica whose data were found to differ from the others': it serves nothing and waits to be replaced. */
export interface DamagedPeer {
  readonly regionId: RegionId;
  readonly peerId: PeerId;
  /** Log index behind which it differs. */
  readonly index: number;
  /** `divergent`: a majority agrees on other data. `unclear`: nobody can say whose data are right. */
  readonly reason: 'divergent' | 'unclear';
}

/** The latest comparison of a region's replicas, as its leader knows. */
export interface ConsistencyReport {
  /** Log index behind which they were compared. */
  readonly index: number;
  readonly wallMs: number;
  readonly result: 'consistent' | 'divergent' | 'unclear' | 'incomplete';
}

export interface StoreHeartbeat {
  readonly storeId: StoreId;
  readonly capacityBytes: number;
  readonly availableBytes: number;
  readonly usedBytes: number;
  readonly regionCount: number;
  readonly sendingSnapshots: number;
  readonly receivingSnapshots: number;
  readonly applyingSnapshots: number;
  readonly startTimeSeconds: number;
  readonly isBusy: boolean;
  readonly isStopping: boolean;
  /** Replicas on this store that differ from the others. */
  readonly damagedPeers?: readonly DamagedPeer[];
  /** Regions for which the store sends old requests on; undefined if it cannot. */
  readonly redirectedRegions?: readonly RegionId[];
}

export interface PeerChange {
  readonly type: 'add-voter' | 'add-learner' | 'remove';
  readonly peer: Peer;
}

/** One step of an operator, as the placement service sends it to the leader's store. */
export type RegionStep =
  | { readonly type: 'change-peer'; readonly change: PeerChange }
  /** Several changes enter a joint configuration; an empty list leaves it. */
  | { readonly type: 'change-peer-joint'; readonly changes: readonly PeerChange[] }
  | { readonly type: 'transfer-leader'; readonly peer: Peer; readonly candidates: readonly Peer[] }
  | { readonly type: 'merge'; readonly target: Region }
  | { readonly type: 'split'; readonly keys: readonly Uint8Array[] };

/** Command addressed to the leader of a region. */
export interface RegionHeartbeatReply {
  readonly regionId: RegionId;
  /** Epoch as the placement service knows it; the store refuses the step when its own differs where it matters. */
  readonly epoch: RegionEpoch;
  readonly targetPeer: Peer;
  readonly step: RegionStep;
}

/** Ids for one child of a split: a region id and one new peer id for each peer of the parent, in the parent's order. */
export interface SplitIds {
  readonly newRegionId: RegionId;
  readonly newPeerIds: readonly PeerId[];
}

/** A region with its leader, as routing calls return it. */
export interface RegionRoute {
  readonly region: Region;
  /** Undefined while unknown. */
  readonly leader: Peer | undefined;
  readonly downPeers: readonly Peer[];
  readonly pendingPeers: readonly Peer[];
}
