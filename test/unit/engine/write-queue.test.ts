import { describe, expect, test } from 'vitest';
import { utf8 } from '../../../src/base/bytes.ts';
import { EngineGate } from '../../../src/engine/engine-gate.ts';
import { EngineWriteBatch } from '../../../src/engine/write-batch.ts';
import { GROUP_BYTES_MAX, GROUP_OPERATIONS_MAX, WriteQueue } from '../../../src/engine/write-queue.ts';
import { EngineClosedError, EnginePoisonedError } from '../../../src/env/engine.ts';
import { drainMicrotasks } from '../../support/manual-clock.ts';

interface Commit {
  readonly operations: number;
  readonly finish: () => void;
  readonly fail: (error: Error) => void;
}

/** A queue over commits that the test completes by hand. */
function bench(): { gate: EngineGate; queue: WriteQueue; commits: Commit[]; failAppend: { now: boolean } } {
  const gate = new EngineGate();
  const commits: Commit[] = [];
  const failAppend = { now: false };
  const queue = new WriteQueue(gate, () => {
    let operations = 0;
    return {
      append(batch) {
        if (failAppend.now) {
          throw new Error('no memory');
        }
        operations += batch.count;
      },
      commit: () =>
        new Promise((resolve, reject) => {
          commits.push({ operations, finish: resolve, fail: reject });
        }),
    };
  });
  return { gate, queue, commits, failAppend };
}

function batchOf(count: number, valueBytes = 1): EngineWriteBatch {
  const batch = new EngineWriteBatch();
  for (let i = 0; i < count; i++) {
    batch.put(utf8(`k${i}`), new Uint8Array(valueBytes));
  }
  return batch;
}

/** Records how promises end. */
function outcomes(): { readonly list: string[]; track(name: string, promise: Promise<void>): void } {
  const list: string[] = [];
  return {
    list,
    track(name, promise) {
      promise.then(
        () => list.push(name),
        (error: unknown) => list.push(`${name}: ${(error as { code: string }).code}`),
      );
    },
  };
}

describe('WriteQueue', () => {
  test('keeps one physical batch in flight and merges what waits into the next', async () => {
    const { queue, commits } = bench();
    const { list, track } = outcomes();
    track('a', queue.write(batchOf(1)));
    await drainMicrotasks();
    track('b', queue.write(batchOf(2)));
    track('c', queue.write(batchOf(3)));
    await drainMicrotasks();
    expect(commits.map((commit) => commit.operations)).toEqual([1]);
    commits[0]?.finish();
    await drainMicrotasks();
    expect(commits.map((commit) => commit.operations)).toEqual([1, 5]);
    expect(list).toEqual(['a']);
    commits[1]?.finish();
    await drainMicrotasks();
    expect(list).toEqual(['a', 'b', 'c']);
  });

  test('merges writes of the same turn into one physical batch', async () => {
    const { queue, commits } = bench();
    void queue.write(batchOf(1));
    void queue.write(batchOf(1));
    await drainMicrotasks();
    expect(commits.map((commit) => commit.operations)).toEqual([2]);
  });

  test('bounds a group by operations and by bytes, and lets a larger batch go alone', async () => {
    const { queue, commits } = bench();
    void queue.write(batchOf(GROUP_OPERATIONS_MAX - 1));
    void queue.write(batchOf(1));
    void queue.write(batchOf(1));
    void queue.write(batchOf(1, GROUP_BYTES_MAX * 2));
    void queue.write(batchOf(2));
    for (let i = 0; i < 4; i++) {
      await drainMicrotasks();
      commits[i]?.finish();
    }
    await drainMicrotasks();
    expect(commits.map((commit) => commit.operations)).toEqual([GROUP_OPERATIONS_MAX, 1, 1, 2]);
  });

  test('resolves empty batches in order without a physical write', async () => {
    const { queue, commits } = bench();
    const { list, track } = outcomes();
    track('empty', queue.write(batchOf(0)));
    await drainMicrotasks();
    expect(list).toEqual(['empty']);
    expect(commits).toEqual([]);
    track('full', queue.write(batchOf(1)));
    await drainMicrotasks();
    track('behind', queue.write(batchOf(0)));
    await drainMicrotasks();
    expect(list).toEqual(['empty']);
    commits[0]?.finish();
    await drainMicrotasks();
    expect(list).toEqual(['empty', 'full', 'behind']);
    expect(commits.length).toBe(1);
  });

  test('poisons the gate at the first failure, rejects everything waiting and never writes again', async () => {
    const { gate, queue, commits } = bench();
    const { list, track } = outcomes();
    const reasons: string[] = [];
    gate.onPoisoned((reason) => reasons.push(`${reason} / rejected so far: ${list.length}`));
    track('a', queue.write(batchOf(1)));
    await drainMicrotasks();
    track('b', queue.write(batchOf(1)));
    commits[0]?.fail(new Error('EIO'));
    await drainMicrotasks();
    expect(list).toEqual(['a: EnginePoisoned', 'b: EnginePoisoned']);
    expect(reasons).toEqual(['a write to the database failed: EIO / rejected so far: 0']);
    await expect(queue.write(batchOf(1))).rejects.toBeInstanceOf(EnginePoisonedError);
    await drainMicrotasks();
    expect(commits.length).toBe(1);
    expect(gate.health()).toEqual({ type: 'poisoned', reason: 'a write to the database failed: EIO' });
  });

  test('poisons when a batch cannot be appended, even while another one is in flight', async () => {
    const { gate, queue, commits, failAppend } = bench();
    const { list, track } = outcomes();
    track('a', queue.write(batchOf(1)));
    await drainMicrotasks();
    failAppend.now = true;
    track('b', queue.write(batchOf(1)));
    await drainMicrotasks();
    expect(list).toEqual(['a: EnginePoisoned', 'b: EnginePoisoned']);
    commits[0]?.finish();
    await queue.whenIdle();
    expect(commits.length).toBe(1);
    expect(gate.health().type).toBe('poisoned');
  });

  test('whenIdle waits for accepted writes', async () => {
    const { queue, commits } = bench();
    let isIdle = false;
    void queue.write(batchOf(1));
    const idle = queue.whenIdle().then(() => {
      isIdle = true;
    });
    await drainMicrotasks();
    expect(isIdle).toBe(false);
    commits[0]?.finish();
    await idle;
    await queue.whenIdle();
  });

  test('refuses writes while closing, but a failure of an accepted one still counts', async () => {
    const { gate, queue, commits } = bench();
    const { list, track } = outcomes();
    track('a', queue.write(batchOf(1)));
    await drainMicrotasks();
    gate.startClosing();
    await expect(queue.write(batchOf(1))).rejects.toBeInstanceOf(EngineClosedError);
    commits[0]?.fail(new Error('EIO'));
    await queue.whenIdle();
    gate.finishClosing();
    expect(list).toEqual(['a: EnginePoisoned']);
    expect(gate.health().type).toBe('poisoned');
  });
});
