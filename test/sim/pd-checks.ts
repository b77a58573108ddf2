/**
 * PD1, watched from outside on a running placement node: what must hold after every act of its logic and for every
 * command it sends. The watcher survives crashes of the node and keeps what it promised: ids, timestamps, owners of ids.
 */
import type { RegionHeartbeatReply, RegionStep } from '../../src/meta/heartbeat.ts';
import { epochsEqual, formatRegion, type Peer, type Region } from '../../src/meta/region.ts';
import type { RegionInfo } from '../../src/pd/cluster/region-info.ts';
import { livenessOf } from '../../src/pd/cluster/store-info.ts';
import type { PdNode } from '../../src/pd/pd-node.ts';
import type { Placement } from '../../src/pd/placement.ts';
import { InvariantError } from './invariants.ts';

const fail = (text: string): never => {
  throw new InvariantError('PD1', text);
};

interface Stamp {
  readonly physical: number;
  readonly logical: number;
}

const stampOrder = (a: Stamp, b: Stamp): number => a.physical - b.physical || a.logical - b.logical;

/** Voters of the configuration that a region is in, or of both while it is joint. */
function votersBySide(peers: readonly Peer[]): readonly (readonly Peer[])[] {
  const incoming = peers.filter(({ role }) => role === 'voter' || role === 'incoming-voter');
  const outgoing = peers.filter(({ role }) => role === 'voter' || role === 'demoting-voter');
  return peers.some(({ role }) => role === 'incoming-voter' || role === 'demoting-voter')
    ? [incoming, outgoing]
    : [incoming];
}

/** What a region's replicas are once a step took effect. */
export function peersAfter(peers: readonly Peer[], step: RegionStep): readonly Peer[] {
  if (step.type === 'change-peer') {
    const { type, peer } = step.change;
    const others = peers.filter(({ storeId }) => storeId !== peer.storeId);
    return type === 'remove' ? others : [...others, { ...peer, role: type === 'add-voter' ? 'voter' : 'learner' }];
  }
  if (step.type !== 'change-peer-joint') {
    return peers;
  }
  if (step.changes.length === 0) {
    return peers.map((p) =>
      p.role === 'incoming-voter'
        ? { ...p, role: 'voter' as const }
        : p.role === 'demoting-voter'
          ? { ...p, role: 'learner' as const }
          : p,
    );
  }
  return step.changes.reduce<readonly Peer[]>((list, { type, peer }) => {
    const old = list.find(({ storeId }) => storeId === peer.storeId);
    const others = list.filter(({ storeId }) => storeId !== peer.storeId);
    if (type === 'remove') {
      return old?.role === 'voter' ? [...others, { ...old, role: 'demoting-voter' }] : others;
    }
    const role =
      type === 'add-voter' ? 'incoming-voter' : old?.role === 'voter' ? 'demoting-voter' : ('learner' as const);
    return [...others, { ...peer, role }];
  }, peers);
}

/** Peers that a step lets vote. */
const promotedBy = (step: RegionStep): readonly Peer[] =>
  (step.type === 'change-peer' ? [step.change] : step.type === 'change-peer-joint' ? step.changes : [])
    .filter(({ type }) => type === 'add-voter')
    .map(({ peer }) => peer);

export class PdChecks {
  /** Checks made, by name. */
  readonly counts: Record<string, number> = {};
  /** Told each command a node sends, before it leaves. */
  onCommand: (reply: RegionHeartbeatReply) => void = () => undefined;
  readonly #idOwners: Map<number, string> = new Map();
  #newestStamp: Stamp | undefined;
  #newestId = 0;
  #ruleVersion = 0;
  readonly #stamps: Set<string> = new Set();
  #node: PdNode | undefined;
  /** The node's own monotonic clock. */
  #nowMs: () => number = () => 0;
  /** The map as it was after the last act: descriptors by region. */
  #known: Map<number, Region> = new Map();

  #count(name: string): void {
    this.counts[name] = (this.counts[name] ?? 0) + 1;
  }

  /**
   * Follows a node that has just been opened. An earlier one is dead: the map may be older again, since descriptors
   * are written in the background.
   */
  attach(node: PdNode, nowMs: () => number): void {
    this.#node = node;
    this.#nowMs = nowMs;
    this.#known = new Map();
    this.#afterAct(node);
    const act = node.act.bind(node);
    node.act = <T>(change: (placement: Placement) => T): T => {
      const result = act(change);
      if (this.#node === node) {
        this.#afterAct(node);
      }
      return result;
    };
    const bindStore = node.bindStore.bind(node);
    node.bindStore = (store, sink) =>
      bindStore(store, (reply) => {
        if (this.#node === node) {
          this.#checkCommand(node, reply);
        }
        this.onCommand(reply);
        return sink(reply);
      });
  }

  detach(): void {
    this.#node = undefined;
  }

  // ------------------------------------------------------------------------------------------ what it promised

  /** A change of the rules was answered: every later one is planned on it. */
  onRuleWritten(version: number): void {
    this.#ruleVersion = Math.max(this.#ruleVersion, version);
    this.#count('rules');
  }

  onRuleVersion(version: number): void {
    if (version < this.#ruleVersion) {
      fail(`placement rules are at version ${version}, and a change to ${this.#ruleVersion} was answered`);
    }
  }

  /** An id was given out: to nobody else, never again. */
  onIds(ids: readonly number[], to: string): void {
    for (const id of ids) {
      const owner = this.#idOwners.get(id);
      if (owner !== undefined) {
        fail(`id ${id} was given to ${owner} and to ${to}`);
      }
      this.#idOwners.set(id, to);
    }
    this.#count('ids');
  }

  /** A question for ids begins: its answer must lie above everything that was answered until now. */
  askIds(): (first: number) => void {
    const before = this.#newestId;
    return (first) => {
      if (first <= before) {
        fail(`id ${first} was given out after id ${before}`);
      }
      this.#newestId = Math.max(this.#newestId, first);
    };
  }

  /** A peer id belongs to one region on one store for ever (G6). */
  #ownPeers(region: Region): void {
    for (const { id, storeId } of region.peers) {
      const owner = `region ${region.id} on store ${storeId}`;
      const known = this.#idOwners.get(-id);
      if (known !== undefined && known !== owner) {
        fail(`peer id ${id} belongs to ${known} and to ${owner}`);
      }
      this.#idOwners.set(-id, owner);
    }
  }

  /** A question for a timestamp begins: its answer must lie behind everything that was answered until now. */
  askStamp(): (answer: Stamp) => void {
    const before = this.#newestStamp;
    return (answer) => {
      const text = `${answer.physical}.${answer.logical}`;
      if (this.#stamps.has(text)) {
        fail(`timestamp ${text} was given out twice`);
      }
      this.#stamps.add(text);
      if (before !== undefined && stampOrder(answer, before) <= 0) {
        fail(`timestamp ${text} came after ${before.physical}.${before.logical}`);
      }
      if (this.#newestStamp === undefined || stampOrder(answer, this.#newestStamp) > 0) {
        this.#newestStamp = answer;
      }
      this.#count('timestamps');
    };
  }

  // ------------------------------------------------------------------------------------------ after every act

  #afterAct(node: PdNode): void {
    this.#checkMap(node.placement);
    this.#checkOperators(node.placement);
  }

  #checkMap({ cluster }: Placement): void {
    let isChanged = cluster.tree.size !== this.#known.size;
    for (const { region } of cluster.tree.values()) {
      const known = this.#known.get(region.id);
      if (known === region) {
        continue;
      }
      isChanged = true;
      if (
        known !== undefined &&
        (region.epoch.version < known.epoch.version || region.epoch.confVer < known.epoch.confVer)
      ) {
        fail(`${formatRegion(known)} was replaced by the older ${formatRegion(region)}`);
      }
      this.#ownPeers(region);
    }
    if (!isChanged) {
      return;
    }
    for (const [id, gone] of this.#known) {
      // Whoever took a region's place must be newer than it.
      if (cluster.tree.get(gone.id) === undefined) {
        const heirs = cluster.tree.overlaps(gone.range);
        if (heirs.length > 0 && !heirs.some(({ region }) => region.epoch.version >= gone.epoch.version)) {
          fail(`${formatRegion(gone)} was displaced by ${heirs.map(({ region }) => formatRegion(region)).join(', ')}`);
        }
        this.#known.delete(id);
      }
    }
    for (const { region } of cluster.tree.values()) {
      this.#known.set(region.id, region);
    }
    this.#count('map');
  }

  #checkOperators({ controller }: Placement): void {
    const running = controller.running();
    if (running.length === 0) {
      return;
    }
    const regions = new Set<number>();
    for (const operator of running) {
      if (regions.has(operator.regionId)) {
        fail(`two operators run on region ${operator.regionId}`);
      }
      regions.add(operator.regionId);
      if (operator.hasEnded) {
        fail(`operator ${operator.id} has ended and runs`);
      }
      if (operator.isMergeSource || operator.isMergeTarget) {
        const { related } = operator;
        if (related === undefined || related.related !== operator) {
          fail(`operator ${operator.id} is half of a merge without the other half`);
        } else if (related.hasEnded || controller.runningOn(related.regionId) !== related) {
          fail(`operator ${operator.id} (${operator.brief}) runs, its other half ${related.id} is ${related.status}`);
        }
      }
    }
    this.#count('operators');
  }

  // ------------------------------------------------------------------------------------------ every command

  #checkCommand(node: PdNode, reply: RegionHeartbeatReply): void {
    const { cluster, controller } = node.placement;
    const info = cluster.tree.get(reply.regionId);
    const operator = controller.runningOn(reply.regionId);
    this.#count('commands');
    if (info === undefined) {
      fail(`a command was sent for region ${reply.regionId}, which is not in the map`);
      return;
    }
    if (!epochsEqual(info.region.epoch, reply.epoch)) {
      fail(
        `a command for region ${reply.regionId} carries epoch ${reply.epoch.version}:${reply.epoch.confVer}, the map has ${formatRegion(info.region)}`,
      );
    }
    for (const peer of promotedBy(reply.step)) {
      const isBehind =
        info.pendingPeers.some(({ id }) => id === peer.id) || info.downPeers.some((down) => down.peer.id === peer.id);
      if (isBehind) {
        fail(`peer ${peer.id} is to vote in ${formatRegion(info.region)} without its data`);
      }
    }
    // What administrators order is theirs; everything else must leave a majority of sound voters.
    if (operator?.kinds.includes('admin') === true) {
      return;
    }
    const after = peersAfter(info.region.peers, reply.step);
    const isSound = (peer: Peer): boolean => this.#isSound(node, info, peer);
    const hasQuorum = (peers: readonly Peer[]): boolean =>
      votersBySide(peers).every((side) => side.filter(isSound).length * 2 > side.length);
    if (hasQuorum(info.region.peers) && !hasQuorum(after)) {
      fail(
        `${JSON.stringify(reply.step)} would leave ${formatRegion(info.region)} without a sound majority (${operator?.brief ?? 'no operator'})`,
      );
    }
    this.#count('quorums');
  }

  #isSound(node: PdNode, info: RegionInfo, peer: Peer): boolean {
    const { cluster } = node.placement;
    const store = cluster.store(peer.storeId);
    return (
      store !== undefined &&
      store.record.store.state !== 'tombstone' &&
      livenessOf(store, cluster.config, this.#nowMs()) !== 'down' &&
      !info.downPeers.some((down) => down.peer.id === peer.id) &&
      !info.pendingPeers.some(({ id }) => id === peer.id)
    );
  }

  // ------------------------------------------------------------------------------------------ in the end

  /** How the map differs from the truth; undefined if it does not. */
  difference(truth: readonly Region[]): string | undefined {
    const node = this.#node;
    if (node === undefined) {
      return 'the placement service is down';
    }
    const { tree } = node.placement.cluster;
    const show = (region: Region): string =>
      `${formatRegion(region)} ${region.peers
        .map((p) => `${p.id}@${p.storeId}${p.role}`)
        .sort()
        .join()}`;
    for (const region of truth) {
      const info = tree.get(region.id);
      if (info === undefined || show(info.region) !== show(region)) {
        return `the map has ${info === undefined ? 'no such region' : show(info.region)} where ${show(region)} is true`;
      }
      if (info.leader === undefined) {
        return `the map knows no leader of ${show(region)}`;
      }
    }
    if (tree.size !== truth.length) {
      return `the map has ${tree.size} regions, there are ${truth.length}`;
    }
    return undefined;
  }
}
