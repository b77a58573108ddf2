/**
 * Makes operators: turns a wish ("move", "merge", "repair by replacing") into steps for the region as it is known now.
 * Every wish that cannot be met is refused with a reason; nothing is started here.
 */
import { compareBytes } from '../../../base/bytes.ts';
import { type PeerId, type StoreId, peerId } from '../../../base/ids.ts';
import { equalBytes } from '../../../base/bytes.ts';
import { rangeContains } from '../../../base/key-range.ts';
import { type Region, findPeerOnStore, isInJointState } from '../../../meta/region.ts';
import type { Cluster } from '../../cluster/cluster.ts';
import { type RegionInfo, isDown, isPending, votersOf } from '../../cluster/region-info.ts';
import { distance } from '../../cluster/store-info.ts';
import { checkLeaderTarget, checkPeerTarget } from '../filter/store-filter.ts';
import { type Refusal, type Result, ok, refuse, refused } from '../verdict.ts';
import { type WantedRole, buildSteps } from './builder.ts';
import type { OperatorController } from './controller.ts';
import { isAligned } from './merge-pair.ts';
import type { Operator, OperatorKind, OperatorPlan, Priority } from './operator.ts';
import type { PeerRef, Step } from './step.ts';
import type { OperatorGroup } from './waiting-queue.ts';

/** Who makes an operator and how urgent it is. */
export interface Maker {
  readonly name: string;
  readonly kind: OperatorKind;
  readonly priority: Priority;
  /** Given by whoever asked. */
  readonly note?: string;
}

export interface FactoryOptions {
  readonly cluster: Cluster;
  readonly controller: OperatorController;
  readonly nowMs: () => number;
  /** A fresh cluster-wide id; undefined when none is reserved at the moment. */
  readonly takeId: () => number | undefined;
}

/** Split keys taken in one operator at most. */
const SPLIT_KEYS_MAX = 1_024;

/** No operator: the region is already as wished. */
export type Made = OperatorGroup | undefined;

export class OperatorFactory {
  readonly #cluster: Cluster;
  readonly #controller: OperatorController;
  readonly #nowMs: () => number;
  readonly #takeId: () => number | undefined;

  constructor(options: FactoryOptions) {
    this.#cluster = options.cluster;
    this.#controller = options.controller;
    this.#nowMs = options.nowMs;
    this.#takeId = options.takeId;
  }

  /** Replaces the peer on `from` by one on `to` in the same role. */
  move(info: RegionInfo, from: StoreId, to: StoreId, maker: Maker): Result<Made> {
    const peer = findPeerOnStore(info.region, from);
    if (peer === undefined) {
      return refused(peerNotFound(info.region, from));
    }
    if (from === to) {
      return ok(undefined);
    }
    const present = findPeerOnStore(info.region, to);
    if (present !== undefined && (present.role !== 'learner' || peer.role === 'learner')) {
      return refused(peerExists(info.region, to));
    }
    if (present !== undefined && isPending(info, present)) {
      // A learner that an earlier operator left behind may be promoted, but not before it has the data.
      return refused(peerPending(info.region, to));
    }
    const refusal = checkPeerTarget(this.#cluster, to, this.#nowMs());
    if (refusal !== undefined) {
      return refused(refusal);
    }
    const wanted = rolesOf(info.region);
    wanted.delete(from);
    wanted.set(to, peer.role === 'learner' ? 'learner' : 'voter');
    return this.#reshape(info, wanted, `move region ${info.region.id} from store ${from} to store ${to}`, maker);
  }

  addPeer(info: RegionInfo, store: StoreId, role: WantedRole, maker: Maker): Result<Made> {
    const present = findPeerOnStore(info.region, store);
    if (present !== undefined && (present.role === role || role === 'learner')) {
      return refused(peerExists(info.region, store));
    }
    if (present !== undefined && isPending(info, present)) {
      return refused(peerPending(info.region, store));
    }
    const refusal = checkPeerTarget(this.#cluster, store, this.#nowMs());
    if (refusal !== undefined) {
      return refused(refusal);
    }
    const wanted = rolesOf(info.region).set(store, role);
    return this.#reshape(info, wanted, `add ${role} of region ${info.region.id} on store ${store}`, maker);
  }

  removePeer(info: RegionInfo, store: StoreId, maker: Maker): Result<Made> {
    if (findPeerOnStore(info.region, store) === undefined) {
      return refused(peerNotFound(info.region, store));
    }
    const wanted = rolesOf(info.region);
    wanted.delete(store);
    return this.#reshape(info, wanted, `remove peer of region ${info.region.id} from store ${store}`, maker);
  }

  transferLeader(info: RegionInfo, to: StoreId, maker: Maker): Result<Made> {
    const peer = findPeerOnStore(info.region, to);
    if (peer === undefined) {
      return refused(peerNotFound(info.region, to));
    }
    if (info.leader?.storeId === to) {
      return ok(undefined);
    }
    if (peer.role === 'learner' || peer.role === 'demoting-voter') {
      return refused(
        refuse('NotAVoter', `the peer of region ${info.region.id} on store ${to} is a ${peer.role}`, 'choose a voter', {
          region_id: info.region.id,
          store_id: to,
        }),
      );
    }
    if (isDown(info, peer)) {
      return refused(
        refuse('DownPeer', `the peer of region ${info.region.id} on store ${to} is down`, 'choose another store', {
          region_id: info.region.id,
          store_id: to,
        }),
      );
    }
    const refusal = checkLeaderTarget(this.#cluster, to, this.#nowMs());
    if (refusal !== undefined) {
      return refused(refusal);
    }
    if (!this.#cluster.rulesLetLead(info, to)) {
      return refused(
        refuse(
          'RuleBroken',
          `no placement rule lets region ${info.region.id} be led from store ${to}`,
          `choose another store, or look at its rules: braid ctl explain region ${info.region.id}`,
          { region_id: info.region.id, store_id: to },
        ),
      );
    }
    const steps: Step[] = [{ type: 'transfer-leader', toStore: to, candidates: [] }];
    return this.#single(info, steps, ['leader'], `transfer leader of region ${info.region.id} to store ${to}`, maker);
  }

  /** Splits at the given keys; no keys means in the middle. Keys outside the region or at its start are refused. */
  split(info: RegionInfo, keys: readonly Uint8Array[], maker: Maker): Result<Made> {
    const { region } = info;
    const sorted = [...keys].sort(compareBytes);
    const distinct = sorted.filter((key, i) => i === 0 || !equalBytes(key, sorted[i - 1] as Uint8Array));
    if (distinct.length > SPLIT_KEYS_MAX) {
      return refused(refuse('InvalidArgument', `${distinct.length} split keys`, `give at most ${SPLIT_KEYS_MAX} keys`));
    }
    for (const key of distinct) {
      if (!rangeContains(region.range, key) || equalBytes(key, region.range.start) || key.length === 0) {
        return refused(
          refuse(
            'KeyNotInRegion',
            `a split key does not lie inside region ${region.id}`,
            'locate the key to find its region',
            {
              region_id: region.id,
            },
          ),
        );
      }
    }
    const steps: Step[] = [{ type: 'split-region', range: region.range, keys: distinct }];
    const brief = `split region ${region.id} ${distinct.length === 0 ? 'in the middle' : `at ${distinct.length} keys`}`;
    return this.#single(info, steps, ['split'], brief, maker);
  }

  /** Brings the region to exactly these peers. */
  reshape(info: RegionInfo, wanted: ReadonlyMap<StoreId, WantedRole>, brief: string, maker: Maker): Result<Made> {
    return this.#reshape(info, wanted, brief, maker);
  }

  /** Ends a joint state that was left behind. */
  leaveJoint(info: RegionInfo, maker: Maker): Result<Made> {
    const refOf = (peer: { readonly storeId: StoreId; readonly id: PeerId }): PeerRef => ({
      storeId: peer.storeId,
      peerId: peer.id,
    });
    const promotes = info.region.peers.filter((peer) => peer.role === 'incoming-voter').map(refOf);
    const demotes = info.region.peers.filter((peer) => peer.role === 'demoting-voter').map(refOf);
    if (promotes.length + demotes.length === 0) {
      return ok(undefined);
    }
    const steps: Step[] = [];
    if (demotes.some((ref) => ref.storeId === info.leader?.storeId)) {
      const to = this.#leaderAfterJoint(info);
      if (to === undefined) {
        return refused(noCandidate(info.region));
      }
      steps.push({ type: 'transfer-leader', toStore: to, candidates: [] });
    }
    steps.push({ type: 'leave-joint', promotes, demotes });
    return this.#single(info, steps, ['region'], `leave joint state of region ${info.region.id}`, maker);
  }

  /** A usable store first, any remaining voter else: a region must not stay between two memberships (pd issue 5788). */
  #leaderAfterJoint(info: RegionInfo): StoreId | undefined {
    const voters = votersOf(info.region).map((peer) => peer.storeId);
    return voters.find((store) => checkLeaderTarget(this.#cluster, store, this.#nowMs()) === undefined) ?? voters[0];
  }

  /** The two operators of a merge. The caller has made sure that the regions may be merged. */
  merge(source: RegionInfo, target: RegionInfo, maker: Maker): Result<OperatorGroup> {
    for (const info of [source, target]) {
      if (isInJointState(info.region)) {
        return refused(jointState(info.region));
      }
    }
    const kinds = new Set<OperatorKind>(['merge']);
    let align: readonly Step[] = [];
    if (!isAligned(source.region, target.region)) {
      const built = this.#build(source, rolesOf(target.region));
      if (built.type === 'refused') {
        return built;
      }
      align = built.value;
      kindsOf(align).forEach((kind) => kinds.add(kind));
    }
    const brief = `merge region ${source.region.id} into region ${target.region.id}`;
    const ends = { source: source.region, target: target.region };
    const sourceOperator = this.#make({
      ...plan(source, maker, brief, [...kinds]),
      steps: [...align, { type: 'merge-region', ...ends }],
    });
    const targetOperator = this.#make({
      ...plan(target, maker, brief, [...kinds]),
      steps: [{ type: 'merge-region-passive', ...ends }],
    });
    return sourceOperator === undefined || targetOperator === undefined
      ? refused(noIds())
      : ok(this.#controller.pair(sourceOperator, targetOperator));
  }

  #reshape(info: RegionInfo, wanted: ReadonlyMap<StoreId, WantedRole>, brief: string, maker: Maker): Result<Made> {
    if (info.leader === undefined) {
      return refused(noLeader(info.region));
    }
    const built = this.#build(info, wanted);
    if (built.type === 'refused') {
      return built;
    }
    return built.value.length === 0
      ? ok(undefined)
      : this.#single(info, built.value, kindsOf(built.value), brief, maker);
  }

  #build(info: RegionInfo, wanted: ReadonlyMap<StoreId, WantedRole>): Result<Step[]> {
    const cluster = this.#cluster;
    return buildSteps(
      { region: info, wanted, joint: cluster.config.jointConsensus },
      {
        takePeerId: () => {
          const id = this.#takeId();
          return id === undefined ? undefined : peerId(id);
        },
        mayLead: (store) =>
          checkLeaderTarget(cluster, store, this.#nowMs()) === undefined && cluster.rulesLetLead(info, store),
        leaderCount: (store) => cluster.tree.ofStore(store).leaders.size,
        distance: (a, b) => {
          const [first, second] = [cluster.store(a), cluster.store(b)];
          return first === undefined || second === undefined
            ? cluster.config.locationLabels.length
            : distance(first.record.store, second.record.store, cluster.config.locationLabels);
        },
      },
    );
  }

  #single(
    info: RegionInfo,
    steps: readonly Step[],
    kinds: readonly OperatorKind[],
    brief: string,
    maker: Maker,
  ): Result<Made> {
    if (info.leader === undefined) {
      return refused(noLeader(info.region));
    }
    const operator = this.#make({ ...plan(info, maker, brief, [...new Set([maker.kind, ...kinds])]), steps });
    return operator === undefined ? refused(noIds()) : ok([operator]);
  }

  #make(operatorPlan: OperatorPlan): Operator | undefined {
    const id = this.#takeId();
    return id === undefined ? undefined : this.#controller.make(id, operatorPlan);
  }
}

function plan(
  info: RegionInfo,
  maker: Maker,
  brief: string,
  kinds: readonly OperatorKind[],
): Omit<OperatorPlan, 'steps'> {
  return {
    region: info,
    maker: maker.name,
    brief,
    kinds: [...new Set([maker.kind, ...kinds])],
    priority: maker.priority,
    ...(maker.note === undefined ? {} : { note: maker.note }),
  };
}

/** The region's peers as wanted roles; a region between two memberships is refused elsewhere. */
function rolesOf(region: Region): Map<StoreId, WantedRole> {
  return new Map(region.peers.map((peer) => [peer.storeId, peer.role === 'learner' ? 'learner' : 'voter']));
}

function kindsOf(steps: readonly Step[]): OperatorKind[] {
  const kinds = new Set<OperatorKind>();
  for (const step of steps) {
    kinds.add(step.type === 'transfer-leader' ? 'leader' : 'region');
  }
  return [...kinds];
}

const peerNotFound = (region: Region, store: StoreId): Refusal =>
  refuse('PeerNotFound', `region ${region.id} has no peer on store ${store}`, 'show the region to see its peers', {
    region_id: region.id,
    store_id: store,
  });

const peerExists = (region: Region, store: StoreId): Refusal =>
  refuse('PeerExists', `region ${region.id} already has a peer on store ${store}`, 'choose another store', {
    region_id: region.id,
    store_id: store,
  });

const peerPending = (region: Region, store: StoreId): Refusal =>
  refuse(
    'PendingPeer',
    `the learner of region ${region.id} on store ${store} is still catching up`,
    'wait until it caught up',
    { region_id: region.id, store_id: store },
  );

const noLeader = (region: Region): Refusal =>
  refuse('NoLeader', `region ${region.id} has no known leader`, 'wait until its leader has reported', {
    region_id: region.id,
  });

const jointState = (region: Region): Refusal =>
  refuse('JointState', `region ${region.id} is between two memberships`, 'wait until it has left the joint state', {
    region_id: region.id,
  });

const noCandidate = (region: Region): Refusal =>
  refuse('NoLeaderCandidate', `no store could lead region ${region.id} afterwards`, 'check that the stores are up', {
    region_id: region.id,
  });

const noIds = (): Refusal => refuse('IdsExhausted', 'no ids are reserved at the moment', 'try again in a moment');
