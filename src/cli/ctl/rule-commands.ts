/** `braid ctl rule …`: placement rules, which say how many replicas a key range has and on which stores. */
import type { Command, Option } from 'commander';
import type { RuleChange, RuleChangeOptions, RuleConstraint, RuleInfo, RuleSettings } from '../../client/rules.ts';
import { type App, addCommand } from '../command.ts';
import { choice, count, flag, words } from '../common-options.ts';
import { confirmByName } from '../confirm.ts';
import { EXIT_DONE, type ExitCode } from '../exit-code.ts';
import { UsageError } from '../failure.ts';
import { LIST_MODES } from '../output/mode.ts';
import type { ListShape } from '../output/printer.ts';
import type { Session } from '../session.ts';
import { type KeyFormat, END_OF_KEYS, START_OF_KEYS, formatEnd, formatStart, parseKey } from '../text-form.ts';

const ROLES = ['leader', 'voter', 'follower', 'learner'] as const;
const COUNT_MAX = 15;
const INDEX_MAX = 1_000_000;

interface ChangeFlags {
  readonly dryRun?: true;
  readonly yes?: true;
  readonly reason?: string;
  readonly expectVersion?: number;
}

interface SetFlags extends ChangeFlags {
  readonly start?: string;
  readonly end?: string;
  readonly role?: (typeof ROLES)[number];
  readonly count?: number;
  readonly where?: readonly string[];
  readonly locationLabels?: readonly string[];
  readonly isolation?: string;
  readonly index?: number;
  readonly override?: true;
}

const nameOf = ({ group, id }: { readonly group: string; readonly id: string }): string => `${group}/${id}`;

const constraintText = ({ key, op, values }: RuleConstraint): string =>
  values === undefined || values.length === 0 ? `${key} ${op}` : `${key} ${op} ${values.join(',')}`;

const constraintsText = ({ constraints }: RuleInfo): string => constraints.map(constraintText).join(' and ');

const ruleObject = (rule: RuleInfo, format: KeyFormat): Record<string, unknown> => ({
  ...rule,
  name: nameOf(rule),
  start: formatStart(rule.start, format),
  end: formatEnd(rule.end, format),
});

const ruleShape = (format: KeyFormat): ListShape<RuleInfo> => ({
  kind: 'PlacementRuleList',
  columns: [
    { head: 'name', cell: nameOf },
    { head: 'start', cell: (rule) => formatStart(rule.start, format) },
    { head: 'end', cell: (rule) => formatEnd(rule.end, format) },
    { head: 'role', cell: (rule) => rule.role },
    { head: 'count', cell: (rule) => rule.count, align: 'right' },
    { head: 'stores', cell: (rule) => constraintsText(rule) || 'any' },
    { head: 'override', cell: (rule) => (rule.override ? 'yes' : 'no') },
    { head: 'index', cell: (rule) => rule.index, align: 'right', isWide: true },
    { head: 'location-labels', cell: (rule) => rule.locationLabels.join(','), isWide: true },
    { head: 'isolation', cell: (rule) => rule.isolationLevel, isWide: true },
    { head: 'version', cell: (rule) => rule.version, align: 'right', isWide: true },
  ],
  toObject: (rule) => ruleObject(rule, format),
  name: nameOf,
});

/** `group/id`; a word alone is a rule of the group `default`. */
function parseRuleName(text: string): { readonly group: string; readonly id: string } {
  const parts = text.split('/');
  if (parts.length > 2 || parts.some((part) => part === '')) {
    throw new UsageError(
      `${JSON.stringify(text)} is not the name of a rule`,
      'write GROUP/ID, for example default/ssd',
    );
  }
  const [first, second] = parts as [string, string | undefined];
  return second === undefined ? { group: 'default', id: first } : { group: first, id: second };
}

/** `zone in a,b`, `disk = ssd`, `zone not-in c`, `ssd exists`, `ssd not-exists`. */
export function parseConstraint(text: string): RuleConstraint {
  const equals = /^([^\s=!]+)\s*(=|!=)\s*(\S+)$/.exec(text);
  if (equals !== null) {
    const [, key, op, value] = equals as unknown as [string, string, string, string];
    return { key, op: op === '=' ? 'in' : 'not-in', values: [value] };
  }
  const [key, op, ...rest] = text.trim().split(/\s+/);
  const values = rest
    .join(',')
    .split(',')
    .filter((value) => value !== '');
  if (key !== undefined && (op === 'in' || op === 'not-in') && values.length > 0) {
    return { key, op, values };
  }
  if (key !== undefined && (op === 'exists' || op === 'not-exists') && values.length === 0) {
    return { key, op };
  }
  throw new UsageError(
    `${JSON.stringify(text)} is not a condition on labels`,
    "write 'zone in a,b', 'zone not-in c', 'disk = ssd', 'disk exists' or 'disk not-exists'",
  );
}

const changeFlags = (): Option[] => [
  flag('--dry-run', 'only show what would change'),
  flag('--expect-version <n>', 'refuse unless the rule has this version; 0 = it must not exist').argParser(
    count(0, Number.MAX_SAFE_INTEGER),
  ),
  flag('--reason <text>', 'why, kept with the event'),
];

const collect = (text: string, before: readonly string[] | undefined): readonly string[] => [...(before ?? []), text];

export function ruleCommands(rule: Command, app: App): void {
  addCommand<{ readonly at?: string; readonly group?: string }>(rule, app, {
    usage: 'list',
    isList: true,
    summary: 'List placement rules in the order they apply',
    examples: ['braid ctl rule list', 'braid ctl rule list --at user/1 -o wide'],
    modes: LIST_MODES,
    mode: 'table',
    options: [
      flag('--at <key>', 'only rules that hold at this key'),
      flag('--group <name>', 'only rules of this group'),
    ],
    task: () => 'list placement rules',
    isWatchable: true,
    run: async (session, _, { at, group }) => {
      const { keyFormat } = session.options;
      const admin = await session.admin();
      const rules = await admin.rules.list({
        ...session.limits(),
        ...(at === undefined ? {} : { key: parseKey(at, keyFormat) }),
        ...(group === undefined ? {} : { group }),
      });
      await session.printer.list(ruleShape(keyFormat), rules);
      return EXIT_DONE;
    },
  });
  addCommand<object>(rule, app, {
    usage: 'get <rule>',
    summary: 'Show one placement rule',
    arguments: { rule: 'name as GROUP/ID' },
    examples: ['braid ctl rule get default/default', 'braid ctl rule get tenants/a -o yaml'],
    modes: LIST_MODES,
    mode: 'table',
    isQuestion: true,
    task: ([name]) => `show placement rule ${name}`,
    run: async (session, [text]) => {
      const name = parseRuleName(text as string);
      const admin = await session.admin();
      const [found] = await admin.rules.list({ ...session.limits(), ...name });
      return show(session, found as RuleInfo);
    },
  });
  addCommand<SetFlags>(rule, app, {
    usage: 'set <rule>',
    summary: 'Create a placement rule, or replace it',
    details:
      'All fields are set: what is not given has its default. Regions are split at the borders of the range, and replicas move until the rules are met. Without --override the rule adds to those before it.',
    arguments: { rule: 'name as GROUP/ID; a word alone is a rule of the group default' },
    examples: [
      "braid ctl rule set default/ssd --start hot/ --end hot0 --role voter --count 3 --where 'disk = ssd' --override --index 1",
      "braid ctl rule set analytics/copy --role learner --count 1 --where 'zone in z9' --dry-run",
    ],
    modes: LIST_MODES,
    mode: 'table',
    options: [
      flag('--start <key>', 'first key of the range; the first of all unless given'),
      flag('--end <key>', 'end of the range, exclusive; no end unless given'),
      flag('--role <role>', `role of the replicas: ${ROLES.join(', ')}`).argParser(choice(ROLES)),
      flag('--count <n>', 'number of replicas').argParser(count(1, COUNT_MAX)),
      flag(
        '--where <condition>',
        "condition on the labels of stores, such as 'zone in a,b'; may be repeated",
      ).argParser(collect),
      flag('--location-labels <labels>', 'labels from the widest to the narrowest place').argParser(words),
      flag('--isolation <label>', 'a location label that two replicas of this rule never share'),
      flag('--index <n>', 'rules apply in the order of their index').argParser(count(0, INDEX_MAX)),
      flag('--override', 'rules before this one do not hold where it does'),
      ...changeFlags(),
    ],
    task: ([name]) => `set placement rule ${name}`,
    run: async (session, [text], flags) => {
      const settings = settingsOf(text as string, flags, session.options.keyFormat);
      const admin = await session.admin();
      return report(session, await admin.rules.set(settings, changeOptions(session, flags)), flags.dryRun);
    },
  });
  addCommand<ChangeFlags>(rule, app, {
    usage: 'delete <rule>',
    summary: 'Delete a placement rule',
    details:
      'Replicas that only this rule asked for go away. Deleting default/default returns to what it was at first.',
    arguments: { rule: 'name as GROUP/ID' },
    examples: ['braid ctl rule delete default/ssd', 'braid ctl rule delete default/ssd --yes'],
    modes: LIST_MODES,
    mode: 'table',
    options: [...changeFlags(), flag('--yes', 'do not ask')],
    task: ([name]) => `delete placement rule ${name}`,
    run: async (session, [text], flags) => {
      const name = parseRuleName(text as string);
      const admin = await session.admin();
      const options = changeOptions(session, flags);
      const planned = await admin.rules.delete(name.group, name.id, { ...options, dryRun: true });
      if (flags.dryRun === true) {
        return report(session, planned, true);
      }
      const { regionsToChange } = planned;
      await confirmByName(
        session,
        `Placement rule ${nameOf(name)} will be deleted; replicas of ${regionsToChange} regions will change.`,
        nameOf(name),
        flags.yes,
      );
      return report(session, await admin.rules.delete(name.group, name.id, options), undefined);
    },
  });
}

function changeOptions(session: Session, { dryRun, expectVersion, reason }: ChangeFlags): RuleChangeOptions {
  return {
    ...session.limits(),
    dryRun: dryRun ?? false,
    ...(expectVersion === undefined ? {} : { expectVersion }),
    ...(reason === undefined ? {} : { reason }),
  };
}

function settingsOf(text: string, flags: SetFlags, format: KeyFormat): RuleSettings {
  const { role, count: replicas } = flags;
  if (role === undefined || replicas === undefined) {
    throw new UsageError(
      `the ${role === undefined ? 'role' : 'count'} of the rule is missing`,
      'give --role and --count',
    );
  }
  const key = (given: string | undefined, open: string): Uint8Array =>
    given === undefined || given === open ? new Uint8Array(0) : parseKey(given, format);
  return {
    ...parseRuleName(text),
    role,
    count: replicas,
    start: key(flags.start, START_OF_KEYS),
    end: key(flags.end, END_OF_KEYS),
    constraints: (flags.where ?? []).map(parseConstraint),
    locationLabels: flags.locationLabels ?? [],
    isolationLevel: flags.isolation ?? '',
    index: flags.index ?? 0,
    override: flags.override ?? false,
  };
}

async function report(session: Session, change: RuleChange, isDryRun: true | undefined): Promise<ExitCode> {
  const { outcome, regionsToChange, regionsToSplit, rule } = change;
  const effect =
    outcome === 'unchanged'
      ? 'is so already'
      : `${isDryRun === true ? 'would be' : 'was'} ${outcome}: ${regionsToSplit} regions are split, replicas of ${regionsToChange} regions change`;
  await session.printer.note(`${isDryRun === true ? 'dry run: ' : ''}placement rule ${nameOf(rule)} ${effect}`);
  return show(session, rule, { outcome, regionsToSplit, regionsToChange });
}

async function show(session: Session, rule: RuleInfo, more: Record<string, unknown> = {}): Promise<ExitCode> {
  const format = session.options.keyFormat;
  await session.printer.single({
    document: { kind: 'PlacementRule', ...ruleObject(rule, format), ...more },
    name: nameOf(rule),
    fields: [
      { name: 'name', value: nameOf(rule) },
      { name: 'range', value: `${formatStart(rule.start, format)} .. ${formatEnd(rule.end, format)}` },
      { name: 'replicas', value: `${rule.count} ${rule.role}${rule.count === 1 ? '' : 's'}` },
      { name: 'stores', value: constraintsText(rule) || 'any' },
      { name: 'location labels', value: rule.locationLabels.join(', ') || 'those of the cluster' },
      { name: 'isolation', value: rule.isolationLevel || 'as well as stores allow' },
      { name: 'order', value: `index ${rule.index}${rule.override ? ', replaces the rules before it' : ''}` },
      { name: 'version', value: rule.version },
    ],
  });
  return EXIT_DONE;
}
