/** Public surface of the consensus core. */
export {
  changeMembership,
  confStatesEquivalent,
  decodeConfChangeV2,
  encodeConfChangeV2,
  isLeaveJoint,
  LEAVE_JOINT,
  restoreMembership,
  tryDecodeConfChangeV2,
} from './conf-change.ts';
export { configProblem, PENDING_READS_MAX, type RaftConfig } from './config.ts';
export {
  describeEntries,
  describeEntry,
  describeHardState,
  describeMessage,
  describeProgressMap,
  describeReady,
  describeSnapshot,
  describeSoftState,
} from './describe.ts';
export {
  entriesSizeBytes,
  ENTRY_OVERHEAD_BYTES,
  entrySizeBytes,
  limitSize,
  payloadsBytes,
  UNLIMITED,
} from './entry.ts';
export { RaftInvariantError } from './errors.ts';
export { MemoryStorage, type StorageResult } from './memory-storage.ts';
export { isLocalMessage, isResponseMessage, messageProblem, newMessage, POSITION_MAX } from './message.ts';
export type { ProgressState } from './progress.ts';
export { RawNode } from './raw-node.ts';
export type { DropReason, ProgressView, ProposeResult, RaftStatus, Ready, StepResult } from './ready.ts';
export * from './types.ts';
