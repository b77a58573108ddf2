/** The checkers of sets, lists, counters, scans and times to live: sound histories pass, corrupted ones do not. */
import { describe, expect, test } from 'vitest';
import { checkHistory } from '../../../jepsen-lite/checkers.ts';
import {
  type AnyRequest,
  type HistoryEvent,
  HistoryRecorder,
  type Response,
  parseJsonl,
  toJsonl,
} from '../../../jepsen-lite/history.ts';
import { createRng, type Rng } from '../../../src/env/rng.ts';

type Step = readonly [fromMs: number, toMs: number, request: AnyRequest, answer: Response | 'fail' | 'info'];

/** A history from operations with their intervals, each by a process of its own. */
function record(steps: readonly Step[]): HistoryEvent[] {
  let now = 0;
  const recorder = new HistoryRecorder(() => now);
  const marks = steps.flatMap((step, process) => [
    { atMs: step[0], process, isCall: true, step },
    { atMs: step[1], process, isCall: false, step },
  ]);
  marks.sort((a, b) => a.atMs - b.atMs || Number(b.isCall) - Number(a.isCall) || a.process - b.process);
  for (const { atMs, process, isCall, step } of marks) {
    now = Math.max(now, atMs * 1e6);
    const answer = step[3];
    if (isCall) {
      recorder.invoke(process, step[2]);
    } else if (answer === 'fail') {
      recorder.fail(process, 'refused');
    } else if (answer === 'info') {
      recorder.info(process, 'timeout');
    } else {
      recorder.ok(process, answer);
    }
  }
  return recorder.events;
}

const promises = (steps: readonly Step[]): string[] => checkHistory(record(steps)).problems.map((p) => p.promise);
const texts = (steps: readonly Step[]): string =>
  checkHistory(record(steps))
    .problems.map((p) => p.text)
    .join('\n');

const DONE: Response = { f: 'done' };
const add = (element: string): AnyRequest => ({ f: 'add', key: 's', element });
const append = (element: string): AnyRequest => ({ f: 'append', key: 'l', element });
const increment: AnyRequest = { f: 'increment', key: 'c', by: 1 };
const readSet: AnyRequest = { f: 'read-set', key: 's' };
const readList: AnyRequest = { f: 'read-list', key: 'l' };
const readCounter: AnyRequest = { f: 'read-counter', key: 'c' };
const elements = (...all: string[]): Response => ({ f: 'elements', elements: all });
const count = (n: number): Response => ({ f: 'count', count: n });

describe('sets', () => {
  test('unknown additions may appear, acknowledged ones must stay', () => {
    const report = checkHistory(
      record([
        [0, 1, add('a'), DONE],
        [0, 5, add('b'), 'info'],
        [2, 3, readSet, elements('a')],
        [6, 7, readSet, elements('b', 'a')],
        [8, 9, add('c'), DONE],
      ]),
    );
    expect(report.problems).toEqual([]);
    expect(report.sets).toEqual({ acknowledged: 2, recovered: 1, neverRead: 1 });
  });

  test('a lost, a flickering, a refused, an unheard-of and a doubled element are noticed', () => {
    expect(
      texts([
        [0, 1, add('a'), DONE],
        [2, 3, readSet, elements()],
      ]),
    ).toContain('a (#0) was lost');
    const flicker: Step[] = [
      [0, 9, add('a'), 'info'],
      [2, 3, readSet, elements('a')],
      [4, 5, readSet, elements()],
      [6, 7, readSet, elements('a')],
    ];
    expect(texts(flicker)).toContain('missing for a while');
    expect(
      promises([
        [0, 1, add('a'), 'fail'],
        [2, 3, readSet, elements('a')],
      ]),
    ).toEqual(['set']);
    expect(promises([[2, 3, readSet, elements('x')]])).toEqual(['set']);
    expect(
      promises([
        [0, 1, add('a'), DONE],
        [2, 3, readSet, elements('a', 'a')],
      ]),
    ).toEqual(['set']);
    expect(
      promises([
        [0, 1, readSet, elements('a')],
        [2, 3, add('a'), DONE],
      ]),
    ).toEqual(['set']);
  });
});

describe('lists', () => {
  test('reads on one line of versions pass', () => {
    expect(
      promises([
        [0, 2, append('a'), DONE],
        [1, 3, append('b'), DONE],
        [2, 4, readList, elements('b')],
        [4, 5, readList, elements('b', 'a')],
        [4, 6, append('c'), 'info'],
        [7, 8, readList, elements('b', 'a', 'c')],
      ]),
    ).toEqual([]);
  });

  test('forks, lost elements, wrong order and going back are noticed', () => {
    const two: Step[] = [
      [0, 9, append('a'), DONE],
      [0, 9, append('b'), DONE],
    ];
    expect(texts([...two, [1, 8, readList, elements('a')], [1, 8, readList, elements('b', 'a')]])).toContain('differ');
    expect(
      texts([
        [0, 1, append('a'), DONE],
        [2, 3, readList, elements()],
      ]),
    ).toContain('lacks a');
    expect(
      texts([
        [0, 1, append('a'), DONE],
        [2, 3, append('b'), DONE],
        [4, 5, readList, elements('b', 'a')],
      ]),
    ).toContain('stands before');
    expect(texts([...two, [1, 2, readList, elements('a')], [3, 4, readList, elements()]])).toContain(
      'shows 0 elements after',
    );
    expect(
      promises([
        [0, 1, append('a'), 'fail'],
        [2, 3, readList, elements('a')],
      ]),
    ).toEqual(['list']);
    expect(
      promises([
        [0, 1, append('a'), DONE],
        [2, 3, readList, elements('a', 'a')],
      ]),
    ).toContain('list');
  });
});

describe('counters', () => {
  test('acknowledged increments count once, unknown ones at most once', () => {
    const steps: Step[] = [
      [0, 1, increment, DONE],
      [0, 9, increment, 'info'],
      [2, 3, increment, 'fail'],
    ];
    expect(promises([...steps, [4, 5, readCounter, count(1)], [6, 7, readCounter, count(2)]])).toEqual([]);
    expect(promises([...steps, [4, 5, readCounter, count(0)]])).toEqual(['counter']);
    expect(promises([...steps, [4, 5, readCounter, count(3)]])).toEqual(['counter']);
    expect(promises([...steps, [4, 5, readCounter, count(2)], [6, 7, readCounter, count(1)]])).toEqual(['counter']);
    expect(
      promises([
        [0, 1, readCounter, count(1)],
        [2, 3, increment, DONE],
      ]),
    ).toEqual(['counter']);
  });
});

describe('random histories of one true order', () => {
  interface Truth {
    readonly set: string[];
    readonly list: string[];
    count: number;
  }
  const draw = (rng: Rng, n: number): AnyRequest =>
    rng.pick([add(`e${n}`), append(`e${n}`), increment, readSet, readList, readCounter]);
  const execute = (truth: Truth, request: AnyRequest): Response => {
    switch (request.f) {
      case 'add':
        truth.set.push(request.element);
        return DONE;
      case 'append':
        truth.list.push(request.element);
        return DONE;
      case 'increment':
        truth.count++;
        return DONE;
      case 'read-set':
        return elements(...truth.set);
      case 'read-list':
        return elements(...truth.list);
      default:
        return count(truth.count);
    }
  };
  const history = (rng: Rng): Step[] => {
    const truth: Truth = { set: [], list: [], count: 0 };
    return Array.from({ length: 30 }, (_, n): Step => {
      // The moment it takes effect lies at 10 n; the interval around it may overlap its neighbours'.
      const request = draw(rng, n);
      const isLost = rng.chance(0.1);
      const response = isLost && rng.chance(0.5) ? DONE : execute(truth, request);
      const answer = isLost ? ('info' as const) : response;
      return [10 * n - rng.below(25) + 30, 10 * n + rng.below(25) + 30, request, answer];
    });
  };

  test('pass, and every changed answer of a late read is refused', () => {
    const rng = createRng(9);
    let corrupted = 0;
    for (let n = 0; n < 200; n++) {
      const steps = history(rng);
      expect(promises(steps), JSON.stringify(steps)).toEqual([]);
      expect(checkHistory(parseJsonl(toJsonl(record(steps)))).problems).toEqual([]);
      for (const [at, [from, to, request, answer]] of steps.entries()) {
        if (typeof answer === 'string' || answer.f === 'done') {
          continue;
        }
        const wrong: Response =
          answer.f === 'count'
            ? count(answer.count + 1000)
            : answer.f === 'elements'
              ? elements(...answer.elements, 'never-written')
              : answer;
        const changed = steps.with(at, [from, to, request, wrong]);
        expect(promises(changed).length, JSON.stringify(changed)).toBeGreaterThan(0);
        corrupted++;
      }
    }
    expect(corrupted).toBeGreaterThan(1000);
  });

  test('a dropped element of a read after everything is refused', () => {
    const rng = createRng(10);
    for (let n = 0; n < 100; n++) {
      const truth: Truth = { set: [], list: [], count: 0 };
      const steps: Step[] = [];
      for (let i = 0; i < 12; i++) {
        const request = rng.pick([add(`e${i}`), append(`e${i}`), increment]);
        steps.push([10 * i, 10 * i + 5, request, execute(truth, request)]);
      }
      const final: Step[] = [
        [900, 901, readSet, elements(...truth.set)],
        [900, 901, readList, elements(...truth.list)],
        [900, 901, readCounter, count(truth.count)],
      ];
      expect(promises([...steps, ...final])).toEqual([]);
      for (const request of [readSet, readList, readCounter]) {
        const all = request === readSet ? truth.set : truth.list;
        if (request === readCounter ? truth.count === 0 : all.length === 0) {
          continue;
        }
        const gone = rng.below(Math.max(1, all.length));
        const answer = request === readCounter ? count(truth.count - 1) : elements(...all.filter((_, i) => i !== gone));
        expect(promises([...steps, [900, 901, request, answer]]).length).toBeGreaterThan(0);
      }
    }
  });
});

describe('scans in pages', () => {
  const put = (atMs: number, key: string, value: string): Step => [atMs, atMs + 1, { f: 'put', key, value }, DONE];
  const request = (more: object = {}): AnyRequest => ({
    f: 'scan',
    start: '',
    end: '',
    limit: 9,
    isAtomic: false,
    ...more,
  });
  const part = (start: string, end: string, callMs: number, returnMs: number) => ({
    start,
    end,
    callNs: callMs * 1e6,
    returnNs: returnMs * 1e6,
  });

  test('a page speaks for its own interval only', () => {
    // `a` is written after the first page was read and before the scan ended: the first page must not show it.
    const rows = [['b', '1']] as const;
    const pages = [part('', 'aa', 10, 20), part('aa', '', 20, 60)];
    const scan: Step = [10, 60, request(), { f: 'scan', rows, coveredTo: '', parts: pages }];
    expect(promises([put(0, 'b', '1'), put(30, 'a', '2'), scan])).toEqual([]);
    expect(promises([put(0, 'b', '1'), put(5, 'a', '2'), scan])).toEqual(['linearizable']);
    const late: Step = [10, 60, request(), { f: 'scan', rows: [['a', '2'], ...rows], coveredTo: '', parts: pages }];
    expect(promises([put(0, 'b', '1'), put(30, 'a', '2'), late])).toEqual(['linearizable']);
  });

  test('descending answers are judged in their order and up to their end', () => {
    const rows = [
      ['c', '1'],
      ['a', '1'],
    ] as const;
    const all: Step[] = [put(0, 'a', '1'), put(0, 'c', '1')];
    const down = (coveredTo: string, limit = 9): Step => [
      10,
      20,
      request({ reverse: true, limit }),
      { f: 'scan', rows, coveredTo },
    ];
    expect(promises([...all, down('')])).toEqual([]);
    expect(promises([...all, put(5, 'b', '1'), down('')])).toEqual(['linearizable']);
    expect(promises([...all, down('', 1)])).toEqual(['scan-order']);
    const up: Step = [10, 20, request(), { f: 'scan', rows, coveredTo: '' }];
    expect(promises([...all, up])).toContain('scan-order');
  });

  test('gaps between pages, pages out of turn and answers cut short are noticed', () => {
    const scan = (parts: readonly object[], coveredTo = '', limit = 9): Step => [
      10,
      60,
      request({ limit }),
      { f: 'scan', rows: [], coveredTo, parts: parts as never },
    ];
    expect(promises([scan([part('', 'm', 10, 20), part('m', '', 20, 30)])])).toEqual([]);
    expect(promises([scan([part('', 'm', 10, 20), part('n', '', 20, 30)])])).toEqual(['scan-order']);
    expect(promises([scan([part('', 'm', 10, 20)])])).toEqual(['scan-order']);
    expect(promises([scan([part('', '', 5, 20)])])).toEqual(['scan-order']);
    expect(promises([scan([part('', 'm', 10, 20)], 'm')])).toEqual(['scan-order']);
  });

  test('half of a batch in one page is noticed, halves of two pages are not', () => {
    const batch = (atMs: number, value: string): Step => [
      atMs,
      atMs + 1,
      {
        f: 'batch',
        pairs: [
          ['t1', value],
          ['t2', value],
        ],
        isAtomic: true,
      },
      DONE,
    ];
    const rows = [
      ['t1', 'old'],
      ['t2', 'new'],
    ] as const;
    const scan = (pages: readonly object[]): Step => [
      10,
      60,
      request(),
      { f: 'scan', rows, coveredTo: '', parts: pages as never },
    ];
    const judge = (pages: readonly object[]): string[] =>
      checkHistory(record([batch(0, 'old'), [20, 40, batch(0, 'new')[2], DONE], scan(pages)]), {
        tagGroups: [['t1', 't2']],
      }).problems.map((p) => p.promise);
    expect(judge([part('', '', 10, 60)])).toEqual(['atomic-batch']);
    expect(judge([part('', 't2', 10, 30), part('t2', '', 30, 60)])).toEqual([]);
  });
});

describe('times to live', () => {
  const put = (atMs: number, value: string, ttlSeconds?: number): Step => [
    atMs,
    atMs + 1,
    { f: 'put', key: 'x', value, ...(ttlSeconds === undefined ? {} : { ttlSeconds }) },
    DONE,
  ];
  const get = (atMs: number, value: string | null): Step => [
    atMs,
    atMs + 1,
    { f: 'get', key: 'x' },
    { f: 'get', value },
  ];

  test('present until due, absent afterwards, in between both', () => {
    expect(promises([put(0, 'v', 10), get(5_000, 'v'), get(9_500, null), get(13_000, null)])).toEqual([]);
    expect(promises([put(0, 'v', 10), get(11_500, 'v')])).toEqual([]);
    expect(promises([put(0, 'v', 10), get(13_000, 'v')])).toEqual(['ttl']);
    expect(promises([put(0, 'v', 10), get(5_000, null)])).toEqual(['ttl']);
  });

  test('absent stays absent until a new write', () => {
    expect(promises([put(0, 'v', 10), get(9_500, null), get(9_600, 'v')])).toEqual(['ttl']);
    expect(promises([put(0, 'v', 10), get(9_500, null), put(9_550, 'w', 10), get(9_600, 'w')])).toEqual([]);
  });

  test('an overwritten value does not come back, nor does a deleted one', () => {
    expect(promises([put(0, 'v', 10), put(10, 'w', 10), get(20, 'v')])).toEqual(['ttl']);
    const drop: Step = [10, 11, { f: 'delete-range', start: 'a', end: 'z' }, DONE];
    expect(promises([put(0, 'v', 10), drop, get(20, 'v')])).toEqual(['ttl']);
    expect(promises([put(0, 'v', 10), drop, get(20, null)])).toEqual([]);
  });

  test('scans and batches of reads are judged like single reads', () => {
    const scan: Step = [
      13_000,
      13_001,
      { f: 'scan', start: 'a', end: 'z', limit: 9, isAtomic: true },
      { f: 'scan', rows: [['x', 'v']], coveredTo: 'z' },
    ];
    expect(promises([put(0, 'v', 10), scan])).toEqual(['ttl']);
    const many: Step = [
      5_000,
      5_001,
      { f: 'batch-get', keys: ['x'], isAtomic: false },
      { f: 'batch-get', values: [null] },
    ];
    expect(promises([put(0, 'v', 10), many])).toEqual(['ttl']);
  });
});
