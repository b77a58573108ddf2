/** Requests of clients with an outdated idea of a region: carried out here, passed on once, held, or refused. */
import { beforeEach, describe, expect, test } from 'vitest';
import { fromUtf8, utf8 } from '../../../src/base/bytes.ts';
import { peerId, storeId } from '../../../src/base/ids.ts';
import { SILENT_LOGGER } from '../../../src/env/log.ts';
import type { Context, RawGetRequest, RawPutRequest, RawScanRequest } from '../../../src/gen/kvrpcpb.ts';
import type { Region } from '../../../src/meta/region.ts';
import type { ReadRequest, WriteRequest } from '../../../src/raftstore/msg.ts';
import { StoreCounters } from '../../../src/raftstore/store/counters.ts';
import type { RedirectDecision, RequestSpan } from '../../../src/raftstore/store/redirects.ts';
import { ServiceBuilder } from '../../../src/rpc/service-builder.ts';
import { tikvMethods } from '../../../src/rpc/services.ts';
import type { CallInfo } from '../../../src/server/service/raw-kv.ts';
import { RedirectingKv, SELF_ROUTING_SOURCE } from '../../../src/server/service/redirecting-kv.ts';
import { FakeNet } from '../client/fake-net.ts';
import { CLUSTER, KvFixture, REGION, STORE, context } from './kv-fixture.ts';

const OLD = 1;
const HOLD_MS = 500;
const OTHER_STORE = 5;
const LEADER = { id: peerId(21), storeId: storeId(OTHER_STORE), role: 'voter' as const };
const MOVED: Region = { ...REGION, peers: [...REGION.peers, LEADER] };

const local = (within?: { start: string; end: string }): RedirectDecision => ({
  type: 'local',
  region: REGION,
  peer: REGION.peers[0] as Region['peers'][number],
  within: within === undefined ? undefined : { start: utf8(within.start), end: utf8(within.end) },
});
const forward = (): RedirectDecision => ({ type: 'forward', region: MOVED, peer: LEADER, within: undefined });

/** A store that refuses requests for region {@link OLD}, holds {@link REGION}, and knows store 5. */
class Bench {
  readonly fixture: KvFixture;
  readonly net: FakeNet;
  readonly counters: StoreCounters = new StoreCounters();
  readonly kv: RedirectingKv;
  /** Answered one after the other; the last one stays. */
  decisions: RedirectDecision[] = [];
  readonly spans: RequestSpan[] = [];
  /** Requests the other store got. */
  readonly passedOn: { readonly context: Context; readonly key: string }[] = [];
  /** Region errors the other store answers with, one after the other. */
  otherRefusals: ('not-leader' | 'epoch')[] = [];
  addressKnown = true;

  constructor(fixture: KvFixture) {
    this.fixture = fixture;
    this.net = new FakeNet(fixture.clock);
    this.net.serve(
      'store-5:1',
      new ServiceBuilder()
        .unary(tikvMethods.rawGet, (request) => {
          this.#note(request.context, request.key);
          const error = this.#otherError();
          return error === undefined
            ? { error: '', value: utf8('there'), notFound: false }
            : { error: '', value: new Uint8Array(0), notFound: false, regionError: error };
        })
        .unary(tikvMethods.rawPut, (request) => {
          this.#note(request.context, request.key);
          const error = this.#otherError();
          return error === undefined ? { error: '' } : { error: '', regionError: error };
        })
        .build(),
    );
    const gate = <T extends ReadRequest | WriteRequest>(pass: (request: T) => void) => {
      return (request: T): void => {
        if (request.header.regionId === OLD) {
          request.respond({ type: 'refused', error: { type: 'epoch-not-match', currentRegions: [REGION] } });
        } else {
          pass(request);
        }
      };
    };
    this.kv = new RedirectingKv({
      identity: { clusterId: CLUSTER, storeId: STORE },
      clock: fixture.clock,
      engine: fixture.engine,
      backend: {
        read: gate((request: ReadRequest) => fixture.read(request)),
        write: gate((request: WriteRequest) => fixture.write(request)),
        admin: (request) => fixture.admin(request),
      },
      enableTtl: true,
      keySizeMaxBytes: 16,
      onDamage: () => {},
      redirects: {
        redirect: (_header, span) => {
          this.spans.push(span);
          const decision = this.decisions.length > 1 ? this.decisions.shift() : this.decisions[0];
          return decision ?? { type: 'none' };
        },
        counters: this.counters,
      },
      net: this.net,
      log: SILENT_LOGGER,
      resolve: (id) =>
        this.addressKnown && id === OTHER_STORE ? Promise.resolve('store-5:1') : Promise.reject(new Error('unknown')),
      holdMs: HOLD_MS,
    });
  }

  #note(given: Context | undefined, key: Uint8Array): void {
    this.passedOn.push({ context: given as Context, key: fromUtf8(key) });
  }

  #otherError(): { message: string; notLeader?: { regionId: number } } | undefined {
    const refusal = this.otherRefusals.shift();
    return refusal === undefined ? undefined : { message: refusal, notLeader: { regionId: REGION.id } };
  }

  async ask<Request, Reply>(
    method: (request: Request, call: CallInfo, respond: (reply: Reply) => void) => void,
    request: Request,
    call: Partial<CallInfo> = {},
  ): Promise<Reply> {
    const { clock } = this.fixture;
    const reply = new Promise<Reply>((resolve) => {
      method.call(this.kv, request, { nowMs: clock.monoMs(), timeoutMs: undefined, ...call }, resolve);
    });
    return clock.settle(reply);
  }

  get(key = 'k', change: Partial<Context> = {}, call: Partial<CallInfo> = {}) {
    const request: RawGetRequest = { context: context({ regionId: OLD, ...change }), key: utf8(key), cf: '' };
    return this.ask(this.kv.rawGet, request, call);
  }

  put(key = 'k') {
    const request: RawPutRequest = {
      context: context({ regionId: OLD }),
      key: utf8(key),
      value: utf8('new'),
      cf: '',
      ttl: 0,
      forCas: false,
    };
    return this.ask(this.kv.rawPut, request);
  }

  scan(from: string, to: string, reverse = false) {
    const request: RawScanRequest = {
      context: context({ regionId: OLD }),
      startKey: utf8(from),
      endKey: utf8(to),
      limit: 100,
      reverse,
      keyOnly: false,
      cf: '',
    };
    return this.ask(this.kv.rawScan, request);
  }
}

let bench: Bench;
beforeEach(async () => {
  bench = new Bench(await KvFixture.open());
});

describe('a request that is out of date', () => {
  test('is carried out by the region that has its keys here', async () => {
    await bench.fixture.put('k', 'here');
    bench.decisions = [local()];
    const { value, regionError } = await bench.get();
    expect([fromUtf8(value), regionError]).toEqual(['here', undefined]);
    expect((await bench.put()).regionError).toBeUndefined();
    expect(bench.fixture.writes[0]?.header).toMatchObject({ regionId: REGION.id, epoch: REGION.epoch, peerId: 9 });
    expect(bench.counters.redirects).toEqual({ redirected: 2, forwarded: 0, waited: 0, refused: 0 });
  });

  test('is refused as it was when nothing is known, and counted when its keys went apart', async () => {
    bench.decisions = [{ type: 'none' }];
    expect((await bench.get()).regionError?.epochNotMatch).toBeDefined();
    bench.decisions = [{ type: 'split-up' }];
    expect((await bench.get()).regionError?.epochNotMatch).toBeDefined();
    expect(bench.counters.redirects).toEqual({ redirected: 0, forwarded: 0, waited: 0, refused: 1 });
  });

  test('is not redirected for clients that route by themselves or read from followers, nor without a context', async () => {
    bench.decisions = [local()];
    expect((await bench.get('k', { requestSource: SELF_ROUTING_SOURCE })).regionError?.epochNotMatch).toBeDefined();
    expect((await bench.get('k', { replicaRead: true })).regionError?.epochNotMatch).toBeDefined();
    const bare: RawGetRequest = { key: utf8('k'), cf: '' };
    expect((await bench.ask(bench.kv.rawGet, bare)).regionError).toBeDefined();
    expect(bench.spans).toEqual([]);
  });

  test('that is a scan ends where the client thinks the region ends, in both directions', async () => {
    for (const key of ['c', 'f', 'm', 'p']) {
      await bench.fixture.put(key, key);
    }
    bench.decisions = [local({ start: 'd', end: 'n' })];
    const shown = async (reply: ReturnType<Bench['scan']>): Promise<string> =>
      (await reply).kvs.map(({ key }) => fromUtf8(key)).join('');
    expect(await shown(bench.scan('e', ''))).toBe('fm');
    expect(await shown(bench.scan('e', 'g'))).toBe('f');
    expect(await shown(bench.scan('n', '', true))).toBe('mf');
    expect(await shown(bench.scan('n', 'g', true))).toBe('m');
    expect(bench.spans.map((span) => (span.type === 'scans' ? span.from : span.type))).toEqual([
      'start',
      'start',
      'end',
      'end',
    ]);
  });
});

describe('a request that is passed on', () => {
  test('goes to the leader’s store once, as a request of the current region, and says that it was passed on', async () => {
    bench.decisions = [forward()];
    expect(fromUtf8((await bench.get()).value)).toBe('there');
    expect(bench.passedOn).toMatchObject([
      { key: 'k', context: { regionId: REGION.id, regionEpoch: { confVer: 3, version: 5 }, peer: { id: 21 } } },
    ]);
    expect(bench.counters.redirects.forwarded).toBe(1);
    // The channel is kept.
    await bench.get();
    expect(bench.net.dials).toBe(1);
    bench.kv.close();
  });

  test('is never passed on again', async () => {
    bench.decisions = [forward()];
    const refused = await bench.get('k', {}, { isForwarded: true });
    expect(refused.regionError?.epochNotMatch).toBeDefined();
    expect(bench.passedOn).toEqual([]);
    // Carrying it out here is allowed all the same.
    bench.decisions = [local()];
    expect((await bench.get('k', {}, { isForwarded: true })).regionError).toBeUndefined();
  });

  test('looks again when the region has moved on meanwhile', async () => {
    bench.decisions = [forward()];
    bench.otherRefusals = ['not-leader', 'not-leader'];
    expect((await bench.get()).regionError).toBeUndefined();
    expect(bench.passedOn).toHaveLength(3);
  });

  test('ends with the refusal when every store it is sent to refuses', async () => {
    bench.decisions = [forward()];
    bench.otherRefusals = Array.from({ length: 1_000 }, () => 'not-leader' as const);
    expect((await bench.get()).regionError?.notLeader).toBeDefined();
    expect(bench.passedOn.length).toBeLessThan(100);
  });

  test('and not answered is asked again if it reads; what became of a write is unknown', async () => {
    bench.decisions = [forward()];
    bench.net.setReach('store-5:1', 'dark');
    const read = await bench.get('k', {}, { timeoutMs: 200 });
    expect(read.regionError?.epochNotMatch).toBeDefined();
    const started = bench.fixture.clock.monoMs();
    const write = await bench.put();
    expect(write.regionError?.undeterminedResult).toBeDefined();
    expect(bench.fixture.clock.monoMs()).toBeGreaterThan(started);
    expect(bench.passedOn).toEqual([]);
  });

  test('and never sent is refused, writes as well: nothing can have happened', async () => {
    bench.decisions = [forward()];
    bench.addressKnown = false;
    expect((await bench.put()).regionError?.epochNotMatch).toBeDefined();
    expect(bench.fixture.clock.monoMs()).toBeGreaterThanOrEqual(HOLD_MS);
    bench.addressKnown = true;
    bench.net.setReach('store-5:1', 'down');
    expect((await bench.put()).regionError?.undeterminedResult).toBeUndefined();
  });
});

describe('a request that waits', () => {
  test('goes on as soon as the change is over', async () => {
    await bench.fixture.put('k', 'here');
    bench.decisions = [{ type: 'wait' }, { type: 'wait' }, { type: 'wait' }, local()];
    expect(fromUtf8((await bench.get()).value)).toBe('here');
    expect(bench.fixture.clock.monoMs()).toBeLessThan(HOLD_MS);
    expect(bench.counters.redirects).toEqual({ redirected: 1, forwarded: 0, waited: 1, refused: 0 });
  });

  test('is refused when it was held long enough, or when its own deadline is over', async () => {
    bench.decisions = [{ type: 'wait' }];
    const started = bench.fixture.clock.monoMs();
    expect((await bench.get()).regionError?.epochNotMatch).toBeDefined();
    const heldMs = bench.fixture.clock.monoMs() - started;
    expect(heldMs).toBeGreaterThanOrEqual(HOLD_MS);
    expect(heldMs).toBeLessThan(2 * HOLD_MS);
    expect(bench.counters.redirects).toEqual({ redirected: 0, forwarded: 0, waited: 1, refused: 1 });
    const before = bench.fixture.clock.monoMs();
    expect((await bench.get('k', {}, { timeoutMs: 50 })).regionError?.epochNotMatch).toBeDefined();
    expect(bench.fixture.clock.monoMs() - before).toBeLessThan(HOLD_MS);
  });
});
