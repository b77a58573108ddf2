/**
 * Single-key reads that become allowed in the same synchronous turn go to the engine as one call. The call is made in
 * a microtask of that turn, before any other input is handled: nothing the permission depends on (lease, region range)
 * can have changed, and every write acknowledged before is visible.
 */
import { assert } from '../../base/assert.ts';
import type { Engine } from '../../env/engine.ts';

/** Called exactly once, with the stored bytes, with undefined for a missing key, or with the reason of a failure. */
export type ReadDone = (stored: Uint8Array | undefined, failure: Error | undefined) => void;

/** Keys per engine call; more are split, so that one call does not keep a thread for long. */
export const READ_BATCH_KEYS_MAX = 256;

export class ReadBatcher {
  readonly #engine: Engine;
  #keys: Uint8Array[] = [];
  #done: ReadDone[] = [];
  #scheduled = false;

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /** Reads `key` (a stored key) as of the current turn. */
  add(key: Uint8Array, done: ReadDone): void {
    this.#keys.push(key);
    this.#done.push(done);
    if (this.#keys.length >= READ_BATCH_KEYS_MAX) {
      this.#flush();
    } else if (!this.#scheduled) {
      this.#scheduled = true;
      queueMicrotask(() => {
        this.#scheduled = false;
        this.#flush();
      });
    }
  }

  #flush(): void {
    if (this.#keys.length === 0) {
      return;
    }
    const keys = this.#keys;
    const done = this.#done;
    this.#keys = [];
    this.#done = [];
    this.#engine.getMany(keys).then(
      (values) => {
        assert(values.length === done.length, 'the engine answers every key', {
          keys: done.length,
          values: values.length,
        });
        for (let i = 0; i < done.length; i++) {
          (done[i] as ReadDone)(values[i], undefined);
        }
      },
      (cause: unknown) => {
        const failure = cause instanceof Error ? cause : new Error(String(cause));
        for (const each of done) {
          each(undefined, failure);
        }
      },
    );
  }
}
