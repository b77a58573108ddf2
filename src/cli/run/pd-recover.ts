/** `braid pd recover`: what is left of a placement service that lost its majority for good goes on alone. */
import type { Command } from 'commander';
import { InvalidArgumentError } from 'commander';
import { loadPdConfig } from '../../server/config.ts';
import {
  RECOVERY_IDS_AHEAD_DEFAULT,
  RECOVERY_IDS_AHEAD_MAX,
  RECOVERY_IDS_AHEAD_MIN,
  RECOVERY_TIME_AHEAD_MS_DEFAULT,
  RECOVERY_TIME_AHEAD_MS_MAX,
  RECOVERY_TIME_AHEAD_MS_MIN,
  type Recovery,
  recoverPd,
} from '../../server/pd/recover.ts';
import { type App, addCommand } from '../command.ts';
import { count, duration, flag } from '../common-options.ts';
import { confirmByName } from '../confirm.ts';
import { EXIT_DONE } from '../exit-code.ts';
import { LIST_MODES } from '../output/mode.ts';
import type { Single } from '../output/printer.ts';
import { formatAge, formatCount } from '../text-form.ts';
import { createRealProcess } from './real-process.ts';

interface RecoverFlags {
  readonly config?: string;
  readonly dataDir?: string;
  readonly idsAhead: number;
  readonly timeAhead: number;
  readonly dryRun?: true;
  readonly yes?: true;
}

function timeAhead(text: string): number {
  const ms = duration(text);
  if (ms < RECOVERY_TIME_AHEAD_MS_MIN || ms > RECOVERY_TIME_AHEAD_MS_MAX) {
    throw new InvalidArgumentError(
      `Write a duration from ${formatAge(RECOVERY_TIME_AHEAD_MS_MIN)} to ${formatAge(RECOVERY_TIME_AHEAD_MS_MAX)}.`,
    );
  }
  return ms;
}

export function registerPdRecover(pd: Command, app: App): void {
  addCommand<RecoverFlags>(pd, app, {
    usage: 'recover',
    summary: 'Let a surviving member go on alone when the majority is lost for good',
    details:
      'Works on the directory of a member that does not run. All other members are forgotten: make sure that they are stopped and can never start again. What they decided without this member is lost; ids, timestamps and versions of documents jump ahead, so that none is given out twice.',
    examples: ['braid pd recover --data-dir pd2 --dry-run', 'braid pd recover --data-dir pd2 --yes -o json'],
    modes: LIST_MODES,
    mode: 'table',
    options: [
      flag('--config <file>', 'configuration file (TOML) of the member, for its data directory'),
      flag('--data-dir <directory>', 'directory of the member that is left'),
      flag('--ids-ahead <count>', 'how far ids jump')
        .default(RECOVERY_IDS_AHEAD_DEFAULT)
        .argParser(count(RECOVERY_IDS_AHEAD_MIN, RECOVERY_IDS_AHEAD_MAX)),
      flag('--time-ahead <duration>', 'how far timestamps jump')
        .default(RECOVERY_TIME_AHEAD_MS_DEFAULT, formatAge(RECOVERY_TIME_AHEAD_MS_DEFAULT))
        .argParser(timeAhead),
      flag('--dry-run', 'only show what would change'),
      flag('--yes', 'do not ask'),
    ],
    task: () => 'recover the placement service',
    run: async (session, _, options) => {
      const { config } = loadPdConfig({
        file: options.config,
        env: session.io.env,
        flags: { 'pd.data-dir': options.dataDir },
      });
      const { dataDir } = config.pd;
      const real = createRealProcess({ log: { ...config.log, level: 'error' }, fields: { role: 'pd-recover' } });
      try {
        const { idsAhead, timeAhead: timeAheadMs } = options;
        const recover = (isDryRun: boolean): Promise<Recovery> =>
          recoverPd(real.env, dataDir, { idsAhead, timeAheadMs, isDryRun });
        const planned = await recover(true);
        if (options.dryRun === true) {
          await session.printer.note('dry run: nothing was changed');
          await session.printer.single(recoverySingle(planned, dataDir));
          return EXIT_DONE;
        }
        await confirmByName(session, planText(planned), planned.survivor.name, options.yes);
        const done = await recover(false);
        await session.printer.single(recoverySingle(done, dataDir));
        await session.printer.note(
          `${done.survivor.name} is the only member now: start it with "braid pd --name ${done.survivor.name} --data-dir ${dataDir}", then add members with --join and empty directories`,
        );
        return EXIT_DONE;
      } finally {
        await real.close();
      }
    },
  });
}

const names = (members: Recovery['lost']): string => members.map(({ name }) => name).join(', ');

const planText = ({ survivor, lost }: Recovery): string =>
  `${survivor.name} becomes the only placement member; ${names(lost)} can never come back, and what they decided without ${survivor.name} is lost.`;

const timeText = (unixMs: number): string => (unixMs === 0 ? 'none' : new Date(unixMs).toISOString());

function recoverySingle(recovery: Recovery, dataDir: string): Single {
  const { survivor, lost, ids, timeMs, documentVersion, unconfirmedEntries, clusterId } = recovery;
  return {
    document: {
      kind: 'PlacementRecovery',
      clusterId,
      dataDir,
      survivor,
      lost,
      unconfirmedEntries,
      ids,
      timestampsFrom: { before: timeText(timeMs.before), after: timeText(timeMs.after) },
      documentVersion,
    },
    name: survivor.name,
    fields: [
      { name: 'cluster', value: String(clusterId) },
      { name: 'goes on', value: `${survivor.name} at ${survivor.address}` },
      { name: 'forgotten', value: names(lost) },
      { name: 'ids above', value: `${formatCount(ids.after)}, before ${formatCount(ids.before)}` },
      { name: 'timestamps from', value: `${timeText(timeMs.after)}, before ${timeText(timeMs.before)}` },
      {
        name: 'document versions above',
        value: `${formatCount(documentVersion.after)}, before ${formatCount(documentVersion.before)}`,
      },
      { name: 'unconfirmed log entries', value: unconfirmedEntries },
    ],
  };
}
