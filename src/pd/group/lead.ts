/**
 * Whether a member leads, since when, and until when it may answer: the lease, the questions that renew it, and the wait
 * for the lease of an earlier leader. Knows nothing of logs and messages.
 */
import { Lease } from '../../raft/lease.ts';

/** Unanswered lease renewals remembered. */
const RENEWALS_MAX = 64;
const CONTEXT_BYTES = 8;

type State =
  | { readonly type: 'no' }
  /** `announced` once an entry of the own term is applied, `handedOver` once another one was told to take over. */
  | {
      readonly type: 'yes';
      readonly term: number;
      readonly serveFromMs: number;
      announced: boolean;
      handedOver: boolean;
    };

export class Lead {
  readonly #lengthMs: number;
  readonly #lease: Lease;
  #state: State = { type: 'no' };
  #nextRenewal: number;
  /** When each unanswered renewal was sent. */
  readonly #renewals = new Map<number, number>();

  /**
   * @param options.firstRenewal drawn at random: answers to an earlier life of this member must not look like answers
   *   to this one's questions
   */
  constructor(options: { readonly leaseMs: number; readonly firstRenewal: number }) {
    this.#lengthMs = options.leaseMs;
    this.#lease = new Lease(options.leaseMs);
    this.#nextRenewal = options.firstRenewal;
  }

  /** Term of the leadership; undefined on a member that does not lead. */
  get term(): number | undefined {
    return this.#state.type === 'yes' ? this.#state.term : undefined;
  }

  /** From when on the lease of an earlier leader is certainly over; 0 for a member that does not lead. */
  get serveFromMs(): number {
    return this.#state.type === 'yes' ? this.#state.serveFromMs : 0;
  }

  /** Whether another member was told to take over, which it may do at any later time of this term. */
  get isHandedOver(): boolean {
    return this.#state.type === 'yes' && this.#state.handedOver;
  }

  /** @param isAlone whether no other leader can have existed beside this member */
  begin(term: number, nowMs: number, isAlone: boolean): void {
    this.#lease.expire();
    this.#renewals.clear();
    this.#state = {
      type: 'yes',
      term,
      serveFromMs: nowMs + (isAlone ? 0 : this.#lengthMs),
      announced: false,
      handedOver: false,
    };
  }

  /** Returns the term if it was announced that this member leads. */
  end(): number | undefined {
    const state = this.#state;
    this.#state = { type: 'no' };
    this.#lease.expire();
    this.#renewals.clear();
    return state.type === 'yes' && state.announced ? state.term : undefined;
  }

  /** An entry of the own term is applied. Returns the term the first time. */
  announce(): number | undefined {
    if (this.#state.type === 'no' || this.#state.announced) {
      return undefined;
    }
    this.#state.announced = true;
    return this.#state.term;
  }

  /** The lease is void for the rest of the term. */
  handOver(): void {
    if (this.#state.type === 'yes') {
      this.#lease.forbid(this.#state.term);
      this.#state.handedOver = true;
    }
  }

  /** Whether answers as the leader of `term` are allowed. @param isAlone no lease is needed: nobody else can lead */
  serves(term: number, nowMs: number, isAlone: boolean): boolean {
    const state = this.#state;
    if (state.type === 'no' || state.term !== term || !state.announced || state.handedOver) {
      return false;
    }
    return nowMs >= state.serveFromMs && (isAlone || this.#lease.isValid(nowMs));
  }

  /** Nobody else could lead until now. */
  renewAlone(nowMs: number): void {
    if (this.#state.type === 'yes') {
      this.#lease.renew(nowMs, this.#state.term);
    }
  }

  /** The context of a question to the majority; undefined if an answer would be of no use. */
  ask(nowMs: number): Uint8Array | undefined {
    const state = this.#state;
    if (state.type === 'no' || !state.announced || state.handedOver) {
      return undefined;
    }
    const id = this.#nextRenewal++;
    this.#renewals.set(id, nowMs);
    if (this.#renewals.size > RENEWALS_MAX) {
      const [oldest] = this.#renewals.keys();
      this.#renewals.delete(oldest as number);
    }
    const context = new Uint8Array(CONTEXT_BYTES);
    new DataView(context.buffer).setBigUint64(0, BigInt(id));
    return context;
  }

  /** The majority answered: the lease counts from when it was asked. */
  answered(context: Uint8Array): void {
    if (context.length !== CONTEXT_BYTES || this.#state.type === 'no') {
      return;
    }
    const id = Number(new DataView(context.buffer, context.byteOffset, CONTEXT_BYTES).getBigUint64(0));
    const sentAtMs = this.#renewals.get(id);
    if (sentAtMs === undefined) {
      return;
    }
    this.#lease.renew(sentAtMs, this.#state.term);
    for (const other of this.#renewals.keys()) {
      if (other <= id) {
        this.#renewals.delete(other);
      }
    }
  }
}
