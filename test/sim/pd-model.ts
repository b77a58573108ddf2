/**
 * Scripted regions: what is true about them, and how the stores' Raft groups change it. A region obeys only a leader
 * whose store runs and that reaches a majority; it checks epochs as real stores do; merges commit or roll back by
 * themselves. Nothing here knows the placement service.
 */
import { compareBytes } from '../../src/base/bytes.ts';
import { type PeerId, peerId, type RegionId, regionId, type StoreId, term } from '../../src/base/ids.ts';
import { FULL_RANGE } from '../../src/base/key-range.ts';
import type { PeerChange, RegionHeartbeat, SplitIds } from '../../src/meta/heartbeat.ts';
import { epochsEqual, findPeerOnStore, isInJointState, type Peer, type Region } from '../../src/meta/region.ts';
import { WorldError } from './world-error.ts';

export interface ModelRegion {
  region: Region;
  leaderId: PeerId;
  term: number;
  /** Set between PrepareMerge and its end: the target as it was. */
  mergeTarget: Region | undefined;
  /** Peers without data yet. */
  readonly pending: Set<PeerId>;
}

export interface ModelStore {
  readonly id: StoreId;
  /** Undefined while it runs. */
  downSinceMs: number | undefined;
  /** Its disk is gone: it never comes back. */
  isGone: boolean;
}

const isVoting = ({ role }: Peer): boolean => role !== 'learner';

/** Voters of the new and of the old configuration; the same list twice unless the region is joint. */
function halves(peers: readonly Peer[]): readonly (readonly Peer[])[] {
  return [
    peers.filter(({ role }) => role === 'voter' || role === 'incoming-voter'),
    peers.filter(({ role }) => role === 'voter' || role === 'demoting-voter'),
  ];
}

export class PdModel {
  readonly regions: Map<RegionId, ModelRegion> = new Map();
  readonly stores: Map<StoreId, ModelStore> = new Map();
  /** Told of every region whose descriptor or leader changed. */
  onChange: (region: ModelRegion) => void = () => undefined;

  addStore(id: StoreId): void {
    this.stores.set(id, { id, downSinceMs: undefined, isGone: false });
  }

  found(region: Region): void {
    const [peer] = region.peers;
    if (peer === undefined) {
      throw new WorldError('crash', 'the first region has no peer');
    }
    this.regions.set(region.id, {
      region,
      leaderId: peer.id,
      term: 5,
      mergeTarget: undefined,
      pending: new Set(),
    });
  }

  get(id: RegionId): ModelRegion | undefined {
    return this.regions.get(id);
  }

  /** Regions in key order. */
  inOrder(): ModelRegion[] {
    return [...this.regions.values()].sort((x, y) => compareBytes(x.region.range.start, y.region.range.start));
  }

  isUp(store: StoreId): boolean {
    const info = this.stores.get(store);
    return info !== undefined && !info.isGone && info.downSinceMs === undefined;
  }

  leaderOf({ region, leaderId }: ModelRegion): Peer | undefined {
    return region.peers.find(({ id }) => id === leaderId);
  }

  /** A majority of both configurations runs and has data. */
  hasQuorum({ region, pending }: ModelRegion): boolean {
    return halves(region.peers).every(
      (half) => half.filter((p) => this.isUp(p.storeId) && !pending.has(p.id)).length * 2 > half.length,
    );
  }

  /** Whether the region can change now: led by a running store that reaches a majority. */
  canAct(truth: ModelRegion): boolean {
    const leader = this.leaderOf(truth);
    return leader !== undefined && this.isUp(leader.storeId) && this.hasQuorum(truth);
  }

  /** Another peer takes over, as after an election; false if nobody can. */
  elect(truth: ModelRegion, choice: number): boolean {
    if (!this.hasQuorum(truth)) {
      return false;
    }
    const able = truth.region.peers.filter((p) => isVoting(p) && this.isUp(p.storeId) && !truth.pending.has(p.id));
    const next = able[choice % Math.max(1, able.length)];
    if (next === undefined) {
      return false;
    }
    truth.leaderId = next.id;
    truth.term++;
    this.onChange(truth);
    return true;
  }

  heartbeat(truth: ModelRegion, nowMs: number, maxPeerDownMs: number): RegionHeartbeat | undefined {
    const leader = this.leaderOf(truth);
    if (leader === undefined) {
      return undefined;
    }
    const { peers } = truth.region;
    const downFor = (peer: Peer): number => {
      const store = this.stores.get(peer.storeId);
      return store?.downSinceMs === undefined ? 0 : nowMs - store.downSinceMs;
    };
    return {
      region: truth.region,
      leader,
      term: term(truth.term),
      downPeers: peers
        .filter((peer) => downFor(peer) > maxPeerDownMs)
        .map((peer) => ({ peer, downSeconds: Math.floor(downFor(peer) / 1000) })),
      pendingPeers: peers.filter(({ id }) => truth.pending.has(id)),
      approximateSizeBytes: 1024 * 1024,
      approximateKeys: 10,
      bytesWritten: 0,
      keysWritten: 0,
      bytesRead: 0,
      keysRead: 0,
      merging: truth.mergeTarget !== undefined,
      intervalStartSeconds: 0,
      intervalEndSeconds: 1,
    };
  }

  // ------------------------------------------------------------------------------------------ changes

  transfer(truth: ModelRegion, to: PeerId): boolean {
    const peer = truth.region.peers.find(({ id }) => id === to);
    if (peer === undefined || !isVoting(peer) || !this.isUp(peer.storeId) || truth.pending.has(peer.id)) {
      return false;
    }
    truth.leaderId = to;
    truth.term++;
    this.onChange(truth);
    return true;
  }

  /** Carries out membership changes as a leader would; false if it refuses. */
  change(truth: ModelRegion, confVer: number, changes: readonly PeerChange[]): boolean {
    const { region } = truth;
    if (confVer !== region.epoch.confVer || truth.mergeTarget !== undefined) {
      return false;
    }
    if (changes.length === 0) {
      return this.#leaveJoint(truth);
    }
    if (isInJointState(region)) {
      return false;
    }
    const isJoint = changes.length > 1;
    let peers = [...region.peers];
    for (const change of changes) {
      const next = this.#changed(truth, peers, change, isJoint);
      if (next === undefined) {
        return false;
      }
      peers = next;
    }
    // Leaders refuse what would leave them without a majority that answers.
    if (!peers.some(isVoting) || !this.hasQuorum({ ...truth, region: { ...region, peers } })) {
      return false;
    }
    for (const { id } of peers) {
      if (region.peers.every((old) => old.id !== id)) {
        truth.pending.add(id);
      }
    }
    this.#install(truth, peers, changes.length);
    return true;
  }

  #changed(
    truth: ModelRegion,
    peers: readonly Peer[],
    { type, peer }: PeerChange,
    isJoint: boolean,
  ): Peer[] | undefined {
    const present = findPeerOnStore({ ...truth.region, peers }, peer.storeId);
    const others = peers.filter((p) => p !== present);
    if (type === 'remove') {
      // A leader does not remove itself, nor another peer than the one that was meant.
      return present?.id === peer.id && present.id !== truth.leaderId ? others : undefined;
    }
    if (present !== undefined && present.id !== peer.id) {
      return undefined;
    }
    if (type === 'add-voter') {
      return present?.role === 'voter'
        ? undefined
        : [...others, { ...peer, role: isJoint ? 'incoming-voter' : 'voter' }];
    }
    if (present === undefined) {
      return [...others, { ...peer, role: 'learner' }];
    }
    // Demoting without a joint configuration is refused by leaders for themselves.
    if (present.role !== 'voter' || (!isJoint && present.id === truth.leaderId)) {
      return undefined;
    }
    return [...others, { ...peer, role: isJoint ? 'demoting-voter' : 'learner' }];
  }

  #leaveJoint(truth: ModelRegion): boolean {
    const { region } = truth;
    if (!isInJointState(region) || this.leaderOf(truth)?.role === 'demoting-voter') {
      return false;
    }
    const changed = region.peers.filter((p) => p.role === 'incoming-voter' || p.role === 'demoting-voter').length;
    const peers = region.peers.map((p): Peer => {
      const role = p.role === 'incoming-voter' ? 'voter' : p.role === 'demoting-voter' ? 'learner' : p.role;
      return { ...p, role };
    });
    this.#install(truth, peers, changed);
    return true;
  }

  #install(truth: ModelRegion, peers: readonly Peer[], confVerBy: number): void {
    const { region } = truth;
    truth.region = {
      ...region,
      peers,
      epoch: { ...region.epoch, confVer: region.epoch.confVer + confVerBy },
    };
    for (const id of truth.pending) {
      if (peers.every((p) => p.id !== id)) {
        truth.pending.delete(id);
      }
    }
    this.onChange(truth);
  }

  /** A new replica has its data. */
  caughtUp(truth: ModelRegion, id: PeerId): void {
    if (truth.pending.delete(id)) {
      this.onChange(truth);
    }
  }

  /** The parent keeps the rightmost part. Answers the parts, or undefined if the region has changed or refuses. */
  split(asked: Region, keys: readonly Uint8Array[], ids: readonly SplitIds[]): Region[] | undefined {
    const truth = this.regions.get(asked.id);
    if (
      truth === undefined ||
      truth.mergeTarget !== undefined ||
      !epochsEqual(truth.region.epoch, asked.epoch) ||
      !this.canAct(truth)
    ) {
      return undefined;
    }
    const { region } = truth;
    const epoch = { ...region.epoch, version: region.epoch.version + keys.length };
    const leaderAt = region.peers.findIndex(({ id }) => id === truth.leaderId);
    let { start } = region.range;
    const parts: Region[] = [];
    for (const [n, key] of keys.entries()) {
      const given = ids[n] as SplitIds;
      const peers = region.peers.map((peer, i) => ({ ...peer, id: given.newPeerIds[i] as PeerId }));
      const child: Region = { id: given.newRegionId, range: { start, end: key }, epoch, peers };
      const pending = new Set<PeerId>();
      region.peers.forEach((peer, i) => {
        if (truth.pending.has(peer.id)) {
          pending.add((peers[i] as Peer).id);
        }
      });
      this.regions.set(child.id, {
        region: child,
        leaderId: (peers[leaderAt] as Peer).id,
        term: 5,
        mergeTarget: undefined,
        pending,
      });
      parts.push(child);
      start = key;
    }
    truth.region = { ...region, range: { start, end: region.range.end }, epoch };
    for (const { id } of [...parts, truth.region]) {
      this.onChange(this.regions.get(id) as ModelRegion);
    }
    return [...parts, truth.region];
  }

  prepareMerge(truth: ModelRegion, epoch: Region['epoch'], target: Region): boolean {
    const other = this.regions.get(target.id);
    const { region } = truth;
    const isAligned =
      other !== undefined &&
      region.peers.length === other.region.peers.length &&
      region.peers.every((p) => findPeerOnStore(other.region, p.storeId)?.role === p.role);
    if (
      other === undefined ||
      !isAligned ||
      truth.mergeTarget !== undefined ||
      isInJointState(region) ||
      truth.pending.size > 0 ||
      !epochsEqual(epoch, region.epoch) ||
      !epochsEqual(other.region.epoch, target.epoch)
    ) {
      return false;
    }
    truth.region = { ...region, epoch: { confVer: region.epoch.confVer + 1, version: region.epoch.version + 1 } };
    truth.mergeTarget = target;
    this.onChange(truth);
    return true;
  }

  /** A prepared merge goes on: the target takes the source's range over, or the source goes on alone. */
  finishMerge(source: ModelRegion): 'committed' | 'rolled-back' | 'waits' {
    const { mergeTarget } = source;
    if (mergeTarget === undefined || this.regions.get(source.region.id) !== source) {
      return 'rolled-back';
    }
    const target = this.regions.get(mergeTarget.id);
    if (
      target !== undefined &&
      target.mergeTarget === undefined &&
      epochsEqual(target.region.epoch, mergeTarget.epoch)
    ) {
      if (!this.canAct(target)) {
        return 'waits';
      }
      const isLeft = compareBytes(source.region.range.start, target.region.range.start) < 0;
      target.region = {
        ...target.region,
        range: isLeft
          ? { start: source.region.range.start, end: target.region.range.end }
          : { start: target.region.range.start, end: source.region.range.end },
        epoch: {
          ...target.region.epoch,
          version: Math.max(source.region.epoch.version, target.region.epoch.version) + 1,
        },
      };
      this.regions.delete(source.region.id);
      this.onChange(target);
      return 'committed';
    }
    if (!this.canAct(source)) {
      return 'waits';
    }
    const { epoch } = source.region;
    source.region = { ...source.region, epoch: { ...epoch, version: epoch.version + 1 } };
    source.mergeTarget = undefined;
    this.onChange(source);
    return 'rolled-back';
  }
}

/** The first region of a cluster, with one peer. */
export const firstModelRegion = (id: number, peer: number, store: StoreId): Region => ({
  id: regionId(id),
  range: FULL_RANGE,
  epoch: { confVer: 1, version: 1 },
  peers: [{ id: peerId(peer), storeId: store, role: 'voter' }],
});
