/** How far the slowest replica of a group is, as its leader knows. */
import type { RaftPeer } from '../../peer/raft-peer.ts';

/** What is looked at of a replica that leads. */
export interface ProgressView {
  readonly peer: RaftPeer['peer'];
  readonly node: Pick<RaftPeer['node'], 'progress'>;
}

/** Progress of every replica of the group as the leader knows it, the leader's own included. */
export function minProgress(peer: ProgressView): {
  readonly matched: number;
  readonly committed: number;
  readonly inSnapshot: number | undefined;
  /** The peer with the smallest acknowledged position; its own id for a lone leader. */
  readonly slowest: number;
} {
  let matched = Number.MAX_SAFE_INTEGER;
  let committed = Number.MAX_SAFE_INTEGER;
  let inSnapshot: number | undefined;
  let slowest = peer.peer.id as number;
  for (const view of peer.node.progress()) {
    if (view.match < matched) {
      matched = view.match;
      slowest = view.id;
    }
    committed = Math.min(committed, view.committed);
    if (view.state === 'snapshot') {
      inSnapshot = view.id;
    }
  }
  return { matched, committed, inSnapshot, slowest };
}
