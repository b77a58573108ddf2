import { describe, expect, test } from 'vitest';
import { CALLS_SHOWN_MAX, CommandTrace } from '../../../src/cli/command-trace.ts';
import { FakeCluster } from '../client/fake-cluster.ts';
import { FakeAdmin } from './fake-admin.ts';
import { MemorySink, runAlone, runOn } from './harness.ts';

const BUSY = { serverIsBusy: { reason: 'too many', backoffMs: 0, estimatedWaitMs: 0, appliedIndex: 0 } };

const busyOnce = (cluster: FakeCluster): void => {
  let left = 1;
  cluster.interfere = () => (left-- > 0 ? { regionError: BUSY } : 'serve');
};

describe('--verbose', () => {
  test('says on stderr where it asks, who leads, what is retried and why, and how long it took', async () => {
    const cluster = new FakeCluster();
    busyOnce(cluster);
    const { code, stdout, stderr } = await runOn(cluster, ['put', 'k', 'v', '-v']);
    expect([code, stdout]).toEqual([0, '']);
    const lines = stderr.trimEnd().split('\n');
    const timed = (text: string): unknown => expect.stringMatching(new RegExp(String.raw`^\[[\d.]+ ms\] ${text}`));
    expect(lines).toEqual([
      timed(String.raw`asking 127\.0\.0\.1:2379 \(default\), not encrypted$`),
      timed('the placement service is led by pd:1$'),
      timed(String.raw`put of "k" is tried again (at once|in [\d.]+ ms) after 1 try: ServerIsBusy: .*too many`),
      'stored k',
      timed(String.raw`ended after \d+ calls to \d+ endpoints, 1 of them failed, 1 retry$`),
    ]);
  });

  test('a command that asks nobody says so, and --quiet contradicts it', async () => {
    expect((await runAlone(['version', '-v'])).stderr).toMatch(/^\[[\d.]+ ms\] ended without asking anybody\n$/);
    const both = await runAlone(['version', '-v', '-q']);
    expect([both.code, both.stdout]).toEqual([1, '']);
    expect(both.stderr).toContain('exclude each other');
  });

  test('speaks at every look of --watch', async () => {
    const { code, stderr } = await new FakeAdmin().run(['ctl', 'switch', 'list', '-w', '-v', '--timeout', '1200ms']);
    expect(code).toBe(0);
    expect(stderr.match(/\] asking 127\.0\.0\.1:2379/g)?.length).toBeGreaterThanOrEqual(2);
    expect(stderr.match(/\] ended after \d+ calls to 1 endpoint, 0 retries/g)?.length).toBeGreaterThanOrEqual(2);
    const silent = await new FakeAdmin().run(['ctl', 'switch', 'list', '-w', '--timeout', '1200ms']);
    expect(silent.stderr).toBe('');
  });

  test('may stand before the command', async () => {
    expect((await runAlone(['-v', 'version'])).stderr).toContain('ended');
  });
});

describe('--debug', () => {
  test('lists every call with method, endpoint, time, outcome, region and retries', async () => {
    const cluster = new FakeCluster();
    busyOnce(cluster);
    const { stderr } = await runOn(cluster, ['put', 'k', 'v', '--debug']);
    const [, table = ''] = stderr.split('calls:\n');
    const [head = '', ...rows] = table.trimEnd().split('\n');
    expect(head.trim().split(/\s+/)).toEqual('AT METHOD ENDPOINT TOOK OUTCOME STORE REGION RETRIES MESSAGE'.split(' '));
    const puts = rows.filter((line) => line.includes('tikvpb.Tikv/RawPut'));
    expect(puts).toHaveLength(2);
    expect(puts[0]).toMatch(/ms {3}ServerIsBusy {3}\s*1 {3}\s*103 {3}\s*0 {3}.*too many/);
    expect(puts[1]).toMatch(/ms {3}ok {3}\s+1 {3}\s*103 {3}\s*1 {3}-$/);
    expect(rows.some((line) => line.includes('pdpb.PD/GetMembers'))).toBe(true);
  });

  test('follows the three lines and the stack of an error', async () => {
    const cluster = new FakeCluster();
    cluster.interfere = () => 'ignore';
    const { code, stderr } = await runOn(cluster, ['get', 'k', '--debug', '--timeout', '400ms']);
    expect(code).toBe(4);
    expect(stderr).toMatch(
      /error: cannot .*\nwhy: .*\nnext: .*\n[\s\S]*DeadlineExceeded[\s\S]*\n {4}at [\s\S]*calls:\n/,
    );
    expect(stderr).toContain('DEADLINE_EXCEEDED');
  });

  test(`shows the last ${CALLS_SHOWN_MAX} calls`, async () => {
    const stderr = new MemorySink();
    const io = {
      env: {},
      stdout: new MemorySink(),
      stderr,
      stdin: (async function* () {})(),
      isStdinTerminal: false,
      signal: new AbortController().signal,
    };
    const trace = new CommandTrace(io, { isDebug: true, elapsedMs: () => 5000 });
    for (let i = 1; i <= CALLS_SHOWN_MAX + 5; i++) {
      trace.hook({
        type: 'rpc',
        atMs: i,
        method: `/a.B/Call${i}`,
        endpoint: 'e:1',
        durationMs: 1,
        outcome: 'ok',
        message: '',
        storeId: undefined,
        regionId: undefined,
        retries: 0,
      });
    }
    await trace.finish();
    await trace.finish();
    expect(stderr.text).toContain(`the last ${CALLS_SHOWN_MAX} of ${CALLS_SHOWN_MAX + 5} calls:\n`);
    expect(stderr.text).not.toContain('a.B/Call5 ');
    expect(stderr.text.match(/a\.B\/Call6 /g)).toHaveLength(1);
    expect(stderr.text.match(/ended after/g)).toHaveLength(1);
  });
});
