/**
 * How admin commands change region descriptors: pure functions that return a new descriptor or a named refusal. They
 * run on the proposer as a forecast and in apply as the decision, so they depend on nothing but their arguments.
 * Epoch rules are reference table 1.2 (TiKV `components/raftstore/src/store/util.rs`, `admin_cmd_epoch_lookup`).
 */
import { assert } from '../../base/assert.ts';
import { compareBytes, equalBytes, escapeKey } from '../../base/bytes.ts';
import { peerId, regionId } from '../../base/ids.ts';
import { isBeforeEnd, isLeftNeighbour } from '../../base/key-range.ts';
import type { AdminType, RaftCommand, SplitChild } from '../../codec/command.ts';
import type { RegionError } from '../../codec/region-error.ts';
import type { PeerChange } from '../../meta/heartbeat.ts';
import type { StepRefusalCode } from '../../meta/step-refusal.ts';
import { isInJointState, type Peer, type PeerRole, type Region } from '../../meta/region.ts';
import type { AdminRefusal } from '../msg.ts';
import { epochNotMatch } from '../refusal.ts';

/** Which epoch counters a command compares before it runs, and which it moves. */
export interface EpochChecks {
  readonly checksVersion: boolean;
  readonly checksConfVer: boolean;
  readonly changesVersion: boolean;
  readonly changesConfVer: boolean;
}

const row = (checks: '' | 'v' | 'c' | 'vc', changes: '' | 'v' | 'c' | 'vc'): EpochChecks => ({
  checksVersion: checks.includes('v'),
  checksConfVer: checks.includes('c'),
  changesVersion: changes.includes('v'),
  changesConfVer: changes.includes('c'),
});

const WRITE_CHECKS: EpochChecks = Object.freeze(row('v', ''));

const ADMIN_CHECKS: Readonly<Record<AdminType, EpochChecks>> = Object.freeze({
  'batch-split': row('vc', 'v'),
  'prepare-merge': row('vc', 'vc'),
  'commit-merge': row('vc', 'v'),
  'rollback-merge': row('vc', 'v'),
  'compact-log': row('', ''),
  'compute-hash': row('', ''),
  'verify-hash': row('', ''),
  'change-peer': row('c', 'c'),
});

/** The row of table 1.2 for an admin command. */
export const epochChecks = (type: AdminType): EpochChecks => ADMIN_CHECKS[type];

/**
 * Compares the epoch a command was proposed with to the region's current one; equality of every checked counter is
 * required. Undefined means the command may run. Deterministic: it depends only on the log.
 */
export function checkEpochAtApply(command: RaftCommand, region: Region): RegionError | undefined {
  const checks = command.type === 'write' ? WRITE_CHECKS : epochChecks(command.command.type);
  const { epoch } = command;
  const matches =
    (!checks.checksVersion || epoch.version === region.epoch.version) &&
    (!checks.checksConfVer || epoch.confVer === region.epoch.confVer);
  return matches ? undefined : epochNotMatch([region]);
}

/** Asserts that a command moved exactly the counters table 1.2 allows it to move, and only forward. */
export function assertEpochMoved(type: AdminType, before: Region, after: Region): void {
  const { changesVersion, changesConfVer } = epochChecks(type);
  const version = after.epoch.version - before.epoch.version;
  const confVer = after.epoch.confVer - before.epoch.confVer;
  assert(
    after.id === before.id &&
      (changesVersion ? version > 0 : version === 0) &&
      (changesConfVer ? confVer > 0 : confVer === 0),
    'an admin command moved the epoch against its rule',
    { type, region: before.id, version, confVer },
  );
}

export interface Refused {
  readonly type: 'refused';
  readonly refusal: AdminRefusal;
}

const refused = (code: StepRefusalCode, message: string): Refused => ({ type: 'refused', refusal: { code, message } });

// ---------------------------------------------------------------------------------------------------- split

export type SplitResult =
  | {
      readonly type: 'ok';
      /** The part that keeps id and log: the rightmost one. */
      readonly derived: Region;
      /** All parts in key order, the derived one last. */
      readonly regions: readonly Region[];
    }
  | Refused;

/**
 * Splits a region. Every part gets the parent's version plus the number of new regions; new parts copy the parent's
 * peers in order, with their own ids and the same roles.
 */
export function splitRegion(region: Region, children: readonly SplitChild[]): SplitResult {
  if (children.length === 0) {
    return refused('NoSplitKeys', 'a split needs at least one key');
  }
  const ids = new Set<number>([region.id]);
  let previous = region.range.start;
  for (const child of children) {
    const key = child.splitKey;
    if (compareBytes(key, previous) <= 0) {
      return previous === region.range.start
        ? refused('SplitKeyOutOfRange', `split key ${escapeKey(key)} is not behind the start of region ${region.id}`)
        : refused('SplitKeysNotIncreasing', `split key ${escapeKey(key)} does not follow ${escapeKey(previous)}`);
    }
    if (!isBeforeEnd(key, region.range.end)) {
      return refused('SplitKeyOutOfRange', `split key ${escapeKey(key)} is not before the end of region ${region.id}`);
    }
    if (child.newPeerIds.length !== region.peers.length) {
      return refused(
        'PeerCountMismatch',
        `${child.newPeerIds.length} peer ids were given for the ${region.peers.length} peers of region ${region.id}`,
      );
    }
    if (ids.has(child.newRegionId)) {
      return refused('DuplicateRegionId', `region id ${child.newRegionId} is used twice`);
    }
    ids.add(child.newRegionId);
    previous = key;
  }
  const epoch = { confVer: region.epoch.confVer, version: region.epoch.version + children.length };
  let start = region.range.start;
  const regions: Region[] = children.map((child) => {
    const part: Region = {
      id: regionId(child.newRegionId),
      range: { start, end: child.splitKey },
      epoch,
      peers: region.peers.map((peer, i) => ({ ...peer, id: peerId(child.newPeerIds[i] as number) })),
    };
    start = child.splitKey;
    return part;
  });
  const derived: Region = { ...region, range: { start, end: region.range.end }, epoch };
  regions.push(derived);
  return { type: 'ok', derived, regions };
}

// ---------------------------------------------------------------------------------------------------- merge

export type RegionResult = { readonly type: 'ok'; readonly region: Region } | Refused;

/** The source after PrepareMerge. The larger confVer kills conf changes proposed concurrently behind it in the log. */
export const prepareMergeRegion = (region: Region): Region => ({
  ...region,
  epoch: { confVer: region.epoch.confVer + 1, version: region.epoch.version + 1 },
});

/** A merging source as clients knew it: PrepareMerge moved its version by one and left its range alone. */
export const beforePrepare = (merging: Region): Region => ({
  ...merging,
  epoch: { confVer: merging.epoch.confVer - 1, version: merging.epoch.version - 1 },
});

/** The source after RollbackMerge. The larger version makes a duplicate of the rollback fail its epoch check. */
export const rollbackMergeRegion = (region: Region): Region => ({
  ...region,
  epoch: { confVer: region.epoch.confVer, version: region.epoch.version + 1 },
});

/** The target after CommitMerge: the source's range joined on, the larger of both versions plus one. */
export function extendByMerge(target: Region, source: Region): RegionResult {
  if (target.id === source.id) {
    return refused('NotSiblings', `region ${target.id} cannot be merged into itself`);
  }
  const epoch = {
    confVer: target.epoch.confVer,
    version: Math.max(target.epoch.version, source.epoch.version) + 1,
  };
  if (isLeftNeighbour(target.range, source.range)) {
    return { type: 'ok', region: { ...target, range: { start: target.range.start, end: source.range.end }, epoch } };
  }
  if (isLeftNeighbour(source.range, target.range)) {
    return { type: 'ok', region: { ...target, range: { start: source.range.start, end: target.range.end }, epoch } };
  }
  return refused('NotSiblings', `regions ${source.id} and ${target.id} share no border`);
}

// ---------------------------------------------------------------------------------------------------- membership

export type ConfChangeKind = 'simple' | 'enter-joint' | 'leave-joint';

/** One change is simple, several enter joint, none leaves it. */
export const confChangeKind = (changes: readonly PeerChange[]): ConfChangeKind =>
  changes.length === 0 ? 'leave-joint' : changes.length === 1 ? 'simple' : 'enter-joint';

function leaveJoint(region: Region): RegionResult {
  let changed = 0;
  const peers = region.peers.map((peer): Peer => {
    if (peer.role === 'incoming-voter' || peer.role === 'demoting-voter') {
      changed++;
      return { ...peer, role: peer.role === 'incoming-voter' ? 'voter' : 'learner' };
    }
    return peer;
  });
  if (changed === 0) {
    return refused('NotInJointState', `region ${region.id} is not in a joint configuration`);
  }
  return {
    type: 'ok',
    region: { ...region, peers, epoch: { ...region.epoch, confVer: region.epoch.confVer + changed } },
  };
}

function applyChange(peers: Peer[], change: PeerChange, kind: 'simple' | 'enter-joint'): Refused | undefined {
  const { peer } = change;
  const at = peers.findIndex((p) => p.storeId === peer.storeId);
  const existing = peers[at];
  const who = `peer ${peer.id} on store ${peer.storeId}`;
  if (change.type === 'remove') {
    if (existing === undefined || existing.id !== peer.id) {
      return refused('PeerNotFound', `${who} is not a member`);
    }
    if (kind === 'enter-joint' && existing.role === 'voter') {
      return refused('VoterRemovedInJoint', `${who} is a voter; a joint change must demote it first`);
    }
    peers.splice(at, 1);
    return undefined;
  }
  const wanted = change.type === 'add-voter' ? 'voter' : 'learner';
  if (existing === undefined) {
    if (peers.some((p) => p.id === peer.id)) {
      return refused('PeerOnOtherStore', `peer ${peer.id} is already a member on another store`);
    }
    const role: PeerRole = wanted === 'voter' && kind === 'enter-joint' ? 'incoming-voter' : wanted;
    peers.push({ id: peer.id, storeId: peer.storeId, role });
    return undefined;
  }
  if (existing.id !== peer.id) {
    return refused('StoreHasPeer', `store ${peer.storeId} already hosts peer ${existing.id}`);
  }
  if (existing.role === wanted) {
    return refused('RoleUnchanged', `${who} is already a ${wanted}`);
  }
  const joint: PeerRole = wanted === 'voter' ? 'incoming-voter' : 'demoting-voter';
  peers[at] = { ...existing, role: kind === 'simple' ? wanted : joint };
  return undefined;
}

/**
 * Membership after a conf change. confVer grows by the number of changes, or when leaving joint by the number of peers
 * whose role changes. The order of untouched peers stays, new ones go to the end: all replicas agree on the bytes.
 */
export function changePeers(region: Region, changes: readonly PeerChange[]): RegionResult {
  const kind = confChangeKind(changes);
  if (kind === 'leave-joint') {
    return leaveJoint(region);
  }
  if (isInJointState(region)) {
    return refused('InJointState', `region ${region.id} must leave its joint configuration first`);
  }
  const stores = new Set<number>();
  const peers = [...region.peers];
  for (const change of changes) {
    if (stores.has(change.peer.storeId)) {
      return refused('DuplicateChange', `store ${change.peer.storeId} is changed twice`);
    }
    stores.add(change.peer.storeId);
    const problem = applyChange(peers, change, kind);
    if (problem !== undefined) {
      return problem;
    }
  }
  if (!peers.some((p) => p.role === 'voter' || p.role === 'incoming-voter')) {
    return refused('NoVoterLeft', `region ${region.id} would be left without a voter`);
  }
  return {
    type: 'ok',
    region: { ...region, peers, epoch: { ...region.epoch, confVer: region.epoch.confVer + changes.length } },
  };
}

/** Whether the descriptors name the same range; used where a change must keep it. */
export const sameRange = (a: Region, b: Region): boolean =>
  equalBytes(a.range.start, b.range.start) && equalBytes(a.range.end, b.range.end);
