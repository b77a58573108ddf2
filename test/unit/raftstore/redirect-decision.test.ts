/** What a store does with a request of a client whose idea of a region is out of date. */
import { beforeEach, describe, expect, test } from 'vitest';
import { utf8 } from '../../../src/base/bytes.ts';
import { logIndex, regionId } from '../../../src/base/ids.ts';
import type { Region } from '../../../src/meta/region.ts';
import { decideRedirect, type RedirectPeer } from '../../../src/raftstore/store/redirect-decision.ts';
import type { RedirectDecision, RequestSpan } from '../../../src/raftstore/store/redirects.ts';
import { StoreMeta } from '../../../src/raftstore/store/store-meta.ts';
import { sketchRegion } from '../../support/store-harness.ts';

const THRESHOLD_MS = 60_000;
const R = (id: number, start: string, end: string, version: number): Region =>
  sketchRegion({ id, start, end, epoch: { confVer: 1, version } });
const keys = (...all: string[]): RequestSpan => ({ type: 'keys', keys: all.map(utf8) });
const scan = (start: string, end: string): RequestSpan => ({
  type: 'scans',
  from: 'start',
  ranges: [{ start: utf8(start), end: utf8(end) }],
});

/** Store 1 of three, at a moment. */
class Store {
  nowMs = 100_000;
  thresholdMs = THRESHOLD_MS;
  readonly meta: StoreMeta = new StoreMeta();
  readonly #peers = new Map<number, RedirectPeer>();

  /** A replica of a region here; the leader is on `lead`, 0 = nobody knows. */
  host(region: Region, lead: number, over: Partial<RedirectPeer> = {}): void {
    this.meta.regions.set(region.id, region);
    this.meta.insertRange(region);
    this.#peers.set(region.id, {
      isInitialized: true,
      isActive: true,
      isLeader: lead === 1,
      region,
      peer: region.peers[0] as Region['peers'][number],
      pendingMerge: undefined,
      lostLeadAtMs: undefined,
      fence: undefined,
      leaderPeer: () => region.peers[lead - 1],
      ...over,
    });
  }

  ask(of: { readonly id: number; readonly version: number }, span: RequestSpan): RedirectDecision {
    return decideRedirect(
      {
        clock: { monoMs: () => this.nowMs },
        config: { proxyThresholdMs: this.thresholdMs },
        meta: this.meta,
      },
      (region) => this.#peers.get(region),
      { regionId: regionId(of.id), epoch: { confVer: 1, version: of.version } },
      span,
    );
  }

  /** `local 2`, `forward 2@3`, or the type alone. */
  says(of: { readonly id: number; readonly version: number }, span: RequestSpan): string {
    const decision = this.ask(of, span);
    switch (decision.type) {
      case 'local':
        return `local ${decision.region.id}`;
      case 'forward':
        return `forward ${decision.region.id}@${decision.peer.storeId}`;
      default:
        return decision.type;
    }
  }
}

let store: Store;
beforeEach(() => {
  store = new Store();
});

describe('a region that was merged into another one', () => {
  const source = R(1, 'a', 'm', 3);
  const merged = R(2, 'a', 'z', 5);
  const S3 = { id: 1, version: 3 };
  beforeEach(() => store.meta.redirects.changed(source, merged.id, store.nowMs));

  test('is the other one, here or at its leader, cut to what the client means', () => {
    store.host(merged, 1);
    expect(store.says(S3, keys('b'))).toBe('local 2');
    const decision = store.ask(S3, scan('b', 'z'));
    expect(decision).toMatchObject({ type: 'local', within: { start: utf8('a'), end: utf8('m') } });
    store = new Store();
    store.meta.redirects.changed(source, merged.id, store.nowMs);
    store.host(merged, 3);
    expect(store.says(S3, keys('b', 'l'))).toBe('forward 2@3');
  });

  test('is nowhere for keys it did not have, for versions it did not have, and when redirects are off', () => {
    store.host(merged, 1);
    expect(store.says(S3, keys('b', 'n'))).toBe('none');
    expect(store.says(S3, scan('n', 'z'))).toBe('none');
    expect(store.says({ id: 1, version: 4 }, keys('b'))).toBe('none');
    expect(store.says({ id: 7, version: 3 }, keys('b'))).toBe('none');
    store.thresholdMs = 0;
    expect(store.says(S3, keys('b'))).toBe('none');
  });

  test('is waited for while the other one has no leader, is on its way out, or merges on', () => {
    store.host(merged, 0);
    expect(store.says(S3, keys('b'))).toBe('wait');
    for (const over of [
      { isActive: false },
      { pendingMerge: { minIndex: logIndex(5), target: merged, commit: logIndex(7) } },
    ]) {
      store = new Store();
      store.meta.redirects.changed(source, merged.id, store.nowMs);
      store.host(merged, 1, over);
      expect(store.says(S3, keys('b'))).toBe('wait');
    }
  });

  test('is split up when its keys lie in several regions now; a part of them is found', () => {
    store.host(R(2, 'a', 'f', 6), 1);
    store.host(R(9, 'f', 'z', 6), 2);
    expect(store.says(S3, keys('b', 'g'))).toBe('split-up');
    expect(store.says(S3, scan('b', 'm'))).toBe('split-up');
    expect(store.says(S3, keys('b'))).toBe('local 2');
    expect(store.says(S3, keys('g'))).toBe('forward 9@2');
  });

  test('goes on to where the other one was removed to; beyond what that had, nowhere', () => {
    const leader = merged.peers[1];
    store.meta.redirects.removed(R(2, 'a', 'k', 6), leader, store.nowMs);
    expect(store.says(S3, keys('b'))).toBe('forward 2@2');
    expect(store.says(S3, keys('b', 'l'))).toBe('none');
  });

  test('is forgotten after ten thresholds', () => {
    store.host(merged, 1);
    store.nowMs += 10 * THRESHOLD_MS;
    expect(store.says(S3, keys('b'))).toBe('local 2');
    store.nowMs += 1;
    expect(store.says(S3, keys('b'))).toBe('none');
  });
});

describe('a region that is still here', () => {
  const region = R(1, 'a', 'm', 3);

  test('is waited for while it merges: at the version of the merge and at the one before', () => {
    store.host(region, 1, { pendingMerge: { minIndex: logIndex(5), target: R(2, 'm', 'z', 1), commit: logIndex(7) } });
    expect(store.says({ id: 1, version: 3 }, keys('b'))).toBe('wait');
    expect(store.says({ id: 1, version: 2 }, keys('b'))).toBe('wait');
    expect(store.says({ id: 1, version: 1 }, keys('b'))).toBe('none');
  });

  test('is waited for while its replica here is on its way out', () => {
    store.host(region, 1, { isActive: false });
    expect(store.says({ id: 1, version: 3 }, keys('b'))).toBe('wait');
  });

  test('is asked here again when it is led here, and of an earlier version when it was split', () => {
    store.host(region, 1);
    store.meta.redirects.changed(R(1, 'a', 'z', 2), region.id, store.nowMs);
    expect(store.says({ id: 1, version: 3 }, keys('b'))).toBe('local 1');
    expect(store.says({ id: 1, version: 2 }, keys('b'))).toBe('local 1');
    // The other part of the split is not on this store.
    expect(store.says({ id: 1, version: 2 }, keys('q'))).toBe('none');
  });

  test('is passed on by a voter that handed the lead over for five seconds, by one on its way out for a threshold', () => {
    for (const [role, limitMs] of [
      ['voter', 5_000],
      ['incoming-voter', 5_000],
      ['learner', THRESHOLD_MS],
      ['demoting-voter', THRESHOLD_MS],
    ] as const) {
      store = new Store();
      const peer = { ...(region.peers[0] as Region['peers'][number]), role };
      store.host(region, 2, { lostLeadAtMs: store.nowMs, peer });
      store.nowMs += limitMs;
      expect(store.says({ id: 1, version: 3 }, keys('b')), role).toBe('forward 1@2');
      store.nowMs += 1;
      expect(store.says({ id: 1, version: 3 }, keys('b')), role).toBe('none');
    }
  });

  test('is not passed on by a replica that never led or that is fenced, and waited for without a leader', () => {
    store.host(region, 2);
    expect(store.says({ id: 1, version: 3 }, keys('b'))).toBe('none');
    store = new Store();
    store.host(region, 2, {
      lostLeadAtMs: store.nowMs,
      fence: { peerId: 11, index: 5, reason: 'divergent', wallMs: 0 } as unknown as RedirectPeer['fence'],
    });
    expect(store.says({ id: 1, version: 3 }, keys('b'))).toBe('none');
    store = new Store();
    store.host(region, 0, { lostLeadAtMs: store.nowMs });
    expect(store.says({ id: 1, version: 3 }, keys('b'))).toBe('wait');
  });

  test('whose replica here never had data counts as not here', () => {
    store.host(R(5, 'x', 'z', 1), 1);
    const former = R(1, 'a', 'm', 2);
    store.meta.redirects.removed(former, former.peers[2], store.nowMs);
    expect(store.says({ id: 1, version: 2 }, keys('b'))).toBe('forward 1@3');
  });
});

describe('a region whose replica here was removed', () => {
  test('is passed on to the leader known last, at exactly that version and as long as it is fresh', () => {
    const region = R(1, 'a', 'm', 3);
    store.meta.redirects.removed(region, region.peers[1], store.nowMs);
    expect(store.says({ id: 1, version: 3 }, keys('b'))).toBe('forward 1@2');
    expect(store.says({ id: 1, version: 2 }, keys('b'))).toBe('none');
    store.nowMs += 10 * THRESHOLD_MS + 1;
    expect(store.says({ id: 1, version: 3 }, keys('b'))).toBe('none');
  });

  test('is nowhere when no leader was known', () => {
    store.meta.redirects.removed(R(1, 'a', 'm', 3), undefined, store.nowMs);
    expect(store.says({ id: 1, version: 3 }, keys('b'))).toBe('none');
  });
});
