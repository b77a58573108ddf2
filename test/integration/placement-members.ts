/** Members of the placement service as processes, and a load on them that checks what ids and timestamps promise. */
import { expect } from 'vitest';
import { PdClient } from '../../src/client/pd-client.ts';
import { SILENT_LOGGER } from '../../src/env/log.ts';
import { realClock } from '../../src/env/real/index.ts';
import { createRng } from '../../src/env/rng.ts';
import { type AdminClient, connectAdmin } from '../../src/index.ts';
import type { PlacementMember } from '../../src/client/admin-wire.ts';
import { composeTimestamp } from '../../src/pd/tso/timestamp-oracle.ts';
import { createGrpcNet, type GrpcNet } from '../../src/rpc/grpc/grpc-net.ts';
import { pdMethods } from '../../src/rpc/services.ts';
import { type Ended, Program, TemporaryDirectory, waitFor } from './cluster.ts';

/** Every call must succeed within this, whatever happens to a leader. */
export const CALL_LIMIT_MS = 20_000;

export class Members implements AsyncDisposable {
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
export class Load {
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
