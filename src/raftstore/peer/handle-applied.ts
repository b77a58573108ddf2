/** What the peer FSM does with the results of applied entries: they arrive after their batch is durable, in log order. */
import { unreachable } from '../../base/assert.ts';
import { onChangePeerApplied } from '../operation/conf-change.ts';
import { onSplitApplied } from '../operation/batch-split.ts';
import { onHashComputed, onHashVerified } from '../operation/consistency.ts';
import { onCommitMergeApplied } from '../operation/merge/commit.ts';
import { onPrepareMergeApplied } from '../operation/merge/prepare.ts';
import { onRollbackMergeApplied } from '../operation/merge/rollback.ts';
import type { ApplyResult, ExecResult } from '../msg.ts';
import { acknowledgeApplied, evictCache } from './handle-ready.ts';
import { onCompactLogApplied } from './log-gc.ts';
import { retryHeld } from './propose.ts';
import type { RaftPeer } from './raft-peer.ts';
import { addRead } from './read.ts';

export function onApplied(peer: RaftPeer, result: ApplyResult): void {
  const { life } = peer;
  if (result.peerId !== peer.peer.id || life.type === 'destroying' || life.type === 'dead') {
    return;
  }
  if (life.type === 'removing') {
    // What apply did before it stopped is on disk: a child born from a split lives on its own, and only the range this
    // replica still has may be cleaned. Once apply has stopped nothing may come back into the store map.
    if (!life.applyStopped) {
      const firstIndex = peer.storage.firstIndex();
      peer.storage.applyState = result.applyState;
      for (const exec of result.results) {
        onExecResult(peer, exec, firstIndex);
      }
    }
    return;
  }
  const truncatedBefore = peer.storage.applyState.truncatedIndex;
  // As it was before a CompactLog in this very batch: a membership change below that is still news to the core.
  const firstIndex = peer.storage.firstIndex();
  peer.storage.applyState = result.applyState;
  peer.flowBytesWritten += result.bytesWritten;
  peer.flowKeysWritten += result.keysWritten;
  peer.writtenSinceCheckBytes += result.bytesWritten;
  for (const exec of result.results) {
    onExecResult(peer, exec, firstIndex);
  }
  if (result.applyState.truncatedIndex > truncatedBefore) {
    onCompactLogApplied(peer, result.applyState.truncatedIndex);
  }
  peer.epochChecker.applied(peer.appliedIndex);
  acknowledgeApplied(peer);
  evictCache(peer);
  retryHeld(peer, (request, again) => addRead(peer, request, again), undefined);
}

function onExecResult(peer: RaftPeer, exec: ExecResult, firstIndex: number): void {
  switch (exec.type) {
    case 'change-peer':
      onChangePeerApplied(peer, exec.index, exec.confChange, exec.region, exec.applied, firstIndex);
      return;
    case 'split':
      onSplitApplied(peer, exec.derived, exec.regions, exec.skipped);
      return;
    case 'prepare-merge':
      onPrepareMergeApplied(peer, exec.region, exec.state);
      return;
    case 'commit-merge':
      onCommitMergeApplied(peer, exec.region, exec.source);
      return;
    case 'rollback-merge':
      onRollbackMergeApplied(peer, exec.region);
      return;
    case 'compact-log':
      return;
    case 'compute-hash':
      onHashComputed(peer, exec.index, exec.hash);
      return;
    case 'verify-hash':
      onHashVerified(peer, exec.index, exec.matched, exec.isUnclear);
      return;
    default:
      unreachable(exec);
  }
}
