/**
 * The log as one leadership sees it: everything is proposed in that one term, so nothing a former leader still had in
 * mind can take effect in a later leadership, not even one of the same member.
 */
import type { RegionId } from '../../base/ids.ts';
import type { Clock, TimerId } from '../../env/clock.ts';
import type { Region } from '../../meta/region.ts';
import type { PdCommand, PdResult, PdState } from '../state/pd-state.ts';
import type { RegionLog } from '../state/state-log.ts';
import { GroupBusyError } from './errors.ts';
import type { PdGroup } from './group-loop.ts';

/** Region changes in one entry. */
const REGIONS_PER_ENTRY_MAX = 1_024;
/** Pause after the group was too busy for region changes; nobody waits for them. */
const BUSY_PAUSE_MS = 500;

export class TermLog implements RegionLog {
  readonly term: number;
  readonly #group: PdGroup;
  readonly #clock: Clock;
  /** Region descriptors to write; undefined = delete. Only the last one per id is written. */
  readonly #regions = new Map<RegionId, Region | undefined>();
  #writing: Promise<void> | undefined;
  #pause: TimerId | undefined;
  #isClosed = false;

  constructor(options: { readonly group: PdGroup; readonly clock: Clock; readonly term: number }) {
    this.#group = options.group;
    this.#clock = options.clock;
    this.term = options.term;
  }

  get state(): PdState {
    return this.#group.state;
  }

  /** @throws NotLeaderError, LeadershipLostError, GroupBusyError */
  propose(command: PdCommand): Promise<PdResult> {
    return this.#group.propose(this.term, { type: 'command', command });
  }

  saveRegion(region: Region): void {
    this.#regions.set(region.id, region);
    this.#start();
  }

  deleteRegion(id: RegionId): void {
    this.#regions.set(id, undefined);
    this.#start();
  }

  async flush(): Promise<void> {
    while (this.#writing !== undefined) {
      await this.#writing;
    }
  }

  /** Region changes that were not written yet are forgotten: leaders of regions report again. */
  close(): void {
    this.#isClosed = true;
    this.#regions.clear();
    if (this.#pause !== undefined) {
      this.#clock.clearTimer(this.#pause);
    }
  }

  #start(): void {
    if (this.#writing === undefined && this.#pause === undefined && !this.#isClosed) {
      this.#writing = this.#run().finally(() => {
        this.#writing = undefined;
        if (this.#regions.size > 0) {
          this.#start();
        }
      });
    }
  }

  async #run(): Promise<void> {
    // Let changes of the same turn join the entry.
    await Promise.resolve();
    while (this.#regions.size > 0 && !this.#isClosed) {
      const taken = [...this.#regions].slice(0, REGIONS_PER_ENTRY_MAX);
      for (const [id] of taken) {
        this.#regions.delete(id);
      }
      try {
        await this.#group.propose(this.term, {
          type: 'regions',
          changes: {
            saves: taken.map(([, region]) => region).filter((region) => region !== undefined),
            deletes: taken.filter(([, region]) => region === undefined).map(([id]) => id),
          },
        });
      } catch (cause) {
        if (!(cause instanceof GroupBusyError)) {
          // This leadership is over.
          this.close();
          return;
        }
        for (const [id, region] of taken) {
          if (!this.#regions.has(id)) {
            this.#regions.set(id, region);
          }
        }
        this.#pauseWriting();
        return;
      }
    }
  }

  #pauseWriting(): void {
    this.#pause = this.#clock.setTimer(
      BUSY_PAUSE_MS,
      () => {
        this.#pause = undefined;
        this.#start();
      },
      'pd-regions-pause',
    );
  }
}
