import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  decodeApplyState,
  decodeEntry,
  decodeRaftCommand,
  decodeRaftLocalState,
  decodeRegion,
  decodeRegionLocalState,
  decodeStoreIdent,
  encodeApplyState,
  encodeEntry,
  encodeRaftCommand,
  encodeRaftLocalState,
  encodeRegion,
  encodeRegionLocalState,
  encodeStoreIdent,
} from '../../src/codec/raft-records.ts';
import { RecordError } from '../../src/codec/record.ts';
import { entry, raftCommand, region, regionLocalState, safeInt, uint64 } from './codec-arbitraries.ts';

/** Byte strings as plain arrays: what the stored form gives back are Buffers. */
function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) {
    return [...value];
  }
  if (Array.isArray(value)) {
    return value.map(plain);
  }
  if (typeof value === 'object' && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, plain(part)]));
  }
  return value;
}

interface Form {
  readonly name: string;
  readonly values: fc.Arbitrary<unknown>;
  readonly encode: (value: never) => Uint8Array;
  readonly decode: (bytes: Uint8Array) => unknown;
}

const forms: readonly Form[] = [
  { name: 'region', values: region, encode: encodeRegion, decode: decodeRegion },
  { name: 'region state', values: regionLocalState, encode: encodeRegionLocalState, decode: decodeRegionLocalState },
  {
    name: 'apply state',
    values: fc.record({
      appliedIndex: safeInt,
      appliedTerm: safeInt,
      commitIndex: safeInt,
      commitTerm: safeInt,
      truncatedIndex: safeInt,
      truncatedTerm: safeInt,
    }),
    encode: encodeApplyState,
    decode: decodeApplyState,
  },
  {
    name: 'raft state',
    values: fc.record({ peerId: safeInt, term: safeInt, vote: safeInt, commit: safeInt, lastIndex: safeInt }),
    encode: encodeRaftLocalState,
    decode: decodeRaftLocalState,
  },
  {
    name: 'store identity',
    values: fc.record({ clusterId: uint64, storeId: safeInt }),
    encode: encodeStoreIdent,
    decode: decodeStoreIdent,
  },
  { name: 'log entry', values: entry, encode: encodeEntry, decode: decodeEntry },
  { name: 'command', values: raftCommand, encode: encodeRaftCommand, decode: decodeRaftCommand },
];

describe.each(forms)('record of a $name', ({ values, encode, decode }) => {
  test('decodes to the value it was made of', () => {
    fc.assert(
      fc.property(values, (value) => {
        expect(plain(decode(encode(value as never)))).toEqual(plain(value));
      }),
    );
  });

  test('is the same for equal values', () => {
    fc.assert(
      fc.property(values, (value) => {
        const encoded = encode(value as never);
        expect(plain(encode(decode(encoded) as never))).toEqual(plain(encoded));
      }),
    );
  });

  test('owns its bytes after decoding', () => {
    fc.assert(
      fc.property(values, (value) => {
        const encoded = Uint8Array.from(encode(value as never));
        const decoded = decode(encoded);
        encoded.fill(0xee);
        expect(plain(decoded)).toEqual(plain(value));
      }),
    );
  });

  test('is refused with BadRecord when cut, and refused or read when damaged', () => {
    fc.assert(
      fc.property(values, fc.nat(), fc.nat(255), (value, at, byte) => {
        const encoded = encode(value as never);
        const cut = encoded.subarray(0, at % encoded.length);
        expect(() => decode(cut)).toThrow(RecordError);
        const damaged = Uint8Array.from(encoded);
        damaged[at % encoded.length] = byte;
        try {
          decode(damaged);
        } catch (error) {
          expect(error).toBeInstanceOf(RecordError);
        }
      }),
      { numRuns: 300 },
    );
  });
});
