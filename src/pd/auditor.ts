/**
 * Keeps what people change in the audit log of the replicated state, and puts the same into the list of events. An entry
 * goes with its change as one command, so a crash leaves both or neither.
 */
import type { Clock } from '../env/clock.ts';
import { type EventInput, auditOf } from './cluster/events.ts';
import type { PendingAudit, Placement } from './placement.ts';
import type { AuditInput } from './state/audit-log.ts';
import type { PdResult, PlainCommand } from './state/pd-state.ts';
import type { RegionLog } from './state/state-log.ts';

/** Entries in one command about events that changed nothing durable. */
const NOTES_PER_COMMAND_MAX = 256;

export interface AuditorOptions {
  readonly clock: Pick<Clock, 'wallMs'>;
  readonly log: Pick<RegionLog, 'propose'>;
  readonly placement: Placement;
}

export class Auditor {
  readonly #clock: AuditorOptions['clock'];
  readonly #log: AuditorOptions['log'];
  readonly #placement: Placement;
  #pending: PendingAudit[] = [];
  #writing: Promise<void> | undefined;

  constructor(options: AuditorOptions) {
    this.#clock = options.clock;
    this.#log = options.log;
    this.#placement = options.placement;
  }

  /** As an entry with the present time. */
  entryOf(event: EventInput): AuditInput {
    return auditOf(event, this.#clock.wallMs());
  }

  /** Carries out a command; its events are listed when it was, and kept with it. @throws as `propose` */
  async change(command: PlainCommand | undefined, events: readonly EventInput[]): Promise<PdResult> {
    if (events.length === 0 && command !== undefined) {
      return this.#log.propose(command);
    }
    const audits = events.map((event) => this.entryOf(event));
    const result = await this.#log.propose({ type: 'audited', command, audits });
    if (result.type === 'done') {
      for (const [i, event] of events.entries()) {
        this.#placement.event(event, result.firstAudit === undefined ? undefined : result.firstAudit + i);
      }
    }
    return result;
  }

  /** Keeps pending events; nobody sees them before. */
  note(pending: readonly PendingAudit[]): void {
    if (pending.length > 0) {
      this.#pending.push(...pending);
      this.#writing ??= this.#write().finally(() => {
        this.#writing = undefined;
      });
    }
  }

  /** Resolves when everything noted so far is kept, or certainly or possibly never will be. Never rejects. */
  written(): Promise<void> {
    return this.#writing ?? Promise.resolve();
  }

  async #write(): Promise<void> {
    const { events } = this.#placement;
    while (this.#pending.length > 0) {
      const taken = this.#pending.splice(0, NOTES_PER_COMMAND_MAX);
      let first: number | undefined;
      try {
        const audits = taken.map(({ audit }) => audit);
        const result = await this.#log.propose({ type: 'audited', command: undefined, audits });
        first = result.type === 'done' ? result.firstAudit : undefined;
      } catch {
        // The lead is lost, and with it the operators these tell of; or the group is too busy, then the list of events
        // alone has them.
      }
      for (const [i, { sequence }] of taken.entries()) {
        events.settle(sequence, first === undefined ? undefined : first + i);
      }
    }
  }
}
