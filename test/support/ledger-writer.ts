/**
 * A process that writes a program to a database and dies by SIGKILL after so many acknowledgements, while other batches
 * are under way. Arguments: database, mode, program as JSON, acknowledgements until death. Each acknowledgement is a
 * line `ack <i>` in the ledger (`sync-ledger.c`), in one order with what the files saw.
 *
 * Mode `engine` is the product's engine with up to eight batches waiting. Mode `native` is bare LevelDB, where only
 * every tenth batch is synced: `ack <i> unsynced` for the others.
 */
import { mkdirSync, openSync, writeSync } from 'node:fs';
import { utf8 } from '../../src/base/bytes.ts';
import { createLevelEngineFactory } from '../../src/engine/index.ts';
import { openNative } from '../../src/engine/level/native.ts';
import { programOf, type ProgramBatch, type ProgramSpec, writeBatch } from './engine-program.ts';

const WAITING_MAX = 8;
const SYNCED_EVERY = 10;
const [path, mode, spec, lifetime] = process.argv.slice(2) as [string, 'engine' | 'native', string, string];
const program = programOf(JSON.parse(spec) as ProgramSpec);
const ledger = openSync(process.env['SYNC_LEDGER'] as string, 'a');
let acknowledged = 0;

function acknowledge(line: string): void {
  writeSync(ledger, `${line}\n`);
  if (++acknowledged >= Number(lifetime)) {
    process.kill(process.pid, 'SIGKILL');
  }
}

async function writeToEngine(): Promise<void> {
  const engine = await createLevelEngineFactory().open({ path, createIfMissing: true });
  const waiting = new Set<Promise<void>>();
  let hasFailed = false;
  for (const [i, batch] of program.entries()) {
    if (hasFailed) {
      break;
    }
    const write: Promise<void> = writeBatch(engine, batch)
      .then(
        () => acknowledge(`ack ${i}`),
        () => {
          hasFailed = true;
        },
      )
      .finally(() => waiting.delete(write));
    waiting.add(write);
    if (waiting.size >= WAITING_MAX) {
      await Promise.race(waiting);
    }
  }
  await Promise.all(waiting);
  writeSync(ledger, `end ${engine.health().type}\n`);
}

async function writeToLevel(): Promise<void> {
  mkdirSync(path, { recursive: true });
  const database = await openNative(path, {
    createIfMissing: true,
    writeBufferSize: 8 * 1024 * 1024,
    cacheSize: 1024 * 1024,
    maxFileSize: 8 * 1024 * 1024,
    maxOpenFiles: 100,
  });
  const write = (batch: ProgramBatch, sync: boolean): Promise<void> => {
    const native = database.batch();
    for (const [key, value] of batch.changes) {
      if (value === undefined) {
        native.del(utf8(key));
      } else {
        native.put(utf8(key), utf8(value));
      }
    }
    return native.write({ sync });
  };
  for (const [i, batch] of program.entries()) {
    const sync = i % SYNCED_EVERY === 0;
    await write(batch, sync);
    acknowledge(sync ? `ack ${i}` : `ack ${i} unsynced`);
  }
  writeSync(ledger, 'end ok\n');
}

await (mode === 'engine' ? writeToEngine() : writeToLevel());
process.exit(0);
