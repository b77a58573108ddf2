/**
 * Apply is a deterministic function of the log: whatever the tasks, batches, delays and crashes on the way, the same
 * entries lead to the same data and to the same answers as a few lines of plain code.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fromUtf8, utf8 } from '../../src/base/bytes.ts';
import type { WriteOp } from '../../src/codec/command.ts';
import type { Entry } from '../../src/raft/types.ts';
import type { EntryOutcome } from '../../src/raftstore/msg.ts';
import { cas, del, delRange, put, sketchRegion, StoreHarness, writeEntry } from '../support/store-harness.ts';

const EPOCH = { confVer: 1, version: 1 };
const region = sketchRegion({ id: 1, start: 'b', end: 'y' });
const NOW_SECONDS = 1000;

// ------------------------------------------------------------------------------------------------ the model

type Model = Map<string, { readonly value: string; readonly expiry: number }>;

const isInside = (key: string): boolean => key >= 'b' && key < 'y';

function applyOp(model: Model, op: WriteOp): string {
  if (op.type === 'delete-range') {
    const start = fromUtf8(op.range.start);
    const end = fromUtf8(op.range.end);
    for (const key of [...model.keys()]) {
      if (key >= start && key < end) {
        model.delete(key);
      }
    }
    return 'done';
  }
  const key = fromUtf8(op.key);
  const held = model.get(key);
  switch (op.type) {
    case 'put':
      model.set(key, { value: fromUtf8(op.value), expiry: op.expireAtSeconds });
      return 'done';
    case 'delete':
      model.delete(key);
      return 'done';
    case 'expire':
      if (held !== undefined && held.expiry === op.expireAtSeconds && op.expireAtSeconds !== 0) {
        model.delete(key);
      }
      return 'done';
    case 'compare-and-swap': {
      const current =
        held === undefined || (held.expiry !== 0 && held.expiry <= op.nowSeconds) ? undefined : held.value;
      const swapped = current === (op.expected === undefined ? undefined : fromUtf8(op.expected));
      if (swapped && op.deletes) {
        model.delete(key);
      } else if (swapped) {
        model.set(key, { value: fromUtf8(op.value), expiry: op.expireAtSeconds });
      }
      return `${swapped ? 'swapped' : 'kept'} ${current ?? 'nothing'}`;
    }
  }
}

function applyToModel(model: Model, command: Command): string {
  if (!command.hasRightEpoch) {
    return 'refused epoch-not-match';
  }
  const isOwned = command.ops.every((op) =>
    op.type === 'delete-range'
      ? isInside(fromUtf8(op.range.start)) && fromUtf8(op.range.end) <= 'y'
      : isInside(fromUtf8(op.key)),
  );
  return isOwned ? command.ops.map((op) => applyOp(model, op)).join(', ') : 'refused key-not-in-region';
}

function describeOutcome(outcome: EntryOutcome | undefined): string {
  switch (outcome?.type) {
    case 'write-applied':
      return outcome.results
        .map((result) =>
          result.type === 'done'
            ? 'done'
            : `${result.swapped ? 'swapped' : 'kept'} ${result.previous === undefined ? 'nothing' : fromUtf8(result.previous)}`,
        )
        .join(', ');
    case 'refused':
      return `refused ${outcome.error.type}`;
    default:
      return outcome?.type ?? 'no answer';
  }
}

// ------------------------------------------------------------------------------------------------ histories

interface Command {
  readonly hasRightEpoch: boolean;
  readonly ops: readonly WriteOp[];
}

const key = fc.constantFrom(...'cdefghij');
const anyKey = fc.oneof({ weight: 40, arbitrary: key }, { weight: 1, arbitrary: fc.constantFrom('a', 'y', 'z') });
const value = fc.constantFrom('1', '2', '');
const expiry = fc.constantFrom(0, 0, NOW_SECONDS - 1, NOW_SECONDS + 1);

const op: fc.Arbitrary<WriteOp> = fc.oneof(
  { weight: 5, arbitrary: fc.tuple(anyKey, value, expiry).map(([k, v, e]) => put(k, v, e)) },
  { weight: 2, arbitrary: anyKey.map(del) },
  { weight: 1, arbitrary: fc.tuple(key, key).map(([a, b]) => (a < b ? delRange(a, b) : delRange(b, a))) },
  {
    weight: 4,
    arbitrary: fc
      .tuple(anyKey, fc.option(value, { nil: undefined }), value, expiry, fc.boolean())
      .map(([k, expected, v, expireAtSeconds, deletes]) =>
        cas(k, expected, v, { expireAtSeconds, deletes, nowSeconds: NOW_SECONDS }),
      ),
  },
  {
    weight: 1,
    arbitrary: fc
      .tuple(anyKey, expiry)
      .map(([k, expireAtSeconds]): WriteOp => ({ type: 'expire', key: utf8(k), expireAtSeconds })),
  },
);

const command: fc.Arbitrary<Command> = fc.record({
  hasRightEpoch: fc.oneof({ weight: 20, arbitrary: fc.constant(true) }, { weight: 1, arbitrary: fc.constant(false) }),
  ops: fc.array(op, { minLength: 1, maxLength: 5 }),
});

const history = fc.array(command, { minLength: 1, maxLength: 25 });

const entriesOf = (commands: readonly Command[]): Entry[] =>
  commands.map(({ hasRightEpoch, ops }, i) =>
    writeEntry(6 + i, hasRightEpoch ? EPOCH : { confVer: 1, version: 7 }, ops),
  );

/** How the entries are handed over: task sizes, and after which tasks rounds happen. */
const schedule = fc.array(
  fc.record({ entries: fc.integer({ min: 1, max: 6 }), rounds: fc.integer({ min: 0, max: 3 }) }),
  {
    minLength: 1,
    maxLength: 8,
  },
);
type Schedule = readonly { readonly entries: number; readonly rounds: number }[];

async function play(
  s: StoreHarness,
  entries: readonly Entry[],
  steps: Schedule,
): Promise<(EntryOutcome | undefined)[]> {
  const outcomes: EntryOutcome[][] = [];
  let at = 0;
  for (let i = 0; at < entries.length && !s.isCrashed; i++) {
    const { entries: count, rounds } = steps[i % steps.length] ?? { entries: 1, rounds: 0 };
    outcomes.push(s.apply(1, entries.slice(at, at + count)));
    at += count;
    for (let round = 0; round < rounds && !s.isCrashed; round++) {
      s.round();
      await s.clock.step();
    }
  }
  await s.run();
  return outcomes.flat();
}

async function open(cleanBatchKeys: number): Promise<StoreHarness> {
  const s = await StoreHarness.open({ cleanBatchKeys });
  await s.seed(region);
  s.start(1);
  return s;
}

async function contentOf(s: StoreHarness): Promise<Record<string, string | undefined>> {
  return Object.fromEntries((await s.keys()).map((each) => [each, s.valueOf(each)]));
}

const contentOfModel = (model: Model): Record<string, string> =>
  Object.fromEntries([...model].sort(([a], [b]) => (a < b ? -1 : 1)).map(([k, { value: v }]) => [k, v]));

describe('apply', () => {
  it('gives the answers and the data of the model however entries are handed over', async () => {
    await fc.assert(
      fc.asyncProperty(history, schedule, fc.integer({ min: 1, max: 4 }), async (commands, steps, pageKeys) => {
        const model: Model = new Map();
        const expected = commands.map((each) => applyToModel(model, each));
        const s = await open(pageKeys);
        const outcomes = await play(s, entriesOf(commands), steps);
        expect(outcomes.map(describeOutcome)).toEqual(expected);
        expect(await contentOf(s)).toEqual(contentOfModel(model));
        expect(s.applyStateOf(1)?.appliedIndex).toBe(5 + commands.length);
      }),
      { numRuns: 150 },
    );
  });

  it('comes to the same data when it crashes on the way, again and again', async () => {
    const crash = fc.record({ after: fc.integer({ min: 1, max: 6 }), isDurable: fc.boolean() });
    await fc.assert(
      fc.asyncProperty(
        history,
        schedule,
        fc.array(crash, { minLength: 1, maxLength: 4 }),
        async (commands, steps, crashes) => {
          const model: Model = new Map();
          for (const each of commands) {
            applyToModel(model, each);
          }
          const entries = entriesOf(commands);
          let s = await open(1);
          for (const { after, isDurable } of crashes) {
            if (isDurable) {
              s.crashAtWrite = s.writes + after;
            } else {
              s.crashAtSubmission = s.submissions + after;
            }
            await play(
              s,
              entries.filter((entry) => entry.index > (s.applyStateOf(1)?.appliedIndex ?? 0)),
              steps,
            );
            s = await s.restart();
            s.start(1);
          }
          const { appliedIndex } = s.applyStateOf(1) ?? { appliedIndex: 0 };
          await play(
            s,
            entries.filter((entry) => entry.index > appliedIndex),
            steps,
          );
          expect(await contentOf(s)).toEqual(contentOfModel(model));
          expect(s.applyStateOf(1)?.appliedIndex).toBe(5 + commands.length);
        },
      ),
      { numRuns: 150 },
    );
  });
});
