/**
 * A store process from start to stop. The only place that knows the order of things:
 *
 * ```text
 * start: placement service reachable ─► data directory, identity ─► port bound (calls answered UNAVAILABLE)
 *        ─► first region settled ─► regions loaded ─► address announced ─► regions move, reports flow ─► SERVING
 * stop:  NOT_SERVING, placement service told ─► leaders move away (bounded) ─► regions stop ─► streams end
 *        ─► port closed ─► links and reports closed ─► database closed
 * ```
 */
import { AppError } from '../base/app-error.ts';
import { storeId as brandStoreId } from '../base/ids.ts';
import { escapeKey } from '../base/bytes.ts';
import { sleep, type TimerId } from '../env/clock.ts';
import type { Engine } from '../env/engine.ts';
import type { Env } from '../env/env.ts';
import type { Listener } from '../env/net.ts';
import type { StoreHeartbeat } from '../meta/heartbeat.ts';
import type { Store } from '../meta/region.ts';
import { RaftStore, type RegionStatus } from '../raftstore/store/raft-store.ts';
import { ServiceBuilder } from '../rpc/service-builder.ts';
import { healthMethods, peerMethods, processMethods, tikvMethods } from '../rpc/services.ts';
import { addProcessService, processFacts } from './process-service.ts';
import { type LoadedConfig, stripScheme } from './config.ts';
import { fileSystemSpace, joinCluster, openDataDir } from './data-dir.ts';
import { Metrics } from './metrics.ts';
import { StorePd, StoreRemovedError } from './pd-client.ts';
import { DeferredServices } from './service/deferred-services.ts';
import { HealthService } from './service/health-service.ts';
import { RedirectingKv } from './service/redirecting-kv.ts';
import type { StoreIdentity } from './service/request-context.ts';
import { RequestMetrics } from './service/request-metrics.ts';
import { TikvService } from './service/tikv-service.ts';
import { parseLabel, SETTINGS, settingName, type StoreProcessConfig } from './settings.ts';
import { jsonPage, startStatusServer, type StatusRoutes } from './status-server.ts';
import { addPeerService, StoreTransport } from './transport/store-transport.ts';

/** Version told to clients; they only compare it with old releases of TiKV. */
const PROTOCOL_VERSION = '8.5.0';
/** Interval of looks at leaders that are still to be moved. */
const EVACUATION_ROUND_MS = 50;
/** A stopping store does not wait for leaders whose number has not gone down for so long. */
const EVACUATION_STUCK_MS = 2_000;
/** How long running unary calls may take when the port is closed. */
const CLOSE_GRACE_MS = 500;

export interface StoreOptions {
  readonly env: Env;
  readonly config: StoreProcessConfig;
  /** Where settings come from, for the status page. */
  readonly origins?: LoadedConfig<StoreProcessConfig>['origins'];
  /** Of the program, for whoever asks. */
  readonly version?: string;
  /** Gives up waiting for the placement service. */
  readonly signal?: AbortSignal;
  /** The store cannot go on although its data is sound; the owner of the process stops it. */
  readonly onFatal: (error: AppError) => void;
}

export interface StoreProcess {
  /** `host:port` others dial. */
  readonly address: string;
  /** `host:port` of the status pages; undefined if they are off. */
  readonly statusAddress: string | undefined;
  readonly storeId: number;
  readonly clusterId: bigint;
  /** `graceful` moves leaders away first. Idempotent; a later call may turn a graceful stop into a quick one. */
  close(options: { readonly graceful: boolean }): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** The listen address cannot be used. */
export class ListenError extends AppError {
  constructor(address: string, cause: unknown) {
    super('Listen', `cannot listen on ${address}: ${cause instanceof Error ? cause.message : String(cause)}`, {
      hint: 'stop the process that uses the address, or choose another one with --addr',
      cause,
    });
  }
}

type Closer = () => void | Promise<void>;

/** Closes in reverse order of opening. */
class Closers {
  readonly #closers: Closer[] = [];

  add(closer: Closer): void {
    this.#closers.push(closer);
  }

  async closeAll(): Promise<void> {
    for (let closer = this.#closers.pop(); closer !== undefined; closer = this.#closers.pop()) {
      await closer();
    }
  }
}

/**
 * Resolves when the store serves.
 * @throws ConfigError, UnavailableError (no placement service), DirectoryClusterMismatchError, DataDirError,
 *   EngineOpenError, ListenError, StatusListenError, StoreRemovedError, StoreRolledBackError,
 *   PlacementRefusedError
 */
export async function startStore(options: StoreOptions): Promise<StoreProcess> {
  const closers = new Closers();
  try {
    return await open(options, closers);
  } catch (cause) {
    await closers.closeAll();
    throw cause;
  }
}

async function open(options: StoreOptions, closers: Closers): Promise<StoreProcess> {
  const { env, config } = options;
  const { server, storage, raftstore } = config;
  const { clock } = env;
  const startSeconds = Math.floor(clock.wallMs() / 1000);

  const pd = new StorePd({ env, endpoints: server.pd.map(stripScheme) });
  closers.add(() => pd.close());
  await pd.connect(server.startTimeoutMs, options.signal);

  const { engine, ident, starts } = await openDataDir({ path: server.dataDir, engines: env.engines, pd, log: env.log });
  closers.add(() => engine.close());
  engine.onPoisoned((reason) => env.abort('storage', reason));
  const identity: StoreIdentity = { clusterId: String(ident.clusterId), storeId: ident.storeId };
  const log = env.log.child({ store: ident.storeId });
  const storeEnv: Env = { ...env, log };

  const deferred = new DeferredServices(`store ${ident.storeId} is starting`);
  const methods = [
    ...Object.values(tikvMethods),
    ...Object.values(peerMethods),
    ...Object.values(healthMethods),
    ...Object.values(processMethods),
  ];
  let listener: Listener;
  try {
    listener = await env.net.listen(server.addr, deferred.table(methods));
  } catch (cause) {
    throw new ListenError(server.addr, cause);
  }
  closers.add(() => listener.close(CLOSE_GRACE_MS));
  const address = server.advertiseAddr === '' ? listener.address : server.advertiseAddr;

  // The status port is bound before anybody learns its address, and answers as soon as there is something to say.
  const pages: { routes: StatusRoutes } = { routes: {} };
  const status =
    server.statusAddr === ''
      ? undefined
      : await startStatusServer(
          server.statusAddr,
          statusRoutes(() => pages.routes),
        );
  if (status !== undefined) {
    closers.add(() => status.close());
  }

  const self: Store = {
    id: brandStoreId(ident.storeId),
    address,
    statusAddress: status?.address ?? '',
    state: 'up',
    labels: server.labels.map(parseLabel).filter((label) => label !== undefined),
    version: PROTOCOL_VERSION,
    startTimestamp: startSeconds,
  };
  await joinCluster({ engine, pd, store: self, log });

  const transport = new StoreTransport({
    env: storeEnv,
    self: identity,
    engine,
    resolve: async (storeId) => (await pd.getStore(brandStoreId(storeId))).address,
    snapshotSendsMax: raftstore.snapshotSendsMax,
    snapshotChunkBytes: raftstore.snapshotChunkBytes,
  });
  closers.add(() => transport.close());
  const store = await RaftStore.open({
    env: storeEnv,
    config: raftstore,
    storeId: ident.storeId,
    engine,
    transport,
    pd,
  });
  closers.add(() => store.stop());
  transport.onUnreachable = (storeId) => store.storeUnreachable(storeId);
  pd.onStep = (step) => store.onStep(step);
  pd.onRemoved = () => options.onFatal(new StoreRemovedError(ident.storeId));

  const metrics = new Metrics();
  const requestMetrics = new RequestMetrics(metrics);
  const resolve = async (storeId: number): Promise<string> => (await pd.getStore(brandStoreId(storeId))).address;
  const kv = new RedirectingKv({
    redirects: store,
    net: env.net,
    log,
    resolve,
    holdMs: raftstore.proxyHoldMs,
    identity,
    clock,
    engine,
    backend: store,
    enableTtl: storage.enableTtl,
    keySizeMaxBytes: raftstore.keySizeMaxBytes,
    onDamage: (error) => env.abort('storage', error.message, error),
  });
  closers.add(() => kv.close());
  const tikv = new TikvService({ kv, clock, metrics: requestMetrics, ownAddresses: [address, listener.address] });
  const health = new HealthService();
  const services = new ServiceBuilder();
  tikv.addTo(services);
  health.addTo(services);
  addProcessService(
    services,
    processFacts('store', { version: options.version ?? '', config, origins: options.origins }),
  );
  addPeerService(services, { env: storeEnv, self: identity, target: store });
  deferred.open(services.build());

  await pd.putStore(self, starts);
  store.start();
  pd.start(ident.storeId);
  const heartbeats = new StoreHeartbeats({ env: storeEnv, config, engine, store, transport, pd, startSeconds });
  closers.add(() => heartbeats.stop());
  heartbeats.start();
  addGauges(metrics, store, transport, tikv);
  pages.routes = routesOf({ options, identity, self, store, transport, tikv, health, metrics, pd });
  health.isServing = true;
  log.info({ address, statusAddress: status?.address, regions: store.regionCount() }, 'the store is ready');

  const stopping = new AbortController();
  const closeOnce = async (graceful: boolean): Promise<void> => {
    const startMs = clock.monoMs();
    health.isServing = false;
    heartbeats.isStopping = true;
    if (graceful && server.gracefulStopMs > 0) {
      await heartbeats.send();
      await moveLeadersAway(storeEnv, store, server.gracefulStopMs, stopping.signal);
    }
    heartbeats.stop();
    // Requests still waiting are answered before their streams end.
    await store.stop();
    tikv.endStreams();
    health.endWatches();
    await closers.closeAll();
    log.info({ tookMs: Math.round(clock.monoMs() - startMs) }, 'the store has stopped');
  };
  let closing: Promise<void> | undefined;
  const close = ({ graceful }: { readonly graceful: boolean }): Promise<void> => {
    if (!graceful) {
      stopping.abort(new Error('stopping at once'));
    }
    closing ??= closeOnce(graceful);
    return closing;
  };
  return {
    address,
    statusAddress: status?.address,
    storeId: ident.storeId,
    clusterId: ident.clusterId,
    close,
    [Symbol.asyncDispose]: () => close({ graceful: false }),
  };
}

/** Hands leaders over until none is left that could go, nothing moves any more, or the time is up. */
async function moveLeadersAway(env: Env, store: RaftStore, limitMs: number, signal: AbortSignal): Promise<void> {
  const { clock, log } = env;
  const deadlineMs = clock.monoMs() + limitMs;
  let fewest = store.movableLeaderCount();
  let progressMs = clock.monoMs();
  log.info({ leaders: fewest }, 'moving leaders to other stores');
  for (let left = fewest; left > 0; left = store.movableLeaderCount()) {
    const nowMs = clock.monoMs();
    if (left < fewest) {
      fewest = left;
      progressMs = nowMs;
    }
    if (signal.aborted || nowMs >= deadlineMs || nowMs - progressMs >= EVACUATION_STUCK_MS) {
      log.warn({ leaders: left }, 'stopping with leaders that nobody took over');
      return;
    }
    store.transferAllLeaders();
    await sleep(clock, EVACUATION_ROUND_MS, 'evacuation');
  }
}

// ------------------------------------------------------------------------------------------------- store heartbeats

interface HeartbeatSource {
  readonly env: Env;
  readonly config: StoreProcessConfig;
  readonly engine: Engine;
  readonly store: RaftStore;
  readonly transport: StoreTransport;
  readonly pd: StorePd;
  readonly startSeconds: number;
}

class StoreHeartbeats {
  readonly #options: HeartbeatSource;
  isStopping = false;
  #timer: TimerId | undefined;
  #isStopped = false;

  constructor(options: HeartbeatSource) {
    this.#options = options;
  }

  start(): void {
    const { env, config } = this.#options;
    void this.send().then(() => {
      if (!this.#isStopped) {
        this.#timer = env.clock.setTimer(config.raftstore.storeHeartbeatMs, () => this.start(), 'store-heartbeat');
      }
    });
  }

  stop(): void {
    this.#isStopped = true;
    if (this.#timer !== undefined) {
      this.#options.env.clock.clearTimer(this.#timer);
    }
  }

  /** Reports once. Never rejects: the next report says the same. */
  async send(): Promise<void> {
    const { pd, store } = this.#options;
    try {
      const retired = await pd.storeHeartbeat(await this.#collect());
      if (retired.length > 0) {
        store.retireRedirects(retired);
        // Whoever waits for it hears at once; what is answered now comes again with the next report.
        await pd.storeHeartbeat(await this.#collect());
      }
    } catch (cause) {
      this.#options.env.log.debug({ cause }, 'a store report did not arrive');
    }
  }

  async #collect(): Promise<StoreHeartbeat> {
    const { config, engine, store, transport, startSeconds } = this.#options;
    const [space, usedBytes] = await Promise.all([
      fileSystemSpace(config.server.dataDir),
      engine.approximateSize({ start: Uint8Array.of(1), end: Uint8Array.of(0xff) }),
    ]);
    const limit = config.storage.capacityBytes;
    const capacityBytes = limit === 0 ? space.capacityBytes : Math.min(limit, space.capacityBytes);
    const { receiving, installing } = store.load();
    return {
      storeId: brandStoreId(store.storeId),
      capacityBytes,
      availableBytes: Math.min(space.availableBytes, Math.max(0, capacityBytes - usedBytes)),
      usedBytes,
      regionCount: store.regionCount(),
      sendingSnapshots: transport.sendingSnapshots,
      receivingSnapshots: receiving,
      applyingSnapshots: installing,
      startTimeSeconds: startSeconds,
      isBusy: false,
      isStopping: this.isStopping,
      damagedPeers: store.damagedPeers(),
      redirectedRegions: store.redirectedRegions(),
    };
  }
}

// ------------------------------------------------------------------------------------------------- status

interface StatusSource {
  readonly options: StoreOptions;
  readonly identity: StoreIdentity;
  readonly self: Store;
  readonly store: RaftStore;
  readonly transport: StoreTransport;
  readonly tikv: TikvService;
  readonly health: HealthService;
  readonly metrics: Metrics;
  readonly pd: StorePd;
}

function addGauges(metrics: Metrics, store: RaftStore, transport: StoreTransport, tikv: TikvService): void {
  metrics.gauge('braid_raftstore_region_count', 'Replicas and leaders on this store.', () => [
    [{ type: 'region' }, store.regionCount()],
    [{ type: 'leader' }, store.leaderCount()],
  ]);
  metrics.gauge('braid_raftstore_raft_messages', 'Messages to other stores since the start.', () => {
    const stats = transport.stats();
    return [
      [{ type: 'sent' }, stats.sentMessages],
      [{ type: 'dropped' }, stats.droppedMessages],
      [{ type: 'frames' }, stats.sentFrames],
    ];
  });
  metrics.gauge('braid_raftstore_splits', 'Splits that leaders here proposed since the start, by cause.', () =>
    Object.entries(store.counters.splits).map(([cause, count]) => [{ cause }, count] as const),
  );
  metrics.gauge('braid_raftstore_consistency_checks', 'Comparisons of replicas led here since the start.', () =>
    Object.entries(store.counters.checks).map(([result, count]) => [{ result }, count] as const),
  );
  metrics.gauge(
    'braid_raftstore_fenced_replicas',
    'Replicas here that differ from the others and serve nothing.',
    () => [[{}, store.damagedPeers().length]],
  );
  metrics.gauge('braid_raftstore_redirects', 'Requests of clients with an outdated idea of a region.', () =>
    Object.entries(store.counters.redirects).map(([what, count]) => [{ what }, count] as const),
  );
  metrics.gauge('braid_grpc_batch_streams', 'Open batch streams of clients.', () => [[{}, tikv.streamCount]]);
  metrics.gauge('braid_process_memory_bytes', 'Memory of the process.', () => {
    const { rss, heapUsed, external } = process.memoryUsage();
    return [
      [{ type: 'rss' }, rss],
      [{ type: 'heap' }, heapUsed],
      [{ type: 'external' }, external],
    ];
  });
}

const STATUS_PATHS = ['/status', '/config', '/regions', '/regions/', '/metrics', '/livez', '/readyz'] as const;

/** Paths exist from the start; pages come when the store has opened. */
function statusRoutes(current: () => StatusRoutes): StatusRoutes {
  const entries = STATUS_PATHS.map((path) => [
    path,
    (rest: string) => {
      const page = current()[path];
      if (page !== undefined) {
        return page(rest);
      }
      return path === '/livez' ? jsonPage({ live: true }) : jsonPage({ error: 'the store is starting' }, 503);
    },
  ]);
  return Object.fromEntries(entries) as StatusRoutes;
}

const regionJson = (status: RegionStatus): unknown => ({
  id: status.region.id,
  startKey: escapeKey(status.region.range.start),
  endKey: status.region.range.end.length === 0 ? '+inf' : escapeKey(status.region.range.end),
  epoch: status.region.epoch,
  peers: status.region.peers,
  peerId: status.peerId,
  role: status.role,
  state: status.state,
  term: status.term,
  leaderPeerId: status.leaderPeerId,
  appliedIndex: status.appliedIndex,
  commitIndex: status.commitIndex,
  firstIndex: status.firstIndex,
  lastIndex: status.lastIndex,
  approximateSizeBytes: status.approximateSizeBytes,
  approximateKeys: status.approximateKeys,
  fence: status.fence ?? null,
  consistency:
    status.check === undefined
      ? null
      : {
          index: status.check.index,
          at: new Date(status.check.wallMs).toISOString(),
          result: status.check.result,
          divergentPeers: status.check.divergent,
        },
});

function routesOf(source: StatusSource): StatusRoutes {
  const { options, identity, self, store, transport, tikv, health, metrics, pd } = source;
  const { config, origins } = options;
  return {
    '/status': () =>
      jsonPage({
        role: 'store',
        storeId: identity.storeId,
        clusterId: identity.clusterId,
        address: self.address,
        version: self.version,
        labels: self.labels,
        startedAt: new Date(self.startTimestamp * 1000).toISOString(),
        serving: health.isServing,
        reporting: pd.isStreaming,
        regions: store.regionCount(),
        leaders: store.leaderCount(),
        snapshots: { sending: transport.sendingSnapshots, ...store.load() },
        links: transport.stats(),
        redirects: { ...store.counters.redirects, regions: store.redirectedRegions() },
        clientStreams: tikv.streamCount,
      }),
    // The first member is what test suites of TiKV clients look for.
    '/config': () =>
      jsonPage({
        storage: { 'api-version': 1, 'enable-ttl': config.storage.enableTtl },
        settings: settingsJson(config, origins),
      }),
    '/regions': () => jsonPage(store.status().map(regionJson)),
    '/regions/': (rest) => {
      const found = store.status().find((status) => String(status.region.id) === rest);
      return found === undefined
        ? jsonPage({ error: `no region ${rest} on this store` }, 404)
        : jsonPage(regionJson(found));
    },
    '/metrics': () => ({ contentType: 'text/plain; version=0.0.4; charset=utf-8', body: metrics.text() }),
    '/livez': () => jsonPage({ live: true }),
    '/readyz': () =>
      health.isServing ? jsonPage({ ready: true }) : jsonPage({ ready: false, reason: 'stopping' }, 503),
  };
}

function settingsJson(config: StoreProcessConfig, origins: StoreOptions['origins']): Record<string, unknown> {
  const sections = config as unknown as Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  return Object.fromEntries(
    SETTINGS.store.map((setting) => [
      settingName(setting),
      { value: sections[setting.section]?.[setting.property], origin: origins?.get(settingName(setting)) ?? 'default' },
    ]),
  );
}
