/**
 * Failpoints around everything the store loop does: before and after each kind of message of peers, apply FSMs and the
 * store, and at the steps of a round. A harness stops the process there; nothing else happens at these points.
 */
import type { FailpointName } from '../env/failpoint-names.ts';
import type { ApplyTask, PeerMsg, StoreMsg } from './msg.ts';

interface Around {
  readonly before: FailpointName;
  readonly after: FailpointName;
}
export const PEER_POINTS: Readonly<Record<PeerMsg['type'], Around>> = {
  'peer-message': { before: 'peer::before-peer-message', after: 'peer::after-peer-message' },
  write: { before: 'peer::before-write', after: 'peer::after-write' },
  read: { before: 'peer::before-read', after: 'peer::after-read' },
  admin: { before: 'peer::before-admin', after: 'peer::after-admin' },
  'propose-commit-merge': { before: 'peer::before-propose-commit-merge', after: 'peer::after-propose-commit-merge' },
  'raft-tick': { before: 'peer::before-raft-tick', after: 'peer::after-raft-tick' },
  'check-merge': { before: 'peer::before-check-merge', after: 'peer::after-check-merge' },
  'maintenance-tick': { before: 'peer::before-maintenance-tick', after: 'peer::after-maintenance-tick' },
  'pd-heartbeat-tick': { before: 'peer::before-pd-heartbeat-tick', after: 'peer::after-pd-heartbeat-tick' },
  'split-check-tick': { before: 'peer::before-split-check-tick', after: 'peer::after-split-check-tick' },
  persisted: { before: 'peer::before-persisted', after: 'peer::after-persisted' },
  applied: { before: 'peer::before-applied', after: 'peer::after-applied' },
  'apply-destroyed': { before: 'peer::before-apply-destroyed', after: 'peer::after-apply-destroyed' },
  'catch-up-logs': { before: 'peer::before-catch-up-logs', after: 'peer::after-catch-up-logs' },
  'merge-result': { before: 'peer::before-merge-result', after: 'peer::after-merge-result' },
  'region-overlapped': { before: 'peer::before-region-overlapped', after: 'peer::after-region-overlapped' },
  destroy: { before: 'peer::before-destroy', after: 'peer::after-destroy' },
  'destroyed-on-disk': { before: 'peer::before-destroyed-on-disk', after: 'peer::after-destroyed-on-disk' },
  'snapshot-generated': { before: 'peer::before-snapshot-generated', after: 'peer::after-snapshot-generated' },
  'snapshot-sent': { before: 'peer::before-snapshot-sent', after: 'peer::after-snapshot-sent' },
  'snapshot-received': { before: 'peer::before-snapshot-received', after: 'peer::after-snapshot-received' },
  'snapshot-installed': { before: 'peer::before-snapshot-installed', after: 'peer::after-snapshot-installed' },
  'split-checked': { before: 'peer::before-split-checked', after: 'peer::after-split-checked' },
  'split-ids': { before: 'peer::before-split-ids', after: 'peer::after-split-ids' },
  unreachable: { before: 'peer::before-unreachable', after: 'peer::after-unreachable' },
  'pd-region': { before: 'peer::before-pd-region', after: 'peer::after-pd-region' },
  'inherit-fence': { before: 'peer::before-inherit-fence', after: 'peer::after-inherit-fence' },
  'step-refused': { before: 'peer::before-step-refused', after: 'peer::after-step-refused' },
};

export const APPLY_POINTS: Readonly<Record<ApplyTask['type'], Around>> = {
  apply: { before: 'apply-task::before-apply', after: 'apply-task::after-apply' },
  'gen-snapshot': { before: 'apply-task::before-gen-snapshot', after: 'apply-task::after-gen-snapshot' },
  destroy: { before: 'apply-task::before-destroy', after: 'apply-task::after-destroy' },
  'logs-up-to-date': { before: 'apply-task::before-logs-up-to-date', after: 'apply-task::after-logs-up-to-date' },
  noop: { before: 'apply-task::before-noop', after: 'apply-task::after-noop' },
  'batch-written': { before: 'apply-task::before-batch-written', after: 'apply-task::after-batch-written' },
  'hash-computed': { before: 'apply-task::before-hash-computed', after: 'apply-task::after-hash-computed' },
  'range-page': { before: 'apply-task::before-range-page', after: 'apply-task::after-range-page' },
};

export const STORE_POINTS: Readonly<Record<StoreMsg['type'], Around>> = {
  'peer-message': { before: 'store::before-peer-message', after: 'store::after-peer-message' },
  'range-cleaned': { before: 'store::before-range-cleaned', after: 'store::after-range-cleaned' },
};
