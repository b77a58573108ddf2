/**
 * No step that nobody asked for takes a region its majority of sound voters. Leaders refuse such a change, too; here the
 * step is not even sent, waits until enough voters are back, and says so (tikv/raft-rs leaves this to its users).
 */
import { unreachable } from '../../../base/assert.ts';
import type { StoreId } from '../../../base/ids.ts';
import type { Peer } from '../../../meta/region.ts';
import { type RegionInfo, isDown, isPending } from '../../cluster/region-info.ts';
import type { Step, StepView } from './step.ts';

/** Voters of the membership, of both memberships while it is joint. */
type Sides = readonly (readonly Peer[])[];

function sidesOf(peers: readonly Peer[]): Sides {
  const incoming = peers.filter(({ role }) => role === 'voter' || role === 'incoming-voter');
  const outgoing = peers.filter(({ role }) => role === 'voter' || role === 'demoting-voter');
  return [incoming, outgoing];
}

/** Who votes once the step took effect; undefined if it changes nothing about that. */
function sidesAfter(step: Step, peers: readonly Peer[]): Sides | undefined {
  const at = (stores: readonly { readonly storeId: StoreId }[]): Peer[] =>
    peers.filter(({ storeId }) => stores.some((ref) => ref.storeId === storeId));
  const voters = peers.filter(({ role }) => role === 'voter');
  switch (step.type) {
    case 'remove-peer':
      return [voters.filter(({ storeId }) => storeId !== step.storeId)];
    case 'promote-learner':
      return [[...voters, ...at([step]).filter(({ role }) => role === 'learner')]];
    case 'enter-joint': {
      const leaving = at(step.demotes);
      const joining = at(step.promotes).filter(({ role }) => role === 'learner');
      return [[...voters.filter((peer) => !leaving.includes(peer)), ...joining], voters];
    }
    case 'leave-joint':
      return [peers.filter(({ role }) => role === 'voter' || role === 'incoming-voter')];
    case 'add-learner':
    case 'transfer-leader':
    case 'split-region':
    case 'merge-region':
    case 'merge-region-passive':
      return undefined;
    default:
      return unreachable(step);
  }
}

/**
 * Why the step has to wait; undefined if it may be sent. A region that has lost its majority already is none of its
 * business: whatever is sent there can only help.
 */
export function quorumRisk(step: Step, info: RegionInfo, view: StepView): string | undefined {
  const { peers } = info.region;
  const after = sidesAfter(step, peers);
  if (after === undefined) {
    return undefined;
  }
  const isSound = (peer: Peer, silentMax: number): boolean =>
    !isDown(info, peer) &&
    !isPending(info, peer) &&
    (view.silentMs(peer.storeId) ?? Number.POSITIVE_INFINITY) < silentMax;
  const holds = (sides: Sides, silentMax: number): boolean =>
    sides.every((side) => side.filter((peer) => isSound(peer, silentMax)).length * 2 > side.length);
  const { stepStoreSilentMs, storeDownMs } = view.config;
  if (!holds(sidesOf(peers), storeDownMs) || holds(after, stepStoreSilentMs)) {
    return undefined;
  }
  const unsound = [...new Set(after.flat())].filter((peer) => !isSound(peer, stepStoreSilentMs));
  const where = unsound.map(({ storeId }) => storeId).join(', ');
  return `waits: region ${info.region.id} would have no majority, its replicas on store ${where} do not answer or lack data`;
}
