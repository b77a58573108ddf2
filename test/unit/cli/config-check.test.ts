/** `braid config check` looks at certificates, too: a mistake is found before a process is stopped for the change. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { runCli } from '../../../src/cli/program.ts';
import { registerRunCommands } from '../../../src/cli/run/index.ts';
import { createAuthority } from '../../support/certificates.ts';
import { MemorySink } from './harness.ts';

let directory: string;

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'braid-config-'));
});

afterAll(() => rmSync(directory, { recursive: true, force: true }));

async function check(role: string, text: string): Promise<{ code: number; stdout: string; stderr: string }> {
  const file = join(directory, 'c.toml');
  writeFileSync(file, text);
  const [stdout, stderr] = [new MemorySink(), new MemorySink()];
  const io = {
    env: {},
    stdout,
    stderr,
    stdin: (async function* () {})(),
    isStdinTerminal: false,
    signal: new AbortController().signal,
  };
  const refuse = (): Promise<never> => Promise.reject(new Error('nobody is asked'));
  const code = await runCli(['config', 'check', role, file], io, { data: refuse, admin: refuse }, [
    registerRunCommands,
  ]);
  return { code, stdout: stdout.text, stderr: stderr.text };
}

describe('config check', () => {
  test.each(['store', 'pd'])('of a %s reads its certificates', async (role) => {
    const authority = createAuthority();
    const files = authority.write(directory, authority.issue(), role);
    const other = authority.write(directory, authority.issue(), 'other');
    const tls = (key: string): string => `[tls]\nca = "${files.ca}"\ncert = "${files.cert}"\nkey = "${key}"\n`;
    const fine = await check(role, tls(files.key));
    expect([fine.code, fine.stderr]).toEqual([0, '']);
    expect(fine.stdout).toContain('it sets tls.ca, tls.cert, tls.key');
    const wrong = await check(role, tls(other.key));
    expect([wrong.code, wrong.stdout]).toEqual([1, '']);
    expect(wrong.stderr).toMatch(
      /^error: cannot use .*\nwhy: {3}the private key in .* does not belong to .* \(Tls: key-mismatch\)\nnext: {2}.*--tls-key.*\n$/,
    );
    const missing = await check(role, tls(join(directory, 'nothing.pem')));
    expect(missing.stderr).toContain('(Tls: file-missing)');
    const half = await check(role, `[tls]\nca = "${files.ca}"\n`);
    expect(half.stderr).toContain('tls.cert and tls.key are missing');
  });
});
