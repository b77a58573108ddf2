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
  /** Runs a change after all earlier ones of documents and schedulers: each is planned on what the one before left. */
  readonly inTurn: <T>(run: () => Promise<T>) => Promise<T>;
}

export class SchedulerKeeper {
  readonly #log: SchedulerKeeperOptions['log'];
  readonly #auditor: Auditor;
  readonly #placement: Placement;
  readonly #inTurn: SchedulerKeeperOptions['inTurn'];

  constructor(options: SchedulerKeeperOptions) {
    this.#log = options.log;
    this.#auditor = options.auditor;
    this.#placement = options.placement;
    this.#inTurn = options.inTurn;
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
    return this.#inTurn(() => this.#run(name, change, options));
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
}
