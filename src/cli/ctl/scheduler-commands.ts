/** `braid ctl scheduler …` and `braid ctl checker …`: what the placement service does by itself, and with which numbers. */
import type { Command, Option } from 'commander';
import type { AdminClient } from '../../client/admin.ts';
import { closestName } from '../../client/options.ts';
import type { SchedulerChanged, SchedulerInfo, SchedulerParameter } from '../../client/schedulers.ts';
import { type App, addCommand } from '../command.ts';
import {
  count,
  duration,
  type ExpectVersionFlag,
  expectedVersion,
  expectVersionFlag,
  flag,
  reasonFlag,
} from '../common-options.ts';
import { EXIT_DONE, type ExitCode } from '../exit-code.ts';
import { UsageError } from '../failure.ts';
import { LIST_MODES } from '../output/mode.ts';
import type { ListShape } from '../output/printer.ts';
import type { Session } from '../session.ts';
import { parseId } from '../text-form.ts';
import { parameterText, parseParameter, rangeText } from './parameter-text.ts';
import { SWITCH_SHAPE, timeText } from './shapes.ts';

type Noun = 'scheduler' | 'checker';

interface ChangeFlags {
  readonly dryRun?: true;
  readonly expectVersion?: number;
}

const SCHEDULER_SHAPE: ListShape<SchedulerInfo> = {
  kind: 'SchedulerList',
  columns: [
    { head: 'name', cell: (one) => one.name },
    { head: 'kind', cell: (one) => one.kind },
    { head: 'state', cell: stateText },
    { head: 'stores', cell: (one) => one.storeIds.join(',') },
    { head: 'changed', cell: changedText },
    { head: 'version', cell: (one) => one.version, align: 'right', isWide: true },
    { head: 'idle because', cell: (one) => one.idleReason },
    { head: 'what', cell: (one) => one.description },
  ],
  toObject: ({ offUntilUnixMs, state, parameters, ...rest }) => ({
    ...rest,
    state,
    enabled: state === 'on',
    offUntil: timeText(offUntilUnixMs),
    parameters: parameters.map(parameterObject),
  }),
  name: (one) => one.name,
};

const PARAMETER_SHAPE: ListShape<SchedulerParameter> = {
  kind: 'SchedulerConfig',
  columns: [
    { head: 'parameter', cell: (one) => one.name },
    { head: 'value', cell: (one) => parameterText(one.value, one.unit), align: 'right' },
    { head: 'default', cell: (one) => parameterText(one.default, one.unit), align: 'right' },
    { head: 'range', cell: rangeText },
    { head: 'unit', cell: (one) => one.unit },
    { head: 'what', cell: (one) => one.description },
  ],
  toObject: parameterObject,
  name: (one) => one.name,
};

function parameterObject(one: SchedulerParameter): Record<string, unknown> {
  return { ...one, isDefault: one.value === one.default };
}

function stateText({ state, offUntilUnixMs }: SchedulerInfo): string {
  const until = state === 'off' && offUntilUnixMs !== undefined ? ` until ${timeText(offUntilUnixMs) ?? ''}` : '';
  return `${state === 'not-added' ? 'not added' : state}${until}`;
}

/** Parameters that are not as by default. */
function changedText({ parameters }: SchedulerInfo): string {
  return parameters
    .filter((one) => one.value !== one.default)
    .map((one) => `${one.name}=${parameterText(one.value, one.unit)}`)
    .join(' ');
}

/** The one with this name. @throws UsageError with the nearest name, or with the noun to use */
async function findScheduler(admin: AdminClient, session: Session, noun: Noun, name: string): Promise<SchedulerInfo> {
  const all = await admin.schedulers.list(session.limits());
  const found = all.find((one) => one.name === name);
  if (found === undefined) {
    const closest = closestName(
      name,
      all.filter(({ kind }) => noun === 'scheduler' || kind === 'checker').map((one) => one.name),
    );
    throw new UsageError(
      `there is no ${noun} ${JSON.stringify(name)}`,
      closest === undefined ? `list them: braid ctl ${noun} list` : `did you mean ${closest}?`,
    );
  }
  if (noun === 'checker' && found.kind !== 'checker') {
    throw new UsageError(`${name} is no checker`, `say scheduler: braid ctl scheduler … ${name}`);
  }
  return found;
}

const dryRunFlag = (): Option => flag('--dry-run', 'say what would change, change nothing');
const versionFlag = (): Option =>
  flag(
    '--expect-version <version>',
    'refuse unless it has this version, see "list -o wide"; of evict-leader with a store, the settings of the store',
  ).argParser(count(0, Number.MAX_SAFE_INTEGER));

/** Switching on and off has a count of its own, apart from the version of the parameters. */
const switchVersionFlag = (): Option => expectVersionFlag('its switch (column VERSION of "switch list -o wide")');

const changeOptions = (session: Session, { dryRun, expectVersion }: ChangeFlags) => ({
  ...session.limits(),
  dryRun: dryRun ?? false,
  ...(expectVersion === undefined ? {} : { expectVersion }),
});

async function noteOutcome(
  session: Session,
  { changed, scheduler }: SchedulerChanged,
  isDryRun: boolean,
): Promise<void> {
  const notes = [
    ...(changed ? [] : ['nothing to do: everything is like that already']),
    isDryRun ? 'dry run: nothing was changed' : `${scheduler.name} has version ${scheduler.version}`,
  ];
  for (const note of notes) {
    await session.printer.note(note);
  }
}

export function schedulerCommands(ctl: Command, app: App): void {
  const scheduler = ctl
    .command('scheduler')
    .summary('checkers and schedulers: paused, added, removed, configured')
    .description('What the placement service does by itself, each part of which can be paused and configured.');
  switchedCommands(scheduler, app, 'scheduler');
  presenceCommands(scheduler, app);
  configCommand(scheduler, app, 'scheduler');
  const checker = ctl
    .command('checker')
    .summary('checkers: paused and configured')
    .description('The parts of the placement service that look at one region after the other and repair it.');
  switchedCommands(checker, app, 'checker');
  configCommand(checker, app, 'checker');
}

/** Lists, pauses and resumes. The noun scheduler stands for checkers, too. */
function switchedCommands(group: Command, app: App, noun: Noun): void {
  const [all, one, other] =
    noun === 'checker'
      ? ['checkers', 'merge-checker', 'replica-checker']
      : ['checkers and schedulers', 'balance-region', 'merge-checker'];
  const what = noun === 'checker' ? 'checker' : 'checker or scheduler';
  addCommand<object>(group, app, {
    usage: 'list',
    isList: true,
    summary: `List ${all} with their state`,
    examples: [`braid ctl ${noun} list`, `braid ctl ${noun} list -o json`],
    modes: LIST_MODES,
    mode: 'table',
    isWatchable: true,
    task: () => `list ${noun}s`,
    run: async (session) => {
      const admin = await session.admin();
      const found = await admin.schedulers.list(session.limits());
      await session.printer.list(
        SCHEDULER_SHAPE,
        found.filter(({ kind }) => noun === 'scheduler' || kind === 'checker'),
      );
      return EXIT_DONE;
    },
  });
  const setSwitch = async (
    session: Session,
    name: string,
    enabled: boolean,
    how: ExpectVersionFlag & { readonly for?: number },
  ): Promise<ExitCode> => {
    const admin = await session.admin();
    if (noun === 'checker') {
      await findScheduler(admin, session, noun, name);
    }
    const options = {
      ...session.limits(),
      ...expectedVersion(how),
      ...(how.for === undefined ? {} : { offMs: how.for }),
    };
    await session.printer.list(SWITCH_SHAPE, [await admin.setSwitch(name, enabled, options)]);
    return EXIT_DONE;
  };
  addCommand<ExpectVersionFlag & { readonly for?: number }>(group, app, {
    usage: 'pause <name>',
    summary: `Switch a ${what} off, for a time if wanted`,
    details: 'It stays so over restarts; operators it has made already go on.',
    arguments: { name: 'its name, see the list' },
    examples: [`braid ctl ${noun} pause ${one} --for 30m`, `braid ctl ${noun} pause ${other}`],
    modes: LIST_MODES,
    mode: 'table',
    options: [
      flag('--for <time>', 'switch it on again after this time').argParser(duration),
      reasonFlag(),
      switchVersionFlag(),
    ],
    task: ([name]) => `pause ${name}`,
    run: (session, [name], options) => setSwitch(session, name as string, false, options),
  });
  addCommand<ExpectVersionFlag>(group, app, {
    usage: 'resume <name>',
    summary: `Switch a ${what} on again`,
    arguments: { name: 'its name, see the list' },
    examples: [`braid ctl ${noun} resume ${one}`, `braid ctl ${noun} resume ${one} -o json`],
    modes: LIST_MODES,
    mode: 'table',
    options: [reasonFlag(), switchVersionFlag()],
    task: ([name]) => `resume ${name}`,
    run: (session, [name], options) => setSwitch(session, name as string, true, options),
  });
}

/** Adds and removes. */
function presenceCommands(group: Command, app: App): void {
  for (const verb of ['add', 'remove'] as const) {
    addCommand<ChangeFlags & { readonly store?: string }>(group, app, {
      usage: `${verb} <name>`,
      summary: verb === 'add' ? 'Let a scheduler take part' : 'Take a scheduler out for good',
      details:
        verb === 'add'
          ? 'grant-leader, shuffle-leader, shuffle-region and random-merge take part only after that; of the others it brings back what was removed. grant-leader and evict-leader take a store. It survives restarts.'
          : 'It makes no more operators until it is added again; those it has made already go on. With a store, grant-leader or evict-leader leaves that one alone. To stop one for a time, pause it.',
      arguments: { name: 'its name, see "braid ctl scheduler list"' },
      examples: [`braid ctl scheduler ${verb} grant-leader --store 2`, `braid ctl scheduler ${verb} shuffle-leader`],
      modes: LIST_MODES,
      mode: 'table',
      options: [flag('--store <id>', 'the store it is about'), dryRunFlag(), versionFlag(), reasonFlag()],
      task: ([name]) => `${verb} the scheduler ${name}`,
      run: async (session, [name], flags) => {
        const admin = await session.admin();
        const options = {
          ...changeOptions(session, flags),
          ...(flags.store === undefined ? {} : { storeId: parseId(flags.store, 'store') }),
        };
        const found = await findScheduler(admin, session, 'scheduler', name as string);
        const changed = await admin.schedulers[verb](found.name, options);
        await session.printer.list(SCHEDULER_SHAPE, [changed.scheduler]);
        await noteOutcome(session, changed, options.dryRun);
        return EXIT_DONE;
      },
    });
  }
}

interface ConfigFlags extends ChangeFlags {
  /** True without a name: all of them. */
  readonly reset?: string | true;
}

/** Shows parameters, or sets some: all that are given, or none. */
function configCommand(group: Command, app: App, noun: Noun): void {
  const [one, setting] =
    noun === 'checker' ? ['merge-checker', 'max-merge-region-size=8MiB'] : ['balance-leader', 'tolerance=3'];
  addCommand<ConfigFlags>(group, app, {
    usage: 'config <name> [settings...]',
    isList: true,
    summary: `Show or set the parameters of a ${noun}`,
    details:
      'Without settings it shows them all. Settings take effect at once, all or none, under every leader and over restarts.',
    arguments: {
      name: `its name, see "braid ctl ${noun} list"`,
      settings: 'parameter=value, with a unit where it has one: limit=4, interval=2s, min-rate=4MiB',
    },
    examples: [
      `braid ctl ${noun} config ${one}`,
      `braid ctl ${noun} config ${one} ${setting} limit=2 --reason "night load"`,
      `braid ctl ${noun} config ${one} --reset limit`,
    ],
    modes: LIST_MODES,
    mode: 'table',
    options: [
      flag('--reset [parameter]', 'back to the default; without a name, all of them'),
      dryRunFlag(),
      versionFlag(),
      reasonFlag(),
    ],
    task: ([name, ...settings]) => `${settings.length === 0 ? 'show or reset the parameters of' : 'configure'} ${name}`,
    run: async (session, [name, ...settings], flags) => {
      const admin = await session.admin();
      const found = await findScheduler(admin, session, noun, name as string);
      const { reset } = flags;
      if (settings.length === 0 && reset === undefined) {
        refuseIdleFlags(flags);
        await showConfig(session, found);
        return EXIT_DONE;
      }
      const values = parseSettings(found, settings);
      const options = {
        ...changeOptions(session, flags),
        ...(reset === undefined ? {} : { reset: reset === true ? ('all' as const) : [parameterOf(found, reset).name] }),
      };
      const changed = await admin.schedulers.configure(found.name, values, options);
      await showConfig(session, changed.scheduler);
      await noteOutcome(session, changed, options.dryRun);
      return EXIT_DONE;
    },
  });
}

/** A flag for a change that is not asked for is a slip of whoever typed it. */
function refuseIdleFlags({ dryRun, expectVersion }: ConfigFlags): void {
  if (dryRun === true || expectVersion !== undefined) {
    throw new UsageError('there is nothing to change', 'give parameter=value, or --reset');
  }
}

async function showConfig(session: Session, { name, version, parameters }: SchedulerInfo): Promise<void> {
  await session.printer.list(PARAMETER_SHAPE, parameters, { name, version });
  if (parameters.length === 0) {
    await session.printer.note(`${name} has no parameters`);
  }
}

function parseSettings(scheduler: SchedulerInfo, settings: readonly string[]): Readonly<Record<string, number>> {
  const values: Record<string, number> = {};
  for (const setting of settings) {
    const at = setting.indexOf('=');
    if (at < 1) {
      throw new UsageError(`${JSON.stringify(setting)} is not a setting`, 'write parameter=value, for example limit=4');
    }
    const parameter = parameterOf(scheduler, setting.slice(0, at));
    if (Object.hasOwn(values, parameter.name)) {
      throw new UsageError(`${parameter.name} is given twice`, 'give it once');
    }
    values[parameter.name] = parseParameter(parameter, setting.slice(at + 1));
  }
  return values;
}

function parameterOf({ name, parameters }: SchedulerInfo, word: string): SchedulerParameter {
  const found = parameters.find((one) => one.name === word);
  if (found === undefined) {
    const known = parameters.map((one) => one.name);
    const closest = closestName(word, known);
    const list = known.length === 0 ? 'it has none' : `it has ${known.join(', ')}`;
    throw new UsageError(
      `${name} has no parameter ${JSON.stringify(word)}`,
      closest === undefined ? list : `did you mean ${closest}?`,
    );
  }
  return found;
}
