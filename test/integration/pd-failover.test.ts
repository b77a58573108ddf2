/** Three placement members as processes: killed, stopped, replaced and restarted under load. */
import { rmSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { EMPTY_BYTES, fromUtf8 } from '../../src/base/bytes.ts';
import { PdClient } from '../../src/client/pd-client.ts';
import { SILENT_LOGGER } from '../../src/env/log.ts';
import { realClock } from '../../src/env/real/index.ts';
import { createRng } from '../../src/env/rng.ts';
import { type AdminClient, connect, connectAdmin } from '../../src/index.ts';
import type { PlacementMember } from '../../src/client/admin-wire.ts';
import { composeTimestamp } from '../../src/pd/tso/timestamp-oracle.ts';
import { createGrpcNet, type GrpcNet } from '../../src/rpc/grpc/grpc-net.ts';
import { pdMethods } from '../../src/rpc/services.ts';
import { freePorts } from '../support/free-ports.ts';
import { type Ended, Program, TemporaryDirectory, waitFor } from './cluster.ts';

/** Every call must succeed within this, whatever happens to a leader. */
const CALL_LIMIT_MS = 20_000;

class Members implements AsyncDisposable {
  readonly directory: TemporaryDirectory = new TemporaryDirectory();
  readonly addresses: readonly string[];
  readonly programs: Map<number, Program> = new Map();
  readonly others: Program[] = [];
  readonly net: GrpcNet = createGrpcNet();
  #admin: AdminClient | undefined;

  constructor(ports: readonly number[]) {
    this.addresses = ports.map((port) => `127.0.0.1:${port}`);
  }

  get endpoints(): string {
    return this.addresses.slice(0, 3).join(',');
  }

  /** @param more flags of a first start */
  async start(n: number, more: readonly string[] = []): Promise<void> {
    const program = new Program([
      'pd',
      ...['--name', `pd${n}`],
      ...['--addr', this.addresses[n - 1] as string],
      ...['--data-dir', this.directory.join(`pd${n}`)],
      ...['--log-file', this.directory.join(`pd${n}.log`)],
      ...more,
    ]);
    this.programs.set(n, program);
    await program.line(/^ready: placement service at (\S+),/m);
  }

  async found(): Promise<void> {
    const list = [1, 2, 3].map((n) => `pd${n}=http://${this.addresses[n - 1]}`).join(',');
    await Promise.all([1, 2, 3].map((n) => this.start(n, ['--initial-cluster', list])));
    await this.untilVoters(3);
  }

  async store(n: number): Promise<void> {
    const program = new Program([
      'server',
      ...['--pd', this.endpoints],
      ...['--addr', '127.0.0.1:0'],
      ...['--status-addr', ''],
      ...['--data-dir', this.directory.join(`store${n}`)],
      ...['--log-file', this.directory.join(`store${n}.log`)],
      ...['--set', 'raftstore.store-heartbeat=1s', '--set', 'raftstore.pd-heartbeat=1s'],
    ]);
    this.others.push(program);
    await program.line(/^ready: store (\d+) at (\S+),/m);
  }

  async kill(n: number): Promise<void> {
    await this.programs.get(n)?.kill('SIGKILL');
  }

  ctl(...args: readonly string[]): Promise<Ended> {
    return new Program(['ctl', 'pd', 'member', ...args, '--pd', this.addresses.join(','), '--timeout', '20s']).ended;
  }

  /** As the leader sees them. */
  async list(): Promise<readonly PlacementMember[]> {
    this.#admin ??= await connectAdmin({ pd: this.addresses, connectTimeoutMs: CALL_LIMIT_MS });
    return this.#admin.placementMembers({ timeoutMs: CALL_LIMIT_MS });
  }

  async untilVoters(count: number): Promise<void> {
    await waitFor(`${count} voters`, async () => {
      const members = await this.list();
      return members.length === count && members.every((member) => member.isVoter && member.isAnswering);
    });
  }

  /** Number of the member that leads. */
  async leader(): Promise<number> {
    const leader = (await this.list()).find((member) => member.isLeader);
    return Number(leader?.name.slice(2));
  }

  client(): PdClient {
    return new PdClient({
      env: { net: this.net, clock: realClock(), rng: createRng(5), log: SILENT_LOGGER },
      endpoints: this.addresses.slice(0, 3),
      name: 'test',
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#admin?.close();
    const running = [...this.programs.values(), ...this.others].filter((program) => program.isRunning);
    await Promise.all(running.map((program) => program.kill('SIGKILL')));
    await this.net.close(0);
    this.directory[Symbol.dispose]();
  }
}

/** Takes ids and timestamps without pause and checks what they promise. */
class Load {
  readonly #client: PdClient;
  readonly ids: number[] = [];
  /** When each timestamp was asked for and got, in the order of the answers. */
  readonly timestamps: { readonly askedMs: number; readonly gotMs: number; readonly value: bigint }[] = [];
  longestMs = 0;
  #isStopping = false;
  readonly #workers: Promise<void>[];

  constructor(client: PdClient) {
    this.#client = client;
    const header = { clusterId: String(client.clusterId), senderId: 0, callerId: '', callerComponent: '' };
    const timed = async <T>(call: () => Promise<T>): Promise<T> => {
      const startMs = performance.now();
      const result = await call();
      this.longestMs = Math.max(this.longestMs, performance.now() - startMs);
      return result;
    };
    const options = { timeoutMs: CALL_LIMIT_MS };
    const takeIds = async (): Promise<void> => {
      while (!this.#isStopping) {
        const { id } = await timed(() => client.call(pdMethods.allocID, { header, count: 1 }, options));
        this.ids.push(id);
      }
    };
    const takeTime = async (): Promise<void> => {
      while (!this.#isStopping) {
        const askedMs = performance.now();
        const { timestamp } = await timed(() => client.call(pdMethods.getMinTS, { header }, options));
        const physical = Number(timestamp?.physical ?? 0);
        const value = composeTimestamp({ physical, logical: Number(timestamp?.logical ?? 0) });
        this.timestamps.push({ askedMs, gotMs: performance.now(), value });
      }
    };
    this.#workers = [takeIds(), takeIds(), takeTime(), takeTime()];
  }

  get answers(): number {
    return this.ids.length + this.timestamps.length;
  }

  /** Waits for `more` answers. */
  async progress(more: number): Promise<void> {
    const from = this.answers;
    await Promise.race([
      waitFor(`${more} more answers`, () => this.answers >= from + more),
      Promise.all(this.#workers),
    ]);
  }

  /** @throws the first failure of any call */
  async stop(): Promise<void> {
    this.#isStopping = true;
    await Promise.all(this.#workers);
    this.#client.close();
    if (process.env['BRAID_TEST_FIGURES'] !== undefined) {
      process.stdout.write(`${this.answers} answers, longest ${Math.round(this.longestMs)} ms\n`);
    }
    expect(new Set(this.ids).size).toBe(this.ids.length);
    expect(new Set(this.timestamps.map(({ value }) => value)).size).toBe(this.timestamps.length);
    // A timestamp asked for after another one was received is larger.
    const byAsking = [...this.timestamps].sort((a, b) => a.askedMs - b.askedMs);
    const byGetting = [...this.timestamps].sort((a, b) => a.gotMs - b.gotMs);
    let largest = 0n;
    let received = 0;
    for (const asked of byAsking) {
      for (; (byGetting[received]?.gotMs ?? Infinity) < asked.askedMs; received++) {
        const { value } = byGetting[received] as { readonly value: bigint };
        largest = value > largest ? value : largest;
      }
      expect(asked.value > largest).toBe(true);
    }
  }
}

describe('three placement members', () => {
  let members: Members;

  const load = async (): Promise<Load> => {
    const client = members.client();
    await client.connect(CALL_LIMIT_MS);
    return new Load(client);
  };

  beforeEach(async () => {
    members = new Members(await freePorts(4));
    await members.found();
  });

  afterEach(async () => {
    await members[Symbol.asyncDispose]();
  });

  test('the leader is killed again and again under load: no call fails, time and ids only grow', async () => {
    const running = await load();
    for (let round = 0; round < 3; round++) {
      await running.progress(50);
      const n = await members.leader();
      await members.kill(n);
      await running.progress(50);
      await members.start(n);
      await members.untilVoters(3);
    }
    await running.stop();
    expect(running.longestMs).toBeLessThan(CALL_LIMIT_MS / 2);
  });

  test('a leader that is stopped and goes on answers nothing old', async () => {
    const running = await load();
    for (let round = 0; round < 2; round++) {
      await running.progress(50);
      const n = await members.leader();
      members.programs.get(n)?.child.kill('SIGSTOP');
      await running.progress(50);
      // Administration follows the lead as well.
      expect((await members.list()).find((member) => member.isLeader)?.name).not.toBe(`pd${n}`);
      members.programs.get(n)?.child.kill('SIGCONT');
      await members.untilVoters(3);
    }
    await running.stop();
    expect(running.longestMs).toBeLessThan(CALL_LIMIT_MS / 2);
  });

  test('the lead moves on request, and a lost member is replaced, while everything is served', async () => {
    const running = await load();
    const first = await members.leader();
    const moved = await members.ctl('transfer-leader', '-o', 'json');
    expect(moved).toMatchObject({ code: 0 });
    const n = await members.leader();
    expect(n).not.toBe(first);
    const lost = [1, 2, 3].find((other) => other !== n) as number;
    await members.kill(lost);
    rmSync(members.directory.join(`pd${lost}`), { recursive: true });
    const other = [1, 2, 3].find((each) => each !== n && each !== lost) as number;
    await waitFor('the loss is noticed', async () => (await members.list()).some(({ isAnswering }) => !isAnswering));
    const refused = await members.ctl('remove', `pd${other}`, '--yes');
    expect([refused.code, refused.stderr]).toEqual([3, expect.stringContaining('WouldLoseQuorum')]);
    expect(await members.ctl('remove', `pd${lost}`, '--yes')).toMatchObject({ code: 0 });
    await members.start(4, ['--join', `http://${members.addresses[n - 1]},http://${members.addresses[other - 1]}`]);
    await members.untilVoters(3);
    const listed = await members.ctl('list', '-o', 'name');
    expect(
      listed.stdout
        .split('\n')
        .filter((name) => name !== '')
        .toSorted(),
    ).toEqual([1, 2, 3, 4].filter((each) => each !== lost).map((each) => `pd${each}`));
    await members.kill(await members.leader());
    await running.progress(50);
    await running.stop();
  });

  test('a member that is removed ends and says why', async () => {
    const n = await members.leader();
    const removed = [1, 2, 3].find((other) => other !== n) as number;
    expect(await members.ctl('remove', `pd${removed}`, '--yes')).toMatchObject({ code: 0 });
    const ended = await members.programs.get(removed)?.ended;
    expect([ended?.code, ended?.stderr]).toEqual([1, expect.stringContaining(`pd${removed} was removed`)]);
    await expect(members.start(removed)).rejects.toThrow('was removed from the cluster');
  });

  test('all are killed at once and go on where they were', async () => {
    const before = await load();
    await before.progress(100);
    await before.stop();
    await Promise.all([1, 2, 3].map((n) => members.kill(n)));
    await Promise.all([1, 2, 3].map((n) => members.start(n)));
    const after = await load();
    await after.progress(20);
    await after.stop();
    expect(Math.min(...after.ids)).toBeGreaterThan(Math.max(...before.ids));
    const values = (run: Load): bigint[] => run.timestamps.map(({ value }) => value);
    expect(values(after).every((value) => values(before).every((old) => value > old))).toBe(true);
  });

  test('stores and clients follow the lead', async () => {
    await Promise.all([1, 2, 3].map((n) => members.store(n)));
    await using db = await connect({ pd: members.endpoints.split(','), timeoutMs: CALL_LIMIT_MS });
    await db.put('a', 'before');
    const old = await members.leader();
    await members.kill(old);
    // A client that knows nothing yet finds everything through the members that are left.
    await using late = await connect({
      pd: members.endpoints.split(','),
      timeoutMs: CALL_LIMIT_MS,
      connectTimeoutMs: CALL_LIMIT_MS,
    });
    await late.put('b', 'after');
    expect(fromUtf8((await db.get('a')) ?? EMPTY_BYTES)).toBe('before');
    expect(fromUtf8((await db.get('b')) ?? EMPTY_BYTES)).toBe('after');
    await waitFor('the new leader hears from all stores and regions', async () => {
      const { stdout } = await new Program(['ctl', 'status', '-o', 'json', '--pd', members.endpoints]).ended;
      const status = JSON.parse(stdout) as {
        readonly stores: { readonly up: number };
        readonly regions: { readonly withoutLeader: number; readonly total: number };
        readonly problems: readonly { readonly code: string }[];
      };
      return (
        status.stores.up === 3 &&
        status.regions.total > 0 &&
        status.regions.withoutLeader === 0 &&
        status.problems.some(({ code }) => code === 'MemberSilent')
      );
    });
  });
});
