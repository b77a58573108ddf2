/** `braid offline unsafe-recover`: regions whose majority is lost for good go on with what one surviving replica has. */
import { type Command, InvalidArgumentError } from 'commander';
import { AppError } from '../../base/app-error.ts';
import { logIndex } from '../../base/ids.ts';
import type { AdminType } from '../../codec/command.ts';
import { createLevelEngineFactory } from '../../engine/index.ts';
import { nativeErrorCode } from '../../engine/level/native.ts';
import type { Engine } from '../../env/engine.ts';
import { formatEpoch } from '../../meta/region.ts';
import { type App, addCommand } from '../command.ts';
import { count, flag } from '../common-options.ts';
import { confirmByName } from '../confirm.ts';
import { EXIT_DONE, EXIT_PARTLY, EXIT_REFUSED, type ExitCode } from '../exit-code.ts';
import { UsageError } from '../failure.ts';
import { LIST_MODES } from '../output/mode.ts';
import { section, type Single } from '../output/printer.ts';
import { type Column, formatTable } from '../output/table.ts';
import type { Session } from '../session.ts';
import { formatCount, formatEnd, formatStart, type KeyFormat } from '../text-form.ts';
import {
  directoryKind,
  notOfAStore,
  OfflineDirectoryError,
  openStoreDirectory,
  requireIdent,
} from './data-directory.ts';
import { commandOf } from './entry-text.ts';
import { DirectoryInUseError } from './frozen-copy.ts';
import { lostVoters, planRecovery, type RecoverPlan, type RegionPlan, type Survivor } from './recover-plan.ts';
import { BACKUP_FILE, carryOut, recoveredBefore } from './recover-write.ts';
import { rangeObject, regionObject } from './region-shapes.ts';
import { INDEX_MAX, isLive, lastPosition, readEntries, readStore } from './store-content.ts';

/** The largest `--epoch-ahead`; far more changes than any survivor can have missed. */
const EPOCH_AHEAD_MAX = 1_000_000;

interface RecoverFlags {
  readonly lostStores: ReadonlySet<number>;
  readonly epochAhead: number;
  readonly iUnderstandDataLoss?: true;
  readonly dryRun?: true;
  readonly yes?: true;
  readonly reason?: string;
}

function storeIds(text: string): ReadonlySet<number> {
  const ids = text.split(',').map((word) => (/^\s*\d{1,15}\s*$/.test(word) ? Number(word) : 0));
  if (ids.some((id) => id < 1)) {
    throw new InvalidArgumentError('Write store ids separated by commas, for example 2,3.');
  }
  return new Set(ids);
}

export function unsafeRecoverCommand(offline: Command, app: App): void {
  addCommand<RecoverFlags>(offline, app, {
    usage: 'unsafe-recover <dir...>',
    summary: 'Let regions go on alone whose majority of replicas is lost for good',
    details:
      'Name the directories of all surviving stores that have replicas of lost regions. Of each such region the replica that knows most becomes the only voter; what only lost stores knew is gone. Make sure that the lost stores can never start again. Then start the stores: the placement service adds replicas.',
    arguments: { dir: 'data directories of stopped stores' },
    examples: [
      'braid offline unsafe-recover braid-data/store-1 --lost-stores 2,3 --dry-run',
      'braid offline unsafe-recover braid-data/store-1 --lost-stores 2,3 --i-understand-data-loss',
      'braid offline unsafe-recover s1 s4 --lost-stores 2,3,5 --i-understand-data-loss --yes -o json',
    ],
    modes: LIST_MODES,
    mode: 'table',
    options: [
      flag('--lost-stores <ids>', 'ids of the stores that are lost for good, separated by commas')
        .argParser(storeIds)
        .makeOptionMandatory(),
      flag(
        '--epoch-ahead <count>',
        'raise epochs by so many more, also of regions recovered before, when the placement service knows later ones',
      )
        .default(0)
        .argParser(count(0, EPOCH_AHEAD_MAX)),
      flag('--i-understand-data-loss', 'what only the lost stores knew is gone'),
      flag('--dry-run', 'only show the plan'),
      flag('--yes', 'do not ask'),
      flag('--reason <text>', `why; kept in ${BACKUP_FILE} in the directory`),
    ],
    task: (dirs) => `recover ${dirs.join(', ')}`,
    run: (session, dirs, flags) => recover(session, dirs, flags),
  });
}

async function recover(session: Session, dirs: readonly string[], flags: RecoverFlags): Promise<ExitCode> {
  const plan = await planFrozen(dirs, flags);
  if (flags.dryRun === true) {
    await session.printer.note('dry run: nothing was changed');
    await session.printer.single(planSingle(session, plan, flags, true));
    return EXIT_DONE;
  }
  if (plan.regions.length === 0) {
    await session.printer.note('no region of these stores has lost its majority: nothing was changed');
    await session.printer.single(planSingle(session, plan, flags, false));
    return EXIT_DONE;
  }
  if (flags.iUnderstandDataLoss !== true) {
    throw new UsageError(
      `${regionsText(plan.regions.length)} would forget what only the lost stores knew`,
      'look at the plan with --dry-run; add --i-understand-data-loss if there is no other way',
    );
  }
  const name = storesOf(plan)
    .map((id) => `store-${id}`)
    .join(',');
  if (flags.yes !== true) {
    await session.printer.note(formatTable(columns(session.options.keyFormat), plan.regions, true).trimEnd());
  }
  await confirmByName(session, lossText(flags), name, flags.yes);
  const done = await recoverOpen(dirs, flags, plan);
  await session.printer.single(planSingle(session, done, flags, false));
  const [recovered, waiting] = [countOf(done, 'recover'), countOf(done, 'start-first')];
  if (recovered > 0) {
    await session.printer.note(
      `${regionsText(recovered)} can go on alone; ${BACKUP_FILE} in the directory has the records as they were. Tell the placement service of each lost store, before you start the others: braid ctl store drain ID --destroyed`,
    );
  }
  if (waiting > 0) {
    await session.printer.note(
      `${regionsText(waiting)} must see a start of the store first: start it, give it some seconds to apply its log, stop it and run this again`,
    );
  }
  if (recovered === done.regions.length) {
    return EXIT_DONE;
  }
  return recovered + waiting === 0 ? EXIT_REFUSED : EXIT_PARTLY;
}

/** Reads what the plan needs from one open store. */
async function readSurvivor(directory: string, ident: Survivor['ident'], engine: Engine): Promise<Survivor> {
  const { regions } = await readStore(engine, () => Promise.resolve());
  const tails = new Map<number, ReadonlySet<AdminType>>();
  for (const facts of regions.filter(isLive)) {
    const applied = facts.apply?.appliedIndex ?? 0;
    // A replica with records that mean nothing is refused anyway.
    if (lastPosition(facts).index > applied && facts.bad.length === 0) {
      const types = new Set<AdminType>();
      for await (const entries of readEntries(engine, facts.id, logIndex(applied + 1), INDEX_MAX)) {
        for (const entry of entries) {
          const command = commandOf(entry);
          if (command?.type === 'admin') {
            types.add(command.command.type);
          }
        }
      }
      tails.set(facts.id, types);
    }
  }
  return { directory, ident, regions, tails, recovered: await recoveredBefore(directory) };
}

function requireTogether(survivors: readonly Survivor[], { lostStores }: RecoverFlags): void {
  const seen = new Map<number, string>();
  for (const { directory, ident } of survivors) {
    const { storeId, clusterId } = ident;
    const [first] = survivors as [Survivor];
    if (clusterId !== first.ident.clusterId) {
      throw new OfflineDirectoryError(
        `${directory} is of cluster ${clusterId}, ${first.directory} of cluster ${first.ident.clusterId}`,
        'recover one cluster at a time',
      );
    }
    if (lostStores.has(storeId)) {
      throw new UsageError(
        `${directory} is the directory of store ${storeId}, which --lost-stores names`,
        'a store whose directory is there is not lost',
      );
    }
    const other = seen.get(storeId);
    if (other !== undefined) {
      throw new UsageError(
        `${other} and ${directory} are both of store ${storeId}`,
        'name the newer one; never start a store from an older copy',
      );
    }
    seen.set(storeId, directory);
  }
}

/** The plan, from copies: nothing is written before somebody agreed. */
async function planFrozen(dirs: readonly string[], flags: RecoverFlags): Promise<RecoverPlan> {
  const survivors: Survivor[] = [];
  for (const directory of dirs) {
    const { ident, copy } = await openStoreDirectory(directory);
    await using held = copy;
    survivors.push(await readSurvivor(directory, ident, held.engine));
  }
  requireTogether(survivors, flags);
  return planRecovery(survivors, flags);
}

/** Opens all stores for writing, plans again, and carries the plan out if it is the one that was shown. */
async function recoverOpen(dirs: readonly string[], flags: RecoverFlags, shown: RecoverPlan): Promise<RecoverPlan> {
  const engines = new Map<string, Engine>();
  try {
    const survivors: Survivor[] = [];
    for (const directory of dirs) {
      const kind = await directoryKind(directory);
      if (kind.type !== 'store') {
        throw notOfAStore(directory);
      }
      const engine = await openForWriting(directory, kind.databasePath);
      engines.set(directory, engine);
      await requireIdent(directory, kind.ident, engine);
      survivors.push(await readSurvivor(directory, kind.ident, engine));
    }
    const plan = planRecovery(survivors, flags);
    if (outline(plan) !== outline(shown)) {
      throw new AppError('Refused', 'the directories have changed since the plan was made', {
        hint: 'make sure that no store runs on them, and run the command again',
      });
    }
    const at = new Date();
    for (const region of plan.regions) {
      await carryOut(engines.get(region.chosen.directory) as Engine, region, { at, reason: flags.reason });
    }
    return plan;
  } finally {
    for (const engine of engines.values()) {
      await engine.close();
    }
  }
}

async function openForWriting(directory: string, path: string): Promise<Engine> {
  try {
    return await createLevelEngineFactory().open({ path, createIfMissing: false });
  } catch (error) {
    throw nativeErrorCode(error) === 'LEVEL_LOCKED' ? new DirectoryInUseError(directory, error) : error;
  }
}

/** Everything a plan decides, as one text. */
const outline = ({ regions }: RecoverPlan): string =>
  JSON.stringify(
    regions.map(({ region, chosen, facts, action }) => [region.id, chosen.directory, lastPosition(facts), action]),
    (_, value: unknown) => (value instanceof Uint8Array ? Buffer.from(value).toString('hex') : value),
  );

const countOf = ({ regions }: RecoverPlan, type: RegionPlan['action']['type']): number =>
  regions.filter(({ action }) => action.type === type).length;

/** Stores whose directories are written. */
const storesOf = ({ regions }: RecoverPlan): readonly number[] =>
  [...new Set(regions.map(({ chosen }) => chosen.ident.storeId))].toSorted((a, b) => a - b);

const whatText = ({ action }: RegionPlan): string => {
  switch (action.type) {
    case 'recover':
      return `goes on alone at epoch ${formatEpoch(action.after.epoch)}`;
    case 'start-first':
      return `start the store once: ${action.reason}`;
    case 'refused':
      return `${action.code}: ${action.reason}; ${action.remedy}`;
  }
};

const columns = (format: KeyFormat): readonly Column<RegionPlan>[] => [
  { head: 'region', cell: ({ region }) => region.id, align: 'right' },
  { head: 'start', cell: ({ region }) => formatStart(region.range.start, format) },
  { head: 'end', cell: ({ region }) => formatEnd(region.range.end, format) },
  { head: 'lost voters', cell: lostVoters },
  { head: 'store', cell: ({ chosen }) => chosen.ident.storeId, align: 'right' },
  { head: 'last term', cell: ({ facts }) => lastPosition(facts).term, align: 'right' },
  { head: 'last', cell: ({ facts }) => lastPosition(facts).index, align: 'right' },
  { head: 'unapplied', cell: ({ unappliedEntries }) => unappliedEntries, align: 'right' },
  {
    head: 'others',
    cell: ({ others }) =>
      others.map(({ storeId, lastTerm, lastIndex }) => `${storeId} at ${lastTerm}:${lastIndex}`).join(', '),
    isWide: true,
  },
  { head: 'what', cell: whatText },
];

const lossText = ({ lostStores }: RecoverFlags): string =>
  `Stores ${[...lostStores].join(', ')} can never come back. What only they knew is lost: writes that were acknowledged may disappear.`;

const regionsText = (n: number): string => `${formatCount(n)} ${n === 1 ? 'region' : 'regions'}`;

function planObject(plan: RegionPlan, format: KeyFormat): Readonly<Record<string, unknown>> {
  const { region, chosen, facts, peer, action, unappliedEntries, lostPeers, others } = plan;
  const last = lastPosition(facts);
  return {
    id: region.id,
    ...rangeObject(region.range, format),
    epoch: region.epoch,
    state: facts.state,
    lostPeers,
    survivor: { storeId: chosen.ident.storeId, peerId: peer?.id ?? null, directory: chosen.directory },
    lastTerm: last.term,
    lastIndex: last.index,
    unappliedEntries,
    others,
    action: action.type,
    ...(action.type === 'recover' ? { after: regionObject(action.after, format) } : {}),
    ...(action.type === 'start-first' ? { reason: action.reason, commitsLog: action.commitsLog } : {}),
    ...(action.type === 'refused' ? { code: action.code, reason: action.reason, remedy: action.remedy } : {}),
  };
}

function planSingle(
  session: Session,
  plan: RecoverPlan,
  { lostStores, epochAhead }: RecoverFlags,
  isDryRun: boolean,
): Single {
  const format = session.options.keyFormat;
  const counts = {
    recovered: countOf(plan, 'recover'),
    startFirst: countOf(plan, 'start-first'),
    refused: countOf(plan, 'refused'),
  };
  return {
    document: {
      kind: 'UnsafeRecovery',
      dryRun: isDryRun,
      lostStores: [...lostStores],
      epochAhead,
      ...counts,
      untouched: plan.healthy,
      regions: plan.regions.map((region) => planObject(region, format)),
    },
    name: plan.regions.map(({ region }) => String(region.id)).join('\n'),
    fields: [
      { name: 'lost stores', value: [...lostStores].join(', ') },
      { name: isDryRun ? 'would go on alone' : 'go on alone', value: counts.recovered },
      { name: 'start first', value: counts.startFirst },
      { name: 'refused', value: counts.refused },
      { name: 'with their majority', value: plan.healthy },
    ],
    sections: plan.regions.length === 0 ? [] : [section('Regions', columns(format), plan.regions)],
  };
}
