/** The store itself as a benchmark target: one SDK connection, shared by all clients of the process. */
import { range } from '../../client/ranges.ts';
import type { Braid } from '../../client/kv.ts';
import type { BenchTarget } from './workload.ts';

export class BraidTarget implements BenchTarget {
  readonly name = 'braid';
  readonly #db: Braid;

  constructor(db: Braid) {
    this.#db = db;
  }

  async put(key: Uint8Array, value: Uint8Array): Promise<void> {
    await this.#db.put(key, value);
  }

  get(key: Uint8Array): Promise<Uint8Array | undefined> {
    return this.#db.get(key);
  }

  async scan(start: Uint8Array, end: Uint8Array, limit: number): Promise<number> {
    let found = 0;
    for await (const page of this.#db.scan(range(start, end), { limit, pageSize: limit }).pages()) {
      found += page.entries.length;
    }
    return found;
  }

  close(): Promise<void> {
    return this.#db.close();
  }
}
