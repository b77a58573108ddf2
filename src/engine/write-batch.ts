/** The write batch of every engine: operations in order, collected as plain references until the queue takes them. */
import { assert } from '../base/assert.ts';
import type { WriteBatch } from '../env/engine.ts';
import { ENGINE_PREFIX } from './keyspace.ts';

export class EngineWriteBatch implements WriteBatch {
  /** Keys in order; {@link values} has the same length. */
  readonly keys: Uint8Array[] = [];
  /** Values by position; undefined deletes the key. */
  readonly values: (Uint8Array | undefined)[] = [];
  #bytes = 0;
  #taken = false;

  put(key: Uint8Array, value: Uint8Array): void {
    this.#add(key, value);
  }

  del(key: Uint8Array): void {
    this.#add(key, undefined);
  }

  get count(): number {
    return this.keys.length;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Called by the write queue: from now on the batch must not change, and it cannot be written again. */
  take(): void {
    assert(!this.#taken, 'a batch is written twice');
    this.#taken = true;
  }

  #add(key: Uint8Array, value: Uint8Array | undefined): void {
    assert(!this.#taken, 'a batch changes after it was given to the engine');
    assert(key.length > 0 && key[0] !== ENGINE_PREFIX, 'a key is empty or lies in the room of the engine', {
      length: key.length,
    });
    this.keys.push(key);
    this.values.push(value);
    this.#bytes += key.length + (value === undefined ? 0 : value.length);
  }
}
