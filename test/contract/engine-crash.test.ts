/** Real processes on real files: what a killed writer had acknowledged is there, and a failing disk stops an engine. */
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { fromUtf8, utf8 } from '../../src/base/bytes.ts';
import { createLevelEngineFactory } from '../../src/engine/index.ts';

const WRITER = fileURLToPath(new URL('../support/engine-writer.ts', import.meta.url));
/** Blocks of 1 KiB that a file of the writer may have, as `ulimit -f` counts. */
const FILE_LIMIT_KIB = 600;

interface Run {
  readonly acknowledged: readonly number[];
  readonly other: readonly string[];
}

describe('Engine on LevelDB in a process of its own', () => {
  let root: string;
  let path: string;
  const children: ChildProcess[] = [];

  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'braid-engine-'));
    path = join(root, 'db');
  });

  afterEach(async () => {
    for (const child of children.splice(0)) {
      child.kill('SIGKILL');
    }
    await rm(root, { recursive: true, force: true });
  });

  /** Runs the writer; kills it once it has acknowledged `killAfter` batches in this run. */
  async function runWriter(command: string, args: readonly string[], killAfter: number): Promise<Run> {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    children.push(child);
    const acknowledged: number[] = [];
    const other: string[] = [];
    for await (const line of createInterface({ input: child.stdout })) {
      const match = /^ack (\d+)$/.exec(line);
      if (match === null) {
        other.push(line);
        continue;
      }
      acknowledged.push(Number(match[1]));
      if (acknowledged.length === killAfter) {
        child.kill('SIGKILL');
      }
    }
    return { acknowledged, other };
  }

  /** Checks that the database holds exactly the batches 0 to n for some n that covers every acknowledged one. */
  async function checkSurvivors(acknowledged: readonly number[]): Promise<void> {
    const engine = await createLevelEngineFactory().open({ path, createIfMissing: false });
    try {
      const stored = await engine.get(utf8('last'));
      const last = Number.parseInt(fromUtf8(stored as Uint8Array), 10);
      expect(last).toBeGreaterThanOrEqual(Math.max(...acknowledged));
      for (const name of ['a', 'b']) {
        const keys = Array.from({ length: last + 50 }, (_each, i) => utf8(`${name}${i}`));
        const values = await engine.getMany(keys);
        const present = values.map((value) => (value === undefined ? -1 : Number.parseInt(fromUtf8(value), 10)));
        expect(present).toEqual(keys.map((_key, i) => (i <= last ? i : -1)));
      }
    } finally {
      await engine.close();
    }
  }

  test.each([1, 40, 300])('keeps everything acknowledged before a kill after %i batches', async (killAfter) => {
    const run = await runWriter(process.execPath, ['--import', 'tsx', WRITER, path], killAfter);
    expect(run.other).toEqual(['open']);
    expect(run.acknowledged.length).toBeGreaterThanOrEqual(killAfter);
    expect(run.acknowledged).toEqual(run.acknowledged.map((_each, i) => i));
    await checkSurvivors(run.acknowledged);
  });

  test('opens and writes on after several kills in a row', async () => {
    for (let round = 0; round < 3; round++) {
      const run = await runWriter(process.execPath, ['--import', 'tsx', WRITER, path], 20);
      expect(run.other).toEqual(['open']);
    }
    const engine = await createLevelEngineFactory().open({ path, createIfMissing: false });
    expect(engine.health()).toEqual({ type: 'ok' });
    await engine.close();
  });

  test.each(['empty', 'missing'])(
    'creates anew what a power cut left half-created: the first manifest is %s',
    async (manifest) => {
      const halfCreated = async (log: string): Promise<void> => {
        await rm(path, { recursive: true, force: true });
        await mkdir(path);
        await writeFile(join(path, 'CURRENT'), 'MANIFEST-000001\n');
        await writeFile(join(path, '000003.log'), log);
        if (manifest === 'empty') {
          await writeFile(join(path, 'MANIFEST-000001'), '');
        }
      };
      const open = (createIfMissing: boolean) => createLevelEngineFactory().open({ path, createIfMissing });
      await halfCreated('');
      await expect(open(false)).rejects.toMatchObject({ code: 'EngineOpen' });
      const engine = await open(true);
      expect(engine.health()).toEqual({ type: 'ok' });
      await engine.close();
      await (await open(false)).close();
      // Something was written to this one: it is somebody's.
      await halfCreated('x'.repeat(40));
      await expect(open(true)).rejects.toMatchObject({ code: 'EngineOpen' });
    },
  );

  test('stops for good at the first failed write, and nothing acknowledged is lost', async () => {
    const shell = `ulimit -f ${FILE_LIMIT_KIB}; exec "$0" "$@"`;
    const run = await runWriter('bash', ['-c', shell, process.execPath, '--import', 'tsx', WRITER, path], 1e9);
    const fault = run.other.find((line) => line.startsWith('fault '));
    expect(run.other.filter((line) => line !== fault)).toEqual(['open']);
    const outcomes = JSON.parse((fault as string).slice('fault '.length)) as Record<string, unknown>;
    expect(outcomes).toMatchObject({
      poisonedCalls: 1,
      health: 'poisoned',
      write: 'EnginePoisoned',
      get: 'EnginePoisoned',
      scan: 'EnginePoisoned',
    });
    expect(outcomes['failures']).toBeGreaterThan(1);
    expect(run.acknowledged.length).toBeGreaterThan(100);
    await checkSurvivors(run.acknowledged);
  });
});
