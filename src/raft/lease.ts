/**
 * Leader lease: how long a leader may answer reads without asking its followers.
 *
 * Bound = time *before* the message that a quorum acknowledged was sent, plus the lease length, all on this process's
 * {@link LeaseClock} (TiKV components/raftstore/src/store/util.rs Lease). The lease length stays below the election
 * timeout, and voters that heard from a leader refuse others for an election timeout (CheckQuorum + PreVote), so no
 * other leader can exist inside the bound. After asking another peer to take over that argument is void for the rest
 * of the term (TimeoutNow may arrive late), hence `forbid`.
 */
export class Lease {
  readonly #lengthMs: number;
  /** 0 = none. */
  #boundMs = 0;
  /** Renewals from messages sent before this time do not count. */
  #suspectedAtMs = 0;
  /** Term in which no lease may be held. */
  #forbiddenTerm = 0;

  constructor(lengthMs: number) {
    this.#lengthMs = lengthMs;
  }

  /** A quorum acknowledged something sent at `sentAtMs` in `term`. */
  renew(sentAtMs: number, term: number): void {
    if (term === this.#forbiddenTerm || sentAtMs < this.#suspectedAtMs) {
      return;
    }
    this.#boundMs = Math.max(this.#boundMs, sentAtMs + this.#lengthMs);
  }

  isValid(nowMs: number): boolean {
    return nowMs < this.#boundMs;
  }

  /** Milliseconds left; 0 if expired. */
  remaining(nowMs: number): number {
    return Math.max(0, this.#boundMs - nowMs);
  }

  expire(): void {
    this.#boundMs = 0;
  }

  /** From now on only acknowledgements of messages sent at or after `nowMs` renew the lease. */
  suspect(nowMs: number): void {
    this.#boundMs = 0;
    this.#suspectedAtMs = nowMs;
  }

  /** No lease for the rest of `term`. */
  forbid(term: number): void {
    this.#boundMs = 0;
    this.#forbiddenTerm = term;
  }
}

/** A forward difference between the clocks below this is rounding, or a clock that is being slewed. */
const SKEW_MIN_MS = 2;

/**
 * Time for leases. A virtual machine that is suspended may find its monotonic clock where it left it, while others have
 * waited out its lease and elected somebody else. Its wall clock tells: whatever that gained on the monotonic clock
 * counts as time that has passed. A wall clock set forward ends leases early, which costs a round of reads and nothing
 * else; one set back is ignored. A suspend that neither clock shows is not noticed.
 */
export class LeaseClock {
  readonly #clock: { monoMs(): number; wallMs(): number };
  #skewMs: number;
  /** What the wall clock gained so far. */
  #gainedMs = 0;

  constructor(clock: { monoMs(): number; wallMs(): number }) {
    this.#clock = clock;
    this.#skewMs = clock.wallMs() - clock.monoMs();
  }

  /** Never goes back, and is never slower than the monotonic clock. */
  nowMs(): number {
    const monoMs = this.#clock.monoMs();
    const skewMs = this.#clock.wallMs() - monoMs;
    const gainedMs = skewMs - this.#skewMs;
    if (gainedMs >= SKEW_MIN_MS) {
      this.#gainedMs += gainedMs;
    }
    if (Math.abs(gainedMs) >= SKEW_MIN_MS) {
      this.#skewMs = skewMs;
    }
    return monoMs + this.#gainedMs;
  }
}
