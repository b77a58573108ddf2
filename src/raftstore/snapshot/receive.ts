/**
 * Receives snapshots of other stores: verifies order, digests and keys of the chunks and stages them durably in the
 * engine, away from live data. A transfer that breaks off leaves chunks without a description; they are removed at once
 * or at the next start. Installing a complete one is the business of `install.ts`.
 */
import { assert } from '../../base/assert.ts';
import { compareBytes, equalBytes } from '../../base/bytes.ts';
import { isBeforeEnd, type KeyRange } from '../../base/key-range.ts';
import { KIB } from '../../base/units.ts';
import type { PeerMessage } from '../../codec/peer-message.ts';
import { RecordError } from '../../codec/record.ts';
import {
  decodePairs,
  decodeSnapshotDescriptor,
  encodeStagingRecord,
  isChunkIntact,
  TransferHash,
  type SnapshotChunk,
  type StoredPair,
} from '../../codec/snapshot-record.ts';
import { decodeDataValue } from '../../codec/data-value.ts';
import { dataRange, stagedChunkKey, stagingRecordKey } from '../../engine/keyspace.ts';
import type { WriteBatch } from '../../env/engine.ts';
import type { Region } from '../../meta/region.ts';
import { isBiased } from '../bias.ts';
import type { StoreContext } from '../context.ts';
import type { StagedSnapshot } from '../msg.ts';

/** Encoding overhead a chunk may have over its pairs. */
const CHUNK_OVERHEAD_BYTES: number = 64 * KIB;

export type ChunkVerdict =
  /** Staged; send the next one. */
  | { readonly type: 'staged' }
  /** That was the end chunk: everything is staged and verified. */
  | { readonly type: 'complete'; readonly staged: StagedSnapshot }
  /** The transfer is worthless; what was staged is being removed. Answer the sender with a failure. */
  | { readonly type: 'refused'; readonly reason: string };

export type BeginVerdict =
  | { readonly type: 'accepted'; readonly receiver: SnapshotReceiver }
  | { readonly type: 'refused'; readonly reason: string };

type InboxContext = Pick<StoreContext, 'config' | 'engine' | 'write' | 'failpoints'>;

/** What a receiver needs from the inbox it belongs to. */
interface ReceiverOwner {
  readonly ctx: InboxContext;
  released(receiver: SnapshotReceiver, discard: boolean): void;
}

/** One transfer. Chunks are accepted one at a time, in order. */
export class SnapshotReceiver {
  readonly stagingId: number;
  readonly region: Region;
  readonly #owner: ReceiverOwner;
  readonly #range: KeyRange;
  readonly #hash: TransferHash = new TransferHash();
  #state: 'open' | 'writing' | 'closed' = 'open';
  #sequence = 0;
  #keys = 0;
  #sizeBytes = 0;
  #lastKey: Uint8Array | undefined;

  constructor(owner: ReceiverOwner, stagingId: number, region: Region) {
    this.#owner = owner;
    this.stagingId = stagingId;
    this.region = region;
    this.#range = dataRange(region.range);
  }

  /** Verifies and stages a chunk; resolves when it is durable. */
  async accept(chunk: SnapshotChunk): Promise<ChunkVerdict> {
    if (this.#state === 'closed') {
      return { type: 'refused', reason: 'the transfer is over' };
    }
    assert(this.#state === 'open', 'two chunks of one snapshot are staged at once', { staging: this.stagingId });
    const problem = this.#problemOf(chunk);
    if (problem !== undefined) {
      this.abort();
      return { type: 'refused', reason: problem };
    }
    const { ctx } = this.#owner;
    const batch = ctx.engine.createBatch();
    const { stagingId, region } = this;
    this.#sequence++;
    if (chunk.type === 'data') {
      this.#hash.add(chunk.payload);
      batch.put(stagedChunkKey(stagingId, chunk.sequence), chunk.payload);
    } else {
      const record = { region, chunks: chunk.sequence, keys: this.#keys, sizeBytes: this.#sizeBytes };
      batch.put(stagingRecordKey(stagingId), encodeStagingRecord(record));
    }
    this.#state = 'writing';
    ctx.failpoints.hit('snapshot::before-stage', region.id);
    await this.#write(batch);
    ctx.failpoints.hit('snapshot::after-stage', region.id);
    if (this.#isClosed()) {
      // Given up while the chunk was being written: the removal that is under way may have missed it.
      this.#owner.released(this, true);
      return { type: 'refused', reason: 'the transfer was given up' };
    }
    if (chunk.type === 'data') {
      this.#state = 'open';
      return { type: 'staged' };
    }
    this.#state = 'closed';
    this.#owner.released(this, false);
    return { type: 'complete', staged: { stagingId, region, sizeBytes: this.#sizeBytes, keys: this.#keys } };
  }

  /** Gives the transfer up and removes what was staged. No effect on a complete one. */
  abort(): void {
    if (this.#state !== 'closed') {
      this.#state = 'closed';
      this.#owner.released(this, true);
    }
  }

  #isClosed(): boolean {
    return this.#state === 'closed';
  }

  #write(batch: WriteBatch): Promise<void> {
    return new Promise((resolve) => this.#owner.ctx.write(batch, resolve));
  }

  /** Why the chunk cannot be accepted; counts its pairs if it can. */
  #problemOf(chunk: SnapshotChunk): string | undefined {
    if (chunk.sequence !== this.#sequence) {
      return `chunk ${chunk.sequence} came where ${this.#sequence} was expected`;
    }
    if (chunk.type === 'end') {
      const isWhole =
        chunk.keys === this.#keys &&
        chunk.sizeBytes === this.#sizeBytes &&
        equalBytes(chunk.digest, this.#hash.digest());
      return isWhole ? undefined : 'the transfer does not add up to what was sent';
    }
    const { config } = this.#owner.ctx;
    if (chunk.payload.length > Math.max(config.snapshotChunkBytes, config.entrySizeMaxBytes) + CHUNK_OVERHEAD_BYTES) {
      return `chunk ${chunk.sequence} has ${chunk.payload.length} bytes`;
    }
    if (!isChunkIntact(chunk)) {
      return `chunk ${chunk.sequence} is damaged`;
    }
    let pairs: readonly StoredPair[];
    try {
      pairs = decodePairs(chunk.payload);
    } catch (error) {
      if (error instanceof RecordError) {
        return `chunk ${chunk.sequence} cannot be read: ${error.message}`;
      }
      throw error;
    }
    return this.#problemOfPairs(pairs);
  }

  #problemOfPairs(pairs: readonly StoredPair[]): string | undefined {
    if (pairs.length === 0) {
      return 'a chunk without keys';
    }
    for (const [key, value] of pairs) {
      if (this.#lastKey !== undefined && compareBytes(key, this.#lastKey) <= 0) {
        return 'keys are out of order';
      }
      if (compareBytes(key, this.#range.start) < 0 || !isBeforeEnd(key, this.#range.end)) {
        return 'a key lies outside the region';
      }
      if (decodeDataValue(value) === undefined) {
        return 'a value has no known form';
      }
      this.#lastKey = key;
      this.#keys++;
      this.#sizeBytes += key.length + value.length;
    }
    return undefined;
  }
}

/** All transfers of this store. */
export class SnapshotInbox implements ReceiverOwner {
  readonly ctx: InboxContext;
  readonly #discard: (stagingId: number) => void;
  readonly #receivers = new Set<SnapshotReceiver>();
  #nextStagingId: number | undefined;

  /** `discard` removes a staging area in the background. */
  constructor(ctx: InboxContext, discard: (stagingId: number) => void) {
    this.ctx = ctx;
    this.#discard = discard;
  }

  /** Transfers under way. */
  get receiving(): number {
    return this.#receivers.size;
  }

  /** Opens the inbox; `firstStagingId` is above every id on disk. */
  open(firstStagingId: number): void {
    assert(this.#nextStagingId === undefined, 'the snapshot inbox is opened twice');
    this.#nextStagingId = firstStagingId;
  }

  /** Starts a transfer announced by its MsgSnap envelope. */
  begin(message: PeerMessage): BeginVerdict {
    const refuse = (reason: string): BeginVerdict => ({ type: 'refused', reason });
    const { body, to, regionId } = message;
    if (this.#nextStagingId === undefined) {
      return refuse('the store is not ready');
    }
    if (body.type !== 'raft' || body.message.snapshot === null) {
      return refuse('the envelope holds no snapshot');
    }
    let region: Region;
    try {
      ({ region } = decodeSnapshotDescriptor(body.message.snapshot.data));
    } catch (error) {
      if (error instanceof RecordError) {
        return refuse(error.message);
      }
      throw error;
    }
    if (region.id !== regionId || !region.peers.some((peer) => peer.id === to.id && peer.storeId === to.storeId)) {
      return refuse(`the snapshot of region ${region.id} is not for peer ${to.id} of region ${regionId}`);
    }
    for (const receiver of this.#receivers) {
      if (receiver.region.id === regionId) {
        return refuse(`a snapshot of region ${regionId} is being received`);
      }
    }
    if (this.#receivers.size >= this.ctx.config.snapshotReceivesMax) {
      return refuse('too many snapshots are being received');
    }
    if (isBiased(this.ctx.failpoints, 'bias::refuse-snapshot-transfer', regionId)) {
      return refuse('a test says so');
    }
    const receiver = new SnapshotReceiver(this, this.#nextStagingId++, region);
    this.#receivers.add(receiver);
    return { type: 'accepted', receiver };
  }

  /** Called by receivers when they end. */
  released(receiver: SnapshotReceiver, discard: boolean): void {
    this.#receivers.delete(receiver);
    if (discard) {
      this.#discard(receiver.stagingId);
    }
  }

  /** Gives every transfer up. */
  close(): void {
    for (const receiver of [...this.#receivers]) {
      receiver.abort();
    }
  }
}
