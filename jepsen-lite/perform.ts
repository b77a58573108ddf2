/** Carries out one request of a history with the SDK, and says what is known after a failure. */
import { fromUtf8, utf8 } from '../src/base/bytes.ts';
import { AppError } from '../src/base/app-error.ts';
import type { Braid } from '../src/client/kv.ts';
import { UndeterminedResultError } from '../src/client/errors.ts';
import type { Request, Response } from './history.ts';

export interface PerformOptions {
  /** Where reads go. */
  readonly read: 'leader' | 'follower';
  /** Entries per page of a scan. */
  readonly pageSize: number;
}

const text = (value: Uint8Array | undefined): string | null => (value === undefined ? null : fromUtf8(value));
const bytes = (value: string | null): Uint8Array | undefined => (value === null ? undefined : utf8(value));

/** @throws what the SDK throws; ask `outcomeOf` what it means */
export async function perform(client: Braid, request: Request, options: PerformOptions): Promise<Response> {
  const mode = { read: options.read };
  switch (request.f) {
    case 'get':
      return { f: 'get', value: text(await client.get(utf8(request.key), mode)) };
    case 'put':
      await client.put(
        utf8(request.key),
        utf8(request.value),
        request.ttlSeconds === undefined ? {} : { ttlMs: request.ttlSeconds * 1000 },
      );
      return { f: 'done' };
    case 'delete':
      await client.delete(utf8(request.key));
      return { f: 'done' };
    case 'cas': {
      const { swapped, previous } = await client.compareAndSwap(utf8(request.key), {
        expected: bytes(request.expected),
        value: bytes(request.value),
      });
      return { f: 'cas', swapped, actual: text(previous) };
    }
    case 'batch': {
      const results = await client.writeMany(
        request.pairs.map(([key, value]) => ({ type: 'put' as const, key: utf8(key), value: utf8(value) })),
        { atomic: request.isAtomic ? 'region' : 'none' },
      );
      const failed = results.flatMap((result) => (result.type === 'failed' ? [result.error] : []));
      const [error] = failed;
      if (error !== undefined) {
        // A part that was written makes the whole one that may have happened.
        throw failed.length < results.length
          ? new UndeterminedResultError('a part of the batch was written', { cause: error })
          : (failed.find((one) => one.outcome === 'unknown') ?? error);
      }
      return { f: 'done' };
    }
    case 'batch-get': {
      const values = await client.getMany(
        request.keys.map((key) => utf8(key)),
        mode,
      );
      return { f: 'batch-get', values: values.map(text) };
    }
    case 'delete-range':
      await client.deleteRange({ start: utf8(request.start), end: utf8(request.end) });
      return { f: 'done' };
    case 'scan': {
      const rows: (readonly [string, string])[] = [];
      const range = { start: utf8(request.start), end: utf8(request.end) };
      for await (const { key, value } of client.scan(range, {
        limit: request.limit,
        pageSize: options.pageSize,
        ...mode,
      })) {
        rows.push([fromUtf8(key), fromUtf8(value)]);
      }
      const last = rows.at(-1);
      const isFull = rows.length >= request.limit && last !== undefined;
      return { f: 'scan', rows, coveredTo: isFull ? `${last[0]}\u0000` : request.end };
    }
  }
}

const READS: readonly Request['f'][] = ['get', 'scan', 'batch-get'];

/** `fail` = certainly without effect, `info` = nobody knows. A range that is deleted region by region may be half done. */
export function outcomeOf(request: Request, error: unknown): 'fail' | 'info' {
  if (READS.includes(request.f)) {
    return 'fail';
  }
  const isKnown = error instanceof AppError && error.outcome === 'not-applied' && request.f !== 'delete-range';
  return isKnown ? 'fail' : 'info';
}

export const errorCode = (error: unknown): string => (error instanceof AppError ? error.code : String(error));
