/**
 * Sliding window of append messages sent to one peer and not acknowledged (thesis 10.2.1). Holds (last index, payload
 * bytes) per message in one ring that grows by doubling and is given back when the window runs empty.
 */
import { raftPanic } from './errors.ts';

/** Limits shared by all windows of a group. */
export interface InflightLimits {
  readonly maxMsgs: number;
  /** Payload bytes; 0 means unlimited. Soft: the message that crosses it is still allowed. */
  readonly maxBytes: number;
}

/** Rings up to this many messages are kept when empty; larger ones are released. */
const KEEP_SLOTS = 8;

const NO_RING: number[] = Object.freeze([]) as unknown as number[];

export class Inflights {
  readonly #limits: InflightLimits;
  /** Pairs of last index and bytes. */
  #ring: number[] = NO_RING;
  #start = 0;
  #count = 0;
  #bytes = 0;

  constructor(limits: InflightLimits) {
    this.#limits = limits;
  }

  get count(): number {
    return this.#count;
  }

  /** Payload bytes in flight. */
  get bytes(): number {
    return this.#bytes;
  }

  get full(): boolean {
    const { maxMsgs, maxBytes } = this.#limits;
    return this.#count >= maxMsgs || (maxBytes !== 0 && this.#bytes >= maxBytes);
  }

  /** Records a message whose last entry is `lastIndex`. Must not be called when full. */
  add(lastIndex: number, bytes: number): void {
    if (this.full) {
      raftPanic('cannot add to a full inflight window', { count: this.#count, bytes: this.#bytes });
    }
    const slots = this.#ring.length >> 1;
    if (this.#count === slots) {
      this.#grow(slots);
    }
    let slot = this.#start + this.#count;
    const size = this.#ring.length >> 1;
    if (slot >= size) {
      slot -= size;
    }
    this.#ring[slot * 2] = lastIndex;
    this.#ring[slot * 2 + 1] = bytes;
    this.#count++;
    this.#bytes += bytes;
  }

  /** Removes every message whose last entry is at or below `index`. */
  freeLE(index: number): void {
    const size = this.#ring.length >> 1;
    while (this.#count > 0 && (this.#ring[this.#start * 2] as number) <= index) {
      this.#bytes -= this.#ring[this.#start * 2 + 1] as number;
      this.#start = this.#start + 1 === size ? 0 : this.#start + 1;
      this.#count--;
    }
    if (this.#count === 0) {
      this.#release();
    }
  }

  reset(): void {
    this.#count = 0;
    this.#bytes = 0;
    this.#release();
  }

  #release(): void {
    this.#start = 0;
    if (this.#ring.length > KEEP_SLOTS * 2) {
      this.#ring = NO_RING;
    }
  }

  #grow(slots: number): void {
    const wanted = Math.min(slots === 0 ? 2 : slots * 2, Math.max(this.#limits.maxMsgs, 1));
    const ring: number[] = [];
    for (let i = 0; i < this.#count; i++) {
      let slot = this.#start + i;
      if (slot >= slots) {
        slot -= slots;
      }
      ring.push(this.#ring[slot * 2] as number, this.#ring[slot * 2 + 1] as number);
    }
    for (let i = this.#count; i < wanted; i++) {
      ring.push(0, 0);
    }
    this.#ring = ring;
    this.#start = 0;
  }
}
