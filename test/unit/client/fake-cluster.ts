/**
 * A cluster small enough to read: regions over stores, one shared map of data, the placement service, and the refusals
 * of a real store. It keeps the epoch rules of splits and merges, so that a client that breaks them is caught.
 */
import { compareBytes, equalBytes } from '../../../src/base/bytes.ts';
import { KeyMap } from '../../../src/base/key-map.ts';
import { isBeforeEnd, rangeContains } from '../../../src/base/key-range.ts';
import { type ByteStream, RpcError, RpcStatus, type ServiceTable } from '../../../src/env/net.ts';
import { SILENT_LOGGER } from '../../../src/env/log.ts';
import { createRng } from '../../../src/env/rng.ts';
import { type Peer, type Region, type Store } from '../../../src/meta/region.ts';
import { peerId, regionId, storeId } from '../../../src/base/ids.ts';
import { ServiceBuilder } from '../../../src/rpc/service-builder.ts';
import { healthMethods, pdMethods, tikvMethods } from '../../../src/rpc/services.ts';
import type { Method } from '../../../src/rpc/method.ts';
import type { ClientEnv } from '../../../src/client/store-conn.ts';
import { FakeNet } from './fake-net.ts';
import { VirtualClock } from './virtual-clock.ts';

type RequestOf<M> = M extends Method<infer R, infer _Reply> ? R : never;
type ReplyOf<M> = M extends Method<infer _Request, infer R> ? R : never;
type BatchRequest = RequestOf<typeof tikvMethods.batchCommands>;
type BatchResponse = ReplyOf<typeof tikvMethods.batchCommands>;
export type WireCommand = NonNullable<BatchRequest['requests'][number]['cmd']>;
export type WireResponse = NonNullable<BatchResponse['responses'][number]['cmd']>;
export type WireError = NonNullable<ReplyOf<typeof tikvMethods.rawGet>['regionError']>;
type WireContext = NonNullable<RequestOf<typeof tikvMethods.rawGet>['context']>;
type WireRegion = NonNullable<ReplyOf<typeof pdMethods.getRegion>['region']>;

/** What a test makes of one command that reached a store. */
export type Interference =
  /** As if nothing were wrong. */
  | 'serve'
  /** Never answer, never do it. */
  | 'ignore'
  /** Break the stream without doing it. */
  | 'break'
  /** Do it, then break the stream instead of answering. */
  | 'serve-and-break'
  /** Do it, never answer. */
  | 'serve-silently'
  | { readonly regionError: Partial<WireError> }
  | { readonly error: string };

export interface Received {
  readonly store: number;
  readonly regionId: number;
  readonly kind: string;
  readonly key: string;
}

export const PD_ADDRESS = 'pd:1';

const text = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');

interface Stored {
  readonly value: Uint8Array;
  readonly ttlSeconds: number;
}

interface FakeRegion {
  region: Region;
  leader: Peer | undefined;
}

export class FakeCluster {
  readonly clock: VirtualClock = new VirtualClock();
  readonly net: FakeNet = new FakeNet(this.clock);
  readonly data: KeyMap<Stored> = new KeyMap<Stored>();
  readonly stores: Map<number, Store> = new Map<number, Store>();
  readonly received: Received[] = [];
  /** How often each value was written, for tests with distinct values. */
  readonly writes: Map<string, number> = new Map<string, number>();
  /** Numbers of commands in each batch message received. */
  readonly batchSizes: number[] = [];
  /** Decides about each command; the default serves all. */
  interfere: (command: { readonly kind: string; readonly store: number; readonly regionId: number }) => Interference =
    () => 'serve';
  clusterId = 77n;
  /** What the placement service says instead of the truth. */
  pdView: (() => readonly FakeRegion[]) | undefined;
  pdLeaderUrl: string | undefined = `http://${PD_ADDRESS}`;
  #regions: FakeRegion[] = [];
  #nextId = 100;

  constructor(options: { readonly stores?: number; readonly splits?: readonly string[] } = {}) {
    const count = options.stores ?? 3;
    for (let id = 1; id <= count; id++) {
      this.addStore(id);
    }
    const peers = [...this.stores.keys()].slice(0, 3).map((id) => this.#newPeer(id));
    this.#regions.push({
      region: {
        id: regionId(this.#nextId++),
        range: { start: new Uint8Array(0), end: new Uint8Array(0) },
        epoch: { confVer: 1, version: 1 },
        peers,
      },
      leader: peers[0],
    });
    for (const key of options.splits ?? []) {
      this.split(key);
    }
    this.servePd(PD_ADDRESS);
  }

  get env(): ClientEnv {
    return { clock: this.clock, rng: createRng(7), net: this.net, log: SILENT_LOGGER };
  }

  addressOf(store: number): string {
    return (this.stores.get(store) as Store).address;
  }

  addStore(id: number): void {
    const address = `store${id}:1`;
    this.stores.set(id, {
      id: storeId(id),
      address,
      statusAddress: '',
      state: 'up',
      labels: [],
      version: '8.5.0',
      startTimestamp: 0,
    });
    this.net.serve(address, this.#storeServices(id));
  }

  /** The store process now listens elsewhere. */
  moveStore(id: number, address: string): void {
    this.stores.set(id, { ...(this.stores.get(id) as Store), address });
    this.net.serve(address, this.#storeServices(id));
  }

  // ---------------------------------------------------------------------------------------------- topology changes

  get regions(): readonly FakeRegion[] {
    return this.#regions;
  }

  regionOf(key: string): FakeRegion {
    return this.#regions.find(({ region }) => rangeContains(region.range, Buffer.from(key, 'latin1'))) as FakeRegion;
  }

  /** The left part is new, the right part keeps the id; all versions grow by one. */
  split(key: string): void {
    const parent = this.regionOf(key);
    const at = new Uint8Array(Buffer.from(key, 'latin1'));
    const { region } = parent;
    const epoch = { confVer: region.epoch.confVer, version: region.epoch.version + 1 };
    const peers = region.peers.map((peer) => this.#newPeer(peer.storeId));
    const leaderStore = parent.leader?.storeId;
    const left: FakeRegion = {
      region: { id: regionId(this.#nextId++), range: { start: region.range.start, end: at }, epoch, peers },
      leader: peers.find((peer) => peer.storeId === leaderStore),
    };
    parent.region = { ...region, range: { start: at, end: region.range.end }, epoch };
    this.#regions.splice(this.#regions.indexOf(parent), 0, left);
  }

  /** Merges the region that ends at `key` into the one that starts there. */
  mergeAt(key: string): void {
    const right = this.regionOf(key);
    const left = this.#regions[this.#regions.indexOf(right) - 1] as FakeRegion;
    const version = Math.max(left.region.epoch.version + 1, right.region.epoch.version) + 1;
    right.region = {
      ...right.region,
      range: { start: left.region.range.start, end: right.region.range.end },
      epoch: { confVer: right.region.epoch.confVer, version },
    };
    this.#regions.splice(this.#regions.indexOf(left), 1);
  }

  setLeader(key: string, store: number | undefined): void {
    const found = this.regionOf(key);
    found.leader = found.region.peers.find((peer) => peer.storeId === store);
  }

  /** Replaces the replica on one store by one on another and makes that one the leader. */
  movePeer(key: string, from: number, to: number): void {
    const found = this.regionOf(key);
    const peer = this.#newPeer(to);
    found.region = {
      ...found.region,
      peers: [...found.region.peers.filter((p) => p.storeId !== from), peer],
      epoch: { ...found.region.epoch, confVer: found.region.epoch.confVer + 2 },
    };
    found.leader = peer;
  }

  stopStore(store: number): void {
    this.net.setReach(this.addressOf(store), 'down');
  }

  startStore(store: number): void {
    this.net.setReach(this.addressOf(store), 'up');
  }

  put(key: string, value: string): void {
    this.data.set(new Uint8Array(Buffer.from(key, 'latin1')), {
      value: new Uint8Array(Buffer.from(value)),
      ttlSeconds: 0,
    });
  }

  get(key: string): string | undefined {
    const found = this.data.get(Buffer.from(key, 'latin1'));
    return found === undefined ? undefined : Buffer.from(found.value).toString();
  }

  keys(): string[] {
    return [...this.data.entries()].map(([key]) => text(key));
  }

  receivedKinds(kind: string): Received[] {
    return this.received.filter((entry) => entry.kind === kind);
  }

  #newPeer(store: number): Peer {
    return { id: peerId(this.#nextId++), storeId: storeId(store), role: 'voter' };
  }

  // ---------------------------------------------------------------------------------------------- placement service

  servePd(address: string, clusterId: () => bigint = () => this.clusterId, more?: ServiceTable): void {
    const header = (): { clusterId: string } => ({ clusterId: String(clusterId()) });
    const checked = (request: {
      readonly header?: { readonly clusterId: string } | undefined;
    }): { clusterId: string } => {
      const got = request.header?.clusterId ?? '0';
      if (got !== '0' && got !== String(clusterId())) {
        throw new RpcError(RpcStatus.FAILED_PRECONDITION, `mismatch cluster id, need ${clusterId()} but got ${got}`);
      }
      if (this.pdLeaderUrl !== `http://${address}`) {
        throw new RpcError(RpcStatus.UNAVAILABLE, 'not leader');
      }
      return header();
    };
    const view = (): readonly FakeRegion[] => this.pdView?.() ?? this.#regions;
    const route = (found: FakeRegion | undefined): { region?: WireRegion; leader?: WireRegion['peers'][number] } =>
      found === undefined
        ? {}
        : {
            region: wireRegion(found.region),
            ...(found.leader === undefined ? {} : { leader: wirePeer(found.leader) }),
          };
    const member = (url: string) => ({
      name: url,
      memberId: '1',
      peerUrls: [],
      clientUrls: [url],
      leaderPriority: 0,
      deployPath: '',
      binaryVersion: '',
      gitHash: '',
    });
    const builder = new ServiceBuilder()
      .unary(pdMethods.getMembers, () => ({
        header: header(),
        members: [member(`http://${address}`)],
        ...(this.pdLeaderUrl === undefined ? {} : { leader: member(this.pdLeaderUrl) }),
      }))
      .unary(pdMethods.getRegion, (request) => {
        const head = checked(request);
        const found = view().find(({ region }) => rangeContains(region.range, request.regionKey));
        return { header: head, ...route(found), downPeers: [], pendingPeers: [] };
      })
      .unary(pdMethods.getPrevRegion, (request) => {
        const head = checked(request);
        const at = view().findIndex(({ region }) => rangeContains(region.range, request.regionKey));
        return { header: head, ...route(view()[at - 1]), downPeers: [], pendingPeers: [] };
      })
      .unary(pdMethods.getRegionByID, (request) => {
        const head = checked(request);
        return {
          header: head,
          ...route(view().find(({ region }) => region.id === request.regionId)),
          downPeers: [],
          pendingPeers: [],
        };
      })
      .unary(pdMethods.scanRegions, (request) => {
        const head = checked(request);
        const found = view().filter(
          ({ region }) =>
            isBeforeEnd(request.startKey, region.range.end) && isBeforeEnd(region.range.start, request.endKey),
        );
        const limited = request.limit > 0 ? found.slice(0, request.limit) : found;
        return {
          header: head,
          regionMetas: [],
          leaders: [],
          regions: limited.map((each) => ({ ...route(each), downPeers: [], pendingPeers: [] })),
        };
      })
      .unary(pdMethods.getStore, (request) => {
        const head = checked(request);
        const store = this.stores.get(request.storeId);
        if (store === undefined) {
          throw new RpcError(RpcStatus.UNKNOWN, `invalid store ID ${request.storeId}, not found`);
        }
        return { header: head, store: wireStore(store) };
      })
      .unary(pdMethods.getAllStores, (request) => ({
        header: checked(request),
        stores: [...this.stores.values()].map(wireStore),
      }));
    if (more !== undefined) {
      builder.merge(more);
    }
    this.net.serve(address, builder.build());
  }

  // ---------------------------------------------------------------------------------------------------- store service

  #storeServices(store: number) {
    return new ServiceBuilder()
      .unary(healthMethods.check, () => ({ status: 1 as const }))
      .rawStream(tikvMethods.batchCommands.path, (stream) => this.#serveBatch(store, stream))
      .rawUnary(tikvMethods.rawGetKeyTTL.path, async (bytes) => {
        const request = tikvMethods.rawGetKeyTTL.request.decode(bytes);
        const what = this.#judge(store, 'RawGetKeyTTL', request.context, request.key);
        const empty = { error: '', ttl: 0, notFound: false };
        if (what !== 'serve') {
          return tikvMethods.rawGetKeyTTL.reply.encode({ ...empty, ...(await unaryRefusal(what)) });
        }
        const found = this.data.get(request.key);
        return tikvMethods.rawGetKeyTTL.reply.encode({
          ...empty,
          ttl: found?.ttlSeconds ?? 0,
          notFound: found === undefined,
        });
      })
      .rawUnary(tikvMethods.rawCompareAndSwap.path, async (bytes) => {
        const request = tikvMethods.rawCompareAndSwap.request.decode(bytes);
        const what = this.#judge(store, 'RawCompareAndSwap', request.context, request.key);
        const empty = { error: '', succeed: false, previousNotExist: false, previousValue: new Uint8Array(0) };
        if (what !== 'serve' && what !== 'serve-and-break' && what !== 'serve-silently') {
          return tikvMethods.rawCompareAndSwap.reply.encode({ ...empty, ...(await unaryRefusal(what)) });
        }
        const found = this.data.get(request.key);
        const matches = request.previousNotExist
          ? found === undefined
          : found !== undefined && equalBytes(found.value, request.previousValue);
        if (matches) {
          if (request.delete) {
            this.data.delete(request.key);
          } else {
            this.#store(request.key, request.value, request.ttl);
          }
        }
        if (what === 'serve-and-break') {
          throw new RpcError(RpcStatus.UNAVAILABLE, 'connection reset');
        }
        if (what === 'serve-silently') {
          return new Promise<Uint8Array>(() => {});
        }
        return tikvMethods.rawCompareAndSwap.reply.encode({
          ...empty,
          succeed: matches,
          previousNotExist: found === undefined,
          previousValue: found?.value ?? new Uint8Array(0),
        });
      })
      .build();
  }

  #serveBatch(store: number, stream: ByteStream): void {
    stream.onMessage = (message) => {
      if (!this.net.isUp(this.addressOf(store))) {
        return;
      }
      const { requests, requestIds } = tikvMethods.batchCommands.request.decode(message);
      this.batchSizes.push(requests.length);
      const responses: { cmd: WireResponse }[] = [];
      const ids: number[] = [];
      let breaks = false;
      requests.forEach(({ cmd }, i) => {
        if (cmd === undefined || breaks) {
          return;
        }
        const what = this.#judge(store, cmd.$case, contextOf(cmd), keyOf(cmd));
        if (what === 'break' || what === 'ignore') {
          breaks = breaks || what === 'break';
          return;
        }
        const served =
          typeof what === 'object' ? refuse(cmd, what) : this.#execute(cmd, this.#byId(contextOf(cmd)?.regionId ?? 0));
        if (what === 'serve-and-break') {
          breaks = true;
        } else if (what !== 'serve-silently') {
          responses.push({ cmd: served });
          ids.push(requestIds[i] as number);
        }
      });
      if (responses.length > 0) {
        stream.send(tikvMethods.batchCommands.reply.encode({ responses, requestIds: ids, transportLayerLoad: 0 }));
      }
      if (breaks) {
        this.net.later(() => this.net.breakStreams(this.addressOf(store)));
      }
    };
  }

  #byId(id: number): FakeRegion | undefined {
    return this.#regions.find(({ region }) => region.id === id);
  }

  /** The checks of a store, in the order of TiKV, then what the test wants. */
  #judge(store: number, kind: string, context: WireContext | undefined, key: Uint8Array): Interference {
    const id = context?.regionId ?? 0;
    this.received.push({ store, regionId: id, kind, key: text(key) });
    const wish = this.interfere({ kind, store, regionId: id });
    if (wish !== 'serve' && wish !== 'serve-and-break' && wish !== 'serve-silently') {
      return wish;
    }
    if (context?.clusterId !== '0' && context?.clusterId !== String(this.clusterId)) {
      return { error: `wrong cluster ${context?.clusterId}` };
    }
    if (context.peer?.storeId !== store) {
      return { regionError: { storeNotMatch: { requestStoreId: context.peer?.storeId ?? 0, actualStoreId: store } } };
    }
    const found = this.#byId(id);
    const own = found?.region.peers.find((peer) => peer.storeId === store);
    if (found === undefined || own === undefined) {
      return { regionError: { regionNotFound: { regionId: id } } };
    }
    if (own.id !== context.peer.id) {
      return { regionError: { mismatchPeerId: { requestPeerId: context.peer.id, storePeerId: own.id } } };
    }
    if (found.leader?.id !== own.id && !context.replicaRead) {
      return {
        regionError: {
          notLeader: { regionId: id, ...(found.leader === undefined ? {} : { leader: wirePeer(found.leader) }) },
        },
      };
    }
    if (context.regionEpoch?.version !== found.region.epoch.version) {
      return { regionError: { epochNotMatch: { currentRegions: this.#currentRegions(found) } } };
    }
    const isUpperBound = kind === 'RawScan' && !rangeContains(found.region.range, key);
    if (!isUpperBound && !rangeContains(found.region.range, key)) {
      return {
        regionError: {
          keyNotInRegion: { key, regionId: id, startKey: found.region.range.start, endKey: found.region.range.end },
        },
      };
    }
    return wish;
  }

  /** Own region first, then its neighbours. */
  #currentRegions(found: FakeRegion): WireRegion[] {
    const at = this.#regions.indexOf(found);
    return [found, this.#regions[at - 1], this.#regions[at + 1]].flatMap((each) =>
      each === undefined ? [] : [wireRegion(each.region)],
    );
  }

  #execute(cmd: WireCommand, found: FakeRegion | undefined): WireResponse {
    const region = (found as FakeRegion).region;
    switch (cmd.$case) {
      case 'RawGet': {
        const stored = this.data.get(cmd.value.key);
        return {
          $case: 'RawGet',
          value: { error: '', value: stored?.value ?? new Uint8Array(0), notFound: stored === undefined },
        };
      }
      case 'RawBatchGet':
        return {
          $case: 'RawBatchGet',
          value: {
            pairs: cmd.value.keys.flatMap((key) => {
              requireInside(region, key);
              const stored = this.data.get(key);
              return stored === undefined ? [] : [{ key, value: stored.value }];
            }),
          },
        };
      case 'RawPut':
        this.#set(region, cmd.value.key, cmd.value.value, cmd.value.ttl);
        return { $case: 'RawPut', value: { error: '' } };
      case 'RawBatchPut': {
        const { pairs, ttls } = cmd.value;
        pairs.forEach(({ key, value }, i) => this.#set(region, key, value, ttls[ttls.length === 1 ? 0 : i] ?? 0));
        return { $case: 'RawBatchPut', value: { error: '' } };
      }
      case 'RawDelete':
        this.data.delete(cmd.value.key);
        return { $case: 'RawDelete', value: { error: '' } };
      case 'RawBatchDelete':
        for (const key of cmd.value.keys) {
          requireInside(region, key);
          this.data.delete(key);
        }
        return { $case: 'RawBatchDelete', value: { error: '' } };
      case 'RawDeleteRange': {
        const { startKey, endKey } = cmd.value;
        if (region.range.end.length > 0 && (endKey.length === 0 || compareBytes(endKey, region.range.end) > 0)) {
          throw new Error('the range to delete leaves the region');
        }
        for (const [key] of [...this.data.entriesFrom(startKey)]) {
          if (isBeforeEnd(key, endKey)) {
            this.data.delete(key);
          }
        }
        return { $case: 'RawDeleteRange', value: { error: '' } };
      }
      case 'RawScan':
        return { $case: 'RawScan', value: { kvs: this.#scan(region, cmd.value) } };
      default:
        throw new Error(`the fake store has no ${cmd.$case}`);
    }
  }

  #set(region: Region, key: Uint8Array, value: Uint8Array, ttlSeconds: number): void {
    requireInside(region, key);
    this.#store(key, value, ttlSeconds);
  }

  #store(key: Uint8Array, value: Uint8Array, ttlSeconds: number): void {
    this.writes.set(text(value), (this.writes.get(text(value)) ?? 0) + 1);
    this.data.set(new Uint8Array(key), { value: new Uint8Array(value), ttlSeconds });
  }

  #scan(region: Region, request: RequestOf<typeof tikvMethods.rawScan>): { key: Uint8Array; value: Uint8Array }[] {
    const [low, high] = request.reverse ? [request.endKey, request.startKey] : [request.startKey, request.endKey];
    if (request.reverse) {
      if (high.length === 0 || (region.range.end.length > 0 && compareBytes(high, region.range.end) > 0)) {
        throw new Error('the upper bound of a descending scan leaves the region');
      }
    } else if (!rangeContains(region.range, low)) {
      throw new Error('the start of a scan leaves the region');
    }
    const inRange = [...this.data.entries()].filter(
      ([key]) => rangeContains(region.range, key) && compareBytes(key, low) >= 0 && isBeforeEnd(key, high),
    );
    const ordered = request.reverse ? inRange.reverse() : inRange;
    return ordered
      .slice(0, request.limit)
      .map(([key, stored]) => ({ key, value: request.keyOnly ? new Uint8Array(0) : stored.value }));
  }
}

function requireInside(region: Region, key: Uint8Array): void {
  if (!rangeContains(region.range, key)) {
    throw new Error(`key ${text(key)} was sent to region ${region.id} although it lies outside`);
  }
}

const contextOf = (cmd: WireCommand): WireContext | undefined =>
  'context' in cmd.value ? cmd.value.context : undefined;

function keyOf(cmd: WireCommand): Uint8Array {
  const { value } = cmd;
  if ('key' in value) {
    return value.key;
  }
  if ('startKey' in value) {
    return value.startKey;
  }
  if ('keys' in value) {
    return value.keys[0] ?? new Uint8Array(0);
  }
  return 'pairs' in value ? (value.pairs[0]?.key ?? new Uint8Array(0)) : new Uint8Array(0);
}

const wireError = (error: Partial<WireError>): WireError => ({ message: 'refused', ...error });

function refuse(
  cmd: WireCommand,
  how: { readonly regionError: Partial<WireError> } | { readonly error: string },
): WireResponse {
  const value =
    'regionError' in how
      ? {
          regionError: wireError(how.regionError),
          error: '',
          value: new Uint8Array(0),
          notFound: false,
          pairs: [],
          kvs: [],
        }
      : { error: how.error, value: new Uint8Array(0), notFound: false, pairs: [], kvs: [] };
  return { $case: cmd.$case, value } as unknown as WireResponse;
}

async function unaryRefusal(what: Interference): Promise<{ regionError?: WireError; error?: string }> {
  if (what === 'ignore' || what === 'serve-silently') {
    return new Promise(() => {});
  }
  if (what === 'break' || what === 'serve-and-break') {
    throw new RpcError(RpcStatus.UNAVAILABLE, 'connection reset');
  }
  if (typeof what === 'object' && 'regionError' in what) {
    return { regionError: wireError(what.regionError) };
  }
  return { error: typeof what === 'object' ? what.error : '' };
}

const ROLES = { voter: 0, learner: 1, 'incoming-voter': 2, 'demoting-voter': 3 } as const;

export const wirePeer = (peer: Peer): WireRegion['peers'][number] => ({
  id: peer.id,
  storeId: peer.storeId,
  role: ROLES[peer.role],
  isWitness: false,
});

export const wireRegion = (region: Region): WireRegion => ({
  id: region.id,
  startKey: region.range.start,
  endKey: region.range.end,
  regionEpoch: { confVer: region.epoch.confVer, version: region.epoch.version },
  peers: region.peers.map(wirePeer),
});

const wireStore = (store: Store) => ({
  id: store.id,
  address: store.address,
  state: store.state === 'tombstone' ? (2 as const) : (0 as const),
  labels: [],
  version: store.version,
  peerAddress: '',
  statusAddress: '',
  gitHash: '',
  startTimestamp: 0,
  deployPath: '',
  lastHeartbeat: '0',
  physicallyDestroyed: false,
  nodeState: 1 as const,
});
