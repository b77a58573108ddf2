/**
 * Which sites of `raftstore/bias.ts` bend the program's choices in one run. Two levels of chance, as in FoundationDB:
 * few sites are active in a run, and an active site fires at some of its passes, so that single sites are seen at
 * work long enough and seldom all of them together.
 */
import { FAILPOINT_NAMES } from '../../../src/env/failpoint-names.ts';
import type { Rng } from '../../../src/env/rng.ts';
import { type BiasName, isBiasName } from '../../../src/raftstore/bias.ts';

export const BIAS_NAMES: readonly BiasName[] = FAILPOINT_NAMES.filter(isBiasName);

const ACTIVE_CHANCE = 0.25;
const FIRE_CHANCE = 0.25;

export class Bias {
  readonly #rng: Rng;
  readonly #active: ReadonlySet<BiasName>;
  readonly #count: (name: string) => void;

  constructor(rng: Rng, count: (name: string) => void) {
    this.#rng = rng.fork('fires');
    const active = rng.fork('active');
    this.#active = new Set(BIAS_NAMES.filter(() => active.chance(ACTIVE_CHANCE)));
    this.#count = count;
  }

  fires(name: BiasName): boolean {
    if (!this.#active.has(name) || !this.#rng.chance(FIRE_CHANCE)) {
      return false;
    }
    this.#count(name);
    return true;
  }
}
