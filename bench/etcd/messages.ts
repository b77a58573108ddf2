/**
 * The few messages of etcd's v3 API that the benchmark needs (etcd-io/etcd: api/etcdserverpb/rpc.proto), by hand: both
 * peers shall be measured, not a general encoder.
 */
import { BinaryReader, BinaryWriter } from '@bufbuild/protobuf/wire';

/** Tag of a length-delimited field. */
const lengthDelimited = (field: number): number => (field << 3) | 2;

export function putRequest(key: Uint8Array, value: Uint8Array): Uint8Array {
  return new BinaryWriter().uint32(lengthDelimited(1)).bytes(key).uint32(lengthDelimited(2)).bytes(value).finish();
}

/**
 * Linearizable, since `serializable` is left out. An empty `rangeEnd` would mean everything from the key on, so it is
 * left out for a single key.
 */
export function rangeRequest(key: Uint8Array, rangeEnd: Uint8Array | undefined, limit: number): Uint8Array {
  const writer = new BinaryWriter().uint32(lengthDelimited(1)).bytes(key);
  if (rangeEnd !== undefined) {
    writer
      .uint32(lengthDelimited(2))
      .bytes(rangeEnd)
      .uint32(3 << 3)
      .int64(limit);
  }
  return writer.finish();
}

export interface RangeReply {
  readonly count: number;
  /** Of the first entry; undefined when there is none. */
  readonly value: Uint8Array | undefined;
}

/** Reads every entry, as a client that uses them would. */
export function readRangeReply(message: Uint8Array): RangeReply {
  const reader = new BinaryReader(message);
  let count = 0;
  let value: Uint8Array | undefined;
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (field === 2) {
      count++;
      const entryEnd = reader.uint32() + reader.pos;
      let entryValue: Uint8Array = new Uint8Array(0);
      while (reader.pos < entryEnd) {
        const [entryField, entryType] = reader.tag();
        if (entryField === 5) {
          entryValue = reader.bytes();
        } else {
          reader.skip(entryType);
        }
      }
      value ??= entryValue;
    } else {
      reader.skip(wireType);
    }
  }
  return { count, value };
}

export interface StatusReply {
  readonly version: string;
  readonly memberId: bigint;
  /** 0 while there is no leader. */
  readonly leaderId: bigint;
}

export function readStatusReply(message: Uint8Array): StatusReply {
  const reader = new BinaryReader(message);
  let version = '';
  let memberId = 0n;
  let leaderId = 0n;
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (field === 1) {
      const headerEnd = reader.uint32() + reader.pos;
      while (reader.pos < headerEnd) {
        const [headerField, headerType] = reader.tag();
        if (headerField === 2) {
          memberId = BigInt(reader.uint64());
        } else {
          reader.skip(headerType);
        }
      }
    } else if (field === 2) {
      version = reader.string();
    } else if (field === 4) {
      leaderId = BigInt(reader.uint64());
    } else {
      reader.skip(wireType);
    }
  }
  return { version, memberId, leaderId };
}
