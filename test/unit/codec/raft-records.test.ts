import { describe, expect, test } from 'vitest';
import { fromHex, toHex, utf8 } from '../../../src/base/bytes.ts';
import { peerId, regionId, storeId } from '../../../src/base/ids.ts';
import type { AdminCommand, RaftCommand, WriteOp } from '../../../src/codec/command.ts';
import {
  decodeApplyState,
  decodeCleanTask,
  decodeEntry,
  decodeRaftCommand,
  decodeRaftLocalState,
  decodeRegion,
  decodeRegionLocalState,
  decodeStoreIdent,
  encodeApplyState,
  encodeCleanTask,
  encodeEntry,
  encodeRaftCommand,
  encodeRaftLocalState,
  encodeRegion,
  encodeRegionLocalState,
  encodeStoreIdent,
} from '../../../src/codec/raft-records.ts';
import {
  RecordError,
  decodeRecord,
  encodeRecord,
  fieldArray,
  fieldBytes,
  fieldInt,
} from '../../../src/codec/record.ts';
import type { Peer, Region } from '../../../src/meta/region.ts';

const peer = (id: number, store: number, role: Peer['role'] = 'voter'): Peer => ({
  id: peerId(id),
  storeId: storeId(store),
  role,
});

const region: Region = {
  id: regionId(7),
  range: { start: utf8('a'), end: utf8('m') },
  epoch: { confVer: 3, version: 300 },
  peers: [peer(11, 1), peer(12, 2, 'learner'), peer(13, 3, 'incoming-voter'), peer(14, 4, 'demoting-voter')],
};
const target: Region = {
  id: regionId(8),
  range: { start: utf8('m'), end: new Uint8Array(0) },
  epoch: { confVer: 1, version: 2 },
  peers: [peer(2 ** 40, 1)],
};
const entry = { type: 0, term: 6, index: 2 ** 33, data: utf8('xy') } as const;

const write = (...ops: readonly WriteOp[]): RaftCommand => ({ type: 'write', epoch: { confVer: 1, version: 2 }, ops });
const admin = (command: AdminCommand): RaftCommand => ({ type: 'admin', epoch: { confVer: 1, version: 2 }, command });

/** Name, value, its bytes in format version 1, and both directions. A change of these bytes is a change of format. */
const golden: readonly (readonly [string, unknown, (v: never) => Uint8Array, (b: Uint8Array) => unknown, string])[] = [
  ['region', region, encodeRegion, decodeRegion, '970107c40161c4016d03cd012c94930b0100930c0201930d0302930e0403'],
  [
    'region state without merge',
    { state: 'applying', region: target, mergeState: undefined },
    encodeRegionLocalState,
    decodeRegionLocalState,
    '9401019608c4016dc40001029193cb42700000000000000100c0',
  ],
  [
    'region state with merge',
    { state: 'merging', region: target, mergeState: { minIndex: 5, target, commit: 9 } },
    encodeRegionLocalState,
    decodeRegionLocalState,
    '9401029608c4016dc40001029193cb4270000000000000010093059608c4016dc40001029193cb4270000000000000010009',
  ],
  [
    'apply state',
    { appliedIndex: 1, appliedTerm: 2, commitIndex: 300, commitTerm: 4, truncatedIndex: 70_000, truncatedTerm: 6 },
    encodeApplyState,
    decodeApplyState,
    '97010102cd012c04ce0001117006',
  ],
  [
    'raft state',
    { peerId: 11, term: 5, vote: 0, commit: 2 ** 53 - 1, lastIndex: 2 ** 32 },
    encodeRaftLocalState,
    decodeRaftLocalState,
    '96010b0500cb433fffffffffffffcb41f0000000000000',
  ],
  [
    'store identity',
    { clusterId: 2n ** 64n - 1n, storeId: 4 },
    encodeStoreIdent,
    decodeStoreIdent,
    '9301b4313834343637343430373337303935353136313504',
  ],
  ['clean task', { range: { start: utf8('b'), end: utf8('c') } }, encodeCleanTask, decodeCleanTask, '9301c40162c40163'],
  ['log entry', entry, encodeEntry, decodeEntry, '95010006cb4200000000000000c4027879'],
  [
    'write of every kind',
    write(
      { type: 'put', key: utf8('k'), value: utf8('v'), expireAtSeconds: 0 },
      { type: 'put', key: utf8('k'), value: utf8('v'), expireAtSeconds: 1_700_000_000 },
      { type: 'delete', key: utf8('k') },
      { type: 'delete-range', range: { start: utf8('b'), end: utf8('c') } },
      {
        type: 'compare-and-swap',
        key: utf8('k'),
        expected: undefined,
        value: utf8('n'),
        expireAtSeconds: 0,
        deletes: false,
        nowSeconds: 5,
      },
      {
        type: 'compare-and-swap',
        key: utf8('k'),
        expected: utf8(''),
        value: utf8(''),
        expireAtSeconds: 7,
        deletes: true,
        nowSeconds: 6,
      },
      { type: 'expire', key: utf8('k'), expireAtSeconds: 9 },
    ),
    encodeRaftCommand,
    decodeRaftCommand,
    '9501000102979300c4016bc401769400c4016bc40176ce6553f1009201c4016b9302c40162c401639703c4016bc0c4016e00c2059703c4016bc400c40007c3069304c4016b09',
  ],
  [
    'batch-split',
    admin({ type: 'batch-split', children: [{ splitKey: utf8('g'), newRegionId: 20, newPeerIds: [21, 22] }] }),
    encodeRaftCommand,
    decodeRaftCommand,
    '950101010292019193c4016714921516',
  ],
  [
    'prepare-merge',
    admin({ type: 'prepare-merge', minIndex: 10, target }),
    encodeRaftCommand,
    decodeRaftCommand,
    '950101010293020a9608c4016dc40001029193cb42700000000000000100',
  ],
  [
    'commit-merge',
    admin({ type: 'commit-merge', source: target, commit: 12, entries: [entry] }),
    encodeRaftCommand,
    decodeRaftCommand,
    '950101010294039608c4016dc40001029193cb427000000000000001000c91940006cb4200000000000000c4027879',
  ],
  [
    'rollback-merge',
    admin({ type: 'rollback-merge', commit: 12 }),
    encodeRaftCommand,
    decodeRaftCommand,
    '950101010292040c',
  ],
  [
    'compact-log',
    admin({ type: 'compact-log', index: 9, term: 2 }),
    encodeRaftCommand,
    decodeRaftCommand,
    '950101010293050902',
  ],
  ['compute-hash', admin({ type: 'compute-hash' }), encodeRaftCommand, decodeRaftCommand, '95010101029106'],
  [
    'verify-hash',
    admin({ type: 'verify-hash', index: 3, hash: Uint8Array.of(1, 255) }),
    encodeRaftCommand,
    decodeRaftCommand,
    '9501010102930703c40201ff',
  ],
  [
    'change-peer',
    admin({
      type: 'change-peer',
      changes: [
        { type: 'add-voter', peer: peer(5, 6) },
        { type: 'remove', peer: peer(7, 8) },
        { type: 'add-learner', peer: peer(9, 10, 'learner') },
      ],
    }),
    encodeRaftCommand,
    decodeRaftCommand,
    '9501010102920893920093050600920193070800920293090a01',
  ],
];

/** Byte strings as text: what the stored form gives back are Buffers. */
const plain = (value: unknown): unknown =>
  JSON.parse(
    JSON.stringify(value, (_key, part: unknown) => {
      if (typeof part === 'bigint') {
        return String(part);
      }
      const json = part as { readonly type?: unknown; readonly data?: unknown } | null;
      return json?.type === 'Buffer' && Array.isArray(json.data)
        ? toHex(Uint8Array.from(json.data as number[]))
        : part instanceof Uint8Array
          ? toHex(part)
          : part;
    }),
  );

describe('stored forms of format version 1', () => {
  test.each(golden)('%s keeps its bytes', (_name, value, encode, decode, hex) => {
    expect(toHex(encode(value as never))).toBe(hex);
    expect(plain(decode(fromHex(hex) as Uint8Array))).toEqual(plain(value));
  });
});

describe('records', () => {
  test('fields that a newer program appended are ignored', () => {
    const { fields } = decodeRecord(encodeRegion(target), 'region', 1, 6);
    const longer = encodeRecord(1, [...fields, 'new', [1, 2]]);
    expect(plain(decodeRegion(longer))).toEqual(plain(target));
  });

  test('newer versions, missing fields and other shapes are refused', () => {
    const { fields } = decodeRecord(encodeRegion(target), 'region', 1, 6);
    expect(() => decodeRegion(encodeRecord(2, fields))).toThrow(/format version 2; this program reads up to 1/);
    expect(() => decodeRegion(encodeRecord(0, fields))).toThrow(RecordError);
    expect(() => decodeRegion(encodeRecord(1, fields.slice(0, 5)))).toThrow(/5 fields, at least 6/);
    expect(() => decodeRegion(fromHex('81a16101') as Uint8Array)).toThrow(/not a record/);
    expect(() => decodeRegion(new Uint8Array(0))).toThrow(RecordError);
    expect(() => decodeRegion(Buffer.concat([encodeRegion(target), Uint8Array.of(0)]))).toThrow(RecordError);
  });

  test('numbers must be safe and not negative', () => {
    expect(fieldInt(2 ** 53 - 1, 'n')).toBe(2 ** 53 - 1);
    for (const bad of [-1, 1.5, 2 ** 53, 2n ** 60n, 'x', null, undefined]) {
      expect(() => fieldInt(bad, 'n')).toThrow(RecordError);
    }
    expect(() => fieldBytes('text', 'b')).toThrow(RecordError);
    expect(() => fieldArray({}, 'a')).toThrow(RecordError);
  });

  test('unknown kinds inside a record are refused', () => {
    const unknown = [
      () => decodeRaftCommand(encodeRecord(1, [9, 1, 2, []])),
      () => decodeRaftCommand(encodeRecord(1, [1, 1, 2, [99]])),
      () => decodeRaftCommand(encodeRecord(1, [0, 1, 2, [[99, utf8('k')]]])),
      () => decodeEntry(encodeRecord(1, [3, 1, 2, utf8('')])),
      () => decodeRegionLocalState(encodeRecord(1, [9, [], null])),
      () => decodeStoreIdent(encodeRecord(1, ['0x1', 2])),
    ];
    for (const decode of unknown) {
      expect(decode).toThrow(RecordError);
    }
  });

  test('an error of a record says what to do', () => {
    expect(new RecordError('x')).toMatchObject({
      code: 'BadRecord',
      retry: 'never',
      hint: expect.any(String) as string,
    });
  });
});
