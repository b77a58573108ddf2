/**
 * Calls with many keys: sorts them, groups them by region, runs the groups at the same time, and groups again what a
 * split or merge has moved meanwhile. A group is one command, so it is atomic on its region.
 */
import { compareBytes, equalBytes } from '../base/bytes.ts';
import type { CallLimits } from './call.ts';
import type { Entry, PutEntry } from './command.ts';
import type { ClientCore } from './core.ts';
import { BATCH_GROUPS_MAX, BATCH_KEYS_MAX, BATCH_WRITE_BYTES_TARGET, ENTRY_BYTES_MAX } from './defaults.ts';
import { BraidError, EntryTooLargeError, InvalidArgumentError } from './errors.ts';
import type { CachedRegion } from './region-cache.ts';
import { RegroupSignal } from './request-router.ts';

/** A write before it is grouped. Undefined `value` deletes. */
export interface BatchWrite {
  readonly key: Uint8Array;
  readonly value: Uint8Array | undefined;
  readonly ttlSeconds: number;
}

/** One key of a batch; `at` lists the positions in the caller's array that stand for it. */
interface Item<T> {
  readonly key: Uint8Array;
  readonly at: number[];
  /** Of the last position, which wins. */
  readonly what: T;
}

/** Sorted by key; duplicates become one item whose last occurrence counts. */
function itemsOf<T>(inputs: readonly T[], keyOf: (input: T) => Uint8Array): Item<T>[] {
  const order = inputs.map((_, i) => i);
  const keys = inputs.map(keyOf);
  order.sort((a, b) => compareBytes(keys[a] as Uint8Array, keys[b] as Uint8Array) || a - b);
  const items: Item<T>[] = [];
  for (const i of order) {
    const key = keys[i] as Uint8Array;
    const previous = items.at(-1);
    if (previous !== undefined && equalBytes(previous.key, key)) {
      previous.at.push(i);
      items[items.length - 1] = { key, at: previous.at, what: inputs[i] as T };
    } else {
      items.push({ key, at: [i], what: inputs[i] as T });
    }
  }
  return items;
}

interface GroupRun<T> {
  readonly core: ClientCore;
  readonly limits: CallLimits;
  /** How many of the first items of one region may go into one command; at least 1. */
  readonly fit: (items: readonly Item<T>[]) => number;
  readonly send: (items: readonly Item<T>[]) => Promise<void>;
  /** Called for the items of every group that failed; throwing ends the whole run. */
  readonly onError: (items: readonly Item<T>[], error: unknown) => void;
}

async function runGroups<T>(run: GroupRun<T>, items: readonly Item<T>[]): Promise<void> {
  const running = new Set<Promise<void>>();
  let rest = items;
  while (rest.length > 0) {
    let entry: CachedRegion;
    const { key } = rest[0] as Item<T>;
    try {
      entry = run.core.router.cache.locate(key) ?? (await run.core.locate(key, run.limits));
    } catch (error) {
      run.onError(rest, error);
      break;
    }
    let inRegion = 1;
    while (inRegion < rest.length && entry.contains((rest[inRegion] as Item<T>).key)) {
      inRegion++;
    }
    const count = run.fit(rest.slice(0, inRegion));
    const group = rest.slice(0, count);
    rest = rest.slice(count);
    const sent = sendGroup(run, group).finally(() => running.delete(sent));
    running.add(sent);
    // The failure of a group surfaces in the race or at the end.
    if (running.size >= BATCH_GROUPS_MAX) {
      await Promise.race(running);
    }
  }
  await Promise.all(running);
}

async function sendGroup<T>(run: GroupRun<T>, group: readonly Item<T>[]): Promise<void> {
  try {
    await run.send(group);
  } catch (error) {
    if (error instanceof RegroupSignal) {
      await runGroups(run, group);
    } else {
      run.onError(group, error);
    }
  }
}

/** Values in the order of `keys`, undefined where there is none. Rejects when any region could not be read. */
export async function getMany(
  core: ClientCore,
  keys: readonly Uint8Array[],
  limits: CallLimits,
): Promise<(Uint8Array | undefined)[]> {
  const values = new Array<Uint8Array | undefined>(keys.length).fill(undefined);
  let failure: { readonly error: unknown } | undefined;
  await runGroups(
    {
      core,
      limits,
      fit: (items) => Math.min(items.length, BATCH_KEYS_MAX),
      send: (items) =>
        core.run({ type: 'batch-get', keys: items.map((item) => item.key) }, limits, (answer) => {
          const entries = answer.type === 'entries' ? answer.entries : [];
          for (const [item, value] of matchEntries(items, entries)) {
            item.at.forEach((position, n) => {
              // Callers own what they get, so two positions never share bytes.
              values[position] = n === 0 ? value : new Uint8Array(value);
            });
          }
        }),
      onError: (_, error) => {
        failure ??= { error };
      },
    },
    itemsOf(keys, (key) => key),
  );
  if (failure !== undefined) {
    throw failure.error;
  }
  return values;
}

/** Pairs items with the entries found; both are in key order, and items without an entry are left out. */
function* matchEntries(
  items: readonly Item<Uint8Array>[],
  entries: readonly Entry[],
): Generator<readonly [Item<Uint8Array>, Uint8Array]> {
  let at = 0;
  for (const entry of [...entries].sort((a, b) => compareBytes(a[0], b[0]))) {
    while (at < items.length && compareBytes((items[at] as Item<Uint8Array>).key, entry[0]) < 0) {
      at++;
    }
    const item = items[at];
    if (item !== undefined && equalBytes(item.key, entry[0])) {
      yield [item, entry[1]];
    }
  }
}

export type WriteResult =
  | { readonly type: 'written' }
  /** `error.outcome` tells whether the write may have taken effect all the same. */
  | { readonly type: 'failed'; readonly error: BraidError };

const WRITTEN: WriteResult = Object.freeze({ type: 'written' });

/**
 * Results in the order of `writes`. With `region`, all writes that lie in one region at the moment of writing happen
 * together or not at all; the protocol has no command with puts and deletes together, so a batch holds only one kind.
 */
export async function writeMany(
  core: ClientCore,
  writes: readonly BatchWrite[],
  atomic: 'region' | 'none',
  limits: CallLimits,
): Promise<readonly WriteResult[]> {
  const items = itemsOf(writes, (write) => write.key);
  const puts = items.filter((item) => item.what.value !== undefined);
  const deletes = items.filter((item) => item.what.value === undefined);
  if (atomic === 'region' && puts.length > 0 && deletes.length > 0) {
    throw new InvalidArgumentError('an atomic batch holds either only puts or only deletes', {
      hint: "send puts and deletes in two calls, or use atomic: 'none'",
    });
  }
  const results = new Array<WriteResult>(writes.length).fill(WRITTEN);
  const fail = (failed: readonly Item<BatchWrite>[], error: unknown): void => {
    const result: WriteResult = {
      type: 'failed',
      error:
        error instanceof BraidError
          ? error
          : new BraidError('Internal', String(error), { cause: error, outcome: 'unknown' }),
    };
    for (const { at } of failed) {
      for (const position of at) {
        results[position] = result;
      }
    }
  };
  const run = (group: readonly Item<BatchWrite>[], isPut: boolean): Promise<void> =>
    runGroups(
      {
        core,
        limits,
        fit: (candidates) => (atomic === 'region' ? candidates.length : fitNonAtomic(candidates)),
        send: async (sent) => {
          if (atomic === 'region') {
            requireFitsEntry(sent);
          }
          await (isPut
            ? core.run({ type: 'batch-put', entries: sent.map((item) => item.what as PutEntry) }, limits, () => {})
            : core.run({ type: 'batch-delete', keys: sent.map((item) => item.key) }, limits, () => {}));
        },
        onError: fail,
      },
      group,
    );
  await Promise.all([run(puts, true), run(deletes, false)]);
  return results;
}

const sizeOf = (item: Item<BatchWrite>): number => item.key.length + (item.what.value?.length ?? 0);

function fitNonAtomic(items: readonly Item<BatchWrite>[]): number {
  let bytes = 0;
  let count = 0;
  for (const item of items) {
    bytes += sizeOf(item);
    if (count > 0 && (count >= BATCH_KEYS_MAX || bytes > BATCH_WRITE_BYTES_TARGET)) {
      break;
    }
    count++;
  }
  return count;
}

function requireFitsEntry(items: readonly Item<BatchWrite>[]): void {
  const sizeBytes = items.reduce((sum, item) => sum + sizeOf(item), 0);
  if (sizeBytes > ENTRY_BYTES_MAX) {
    throw new EntryTooLargeError(
      `the ${items.length} writes to one region have ${sizeBytes} bytes together, an atomic batch may have ${ENTRY_BYTES_MAX}`,
      { details: { sizeBytes, limitBytes: ENTRY_BYTES_MAX } },
    );
  }
}
