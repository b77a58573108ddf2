/** Checkers and schedulers of a pretend placement service: enough of them for every unit, remembered as they are changed. */
import type { adminMethods } from '../../../src/rpc/services.ts';
import type { ReplyOf, RequestOf } from './fake-admin.ts';

type WireScheduler = ReplyOf<typeof adminMethods.listSchedulers>['schedulers'][number];
type WireParameter = WireScheduler['parameters'][number];
type WireRequest = RequestOf<typeof adminMethods.changeScheduler>;

const MIB = 1024 * 1024;

const parameter = (
  name: string,
  unit: string,
  [value, min, max]: readonly [value: number, min: number, max: number],
): WireParameter => ({ name, unit, description: `says ${name}`, value, defaultValue: value, min, max });

const scheduler = (name: string, kind: string, more: Partial<WireScheduler> = {}): WireScheduler => ({
  name,
  kind,
  description: `does ${name}`,
  state: 'on',
  idleReason: '',
  offUntilUnixMs: 0,
  storeIds: [],
  version: 0,
  parameters: [],
  ...more,
});

export class FakeSchedulers {
  /** What was asked to be changed, without headers. */
  readonly changes: unknown[] = [];
  /** Why it was asked. */
  readonly reasons: string[] = [];
  #all: WireScheduler[] = [
    scheduler('scheduling', 'all'),
    scheduler('merge-checker', 'checker', {
      state: 'off',
      parameters: [
        parameter('max-merge-region-size', 'bytes', [4 * MIB, 0, 96 * MIB]),
        parameter('limit', 'count', [8, 0, 4096]),
        parameter('split-merge-interval', 'milliseconds', [300_000, 0, 604_800_000]),
      ],
    }),
    scheduler('learner-checker', 'checker'),
    scheduler('hot-region', 'scheduler', {
      state: 'off',
      offUntilUnixMs: Date.UTC(2000, 0, 1, 0, 1),
      parameters: [
        parameter('ratio', 'ratio', [1.25, 1, 100]),
        parameter('min-rate', 'bytes-per-second', [MIB, 1, MIB ** 2]),
      ],
    }),
    scheduler('grant-leader', 'scheduler', { state: 'not-added' }),
    scheduler('balance-leader', 'scheduler', { state: 'removed', version: 3 }),
  ];

  list(): ReplyOf<typeof adminMethods.listSchedulers> {
    return { schedulers: this.#all };
  }

  change({ header, name, change, dryRun, expectVersion }: WireRequest): ReplyOf<typeof adminMethods.changeScheduler> {
    this.changes.push({ name, change, dryRun, expectVersion });
    this.reasons.push(header?.reason ?? '');
    const before = this.#all.find((one) => one.name === name) as WireScheduler;
    const after = { ...changed(before, change), version: before.version + 1 };
    if (!dryRun) {
      this.#all = this.#all.map((one) => (one.name === name ? after : one));
    }
    return { scheduler: after, changed: true };
  }
}

function changed(before: WireScheduler, change: WireRequest['change']): WireScheduler {
  switch (change?.$case) {
    case 'add':
      return { ...before, state: 'on', storeIds: change.value.storeId === 0 ? [] : [change.value.storeId] };
    case 'remove':
      return { ...before, state: 'removed', storeIds: [] };
    case 'configure': {
      const { set, reset, resetAll } = change.value;
      const parameters = before.parameters.map((one) => {
        const start = resetAll || reset.includes(one.name) ? one.defaultValue : one.value;
        return { ...one, value: set.find((each) => each.name === one.name)?.value ?? start };
      });
      return { ...before, parameters };
    }
    case undefined:
      return before;
  }
}
