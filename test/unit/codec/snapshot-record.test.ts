import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { toHex, utf8 } from '../../../src/base/bytes.ts';
import { encodeRecord, RecordError } from '../../../src/codec/record.ts';
import {
  dataChunk,
  decodeInstallRecord,
  decodePairs,
  decodeSnapshotChunk,
  decodeSnapshotDescriptor,
  decodeStagingRecord,
  encodeInstallRecord,
  encodePairs,
  encodeSnapshotChunk,
  encodeSnapshotDescriptor,
  encodeStagingRecord,
  isChunkIntact,
} from '../../../src/codec/snapshot-record.ts';
import { plain, sketchRegion } from '../../support/store-harness.ts';

const region = sketchRegion({ id: 4, start: 'b', end: 'y', epoch: { confVer: 3, version: 8 } });

describe('records around snapshots', () => {
  it('are read back as they were written', () => {
    const descriptor = { snapshotId: 77, region };
    expect(plain(decodeSnapshotDescriptor(encodeSnapshotDescriptor(descriptor)))).toEqual(descriptor);
    const staging = { region, chunks: 3, keys: 12, sizeBytes: 2 ** 40 };
    expect(plain(decodeStagingRecord(encodeStagingRecord(staging)))).toEqual(staging);
    expect(decodeInstallRecord(encodeInstallRecord({ stagingId: 9 }))).toEqual({ stagingId: 9 });
    const data = dataChunk(5, [[utf8('k'), utf8('v')]]);
    expect(plain(decodeSnapshotChunk(encodeSnapshotChunk(data)))).toEqual(plain(data));
    const end = { type: 'end', sequence: 6, keys: 1, sizeBytes: 2, digest: utf8('12345678') } as const;
    expect(plain(decodeSnapshotChunk(encodeSnapshotChunk(end)))).toEqual(end);
  });

  it('keep their bytes', () => {
    expect(toHex(encodeSnapshotDescriptor({ snapshotId: 1, region }))).toMatchInlineSnapshot(
      `"930101c418970104c40162c4017903089393290100932a0200932b0300"`,
    );
    expect(toHex(encodeStagingRecord({ region, chunks: 1, keys: 2, sizeBytes: 3 }))).toMatchInlineSnapshot(
      `"9501c418970104c40162c4017903089393290100932a0200932b0300010203"`,
    );
    expect(toHex(encodeInstallRecord({ stagingId: 9 }))).toMatchInlineSnapshot(`"920109"`);
    expect(toHex(encodeSnapshotChunk(dataChunk(0, [[utf8('k'), utf8('v')]])))).toMatchInlineSnapshot(
      `"95010000c408c3bb6d186e78c755c409920192c4016bc40176"`,
    );
  });

  it('carry any pairs', () => {
    const pair = fc.tuple(fc.uint8Array({ maxLength: 20 }), fc.uint8Array({ maxLength: 300 }));
    fc.assert(
      fc.property(fc.array(pair), (pairs) => {
        expect(plain(decodePairs(encodePairs(pairs)))).toEqual(pairs);
      }),
    );
  });

  it('notice damage to a chunk', () => {
    const chunk = dataChunk(0, [[utf8('key'), utf8('value')]]);
    expect(isChunkIntact(chunk)).toBe(true);
    const payload = new Uint8Array(chunk.payload);
    payload[4] = (payload[4] as number) ^ 1;
    expect(isChunkIntact({ ...chunk, payload })).toBe(false);
    expect(isChunkIntact({ ...chunk, digest: utf8('') })).toBe(false);
  });

  it.each<[string, () => unknown]>([
    ['noise', () => decodeSnapshotChunk(utf8('noise'))],
    ['an unknown kind', () => decodeSnapshotChunk(encodeRecord(1, [7, 0, utf8('d'), utf8('p')]))],
    ['a newer version', () => decodeSnapshotChunk(encodeRecord(2, [0, 0, utf8('d'), utf8('p')]))],
    ['a payload of another type', () => decodeSnapshotChunk(encodeRecord(1, [0, 0, utf8('d'), 'text']))],
    ['a key without a value', () => decodePairs(encodeRecord(1, [[utf8('k')]]))],
    ['a pair that is no bytes', () => decodePairs(encodeRecord(1, [[1, 2]]))],
    ['no region', () => decodeSnapshotDescriptor(encodeRecord(1, [1, utf8('')]))],
  ])('refuse %s', (_name, decode) => {
    expect(decode).toThrow(RecordError);
  });
});
