/**
 * Reads the ledger that `sync-ledger.c` keeps of a process: what was durable when. Also reads LevelDB's logs, to know
 * which bytes of which file hold a batch, and cuts the power of a dead process's files.
 */
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, rmSync, statSync, truncateSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Rng } from '../../src/env/rng.ts';

const SOURCE = fileURLToPath(new URL('./sync-ledger.c', import.meta.url));
/** LevelDB's log: blocks of 32 KiB, fragments with a header of checksum, length and type. */
const BLOCK_BYTES = 32 * 1024;
const HEADER_BYTES = 7;
const FULL = 1;
const FIRST = 2;
const LAST = 4;
const BATCH_HEADER_BYTES = 12;
const TAG_PUT = 1;

/** Builds the library into the directory. Undefined, with a notice, where there is no C compiler or no Linux. */
export function buildLedger(directory: string): string | undefined {
  const library = join(directory, 'sync-ledger.so');
  if (process.platform !== 'linux') {
    process.stderr.write('the sync ledger is not checked: it needs Linux\n');
    return undefined;
  }
  try {
    execFileSync('cc', ['--version'], { stdio: 'ignore' });
  } catch {
    process.stderr.write('the sync ledger is not checked: there is no C compiler (cc)\n');
    return undefined;
  }
  execFileSync('cc', ['-O1', '-shared', '-fPIC', '-o', library, SOURCE, '-ldl']);
  return library;
}

export type LedgerEvent =
  | { readonly type: 'open' | 'unlink' | 'syncdir'; readonly path: string }
  | { readonly type: 'flush' | 'sync'; readonly path: string; readonly bytes: number }
  | { readonly type: 'rename'; readonly from: string; readonly to: string }
  | { readonly type: 'fail'; readonly call: string; readonly path: string }
  | { readonly type: 'ack'; readonly batch: number; readonly isSynced: boolean }
  | { readonly type: 'end'; readonly health: string };

export function parseLedger(text: string): LedgerEvent[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line): LedgerEvent => {
      const [type, a = '', b = ''] = line.split(' ');
      switch (type) {
        case 'open':
        case 'unlink':
        case 'syncdir':
          return { type, path: a };
        case 'flush':
        case 'sync':
          return { type, path: a, bytes: Number(b) };
        case 'rename':
          return { type, from: a, to: b };
        case 'fail':
          return { type, call: a, path: b };
        case 'ack':
          return { type, batch: Number(a), isSynced: b !== 'unsynced' };
        case 'end':
          return { type, health: a };
        default:
          throw new Error(`a line of the ledger is not known: ${line}`);
      }
    });
}

export interface LogRecord {
  /** File offset behind the record. */
  readonly end: number;
  readonly keys: readonly string[];
}

function varint(bytes: Uint8Array, at: number): readonly [value: number, next: number] {
  let value = 0;
  for (let shift = 0; ; shift += 7) {
    const byte = bytes[at++] as number;
    value += (byte & 0x7f) * 2 ** shift;
    if (byte < 0x80) {
      return [value, at];
    }
  }
}

function keysOf(batch: Uint8Array): string[] {
  const keys: string[] = [];
  for (let at = BATCH_HEADER_BYTES; at < batch.length; ) {
    const tag = batch[at] as number;
    const [keyBytes, keyAt] = varint(batch, at + 1);
    keys.push(Buffer.from(batch.subarray(keyAt, keyAt + keyBytes)).toString('latin1'));
    at = keyAt + keyBytes;
    if (tag === TAG_PUT) {
      const [valueBytes, valueAt] = varint(batch, at);
      at = valueAt + valueBytes;
    }
  }
  return keys;
}

/** The complete records of a log file. */
export function readLog(log: Uint8Array): LogRecord[] {
  const view = new DataView(log.buffer, log.byteOffset, log.length);
  const records: LogRecord[] = [];
  let parts: Uint8Array[] = [];
  for (let at = 0; at + HEADER_BYTES <= log.length; ) {
    const left = BLOCK_BYTES - (at % BLOCK_BYTES);
    if (left < HEADER_BYTES) {
      at += left;
      continue;
    }
    const type = log[at + 6] as number;
    const end = at + HEADER_BYTES + view.getUint16(at + 4, true);
    if (type < FULL || type > LAST || end > log.length) {
      break;
    }
    parts = type === FULL || type === FIRST ? [] : parts;
    parts.push(log.subarray(at + HEADER_BYTES, end));
    if (type === FULL || type === LAST) {
      records.push({ end, keys: keysOf(Buffer.concat(parts)) });
    }
    at = end;
  }
  return records;
}

/** Where each batch lies: by its marker key, the log's name and the offset behind its record. */
export function locate(directories: readonly string[]): Map<string, { readonly log: string; readonly end: number }> {
  const places = new Map<string, { readonly log: string; readonly end: number }>();
  for (const directory of directories) {
    for (const name of readdirSync(directory).filter((file) => file.endsWith('.log'))) {
      for (const { end, keys } of readLog(readFileSync(join(directory, name)))) {
        for (const key of keys) {
          places.set(key, { log: name, end });
        }
      }
    }
  }
  return places;
}

/** For each acknowledged batch, in order, how many bytes of each log were durable at that moment. */
export function durableAtAck(
  events: readonly LedgerEvent[],
): { readonly batch: number; readonly isSynced: boolean; readonly durable: ReadonlyMap<string, number> }[] {
  const durable = new Map<string, number>();
  const acks: { batch: number; isSynced: boolean; durable: ReadonlyMap<string, number> }[] = [];
  for (const event of events) {
    if (event.type === 'sync') {
      const name = basename(event.path);
      durable.set(name, Math.max(durable.get(name) ?? 0, event.bytes));
    } else if (event.type === 'ack') {
      acks.push({ batch: event.batch, isSynced: event.isSynced, durable: new Map(durable) });
    }
  }
  return acks;
}

/**
 * What a power cut leaves of the files of a dead process: each keeps the bytes that were synced and a random part of the
 * rest, or nothing more; one that was never synced is empty, cut, or gone. Directory entries count as durable.
 */
export function cutPower(directory: string, events: readonly LedgerEvent[], rest: Rng | 'nothing more'): void {
  const synced = new Map<string, number>();
  for (const event of events) {
    if (event.type === 'open') {
      synced.set(event.path, 0);
    } else if (event.type === 'sync') {
      synced.set(event.path, event.bytes);
    } else if (event.type === 'rename') {
      synced.set(event.to, synced.get(event.from) ?? 0);
      synced.delete(event.from);
    }
  }
  const files = readdirSync(directory, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  for (const path of files.map(({ parentPath, name }) => join(parentPath, name))) {
    const kept = synced.get(path);
    if (kept === undefined) {
      continue;
    }
    const unsynced = Math.max(0, statSync(path).size - kept);
    if (rest === 'nothing more') {
      truncateSync(path, kept);
    } else if (kept === 0 && rest.chance(0.5)) {
      rmSync(path);
    } else {
      truncateSync(path, kept + rest.pick([0, unsynced, rest.below(unsynced + 1)]));
    }
  }
}
