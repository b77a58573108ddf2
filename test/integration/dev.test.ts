/** `braid dev`: a whole cluster from one command. */
import { gzipSync } from 'node:zlib';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { braid, freePortBase, Program, TemporaryDirectory, waitFor } from './cluster.ts';

/** The placement service, stores and their status pages. */
const PORTS = 30;

let directory: TemporaryDirectory;
let programs: Program[] = [];

afterEach(async (context) => {
  if (context.task.result?.state === 'fail') {
    for (const program of programs) {
      process.stderr.write(`${program.stdout}${program.stderr}`);
    }
  }
  for (const program of programs) {
    if (program.isRunning) {
      await program.kill('SIGTERM');
    }
  }
  programs = [];
  directory?.[Symbol.dispose]();
});

function dev(...args: readonly string[]): Program {
  const program = new Program(['dev', '--data-dir', directory.join('data'), ...args]);
  programs.push(program);
  return program;
}

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

describe('braid dev', () => {
  test('runs a cluster that splits an import into regions, keeps it over a restart and takes a fourth store', async () => {
    directory = new TemporaryDirectory();
    const base = await freePortBase(PORTS);
    const pd = ['--pd', `127.0.0.1:${base}`];
    const first = dev('--port-base', String(base), '--small-regions');
    await first.line(new RegExp(`^ready: braid put/get with --pd 127.0.0.1:${base}$`, 'm'));

    const ROWS = 4000;
    const rows = Array.from({ length: ROWS }, (_, i) => `key${String(i).padStart(6, '0')}\t${'x'.repeat(1000)}`);
    writeFileSync(directory.join('rows.tsv.gz'), gzipSync(`${rows.join('\n')}\n`));
    const imported = await braid([
      'import',
      directory.join('rows.tsv.gz'),
      '--no-header',
      '--key-column',
      '1',
      '--value-columns',
      '2',
      '--value-as',
      'raw',
      ...pd,
    ]);
    expect(imported, imported.stderr).toMatchObject({ code: 0 });
    await waitFor('eight regions', async () => {
      const { stdout } = await braid(['ctl', 'region', 'list', '-o', 'json', ...pd]);
      return (JSON.parse(stdout) as { items: unknown[] }).items.length >= 8;
    });
    expect((await first.kill('SIGINT')).code).toBe(0);

    const second = dev();
    await second.line(/^ready: braid put\/get/m);
    const keys = await braid(['scan', '--keys-only', '--limit', String(ROWS + 1), '-o', 'raw', ...pd]);
    expect(keys.stdout.trimEnd().split('\n')).toHaveLength(ROWS);

    const fourth = dev('--add-store');
    await fourth.line(/^ready: store 4 at/m);
    await waitFor('four stores', async () => {
      const { stdout } = await braid(['ctl', 'store', 'list', '-o', 'json', ...pd]);
      return (JSON.parse(stdout) as { items: unknown[] }).items.length === 4;
    });
    expect((await fourth.kill('SIGTERM')).code).toBe(0);
    expect((await second.kill('SIGTERM')).code).toBe(0);
    expect(existsSync(directory.join('data', 'store-4', 'IDENT'))).toBe(true);
    expect(readFileSync(directory.join('data', 'store.toml'), 'utf8')).toContain('region-max-size = "512KiB"');
  });

  test('says which port is in use and how to choose others', async () => {
    directory = new TemporaryDirectory();
    const base = await freePortBase(PORTS);
    const taken = createServer();
    await new Promise<void>((resolve) => taken.listen(base + 2, '127.0.0.1', resolve));
    const ended = await dev('--port-base', String(base)).ended;
    await new Promise((resolve) => taken.close(resolve));
    expect(ended.code).toBe(1);
    expect(ended.stderr).toContain(`why:   the port 127.0.0.1:${base + 2} is in use`);
    expect(ended.stderr).toContain('--port-base');
    expect(existsSync(directory.join('data'))).toBe(false);
  });

  test('reports a store that crashed, keeps the others running, and leaves no process behind when it is killed itself', async () => {
    directory = new TemporaryDirectory();
    const base = await freePortBase(PORTS);
    const program = dev('--port-base', String(base));
    await program.line(/^ready: braid put\/get/m);
    const children = readFileSync(`/proc/${program.child.pid}/task/${program.child.pid}/children`, 'utf8')
      .trim()
      .split(' ')
      .map(Number);
    expect(children).toHaveLength(4);
    // The placement service is started first; any other child is a store.
    process.kill(children[1] as number, 'SIGKILL');
    await waitFor('the report', () =>
      /the store \d was ended by SIGKILL; the others keep running/.test(program.stderr),
    );
    expect(await braid(['put', 'k', 'v', '--timeout', '20s', '--pd', `127.0.0.1:${base}`])).toMatchObject({
      code: 0,
      stderr: expect.stringContaining('stored k') as string,
    });
    await program.kill('SIGKILL');
    await waitFor('every child to end', () => children.every((pid) => !isAlive(pid)));
  });

  test('runs three placement members, which stay three at later starts', async () => {
    directory = new TemporaryDirectory();
    const base = await freePortBase(50);
    const pds = [base, base + 42, base + 43].map((port) => `127.0.0.1:${port}`).join(',');
    const first = dev('--port-base', String(base), '--pd-members', '3', '--stores', '1');
    await first.line(new RegExp(`^ready: braid put/get with --pd ${pds}$`, 'm'));
    const listed = async (): Promise<unknown[]> => {
      const { stdout } = await braid(['ctl', 'pd', 'member', 'list', '-o', 'json', '--pd', pds]);
      const { items } = JSON.parse(stdout) as { items: { name: string; isVoter: boolean }[] };
      return items.map(({ name, isVoter }) => [name, isVoter]);
    };
    await waitFor('three voters', async () => (await listed()).length === 3);
    expect(await braid(['put', 'a', 'b', '--pd', pds])).toMatchObject({ code: 0 });
    await first.kill('SIGTERM');
    const second = dev();
    await second.line(/^ready: braid put\/get/m);
    await waitFor('three voters', async () => {
      const members = await listed();
      return members.length === 3 && members.every((member) => (member as [string, boolean])[1]);
    });
    expect(await braid(['get', 'a', '--pd', pds])).toMatchObject({ code: 0, stdout: 'b' });
  });
});
