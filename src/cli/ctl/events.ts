/**
 * `braid ctl events`: what happened. With `--watch` every later event is printed once, in order, whoever leads the
 * placement service: an event is known by the lead that noted it and its number there.
 */
import type { Command } from 'commander';
import type { AdminClient } from '../../client/admin.ts';
import type { AuditEntry, ClusterEvent, ClusterEvents } from '../../client/admin-wire.ts';
import { BraidError } from '../../client/errors.ts';
import { type App, addCommand } from '../command.ts';
import { flag, positive } from '../common-options.ts';
import { EXIT_DONE, EXIT_INTERRUPTED, type ExitCode } from '../exit-code.ts';
import { LIST_MODES } from '../output/mode.ts';
import type { Session } from '../session.ts';
import { rest } from '../watch.ts';
import { requireUnordered } from './document-watch.ts';
import { allAudit } from './maintenance-commands.ts';
import { moment } from './moment.ts';
import { EVENT_SHAPE } from './shapes.ts';

const LIMIT_DEFAULT = 50;
const POLL_MS = 500;
/** Answers read for one list; more than the service remembers. */
const PAGES_MAX = 64;
/** Deadline of one look of a watch; the look is repeated. */
const LOOK_TIMEOUT_MS = 5_000;
/** Looks in a row that get no answer before a watch gives up. */
const FAILURES_MAX = 120;

interface EventFlags {
  readonly after?: number;
  readonly since?: number;
  readonly limit: number;
  readonly watch?: true;
  readonly audit?: true;
}

export function eventsCommand(ctl: Command, app: App): void {
  addCommand<EventFlags>(ctl, app, {
    usage: 'events',
    summary: 'List what happened: splits, merges, moves, leader and store changes',
    details:
      'What people changed and what was removed is kept in the audit log, see "braid ctl maintenance log"; everything else is forgotten when another member of the placement service leads. With --watch every new event is printed once, until Ctrl-C or --timeout.',
    examples: [
      'braid ctl events --since 10m',
      'braid ctl events -w --where type=merge',
      'braid ctl events --after 120 -o jsonl',
    ],
    modes: LIST_MODES,
    mode: 'table',
    isList: true,
    options: [
      flag('-w, --watch', 'go on with every new event'),
      flag('--since <moment>', 'only events of the last duration such as 10m, or from a time in ISO 8601 on').argParser(
        moment,
      ),
      flag('--after <sequence>', 'only events that the present lead noted with a greater sequence number').argParser(
        positive,
      ),
      flag('--audit', 'only events that the audit log keeps'),
      flag('--limit <count>', 'only the latest so many of those that are there')
        .default(LIMIT_DEFAULT)
        .argParser(positive),
    ],
    task: () => 'list events',
    run: async (session, _, options) => {
      const isWatching = options.watch === true;
      if (isWatching) {
        requireUnordered(session);
      }
      const admin = await session.admin();
      // The audit log first: whatever it holds now is marked in the list of events that comes later.
      const kept = options.after === undefined ? (await allAudit(session, admin, 0)).entries : [];
      const first = await allEvents(session, admin, options.after ?? 0);
      const since = options.since ?? 0;
      const isWanted = (event: ClusterEvent): boolean =>
        event.unixMs >= since && (options.audit !== true || event.auditSequence !== undefined);
      const all = inTime(onlyKept(kept, first.events), first.events);
      const found = session.printer.chosen(EVENT_SHAPE, all.filter(isWanted), isWatching).slice(-options.limit);
      if (!isWatching) {
        await session.printer.list(EVENT_SHAPE, found, { oldestSequence: first.oldestSequence, term: first.term });
        return EXIT_DONE;
      }
      return watch(session, admin, first, found, {
        isWanted,
        seen: new Set(all.flatMap(({ auditSequence }) => auditSequence ?? [])),
      });
    },
  });
}

/** One answer holds only so many events; the latest ones are in the last. */
async function allEvents(session: Session, admin: AdminClient, after: number): Promise<ClusterEvents> {
  let all = await admin.events({ ...session.limits(), afterSequence: after });
  for (let pages = 1; pages < PAGES_MAX && all.events.length > 0; pages++) {
    const afterSequence = all.events.at(-1)?.sequence ?? after;
    const page = await admin.events({ ...session.limits(), afterSequence, afterTerm: all.term });
    if (page.events.length === 0) {
      break;
    }
    all = page.term === all.term ? { ...all, events: [...all.events, ...page.events] } : page;
  }
  return all;
}

/** Entries of the audit log that the list of events does not have: noted by earlier leads, or forgotten there. */
function onlyKept(kept: readonly AuditEntry[], events: readonly ClusterEvent[]): ClusterEvent[] {
  const listed = new Set(events.map(({ auditSequence }) => auditSequence));
  return kept
    .filter(({ sequence }) => !listed.has(sequence))
    .map((entry) => ({ ...entry, sequence: 0, auditSequence: entry.sequence }));
}

/** Both in the order of time, each in its own order whatever the clocks said. */
function inTime(kept: readonly ClusterEvent[], events: readonly ClusterEvent[]): ClusterEvent[] {
  const all: ClusterEvent[] = [];
  let [i, j] = [0, 0];
  for (;;) {
    const [one, other] = [kept[i], events[j]];
    if (one !== undefined && (other === undefined || one.unixMs <= other.unixMs)) {
      all.push(one);
      i++;
    } else if (other !== undefined) {
      all.push(other);
      j++;
    } else {
      return all;
    }
  }
}

/** What a watch shows: each event of the audit log once, whoever leads. */
interface Shown {
  readonly isWanted: (event: ClusterEvent) => boolean;
  /** Numbers in the audit log that were shown, or passed over. */
  readonly seen: Set<number>;
}

/** Numbers of the audit log that a watch remembers; older ones do not come again. */
const SEEN_MAX = 20_000;

function unseen(events: readonly ClusterEvent[], { isWanted, seen }: Shown): ClusterEvent[] {
  const found = events.filter(
    (event) => isWanted(event) && (event.auditSequence === undefined || !seen.has(event.auditSequence)),
  );
  for (const { auditSequence } of events) {
    if (auditSequence !== undefined) {
      seen.add(auditSequence);
    }
  }
  for (const oldest of seen) {
    if (seen.size <= SEEN_MAX) {
      break;
    }
    seen.delete(oldest);
  }
  return found;
}

/** Prints `found`, then everything behind the last event of `first`. */
async function watch(
  session: Session,
  admin: AdminClient,
  first: ClusterEvents,
  found: readonly ClusterEvent[],
  shown: Shown,
): Promise<ExitCode> {
  const limit = new AbortController();
  const timer = session.isTimeoutGiven ? setTimeout(() => limit.abort(), session.leftMs) : undefined;
  const signal = AbortSignal.any([session.signal, limit.signal]);
  try {
    await session.printer.stream(EVENT_SHAPE, follow(session, admin, first, found, { ...shown, signal }));
  } finally {
    clearTimeout(timer);
  }
  return session.signal.aborted ? EXIT_INTERRUPTED : EXIT_DONE;
}

async function* follow(
  session: Session,
  admin: AdminClient,
  first: ClusterEvents,
  found: readonly ClusterEvent[],
  options: Shown & { readonly signal: AbortSignal },
): AsyncGenerator<readonly ClusterEvent[]> {
  const { signal, seen } = options;
  yield found;
  let term = first.term;
  let sequence = first.events.at(-1)?.sequence ?? Math.max(0, first.oldestSequence - 1);
  let failures = 0;
  for (;;) {
    await rest(POLL_MS, signal);
    let next: ClusterEvents;
    let kept: readonly AuditEntry[] = [];
    try {
      signal.throwIfAborted();
      next = await admin.events({ timeoutMs: LOOK_TIMEOUT_MS, signal, afterSequence: sequence, afterTerm: term });
      if (next.term !== term) {
        // What the lead before kept in its last moments is there; the rest is not.
        const afterSequence = Math.max(0, ...seen);
        kept = (await admin.audit({ timeoutMs: LOOK_TIMEOUT_MS, signal, afterSequence })).entries;
      }
    } catch (error) {
      if (signal.aborted) {
        return;
      }
      failures++;
      if (!isPassing(error) || failures > FAILURES_MAX) {
        throw error;
      }
      if (failures === 1) {
        await session.printer.note('the placement service does not answer; the watch goes on when it does');
      }
      continue;
    }
    failures = 0;
    if (next.term !== term) {
      await session.printer.note(
        'another lead of the placement service has begun; events of the last moments before it that the audit log does not keep may be missing',
      );
      term = next.term;
      sequence = 0;
    }
    if (next.oldestSequence > sequence + 1) {
      await session.printer.note(
        `${next.oldestSequence - sequence - 1} events came and were forgotten between two looks`,
      );
    }
    sequence = next.events.at(-1)?.sequence ?? sequence;
    const fresh = unseen(inTime(onlyKept(kept, next.events), next.events), options);
    const shown = session.printer.chosen(EVENT_SHAPE, fresh, true);
    if (shown.length > 0) {
      yield shown;
    }
  }
}

/** Whether the same question may be answered a moment later. */
const isPassing = (error: unknown): boolean => error instanceof BraidError && error.retryable;
