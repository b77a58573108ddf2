/** What a leader tells the placement service about its region. */
import { term } from '../../base/ids.ts';
import type { ConsistencyReport, RegionHeartbeat } from '../../meta/heartbeat.ts';
import { epochsEqual, type Peer } from '../../meta/region.ts';
import { stepRefusal, type RefusedStep } from '../../meta/step-refusal.ts';
import type { AdminRefusal } from '../msg.ts';
import type { FinishedCheck } from '../operation/consistency.ts';
import type { RaftPeer } from './raft-peer.ts';

const reportOf = ({ index, wallMs, result }: FinishedCheck): ConsistencyReport => ({ index, wallMs, result });

/** Builds the heartbeat and restarts the flow counters. */
export function regionHeartbeat(peer: RaftPeer): RegionHeartbeat {
  const { ctx, node, region } = peer;
  const nowMs = ctx.clock.monoMs();
  const wallSeconds = Math.floor(ctx.clock.wallMs() / 1000);
  const pending: Peer[] = [];
  const down: { peer: Peer; downSeconds: number }[] = [];
  const views = new Map(node.progress().map((view) => [view.id, view]));
  for (const member of region.peers) {
    if (member.id === peer.peer.id) {
      continue;
    }
    const view = views.get(member.id);
    if (view === undefined || view.match === 0 || view.match < node.firstIndex - 1 || view.state === 'snapshot') {
      pending.push(member);
    }
    const silentMs = nowMs - (peer.lastHeardMs.get(member.id) ?? nowMs);
    if (silentMs >= ctx.config.maxPeerDownMs) {
      down.push({ peer: member, downSeconds: Math.floor(silentMs / 1000) });
    }
  }
  const heartbeat: RegionHeartbeat = {
    region,
    leader: peer.peer,
    term: term(node.term),
    downPeers: down,
    pendingPeers: pending,
    approximateSizeBytes: peer.approximateSizeBytes,
    approximateKeys: peer.approximateKeys,
    bytesWritten: peer.flowBytesWritten,
    keysWritten: peer.flowKeysWritten,
    bytesRead: peer.flowBytesRead,
    keysRead: peer.flowKeysRead,
    merging: peer.pendingMerge !== undefined,
    ...(peer.refusalToReport === undefined ? {} : { refusal: peer.refusalToReport }),
    ...(peer.finishedCheck === undefined ? {} : { consistency: reportOf(peer.finishedCheck) }),
    intervalStartSeconds: wallSeconds - Math.floor((nowMs - peer.lastPdHeartbeatMs) / 1000),
    intervalEndSeconds: wallSeconds,
  };
  peer.flowBytesWritten = 0;
  peer.flowKeysWritten = 0;
  peer.flowBytesRead = 0;
  peer.flowKeysRead = 0;
  peer.lastPdHeartbeatMs = nowMs;
  peer.pdHeartbeatDue = false;
  peer.reportedRefusal = peer.refusalToReport ?? peer.reportedRefusal;
  peer.refusalToReport = undefined;
  peer.hadPending = pending.length > 0;
  return heartbeat;
}

/** A step of an operator was not carried out here; the leader says so in a report that leaves at once. */
export function noteRefusal(peer: RaftPeer, step: RefusedStep, refusal: AdminRefusal): void {
  if (peer.isLeader) {
    peer.refusalToReport = stepRefusal(step, refusal.code, refusal.message, peer.region.epoch);
    peer.pdHeartbeatDue = true;
  }
}

/** As {@link noteRefusal} for what is tried many times a second: only a new reason is worth a report of its own. */
export function noteObstacle(peer: RaftPeer, step: RefusedStep, refusal: AdminRefusal): void {
  const last = peer.refusalToReport ?? peer.reportedRefusal;
  if (last?.step !== step || last.code !== refusal.code || !epochsEqual(last.epoch, peer.region.epoch)) {
    noteRefusal(peer, step, refusal);
  }
}

/** Reports now if something changed that the placement service waits for, e.g. a pending peer that caught up. */
export function reportIfDue(peer: RaftPeer): void {
  if (!peer.isActive || !peer.isLeader || !peer.isInitialized) {
    return;
  }
  if (peer.hadPending && !peer.pdHeartbeatDue) {
    peer.pdHeartbeatDue = peer.node.progress().every((view) => view.match > 0 && view.state !== 'snapshot');
  }
  if (peer.pdHeartbeatDue) {
    peer.ctx.pd.regionHeartbeat(regionHeartbeat(peer));
  }
}
