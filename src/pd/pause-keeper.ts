/** Pauses and resumes regions for one leadership: plans on what is known, writes, then lets it take effect. */
import type { RegionId } from '../base/ids.ts';
import type { Clock } from '../env/clock.ts';
import { PAUSES_MAX } from './cluster/pauses.ts';
import type { RegionEpoch } from '../meta/region.ts';
import type { Auditor } from './auditor.ts';
import type { Placement } from './placement.ts';
import type { Operator } from './schedule/operator/operator.ts';
import { type Result, ok, refuse, refused, regionNotFound } from './schedule/verdict.ts';
import type { RegionLog } from './state/state-log.ts';

export interface PauseOptions {
  readonly reason: string;
  /** 0 = until it is resumed. */
  readonly forMs: number;
  readonly actor: string;
  /** Refused unless the region has exactly this epoch. */
  readonly expectEpoch?: RegionEpoch;
}

/** What became of the operators on the paused regions. */
export interface PauseOutcome {
  readonly stopped: readonly Operator[];
  /** Merges that the stores finish or roll back by themselves. */
  readonly going: readonly Operator[];
}

export interface PauseKeeperOptions {
  readonly clock: Pick<Clock, 'wallMs'>;
  readonly log: Pick<RegionLog, 'propose' | 'state'>;
  readonly auditor: Auditor;
  /** Runs a change of the placement logic and carries out what follows from it. */
  readonly act: <T>(change: (placement: Placement) => T) => T;
}

export class PauseKeeper {
  readonly #clock: PauseKeeperOptions['clock'];
  readonly #log: PauseKeeperOptions['log'];
  readonly #auditor: Auditor;
  readonly #act: PauseKeeperOptions['act'];
  #isForgetting = false;

  constructor(options: PauseKeeperOptions) {
    this.#clock = options.clock;
    this.#log = options.log;
    this.#auditor = options.auditor;
    this.#act = options.act;
  }

  /** Stops everything that the placement service does with a region. A crash before it is durable leaves it as it was. */
  async pause(id: RegionId, options: PauseOptions): Promise<Result<PauseOutcome>> {
    const { reason, forMs, actor, expectEpoch } = options;
    const planned = this.#act((placement) => placement.planPause(id, reason, forMs, actor, expectEpoch));
    if (planned.type === 'refused') {
      return planned;
    }
    const pause = planned.value;
    const until = forMs === 0 ? '' : ` for ${Math.ceil(forMs / 1_000)} s`;
    const result = await this.#auditor.change({ type: 'pause-range', pause }, [
      { type: 'region-paused', message: `region ${id} was paused${until}`, regionId: id, actor, reason },
    ]);
    if (result.type === 'refused') {
      return refused(
        refuse('TooManyPauses', `${PAUSES_MAX} ranges are paused already`, 'resume some regions first', {
          limit: PAUSES_MAX,
        }),
      );
    }
    return this.#act((placement) => {
      placement.resources.pauses.set(this.#log.state.pauses);
      return ok(placement.onPaused(pause));
    });
  }

  /** Whether anything of the region was paused. */
  async resume(
    id: RegionId,
    options: { readonly actor: string; readonly reason?: string; readonly expectEpoch?: RegionEpoch },
  ): Promise<Result<boolean>> {
    const { actor, reason = '' } = options;
    const found = this.#act((placement) => {
      const info = placement.cluster.tree.get(id);
      return info === undefined
        ? undefined
        : {
            range: info.region.range,
            pause: placement.resources.pauses.on(info),
            changed: placement.epochRefusal(info, options.expectEpoch),
          };
    });
    if (found === undefined) {
      return refused(regionNotFound(id));
    }
    if (found.changed !== undefined) {
      return refused(found.changed);
    }
    if (found.pause === undefined) {
      return ok(false);
    }
    await this.#auditor.change({ type: 'resume-range', range: found.range }, [
      { type: 'region-paused', message: `region ${id} was resumed`, regionId: id, actor, reason },
    ]);
    this.#act((placement) => placement.resources.pauses.set(this.#log.state.pauses));
    return ok(true);
  }

  /** Forgets pauses whose time is over; they have had no effect since then. Undefined when there is nothing to do. */
  forgetOver(): Promise<void> | undefined {
    const over = this.#act(({ resources }) => resources.pauses.over());
    if (over.length === 0 || this.#isForgetting) {
      return undefined;
    }
    this.#isForgetting = true;
    const run = async (): Promise<void> => {
      await this.#log.propose({ type: 'forget-pauses', wallMs: Math.max(0, Math.floor(this.#clock.wallMs())) });
      this.#act((placement) => {
        placement.resources.pauses.set(this.#log.state.pauses);
        for (const { regionId } of over) {
          placement.event({ type: 'region-paused', message: `the pause of region ${regionId} is over`, regionId });
        }
      });
    };
    return run().finally(() => {
      this.#isForgetting = false;
    });
  }
}
