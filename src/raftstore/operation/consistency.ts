/**
 * Consistency check (reference 12.2): all replicas hash their data and descriptor behind the same log entry and tell
 * their leader. What a majority of the voters agrees on is right; a replica that differs is fenced.
 *
 * ```text
 * leader: ComputeHash ─► every replica: hash in the background ─► hash-report ─► leader: all equal: done
 *                                                                              └─ not: VerifyHash{majority's hash}
 *                                                  every replica that differs: fence (fence.ts) ◄─┘
 * ```
 *
 * A verdict goes through the log, so that replicas judge themselves, also those whose report was lost. When no
 * majority agrees on anything the hash of VerifyHash is empty, and every replica fences itself: nobody can say which
 * data are right, and serving either would be a guess.
 */
import { toHex } from '../../base/bytes.ts';
import type { RegionId } from '../../base/ids.ts';
import { isVoterRole } from '../../meta/region.ts';
import { checkAdmin, proposeAdmin } from '../peer/propose.ts';
import type { RaftPeer } from '../peer/raft-peer.ts';
import { fence } from '../peer/fence.ts';

/**
 * A check whose replicas have not all reported is judged by the reports there are after so many intervals, or this time:
 * a replica that restarted meanwhile never reports.
 */
const REPORTS_WAIT_INTERVALS = 2;
const REPORTS_WAIT_MIN_MS = 5_000;

const reportsWaitMs = (peer: RaftPeer): number =>
  Math.max(REPORTS_WAIT_MIN_MS, REPORTS_WAIT_INTERVALS * peer.ctx.config.consistencyCheckMs);

/** A replica that was silent for so many election timeouts is not waited for. */
const SILENT_ELECTIONS = 5;

/** What the leader's check under way has gathered. */
export interface RunningCheck {
  readonly index: number;
  readonly startedMs: number;
  /** By peer. */
  readonly hashes: Map<number, Uint8Array>;
}

export type CheckResult =
  | 'consistent'
  /** Some replicas differ from the majority and were told so. */
  | 'divergent'
  /** No majority agrees; all replicas were told to stop. */
  | 'unclear'
  /** Too few replicas reported in time to say anything. */
  | 'incomplete';

/** The latest finished check that this replica led. */
export interface FinishedCheck {
  readonly index: number;
  readonly wallMs: number;
  readonly result: CheckResult;
  /** Peers whose data differ from the majority's. */
  readonly divergent: readonly number[];
}

/** The region led here that is compared next, in turn after `last`; undefined if a check runs or nothing can be checked. */
export function nextToCheck(peers: readonly RaftPeer[], last: number): RegionId | undefined {
  let first: RegionId | undefined;
  let next: RegionId | undefined;
  for (const peer of peers) {
    if (peer.check !== undefined) {
      return undefined;
    }
    const { regionId } = peer;
    if (peer.isLeader && peer.isActive && peer.fence === undefined) {
      first = first === undefined || regionId < first ? regionId : first;
      next = regionId > last && (next === undefined || regionId < next) ? regionId : next;
    }
  }
  return next ?? first;
}

/** Starts a check unless one is under way; false if the region cannot be checked now. */
export function startConsistencyCheck(peer: RaftPeer): boolean {
  const nowMs = peer.ctx.clock.monoMs();
  if (peer.check !== undefined && nowMs - peer.check.startedMs < reportsWaitMs(peer)) {
    return true;
  }
  peer.check = undefined;
  if (peer.fence !== undefined || peer.isMerging || checkAdmin(peer, 'compute-hash') !== undefined) {
    return false;
  }
  const proposal = proposeAdmin(peer, { type: 'compute-hash' }, () => {});
  if (proposal.type === 'proposed') {
    peer.check = { index: proposal.index, startedMs: nowMs, hashes: new Map() };
  }
  return proposal.type === 'proposed';
}

/** The hash behind `index` is known here. */
export function onHashComputed(peer: RaftPeer, index: number, hash: Uint8Array): void {
  peer.lastHashIndex = index;
  if (peer.isLeader) {
    onHashReport(peer, peer.peer.id, index, hash);
    return;
  }
  const leader = peer.leaderPeer();
  if (leader !== undefined) {
    peer.send(leader, { type: 'hash-report', index, hash });
  }
}

/** A replica's hash, at the leader. Reports for other checks, and of strangers, count for nothing. */
export function onHashReport(peer: RaftPeer, from: number, index: number, hash: Uint8Array): void {
  const { check, region } = peer;
  if (!peer.isLeader || check?.index !== index || !region.peers.some((p) => p.id === from)) {
    return;
  }
  check.hashes.set(from, hash);
  if (region.peers.every((p) => check.hashes.has(p.id))) {
    conclude(peer, check);
  }
}

/** Gives up waiting for replicas that never report. Called regularly. */
export function tickConsistencyCheck(peer: RaftPeer): void {
  const { check } = peer;
  if (check === undefined) {
    return;
  }
  if (!peer.isLeader) {
    peer.check = undefined;
    return;
  }
  const { clock, config } = peer.ctx;
  const nowMs = clock.monoMs();
  const silentMs = SILENT_ELECTIONS * config.electionTicks * config.tickMs;
  const isWaiting = peer.region.peers.some(
    ({ id }) =>
      !check.hashes.has(id) && (id === peer.peer.id || nowMs - (peer.lastHeardMs.get(id) ?? nowMs) < silentMs),
  );
  if (!isWaiting || nowMs - check.startedMs >= reportsWaitMs(peer)) {
    conclude(peer, check);
  }
}

/** What the reports say: the hash of a majority of all voters, if there is one, and who differs from it. */
export function judge(
  voters: readonly number[],
  members: readonly number[],
  hashes: ReadonlyMap<number, Uint8Array>,
): { readonly result: CheckResult; readonly majority: Uint8Array | undefined; readonly divergent: readonly number[] } {
  const votes = new Map<string, { readonly hash: Uint8Array; count: number }>();
  for (const id of voters) {
    const hash = hashes.get(id);
    if (hash !== undefined) {
      const word = toHex(hash);
      const vote = votes.get(word) ?? { hash, count: 0 };
      vote.count++;
      votes.set(word, vote);
    }
  }
  const majority = [...votes.values()].find((vote) => vote.count * 2 > voters.length)?.hash;
  if (majority !== undefined) {
    const word = toHex(majority);
    const divergent = members.filter((id) => {
      const hash = hashes.get(id);
      return hash !== undefined && toHex(hash) !== word;
    });
    return { result: divergent.length === 0 ? 'consistent' : 'divergent', majority, divergent };
  }
  return {
    // With a voter missing the majority may still be found next time.
    result: voters.every((id) => hashes.has(id)) ? 'unclear' : 'incomplete',
    majority: undefined,
    divergent: [],
  };
}

function conclude(peer: RaftPeer, check: RunningCheck): void {
  const { region, ctx } = peer;
  const voters = region.peers.filter((p) => isVoterRole(p.role)).map((p) => p.id as number);
  const { result, majority, divergent } = judge(
    voters,
    region.peers.map((p) => p.id),
    check.hashes,
  );
  if (result === 'divergent' || result === 'unclear') {
    const hash = majority ?? new Uint8Array(0);
    if (checkAdmin(peer, 'verify-hash') !== undefined) {
      // Merging or handing over: the check is repeated in its turn.
      peer.check = undefined;
      return;
    }
    peer.log.error({ index: check.index, result, divergent: divergent.join(',') }, 'replicas hold different data');
    proposeAdmin(peer, { type: 'verify-hash', index: check.index, hash }, () => {});
  }
  peer.check = undefined;
  ctx.meta.counters.checks[result]++;
  peer.finishedCheck = { index: check.index, wallMs: ctx.clock.wallMs(), result, divergent };
  peer.divergentPeers = new Set(divergent);
  peer.pdHeartbeatDue = peer.pdHeartbeatDue || result !== 'consistent';
}

/** The verdict about this replica, from the log. */
export function onHashVerified(peer: RaftPeer, index: number, matched: boolean, isUnclear: boolean): void {
  if (!matched) {
    fence(peer, index, isUnclear ? 'unclear' : 'divergent');
  }
}
