/**
 * Region snapshots generated for followers and not yet being sent. Each pins an old view of the engine, so there are
 * few of them and they do not live long: the oldest gives way to a new one, and a source nobody took for some sweeps
 * is closed. Losing one is harmless, Raft asks again.
 */
import { assert } from '../../base/assert.ts';
import { decodeSnapshotDescriptor } from '../../codec/snapshot-record.ts';
import type { Snapshot } from '../../raft/types.ts';
import type { SnapshotRegistry, SnapshotSource } from '../context.ts';

export interface PendingSnapshotsOptions {
  /** Most sources waiting at once. */
  readonly sourcesMax: number;
  /** A source that saw this many sweeps is closed. */
  readonly sweepsMax: number;
}

interface Waiting {
  readonly source: SnapshotSource;
  sweeps: number;
}

export class PendingSnapshots implements SnapshotRegistry {
  readonly #options: PendingSnapshotsOptions;
  /** In order of registration. */
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 1;
  #isClosed = false;

  constructor(options: PendingSnapshotsOptions) {
    assert(options.sourcesMax > 0 && options.sweepsMax > 0, 'limits of pending snapshots must be positive');
    this.#options = options;
  }

  get size(): number {
    return this.#waiting.size;
  }

  register(source: SnapshotSource): number {
    const id = this.#nextId++;
    if (this.#isClosed) {
      source.close();
      return id;
    }
    if (this.#waiting.size >= this.#options.sourcesMax) {
      const [oldest] = this.#waiting.keys();
      this.#drop(oldest as number);
    }
    this.#waiting.set(id, { source, sweeps: 0 });
    return id;
  }

  take(snapshotId: number): SnapshotSource | undefined {
    const found = this.#waiting.get(snapshotId);
    this.#waiting.delete(snapshotId);
    return found?.source;
  }

  dropOf(snapshot: Snapshot): void {
    this.#drop(decodeSnapshotDescriptor(snapshot.data).snapshotId);
  }

  #drop(snapshotId: number): void {
    this.take(snapshotId)?.close();
  }

  /** Ages every source; called at regular intervals. */
  sweep(): void {
    for (const [id, waiting] of this.#waiting) {
      waiting.sweeps++;
      if (waiting.sweeps >= this.#options.sweepsMax) {
        this.#drop(id);
      }
    }
  }

  /** Closes everything; the engine is about to be closed. */
  close(): void {
    this.#isClosed = true;
    for (const id of [...this.#waiting.keys()]) {
      this.#drop(id);
    }
  }
}
