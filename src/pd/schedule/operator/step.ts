/**
 * Steps of an operator (tikv/pd pkg/schedule/operator/step.go). A step is a value; the functions here say of a region
 * as its leader last reported it whether the step is finished, whether it can still succeed, how many membership
 * changes it accounts for, which command to send, and how long it may take. A report is the only proof of anything.
 */
import { unreachable } from '../../../base/assert.ts';
import { escapeKey } from '../../../base/bytes.ts';
import type { PeerId, StoreId } from '../../../base/ids.ts';
import { type KeyRange, rangeCovers, rangesEqual } from '../../../base/key-range.ts';
import { MIB } from '../../../base/units.ts';
import type { PeerChange, RegionStep } from '../../../meta/heartbeat.ts';
import { type Peer, type Region, findPeerOnStore } from '../../../meta/region.ts';
import { type RegionInfo, isDown, isPending, peerOn } from '../../cluster/region-info.ts';
import type { PlacementConfig } from '../../defaults.ts';
import type { EndReason } from './status.ts';

/** A replica by place and id. */
export interface PeerRef {
  readonly storeId: StoreId;
  readonly peerId: PeerId;
}

export type Step =
  | ({ readonly type: 'add-learner' } & PeerRef)
  | ({ readonly type: 'promote-learner' } & PeerRef)
  /** `peerId` undefined: whatever peer is there. */
  | { readonly type: 'remove-peer'; readonly storeId: StoreId; readonly peerId: PeerId | undefined }
  /** Any of `candidates` will do besides `toStore`. */
  | { readonly type: 'transfer-leader'; readonly toStore: StoreId; readonly candidates: readonly StoreId[] }
  /** One change in all is done in a single step, without a joint state. */
  | { readonly type: 'enter-joint'; readonly promotes: readonly PeerRef[]; readonly demotes: readonly PeerRef[] }
  | { readonly type: 'leave-joint'; readonly promotes: readonly PeerRef[]; readonly demotes: readonly PeerRef[] }
  /** No keys: the store looks for the middle. */
  | { readonly type: 'split-region'; readonly range: KeyRange; readonly keys: readonly Uint8Array[] }
  | { readonly type: 'merge-region'; readonly source: Region; readonly target: Region }
  /** Keeps the target's slot; finished when the target covers the source. */
  | { readonly type: 'merge-region-passive'; readonly source: Region; readonly target: Region };

/** What people call the stage a step belongs to. */
export type StepPhase = 'add-learner' | 'promote' | 'transfer' | 'remove' | 'split' | 'merge';

const isVoterOrIncoming = (peer: Peer): boolean => peer.role === 'voter' || peer.role === 'incoming-voter';
const isLearnerOrDemoting = (peer: Peer): boolean => peer.role === 'learner' || peer.role === 'demoting-voter';

export function isFinished(step: Step, info: RegionInfo): boolean {
  switch (step.type) {
    case 'add-learner': {
      const peer = peerOn(info, step.storeId);
      return peer?.id === step.peerId && peer.role === 'learner' && !isPending(info, peer);
    }
    case 'promote-learner': {
      const peer = peerOn(info, step.storeId);
      return peer?.id === step.peerId && peer.role === 'voter';
    }
    case 'remove-peer':
      return peerOn(info, step.storeId) === undefined;
    case 'transfer-leader': {
      const at = info.leader?.storeId;
      return at !== undefined && (at === step.toStore || step.candidates.includes(at));
    }
    case 'enter-joint':
      return (
        step.promotes.every((ref) => matches(info.region, ref, isVoterOrIncoming)) &&
        step.demotes.every((ref) => goneOrMatches(info.region, ref, isLearnerOrDemoting))
      );
    case 'leave-joint':
      return (
        step.promotes.every((ref) => matches(info.region, ref, (p) => p.role === 'voter')) &&
        step.demotes.every((ref) => goneOrMatches(info.region, ref, (p) => p.role === 'learner')) &&
        jointCount(info.region) === 0
      );
    case 'split-region':
      return !rangesEqual(info.region.range, step.range);
    case 'merge-region':
      return false;
    case 'merge-region-passive':
      return !rangesEqual(info.region.range, step.target.range) && rangeCovers(info.region.range, step.source.range);
    default:
      return unreachable(step);
  }
}

/** How many increments of `confVer` this step has caused so far, judged by the region's peers. */
export function confVerChanged(step: Step, region: Region): number {
  switch (step.type) {
    case 'add-learner':
      return findPeerOnStore(region, step.storeId)?.id === step.peerId ? 1 : 0;
    case 'promote-learner':
      return matches(region, step, isVoterOrIncoming) ? 1 : 0;
    case 'remove-peer': {
      const id = findPeerOnStore(region, step.storeId)?.id;
      return id === undefined || (step.peerId !== undefined && id !== step.peerId) ? 1 : 0;
    }
    case 'enter-joint': {
      const done =
        step.promotes.every((ref) => matches(region, ref, isVoterOrIncoming)) &&
        step.demotes.every((ref) => goneOrMatches(region, ref, isLearnerOrDemoting));
      return done ? step.promotes.length + step.demotes.length : 0;
    }
    case 'leave-joint': {
      const done =
        step.promotes.every((ref) => matches(region, ref, (p) => p.role === 'voter')) &&
        step.demotes.every((ref) => goneOrMatches(region, ref, (p) => p.role === 'learner'));
      return done ? step.promotes.length + step.demotes.length : 0;
    }
    case 'transfer-leader':
    case 'split-region':
    case 'merge-region':
    case 'merge-region-passive':
      return 0;
    default:
      return unreachable(step);
  }
}

function matches(region: Region, ref: PeerRef, role: (peer: Peer) => boolean): boolean {
  const peer = findPeerOnStore(region, ref.storeId);
  return peer !== undefined && peer.id === ref.peerId && role(peer);
}

function goneOrMatches(region: Region, ref: PeerRef, role: (peer: Peer) => boolean): boolean {
  const peer = findPeerOnStore(region, ref.storeId);
  return peer === undefined || (peer.id === ref.peerId && role(peer));
}

const jointCount = (region: Region): number =>
  region.peers.filter((p) => p.role === 'incoming-voter' || p.role === 'demoting-voter').length;

/** What a step must know of the stores. */
export interface StepView {
  /** Milliseconds since the store was heard from; undefined for an unknown store. */
  silentMs(store: StoreId): number | undefined;
  readonly config: PlacementConfig;
}

const stale = (text: string): EndReason => ({
  code: 'StepStale',
  text,
  hint: 'the region changed meanwhile: look at it and ask again if still wanted',
});

/** Why the step can no longer succeed; undefined while it can. Never asked of a finished step. */
export function checkStep(step: Step, info: RegionInfo, view: StepView): EndReason | undefined {
  switch (step.type) {
    case 'add-learner': {
      const peer = peerOn(info, step.storeId);
      if (peer !== undefined && peer.id !== step.peerId) {
        return stale(`store ${step.storeId} already holds peer ${peer.id} of region ${info.region.id}`);
      }
      if (peer !== undefined && peer.role !== 'learner') {
        return stale(`peer ${peer.id} is already a voter`);
      }
      return checkStoreAlive(step.storeId, view);
    }
    case 'promote-learner':
      return peerOn(info, step.storeId)?.id === step.peerId
        ? checkStoreAlive(step.storeId, view)
        : stale(`peer ${step.peerId} is not on store ${step.storeId}`);
    case 'remove-peer':
      return info.leader?.storeId === step.storeId
        ? stale(`store ${step.storeId} leads region ${info.region.id} and cannot be removed from it`)
        : undefined;
    case 'transfer-leader':
      return checkTransfer(step, info, view);
    case 'enter-joint':
      return checkJoint(step, info) ?? checkPromotes(step, info, view);
    case 'leave-joint':
      return checkJoint(step, info);
    case 'split-region':
    case 'merge-region':
    case 'merge-region-passive':
      return undefined;
    default:
      return unreachable(step);
  }
}

/** A learner on a store that went away meanwhile would be a voter that cannot answer, while another one is demoted. */
function checkPromotes(
  step: Extract<Step, { type: 'enter-joint' }>,
  info: RegionInfo,
  view: StepView,
): EndReason | undefined {
  for (const { storeId } of step.promotes) {
    const reason = peerOn(info, storeId)?.role === 'learner' ? checkStoreAlive(storeId, view) : undefined;
    if (reason !== undefined) {
      return reason;
    }
  }
  return undefined;
}

function checkStoreAlive(store: StoreId, view: StepView): EndReason | undefined {
  const silentMs = view.silentMs(store);
  if (silentMs === undefined) {
    return stale(`store ${store} is not known`);
  }
  return silentMs <= view.config.stepStoreSilentMs
    ? undefined
    : {
        code: 'StoreDisconnected',
        text: `store ${store} has been silent for ${Math.floor(silentMs / 1000)} s`,
        hint: `bring store ${store} back or choose another one`,
      };
}

function checkTransfer(
  step: Extract<Step, { type: 'transfer-leader' }>,
  info: RegionInfo,
  view: StepView,
): EndReason | undefined {
  let reason: EndReason | undefined;
  for (const store of new Set([step.toStore, ...step.candidates])) {
    const peer = peerOn(info, store);
    if (peer === undefined) {
      reason = stale(`region ${info.region.id} has no peer on store ${store}`);
    } else if (peer.role === 'learner' || peer.role === 'demoting-voter') {
      reason = stale(`peer ${peer.id} on store ${store} is not a voter`);
    } else if (isDown(info, peer)) {
      reason = stale(`peer ${peer.id} on store ${store} is down`);
    } else {
      reason = checkStoreAlive(store, view);
    }
    if (reason === undefined) {
      return undefined;
    }
  }
  return reason;
}

/** All listed peers must have changed, or none, and no other peer may be between two memberships. */
function checkJoint(
  step: Extract<Step, { type: 'enter-joint' | 'leave-joint' }>,
  info: RegionInfo,
): EndReason | undefined {
  const entering = step.type === 'enter-joint';
  let before = false;
  let inside = false;
  for (const ref of step.promotes) {
    const peer = findPeerOnStore(info.region, ref.storeId);
    if (peer?.id !== ref.peerId) {
      return stale(`peer ${ref.peerId} is not on store ${ref.storeId}`);
    }
    if (
      peer.role === 'demoting-voter' ||
      (entering && peer.role === 'voter') ||
      (!entering && peer.role === 'learner')
    ) {
      return stale(`peer ${peer.id} is unexpectedly a ${peer.role}`);
    }
    before ||= peer.role !== 'incoming-voter';
    inside ||= peer.role === 'incoming-voter';
  }
  for (const ref of step.demotes) {
    const peer = findPeerOnStore(info.region, ref.storeId);
    if (peer?.id !== ref.peerId) {
      return stale(`peer ${ref.peerId} is not on store ${ref.storeId}`);
    }
    if (
      peer.role === 'incoming-voter' ||
      (entering && peer.role === 'learner') ||
      (!entering && peer.role === 'voter')
    ) {
      return stale(`peer ${peer.id} is unexpectedly a ${peer.role}`);
    }
    before ||= peer.role !== 'demoting-voter';
    inside ||= peer.role === 'demoting-voter';
    if (!entering && peer.role === 'demoting-voter' && info.leader?.id === peer.id) {
      return stale(`leaving the joint state would demote the leader on store ${ref.storeId}`);
    }
  }
  if (before && inside) {
    return stale('some of the listed peers changed and some did not');
  }
  const foreign = jointCount(info.region) - (inside ? step.promotes.length + step.demotes.length : 0);
  return foreign === 0 ? undefined : stale('other peers of the region are between two memberships');
}

/** The command to send now; undefined when there is nothing to say, e.g. while a snapshot is on its way. */
export function commandOf(step: Step, info: RegionInfo): RegionStep | undefined {
  switch (step.type) {
    case 'add-learner':
      return peerOn(info, step.storeId) === undefined
        ? change('add-learner', { id: step.peerId, storeId: step.storeId, role: 'learner' })
        : undefined;
    case 'promote-learner':
      return isBehind(step, info)
        ? undefined
        : change('add-voter', { id: step.peerId, storeId: step.storeId, role: 'voter' });
    case 'remove-peer': {
      const peer = peerOn(info, step.storeId);
      return peer === undefined ? undefined : change('remove', peer);
    }
    case 'transfer-leader': {
      const candidates = [...new Set([step.toStore, ...step.candidates])]
        .map((store) => peerOn(info, store))
        .filter((peer): peer is Peer => peer !== undefined && isVoterOrIncoming(peer));
      const [first] = candidates;
      return first === undefined ? undefined : { type: 'transfer-leader', peer: first, candidates };
    }
    case 'enter-joint':
      return step.promotes.some((ref) => isBehind(ref, info)) ? undefined : jointCommand(step);
    case 'leave-joint':
      return { type: 'change-peer-joint', changes: [] };
    case 'split-region':
      return { type: 'split', keys: step.keys };
    case 'merge-region':
      return { type: 'merge', target: step.target };
    case 'merge-region-passive':
      return undefined;
    default:
      return unreachable(step);
  }
}

/** A learner that lacks its data again, after its log was cut, or is silent: a voter that counts and cannot answer. */
function isBehind(ref: PeerRef, info: RegionInfo): boolean {
  const peer = peerOn(info, ref.storeId);
  return peer !== undefined && peer.id === ref.peerId && (isPending(info, peer) || isDown(info, peer));
}

const change = (type: PeerChange['type'], peer: Peer): RegionStep => ({ type: 'change-peer', change: { type, peer } });

function jointCommand(step: Extract<Step, { type: 'enter-joint' }>): RegionStep {
  const changes: PeerChange[] = [
    ...step.promotes.map(
      (ref): PeerChange => ({ type: 'add-voter', peer: { id: ref.peerId, storeId: ref.storeId, role: 'voter' } }),
    ),
    ...step.demotes.map(
      (ref): PeerChange => ({ type: 'add-learner', peer: { id: ref.peerId, storeId: ref.storeId, role: 'learner' } }),
    ),
  ];
  const [only, second] = changes;
  return only !== undefined && second === undefined
    ? { type: 'change-peer', change: only }
    : { type: 'change-peer-joint', changes };
}

/** Multiples of the quick limit. */
const MERGE_TIMEOUT_FACTOR = 10;

export function timeoutMsOf(step: Step, sizeBytes: number, config: PlacementConfig): number {
  const mib = sizeBytes / MIB;
  const fast = Math.max(config.fastStepMs, config.fastStepMsPerMib * mib);
  switch (step.type) {
    case 'add-learner':
      return Math.max(config.slowStepMs, config.slowStepMsPerMib * mib);
    case 'enter-joint':
    case 'leave-joint':
      return fast * (step.promotes.length + step.demotes.length + 1);
    case 'merge-region':
    case 'merge-region-passive':
      return fast * MERGE_TIMEOUT_FACTOR;
    case 'promote-learner':
    case 'remove-peer':
    case 'transfer-leader':
    case 'split-region':
      return fast;
    default:
      return unreachable(step);
  }
}

/** Whether an unfinished step is sent again soon. A merge is: a leader refuses it while some replica lags a little. */
export const isQuick = (step: Step): boolean =>
  step.type === 'merge-region' ||
  step.type === 'transfer-leader' ||
  step.type === 'promote-learner' ||
  step.type === 'enter-joint' ||
  step.type === 'leave-joint';

export function phaseOf(step: Step): StepPhase {
  switch (step.type) {
    case 'add-learner':
      return 'add-learner';
    case 'promote-learner':
    case 'enter-joint':
    case 'leave-joint':
      return 'promote';
    case 'transfer-leader':
      return 'transfer';
    case 'remove-peer':
      return 'remove';
    case 'split-region':
      return 'split';
    case 'merge-region':
    case 'merge-region-passive':
      return 'merge';
    default:
      return unreachable(step);
  }
}

const refText = (refs: readonly PeerRef[], sign: string): string[] => refs.map((ref) => `${sign}${ref.storeId}`);

/** The step in words. */
export function describeStep(step: Step): string {
  switch (step.type) {
    case 'add-learner':
      return `add learner ${step.peerId} on store ${step.storeId}`;
    case 'promote-learner':
      return `promote learner ${step.peerId} on store ${step.storeId}`;
    case 'remove-peer':
      return `remove peer on store ${step.storeId}`;
    case 'transfer-leader':
      return `transfer leader to store ${step.toStore}`;
    case 'enter-joint':
      return `enter joint state (${[...refText(step.promotes, '+'), ...refText(step.demotes, '-')].join(' ')})`;
    case 'leave-joint':
      return 'leave joint state';
    case 'split-region':
      return step.keys.length === 0 ? 'split in the middle' : `split at ${step.keys.map(escapeKey).join(', ')}`;
    case 'merge-region':
      return `merge region ${step.source.id} into region ${step.target.id}`;
    case 'merge-region-passive':
      return `take over region ${step.source.id}`;
    default:
      return unreachable(step);
  }
}
