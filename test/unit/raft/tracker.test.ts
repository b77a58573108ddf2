import { describe, expect, test } from 'vitest';
import { Inflights } from '../../../src/raft/inflights.ts';
import { RaftInvariantError } from '../../../src/raft/errors.ts';
import { Progress } from '../../../src/raft/progress.ts';

const LIMITS = { maxMsgs: 256, maxBytes: 0 };

function progress(parts: Partial<Progress>): Progress {
  return Object.assign(new Progress(1, 1, false, LIMITS), parts);
}

describe('the inflight window', () => {
  test('adds at the end, also around the ring', () => {
    const window = new Inflights({ maxMsgs: 10, maxBytes: 0 });
    for (let i = 0; i < 10; i++) {
      window.add(i, 100);
    }
    window.freeLE(4);
    for (let i = 10; i < 15; i++) {
      window.add(i, 100);
    }
    expect([window.count, window.bytes, window.full]).toEqual([10, 1000, true]);
    window.freeLE(12);
    expect(window.count).toBe(2);
    window.freeLE(14);
    expect([window.count, window.bytes]).toEqual([0, 0]);
  });

  test('frees up to an index, nothing for a smaller one', () => {
    const window = new Inflights({ maxMsgs: 10, maxBytes: 0 });
    for (let i = 0; i < 10; i++) {
      window.add(i, i);
    }
    window.freeLE(0);
    expect([window.count, window.bytes]).toEqual([9, 45]);
    window.freeLE(4);
    expect([window.count, window.bytes]).toEqual([5, 35]);
    window.freeLE(2);
    expect(window.count).toBe(5);
    window.freeLE(100);
    expect(window.count).toBe(0);
  });

  test('is full by messages or by bytes, the last one may cross the byte limit', () => {
    const cases: [number, number, number, number][] = [
      // max messages, max bytes, bytes each, fit
      [0, 0, 1, 0],
      [1, 0, 1, 1],
      [10, 0, 1, 10],
      [10, 5, 2, 3],
      [10, 6, 2, 3],
      [10, 1, 100, 1],
    ];
    for (const [maxMsgs, maxBytes, bytes, fit] of cases) {
      const window = new Inflights({ maxMsgs, maxBytes });
      for (let i = 0; i < fit; i++) {
        expect(window.full).toBe(false);
        window.add(i, bytes);
      }
      expect(window.full, `${maxMsgs} ${maxBytes}`).toBe(true);
      expect(() => window.add(100, bytes)).toThrow(RaftInvariantError);
    }
  });

  test('a reset forgets messages and bytes', () => {
    const window = new Inflights({ maxMsgs: 20, maxBytes: 100 });
    for (let i = 0; i < 10; i++) {
      window.add(i, 10);
    }
    expect(window.full).toBe(true);
    window.reset();
    expect([window.count, window.bytes, window.full]).toEqual([0, 0, false]);
    window.add(1, 5);
    expect([window.count, window.bytes]).toEqual([1, 5]);
  });
});

describe('progress', () => {
  test('is paused by its flow flag while probing or replicating, always in snapshot state', () => {
    const cases: [Progress['state'], boolean, boolean][] = [
      ['probe', false, false],
      ['probe', true, true],
      ['replicate', false, false],
      ['replicate', true, true],
      ['snapshot', false, true],
      ['snapshot', true, true],
    ];
    for (const [state, flowPaused, paused] of cases) {
      expect(progress({ state, flowPaused }).paused, `${state} ${flowPaused}`).toBe(paused);
    }
  });

  test('an accepted rejection or acknowledgement ends the pause', () => {
    const p = progress({ next: 2, flowPaused: true });
    p.maybeDecrTo(1, 1);
    expect(p.flowPaused).toBe(false);
    p.flowPaused = true;
    p.maybeUpdate(2);
    expect(p.flowPaused).toBe(false);
  });

  test('becomes probe behind its match, or behind a snapshot that was sent', () => {
    const replicating = progress({ state: 'replicate', match: 1, next: 5 });
    replicating.becomeProbe();
    expect([replicating.state, replicating.match, replicating.next]).toEqual(['probe', 1, 2]);
    const waiting = progress({ state: 'snapshot', match: 1, next: 5, pendingSnapshot: 10 });
    waiting.becomeProbe();
    expect([waiting.next, waiting.pendingSnapshot]).toEqual([11, 0]);
    const failed = progress({ state: 'snapshot', match: 1, next: 5, pendingSnapshot: 0 });
    failed.becomeProbe();
    expect(failed.next).toBe(2);
  });

  test('becomes replicating behind its match', () => {
    const p = progress({ match: 1, next: 5 });
    p.becomeReplicate();
    expect([p.state, p.match, p.next]).toEqual(['replicate', 1, 2]);
  });

  test('waits for a snapshot with its index pending', () => {
    const p = progress({ match: 1, next: 5 });
    p.becomeSnapshot(10);
    expect([p.state, p.match, p.pendingSnapshot, p.next, p.sentCommit]).toEqual(['snapshot', 1, 10, 11, 10]);
  });

  test('takes acknowledgements above its match only', () => {
    const cases: [number, number, number, boolean][] = [
      [2, 3, 5, false],
      [3, 3, 5, false],
      [4, 4, 5, true],
      [5, 5, 6, true],
    ];
    for (const [index, match, next, isNews] of cases) {
      const p = progress({ match: 3, next: 5 });
      expect(p.maybeUpdate(index)).toBe(isNews);
      expect([p.match, p.next]).toEqual([match, next]);
    }
  });

  test('a rejection moves next back unless it is stale', () => {
    const cases: [Progress['state'], number, number, number, number, boolean, number][] = [
      // state, match, next, rejected, hint, taken, next afterwards
      ['replicate', 5, 10, 5, 5, false, 10],
      ['replicate', 5, 10, 4, 4, false, 10],
      ['replicate', 5, 10, 9, 9, true, 6],
      ['probe', 0, 0, 0, 0, false, 0],
      ['probe', 0, 10, 5, 5, false, 10],
      ['probe', 0, 10, 9, 9, true, 9],
      ['probe', 0, 2, 1, 1, true, 1],
      ['probe', 0, 1, 0, 0, true, 1],
      ['probe', 0, 10, 9, 2, true, 3],
      ['probe', 0, 10, 9, 0, true, 1],
      ['probe', 4, 10, 9, 2, true, 5],
    ];
    for (const [state, match, next, rejected, hint, taken, after] of cases) {
      const p = progress({ state, match, next, sentCommit: 9 });
      expect(p.maybeDecrTo(rejected, hint), `${state} ${match}/${next} ${rejected} ${hint}`).toBe(taken);
      expect([p.match, p.next]).toEqual([match, after]);
      if (taken) {
        expect(p.sentCommit).toBeLessThanOrEqual(Math.max(after - 1, 0));
      }
    }
  });

  test('a commit index is worth a message until the peer was told everything it can take', () => {
    const p = progress({ state: 'replicate', match: 5, next: 8, sentCommit: 5 });
    expect(p.canBumpCommit(5)).toBe(false);
    expect(p.canBumpCommit(6)).toBe(true);
    p.sentCommit = 7;
    expect(p.canBumpCommit(9)).toBe(false);
  });

  test('sending in snapshot state is a contradiction', () => {
    expect(() => progress({ state: 'snapshot' }).sentEntries(1, 1)).toThrow(RaftInvariantError);
  });

  test('a copy shares the window, not the state', () => {
    const p = progress({ match: 3, next: 4, state: 'replicate' });
    p.sentEntries(1, 10);
    const copy = p.clone();
    expect([copy.inflightCount, copy.inflightBytes, copy.match, copy.next]).toEqual([1, 10, 3, 5]);
    copy.match = 4;
    expect(p.match).toBe(3);
  });
});
