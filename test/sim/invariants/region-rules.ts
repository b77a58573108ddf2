/**
 * How committed commands change a region, written a second time from the rules (region-merge reference 1.2, 4, 9, 10)
 * and without the product's functions, so that both can be compared. Undefined means: no effect on any replica.
 */
import { isBeforeEnd } from '../../../src/base/key-range.ts';
import { compareBytes, equalBytes } from '../../../src/base/bytes.ts';
import { peerId, regionId } from '../../../src/base/ids.ts';
import type { AdminCommand, AdminType, SplitChild } from '../../../src/codec/command.ts';
import type { PeerChange } from '../../../src/meta/heartbeat.ts';
import type { Peer, PeerRole, Region, RegionEpoch } from '../../../src/meta/region.ts';

const CHECKS_VERSION: ReadonlySet<AdminType | 'write'> = new Set([
  'write',
  'batch-split',
  'prepare-merge',
  'commit-merge',
  'rollback-merge',
]);
const CHECKS_CONF_VER: ReadonlySet<AdminType | 'write'> = new Set([
  'batch-split',
  'prepare-merge',
  'commit-merge',
  'rollback-merge',
  'change-peer',
]);

/** Whether a command proposed at `epoch` may run on a region that is at `now`. */
export const passesEpoch = (type: AdminType | 'write', epoch: RegionEpoch, now: RegionEpoch): boolean =>
  (!CHECKS_VERSION.has(type) || epoch.version === now.version) &&
  (!CHECKS_CONF_VER.has(type) || epoch.confVer === now.confVer);

/** The parts in key order; the last one keeps the id. */
export function splitParts(region: Region, children: readonly SplitChild[]): Region[] | undefined {
  const seen = new Set<number>([region.id]);
  let { start } = region.range;
  const version = region.epoch.version + children.length;
  const parts: Region[] = [];
  for (const { splitKey, newRegionId, newPeerIds } of children) {
    if (
      compareBytes(splitKey, start) <= 0 ||
      !isBeforeEnd(splitKey, region.range.end) ||
      newPeerIds.length !== region.peers.length ||
      seen.has(newRegionId)
    ) {
      return undefined;
    }
    seen.add(newRegionId);
    parts.push({
      id: regionId(newRegionId),
      range: { start, end: splitKey },
      epoch: { version, confVer: region.epoch.confVer },
      peers: region.peers.map((p, i) => ({ id: peerId(newPeerIds[i] as number), storeId: p.storeId, role: p.role })),
    });
    start = splitKey;
  }
  if (parts.length === 0) {
    return undefined;
  }
  parts.push({
    ...region,
    range: { start, end: region.range.end },
    epoch: { version, confVer: region.epoch.confVer },
  });
  return parts;
}

/** The target with the source's range joined on. */
export function joined(target: Region, source: Region): Region | undefined {
  const epoch = {
    confVer: target.epoch.confVer,
    version: Math.max(target.epoch.version, source.epoch.version) + 1,
  };
  const touches = (left: Region, right: Region): boolean =>
    left.range.end.length > 0 && equalBytes(left.range.end, right.range.start);
  if (touches(target, source)) {
    return { ...target, epoch, range: { start: target.range.start, end: source.range.end } };
  }
  if (touches(source, target)) {
    return { ...target, epoch, range: { start: source.range.start, end: target.range.end } };
  }
  return undefined;
}

const isJoint = (peers: readonly Peer[]): boolean =>
  peers.some((p) => p.role === 'incoming-voter' || p.role === 'demoting-voter');

function leave(region: Region): Region | undefined {
  const settled: Partial<Record<PeerRole, PeerRole>> = { 'incoming-voter': 'voter', 'demoting-voter': 'learner' };
  const changing = region.peers.filter((p) => settled[p.role] !== undefined).length;
  return changing === 0
    ? undefined
    : {
        ...region,
        epoch: { ...region.epoch, confVer: region.epoch.confVer + changing },
        peers: region.peers.map((p) => ({ ...p, role: settled[p.role] ?? p.role })),
      };
}

/** Membership after a change: none leaves a joint configuration, one is simple, several enter a joint one. */
export function changedPeers(region: Region, changes: readonly PeerChange[]): Region | undefined {
  if (changes.length === 0) {
    return leave(region);
  }
  if (isJoint(region.peers) || new Set(changes.map((c) => c.peer.storeId)).size < changes.length) {
    return undefined;
  }
  const entersJoint = changes.length > 1;
  let peers = [...region.peers];
  for (const { type, peer } of changes) {
    const old = peers.find((p) => p.storeId === peer.storeId);
    if (type === 'remove') {
      if (old?.id !== peer.id || (entersJoint && old.role === 'voter')) {
        return undefined;
      }
      peers = peers.filter((p) => p !== old);
      continue;
    }
    const wanted: PeerRole = type === 'add-voter' ? 'voter' : 'learner';
    if (old === undefined) {
      if (peers.some((p) => p.id === peer.id)) {
        return undefined;
      }
      peers.push({
        id: peer.id,
        storeId: peer.storeId,
        role: entersJoint && wanted === 'voter' ? 'incoming-voter' : wanted,
      });
      continue;
    }
    if (old.id !== peer.id || old.role === wanted) {
      return undefined;
    }
    const between: PeerRole = wanted === 'voter' ? 'incoming-voter' : 'demoting-voter';
    peers = peers.map((p) => (p === old ? { ...p, role: entersJoint ? between : wanted } : p));
  }
  return peers.some((p) => p.role === 'voter' || p.role === 'incoming-voter')
    ? { ...region, peers, epoch: { ...region.epoch, confVer: region.epoch.confVer + changes.length } }
    : undefined;
}

export type Admin<T extends AdminType> = Extract<AdminCommand, { type: T }>;
