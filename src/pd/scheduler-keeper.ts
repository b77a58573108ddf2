/** Changes checkers and schedulers for one leadership: plans on what is set, writes, then lets it take effect. */
import { assert } from '../base/assert.ts';
import type { Auditor } from './auditor.ts';
import type { Author } from './cluster/events.ts';
import type { Placement } from './placement.ts';
import { type SchedulerChange, type SchedulerPlan, planSchedulerChange } from './schedule/scheduler-plan.ts';
import type { SwitchName } from './schedule/switches.ts';
import { type Result, ok } from './schedule/verdict.ts';
import type { RegionLog } from './state/state-log.ts';

export interface SchedulerChangeOptions extends Author {
  /** Only plan. */
  readonly dryRun: boolean;
  /** Refuse unless the checker or scheduler has exactly this version; undefined = whatever it has. */
  readonly expectVersion: number | undefined;
}

export interface SchedulerKeeperOptions {
  readonly log: Pick<RegionLog, 'state'>;
  readonly auditor: Auditor;
  readonly placement: Placement;
}

export class SchedulerKeeper {
  readonly #log: SchedulerKeeperOptions['log'];
  readonly #auditor: Auditor;
  readonly #placement: Placement;
  /** Changes go one after the other: each is planned on what the one before left. */
  #changes: Promise<unknown> = Promise.resolve();

  constructor(options: SchedulerKeeperOptions) {
    this.#log = options.log;
    this.#auditor = options.auditor;
    this.#placement = options.placement;
  }

  /** Takes over what earlier leaders have written. */
  load(): void {
    this.#placement.cluster.setSchedulers(this.#log.state.schedulers.values());
  }

  /**
   * All parts of a change take effect together, or none does. A crash before it is durable leaves everything as it was.
   * @throws NotLeaderError, LeadershipLostError
   */
  change(name: SwitchName, change: SchedulerChange, options: SchedulerChangeOptions): Promise<Result<SchedulerPlan>> {
    const done = this.#changes.then(() => this.#run(name, change, options));
    // The chain goes on after a failure; the caller sees it.
    this.#changes = done.catch(() => undefined);
    return done;
  }

  async #run(
    name: SwitchName,
    change: SchedulerChange,
    { dryRun, expectVersion, actor, reason }: SchedulerChangeOptions,
  ): Promise<Result<SchedulerPlan>> {
    const planned = planSchedulerChange(this.#placement.cluster, name, change, expectVersion);
    if (planned.type === 'refused' || planned.value.record === undefined || dryRun) {
      return planned;
    }
    const { record, baseVersion, text } = planned.value;
    const result = await this.#auditor.change({ type: 'change-scheduler', record, baseVersion }, [
      { type: 'scheduler-changed', message: `${name} ${text}`, actor, reason },
    ]);
    assert(result.type === 'done', 'another member changed a scheduler', { name, base: baseVersion });
    this.load();
    return ok(planned.value);
  }

  /** Resolves when no change is under way. */
  async idle(): Promise<void> {
    await this.#changes;
  }
}
