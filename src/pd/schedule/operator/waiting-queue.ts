/**
 * Operators that were made but not started yet. One bucket per priority, drawn by weight so that low priorities are
 * slow but never starve; first in, first out inside a bucket. A merge pair is one entry: it is taken whole or not at all.
 */
import type { Rng } from '../../../env/rng.ts';
import type { Operator, Priority } from './operator.ts';

/** One entry: a single operator, or the two halves of a merge. */
export type OperatorGroup = readonly [Operator] | readonly [Operator, Operator];

const WEIGHTS: readonly (readonly [Priority, number])[] = [
  ['low', 1],
  ['medium', 4],
  ['high', 9],
  ['urgent', 16],
];

export class WaitingQueue {
  readonly #buckets = new Map<Priority, OperatorGroup[]>(WEIGHTS.map(([priority]) => [priority, []]));
  readonly #rng: Rng;

  constructor(rng: Rng) {
    this.#rng = rng;
  }

  get length(): number {
    let sum = 0;
    for (const bucket of this.#buckets.values()) {
      sum += bucket.length;
    }
    return sum;
  }

  countOf(maker: string): number {
    return this.groups().filter(([first]) => first.maker === maker).length;
  }

  /** All entries, urgent ones last. */
  groups(): OperatorGroup[] {
    return [...this.#buckets.values()].flat();
  }

  push(group: OperatorGroup): void {
    this.#buckets.get(group[0].priority)?.push(group);
  }

  remove(group: OperatorGroup): void {
    const bucket = this.#buckets.get(group[0].priority);
    const at = bucket?.indexOf(group) ?? -1;
    if (at >= 0) {
      bucket?.splice(at, 1);
    }
  }

  /** Takes the first entry of a bucket drawn by weight among those that hold an entry `fits` accepts. */
  take(fits: (group: OperatorGroup) => boolean): OperatorGroup | undefined {
    const open: { readonly group: OperatorGroup; readonly weight: number }[] = [];
    for (const [priority, weight] of WEIGHTS) {
      const group = this.#buckets.get(priority)?.find(fits);
      if (group !== undefined) {
        open.push({ group, weight });
      }
    }
    if (open.length === 0) {
      return undefined;
    }
    let draw = this.#rng.below(open.reduce((sum, entry) => sum + entry.weight, 0));
    for (const entry of open) {
      draw -= entry.weight;
      if (draw < 0) {
        this.remove(entry.group);
        return entry.group;
      }
    }
    return undefined;
  }
}
