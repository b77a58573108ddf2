/**
 * The newest entries of one region's log in memory, so that sending to followers and applying need not read the disk.
 * Always a contiguous tail of the stored log (written or being written); evicting drops from the front.
 */
import { assert } from '../../base/assert.ts';
import type { Entry } from '../../raft/types.ts';

export class EntryCache {
  #entries: Entry[] = [];
  #head = 0;
  #bytes = 0;

  /** Payload bytes held. */
  get bytes(): number {
    return this.#bytes;
  }

  get isEmpty(): boolean {
    return this.#head >= this.#entries.length;
  }

  /** Index of the first cached entry; 0 if empty. */
  get firstIndex(): number {
    return this.isEmpty ? 0 : (this.#entries[this.#head] as Entry).index;
  }

  get(index: number): Entry | undefined {
    if (this.isEmpty) {
      return undefined;
    }
    const at = this.#head + index - this.firstIndex;
    return at < this.#head ? undefined : this.#entries[at];
  }

  /** Appends entries, first cutting away cached ones at or behind the first new index. */
  append(entries: readonly Entry[]): void {
    const first = entries[0];
    if (first === undefined) {
      return;
    }
    if (!this.isEmpty) {
      const keep = first.index - this.firstIndex;
      if (keep <= 0) {
        this.clear();
      } else if (this.#head + keep < this.#entries.length) {
        for (let i = this.#head + keep; i < this.#entries.length; i++) {
          this.#bytes -= (this.#entries[i] as Entry).data.length;
        }
        this.#entries.length = this.#head + keep;
      } else {
        assert(this.#head + keep === this.#entries.length, 'entry cache would get a hole', { first: first.index });
      }
    }
    for (const entry of entries) {
      this.#entries.push(entry);
      this.#bytes += entry.data.length;
    }
  }

  /** Drops entries up to and including `index`. */
  evictTo(index: number): void {
    let head = this.#head;
    while (head < this.#entries.length && (this.#entries[head] as Entry).index <= index) {
      this.#bytes -= (this.#entries[head] as Entry).data.length;
      head++;
    }
    this.#head = head;
    if (head === this.#entries.length) {
      this.clear();
    } else if (head > 64 && head * 2 > this.#entries.length) {
      this.#entries = this.#entries.slice(head);
      this.#head = 0;
    }
  }

  clear(): void {
    this.#entries = [];
    this.#head = 0;
    this.#bytes = 0;
  }
}
