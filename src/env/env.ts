/** Everything a component may know of the outside world, passed explicitly. */
import type { Clock } from './clock.ts';
import type { EngineFactory } from './engine.ts';
import type { Failpoints } from './failpoints.ts';
import type { Logger } from './log.ts';
import type { Net } from './net.ts';
import type { Rng } from './rng.ts';

export interface Env {
  readonly clock: Clock;
  readonly rng: Rng;
  readonly net: Net;
  readonly engines: EngineFactory;
  readonly failpoints: Failpoints;
  readonly log: Logger;
  /** Stops the process because going on could corrupt data. `kind` chooses the exit code. Never returns. */
  abort(kind: 'bug' | 'storage', reason: string, cause?: unknown): never;
}
