/**
 * Which region took over the keys of a merged one, for requests and messages that still name the source. Loaded from the
 * tombstones at a start, so a crash loses nothing but the order of age.
 */
import type { RegionId } from '../../base/ids.ts';

/** Sources remembered at most; the oldest is forgotten first. */
export const MERGED_AWAY_MAX = 10_000;
/** Merges that are followed at most from a source to the region that lives. */
const HOPS_MAX = 64;

export class MergedAway {
  readonly #targets = new Map<RegionId, RegionId>();

  set(source: RegionId, target: RegionId): void {
    if (this.#targets.size >= MERGED_AWAY_MAX) {
      const [oldest] = this.#targets.keys();
      if (oldest !== undefined) {
        this.#targets.delete(oldest);
      }
    }
    this.#targets.set(source, target);
  }

  /** The first region on the way from `source` for which `find` knows something; undefined when the way ends before. */
  follow<T>(source: RegionId, find: (region: RegionId) => T | undefined): T | undefined {
    let id = this.#targets.get(source);
    for (let hops = 1; hops < HOPS_MAX && id !== undefined; hops++) {
      const found = find(id);
      if (found !== undefined) {
        return found;
      }
      id = this.#targets.get(id);
    }
    return undefined;
  }
}
