/**
 * Keeps proposals from racing epoch changes (TiKV CmdEpochChecker, reference 3.3): the leader remembers every
 * epoch-changing admin command of this term that is proposed but not yet applied. A request whose checked counter is
 * about to change is not proposed; it waits and is answered once the command is applied.
 */
import type { AdminType } from '../../codec/command.ts';
import type { EpochChecks } from '../operation/region-change.ts';

/** What data requests check. */
export const DATA_CHECKS: EpochChecks = Object.freeze({
  checksVersion: true,
  checksConfVer: false,
  changesVersion: false,
  changesConfVer: false,
});

interface InFlight {
  readonly type: AdminType;
  readonly index: number;
  readonly checks: EpochChecks;
  readonly waiting: ((outcome: 'applied' | 'term-changed') => void)[];
}

export class EpochChecker {
  #term = 0;
  #inFlight: InFlight[] = [];

  /** The command in flight that a request with these checks conflicts with. */
  conflict(checks: EpochChecks, term: number): AdminType | undefined {
    return this.#find(checks, term)?.type;
  }

  #find(checks: EpochChecks, term: number): InFlight | undefined {
    if (term !== this.#term) {
      return undefined;
    }
    return this.#inFlight.find(
      (c) => (checks.checksVersion && c.checks.changesVersion) || (checks.checksConfVer && c.checks.changesConfVer),
    );
  }

  /** Waits for the conflicting command; call only right after `conflict` named one. */
  wait(checks: EpochChecks, term: number, answer: (outcome: 'applied' | 'term-changed') => void): void {
    const found = this.#find(checks, term);
    if (found === undefined) {
      answer('applied');
      return;
    }
    found.waiting.push(answer);
  }

  /** Remembers a proposed command. */
  proposed(type: AdminType, checks: EpochChecks, index: number, term: number): void {
    if (term !== this.#term) {
      this.reset(term);
    }
    if (checks.changesVersion || checks.changesConfVer) {
      this.#inFlight.push({ type, index, checks, waiting: [] });
    }
  }

  /** Index of the newest command of this type in flight in `term`; undefined if none. */
  proposedIndex(type: AdminType, term: number): number | undefined {
    return term === this.#term ? this.#inFlight.findLast((c) => c.type === type)?.index : undefined;
  }

  /** Everything up to `appliedIndex` took effect or failed: answer who waited. */
  applied(appliedIndex: number): void {
    while (this.#inFlight.length > 0 && (this.#inFlight[0] as InFlight).index <= appliedIndex) {
      const done = this.#inFlight.shift() as InFlight;
      for (const answer of done.waiting) {
        answer('applied');
      }
    }
  }

  /** A new term: what was in flight may or may not commit, nobody here knows. */
  reset(term: number): void {
    const dropped = this.#inFlight;
    this.#inFlight = [];
    this.#term = term;
    for (const command of dropped) {
      for (const answer of command.waiting) {
        answer('term-changed');
      }
    }
  }
}
