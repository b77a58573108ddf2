/**
 * A process that writes to a LevelDB engine until it is killed or a write fails. Usage: `engine-writer.ts PATH`.
 * Every batch `i` puts `a<i>`, `b<i>` and `last`, all with the number; up to 32 batches wait at a time. Prints
 * `ack <i>` after each acknowledgement, `fault <json>` when the engine is poisoned, and then what later calls say.
 */
import { writeSync } from 'node:fs';
import { utf8 } from '../../src/base/bytes.ts';
import { createLevelEngineFactory } from '../../src/engine/index.ts';

const WAITING_MAX = 32;
const STDOUT = 1;
const VALUE_BYTES = 300;

const say = (line: string): void => {
  writeSync(STDOUT, `${line}\n`);
};
const codeOf = (error: unknown): string => (error as { code?: string }).code ?? String(error);

const path = process.argv[2] as string;
const engine = await createLevelEngineFactory().open({ path, createIfMissing: true });
let poisonedCalls = 0;
engine.onPoisoned(() => {
  poisonedCalls++;
});
say('open');

let hasFailed = false;
let failures = 0;

async function writeOne(i: number): Promise<void> {
  const batch = engine.createBatch();
  for (const key of [`a${i}`, `b${i}`, 'last']) {
    batch.put(utf8(key), utf8(String(i).padEnd(VALUE_BYTES, '.')));
  }
  try {
    await engine.write(batch);
    say(hasFailed ? `late-ack ${i}` : `ack ${i}`);
  } catch (error) {
    hasFailed = true;
    failures++;
    if (codeOf(error) !== 'EnginePoisoned') {
      say(`unexpected ${codeOf(error)}`);
    }
  }
}

const waiting = new Set<Promise<void>>();
for (let i = 0; !hasFailed; i++) {
  const write = writeOne(i);
  waiting.add(write);
  void write.then(() => waiting.delete(write));
  if (waiting.size >= WAITING_MAX) {
    await Promise.race(waiting);
  }
}
await Promise.all(waiting);
const later = engine.createBatch();
later.put(utf8('later'), utf8('1'));
const outcomes = {
  failures,
  poisonedCalls,
  health: engine.health().type,
  write: await engine.write(later).then(() => 'ok', codeOf),
  get: await engine.get(utf8('last')).then(() => 'ok', codeOf),
  scan: await engine.scan({ range: { start: utf8('a'), end: utf8('b') }, limit: 1 }).then(() => 'ok', codeOf),
};
say(`fault ${JSON.stringify(outcomes)}`);
process.exit(0);
