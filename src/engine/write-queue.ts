/**
 * The one ordered writer of an engine. Un-awaited calls to LevelDB may overtake each other, so every write goes
 * through this queue: exactly one synced physical batch is in flight, and whatever arrives meanwhile is appended to
 * the next one (group commit). Any failure poisons the engine; nothing is ever tried again.
 *
 * ```text
 * write(a) ─► group 1 ─ in flight ──────────► resolved a
 * write(b) ─► group 2 ─ collecting b, c ────► in flight ─► resolved b, c
 * write(c) ───────┘
 * ```
 */
import { assert } from '../base/assert.ts';
import type { EngineGate } from './engine-gate.ts';
import type { EngineWriteBatch } from './write-batch.ts';

/** A group takes no further batch once it holds this many bytes; a single larger batch goes alone. */
export const GROUP_BYTES_MAX: number = 1024 * 1024;
/** A group takes no further batch once it holds this many operations; keeps one turn of the event loop short. */
export const GROUP_OPERATIONS_MAX = 2048;
/** Writes waiting at the same time. Callers bound their own work far below; reaching this is a bug. */
export const WAITING_WRITES_MAX: number = 1024 * 1024;

/** One physical batch in the making. */
export interface WriteGroup {
  /** Adds the operations behind all earlier ones. */
  append(batch: EngineWriteBatch): void;
  /** Writes and syncs everything as one atomic unit. Called once, and only if the group has operations. */
  commit(): Promise<void>;
}

interface Waiter {
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

class Group {
  readonly physical: WriteGroup;
  readonly waiters: Waiter[] = [];
  operations = 0;
  bytes = 0;

  constructor(physical: WriteGroup) {
    this.physical = physical;
  }

  hasRoomFor(batch: EngineWriteBatch): boolean {
    return (
      this.operations === 0 ||
      (this.operations + batch.count <= GROUP_OPERATIONS_MAX && this.bytes + batch.bytes <= GROUP_BYTES_MAX)
    );
  }
}

export class WriteQueue {
  readonly #gate: EngineGate;
  readonly #openGroup: () => WriteGroup;
  /** Groups in order; the last one takes further batches unless it is in flight. */
  #groups: Group[] = [];
  /** The group being committed, always the first of {@link #groups}. */
  #inFlight: Group | undefined;
  #isBusy = false;
  #waiting = 0;
  #idleListeners: (() => void)[] = [];

  constructor(gate: EngineGate, openGroup: () => WriteGroup) {
    this.#gate = gate;
    this.#openGroup = openGroup;
  }

  /** Appends a batch; see `Engine.write`. */
  write(batch: EngineWriteBatch): Promise<void> {
    const refusal = this.#gate.refusal();
    if (refusal !== undefined) {
      return Promise.reject(refusal);
    }
    batch.take();
    assert(this.#waiting < WAITING_WRITES_MAX, 'too many writes wait for the engine', { waiting: this.#waiting });
    return new Promise((resolve, reject) => {
      try {
        const group = this.#groupFor(batch);
        group.waiters.push({ resolve, reject });
        this.#waiting++;
        if (batch.count > 0) {
          group.physical.append(batch);
          group.operations += batch.count;
          group.bytes += batch.bytes;
        }
      } catch (error) {
        // A half-appended group must never reach the disk.
        reject(this.#fail('a write batch could not be built', error));
        return;
      }
      this.#start();
    });
  }

  /** Resolves when no accepted write is waiting any more, successful or not. */
  whenIdle(): Promise<void> {
    return this.#isBusy ? new Promise((resolve) => this.#idleListeners.push(resolve)) : Promise.resolve();
  }

  #groupFor(batch: EngineWriteBatch): Group {
    const last = this.#groups.at(-1);
    if (last !== undefined && last !== this.#inFlight && last.hasRoomFor(batch)) {
      return last;
    }
    const group = new Group(this.#openGroup());
    this.#groups.push(group);
    return group;
  }

  #start(): void {
    if (this.#isBusy) {
      return;
    }
    this.#isBusy = true;
    void this.#run();
  }

  /** Writes group after group. Never rejects: a failure ends in {@link #fail}. */
  async #run(): Promise<void> {
    // Writes of the same turn of the event loop share the first group.
    await Promise.resolve();
    for (let group = this.#groups[0]; group !== undefined; group = this.#groups[0]) {
      if (group.operations > 0) {
        this.#inFlight = group;
        try {
          await group.physical.commit();
        } catch (error) {
          this.#fail('a write to the database failed', error);
          break;
        } finally {
          this.#inFlight = undefined;
        }
      }
      if (this.#groups[0] !== group) {
        break; // Poisoned meanwhile: the waiters have been rejected.
      }
      this.#groups.shift();
      this.#waiting -= group.waiters.length;
      for (const waiter of group.waiters) {
        waiter.resolve();
      }
    }
    this.#isBusy = false;
    const listeners = this.#idleListeners;
    this.#idleListeners = [];
    for (const listener of listeners) {
      listener();
    }
  }

  /** Poisons the engine and rejects everything that waits; returns the error to reject with. */
  #fail(what: string, cause: unknown): Error {
    const groups = this.#groups;
    this.#groups = [];
    this.#waiting = 0;
    this.#gate.poison(`${what}: ${cause instanceof Error ? cause.message : String(cause)}`, cause);
    const refusal = this.#gate.refusal() as Error;
    for (const group of groups) {
      for (const waiter of group.waiters) {
        waiter.reject(refusal);
      }
    }
    return refusal;
  }
}
