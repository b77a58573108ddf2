/**
 * Deletes data that no live region owns any more. A task is noted durably in the batch that gives the range up, runs in
 * bounded batches and is started again after a crash. Ranges of live regions are never touched: the region map is asked
 * in the same synchronous turn that submits a batch, so a batch either precedes everything a new owner writes, or is
 * not written.
 *
 * The peer that gave the range up may still be in the map for a moment; such a part is tried again a little later. A
 * part that stays covered has a new owner, who wiped it before moving in.
 */
import { assert } from '../../base/assert.ts';
import { keyAfter } from '../../base/bytes.ts';
import { compareEnds, isEmptyRange, rangesOverlap, type KeyRange } from '../../base/key-range.ts';
import { decodeCleanTask, encodeCleanTask } from '../../codec/raft-records.ts';
import { dataRange, pendingCleanKey, pendingCleanNumber, pendingCleanRange, userKeyOf } from '../../engine/keyspace.ts';
import type { WriteBatch } from '../../env/engine.ts';
import { isBiased } from '../bias.ts';
import type { StoreContext } from '../context.ts';
import { writeBatch } from './engine-steps.ts';
import { JobQueue } from './job-queue.ts';

/** Pause before a task starts and between looks at parts that are still covered. */
const RETRY_MS = 50;
/** Looks after which a covered part counts as owned by somebody else. */
const TRIES_MAX = 100;
const PAGE_TASKS = 256;

type CleanContext = Pick<
  StoreContext,
  'config' | 'engine' | 'write' | 'abort' | 'log' | 'meta' | 'clock' | 'router' | 'failpoints'
>;

interface Task {
  readonly id: number;
  readonly range: KeyRange;
  /** Parts that still have to be looked at. */
  remaining: KeyRange[];
  tries: number;
  isStarted: boolean;
}

export class RangeCleaner {
  readonly #ctx: CleanContext;
  readonly #queue: JobQueue;
  readonly #tasks = new Map<number, Task>();
  #nextId = 1;
  #isStopped = false;

  constructor(ctx: CleanContext) {
    this.#ctx = ctx;
    this.#queue = new JobQueue(ctx, 'cleaning ranges');
  }

  /** Tasks noted and not finished. */
  get pending(): number {
    return this.#tasks.size;
  }

  /** Notes a task in `batch`; it must be started once the batch is durable. */
  add(batch: WriteBatch, range: KeyRange): number {
    let id = this.#nextId;
    while (this.#ctx.engine.getSync(pendingCleanKey(id)) !== undefined) {
      // Tasks of an earlier process that are not taken up yet.
      id++;
    }
    this.#nextId = id + 1;
    batch.put(pendingCleanKey(id), encodeCleanTask({ range }));
    this.#tasks.set(id, { id, range, remaining: [range], tries: 0, isStarted: false });
    return id;
  }

  start(taskId: number): void {
    const task = this.#tasks.get(taskId);
    assert(task !== undefined && !task.isStarted, 'unknown or started clean task', { taskId });
    task.isStarted = true;
    this.#schedule(task);
  }

  isCleaning(range: KeyRange): boolean {
    for (const task of this.#tasks.values()) {
      if (task.remaining.some((part) => rangesOverlap(part, range))) {
        return true;
      }
    }
    return false;
  }

  /** Takes up the tasks a crash interrupted, then looks for data in gaps between regions. Call it with the map complete. */
  async resume(): Promise<void> {
    let { start } = pendingCleanRange();
    const { end } = pendingCleanRange();
    for (let more = true; more; ) {
      const page = await this.#ctx.engine.scan({ range: { start, end }, limit: PAGE_TASKS });
      for (const [key, value] of page.entries) {
        const id = pendingCleanNumber(key);
        if (!this.#tasks.has(id)) {
          const { range } = decodeCleanTask(value);
          this.#tasks.set(id, { id, range, remaining: [range], tries: 0, isStarted: true });
          this.#schedule(this.#tasks.get(id) as Task);
        }
        this.#nextId = Math.max(this.#nextId, id + 1);
        start = keyAfter(key);
      }
      ({ more } = page);
    }
    await this.#cleanGaps();
  }

  /** Resolves when no task is being worked on at the moment. */
  idle(): Promise<void> {
    return this.#queue.idle();
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#queue.stop();
  }

  /** Garbage outside every region can be left by a crash between giving a range up and noting it. */
  async #cleanGaps(): Promise<void> {
    const { engine, meta } = this.#ctx;
    const gaps: KeyRange[] = [];
    let start: Uint8Array | undefined = new Uint8Array(0);
    for (const region of meta.initialized()) {
      if (!isEmptyRange({ start, end: region.range.start }) && region.range.start.length > 0) {
        gaps.push({ start, end: region.range.start });
      }
      start = region.range.end;
      if (start.length === 0) {
        start = undefined;
        break;
      }
    }
    if (start !== undefined) {
      gaps.push({ start, end: new Uint8Array(0) });
    }
    for (const gap of gaps) {
      if (this.isCleaning(gap)) {
        continue;
      }
      const page = await engine.scan({ range: dataRange(gap), limit: 1, keysOnly: true });
      if (page.entries.length > 0) {
        const batch = engine.createBatch();
        const id = this.add(batch, gap);
        await writeBatch(this.#ctx, batch);
        this.start(id);
      }
    }
  }

  #schedule(task: Task): void {
    this.#ctx.clock.setTimer(
      RETRY_MS,
      () => {
        if (!this.#isStopped) {
          this.#queue.push(() => this.#run(task));
        }
      },
      'clean-range',
    );
  }

  async #run(task: Task): Promise<void> {
    const covered: KeyRange[] = [];
    for (const part of task.remaining) {
      covered.push(...(await this.#cleanPart(task, part)));
    }
    task.remaining = covered;
    task.tries++;
    if (covered.length > 0 && task.tries < TRIES_MAX) {
      this.#schedule(task);
      return;
    }
    this.#ctx.failpoints.hit('clean::before-forget');
    const batch = this.#ctx.engine.createBatch();
    batch.del(pendingCleanKey(task.id));
    await writeBatch(this.#ctx, batch);
    this.#tasks.delete(task.id);
    this.#ctx.router.toStore({ type: 'range-cleaned', range: task.range });
  }

  /** The first stretch at or behind `start` that no live region owns; collects what was passed over. */
  #freeStretch(part: KeyRange, covered: KeyRange[]): KeyRange | undefined {
    let { start } = part;
    for (const region of this.#ctx.meta.overlapping(part)) {
      const { range } = region;
      if (!isEmptyRange({ start, end: range.start }) && range.start.length > 0) {
        return { start, end: range.start };
      }
      const isLast = compareEnds(range.end, part.end) >= 0;
      covered.push({ start, end: isLast ? part.end : range.end });
      if (isLast) {
        return undefined;
      }
      start = range.end;
    }
    return { start, end: part.end };
  }

  /** Deletes the free stretches of a part; returns those that are covered by live regions. */
  async #cleanPart(task: Task, part: KeyRange): Promise<KeyRange[]> {
    const { engine, meta, config, failpoints } = this.#ctx;
    const covered: KeyRange[] = [];
    let rest: KeyRange | undefined = part;
    while (rest !== undefined) {
      this.#queue.checkpoint();
      const stretch = this.#freeStretch(rest, covered);
      if (stretch === undefined) {
        break;
      }
      const limit = isBiased(failpoints, 'bias::small-clean-batch') ? 1 : config.cleanBatchKeys;
      const page = await engine.scan({ range: dataRange(stretch), limit, keysOnly: true });
      if (meta.overlapping(stretch).length > 0) {
        // The map changed while the keys were read.
        rest = { start: stretch.start, end: part.end };
        continue;
      }
      const batch = engine.createBatch();
      let next: Uint8Array = stretch.end;
      for (const [key] of page.entries) {
        batch.del(key);
      }
      const last = page.entries[page.entries.length - 1];
      if (page.more && last !== undefined) {
        next = keyAfter(userKeyOf(last[0]));
      }
      if (batch.count > 0) {
        failpoints.hit('clean::before-batch');
        await writeBatch(this.#ctx, batch);
        failpoints.hit('clean::after-batch');
      }
      rest =
        next.length === 0 || (part.end.length > 0 && isEmptyRange({ start: next, end: part.end }))
          ? undefined
          : { start: next, end: part.end };
    }
    this.#ctx.log.debug({ task: task.id, covered: covered.length }, 'cleaned a part of a range');
    return covered;
  }
}
