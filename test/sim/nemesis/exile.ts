/**
 * A store misses a piece of history: it is cut off while the regions of the others split, merge, move and compact their
 * logs, and comes back to find its replicas behind, merged away or removed. Alone, each of these actions rarely falls
 * into an isolation that lasts.
 */
import type { NemesisAction, NemesisKind } from '../case.ts';
import { pick, type NemesisHost } from './host.ts';

/** What happens meanwhile; how often each is drawn. */
const MEANWHILE: readonly NemesisKind[] = [
  'split',
  'merge',
  'merge',
  'compact',
  'compact',
  'move',
  'move',
  'learner',
  'learner',
  'transfer',
];
const STEP_MS = 120;
const STEPS = 10;

export class Exile {
  readonly #host: NemesisHost;
  readonly #act: (action: NemesisAction) => void;

  constructor(host: NemesisHost, act: (action: NemesisAction) => void) {
    this.#host = host;
    this.#act = act;
  }

  /** False if the action is of another kind. */
  act(action: NemesisAction): boolean {
    const { kind, a, b, c } = action;
    if (kind !== 'exile') {
      return false;
    }
    const { cluster } = this.#host;
    const store = pick([...cluster.machines.keys()], a);
    if (store === undefined) {
      return true;
    }
    const forMs = (STEPS + 2) * STEP_MS + action.forMs;
    this.#host.count(kind);
    this.#host.note(store, `store ${store} misses what happens`, forMs);
    this.#host.later(forMs, kind, cluster.isolate(store));
    for (let i = 0; i < STEPS; i++) {
      const mixed = Math.imul(b ^ Math.imul(i + 1, 0x9e3779b1), c | 1) >>> 0;
      const step: NemesisAction = {
        atMs: 0,
        kind: pick(MEANWHILE, mixed >>> 8) as NemesisKind,
        a: mixed >>> 3,
        b: Math.imul(mixed, 31) >>> 0,
        c: Math.imul(mixed, 17) >>> 0,
        forMs: STEP_MS,
      };
      // Not after the end of faults: liveness is judged on regions whose membership nobody changes any more.
      this.#host.soon((i + 1) * STEP_MS, () => this.#act(step));
    }
    return true;
  }
}
