/**
 * The one way of a store's batches to its engine: in order, with their completions in the same order. Batches that
 * nobody waits for are kept back a moment and leave together with the next one that somebody waits for.
 */
import type { Clock, TimerId } from '../../env/clock.ts';
import type { Engine, WriteBatch } from '../../env/engine.ts';
import type { Failpoints } from '../../env/failpoints.ts';
import { isBiased } from '../bias.ts';

/** How long a write that nobody waits for is kept back, to join one that somebody waits for. */
const LAZY_WRITE_MS = 5;
/** Delay of `bias.ts`, for tests only. */
const LATE_COMPLETION_MS = 15;

export interface StoreWriterOptions {
  readonly engine: Engine;
  readonly clock: Clock;
  readonly failpoints: Failpoints;
  /** A stopped store hears of nothing any more. */
  readonly isStopped: () => boolean;
  /** Runs what follows a durable batch. */
  readonly run: (done: () => void) => void;
  /** A write failed: what is on disk is not known, the store must end. */
  readonly onFailure: (error: unknown) => void;
}

export class StoreWriter {
  readonly #options: StoreWriterOptions;
  #lazy: { readonly batch: WriteBatch; readonly done: () => void }[] = [];
  #timer: TimerId | undefined;
  /** Completions that a test holds back, in order. */
  readonly #late: (() => void)[] = [];

  constructor(options: StoreWriterOptions) {
    this.#options = options;
  }

  /** Writes synced, behind everything written before; `done` runs when it is durable. */
  write(batch: WriteBatch, done: () => void): void {
    const { failpoints } = this.#options;
    failpoints.hit('write::before-flush');
    this.flush();
    failpoints.hit('write::before-submit');
    this.#submit(batch, () => {
      failpoints.hit('write::before-done');
      done();
      failpoints.hit('write::after-done');
    });
  }

  /** Writes within a few milliseconds, in order with all other writes. */
  writeLazily(batch: WriteBatch, done: () => void): void {
    this.#lazy.push({ batch, done });
    if (isBiased(this.#options.failpoints, 'bias::write-at-once')) {
      this.flush();
      return;
    }
    this.#timer ??= this.#options.clock.setTimer(
      LAZY_WRITE_MS,
      () => {
        this.#timer = undefined;
        this.flush();
      },
      'lazy-writes',
    );
  }

  /** Nothing is kept back any more. */
  flush(): void {
    if (this.#timer !== undefined) {
      this.#options.clock.clearTimer(this.#timer);
      this.#timer = undefined;
    }
    if (this.#lazy.length > 0) {
      const lazy = this.#lazy;
      this.#lazy = [];
      this.#options.failpoints.hit('lazy::before-submit');
      for (const { batch, done } of lazy) {
        this.#submit(batch, done);
      }
    }
  }

  #submit(batch: WriteBatch, done: () => void): void {
    const { engine, isStopped, onFailure } = this.#options;
    engine.write(batch).then(
      () => {
        if (!isStopped()) {
          this.#complete(done);
        }
      },
      (error: unknown) => {
        if (!isStopped()) {
          onFailure(error);
        }
      },
    );
  }

  /** Hears of a durable batch now or, when a test wants it, a little later; the order of batches stays. */
  #complete(done: () => void): void {
    const { failpoints, clock, isStopped, run } = this.#options;
    if (this.#late.length > 0) {
      this.#late.push(done);
    } else if (isBiased(failpoints, 'bias::late-completion')) {
      this.#late.push(done);
      const release = (): void => {
        for (const each of this.#late.splice(0)) {
          if (!isStopped()) {
            run(each);
          }
        }
      };
      clock.setTimer(LATE_COMPLETION_MS, release, 'late-completion');
    } else {
      run(done);
    }
  }
}
