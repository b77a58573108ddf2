/** A FIFO with a fixed limit. The caller names what happens on overflow by looking at the result of `push`. */
import { assert } from './assert.ts';

export class BoundedQueue<T> {
  readonly #limit: number;
  #items: (T | undefined)[] = [];
  #head = 0;

  constructor(limit: number) {
    assert(Number.isSafeInteger(limit) && limit > 0, 'queue limit must be a positive integer', { limit });
    this.#limit = limit;
  }

  get length(): number {
    return this.#items.length - this.#head;
  }

  get isFull(): boolean {
    return this.length >= this.#limit;
  }

  /** Appends unless the queue is full; tells whether it did. */
  push(item: T): boolean {
    if (this.isFull) {
      return false;
    }
    this.#items.push(item);
    return true;
  }

  /** Appends even beyond the limit. Only for messages that the protocol forbids to drop. */
  forcePush(item: T): void {
    this.#items.push(item);
  }

  shift(): T | undefined {
    if (this.#head >= this.#items.length) {
      return undefined;
    }
    const item = this.#items[this.#head];
    this.#items[this.#head] = undefined;
    this.#head++;
    if (this.#head > 64 && this.#head * 2 > this.#items.length) {
      this.#items = this.#items.slice(this.#head);
      this.#head = 0;
    }
    return item;
  }

  /** Removes and returns everything. */
  drain(): T[] {
    const items = this.#items.slice(this.#head) as T[];
    this.#items = [];
    this.#head = 0;
    return items;
  }
}
