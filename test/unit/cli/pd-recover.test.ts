/** `braid pd recover` on a directory as a member of three leaves it: every output mode, every way to end. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import type { CliIo } from '../../../src/cli/io.ts';
import { LIST_MODES } from '../../../src/cli/output/mode.ts';
import { runCli } from '../../../src/cli/program.ts';
import { registerRunCommands } from '../../../src/cli/run/index.ts';
import { createLevelEngineFactory } from '../../../src/engine/index.ts';
import type { Engine } from '../../../src/env/engine.ts';
import { foundGroup, loadGroup } from '../../../src/pd/group/group-disk.ts';
import { MEMBERS_KEY } from '../../../src/pd/group/group-record.ts';
import { encodeMembership, foundingMembership } from '../../../src/pd/group/membership.ts';
import { META_KEY, encodeMeta } from '../../../src/pd/state/record.ts';
import { MemorySink, type RunOutcome } from './harness.ts';

let directory: string;
let dataDir: string;

const openEngine = (createIfMissing: boolean): Promise<Engine> =>
  createLevelEngineFactory({}).open({ path: dataDir, createIfMissing });

const MEMBERS = [1, 2, 3].map((id) => ({ id, name: `pd${id}`, address: `127.0.0.1:${id}` }));

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'braid-recover-'));
  dataDir = join(directory, 'pd2');
  const [, self] = MEMBERS as [unknown, (typeof MEMBERS)[number]];
  const engine = await openEngine(true);
  await foundGroup(engine, self, 77n);
  const batch = engine.createBatch();
  const founding = foundingMembership(self);
  batch.put(
    MEMBERS_KEY,
    encodeMembership({
      members: MEMBERS,
      confState: { ...founding.confState, voters: [1, 2, 3] },
      lastId: 3,
      version: 2,
    }),
  );
  batch.put(
    META_KEY,
    encodeMeta({ clusterId: 77n, bootstrapped: false, maxReplicas: 3, bootstrapWallMs: 0, firstRegion: undefined }),
  );
  await engine.write(batch);
  await engine.close();
});

afterEach(() => {
  rmSync(directory, { recursive: true, force: true });
});

async function recover(
  args: readonly string[],
  { typed, dir = dataDir }: { readonly typed?: string; readonly dir?: string } = {},
): Promise<RunOutcome> {
  const [stdout, stderr] = [new MemorySink(), new MemorySink()];
  const io: CliIo = {
    env: {},
    stdout,
    stderr,
    stdin: (async function* () {
      yield Buffer.from(typed ?? '');
    })(),
    isStdinTerminal: typed !== undefined,
    signal: new AbortController().signal,
  };
  const unused = (): Promise<never> => Promise.reject(new Error('nothing is connected to'));
  const words = ['pd', 'recover', '--data-dir', dir, ...args];
  const code = await runCli(words, io, { data: unused, admin: unused }, [registerRunCommands]);
  return { code, stdout: stdout.text, stdoutBytes: stdout.bytes, stderr: stderr.text };
}

async function voters(): Promise<readonly number[]> {
  const engine = await openEngine(false);
  const { membership } = await loadGroup(engine);
  await engine.close();
  return membership.confState.voters;
}

describe('braid pd recover', () => {
  test('shows its plan in every mode and changes nothing', async () => {
    for (const mode of LIST_MODES) {
      const { code, stdout, stderr } = await recover(['--dry-run', '-o', mode]);
      expect([mode, code, stderr]).toEqual([mode, 0, 'dry run: nothing was changed\n']);
      expect(stdout).toContain('pd2');
      if (mode === 'json' || mode === 'yaml') {
        expect(mode === 'json' ? JSON.parse(stdout) : parse(stdout)).toMatchObject({
          apiVersion: 'braid/v1',
          kind: 'PlacementRecovery',
          clusterId: '77',
          survivor: { name: 'pd2' },
          lost: [{ name: 'pd1' }, { name: 'pd3' }],
          ids: { before: 0, after: 1_000_000_000 },
        });
      }
    }
    expect(await voters()).toEqual([1, 2, 3]);
  });

  test('asks for the name of the member on a terminal, and for --yes elsewhere', async () => {
    expect((await recover([])).code).toBe(1);
    const wrong = await recover([], { typed: 'pd1\n' });
    expect([wrong.code, wrong.stderr]).toEqual([3, expect.stringContaining('pd1, pd3 can never come back')]);
    expect(await voters()).toEqual([1, 2, 3]);
    const done = await recover(['--ids-ahead', '20000'], { typed: 'pd2\n' });
    expect(done.code, done.stderr).toBe(0);
    expect(done.stdout).toContain('20,000, before 0');
    expect(await voters()).toEqual([2]);
    // There is nothing to recover any more.
    expect((await recover(['--yes'])).code).toBe(3);
  });

  test('refuses a directory in use, one that is missing, and jumps that are too short', async () => {
    const engine = await openEngine(false);
    const used = await recover(['--yes']);
    await engine.close();
    expect([used.code, used.stderr]).toEqual([1, expect.stringContaining('another process')]);
    expect((await recover(['--yes'], { dir: join(directory, 'nobody') })).code).toBe(1);
    for (const flags of [
      ['--ids-ahead', '9999'],
      ['--time-ahead', '9s'],
      ['--time-ahead', '20'],
    ]) {
      const ended = await recover(['--yes', ...flags]);
      expect([ended.code, ended.stderr]).toEqual([1, expect.stringContaining(flags[0] as string)]);
    }
    expect(await voters()).toEqual([1, 2, 3]);
  });
});
