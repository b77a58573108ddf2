/**
 * Linearizable reads through the quorum (thesis 6.4; etcd-io/raft: read_only.go). A leader numbers the reads of its
 * leadership; heartbeats carry the newest number, members echo it, and the largest number that a quorum has echoed
 * confirms every read up to it. Numbers come from the leader and only grow, so neither a duplicated message nor a
 * context used twice can confirm the wrong read.
 */
import { EMPTY_BYTES, equalBytes } from '../base/bytes.ts';
import type { Message } from './types.ts';

const CONTEXT_BYTES = 8;

/** Heartbeat context that asks to confirm every read up to `position`. */
export function positionToContext(position: number): Uint8Array {
  const out = new Uint8Array(CONTEXT_BYTES);
  const view = new DataView(out.buffer);
  view.setUint32(0, Math.floor(position / 2 ** 32));
  view.setUint32(4, position % 2 ** 32);
  return out;
}

/** Reverse of {@link positionToContext}; 0 for anything else. */
export function contextToPosition(context: Uint8Array): number {
  if (context.length !== CONTEXT_BYTES) {
    return 0;
  }
  const view = new DataView(context.buffer, context.byteOffset, CONTEXT_BYTES);
  const position = view.getUint32(0) * 2 ** 32 + view.getUint32(4);
  return Number.isSafeInteger(position) ? position : 0;
}

/** A read that waits for confirmation. */
export interface WaitingRead {
  readonly position: number;
  /** Commit index when the read arrived: what the requester must have applied. */
  readonly index: number;
  /** The request; its single entry is the requester's context. */
  readonly request: Message;
}

/** The reads of one leadership that are not confirmed, oldest first. */
export class ReadQueue {
  #waiting: WaitingRead[] = [];
  #lastPosition = 0;

  get length(): number {
    return this.#waiting.length;
  }

  /** Number of the newest read ever queued. */
  get lastPosition(): number {
    return this.#lastPosition;
  }

  add(request: Message, index: number): number {
    this.#lastPosition++;
    this.#waiting.push({ position: this.#lastPosition, index, request });
    return this.#lastPosition;
  }

  /** What regular heartbeats carry: the newest position while something waits, so that a lost round is repeated. */
  heartbeatContext(): Uint8Array {
    return this.#waiting.length === 0 ? EMPTY_BYTES : positionToContext(this.#lastPosition);
  }

  /** Removes and returns the reads up to `position`, in order. */
  confirm(position: number): readonly WaitingRead[] {
    let n = 0;
    while (n < this.#waiting.length && (this.#waiting[n] as WaitingRead).position <= position) {
      n++;
    }
    return this.#waiting.splice(0, n);
  }

  /** Whether a read with this position is waiting. */
  isWaiting(position: number): boolean {
    const first = this.#waiting[0];
    return first !== undefined && position >= first.position;
  }

  /** Context of the newest waiting read; only for planted defects. */
  newestContext(): Uint8Array {
    return this.#waiting[this.#waiting.length - 1]?.request.entries[0]?.data ?? EMPTY_BYTES;
  }

  /** The waiting read with an equal context; only for planted defects. */
  byContext(context: Uint8Array): WaitingRead | undefined {
    return this.#waiting.find((w) => equalBytes(w.request.entries[0]?.data ?? EMPTY_BYTES, context));
  }
}
