/**
 * What a leader knows about one member, and the flow control towards it (thesis 10.2.1; etcd-io/raft: tracker).
 *
 * ```text
 *            ack or rejection accepted            needs entries that are compacted
 *   probe ───────────────────────────► replicate ──────────────────────────────────► snapshot
 *     ▲        rejection, unreachable       │                                            │
 *     └──────────────────────────────◄──────┴───────────◄── ack reconnects, status reported
 * ```
 */
import { raftPanic } from './errors.ts';
import { Inflights, type InflightLimits } from './inflights.ts';
import { Ballot } from './quorum.ts';

export type ProgressState = 'probe' | 'replicate' | 'snapshot';

export class Progress {
  readonly id: number;
  readonly #limits: InflightLimits;
  /** Highest index known to be in the member's durable log. */
  match: number;
  /** Index of the next entry to send; always above `match`. */
  next: number;
  state: ProgressState;
  /** Index of the snapshot that was sent; 0 outside the snapshot state. */
  pendingSnapshot: number;
  /** Highest commit index sent that the member has presumably taken. */
  sentCommit: number;
  /** Heard from since the last quorum check. */
  recentActive: boolean;
  flowPaused: boolean;
  isLearner: boolean;
  /** Ballot in the current election; belongs to the tracker's owner in every role. */
  ballot: Ballot;
  /** Highest read position this member has echoed in this leadership. */
  readAck: number;
  /** Commit index the member reported (deviation D5); 0 if it never did. */
  reportedCommit: number;
  #inflights: Inflights | null;

  constructor(id: number, next: number, isLearner: boolean, limits: InflightLimits) {
    this.id = id;
    this.#limits = limits;
    this.match = 0;
    this.next = next;
    this.state = 'probe';
    this.pendingSnapshot = 0;
    this.sentCommit = 0;
    this.recentActive = false;
    this.flowPaused = false;
    this.isLearner = isLearner;
    this.ballot = Ballot.None;
    this.readAck = 0;
    this.reportedCommit = 0;
    this.#inflights = null;
  }

  /** A copy that shares the window, for a change of configuration. */
  clone(): Progress {
    const copy = new Progress(this.id, this.next, this.isLearner, this.#limits);
    copy.match = this.match;
    copy.state = this.state;
    copy.pendingSnapshot = this.pendingSnapshot;
    copy.sentCommit = this.sentCommit;
    copy.recentActive = this.recentActive;
    copy.flowPaused = this.flowPaused;
    copy.ballot = this.ballot;
    copy.readAck = this.readAck;
    copy.reportedCommit = this.reportedCommit;
    copy.#inflights = this.#inflights;
    return copy;
  }

  get inflightCount(): number {
    return this.#inflights === null ? 0 : this.#inflights.count;
  }

  /** Payload bytes in flight. */
  get inflightBytes(): number {
    return this.#inflights === null ? 0 : this.#inflights.bytes;
  }

  get inflightFull(): boolean {
    return this.#inflights !== null && this.#inflights.full;
  }

  /** No append may be sent now. */
  get paused(): boolean {
    return this.state === 'snapshot' || this.flowPaused;
  }

  /** Start of a term: nothing is known. The learner flag and nothing else survives. */
  resetForTerm(lastIndex: number): void {
    this.match = 0;
    this.next = lastIndex + 1;
    this.sentCommit = 0;
    this.recentActive = false;
    this.readAck = 0;
    this.reportedCommit = 0;
    this.ballot = Ballot.None;
    this.#resetState('probe');
  }

  #resetState(state: ProgressState): void {
    this.flowPaused = false;
    this.pendingSnapshot = 0;
    this.state = state;
    this.#inflights?.reset();
  }

  becomeProbe(): void {
    // After a snapshot the member is presumably at its index; probing starts behind it.
    const sent = this.state === 'snapshot' ? this.pendingSnapshot : 0;
    this.#resetState('probe');
    this.next = Math.max(this.match, sent) + 1;
    this.sentCommit = Math.min(this.sentCommit, this.next - 1);
  }

  becomeReplicate(): void {
    this.#resetState('replicate');
    this.next = this.match + 1;
  }

  becomeSnapshot(index: number): void {
    this.#resetState('snapshot');
    this.pendingSnapshot = index;
    this.next = index + 1;
    this.sentCommit = index;
  }

  /** An append with `count` entries of `bytes` payload was sent. */
  sentEntries(count: number, bytes: number): void {
    if (this.state === 'replicate') {
      if (count > 0) {
        this.next += count;
        this.#inflights ??= new Inflights(this.#limits);
        this.#inflights.add(this.next - 1, bytes);
      }
      // A message that fills the window is the last one until something is acknowledged.
      this.flowPaused = this.inflightFull;
    } else if (this.state === 'probe') {
      if (count > 0) {
        this.flowPaused = true;
      }
    } else {
      raftPanic('sent entries to a member that waits for a snapshot', { member: this.id });
    }
  }

  /** Whether telling the member `commit` could move its commit index further than what it was told already. */
  canBumpCommit(commit: number): boolean {
    return commit > this.sentCommit && this.sentCommit < this.next - 1;
  }

  /** An acknowledgement up to `index`. False if it says nothing new. */
  maybeUpdate(index: number): boolean {
    if (index <= this.match) {
      return false;
    }
    this.match = index;
    this.next = Math.max(this.next, index + 1);
    this.flowPaused = false;
    return true;
  }

  freeInflights(index: number): void {
    this.#inflights?.freeLE(index);
  }

  /**
   * A rejection of the append whose previous index was `rejected`, with `hint` as the position to try. False if it is
   * an old one (duplicated or overtaken by later messages).
   */
  maybeDecrTo(rejected: number, hint: number): boolean {
    if (this.state === 'replicate') {
      if (rejected <= this.match) {
        return false;
      }
      this.next = this.match + 1;
      this.sentCommit = Math.min(this.sentCommit, this.next - 1);
      return true;
    }
    // Outside replication one append is in flight at a time, so a genuine rejection names exactly its position.
    if (rejected !== this.next - 1) {
      return false;
    }
    this.next = Math.max(Math.min(rejected, hint + 1), this.match + 1);
    this.sentCommit = Math.min(this.sentCommit, this.next - 1);
    this.flowPaused = false;
    return true;
  }
}
