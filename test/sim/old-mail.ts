/**
 * Copies of delivered messages for delivering them once more, much later: after restarts, changes of epoch, merges,
 * snapshots and new replica ids. Every message of a run has the same chance to be kept, whatever its age.
 */
import type { PeerMessage } from '../../src/codec/peer-message.ts';
import type { Rng } from '../../src/env/rng.ts';
import type { RaftStore } from '../../src/raftstore/store/raft-store.ts';

/** Mail older than this is older than elections, snapshots and most merges. */
const OLD_MS = 3_000;

export interface OldMail {
  readonly message: PeerMessage;
  readonly bytes: Uint8Array;
  /** When it was delivered first, and to which life of its receiver. */
  readonly atMs: number;
  readonly incarnation: number;
}

export class OldMailbox {
  readonly #mail: OldMail[] = [];
  /** Messages offered so far. */
  #offered = 0;
  /** Messages kept at most; 0 keeps none. */
  capacity: number;

  constructor(capacity: number) {
    this.capacity = capacity;
  }

  get size(): number {
    return this.#mail.length;
  }

  /** Offers a message: every one offered so far is kept with the same probability. */
  offer(rng: Rng, mail: OldMail): void {
    if (this.capacity === 0) {
      return;
    }
    this.#offered++;
    if (this.#mail.length < this.capacity) {
      this.#mail.push(mail);
      return;
    }
    const slot = rng.below(this.#offered);
    if (slot < this.capacity) {
      this.#mail[slot] = mail;
    }
  }

  pick(rng: Rng): OldMail | undefined {
    return this.#mail.length === 0 ? undefined : rng.pick(this.#mail);
  }
}

/** What has changed at the receiver since the message was delivered first; nothing is said about fresh mail. */
export function changesSince(
  { message, atMs, incarnation }: OldMail,
  receiver: { readonly store: RaftStore; readonly incarnation: number; readonly nowMs: number },
): string[] {
  const changes: string[] = [];
  if (receiver.nowMs - atMs > OLD_MS) {
    changes.push('after seconds');
  }
  if (receiver.incarnation !== incarnation) {
    changes.push('after a restart');
  }
  const status = receiver.store.status().find(({ region }) => region.id === message.regionId);
  if (status === undefined) {
    changes.push('for a region that is gone');
    return changes;
  }
  const { epoch } = status.region;
  if (epoch.version > message.epoch.version || epoch.confVer > message.epoch.confVer) {
    changes.push('of an older epoch');
  }
  if (status.peerId > message.to.id) {
    changes.push('for an earlier replica');
  }
  if (status.state === 'installing') {
    changes.push('while a snapshot is installed');
  }
  const { body } = message;
  if (body.type === 'raft' && body.message.entries.length > 0 && body.message.index + 1 < status.firstIndex) {
    changes.push('with entries before the log');
  }
  return changes;
}
