/** Public face of the SDK. */
export { connect, connectAdmin } from './client/real.ts';
export { connectWith } from './client/connect.ts';
export type { CallOptions, ConnectOptions, TlsOptions } from './client/options.ts';
export {
  Braid,
  type CompareAndSwapOptions,
  type CompareAndSwapResult,
  type DeleteRangeOptions,
  type DeleteRangeProgress,
  type Input,
  type KeyValue,
  type PeerInfo,
  type PutOptions,
  type PutResult,
  type ReadOptions,
  type RegionInfo,
  type ScanOptions,
  type WriteManyOptions,
  type WriteOp,
} from './client/kv.ts';
export type { LeaderTraceEvent, RetryTraceEvent, RpcTraceEvent, TraceEvent, TraceHook } from './client/trace.ts';
export type { WriteResult } from './client/batch.ts';
export type { ReadMode } from './client/call.ts';
export { Scan, type ScanPage } from './client/scan.ts';
export {
  type Codec,
  type KeyCodec,
  type TupleCodec,
  bytesCodec as bytes,
  json,
  tuple,
  u64be,
  utf8Codec as utf8,
} from './client/codecs.ts';
export { all, from, prefix, range } from './client/ranges.ts';
export type { KeyRange } from './base/key-range.ts';
export { escapeKey, unescapeKey } from './base/bytes.ts';
export type { Outcome, RetryKind } from './base/app-error.ts';
export {
  AbortError,
  BraidError,
  ClientClosedError,
  ClusterMismatchError,
  CodecError,
  DeadlineExceededError,
  EntryTooLargeError,
  InvalidArgumentError,
  OperatorFailedError,
  QueueFullError,
  RefusedError,
  type RegionErrorCode,
  RegionRefusalError,
  ServerRefusedError,
  TlsError,
  UnavailableError,
  UndeterminedResultError,
} from './client/errors.ts';
export {
  type DocumentChange,
  type DocumentCondition,
  type DocumentInfo,
  type DocumentKind,
  type DocumentList,
  type DocumentOutcome,
  type DocumentResult,
  Documents,
  DocumentsRefusedError,
} from './client/documents.ts';
export {
  type RuleChange,
  type RuleChangeOptions,
  type RuleConstraint,
  type RuleInfo,
  Rules,
  type RuleSettings,
} from './client/rules.ts';
export {
  type SchedulerChanged,
  type SchedulerChangeOptions,
  type SchedulerInfo,
  type SchedulerParameter,
  Schedulers,
} from './client/schedulers.ts';
export {
  AdminClient,
  type ExpectEpoch,
  type ExpectVersion,
  type ListRegionsOptions,
  type OperatorRequestOptions,
  type Submission,
  type WaitOperatorOptions,
} from './client/admin.ts';
export type {
  AdminPeer,
  AdminStoreState,
  AuditEntry,
  AuditPage,
  ClusterEvent,
  ClusterEvents,
  ClusterStatus,
  MergeCheck,
  MergeExplanation,
  OperatorInfo,
  OperatorPhase,
  OperatorPriority,
  OperatorStatus,
  OperatorStep,
  PauseAnswer,
  PlacementMember,
  Problem,
  ProcessSetting,
  ProcessSettings,
  RegionDetails,
  RegionFilter,
  RegionList,
  RegionNeighbourhood,
  RegionPause,
  RegionsSummary,
  StepState,
  StoreInfo,
  StoresSummary,
  StoreTarget,
  SwitchInfo,
} from './client/admin-wire.ts';
