/** `braid ctl maintenance …`: what people did to the cluster, kept over restarts and changes of the placement lead. */
import type { Command } from 'commander';
import type { AdminClient } from '../../client/admin.ts';
import type { AuditEntry, AuditPage } from '../../client/admin-wire.ts';
import { type App, addCommand } from '../command.ts';
import { flag, positive } from '../common-options.ts';
import { EXIT_DONE } from '../exit-code.ts';
import { LIST_MODES } from '../output/mode.ts';
import type { Session } from '../session.ts';
import { moment } from './moment.ts';
import { AUDIT_SHAPE } from './shapes.ts';

const LIMIT_DEFAULT = 50;
/** Answers read for one list; more than the service keeps. */
const PAGES_MAX = 64;

interface LogFlags {
  readonly since?: number;
  readonly after?: number;
  readonly limit: number;
}

export function maintenanceCommands(ctl: Command, app: App): void {
  const maintenance = ctl
    .command('maintenance')
    .summary('the audit log')
    .description('What people did to the cluster: who, when, what and why.');
  addCommand<LogFlags>(maintenance, app, {
    usage: 'log',
    summary: 'List what people changed, and what was removed: who, when, what and why',
    details:
      'Kept with the state of the placement service, each entry together with its change: it outlives restarts and changes of the lead. The latest 10000 entries, at most 2 MiB, are kept.',
    examples: [
      'braid ctl maintenance log --since 24h',
      'braid ctl maintenance log --where by=ada --where type=store-state -o json',
    ],
    modes: LIST_MODES,
    mode: 'table',
    isList: true,
    options: [
      flag(
        '--since <moment>',
        'only entries of the last duration such as 10m, or from a time in ISO 8601 on',
      ).argParser(moment),
      flag('--after <sequence>', 'only entries with a greater number').argParser(positive),
      flag('--limit <count>', 'only the latest so many').default(LIMIT_DEFAULT).argParser(positive),
    ],
    task: () => 'list the audit log',
    run: async (session, _, options) => {
      const { entries, oldestSequence } = await allAudit(session, await session.admin(), options.after ?? 0);
      const since = options.since ?? 0;
      const found = session.printer
        .chosen(
          AUDIT_SHAPE,
          entries.filter((entry) => entry.unixMs >= since),
          false,
        )
        .slice(-options.limit);
      await session.printer.list(AUDIT_SHAPE, found, { oldestSequence });
      return EXIT_DONE;
    },
  });
}

/** All entries behind a number; one answer holds only so many. */
export async function allAudit(session: Session, admin: AdminClient, after: number): Promise<AuditPage> {
  let all = await admin.audit({ ...session.limits(), afterSequence: after });
  const entries: AuditEntry[] = [...all.entries];
  for (let pages = 1; pages < PAGES_MAX; pages++) {
    const last = entries.at(-1)?.sequence ?? all.lastSequence;
    if (last >= all.lastSequence) {
      break;
    }
    all = await admin.audit({ ...session.limits(), afterSequence: last });
    entries.push(...all.entries);
  }
  return { ...all, entries };
}
