/** Life of an operator. Every transition that is not listed is refused and changes nothing; end states are final. */

export type OperatorStatus = 'created' | 'started' | 'success' | 'canceled' | 'replaced' | 'expired' | 'timeout';

export type EndStatus = Exclude<OperatorStatus, 'created' | 'started'>;

const NEXT: Readonly<Record<OperatorStatus, readonly OperatorStatus[]>> = {
  created: ['started', 'canceled', 'expired'],
  started: ['success', 'canceled', 'replaced', 'timeout'],
  success: [],
  canceled: [],
  replaced: [],
  expired: [],
  timeout: [],
};

export const mayBecome = (from: OperatorStatus, to: OperatorStatus): boolean => NEXT[from].includes(to);

export const isEnd = (status: OperatorStatus): status is EndStatus => NEXT[status].length === 0;

/** Why an operator ended otherwise than by success; docs/placement.md explains each. */
export const END_REASON_CODES = [
  'RegionNotFound',
  'EpochNotMatch',
  'AdminStop',
  'StepStale',
  'StoreDisconnected',
  'RegionUnhealthy',
  'Timeout',
  'Expired',
  'RelatedMergeRegion',
  'TargetChanged',
  'RolledBack',
  'Replaced',
  'StoreLimit',
  'NotAdmitted',
  'StoreRefused',
] as const;

export type EndReasonCode = (typeof END_REASON_CODES)[number];

export interface EndReason {
  readonly code: EndReasonCode;
  readonly text: string;
  /** What to do about it; empty when there is nothing to do. */
  readonly hint: string;
}
