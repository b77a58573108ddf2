/** What the checkers share: how a broken promise is reported, and ranges of keys. */
import type { Value } from '../history.ts';

export type PromiseName =
  | 'linearizable'
  | 'scan-order'
  | 'atomic-batch'
  | 'ttl'
  | 'set'
  | 'list'
  | 'counter'
  | 'history-format';

export interface Problem {
  /** Stable name of the broken promise. */
  readonly promise: PromiseName;
  readonly key?: string;
  readonly text: string;
}

/** Whether `key` lies in [start, end); an empty end is none. Keys compare by code unit: one character per byte. */
export const inRange = (key: string, start: string, end: string): boolean => key >= start && (end === '' || key < end);

export const showValue = (value: Value): string => (value === null ? 'nothing' : value.replace(/\.{3,}$/, ''));

export const showNs = (ns: number): string => (ns === Infinity ? '…' : (ns / 1e6).toFixed(2));
