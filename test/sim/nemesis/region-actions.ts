/**
 * What an operator or the placement service would ask of regions: splits, merges, moves, membership changes and forced
 * compaction. Each action is one step; refusals are part of the game and are counted by their code.
 */
import { utf8 } from '../../../src/base/bytes.ts';
import { peerId, storeId } from '../../../src/base/ids.ts';
import { isLeftNeighbour, rangeContains } from '../../../src/base/key-range.ts';
import type { PeerChange } from '../../../src/meta/heartbeat.ts';
import { findPeerOnStore, isInJointState, type Peer, type Region } from '../../../src/meta/region.ts';
import type { AdminRequestBody } from '../../../src/raftstore/msg.ts';
import { keyName, type NemesisAction } from '../case.ts';
import { pick, type NemesisHost } from './host.ts';

interface Order {
  /** As the one who gave the order knew it. */
  readonly region: Region;
  readonly body: AdminRequestBody;
}

/** Orders that may be given a second time. */
const ORDERS_KEPT = 30;
/** Steps towards a merge after the first, and the time between two. */
const MERGE_STEPS = 4;
const MERGE_STEP_MS = 120;

const touches = (a: Region, b: Region): boolean =>
  isLeftNeighbour(a.range, b.range) || isLeftNeighbour(b.range, a.range);

export class RegionActions {
  readonly #host: NemesisHost;
  readonly #orders: Order[] = [];

  constructor(host: NemesisHost) {
    this.#host = host;
  }

  /** False if the action is not about regions. */
  act(action: NemesisAction): boolean {
    const { cluster, config } = this.#host;
    const { kind, a, b, c } = action;
    const regions = this.#host.leaders();
    const region = pick(regions, a);
    switch (kind) {
      case 'split':
        if (regions.length > 0 && regions.length < config.regionsMax) {
          const key = keyName(b % config.keys);
          const owner = regions.find((r) => rangeContains(r.range, utf8(key)));
          if (owner !== undefined) {
            const first = utf8(c % 4 === 0 ? `${key}\u0000` : key);
            this.#order(owner.id, { type: 'split', keys: [first, ...this.#furtherKeys(owner, b, c)] }, kind);
          }
        }
        return true;
      case 'merge': {
        const pairs: (readonly [Region, Region])[] = [];
        for (const x of regions) {
          for (const y of regions) {
            if (isLeftNeighbour(x.range, y.range)) {
              pairs.push([x, y], [y, x]);
            }
          }
        }
        const pair = pick(pairs, b);
        if (pair !== undefined) {
          this.#mergeStep(pair[0], pair[1]);
          const isMirrored = c % 6 === 0;
          if (isMirrored) {
            this.#mergeStep(pair[1], pair[0]);
          } else if (c % 3 !== 0) {
            this.#goOnMerging(pair[0].id, pair[1].id, MERGE_STEPS);
          }
        }
        return true;
      }
      case 'retarget': {
        // Changes a region that may be the target of a merge in flight.
        const merging = cluster.describe().includes('merging') ? regions : [];
        const victim = pick(merging, b);
        if (victim !== undefined) {
          if (c % 2 === 0) {
            this.#order(victim.id, { type: 'split', keys: [utf8(keyName(c % config.keys))] }, kind);
          } else {
            this.#moveStep(victim, b, c);
          }
        }
        return true;
      }
      case 'repeat-order': {
        const order = pick(this.#orders, b);
        if (order !== undefined) {
          this.#repeat(order);
        }
        return true;
      }
      case 'transfer': {
        const peer = region === undefined ? undefined : pick(region.peers, b);
        if (region !== undefined && peer !== undefined) {
          this.#order(region.id, { type: 'transfer-leader', peer }, kind);
        }
        return true;
      }
      case 'move':
        if (region !== undefined) {
          this.#moveStep(region, b, c);
        }
        return true;
      case 'learner':
        if (region !== undefined) {
          const learner = region.peers.find((p) => p.role === 'learner');
          if (learner !== undefined && b % 2 === 0) {
            this.#order(
              region.id,
              { type: 'change-peer', changes: [{ type: 'remove', peer: learner }] },
              'remove-learner',
            );
          } else {
            this.#addLearner(region, b);
          }
        }
        return true;
      case 'joint':
        if (region !== undefined) {
          this.#jointStep(region, b, c);
        }
        return true;
      case 'leave-joint':
        for (const joint of regions.filter(isInJointState)) {
          this.#order(joint.id, { type: 'change-peer', changes: [] }, kind);
        }
        return true;
      case 'compact': {
        const leader = region === undefined ? undefined : cluster.leaderStore(region.id);
        const status =
          leader === undefined
            ? undefined
            : cluster
                .store(leader)
                .status()
                .find((s) => s.region.id === region?.id);
        if (region !== undefined && status !== undefined && status.appliedIndex > status.firstIndex + 1) {
          this.#order(region.id, { type: 'compact-log', index: status.appliedIndex - 1 - (b % 3) }, kind);
        }
        return true;
      }
      case 'check-hash':
        // Every replica computes a digest at the same index; one that differs would stop its store.
        if (region !== undefined) {
          this.#host.fire(region.id, { type: 'compute-hash' }, kind);
        }
        return true;
      case 'pd-step': {
        // A step as the placement service sends it, perhaps outdated; a refusal is told in a report.
        const leader = region === undefined ? undefined : cluster.leaderStore(region.id);
        const peer = region === undefined ? undefined : pick(region.peers, b);
        if (region !== undefined && leader !== undefined && peer !== undefined) {
          const { epoch } = region;
          const isOld = c % 2 === 0;
          cluster.store(leader).onStep({
            regionId: region.id,
            epoch: isOld ? { ...epoch, version: Math.max(1, epoch.version - 1) } : epoch,
            targetPeer: findPeerOnStore(region, storeId(leader)) ?? peer,
            step:
              c % 3 === 0
                ? { type: 'transfer-leader', peer, candidates: [peer] }
                : { type: 'change-peer', change: { type: 'add-voter', peer } },
          });
          this.#host.count(kind);
        }
        return true;
      }
      default:
        return false;
    }
  }

  /** A third of the splits make more than one new region. */
  #furtherKeys(owner: Region, b: number, c: number): Uint8Array[] {
    const { keys } = this.#host.config;
    const first = b % keys;
    const steps = c % 3 === 0 ? [1 + ((c >>> 4) % 3), 4 + ((c >>> 8) % 3)] : [];
    return steps
      .map((step) => first + step)
      .filter((n) => n < keys && rangeContains(owner.range, utf8(keyName(n))))
      .map((n) => utf8(keyName(n)));
  }

  #order(region: number, body: AdminRequestBody, action: string): void {
    const known = this.#host.cluster.region(region);
    if (known !== undefined) {
      this.#orders.push({ region: known, body });
      if (this.#orders.length > ORDERS_KEPT) {
        this.#orders.shift();
      }
    }
    this.#host.fire(region, body, action);
  }

  /** As a placement service does that did not hear the answer, or that came back with an old plan: in its old epoch. */
  #repeat({ region, body }: Order): void {
    const { cluster } = this.#host;
    const leader = cluster.leaderStore(region.id);
    if (leader !== undefined) {
      cluster.store(leader).admin({
        regionId: region.id,
        epoch: region.epoch,
        body,
        respond: (outcome) => this.#host.count(`repeat-order:${outcome.type}`),
      });
    }
  }

  #addLearner(region: Region, b: number): void {
    const free = [...this.#host.cluster.machines.keys()].filter((id) => findPeerOnStore(region, id) === undefined);
    const target = free[b % Math.max(1, free.length)];
    if (target !== undefined && region.peers.length < 5 && !isInJointState(region)) {
      const peer: Peer = { id: peerId(this.#host.cluster.nextId()), storeId: target, role: 'learner' };
      this.#order(region.id, { type: 'change-peer', changes: [{ type: 'add-learner', peer }] }, 'add-learner');
    }
  }

  /** One random step of moving a region: add a learner, promote one, or remove a peer. */
  #moveStep(region: Region, b: number, c: number): void {
    if (isInJointState(region)) {
      this.#order(region.id, { type: 'change-peer', changes: [] }, 'leave-joint');
      return;
    }
    const learner = region.peers.find((p) => p.role === 'learner');
    if (learner !== undefined && c % 4 !== 0) {
      this.#order(
        region.id,
        { type: 'change-peer', changes: [{ type: 'add-voter', peer: { ...learner, role: 'voter' } }] },
        'promote',
      );
      return;
    }
    if (region.peers.length <= 3 && learner === undefined) {
      this.#addLearner(region, b);
      return;
    }
    const leader = this.#host.cluster.leaderStore(region.id);
    const removable = region.peers.filter(
      (p) => (p.storeId !== leader || c % 5 === 0) && (region.peers.length > 3 || p.role === 'learner'),
    );
    const victim = removable[b % Math.max(1, removable.length)];
    if (victim !== undefined) {
      this.#order(region.id, { type: 'change-peer', changes: [{ type: 'remove', peer: victim }] }, 'remove-peer');
    }
  }

  /** Replaces or exchanges peers at once through a joint configuration. */
  #jointStep(region: Region, b: number, c: number): void {
    if (isInJointState(region)) {
      this.#order(region.id, { type: 'change-peer', changes: [] }, 'leave-joint');
      return;
    }
    const learner = region.peers.find((p) => p.role === 'learner');
    const voters = region.peers.filter((p) => p.role === 'voter');
    const out = voters[b % Math.max(1, voters.length)];
    if (learner === undefined || out === undefined) {
      this.#addLearner(region, b);
      return;
    }
    const leaving: PeerChange =
      c % 2 === 0 ? { type: 'add-learner', peer: { ...out, role: 'learner' } } : { type: 'remove', peer: out };
    this.#order(
      region.id,
      { type: 'change-peer', changes: [{ type: 'add-voter', peer: { ...learner, role: 'voter' } }, leaving] },
      'joint',
    );
  }

  /** As the placement service does: step after step until the source is gone, the pair changed, or patience ends. */
  #goOnMerging(source: number, target: number, steps: number): void {
    this.#host.soon(MERGE_STEP_MS, () => {
      const regions = this.#host.leaders();
      const from = regions.find(({ id }) => id === source);
      const into = regions.find(({ id }) => id === target);
      if (from !== undefined && into !== undefined && touches(from, into)) {
        this.#mergeStep(from, into);
      }
      if (steps > 1) {
        this.#goOnMerging(source, target, steps - 1);
      }
    });
  }

  /** Proposes the merge if both regions have the same replicas, else goes one step towards that. */
  #mergeStep(source: Region, target: Region): void {
    const { cluster } = this.#host;
    const isAligned =
      source.peers.length === target.peers.length &&
      source.peers.every((p) => findPeerOnStore(target, p.storeId)?.role === p.role);
    if (isAligned) {
      this.#order(source.id, { type: 'merge', target }, 'merge');
      return;
    }
    const missing = target.peers.find((p) => findPeerOnStore(source, p.storeId) === undefined);
    if (missing !== undefined) {
      const peer: Peer = { id: peerId(cluster.nextId()), storeId: missing.storeId, role: 'learner' };
      this.#order(source.id, { type: 'change-peer', changes: [{ type: 'add-learner', peer }] }, 'align');
      return;
    }
    const learner = source.peers.find(
      (p) => p.role === 'learner' && findPeerOnStore(target, p.storeId)?.role === 'voter',
    );
    if (learner !== undefined) {
      this.#order(
        source.id,
        { type: 'change-peer', changes: [{ type: 'add-voter', peer: { ...learner, role: 'voter' } }] },
        'align',
      );
      return;
    }
    const extra = source.peers.find((p) => findPeerOnStore(target, p.storeId) === undefined);
    if (extra === undefined) {
      return;
    }
    if (cluster.leaderStore(source.id) === extra.storeId) {
      const other = source.peers.find((p) => p.role === 'voter' && p !== extra);
      if (other !== undefined) {
        this.#order(source.id, { type: 'transfer-leader', peer: other }, 'align');
      }
    } else {
      this.#order(source.id, { type: 'change-peer', changes: [{ type: 'remove', peer: extra }] }, 'align');
    }
  }
}
