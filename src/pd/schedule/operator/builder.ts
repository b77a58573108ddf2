/**
 * Plans the steps that bring a region from its peers to any other set of peers (tikv/pd
 * pkg/schedule/operator/builder.go). The number of voters never falls below the smaller of the old and the new number,
 * and the leader is always a voter. With a joint step every intermediate membership keeps a quorum of the old or of the
 * new voters; one by one, each step changes a single voter. Pure: nothing is started.
 */
import { assert } from '../../../base/assert.ts';
import type { PeerId, StoreId } from '../../../base/ids.ts';
import { type Peer, findPeerOnStore, isInJointState } from '../../../meta/region.ts';
import type { RegionInfo } from '../../cluster/region-info.ts';
import { type Result, ok, refuse, refused } from '../verdict.ts';
import type { PeerRef, Step } from './step.ts';

export type WantedRole = 'voter' | 'learner';

/** What the planner must know of the world. */
export interface BuilderView {
  /** A fresh peer id; undefined when none is available at once. */
  takePeerId(): PeerId | undefined;
  /** Whether the store may receive a leader now. */
  mayLead(store: StoreId): boolean;
  /** Leaders on the store, to spread them. */
  leaderCount(store: StoreId): number;
  /** Distance of two stores along the location labels; 0 = same place. */
  distance(a: StoreId, b: StoreId): number;
}

export interface BuildRequest {
  readonly region: RegionInfo;
  /** Wanted peers, store by store. Peers on stores not named here are removed. */
  readonly wanted: ReadonlyMap<StoreId, WantedRole>;
  /** Where the leader shall end up; undefined lets the planner choose, keeping it where it is if possible. */
  readonly leader?: StoreId;
  /** Change several peers in one joint step. */
  readonly joint: boolean;
}

interface Plan {
  readonly adds: readonly { readonly ref: PeerRef; readonly role: WantedRole }[];
  readonly removes: readonly Peer[];
  readonly promotes: readonly PeerRef[];
  readonly demotes: readonly PeerRef[];
  readonly originLeader: StoreId | undefined;
  readonly finalLeader: StoreId;
}

const byStore = (a: { readonly storeId: StoreId }, b: { readonly storeId: StoreId }): number => a.storeId - b.storeId;
const refOf = (peer: Peer): PeerRef => ({ storeId: peer.storeId, peerId: peer.id });

/** The steps, none if the region is already as wanted. */
export function buildSteps(request: BuildRequest, view: BuilderView): Result<Step[]> {
  const { region } = request.region;
  if (isInJointState(region)) {
    return refused(
      refuse('JointState', `region ${region.id} is between two memberships`, 'wait until it has left the joint state', {
        region_id: region.id,
      }),
    );
  }
  if (![...request.wanted.values()].includes('voter')) {
    return refused(
      refuse('LastVoter', `region ${region.id} would have no voter left`, 'keep at least one voting replica', {
        region_id: region.id,
      }),
    );
  }
  const planned = plan(request, view);
  if (planned.type === 'refused') {
    return planned;
  }
  return ok(usesJoint(request, planned.value) ? jointSteps(planned.value) : singleSteps(planned.value, view));
}

function plan(request: BuildRequest, view: BuilderView): Result<Plan> {
  const { region } = request.region;
  const adds: { ref: PeerRef; role: WantedRole }[] = [];
  for (const [store, role] of [...request.wanted].sort(([a], [b]) => a - b)) {
    if (findPeerOnStore(region, store) === undefined) {
      const id = view.takePeerId();
      if (id === undefined) {
        return refused(refuse('IdsExhausted', 'no ids are reserved at the moment', 'try again in a moment'));
      }
      adds.push({ ref: { storeId: store, peerId: id }, role });
    }
  }
  const removes = region.peers.filter((peer) => !request.wanted.has(peer.storeId)).sort(byStore);
  const promotes: PeerRef[] = [];
  const demotes: PeerRef[] = [];
  for (const peer of [...region.peers].sort(byStore)) {
    const wanted = request.wanted.get(peer.storeId);
    if (wanted === 'voter' && peer.role === 'learner') {
      promotes.push(refOf(peer));
    } else if (wanted === 'learner' && peer.role === 'voter') {
      demotes.push(refOf(peer));
    }
  }
  const originLeader = request.region.leader?.storeId;
  const finalLeader = request.leader ?? chooseLeader(request, view, originLeader);
  if (finalLeader === undefined || request.wanted.get(finalLeader) !== 'voter') {
    return refused(
      refuse(
        'NoLeaderCandidate',
        `no store could lead region ${region.id} afterwards`,
        'check that the stores are up',
        {
          region_id: region.id,
        },
      ),
    );
  }
  return ok({ adds, removes, promotes, demotes, originLeader, finalLeader });
}

/** Current leader first, then voters of today, then the store with the fewest leaders, then the smallest id. */
function chooseLeader(request: BuildRequest, view: BuilderView, origin: StoreId | undefined): StoreId | undefined {
  const candidates = [...request.wanted]
    .filter(([store, role]) => role === 'voter' && (store === origin || view.mayLead(store)))
    .map(([store]) => store);
  const rank = (store: StoreId): readonly number[] => {
    const peer = findPeerOnStore(request.region.region, store);
    return [
      store === origin ? 0 : 1,
      peer?.role === 'voter' ? 0 : 1,
      peer === undefined ? 1 : 0,
      view.leaderCount(store),
      store,
    ];
  };
  return candidates.sort((a, b) => compareRanks(rank(a), rank(b)))[0];
}

function compareRanks(a: readonly number[], b: readonly number[]): number {
  for (const [i, value] of a.entries()) {
    const difference = value - (b[i] as number);
    if (difference !== 0) {
      return difference;
    }
  }
  return 0;
}

/** One change needs no joint state, except shrinking to a single peer (tikv/pd issues 4411 and 4412). */
function usesJoint(request: BuildRequest, p: Plan): boolean {
  if (!request.joint) {
    return false;
  }
  const changes = p.adds.length + p.removes.length + p.promotes.length;
  if (changes > 1 || p.demotes.length > 0) {
    return true;
  }
  return p.removes.length === 1 && request.wanted.size === 1;
}

function jointSteps(p: Plan): Step[] {
  const steps: Step[] = [];
  const promotes = [...p.promotes];
  for (const add of p.adds) {
    steps.push({ type: 'add-learner', ...add.ref });
    if (add.role === 'voter') {
      promotes.push(add.ref);
    }
  }
  // Removed voters become learners first, so that the membership changes at one point of the log.
  const demotes = [...p.demotes, ...p.removes.filter((peer) => peer.role === 'voter').map(refOf)];
  promotes.sort(byStore);
  demotes.sort(byStore);
  const [enter, leave] = jointPair(promotes, demotes);
  const moves = p.originLeader !== p.finalLeader;
  const transfer: Step = { type: 'transfer-leader', toStore: p.finalLeader, candidates: [] };
  const leaderIsPromoted = promotes.some((ref) => ref.storeId === p.finalLeader);
  const originStays = p.originLeader === undefined || !demotes.some((ref) => ref.storeId === p.originLeader);
  if (!leaderIsPromoted) {
    steps.push(...(moves ? [transfer] : []), ...enter, ...leave);
  } else if (originStays) {
    steps.push(...enter, ...leave, ...(moves ? [transfer] : []));
  } else {
    assert(leave.length > 0, 'a leader that leaves and one that comes are two changes');
    steps.push(...enter, transfer, ...leave);
  }
  for (const peer of p.removes) {
    steps.push({ type: 'remove-peer', storeId: peer.storeId, peerId: peer.id });
  }
  return steps;
}

/** Steps into and out of the joint state; a lone change is made directly and needs no way out. */
function jointPair(promotes: readonly PeerRef[], demotes: readonly PeerRef[]): [Step[], Step[]] {
  const [promoted] = promotes;
  const changes = promotes.length + demotes.length;
  if (changes === 0) {
    return [[], []];
  }
  if (changes === 1) {
    return [
      [promoted !== undefined ? { type: 'promote-learner', ...promoted } : { type: 'enter-joint', promotes, demotes }],
      [],
    ];
  }
  return [[{ type: 'enter-joint', promotes, demotes }], [{ type: 'leave-joint', promotes, demotes }]];
}

/** Collects steps one by one and remembers where the leader is by then. */
class SingleStepWriter {
  readonly steps: Step[] = [];
  leader: StoreId | undefined;

  constructor(leader: StoreId | undefined) {
    this.leader = leader;
  }

  add(add: Plan['adds'][number]): void {
    this.steps.push({ type: 'add-learner', ...add.ref });
    if (add.role === 'voter') {
      this.steps.push({ type: 'promote-learner', ...add.ref });
    }
  }

  leadFrom(store: StoreId): void {
    if (this.leader !== store) {
      this.steps.push({ type: 'transfer-leader', toStore: store, candidates: [] });
      this.leader = store;
    }
  }

  remove(peer: Peer, finalLeader: StoreId): void {
    if (this.leader === peer.storeId) {
      this.leadFrom(finalLeader);
    }
    this.steps.push({ type: 'remove-peer', storeId: peer.storeId, peerId: peer.id });
  }
}

type Add = Plan['adds'][number];

/**
 * First everything that adds voters, then replacements, each adding before it removes, then what takes voters away.
 * The final leader becomes a voter before anyone leaves, so that leadership can go there whenever it has to.
 */
function singleSteps(p: Plan, view: BuilderView): Step[] {
  const out = new SingleStepWriter(p.originLeader);
  const { pairs, adds, removes } = pairUp(p, view);
  const isFinal = (store: StoreId): number => (store === p.finalLeader ? 0 : 1);
  for (const ref of p.promotes) {
    out.steps.push({ type: 'promote-learner', ...ref });
  }
  for (const add of adds.sort((a, b) => isFinal(a.ref.storeId) - isFinal(b.ref.storeId) || byStore(a.ref, b.ref))) {
    out.add(add);
  }
  for (const pair of pairs.sort(
    (a, b) => isFinal(a.add.ref.storeId) - isFinal(b.add.ref.storeId) || byStore(a.add.ref, b.add.ref),
  )) {
    out.add(pair.add);
    out.remove(pair.removed, p.finalLeader);
  }
  for (const ref of p.demotes) {
    if (out.leader === ref.storeId) {
      out.leadFrom(p.finalLeader);
    }
    out.steps.push({ type: 'enter-joint', promotes: [], demotes: [ref] });
  }
  for (const peer of removes) {
    out.remove(peer, p.finalLeader);
  }
  out.leadFrom(p.finalLeader);
  return out.steps;
}

/** Pairs every removed peer with the nearest added one of its role; answers the rest, too. */
function pairUp(
  p: Plan,
  view: BuilderView,
): { readonly pairs: { readonly add: Add; readonly removed: Peer }[]; readonly adds: Add[]; readonly removes: Peer[] } {
  const pairs: { readonly add: Add; readonly removed: Peer }[] = [];
  const adds = [...p.adds];
  const removes: Peer[] = [];
  for (const removed of p.removes) {
    const [nearest] = adds
      .filter((add) => add.role === removed.role)
      .sort((a, b) => view.distance(removed.storeId, a.ref.storeId) - view.distance(removed.storeId, b.ref.storeId));
    if (nearest === undefined) {
      removes.push(removed);
    } else {
      adds.splice(adds.indexOf(nearest), 1);
      pairs.push({ add: nearest, removed });
    }
  }
  return { pairs, adds, removes };
}
