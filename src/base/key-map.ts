/** An ordered map from byte strings to values (a B+ tree; see the `sorted-btree` package). Keys must not be mutated. */
import sortedBtree from 'sorted-btree';
import { compareBytes } from './bytes.ts';

const BTree = (sortedBtree as unknown as { default?: typeof sortedBtree }).default ?? sortedBtree;

export class KeyMap<V> {
  #tree: InstanceType<typeof sortedBtree.default<Uint8Array, V>>;

  constructor() {
    this.#tree = new (BTree as unknown as typeof sortedBtree.default)<Uint8Array, V>(undefined, compareBytes);
  }

  get size(): number {
    return this.#tree.size;
  }

  get(key: Uint8Array): V | undefined {
    return this.#tree.get(key);
  }

  has(key: Uint8Array): boolean {
    return this.#tree.has(key);
  }

  set(key: Uint8Array, value: V): void {
    this.#tree.set(key, value, true);
  }

  delete(key: Uint8Array): boolean {
    return this.#tree.delete(key);
  }

  clear(): void {
    this.#tree.clear();
  }

  /** The entry with the greatest key at or below `key`. */
  floor(key: Uint8Array): [Uint8Array, V] | undefined {
    return this.#tree.getPairOrNextLower(key);
  }

  /** The entry with the greatest key strictly below `key`. */
  lower(key: Uint8Array): [Uint8Array, V] | undefined {
    return this.#tree.nextLowerPair(key);
  }

  /** The entry with the smallest key at or above `key`. */
  ceiling(key: Uint8Array): [Uint8Array, V] | undefined {
    return this.#tree.getPairOrNextHigher(key);
  }

  /** The entry with the smallest key strictly above `key`. */
  higher(key: Uint8Array): [Uint8Array, V] | undefined {
    return this.#tree.nextHigherPair(key);
  }

  last(): [Uint8Array, V] | undefined {
    const key = this.#tree.maxKey();
    return key === undefined ? undefined : [key, this.#tree.get(key) as V];
  }

  /** Entries in key order from `start` (inclusive). The map must not change while iterating. */
  entriesFrom(start: Uint8Array): IterableIterator<[Uint8Array, V]> {
    return this.#tree.entries(start);
  }

  /** Entries in descending key order, all below `end` (exclusive; empty = no bound). The map must not change while iterating. */
  entriesBelow(end: Uint8Array): IterableIterator<[Uint8Array, V]> {
    return end.length === 0 ? this.#tree.entriesReversed() : this.#tree.entriesReversed(end, undefined, true);
  }

  /** A map with the same entries that changes independently; nodes are shared until either side writes to them. */
  clone(): KeyMap<V> {
    const copy = new KeyMap<V>();
    copy.#tree = this.#tree.clone();
    return copy;
  }

  entries(): IterableIterator<[Uint8Array, V]> {
    return this.#tree.entries();
  }

  values(): IterableIterator<V> {
    return this.#tree.values();
  }
}
