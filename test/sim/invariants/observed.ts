/** What all groups of invariants share: how a broken one is reported, and how the checker sees a machine. */
import type { MemoryDatabase } from '../../../src/engine/memory/crash-model.ts';
import type { Region } from '../../../src/meta/region.ts';
import type { RaftStore } from '../../../src/raftstore/store/raft-store.ts';

export class InvariantError extends Error {
  readonly invariant: string;

  constructor(invariant: string, text: string) {
    super(`${invariant}: ${text}`);
    this.invariant = invariant;
  }
}

export function violated(invariant: string, text: string): never {
  throw new InvariantError(invariant, text);
}

/** How the checker sees one machine. */
export interface ObservedMachine {
  readonly id: number;
  readonly store: RaftStore | undefined;
  readonly incarnation: number;
  /** The store's database as its readers see it; undefined before the first start. */
  readonly database: MemoryDatabase | undefined;
  /** Unknown where nobody looks at times. */
  readonly times?: MachineTimes;
}

export interface MachineTimes {
  /** True time. */
  readonly nowMs: number;
  /** True time of which suspensions of the machine are no part. */
  readonly awakeMs: number;
}

/** Counts by name: checks made, states reached. A run that checked nothing proves nothing. */
export class Tally {
  readonly counts: Record<string, number> = {};

  add(name: string, by = 1): void {
    this.counts[name] = (this.counts[name] ?? 0) + by;
  }
}

/** Bytes as text of the same order; an empty range end stays empty. */
export const textOf = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');

export function hashBytes(bytes: Uint8Array): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < bytes.length; i++) {
    hash = Math.imul(hash ^ (bytes[i] as number), 0x01000193);
  }
  return hash >>> 0;
}

/**
 * Digest of a set of rows that does not depend on their order and can be kept up to date row by row: two sums of
 * differently mixed hashes, and the number of rows.
 */
export class RowDigest {
  a = 0;
  b = 0;
  rows = 0;

  add(key: Uint8Array, stored: Uint8Array): void {
    this.#mix(key, stored, 1);
  }

  remove(key: Uint8Array, stored: Uint8Array): void {
    this.#mix(key, stored, -1);
  }

  #mix(key: Uint8Array, stored: Uint8Array, sign: 1 | -1): void {
    const k = hashBytes(key);
    const v = hashBytes(stored);
    const x = Math.imul(k ^ Math.imul(v, 0x9e3779b1), 0x85ebca6b);
    const y = Math.imul((k << 13) ^ (k >>> 19) ^ v, 0xc2b2ae35);
    this.a = (this.a + sign * (x ^ (x >>> 15))) | 0;
    this.b = (this.b + sign * (y ^ (y >>> 13))) | 0;
    this.rows += sign;
  }

  get text(): string {
    return `${this.rows} rows ${this.a >>> 0} ${this.b >>> 0}`;
  }
}

/** Whether more than half of each half of the configuration satisfies the condition. */
export function hasQuorum(
  voters: readonly number[],
  outgoing: readonly number[],
  holds: (id: number) => boolean,
): boolean {
  const wins = (ids: readonly number[]): boolean => ids.filter(holds).length * 2 > ids.length;
  return wins(voters) && (outgoing.length === 0 || wins(outgoing));
}

/** Voters of the two halves by descriptor; the second is empty outside a joint configuration. */
export function halvesOf(region: Region): { readonly voters: number[]; readonly outgoing: number[] } {
  const voters = region.peers.filter((p) => p.role === 'voter' || p.role === 'incoming-voter').map((p) => p.id);
  const outgoing = region.peers.filter((p) => p.role === 'voter' || p.role === 'demoting-voter').map((p) => p.id);
  const isJoint = region.peers.some((p) => p.role === 'incoming-voter' || p.role === 'demoting-voter');
  return { voters, outgoing: isJoint ? outgoing : [] };
}
