import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { utf8 } from '../../src/base/bytes.ts';
import { peerId, regionId, storeId } from '../../src/base/ids.ts';
import { BadMessageError } from '../../src/codec/bad-message-error.ts';
import { fromWireRegionError, toWireRegionError } from '../../src/codec/error-wire.ts';
import {
  fromWireEpoch,
  fromWirePeer,
  fromWirePeerOrNone,
  fromWireRegion,
  fromWireStore,
  toBigint,
  toWireRegion,
  toWireStore,
} from '../../src/codec/meta-wire.ts';
import {
  fromWireReply,
  fromWireReport,
  fromWireRoute,
  fromWireSplitIds,
  fromWireStats,
  fromWireTimestamp,
  toRequestHeader,
  toResponseHeader,
  toWireReply,
  toWireReport,
  toWireRoute,
  toWireSplitIds,
  toWireStats,
  toWireTimestamp,
} from '../../src/codec/pd-wire.ts';
import { formatRegionError } from '../../src/codec/region-error.ts';
import { RegionReport } from '../../src/gen/braid/placement/v1/placement.ts';
import { Error as WireError } from '../../src/gen/errorpb.ts';
import { Peer as WirePeer, Region as WireRegion, Store as WireStore } from '../../src/gen/metapb.ts';
import {
  GetRegionResponse,
  RegionHeartbeatResponse,
  RequestHeader,
  ResponseHeader,
  StoreStats,
} from '../../src/gen/pdpb.ts';
import type { Peer } from '../../src/meta/region.ts';
import { epoch, heartbeat, peer, region, regionError, safeInt, step, store, uint64 } from './codec-arbitraries.ts';

const somePeer = peer.filter((p) => p.id !== 0 || p.storeId !== 0);

describe('domain values through protobuf bytes', () => {
  test('regions', () => {
    fc.assert(
      fc.property(region, (value) => {
        const bytes = WireRegion.encode(toWireRegion(value)).finish();
        expect(fromWireRegion(WireRegion.decode(bytes))).toEqual(value);
      }),
    );
  });

  test('regions own their keys after decoding', () => {
    fc.assert(
      fc.property(region, (value) => {
        const bytes = WireRegion.encode(toWireRegion(value)).finish();
        const decoded = fromWireRegion(WireRegion.decode(bytes));
        bytes.fill(0xee);
        expect(decoded).toEqual(value);
      }),
    );
  });

  test('stores, with both state fields filled', () => {
    fc.assert(
      fc.property(store, (value) => {
        const wire = WireStore.decode(WireStore.encode(toWireStore(value)).finish());
        expect(fromWireStore(wire)).toEqual(value);
        expect(wire.nodeState).toBe({ up: 1, offline: 2, tombstone: 3 }[value.state]);
      }),
    );
  });

  test('region errors', () => {
    fc.assert(
      fc.property(regionError, (value) => {
        // A leader that is all zero means "none" on the wire.
        fc.pre(value.type !== 'not-leader' || value.leader === undefined || value.leader.id !== 0);
        const wire = WireError.decode(WireError.encode(toWireRegionError(value)).finish());
        expect(fromWireRegionError(wire)).toEqual(value);
        expect(wire.message).toBe(formatRegionError(value));
      }),
      { numRuns: 400 },
    );
  });

  test('region heartbeats', () => {
    fc.assert(
      fc.property(heartbeat, uint64, (value, clusterId) => {
        const report = toWireReport(toRequestHeader(clusterId, 7), value);
        const decoded = RegionReport.decode(RegionReport.encode(report).finish());
        expect(fromWireReport(decoded)).toEqual(value);
        expect(toBigint(decoded.heartbeat?.header?.clusterId ?? '', 'cluster id')).toBe(clusterId);
      }),
    );
  });

  test('store heartbeats', () => {
    const value = {
      storeId: storeId(3),
      capacityBytes: 2 ** 45,
      availableBytes: 2 ** 44,
      usedBytes: 12,
      regionCount: 10_000,
      sendingSnapshots: 1,
      receivingSnapshots: 2,
      applyingSnapshots: 3,
      startTimeSeconds: 1_700_000_000,
      isBusy: true,
      isStopping: true,
    };
    expect(fromWireStats(StoreStats.decode(StoreStats.encode(toWireStats(value)).finish()))).toEqual(value);
  });

  test('operator steps', () => {
    fc.assert(
      fc.property(region, epoch, peer, step, (target, at, targetPeer, value) => {
        const reply = { regionId: target.id, epoch: at, targetPeer, step: value };
        const bytes = RegionHeartbeatResponse.encode(toWireReply(toResponseHeader(1n), reply)).finish();
        expect(fromWireReply(RegionHeartbeatResponse.decode(bytes))).toEqual(reply);
      }),
      { numRuns: 300 },
    );
  });

  test('an answer without a step asks for nothing', () => {
    expect(fromWireReply(RegionHeartbeatResponse.create({ header: { clusterId: '1' } }))).toBeUndefined();
  });

  test('routes, with and without a leader', () => {
    fc.assert(
      fc.property(
        region.filter((r) => r.id !== 0),
        fc.option(somePeer, { nil: undefined }),
        fc.array(peer, { maxLength: 2 }),
        (value, leader: Peer | undefined, others) => {
          const route = { region: value, leader, downPeers: others, pendingPeers: others };
          const wire = GetRegionResponse.create(toWireRoute(route));
          expect(fromWireRoute(GetRegionResponse.decode(GetRegionResponse.encode(wire).finish()))).toEqual(route);
        },
      ),
    );
    expect(fromWireRoute(GetRegionResponse.create())).toBeUndefined();
  });

  test('cluster ids of 64 bits', () => {
    fc.assert(
      fc.property(uint64, safeInt, (clusterId, sender) => {
        const request = RequestHeader.decode(RequestHeader.encode(toRequestHeader(clusterId, sender)).finish());
        expect([toBigint(request.clusterId, 'cluster id'), request.senderId]).toEqual([clusterId, sender]);
        const response = ResponseHeader.decode(ResponseHeader.encode(toResponseHeader(clusterId)).finish());
        expect(toBigint(response.clusterId, 'cluster id')).toBe(clusterId);
      }),
    );
  });

  test('time stamps and ids of splits', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: 2n ** 63n - 1n }), (tso) => {
        expect(fromWireTimestamp(toWireTimestamp(tso))).toBe(tso);
      }),
    );
    const ids = { newRegionId: regionId(9), newPeerIds: [peerId(10), peerId(11)] };
    expect(fromWireSplitIds(toWireSplitIds(ids))).toEqual(ids);
  });
});

describe('refusals', () => {
  test('numbers outside the safe range are refused', () => {
    const region = WireRegion.create({ id: 2 ** 53 });
    expect(() => fromWireRegion(region)).toThrow(BadMessageError);
    expect(() => fromWireRegion(WireRegion.create({ id: -1 }))).toThrow(BadMessageError);
    expect(() => fromWireEpoch({ confVer: 1.5, version: 0 })).toThrow(BadMessageError);
    expect(() => WireRegion.decode(Uint8Array.of(0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10))).toThrow(
      /MAX_SAFE_INTEGER/,
    );
  });

  test('witnesses, unknown roles and unknown store states are refused', () => {
    expect(() => fromWirePeer(WirePeer.create({ isWitness: true }))).toThrow(BadMessageError);
    expect(() => fromWirePeer(WirePeer.create({ role: 7 as never }))).toThrow(BadMessageError);
    expect(() => fromWireStore(WireStore.create({ state: 7 as never }))).toThrow(BadMessageError);
    expect(fromWirePeerOrNone(WirePeer.create())).toBeUndefined();
  });

  test('reports and steps that miss a part are refused', () => {
    expect(() => fromWireReport({ merging: false })).toThrow(BadMessageError);
    expect(() => fromWireReport(RegionReport.create({ heartbeat: { region: {} } }))).toThrow(BadMessageError);
    expect(() => fromWireReply(RegionHeartbeatResponse.create({ merge: {}, targetPeer: { id: 1 } }))).toThrow(
      BadMessageError,
    );
    expect(() => fromWireReply(RegionHeartbeatResponse.create({ splitRegion: {} }))).toThrow(BadMessageError);
    expect(() => fromWireTimestamp({ physical: 1, logical: 2 ** 18, suffixBits: 0 })).toThrow(BadMessageError);
    expect(() => toBigint('0x12', 'cluster id')).toThrow(BadMessageError);
  });

  test('errors that only other servers raise keep their text', () => {
    const flashback = WireError.create({ message: 'in flashback', FlashbackInProgress: { regionId: 1 } });
    expect(fromWireRegionError(flashback)).toEqual({ type: 'message', message: 'in flashback' });
  });

  test('a split step that leaves the keys to the store has none', () => {
    const wire = RegionHeartbeatResponse.create({
      regionId: 1,
      targetPeer: { id: 1 },
      splitRegion: { policy: 0, keys: [utf8('ignored')] },
    });
    expect(fromWireReply(wire)?.step).toEqual({ type: 'split', keys: [] });
  });
});
