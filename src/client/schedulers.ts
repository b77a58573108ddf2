/** Checkers and schedulers of a cluster: what they are set to, adding and removing them, their parameters. */
import type { UnaryMethod } from '../rpc/method.ts';
import { adminMethods } from '../rpc/services.ts';
import type { DocumentCalls } from './documents.ts';
import { ServerRefusedError } from './errors.ts';
import type { CallOptions } from './options.ts';

type RequestOf<M> = M extends UnaryMethod<infer Request, infer _Reply> ? Request : never;
type ReplyOf<M> = M extends UnaryMethod<infer _Request, infer Reply> ? Reply : never;
type WireScheduler = ReplyOf<(typeof adminMethods)['listSchedulers']>['schedulers'][number];
type WireChange = NonNullable<RequestOf<(typeof adminMethods)['changeScheduler']>['change']>;

export interface SchedulerParameter {
  readonly name: string;
  readonly unit: 'count' | 'ratio' | 'bytes' | 'bytes-per-second' | 'milliseconds';
  readonly description: string;
  readonly value: number;
  readonly default: number;
  /** Smallest and largest value, both allowed. */
  readonly min: number;
  readonly max: number;
}

export interface SchedulerInfo {
  readonly name: string;
  /** `all` is the switch of everything automatic. */
  readonly kind: 'checker' | 'scheduler' | 'all';
  readonly description: string;
  readonly state: 'on' | 'off' | 'removed' | 'not-added';
  /** Why it does nothing now although it is on; empty when it works or is not on. */
  readonly idleReason: string;
  /** When one that is off goes on again by itself; undefined = when it is switched on. */
  readonly offUntilUnixMs: number | undefined;
  /** Stores that it is about. */
  readonly storeIds: readonly number[];
  /** Grows with each change; 0 = never changed. Pauses do not count. */
  readonly version: number;
  readonly parameters: readonly SchedulerParameter[];
}

export interface SchedulerChangeOptions extends CallOptions {
  readonly dryRun?: boolean;
  /** Refused unless the checker or scheduler has this version. */
  readonly expectVersion?: number;
}

export interface SchedulerChanged {
  /** Whether anything changed, or would. */
  readonly changed: boolean;
  /** As it is, or would be after a dry run. */
  readonly scheduler: SchedulerInfo;
}

const CHANGE_OPTIONS = ['dryRun', 'expectVersion'] as const;

export class Schedulers {
  readonly #calls: DocumentCalls;

  constructor(calls: DocumentCalls) {
    this.#calls = calls;
  }

  /** All of them, those that were removed or not added included. */
  async list(options: CallOptions = {}): Promise<readonly SchedulerInfo[]> {
    const request = { header: this.#calls.header() };
    const how = { once: false, known: [] };
    const { schedulers } = await this.#calls.call(adminMethods.listSchedulers, request, options, how);
    return schedulers.map(schedulerFromWire);
  }

  /** @param options `storeId`: the store that `grant-leader` or `evict-leader` is to be about */
  add(name: string, options: SchedulerChangeOptions & { readonly storeId?: number } = {}): Promise<SchedulerChanged> {
    return this.#change(name, { $case: 'add', value: { storeId: options.storeId ?? 0 } }, options);
  }

  /** @param options `storeId`: leave this store alone; without it the scheduler takes no part at all */
  remove(
    name: string,
    options: SchedulerChangeOptions & { readonly storeId?: number } = {},
  ): Promise<SchedulerChanged> {
    return this.#change(name, { $case: 'remove', value: { storeId: options.storeId ?? 0 } }, options);
  }

  /** Sets parameters of a checker or scheduler, or gives them back to their defaults: all together, or nothing. */
  configure(
    name: string,
    values: Readonly<Record<string, number>>,
    options: SchedulerChangeOptions & { readonly reset?: readonly string[] | 'all' } = {},
  ): Promise<SchedulerChanged> {
    const reset = options.reset ?? [];
    const value = {
      set: Object.entries(values).map(([parameter, number]) => ({ name: parameter, value: number })),
      reset: reset === 'all' ? [] : [...reset],
      resetAll: reset === 'all',
    };
    return this.#change(name, { $case: 'configure', value }, options);
  }

  async #change(name: string, change: WireChange, options: SchedulerChangeOptions): Promise<SchedulerChanged> {
    const request = {
      header: this.#calls.header(),
      name,
      change,
      dryRun: options.dryRun ?? false,
      ...(options.expectVersion === undefined ? {} : { expectVersion: options.expectVersion }),
    };
    const known = [...CHANGE_OPTIONS, change.$case === 'configure' ? 'reset' : 'storeId'];
    const reply = await this.#calls.call(adminMethods.changeScheduler, request, options, { once: true, known });
    if (reply.scheduler === undefined) {
      throw new ServerRefusedError('the placement service answered without the scheduler');
    }
    return { changed: reply.changed, scheduler: schedulerFromWire(reply.scheduler) };
  }
}

const schedulerFromWire = (wire: WireScheduler): SchedulerInfo => ({
  name: wire.name,
  kind: wire.kind as SchedulerInfo['kind'],
  description: wire.description,
  state: wire.state as SchedulerInfo['state'],
  idleReason: wire.idleReason,
  offUntilUnixMs: wire.offUntilUnixMs === 0 ? undefined : wire.offUntilUnixMs,
  storeIds: [...wire.storeIds],
  version: wire.version,
  parameters: wire.parameters.map(({ name, unit, description, value, defaultValue, min, max }) => ({
    name,
    unit: unit as SchedulerParameter['unit'],
    description,
    value,
    default: defaultValue,
    min,
    max,
  })),
});
