/**
 * A real cluster for tests: the built program (`dist/`), one child process per member, free loopback ports, a
 * temporary directory. Everything started here is ended by `await using`, or with the test process at the latest.
 *
 * The program is built once per run if a source file is newer than the last build.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Braid, connect } from '../../src/index.ts';
import type { CertificateFiles } from '../support/certificates.ts';

const ROOT: string = fileURLToPath(new URL('../..', import.meta.url));
const MAIN: string = join(ROOT, 'dist', 'cli', 'main.js');
const READY_MS = 60_000;
const WAIT_MS = 60_000;
const POLL_MS = 25;
const LOG_TAIL_LINES = 30;

/** Every child of this test process, so that none outlives it. */
const children = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of children) {
    child.kill('SIGKILL');
  }
});

function newestChange(directory: string): number {
  let newest = 0;
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    newest = Math.max(newest, entry.isDirectory() ? newestChange(path) : statSync(path).mtimeMs);
  }
  return newest;
}

let isBuilt = false;

/** Compiles the program unless the last build is newer than every source file. */
export function ensureBuilt(): void {
  if (!isBuilt) {
    if (!existsSync(MAIN) || statSync(MAIN).mtimeMs < newestChange(join(ROOT, 'src'))) {
      const build = spawnSync(process.execPath, [join(ROOT, 'scripts', 'build.js')], { cwd: ROOT, encoding: 'utf8' });
      if (build.status !== 0) {
        throw new Error(`the build failed:\n${build.stdout}${build.stderr}`);
      }
    }
    isBuilt = true;
  }
}

/** Waits until `probe` returns something other than undefined or false; errors count as "not yet". */
export async function waitFor<T>(
  what: string,
  probe: () => T | Promise<T>,
  limitMs: number = WAIT_MS,
): Promise<NonNullable<T>> {
  const deadline = performance.now() + limitMs;
  let last: unknown;
  for (;;) {
    try {
      last = await probe();
      if (last !== undefined && last !== false && last !== null) {
        return last as NonNullable<T>;
      }
    } catch (error) {
      last = error;
    }
    if (performance.now() >= deadline) {
      throw new Error(
        `waited ${limitMs} ms for ${what}; last: ${last instanceof Error ? last.message : JSON.stringify(last)}`,
      );
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

export interface Ended {
  readonly code: number | undefined;
  readonly signal: string | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

/** The environment of children: nothing of the caller's own braid settings. */
const cleanEnvironment = (more: Readonly<Record<string, string>> = {}): NodeJS.ProcessEnv => ({
  ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('BRAID_'))),
  // Set here, so that the store does not start itself again as a child with it.
  UV_THREADPOOL_SIZE: '16',
  ...more,
});

/** One run of the program. */
export class Program {
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;
  stdout = '';
  stderr = '';

  constructor(
    args: readonly string[],
    options: { readonly env?: Readonly<Record<string, string>>; readonly cwd?: string; readonly input?: string } = {},
  ) {
    ensureBuilt();
    this.child = spawn(process.execPath, [MAIN, ...args], {
      env: cleanEnvironment(options.env),
      stdio: ['pipe', 'pipe', 'pipe'],
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    });
    children.add(this.child);
    this.child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text;
    });
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text;
    });
    this.child.stdin?.on('error', () => undefined).end(options.input ?? '');
    this.ended = new Promise((resolve) => {
      this.child.once('close', (code, signal) => {
        children.delete(this.child);
        resolve({ code: code ?? undefined, signal: signal ?? undefined, stdout: this.stdout, stderr: this.stderr });
      });
    });
  }

  get isRunning(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<Ended> {
    this.child.kill(signal);
    return this.ended;
  }

  /** Waits for a line of stdout that matches; fails at once when the program ends without it. */
  async line(pattern: RegExp, limitMs: number = READY_MS): Promise<RegExpExecArray> {
    const found = await waitFor(
      `a line like ${pattern.source}`,
      () => pattern.exec(this.stdout) ?? (this.isRunning ? undefined : 'ended'),
      limitMs,
    );
    if (found === 'ended') {
      const { code, signal, stderr } = await this.ended;
      throw new Error(`the program ended (${code ?? signal}): ${stderr}`);
    }
    return found;
  }
}

/** Runs the program to its end. */
export async function braid(
  args: readonly string[],
  options: ConstructorParameters<typeof Program>[1] & { readonly limitMs?: number } = {},
): Promise<Ended> {
  const program = new Program(args, options);
  const timer = setTimeout(() => program.child.kill('SIGKILL'), options.limitMs ?? READY_MS);
  const ended = await program.ended;
  clearTimeout(timer);
  return ended;
}

/** A port that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  const bound = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (bound === null || typeof bound === 'string') {
    throw new Error('no port was bound');
  }
  return bound.port;
}

/** A first port with `count` free ones behind it. */
export async function freePortBase(count: number): Promise<number> {
  const isFree = (port: number): Promise<boolean> =>
    new Promise((resolve) => {
      const server = createServer();
      server.once('error', () => resolve(false));
      server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
    });
  const TRIES_MAX = 50;
  for (let i = 0; i < TRIES_MAX; i++) {
    const base = await freePort();
    let free = base + count < 65_000;
    for (let port = base; free && port < base + count; port++) {
      free = await isFree(port);
    }
    if (free) {
      return base;
    }
  }
  throw new Error(`no ${count} free ports in a row`);
}

/** A directory that is removed at the end. */
export class TemporaryDirectory implements Disposable {
  readonly path: string = mkdtempSync(join(tmpdir(), 'braid-test-'));

  join(...parts: readonly string[]): string {
    return join(this.path, ...parts);
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

export interface ClusterOptions {
  readonly stores?: number;
  /** `--set section.key=value` of every store, and of the placement service. */
  readonly storeSettings?: readonly string[];
  readonly pdSettings?: readonly string[];
  /** What documents call the stores, in their order; without it they have no names. */
  readonly podNames?: readonly string[];
  /** Members of the placement service. Default 1. */
  readonly pdMembers?: number;
  /** Files of certificates that every process and client uses; made when the directory is there. */
  readonly tls?: (directory: string) => CertificateFiles;
}

/** What GET /regions says about one region, as far as tests look at it. */
export interface RegionView {
  readonly id: number;
  readonly startKey: string;
  readonly endKey: string;
  readonly role: string;
  readonly state: string;
  readonly leaderPeerId: number;
  readonly appliedIndex: number;
  readonly peers: readonly { readonly id: number; readonly storeId: number; readonly role: string }[];
}

/** A store of the cluster, running or not. */
export class TestStore {
  readonly number: number;
  readonly dataDir: string;
  readonly logFile: string;
  readonly #cluster: TestCluster;
  #program: Program | undefined;
  address = '127.0.0.1:0';
  statusAddress = '127.0.0.1:0';
  id = 0;

  constructor(cluster: TestCluster, number: number) {
    this.number = number;
    this.#cluster = cluster;
    this.dataDir = cluster.directory.join(`store-${number}`);
    this.logFile = cluster.directory.join('log', `store-${number}.log`);
  }

  get program(): Program {
    if (this.#program === undefined) {
      throw new Error(`store ${this.number} was never started`);
    }
    return this.#program;
  }

  get isRunning(): boolean {
    return this.#program?.isRunning ?? false;
  }

  /** Starts the process and waits until it serves. A store that ran before comes back under its old address. */
  async start(options: { readonly env?: Readonly<Record<string, string>> } = {}): Promise<void> {
    const statusPort = this.statusAddress.endsWith(':0') ? await freePort() : Number(this.statusAddress.split(':')[1]);
    this.statusAddress = `127.0.0.1:${statusPort}`;
    this.#program = new Program(
      [
        'server',
        ...['--pd', this.#cluster.pdAddress],
        ...['--addr', this.address],
        ...['--status-addr', this.statusAddress],
        ...['--data-dir', this.dataDir],
        ...['--log-file', this.logFile],
        ...this.#cluster.tlsFlags,
        ...this.#labels(),
        ...this.#cluster.options.storeSettings.flatMap((setting) => ['--set', setting]),
      ],
      options,
    );
    const [, id, address] = await this.#program.line(/^ready: store (\d+) at (\S+),/m).catch((error: unknown) => {
      throw new Error(`store ${this.number} did not start: ${String(error)}\n${tail(this.logFile)}`);
    });
    this.id = Number(id);
    this.address = address as string;
  }

  #labels(): string[] {
    const pod = this.#cluster.podNames[this.number - 1];
    return pod === undefined ? [] : ['--labels', `name=${pod}`];
  }

  /** As a power cut of this process. */
  async kill(): Promise<void> {
    await this.program.kill('SIGKILL');
  }

  /** As an operator stops it. */
  async stop(): Promise<Ended> {
    return this.program.kill('SIGTERM');
  }

  async restart(): Promise<void> {
    await this.kill();
    await this.start();
  }

  async page<T>(path: string): Promise<T> {
    const response = await fetch(`http://${this.statusAddress}${path}`, { signal: AbortSignal.timeout(5_000) });
    const text = await response.text();
    return (response.headers.get('content-type')?.includes('json') === true ? JSON.parse(text) : text) as T;
  }

  regions(): Promise<readonly RegionView[]> {
    return this.page('/regions');
  }
}

export class TestCluster implements AsyncDisposable {
  readonly directory: TemporaryDirectory = new TemporaryDirectory();
  readonly stores: TestStore[] = [];
  readonly options: { readonly storeSettings: readonly string[]; readonly pdSettings: readonly string[] };
  readonly podNames: readonly string[];
  readonly #clients: Braid[] = [];
  /** Members of the placement service, in the order of their names pd1, pd2 …; one alone is called pd. */
  readonly #pds: Program[] = [];
  readonly #pdMembers: number;
  readonly tls: CertificateFiles | undefined;
  /** Of all members, separated by commas. */
  pdAddress = '127.0.0.1:0';

  private constructor(options: ClusterOptions) {
    this.podNames = options.podNames ?? [];
    this.#pdMembers = options.pdMembers ?? 1;
    this.tls = options.tls?.(this.directory.path);
    this.options = { storeSettings: options.storeSettings ?? [], pdSettings: options.pdSettings ?? [] };
    mkdirSync(this.directory.join('log'));
  }

  /** Starts a cluster and waits until its first region has a replica on up to three stores. */
  static async start(options: ClusterOptions = {}): Promise<TestCluster> {
    const cluster = new TestCluster(options);
    try {
      await cluster.startPd();
      const count = options.stores ?? 3;
      for (let number = 1; number <= count; number++) {
        cluster.stores.push(new TestStore(cluster, number));
      }
      await Promise.all(cluster.stores.map((store) => store.start()));
      await cluster.waitReplicated(Math.min(count, 3));
      return cluster;
    } catch (error) {
      await cluster[Symbol.asyncDispose]();
      throw error;
    }
  }

  get tlsFlags(): readonly string[] {
    return this.tls === undefined
      ? []
      : ['--tls-ca', this.tls.ca, '--tls-cert', this.tls.cert, '--tls-key', this.tls.key];
  }

  get pd(): Program {
    return this.pdMember(1);
  }

  pdMember(number: number): Program {
    const program = this.#pds[number - 1];
    if (program === undefined) {
      throw new Error('the placement service was never started');
    }
    return program;
  }

  /** Starts the placement service, or starts it again where it was. */
  async startPd(): Promise<void> {
    if (this.#pdMembers > 1 && this.#pds.length === 0) {
      const ports: number[] = [];
      while (ports.length < this.#pdMembers) {
        ports.push(await freePort());
      }
      this.pdAddress = ports.map((port) => `127.0.0.1:${port}`).join(',');
    }
    await Promise.all(Array.from({ length: this.#pdMembers }, (_, i) => this.startPdMember(i + 1)));
  }

  async startPdMember(number: number): Promise<void> {
    const addresses = this.pdAddress.split(',');
    const group = addresses
      .map((address, i) => `pd${i + 1}=${this.tls === undefined ? 'http' : 'https'}://${address}`)
      .join(',');
    const name = this.#pdMembers === 1 ? 'pd' : `pd${number}`;
    const program = new Program([
      'pd',
      ...['--addr', addresses[number - 1] as string],
      ...['--data-dir', this.directory.join(name)],
      ...['--log-file', this.directory.join('log', `${name}.log`)],
      ...(this.#pdMembers === 1 ? [] : ['--name', name, '--initial-cluster', group]),
      ...this.tlsFlags,
      ...this.options.pdSettings.flatMap((setting) => ['--set', setting]),
    ]);
    this.#pds[number - 1] = program;
    const [, address] = await program.line(/^ready: placement service at (\S+),/m);
    if (this.#pdMembers === 1) {
      this.pdAddress = address as string;
    }
  }

  store(number: number): TestStore {
    const store = this.stores[number - 1];
    if (store === undefined) {
      throw new Error(`there is no store ${number}`);
    }
    return store;
  }

  /** Adds and starts one more store. */
  async addStore(): Promise<TestStore> {
    const store = new TestStore(this, this.stores.length + 1);
    this.stores.push(store);
    await store.start();
    return store;
  }

  /** A client that is closed with the cluster. */
  async client(options: { readonly timeoutMs?: number } = {}): Promise<Braid> {
    const client = await connect({
      pd: this.pdAddress.split(','),
      ...(this.tls === undefined ? {} : { tls: this.tls }),
      ...options,
    });
    this.#clients.push(client);
    return client;
  }

  async killAll(): Promise<void> {
    await Promise.all(this.stores.filter((store) => store.isRunning).map((store) => store.kill()));
  }

  async startAll(): Promise<void> {
    await Promise.all(this.stores.map((store) => store.start()));
  }

  /** Every region of the running stores has `replicas` voters, a leader, and no replica behind. */
  async waitReplicated(replicas: number): Promise<void> {
    await waitFor(`${replicas} replicas of every region`, async () => {
      const views = await Promise.all(this.stores.filter((store) => store.isRunning).map((store) => store.regions()));
      const byRegion = new Map<number, RegionView[]>();
      for (const view of views.flat()) {
        byRegion.set(view.id, [...(byRegion.get(view.id) ?? []), view]);
      }
      return (
        byRegion.size > 0 &&
        [...byRegion.values()].every(
          (copies) =>
            copies.length === replicas &&
            copies.some((copy) => copy.role === 'leader') &&
            copies.every(
              (copy) =>
                copy.state === 'normal' &&
                copy.peers.length === replicas &&
                copy.peers.every((peer) => peer.role === 'voter') &&
                copy.appliedIndex === copies[0]?.appliedIndex,
            ),
        )
      );
    });
  }

  /** The store that leads the region with this key. */
  async leaderOf(client: Braid, key: string): Promise<TestStore> {
    return waitFor(`a leader of the region of ${key}`, async () => {
      const { leader } = await client.locate(key);
      return this.stores.find((store) => store.id === leader?.storeId && store.isRunning);
    });
  }

  /** Ends of all logs, for the message of a failed test. */
  logs(): string {
    return readdirSync(this.directory.join('log'))
      .map((name) => `== ${name}\n${tail(this.directory.join('log', name))}`)
      .join('\n');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients) {
      client.destroy();
    }
    const programs = [...this.stores.filter((store) => store.isRunning).map((store) => store.program), ...this.#pds];
    await Promise.all(programs.map((program) => program.kill('SIGKILL')));
    this.directory[Symbol.dispose]();
  }
}

function tail(path: string): string {
  return existsSync(path) ? readFileSync(path, 'utf8').split('\n').slice(-LOG_TAIL_LINES).join('\n') : '(no log)';
}
