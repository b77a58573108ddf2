import { describe, expect, test } from 'vitest';
import { checkCounter, checkHistory } from '../../../jepsen-lite/checkers.ts';
import {
  HistoryFormatError,
  HistoryRecorder,
  operationsOf,
  parseJsonl,
  toJsonl,
  type HistoryEvent,
  type Request,
  type Response,
} from '../../../jepsen-lite/history.ts';
import { checkRegister, type RegisterOp } from '../../../jepsen-lite/linearizability.ts';
import { createRng } from '../../../src/env/rng.ts';

const read = (i: number, callNs: number, returnNs: number, value: string | null): RegisterOp => ({
  i,
  callNs,
  returnNs,
  step: { type: 'read', value },
});
const write = (i: number, callNs: number, returnNs: number, value: string | null): RegisterOp => ({
  i,
  callNs,
  returnNs,
  step: { type: 'write', value },
});

/** All orders of up to six operations: the checker's slow and obvious rival. */
function bruteForce(ops: readonly RegisterOp[]): boolean {
  const visit = (rest: readonly RegisterOp[], state: string | null): boolean => {
    if (rest.every((op) => op.returnNs === Infinity)) {
      return true;
    }
    const firstReturn = Math.min(...rest.map((op) => op.returnNs));
    return rest.some((op) => {
      if (op.callNs > firstReturn) {
        return false;
      }
      const others = rest.filter((other) => other !== op);
      const { step } = op;
      if (step.type === 'read') {
        return step.value === state && visit(others, state);
      }
      if (step.type === 'write') {
        return visit(others, step.value);
      }
      const swaps = state === step.expected;
      const fits = step.outcome === undefined || (step.outcome.swapped === swaps && step.outcome.actual === state);
      return fits && visit(others, swaps ? step.value : state);
    });
  };
  return visit(ops, null);
}

describe('the register checker', () => {
  test('accepts what one order explains and refuses a read of an overwritten value', () => {
    expect(checkRegister([write(0, 0, 10, 'a'), read(1, 5, 6, null), read(2, 7, 12, 'a')]).type).toBe('linearizable');
    const stale = checkRegister([write(0, 0, 1, 'a'), write(1, 2, 3, 'b'), read(2, 4, 5, 'a')]);
    expect(stale).toMatchObject({ type: 'violation', placed: 2, state: 'b', stuckAt: [{ i: 2 }] });
  });

  test('an unknown write may have happened at any later time, or never', () => {
    expect(checkRegister([write(0, 0, Infinity, 'a'), read(1, 5, 6, null), read(2, 50, 60, 'a')]).type).toBe(
      'linearizable',
    );
    expect(checkRegister([write(0, 0, Infinity, 'a'), read(1, 5, 6, 'a'), read(2, 50, 60, null)]).type).toBe(
      'violation',
    );
    expect(checkRegister([write(0, 10, Infinity, 'a'), read(1, 5, 6, 'a')]).type).toBe('violation');
  });

  test('operations that touch in one instant are concurrent', () => {
    expect(checkRegister([write(0, 0, 5, 'a'), read(1, 5, 6, null)]).type).toBe('linearizable');
    expect(checkRegister([write(0, 0, 5, 'a'), read(1, 6, 7, null)]).type).toBe('violation');
  });

  test('gives up at its budget instead of guessing', () => {
    const many = Array.from({ length: 24 }, (_, i) => write(i, 0, 100, `v${i}`));
    expect(checkRegister([...many, read(99, 200, 201, 'nothing')], null, 1000).type).toBe('unknown');
  });

  test('agrees with trying all orders on random small histories', () => {
    const rng = createRng(5);
    const verdicts = { linearizable: 0, violation: 0 };
    for (let n = 0; n < 3000; n++) {
      const ops: RegisterOp[] = [];
      for (let i = 0; i < 2 + rng.below(5); i++) {
        const callNs = rng.below(20);
        const returnNs = rng.chance(0.2) ? Infinity : callNs + rng.below(10);
        const value = rng.pick([null, 'a', 'b']);
        const kind = rng.below(3);
        if (kind === 0 && returnNs !== Infinity) {
          ops.push({ i, callNs, returnNs, step: { type: 'read', value } });
        } else if (kind === 1) {
          ops.push({ i, callNs, returnNs, step: { type: 'write', value } });
        } else {
          const expected = rng.pick([null, 'a', 'b']);
          const actual = rng.pick([null, 'a', 'b']);
          ops.push({
            i,
            callNs,
            returnNs,
            step: {
              type: 'cas',
              expected,
              value,
              outcome: returnNs === Infinity ? undefined : { swapped: actual === expected, actual },
            },
          });
        }
      }
      const verdict = checkRegister(ops).type;
      expect(verdict, JSON.stringify(ops)).toBe(bruteForce(ops) ? 'linearizable' : 'violation');
      verdicts[verdict as keyof typeof verdicts]++;
    }
    expect(verdicts.linearizable).toBeGreaterThan(300);
    expect(verdicts.violation).toBeGreaterThan(300);
  });
});

function record(steps: readonly (readonly [Request, Response | 'fail' | 'info'])[]): HistoryEvent[] {
  let now = 0;
  const recorder = new HistoryRecorder(() => (now += 1_000_000));
  for (const [request, answer] of steps) {
    const process = recorder.newProcess();
    recorder.invoke(process, request);
    if (answer === 'fail') {
      recorder.fail(process, 'refused');
    } else if (answer === 'info') {
      recorder.info(process, 'timeout');
    } else {
      recorder.ok(process, answer);
    }
  }
  return recorder.events;
}

const put = (key: string, value: string): readonly [Request, Response] => [{ f: 'put', key, value }, { f: 'done' }];
const get = (key: string, value: string | null): readonly [Request, Response] => [
  { f: 'get', key },
  { f: 'get', value },
];

describe('the history checker', () => {
  test('reads a key that a scan left out as absent', () => {
    const scan = (rows: readonly (readonly [string, string])[], coveredTo = ''): readonly [Request, Response] => [
      { f: 'scan', start: '', end: '', limit: 9, isAtomic: true },
      { f: 'scan', rows, coveredTo },
    ];
    expect(
      checkHistory(
        record([
          put('a', '1'),
          put('b', '2'),
          scan([
            ['a', '1'],
            ['b', '2'],
          ]),
        ]),
      ).problems,
    ).toEqual([]);
    expect(checkHistory(record([put('a', '1'), put('b', '2'), scan([['a', '1']])])).problems).toMatchObject([
      { promise: 'linearizable', key: 'b' },
    ]);
    expect(checkHistory(record([put('a', '1'), put('b', '2'), scan([['a', '1']], 'b')])).problems).toEqual([]);
    expect(
      checkHistory(
        record([
          put('a', '1'),
          put('b', '2'),
          scan([
            ['b', '2'],
            ['a', '1'],
          ]),
        ]),
      ).problems,
    ).toMatchObject([{ promise: 'scan-order' }]);
  });

  test('a deleted range takes every key in it and nothing beside it', () => {
    const drop: readonly [Request, Response] = [{ f: 'delete-range', start: 'b', end: 'c' }, { f: 'done' }];
    expect(
      checkHistory(record([put('b1', '1'), put('c', '2'), drop, get('b1', null), get('c', '2')])).problems,
    ).toEqual([]);
    expect(checkHistory(record([put('b1', '1'), drop, get('b1', '1')])).problems).toHaveLength(1);
    expect(checkHistory(record([put('c', '1'), drop, get('c', null)])).problems).toHaveLength(1);
  });

  test('a batch is seen whole or not at all', () => {
    const batch: readonly [Request, Response] = [
      {
        f: 'batch',
        pairs: [
          ['t1', 'x'],
          ['t2', 'x'],
        ],
        isAtomic: true,
      },
      { f: 'done' },
    ];
    const both = (values: (string | null)[]): readonly [Request, Response] => [
      { f: 'batch-get', keys: ['t1', 't2'], isAtomic: true },
      { f: 'batch-get', values },
    ];
    const options = { tagGroups: [['t1', 't2']] };
    expect(checkHistory(record([batch, both(['x', 'x'])]), options).problems).toEqual([]);
    expect(checkHistory(record([batch, both(['x', null])]), options).problems.map((p) => p.promise)).toContain(
      'atomic-batch',
    );
  });

  test('a value is gone after its time and there before', () => {
    let now = 0;
    const recorder = new HistoryRecorder(() => now);
    const process = recorder.newProcess();
    const step = (atMs: number, request: Request, response: Response): void => {
      now = atMs * 1e6;
      recorder.invoke(process, request);
      now += 1e6;
      recorder.ok(process, response);
    };
    step(0, { f: 'put', key: 'x', value: 'v', ttlSeconds: 10 }, { f: 'done' });
    step(5_000, { f: 'get', key: 'x' }, { f: 'get', value: 'v' });
    step(20_000, { f: 'get', key: 'x' }, { f: 'get', value: null });
    expect(checkHistory(recorder.events).problems).toEqual([]);
    step(21_000, { f: 'get', key: 'x' }, { f: 'get', value: 'v' });
    expect(checkHistory(recorder.events).problems).toMatchObject([{ promise: 'ttl' }]);
    expect(checkHistory([...recorder.events.slice(0, 2), ...record([])]).problems).toEqual([]);
    const early = new HistoryRecorder(() => now);
    now = 0;
    early.invoke(0, { f: 'put', key: 'x', value: 'v', ttlSeconds: 100 });
    early.ok(0, { f: 'done' });
    now = 5e9;
    early.invoke(0, { f: 'get', key: 'x' });
    early.ok(0, { f: 'get', value: null });
    expect(checkHistory(early.events).problems).toMatchObject([{ promise: 'ttl' }]);
  });

  test('counters count acknowledged increments exactly once', () => {
    expect(checkCounter(5, 2, 6)).toBeUndefined();
    expect(checkCounter(5, 2, 4)).toContain('4');
    expect(checkCounter(5, 2, 8)).toContain('8');
  });

  test('histories survive being written and read', () => {
    const events = record([put('a', '1'), get('a', '1'), [{ f: 'delete', key: 'a' }, 'info']]);
    expect(parseJsonl(toJsonl(events))).toEqual(events);
    expect(operationsOf(events).map((op) => op.outcome.type)).toEqual(['ok', 'ok', 'info']);
    expect(() => parseJsonl('{"i":0}\n')).toThrow(HistoryFormatError);
    expect(() => operationsOf([{ i: 0, t: 1, process: 0, type: 'fail', error: '' }])).toThrow(HistoryFormatError);
  });
});
