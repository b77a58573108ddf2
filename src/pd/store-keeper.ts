/** Changes stores for one leadership: plans on what all earlier changes left, writes, then lets it take effect. */
import { assert } from '../base/assert.ts';
import type { StoreId } from '../base/ids.ts';
import type { Clock } from '../env/clock.ts';
import type { Store } from '../meta/region.ts';
import type { Auditor } from './auditor.ts';
import type { EventInput } from './cluster/events.ts';
import type { StoreRecord } from './cluster/store-info.ts';
import type { StoreSettingsChange } from './cluster/store-settings.ts';
import type { Placement } from './placement.ts';
import type { Refusal, Result } from './schedule/verdict.ts';
import type { StoreTarget } from './store-planner.ts';

/** Who asks for a change of a store, and on which version of its settings it was made. */
export interface StoreChangeOptions {
  readonly actor: string;
  readonly reason?: string;
  /** Refused unless the settings have this version. */
  readonly expectVersion?: number;
}

export interface StoreStateOptions extends StoreChangeOptions {
  readonly physicallyDestroyed: boolean;
  readonly dryRun: boolean;
}

export interface StoreKeeperOptions {
  readonly clock: Pick<Clock, 'monoMs' | 'wallMs'>;
  readonly auditor: Auditor;
  readonly placement: Placement;
}

/** Nothing to write, or a record and what people are told of it. */
type Planned = { readonly record: StoreRecord; readonly event?: EventInput } | undefined;

export class StoreKeeper {
  readonly #clock: StoreKeeperOptions['clock'];
  readonly #auditor: Auditor;
  readonly #placement: Placement;
  /** Changes run one after the other: each is planned on what the one before left. */
  #changes: Promise<unknown> = Promise.resolve();

  constructor(options: StoreKeeperOptions) {
    this.#clock = options.clock;
    this.#auditor = options.auditor;
    this.#placement = options.placement;
  }

  /** Resolves when all changes so far have ended, whichever way. */
  async flush(): Promise<void> {
    await this.#changes;
  }

  /** A store announces itself; `starts` counts its starts, this one included. */
  async put(store: Store, starts: number | undefined): Promise<Refusal | undefined> {
    const event: EventInput = {
      type: 'store-joined',
      message: `store ${store.id} joined at ${store.address}`,
      storeId: store.id,
    };
    const result = await this.#plan(store.id, (current) => {
      const planned = this.#placement.planPutStore(store, starts);
      return planned.type === 'refused'
        ? planned
        : { type: 'ok', value: { record: planned.value, ...(current === undefined ? { event } : {}) } };
    });
    return result.type === 'refused' ? result.refusal : undefined;
  }

  /** An administrator wants a store emptied, gone or back. */
  async setState(id: StoreId, target: StoreTarget, options: StoreStateOptions): Promise<Refusal | undefined> {
    const { actor, reason = '' } = options;
    const event: EventInput = {
      type: 'store-state',
      message: `store ${id} is to be ${target}`,
      storeId: id,
      actor,
      reason,
    };
    const result = await this.#plan(id, () => {
      const { physicallyDestroyed, expectVersion } = options;
      const planned = this.#placement.planStoreState(id, target, physicallyDestroyed, expectVersion);
      return planned.type === 'refused'
        ? planned
        : {
            type: 'ok',
            value: planned.value === undefined || options.dryRun ? undefined : { record: planned.value, event },
          };
    });
    return result.type === 'refused' ? result.refusal : undefined;
  }

  /** An administrator changes settings or labels of a store. */
  async setSettings(
    id: StoreId,
    change: StoreSettingsChange,
    options: StoreChangeOptions,
  ): Promise<Refusal | undefined> {
    const { actor, reason = '' } = options;
    const event: EventInput = {
      type: 'store-settings',
      message: `settings of store ${id} were changed: ${JSON.stringify(change)}`,
      storeId: id,
      actor,
      reason,
    };
    const result = await this.#plan(id, () => {
      const planned = this.#placement.planStoreSettings(id, change, options.expectVersion);
      return planned.type === 'refused'
        ? planned
        : { type: 'ok', value: planned.value === undefined ? undefined : { record: planned.value, event } };
    });
    return result.type === 'refused' ? result.refusal : undefined;
  }

  /** Keeps when a store was heard from. */
  async noteHeartbeat(id: StoreId, wallMs: number): Promise<void> {
    await this.#plan(id, (current) => ({
      type: 'ok',
      value: current === undefined ? undefined : { record: { ...current, lastHeartbeatWallMs: Math.max(wallMs, 0) } },
    }));
  }

  /** Marks an emptied store as removed, unless something was put there since. */
  async removeEmpty(id: StoreId): Promise<void> {
    const event: EventInput = { type: 'store-state', message: `store ${id} is empty and was removed`, storeId: id };
    await this.#plan(id, () => {
      const record = this.#placement.planRemovals().find((planned) => planned.store.id === id);
      return { type: 'ok', value: record === undefined ? undefined : { record, event } };
    });
  }

  /** Plans a store's next record after all earlier changes are in place, writes it, then lets it take effect. */
  #plan(id: StoreId, plan: (current: StoreRecord | undefined) => Result<Planned>): Promise<Result<Planned>> {
    const run = async (): Promise<Result<Planned>> => {
      const planned = plan(this.#placement.cluster.store(id)?.record);
      if (planned.type === 'refused' || planned.value === undefined) {
        return planned;
      }
      const { record, event } = planned.value;
      assert(record.store.id === id, 'a store change is about one store', { store: id });
      const result = await this.#auditor.change({ type: 'put-store', record }, event === undefined ? [] : [event]);
      assert(result.type === 'done', 'a store record is never refused', { store: id });
      this.#placement.cluster.applyStoreRecord(record, this.#clock.monoMs());
      return planned;
    };
    const done = this.#changes.then(run);
    // The chain goes on after a failure; the caller sees it.
    this.#changes = done.catch(() => undefined);
    return done;
  }
}
