/** How a process stops, seen from outside: exit codes, flushed log lines, and deaths without any cleaning up. */
import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { EXIT_CODE_BUG, EXIT_CODE_STORAGE } from '../../src/base/assert.ts';

const CHILD = fileURLToPath(new URL('../support/env-child.ts', import.meta.url));

describe('realEnv', () => {
  let root: string;

  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'braid-env-'));
  });

  afterEach(() => rm(root, { recursive: true, force: true }));

  async function run(way: string) {
    const logFile = join(root, 'logs', 'env.log');
    const child = spawn(process.execPath, ['--import', 'tsx', CHILD, way, logFile], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
    const end = await new Promise<{ code: number | null; signal: string | null }>((resolve) => {
      child.on('close', (code, signal) => resolve({ code, signal }));
    });
    const lines = (await readFile(logFile, 'utf8')).trim().split('\n');
    return { ...end, output, log: lines.map((line) => JSON.parse(line) as Record<string, unknown>) };
  }

  test('stops with the code for bugs and has written down why', async () => {
    const { code, log } = await run('bug');
    expect(code).toBe(EXIT_CODE_BUG);
    expect(log[0]).toMatchObject({ level: 'info', store: 1, message: 'started', nested: { list: [1] } });
    expect(log.at(-1)).toMatchObject({ level: 'error', kind: 'bug', reason: 'two leaders' });
    expect(log.at(-1)?.['cause']).toMatchObject({ type: 'Error', message: 'the cause' });
  });

  test('stops with the code for storage faults', async () => {
    const { code, log } = await run('storage');
    expect(code).toBe(EXIT_CODE_STORAGE);
    expect(log.at(-1)).toMatchObject({ kind: 'storage', reason: 'disk' });
  });

  test.each([
    ['uncaught', 'nobody catches this'],
    ['unhandled', 'nobody handles this'],
  ])('counts an %s failure as a bug', async (way, message) => {
    const { code, log } = await run(way);
    expect(code).toBe(EXIT_CODE_BUG);
    expect(log.at(-1)?.['cause']).toMatchObject({ message });
  });

  test('dies at a crash point without running exit handlers, but with its log', async () => {
    const { signal, output, log } = await run('failpoint');
    expect(signal).toBe('SIGKILL');
    expect(output).toBe('');
    expect(log.at(-1)).toMatchObject({ message: 'started' });
  });
});
