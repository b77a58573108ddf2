/**
 * Records around region snapshots: the descriptor inside a Raft snapshot, the chunks of a transfer, and the notes a
 * store keeps about staged snapshots and installations.
 */
import { Hash64, hash64, HASH64_BYTES } from '../base/hash.ts';
import { equalBytes } from '../base/bytes.ts';
import type { Region } from '../meta/region.ts';
import { decodeRegion, encodeRegion } from './raft-records.ts';
import { RecordError, decodeRecord, encodeRecord, fieldArray, fieldBytes, fieldInt } from './record.ts';

const VERSION = 1;

/** What `Snapshot.data` says: the descriptor at the snapshot's index, and the sender's handle for the frozen data. */
export interface SnapshotDescriptor {
  readonly snapshotId: number;
  readonly region: Region;
}

export const encodeSnapshotDescriptor = (descriptor: SnapshotDescriptor): Uint8Array =>
  encodeRecord(VERSION, [descriptor.snapshotId, encodeRegion(descriptor.region)]);

export function decodeSnapshotDescriptor(bytes: Uint8Array): SnapshotDescriptor {
  const { fields: f } = decodeRecord(bytes, 'snapshot descriptor', VERSION, 2);
  return { snapshotId: fieldInt(f[0], 'snapshot id'), region: decodeRegion(fieldBytes(f[1], 'region')) };
}

/** Stored key and stored value, as the engine holds them. */
export type StoredPair = readonly [Uint8Array, Uint8Array];

/** One step of a transfer. Sequence numbers start at 0 and have no gaps; the end chunk takes the last one. */
export type SnapshotChunk =
  | {
      readonly type: 'data';
      readonly sequence: number;
      /** Encoded pairs in key order. */
      readonly payload: Uint8Array;
      /** {@link hash64} of the payload. */
      readonly digest: Uint8Array;
    }
  | {
      readonly type: 'end';
      readonly sequence: number;
      readonly keys: number;
      /** Key and value bytes of all pairs. */
      readonly sizeBytes: number;
      /** Hash over all payloads in order. */
      readonly digest: Uint8Array;
    };

export const encodePairs = (pairs: readonly StoredPair[]): Uint8Array => encodeRecord(VERSION, [pairs.flat()]);

/** @throws RecordError */
export function decodePairs(payload: Uint8Array): StoredPair[] {
  const { fields: f } = decodeRecord(payload, 'snapshot chunk', VERSION, 1);
  const flat = fieldArray(f[0], 'pairs');
  if (flat.length % 2 !== 0) {
    throw new RecordError('snapshot chunk holds a key without a value');
  }
  const pairs: StoredPair[] = [];
  for (let i = 0; i < flat.length; i += 2) {
    pairs.push([fieldBytes(flat[i], 'stored key'), fieldBytes(flat[i + 1], 'stored value')]);
  }
  return pairs;
}

/** Builds the data chunk with this sequence number. */
export function dataChunk(sequence: number, pairs: readonly StoredPair[]): Extract<SnapshotChunk, { type: 'data' }> {
  const payload = encodePairs(pairs);
  return { type: 'data', sequence, payload, digest: hash64(payload) };
}

/** The running hash of a whole transfer. */
export class TransferHash {
  readonly #hash: Hash64 = new Hash64();

  add(payload: Uint8Array): void {
    this.#hash.update(payload);
  }

  digest(): Uint8Array {
    return this.#hash.digest();
  }
}

/** Whether the payload of a data chunk is what its sender hashed. */
export const isChunkIntact = (chunk: Extract<SnapshotChunk, { type: 'data' }>): boolean =>
  chunk.digest.length === HASH64_BYTES && equalBytes(hash64(chunk.payload), chunk.digest);

const KIND_DATA = 0;
const KIND_END = 1;

export const encodeSnapshotChunk = (chunk: SnapshotChunk): Uint8Array =>
  chunk.type === 'data'
    ? encodeRecord(VERSION, [KIND_DATA, chunk.sequence, chunk.digest, chunk.payload])
    : encodeRecord(VERSION, [KIND_END, chunk.sequence, chunk.digest, chunk.keys, chunk.sizeBytes]);

/** @throws RecordError */
export function decodeSnapshotChunk(bytes: Uint8Array): SnapshotChunk {
  const { fields: f } = decodeRecord(bytes, 'snapshot chunk', VERSION, 4);
  const sequence = fieldInt(f[1], 'sequence');
  const digest = fieldBytes(f[2], 'digest');
  if (f[0] === KIND_DATA) {
    return { type: 'data', sequence, digest, payload: fieldBytes(f[3], 'payload') };
  }
  if (f[0] === KIND_END) {
    return { type: 'end', sequence, digest, keys: fieldInt(f[3], 'keys'), sizeBytes: fieldInt(f[4], 'size') };
  }
  throw new RecordError(`unknown kind of snapshot chunk ${String(f[0])}`);
}

/** Written with the end chunk: the staged snapshot is complete. */
export interface StagingRecord {
  readonly region: Region;
  readonly chunks: number;
  readonly keys: number;
  readonly sizeBytes: number;
}

export const encodeStagingRecord = (record: StagingRecord): Uint8Array =>
  encodeRecord(VERSION, [encodeRegion(record.region), record.chunks, record.keys, record.sizeBytes]);

export function decodeStagingRecord(bytes: Uint8Array): StagingRecord {
  const { fields: f } = decodeRecord(bytes, 'staging record', VERSION, 4);
  return {
    region: decodeRegion(fieldBytes(f[0], 'region')),
    chunks: fieldInt(f[1], 'chunks'),
    keys: fieldInt(f[2], 'keys'),
    sizeBytes: fieldInt(f[3], 'size'),
  };
}

/** Written in the batch that makes a region `applying`; deleted in the one that makes it `normal`. */
export interface InstallRecord {
  readonly stagingId: number;
}

export const encodeInstallRecord = (record: InstallRecord): Uint8Array => encodeRecord(VERSION, [record.stagingId]);

export function decodeInstallRecord(bytes: Uint8Array): InstallRecord {
  const { fields: f } = decodeRecord(bytes, 'install record', VERSION, 1);
  return { stagingId: fieldInt(f[0], 'staging id') };
}
