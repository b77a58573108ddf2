/**
 * Paused regions. A pause belongs to keys, not to a region id: after a split both parts are paused, and a region that
 * took a paused one over by a merge already under way is paused as a whole. Pauses never overlap; the sets below are
 * kept in key order.
 */
import type { RegionId } from '../../base/ids.ts';
import { compareBytes } from '../../base/bytes.ts';
import { type KeyRange, isBeforeEnd, rangesOverlap, subtractRange } from '../../base/key-range.ts';
import type { Clock } from '../../env/clock.ts';
import { type Refusal, refuse } from '../schedule/verdict.ts';
import type { RegionInfo } from './region-info.ts';

/** Pauses at a time; more are refused. */
export const PAUSES_MAX = 1_024;
/** Longest reason, in UTF-16 units. */
export const PAUSE_REASON_MAX = 256;
/** Longest pause with an end. */
export const PAUSE_MAX_MS: number = 366 * 24 * 60 * 60 * 1_000;

export interface RegionPause {
  readonly range: KeyRange;
  /** The region that was named when it was paused. */
  readonly regionId: RegionId;
  readonly reason: string;
  readonly actor: string;
  readonly sinceWallMs: number;
  /** Wall clock of the placement service's leader; undefined = until it is resumed. */
  readonly untilWallMs: number | undefined;
}

/** What is left of the pauses when `range` is taken out of them. */
export const withoutRange = (pauses: readonly RegionPause[], range: KeyRange): RegionPause[] =>
  pauses.flatMap((pause) => subtractRange(pause.range, range).map((part) => ({ ...pause, range: part })));

/** The pauses together with a new one, which replaces whatever overlaps it. */
export const withPause = (pauses: readonly RegionPause[], pause: RegionPause): RegionPause[] =>
  [...withoutRange(pauses, pause.range), pause]
    .filter((one) => !isPauseOver(one, pause.sinceWallMs))
    .sort((a, b) => compareBytes(a.range.start, b.range.start));

export const isPauseOver = ({ untilWallMs }: RegionPause, wallMs: number): boolean =>
  untilWallMs !== undefined && untilWallMs <= wallMs;

export class Pauses {
  readonly #clock: Pick<Clock, 'wallMs'>;
  #pauses: readonly RegionPause[] = [];

  constructor(clock: Pick<Clock, 'wallMs'>) {
    this.#clock = clock;
  }

  /** Takes over what the replicated state holds now. */
  set(pauses: readonly RegionPause[]): void {
    this.#pauses = pauses;
  }

  /** The pause with the lowest keys that meets the region. */
  on({ region }: RegionInfo): RegionPause | undefined {
    const wallMs = this.#clock.wallMs();
    for (let at = this.#firstBehind(region.range.start); at < this.#pauses.length; at++) {
      const pause = this.#pauses[at] as RegionPause;
      if (!rangesOverlap(pause.range, region.range)) {
        return undefined;
      }
      if (!isPauseOver(pause, wallMs)) {
        return pause;
      }
    }
    return undefined;
  }

  /** Why nothing may be done with the region; undefined if it is not paused. */
  refusalFor(info: RegionInfo): Refusal | undefined {
    const pause = this.on(info);
    if (pause === undefined) {
      return undefined;
    }
    const { id } = info.region;
    const leftMs = pause.untilWallMs === undefined ? undefined : pause.untilWallMs - this.#clock.wallMs();
    const left = leftMs === undefined ? '' : `, for ${Math.ceil(leftMs / 1_000)} s more`;
    const why = pause.reason === '' ? '' : `: ${pause.reason}`;
    return refuse(
      'RegionPaused',
      `region ${id} was paused by ${pause.actor}${left}${why}`,
      `resume it with "ctl region resume ${id}"`,
      { region_id: id, ...(pause.untilWallMs === undefined ? {} : { until_unix_ms: pause.untilWallMs }) },
    );
  }

  /** Pauses whose time is over. */
  over(): RegionPause[] {
    const wallMs = this.#clock.wallMs();
    return this.#pauses.filter((pause) => isPauseOver(pause, wallMs));
  }

  /** Index of the first pause that ends behind `key`. */
  #firstBehind(key: Uint8Array): number {
    let [low, high] = [0, this.#pauses.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (isBeforeEnd(key, (this.#pauses[middle] as RegionPause).range.end)) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return low;
  }
}
