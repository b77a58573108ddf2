/**
 * Deadlines of many calls with one timer (hashed timing wheel, Varghese and Lauck 1987). Adding and removing cost a
 * few assignments; the platform timer is set only for the earliest slot in use, so that an idle client has none.
 */
import type { Clock, TimerId } from '../env/clock.ts';

/** What can wait in a wheel. The fields belong to the wheel. */
export interface WheelItem {
  /** Moment on the monotonic clock, ms. Must not change while the item is in the wheel. */
  dueMs: number;
  /** -1 while the item is in no wheel. */
  wheelSlot: number;
  wheelPrevious: WheelItem | undefined;
  wheelNext: WheelItem | undefined;
}

/** Width of one slot, ms: how much later than its due moment an item may be served because others share the timer. */
const SLOT_MS = 4;
const SLOTS = 2048;

export class TimerWheel<T extends WheelItem> {
  readonly #clock: Clock;
  readonly #tag: string;
  readonly #onDue: (item: T) => void;
  readonly #slots: (T | undefined)[] = new Array<T | undefined>(SLOTS).fill(undefined);
  #count = 0;
  #timer: TimerId | undefined;
  /** Tick (multiple of SLOT_MS) for which the timer is set. */
  #armedTick = Infinity;
  /** All slots of ticks up to this one have been served. */
  #servedTick: number;

  constructor(clock: Clock, tag: string, onDue: (item: T) => void) {
    this.#clock = clock;
    this.#tag = tag;
    this.#onDue = onDue;
    this.#servedTick = Math.floor(clock.monoMs() / SLOT_MS);
  }

  get size(): number {
    return this.#count;
  }

  /** `nowMs` is the current monotonic time, passed because callers have just read it. */
  add(item: T, nowMs: number): void {
    if (this.#count === 0) {
      this.#servedTick = Math.floor(nowMs / SLOT_MS);
    }
    const tick = Math.max(Math.ceil(item.dueMs / SLOT_MS), this.#servedTick + 1);
    const slot = tick % SLOTS;
    const head = this.#slots[slot];
    item.wheelSlot = slot;
    item.wheelPrevious = undefined;
    item.wheelNext = head;
    if (head !== undefined) {
      head.wheelPrevious = item;
    }
    this.#slots[slot] = item;
    this.#count++;
    if (tick < this.#armedTick) {
      this.#arm(tick, nowMs);
    }
  }

  remove(item: T): void {
    if (item.wheelSlot < 0) {
      return;
    }
    if (item.wheelPrevious === undefined) {
      this.#slots[item.wheelSlot] = item.wheelNext as T | undefined;
    } else {
      item.wheelPrevious.wheelNext = item.wheelNext;
    }
    if (item.wheelNext !== undefined) {
      item.wheelNext.wheelPrevious = item.wheelPrevious;
    }
    item.wheelSlot = -1;
    item.wheelPrevious = undefined;
    item.wheelNext = undefined;
    this.#count--;
  }

  /** Stops the timer and returns all items, none of which is in the wheel any more. */
  drain(): T[] {
    if (this.#timer !== undefined) {
      this.#clock.clearTimer(this.#timer);
      this.#timer = undefined;
    }
    this.#armedTick = Infinity;
    const items: T[] = [];
    for (let slot = 0; slot < SLOTS; slot++) {
      for (let item = this.#slots[slot]; item !== undefined; item = this.#slots[slot]) {
        this.remove(item);
        items.push(item);
      }
    }
    return items;
  }

  #arm(tick: number, nowMs: number): void {
    if (this.#timer !== undefined) {
      this.#clock.clearTimer(this.#timer);
    }
    this.#armedTick = tick;
    this.#timer = this.#clock.setTimer(Math.max(0, tick * SLOT_MS - nowMs), this.#fire, this.#tag);
  }

  readonly #fire = (): void => {
    this.#timer = undefined;
    this.#armedTick = Infinity;
    const nowTick = Math.floor(this.#clock.monoMs() / SLOT_MS);
    const due: T[] = [];
    const first = Math.max(this.#servedTick + 1, nowTick - SLOTS + 1);
    for (let tick = first; tick <= nowTick; tick++) {
      for (let item = this.#slots[tick % SLOTS]; item !== undefined; item = item.wheelNext as T | undefined) {
        if (Math.ceil(item.dueMs / SLOT_MS) <= nowTick) {
          due.push(item);
        }
      }
    }
    this.#servedTick = Math.max(this.#servedTick, nowTick);
    for (const item of due) {
      // An earlier item's handler may have removed this one.
      if (item.wheelSlot >= 0) {
        this.remove(item);
        this.#onDue(item);
      }
    }
    this.#armNext();
  };

  /** Wakes at the next slot in use, even if its items are due only in a later round of the wheel. */
  #armNext(): void {
    if (this.#count === 0) {
      return;
    }
    for (let tick = this.#servedTick + 1; tick <= this.#servedTick + SLOTS; tick++) {
      if (this.#slots[tick % SLOTS] !== undefined) {
        if (tick < this.#armedTick) {
          this.#arm(tick, this.#clock.monoMs());
        }
        return;
      }
    }
  }
}
