/**
 * What a history reached: marks (lines that the stores would log, without their numbers) and the matrix of faults
 * against the states regions were in when the fault struck. Zero cells and unmet goals are work items; the goals are in
 * `scripts/sim-goals.js`.
 */
import type { Logger, LogFields } from '../../src/env/log.ts';
import { isInJointState } from '../../src/meta/region.ts';
import type { RaftStore } from '../../src/raftstore/store/raft-store.ts';
import { Tally } from './invariants/observed.ts';

const withoutNumbers = (text: string): string => text.replaceAll(/\d+/g, '#');

/** States that at least one replica of the cluster is in; `no leader` is about a whole region. */
export function statesOf(stores: readonly RaftStore[]): string[] {
  const states = new Set<string>();
  const led = new Map<number, boolean>();
  for (const store of stores) {
    for (const { fsm } of store.inspect().replicas.values()) {
      const { peer } = fsm;
      led.set(peer.regionId, peer.isLeader || led.get(peer.regionId) === true);
      if (!peer.isActive) {
        states.add('leaving');
      } else if (!peer.isInitialized) {
        states.add('uninitialized');
      } else if (peer.installing.type !== 'none') {
        states.add('installing');
      } else if (peer.pendingMerge !== undefined) {
        states.add('merging');
      } else if (peer.isSplitting) {
        states.add('splitting');
      } else if (isInJointState(peer.region)) {
        states.add('joint');
      } else if (peer.lastApplyingIndex > peer.appliedIndex) {
        states.add('applying');
      } else {
        states.add('at rest');
      }
    }
  }
  if ([...led.values()].includes(false)) {
    states.add('no leader');
  }
  return [...states];
}

export class Coverage {
  readonly #marks: Tally = new Tally();
  readonly #cells: Tally = new Tally();

  get marks(): Readonly<Record<string, number>> {
    return this.#marks.counts;
  }

  /** `kind × state` → how often the fault met the state. */
  get cells(): Readonly<Record<string, number>> {
    return this.#cells.counts;
  }

  mark(name: string): void {
    this.#marks.add(name);
  }

  onFault(kind: string, stores: readonly RaftStore[]): void {
    for (const state of statesOf(stores)) {
      this.#cells.add(`${kind} × ${state}`);
    }
  }

  /** Counts what is logged instead of writing it. */
  logger(): Logger {
    const mark = (fields: LogFields, message: string): void => {
      const why = fields['reason'] ?? fields['code'];
      this.#marks.add(typeof why === 'string' ? `${message}: ${withoutNumbers(why)}` : message);
    };
    const logger: Logger = {
      debug: () => {},
      info: mark,
      warn: mark,
      error: mark,
      child: () => logger,
      debugEnabled: false,
    };
    return logger;
  }
}
