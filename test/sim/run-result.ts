/** What one simulated history came to. */
import type { KeyRange } from '../../src/base/key-range.ts';
import type { HistoryEvent } from '../../jepsen-lite/history.ts';

/** What the cases of all worlds have in common. */
export interface AnyCase {
  readonly seed: number;
  readonly profile: string;
  readonly config: { readonly world: string; readonly stores: number };
  readonly schedule: readonly { readonly atMs: number; readonly kind: string }[];
}

export interface RunFailure {
  /** Stable name of what was broken: an invariant, a promise to clients, `liveness`, `fail-stop`, `vacuous` or `crash`. */
  readonly invariant: string;
  readonly message: string;
  readonly atMs: number;
  readonly event: number;
}

export interface RunStats {
  readonly events: number;
  readonly virtualMs: number;
  readonly ok: number;
  readonly failed: number;
  readonly unknown: number;
  readonly actions: Readonly<Record<string, number>>;
  readonly checks: Readonly<Record<string, number>>;
  /** See `coverage.ts`. */
  readonly marks?: Readonly<Record<string, number>>;
  readonly cells?: Readonly<Record<string, number>>;
  /** How often each failpoint was passed. */
  readonly points?: Readonly<Record<string, number>>;
}

export interface RunResult {
  readonly case: AnyCase;
  readonly failure: RunFailure | undefined;
  readonly stats: RunStats;
  readonly traceHash: string;
  readonly checkpoints: readonly string[];
  readonly history: readonly HistoryEvent[];
  readonly timeline: readonly TimelineEntry[];
  /** Names of the lanes of the timeline; by default the cluster and its stores. */
  readonly lanes?: readonly string[];
}

/** A line of the story, for the trace page. */
export interface TimelineEntry {
  readonly atMs: number;
  /** Store number; 0 for the cluster as a whole. */
  readonly lane: number;
  readonly kind: 'fault' | 'region' | 'role' | 'message' | 'note';
  readonly text: string;
  /** End of a fault; arrival of a message, absent if it never arrived. */
  untilMs?: number;
  /** For messages: the receiving store. */
  readonly to?: number;
  /** For roles: the descriptor that the replica has from here on. */
  readonly region?: SeenRegion;
}

export interface SeenRegion {
  readonly id: number;
  readonly version: number;
  readonly confVer: number;
  readonly range: KeyRange;
  readonly isMerging: boolean;
}
