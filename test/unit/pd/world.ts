/**
 * A cluster of pretend stores around the placement logic: it keeps the true regions, carries out commands the way
 * stores do (epoch checks included) and reports. Time moves only when a test says so.
 */
import { compareBytes, utf8 } from '../../../src/base/bytes.ts';
import { type RegionId, peerId, regionId, storeId, term } from '../../../src/base/ids.ts';
import { createRng } from '../../../src/env/rng.ts';
import type { RegionHeartbeat, RegionHeartbeatReply, StoreHeartbeat } from '../../../src/meta/heartbeat.ts';
import { type Peer, type PeerRole, type Region, type StoreLabel, epochsEqual } from '../../../src/meta/region.ts';
import { GIB } from '../../../src/base/units.ts';
import type { ReportVerdict } from '../../../src/pd/cluster/cluster.ts';
import { DEFAULT_PLACEMENT_CONFIG, type PlacementConfig } from '../../../src/pd/defaults.ts';
import { Placement, type Submitted } from '../../../src/pd/placement.ts';
import type { Operator } from '../../../src/pd/schedule/operator/operator.ts';
import { describeStep } from '../../../src/pd/schedule/operator/step.ts';
import type { Refusal, RefusalCode, Result } from '../../../src/pd/schedule/verdict.ts';

export const R: typeof regionId = regionId;
export const S: typeof storeId = storeId;

export class ManualTime {
  nowMs = 0;
  monoMs(): number {
    return this.nowMs;
  }
  wallMs(): number {
    return 1_700_000_000_000 + this.nowMs;
  }
}

/** The truth about a region, as its leader knows it. */
export interface TrueRegion {
  region: Region;
  leader: Peer;
  term: number;
  pending: Set<number>;
  down: Set<number>;
  sizeBytes: number;
  keys: number;
  merging: boolean;
  /** The target as it was when PrepareMerge was applied. */
  mergeTarget?: Region;
}

export interface RegionSpec {
  readonly id: number;
  readonly start?: string;
  readonly end?: string;
  /** Store ids; the first leads. A trailing L makes a learner, + an incoming and - a demoting voter. */
  readonly on: readonly string[];
  readonly version?: number;
  readonly confVer?: number;
  readonly sizeBytes?: number;
  readonly keys?: number;
}

const ROLE_MARKS: Readonly<Record<string, PeerRole>> = { L: 'learner', '+': 'incoming-voter', '-': 'demoting-voter' };

/** Peers `region * 100 + store` on the named stores. */
export function peersOf(region: number, on: readonly string[]): Peer[] {
  return on.map((spec) => {
    const mark = /[L+-]$/.exec(spec)?.[0];
    const store = Number(mark === undefined ? spec : spec.slice(0, -1));
    return {
      id: peerId(region * 100 + store),
      storeId: storeId(store),
      role: mark === undefined ? 'voter' : (ROLE_MARKS[mark] as PeerRole),
    };
  });
}

export function makeRegion(spec: RegionSpec): Region {
  return {
    id: regionId(spec.id),
    range: { start: utf8(spec.start ?? ''), end: utf8(spec.end ?? '') },
    epoch: { confVer: spec.confVer ?? 1, version: spec.version ?? 1 },
    peers: peersOf(spec.id, spec.on),
  };
}

export class World {
  readonly time: ManualTime = new ManualTime();
  placement: Placement;
  readonly regions: Map<RegionId, TrueRegion> = new Map();
  readonly ended: Operator[] = [];
  /** Every command the placement logic sent, in order. */
  readonly sent: RegionHeartbeatReply[] = [];
  #nextId = 100_000;
  readonly #config: PlacementConfig;

  constructor(config: Partial<PlacementConfig> = {}, stores: readonly number[] = [1, 2, 3]) {
    this.#config = { ...DEFAULT_PLACEMENT_CONFIG, ...config };
    this.placement = this.#newPlacement();
    for (const id of stores) {
      this.addStore(id);
    }
    this.placement.cluster.markBootstrapped();
  }

  #newPlacement(): Placement {
    return new Placement({
      config: this.#config,
      clock: this.time,
      rng: createRng(1),
      takeId: () => this.#nextId++,
      onOperatorEnd: (operator) => this.ended.push(operator),
    });
  }

  /** A new placement service takes over with what was persisted: stores, and descriptors as they were last accepted. */
  restart(): void {
    const old = this.placement.cluster;
    this.placement = this.#newPlacement();
    this.placement.load(
      old.stores().map((info) => info.record),
      [...old.tree.values()].map((info) => info.region),
      true,
    );
  }

  addStore(id: number, labels: readonly StoreLabel[] = []): void {
    this.placement.cluster.applyStoreRecord(
      {
        store: {
          id: storeId(id),
          address: `store-${id}:1`,
          statusAddress: '',
          state: 'up',
          labels,
          version: '1',
          startTimestamp: 0,
        },
        physicallyDestroyed: false,
        lastHeartbeatWallMs: 0,
      },
      this.time.monoMs(),
    );
    this.beat(id);
  }

  /** Store heartbeat. */
  beat(id: number, stats: Partial<StoreHeartbeat> = {}): void {
    this.placement.onStoreHeartbeat({
      storeId: storeId(id),
      capacityBytes: 100 * GIB,
      availableBytes: 90 * GIB,
      usedBytes: 10 * GIB,
      regionCount: 0,
      sendingSnapshots: 0,
      receivingSnapshots: 0,
      applyingSnapshots: 0,
      startTimeSeconds: 0,
      isBusy: false,
      isStopping: false,
      ...stats,
    });
  }

  beatAll(except: readonly number[] = []): void {
    for (const { record } of this.placement.cluster.stores()) {
      if (!except.includes(record.store.id)) {
        this.beat(record.store.id);
      }
    }
  }

  /** Adds a true region and reports it. */
  region(spec: RegionSpec): TrueRegion {
    const region = makeRegion(spec);
    const truth: TrueRegion = {
      region,
      leader: region.peers[0] as Peer,
      term: 5,
      pending: new Set(),
      down: new Set(),
      sizeBytes: spec.sizeBytes ?? 1024,
      keys: spec.keys ?? 10,
      merging: false,
    };
    this.regions.set(region.id, truth);
    this.report(spec.id);
    return truth;
  }

  truth(id: number): TrueRegion {
    const truth = this.regions.get(regionId(id));
    if (truth === undefined) {
      throw new Error(`there is no region ${id}`);
    }
    return truth;
  }

  heartbeatOf(id: number): RegionHeartbeat {
    const truth = this.truth(id);
    return {
      region: truth.region,
      leader: truth.region.peers.find((peer) => peer.id === truth.leader.id) ?? truth.leader,
      term: term(truth.term),
      downPeers: truth.region.peers
        .filter((p) => truth.down.has(p.storeId))
        .map((peer) => ({ peer, downSeconds: 600 })),
      pendingPeers: truth.region.peers.filter((p) => truth.pending.has(p.storeId)),
      approximateSizeBytes: truth.sizeBytes,
      approximateKeys: truth.keys,
      bytesWritten: 0,
      keysWritten: 0,
      bytesRead: 0,
      keysRead: 0,
      merging: truth.merging,
      intervalStartSeconds: 0,
      intervalEndSeconds: 1,
    };
  }

  report(id: number): ReportVerdict {
    return this.placement.onRegionHeartbeat(this.heartbeatOf(id));
  }

  advance(ms: number): void {
    this.time.nowMs += ms;
  }

  /** Commands sent since the last look, noted in {@link sent}. */
  take(): RegionHeartbeatReply[] {
    const commands = this.placement.takeEffects().commands.map(({ reply }) => reply);
    this.sent.push(...commands);
    return commands;
  }

  /** Carries out every waiting command and reports what changed, until nothing is sent any more. */
  settle(rounds = 50): void {
    for (let i = 0; i < rounds; i++) {
      const commands = this.take();
      if (commands.length === 0) {
        return;
      }
      for (const command of commands) {
        // Stores do not report at once that a merge was prepared.
        if (this.execute(command) && command.step.type !== 'merge') {
          this.report(command.regionId);
        }
      }
    }
    throw new Error('the placement logic never stops sending');
  }

  /** Does what the leader's store does with a command; false if it refuses. */
  execute(command: RegionHeartbeatReply): boolean {
    const truth = this.regions.get(command.regionId);
    if (truth === undefined || truth.merging || command.targetPeer.storeId !== truth.leader.storeId) {
      return false;
    }
    const { step } = command;
    switch (step.type) {
      case 'transfer-leader': {
        const to = truth.region.peers.find((peer) => peer.id === step.peer.id);
        if (to === undefined || to.role === 'learner') {
          return false;
        }
        truth.leader = to;
        truth.term++;
        return true;
      }
      case 'change-peer':
        return this.#changePeers(truth, command, [step.change]);
      case 'change-peer-joint':
        return step.changes.length === 0
          ? this.#leaveJoint(truth, command)
          : this.#changePeers(truth, command, step.changes);
      case 'split':
        return this.#split(truth, command, step.keys);
      case 'merge':
        return this.#prepareMerge(truth, command, step.target);
    }
  }

  #changePeers(
    truth: TrueRegion,
    command: RegionHeartbeatReply,
    changes: readonly { readonly type: 'add-voter' | 'add-learner' | 'remove'; readonly peer: Peer }[],
  ): boolean {
    if (command.epoch.confVer !== truth.region.epoch.confVer) {
      return false;
    }
    const joint = changes.length > 1;
    let peers = [...truth.region.peers];
    for (const { type, peer } of changes) {
      const present = peers.find((p) => p.storeId === peer.storeId);
      if (type === 'remove') {
        if (present === undefined || (present.id === truth.leader.id && !joint)) {
          return false;
        }
        peers = peers.filter((p) => p.id !== peer.id);
      } else {
        const role: PeerRole =
          type === 'add-voter'
            ? joint
              ? 'incoming-voter'
              : 'voter'
            : joint && present !== undefined
              ? 'demoting-voter'
              : 'learner';
        peers =
          present === undefined
            ? [...peers, { ...peer, role }]
            : peers.map((p) => (p.id === present.id ? { ...p, role } : p));
      }
    }
    truth.region = {
      ...truth.region,
      peers,
      epoch: { ...truth.region.epoch, confVer: truth.region.epoch.confVer + changes.length },
    };
    return true;
  }

  #leaveJoint(truth: TrueRegion, command: RegionHeartbeatReply): boolean {
    const leader = truth.region.peers.find((p) => p.id === truth.leader.id);
    if (command.epoch.confVer !== truth.region.epoch.confVer || leader?.role === 'demoting-voter') {
      return false;
    }
    const changed = truth.region.peers.filter((p) => p.role === 'incoming-voter' || p.role === 'demoting-voter').length;
    truth.region = {
      ...truth.region,
      peers: truth.region.peers.map((p) => ({
        ...p,
        role: p.role === 'incoming-voter' ? 'voter' : p.role === 'demoting-voter' ? 'learner' : p.role,
      })),
      epoch: { ...truth.region.epoch, confVer: truth.region.epoch.confVer + changed },
    };
    return true;
  }

  #split(truth: TrueRegion, command: RegionHeartbeatReply, keys: readonly Uint8Array[]): boolean {
    if (!epochsEqual(command.epoch, truth.region.epoch)) {
      return false;
    }
    this.splitTruth(truth.region.id, keys);
    return true;
  }

  /** Splits a true region; the parent keeps the rightmost part. Nothing is reported. Answers the children's ids. */
  splitTruth(id: number, keys: readonly Uint8Array[]): RegionId[] {
    const truth = this.truth(id);
    const { region } = truth;
    const epoch = { ...region.epoch, version: region.epoch.version + keys.length };
    let { start } = region.range;
    const children: RegionId[] = [];
    for (const key of keys) {
      const childId = regionId(this.#nextId++);
      const child: Region = {
        id: childId,
        range: { start, end: key },
        epoch,
        peers: region.peers.map((peer) => ({ ...peer, id: peerId(this.#nextId++) })),
      };
      const leaderAt = region.peers.findIndex((peer) => peer.id === truth.leader.id);
      this.regions.set(childId, {
        ...truth,
        region: child,
        leader: child.peers[leaderAt] as Peer,
        pending: new Set(),
        down: new Set(),
      });
      children.push(childId);
      start = key;
    }
    truth.region = { ...region, range: { start, end: region.range.end }, epoch };
    return children;
  }

  #prepareMerge(truth: TrueRegion, command: RegionHeartbeatReply, target: Region): boolean {
    const other = this.regions.get(target.id);
    if (
      !epochsEqual(command.epoch, truth.region.epoch) ||
      other === undefined ||
      !epochsEqual(other.region.epoch, target.epoch)
    ) {
      return false;
    }
    const { epoch } = truth.region;
    truth.region = { ...truth.region, epoch: { confVer: epoch.confVer + 1, version: epoch.version + 1 } };
    truth.merging = true;
    truth.mergeTarget = target;
    return true;
  }

  /** What the stores do with a prepared merge in the end: commit if the target is still the one it was, else roll back. */
  finishMerge(sourceId: number): 'committed' | 'rolled-back' {
    const target = this.truth(sourceId).mergeTarget;
    const now = target === undefined ? undefined : this.regions.get(target.id);
    if (target !== undefined && now !== undefined && !now.merging && epochsEqual(now.region.epoch, target.epoch)) {
      this.commitMerge(sourceId, target.id);
      return 'committed';
    }
    this.rollbackMerge(sourceId);
    return 'rolled-back';
  }

  /** The target applies CommitMerge: it takes the source's range over, the source is gone. Nothing is reported. */
  commitMerge(sourceId: number, targetId: number): void {
    const source = this.truth(sourceId);
    const target = this.truth(targetId);
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
  }

  /** The source applies RollbackMerge. Nothing is reported. */
  rollbackMerge(sourceId: number): void {
    const source = this.truth(sourceId);
    const { epoch } = source.region;
    source.region = { ...source.region, epoch: { ...epoch, version: epoch.version + 1 } };
    source.merging = false;
  }

  /** Stores and roles of a true region, e.g. `1 2 3L`, in order of store ids. */
  shape(id: number): string {
    const marks: Readonly<Record<PeerRole, string>> = {
      voter: '',
      learner: 'L',
      'incoming-voter': '+',
      'demoting-voter': '-',
    };
    return [...this.truth(id).region.peers]
      .sort((a, b) => a.storeId - b.storeId)
      .map((peer) => `${peer.storeId}${marks[peer.role]}`)
      .join(' ');
  }
}

export const stepsOf = (operator: Operator): string[] => operator.steps.map((step) => shortStep(describeStep(step)));

/** Step texts without peer ids, so that tests do not depend on how ids are drawn. */
function shortStep(text: string): string {
  return text.replace(/learner \d+ on/u, 'learner on');
}

/** The operator of a request that must have been accepted. */
export function accepted(result: Result<Submitted>): Operator {
  if (result.type === 'refused') {
    throw new Error(`refused: ${result.refusal.code}: ${result.refusal.message}`);
  }
  if (result.value.operator === undefined) {
    throw new Error('there was nothing to do');
  }
  return result.value.operator;
}

/** The code of a request that must have been refused, after checking that the refusal is complete. */
export function refusedWith(result: Result<unknown>): RefusalCode {
  if (result.type === 'ok') {
    throw new Error('the request was accepted');
  }
  return checkedCode(result.refusal);
}

export function checkedCode(refusal: Refusal | undefined): RefusalCode {
  if (refusal === undefined) {
    throw new Error('there was no refusal');
  }
  if (refusal.message === '' || refusal.hint === '') {
    throw new Error(`refusal ${refusal.code} lacks its message or hint`);
  }
  return refusal.code;
}

export const key: typeof utf8 = utf8;
