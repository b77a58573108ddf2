import { describe, expect, test } from 'vitest';
import { EXIT_CODE_STORAGE } from '../../../src/base/assert.ts';
import type { App } from '../../../src/cli/command.ts';
import { assignments, runReported } from '../../../src/cli/run/frame.ts';
import { CorruptionError, EngineOpenError } from '../../../src/env/engine.ts';

function fakeApp(): { readonly app: App; readonly stderr: string[] } {
  const stderr: string[] = [];
  const sink = (lines: string[]) => ({
    write: (data: string | Uint8Array) => {
      lines.push(String(data));
      return Promise.resolve();
    },
    isTerminal: false,
    columns: 0,
  });
  const io = { stderr: sink(stderr), stdout: sink([]), signal: new AbortController().signal, env: {} };
  return { app: { io, exitCode: 0 } as unknown as App, stderr };
}

describe('server commands', () => {
  test('an error is three lines and exit code 1', async () => {
    const { app, stderr } = fakeApp();
    const code = await runReported(app, 'run the store', () =>
      Promise.reject(new EngineOpenError('it is locked', 'stop the other')),
    );
    expect(code).toBe(1);
    expect(stderr.join('')).toBe(
      'error: cannot run the store\nwhy:   it is locked (EngineOpen)\nnext:  stop the other\n',
    );
  });

  test('damage found at the start has the exit code of damage found later', async () => {
    const { app } = fakeApp();
    expect(await runReported(app, 'run the store', () => Promise.reject(new CorruptionError('bad bits', {})))).toBe(
      EXIT_CODE_STORAGE,
    );
  });

  test('an assignment may have equals signs in its value', () => {
    expect(assignments(['server.labels=zone=a', 'log.level='])).toEqual({ 'server.labels': 'zone=a', 'log.level': '' });
  });
});
