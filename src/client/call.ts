/**
 * One command on its way: where it may go, where it is, until when it may take. The request router owns its life;
 * a store connection only moves it between `queued` and `in-flight`.
 */
import { escapeKey } from '../base/bytes.ts';
import type { Peer } from '../meta/region.ts';
import { type Answer, type Command, isUnary, isWrite } from './command.ts';
import type { CallPhase } from './errors.ts';
import type { CachedRegion } from './region-cache.ts';
import type { StoreConn } from './store-conn.ts';
import type { WheelItem } from './timer-wheel.ts';
import type { TimerId } from '../env/clock.ts';

export type ReadMode = 'leader' | 'follower';

/** Printed length of a key in messages. */
const KEY_TEXT_MAX = 48;

/** What bounds one call. */
export interface CallLimits {
  /** Moment on the monotonic clock, ms. */
  readonly dueMs: number;
  /** What the caller asked for, for messages. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
  readonly read: ReadMode;
}

export class Call implements WheelItem {
  readonly command: Command;
  readonly isWrite: boolean;
  readonly isUnary: boolean;
  /** What the caller asked for; the deadline is `dueMs`. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
  /** Decided afresh when a follower refuses. */
  read: ReadMode;
  /** Called once with the answer and the region it came from. What it throws becomes the call's error. */
  readonly onAnswer: (answer: Answer, entry: CachedRegion) => void;
  readonly onError: (error: unknown) => void;

  phase: CallPhase | 'done' = 'routing';
  entry: CachedRegion | undefined;
  peer: Peer | undefined;
  /** Rotation of the region entry when it was routed; tells late refusals from news. */
  rotation = 0;
  conn: StoreConn | undefined;
  requestId = 0;
  /** When it was handed to the connection last, ms on the monotonic clock. */
  sentMs = 0;
  /** Tries that ended in a refusal or a failure. */
  attempts = 0;
  /** Exponent of the next delay. */
  backoffs = 0;
  /** Retries without delay in a row. */
  immediate = 0;
  /** Why the last try failed. */
  cause: unknown = undefined;
  backoffTimer: TimerId | undefined;
  onAbort: (() => void) | undefined;

  dueMs: number;
  wheelSlot = -1;
  wheelPrevious: WheelItem | undefined = undefined;
  wheelNext: WheelItem | undefined = undefined;

  constructor(
    command: Command,
    limits: CallLimits,
    onAnswer: (answer: Answer, entry: CachedRegion) => void,
    onError: (error: unknown) => void,
  ) {
    this.command = command;
    this.isWrite = isWrite(command);
    this.isUnary = isUnary(command);
    this.dueMs = limits.dueMs;
    this.timeoutMs = limits.timeoutMs;
    this.signal = limits.signal;
    this.read = this.isWrite ? 'leader' : limits.read;
    this.onAnswer = onAnswer;
    this.onError = onError;
    this.entry = undefined;
    this.peer = undefined;
    this.conn = undefined;
    this.backoffTimer = undefined;
    this.onAbort = undefined;
  }

  /** The command in words, for error messages. */
  describe(): string {
    const { command } = this;
    switch (command.type) {
      case 'batch-get':
        return `getMany of ${command.keys.length} keys`;
      case 'batch-put':
        return `writeMany of ${command.entries.length} puts`;
      case 'batch-delete':
        return `writeMany of ${command.keys.length} deletes`;
      case 'scan':
        return `scan ${command.reverse ? `down from ${keyText(command.range.end)}` : `from ${keyText(command.range.start)}`}`;
      case 'delete-range':
        return `deleteRange from ${keyText(command.range.start)}`;
      case 'compare-and-swap':
        return `compareAndSwap of ${keyText(command.key)}`;
      default:
        return `${command.type} of ${keyText(command.key)}`;
    }
  }

  /** Where the last try went, for error messages. */
  where(): string {
    if (this.entry === undefined) {
      return 'no region found yet';
    }
    const store = this.peer === undefined ? 'no reachable store' : `store ${this.peer.storeId}`;
    return `region ${this.entry.region.id} at ${store}`;
  }
}

/** A key as error messages print it. */
export function keyText(key: Uint8Array): string {
  if (key.length === 0) {
    return 'the empty key';
  }
  const text = escapeKey(key.subarray(0, KEY_TEXT_MAX));
  return key.length > KEY_TEXT_MAX ? `"${text}…" (${key.length} bytes)` : `"${text}"`;
}
