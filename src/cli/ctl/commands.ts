/** `braid ctl`: what the placement service knows and does. */
import type { Command } from 'commander';
import { REGION_FILTERS, type RegionFilter } from '../../client/admin-wire.ts';
import { formatBytes } from '../../base/units.ts';
import { type App, addCommand } from '../command.ts';
import {
  choice,
  type ExpectEpochFlag,
  type ExpectVersionFlag,
  expectedEpoch,
  expectedVersion,
  expectEpochFlag,
  expectVersionFlag,
  flag,
  reasonFlag,
} from '../common-options.ts';
import { registerCompletion } from '../completion.ts';
import { EXIT_DONE, EXIT_NO } from '../exit-code.ts';
import { UsageError } from '../failure.ts';
import { rangeArgument } from '../kv/arguments.ts';
import { COMMON_MODES, LIST_MODES } from '../output/mode.ts';
import { section } from '../output/printer.ts';
import { formatAge, formatCount, parseId, parseKey } from '../text-form.ts';
import { checkCommand } from './check-command.ts';
import { contextCommands } from './context-commands.ts';
import { registerDocumentCommands } from './documents.ts';
import { ERROR_CODES } from './error-catalogue.ts';
import { eventsCommand } from './events.ts';
import { maintenanceCommands } from './maintenance-commands.ts';
import { explainObjectCommands } from './explain-commands.ts';
import { heatCommand } from './heat-command.ts';
import { memberCommands } from './member-commands.ts';
import { ruleCommands } from './rule-commands.ts';
import { operatorCommands } from './operator-commands.ts';
import { type OperatorFlags, finishOperator, operatorFlags, requestOptions } from './operator-request.ts';
import { regionPauseCommands } from './pause-commands.ts';
import { schedulerCommands } from './scheduler-commands.ts';
import { regionViewCommands } from './region-views.ts';
import { storeChangeCommands } from './store-commands.ts';
import {
  STORE_SHAPE,
  SWITCH_SHAPE,
  operatorObject,
  operatorShape,
  problemSection,
  rangeText,
  refusalObject,
  refusalText,
  regionShape,
  regionSingle,
  storeObject,
  storeSingle,
} from './shapes.ts';
import { closestName } from '../../client/options.ts';

export function registerCtlCommands(program: Command, app: App): void {
  const ctl = program
    .command('ctl')
    .summary('Look at the cluster and change it: stores, regions, operators')
    .description('Asks the placement service about the cluster and tells it what to do.')
    .helpGroup('Cluster:');
  registerCompletion(program, ctl, app);
  statusCommand(ctl, app);
  checkCommand(ctl, app);
  const store = ctl.command('store').summary('stores').description('Stores, the processes that hold replicas.');
  storeCommands(store, app);
  storeChangeCommands(store, app);
  const region = ctl.command('region').summary('regions').description('Regions, the ranges that data is divided into.');
  regionCommands(region, app);
  regionViewCommands(region, app);
  regionPauseCommands(region, app);
  operatorCommands(
    ctl.command('operator').summary('operators').description('Operators, the changes under way and ended.'),
    app,
  );
  registerDocumentCommands(ctl, app);
  ruleCommands(
    ctl
      .command('rule')
      .summary('placement rules')
      .description('Placement rules: how many replicas a key range has, and on which stores.'),
    app,
  );
  memberCommands(ctl, app);
  contextCommands(ctl, app);
  eventsCommand(ctl, app);
  heatCommand(ctl, app);
  maintenanceCommands(ctl, app);
  switchCommands(
    ctl
      .command('switch')
      .summary('checkers and schedulers')
      .description('Checkers and schedulers, which can be switched off.'),
    app,
  );
  schedulerCommands(ctl, app);
  explainCommands(
    ctl.command('explain').summary('reasons').description('Why something is refused, and what a code means.'),
    app,
  );
}

// ---------------------------------------------------------------------------------------------------------- status

function statusCommand(ctl: Command, app: App): void {
  addCommand<object>(ctl, app, {
    usage: 'status',
    summary: 'Show health, stores, regions, running operators and problems on one screen',
    examples: ['braid ctl status', 'braid ctl status -o json --pd 10.0.0.1:2379,10.0.0.2:2379'],
    modes: COMMON_MODES,
    mode: 'table',
    isWatchable: true,
    task: () => 'show the status',
    run: async (session) => {
      const admin = await session.admin();
      const [status, stores, operators] = await Promise.all([
        admin.status(session.limits()),
        admin.stores(session.limits()),
        admin.operators(session.limits()),
      ]);
      const { regions, warmup } = status;
      const isHealthy = status.bootstrapped && status.problems.length === 0;
      const concerns = [
        [regions.withoutLeader, 'without leader'],
        [regions.withDownPeers, 'with down peers'],
        [regions.withPendingPeers, 'catching up'],
        [regions.underReplicated, 'under-replicated'],
        [regions.overReplicated, 'over-replicated'],
        [regions.inJointState, 'in joint state'],
        [regions.holes, 'holes'],
      ]
        .filter(([n]) => (n as number) > 0)
        .map(([n, text]) => `${n} ${text}`);
      await session.printer.single({
        document: {
          kind: 'ClusterStatus',
          healthy: isHealthy,
          ...status,
          storeList: stores.map(storeObject),
          operators: operators.map(operatorObject),
        },
        fields: [
          { name: 'cluster', value: String(status.clusterId) },
          {
            name: 'health',
            value: isHealthy
              ? 'ok'
              : status.bootstrapped
                ? `${status.problems.length} problems`
                : 'not bootstrapped: no store has joined yet',
          },
          {
            name: 'placement',
            value: status.members.map((m) => `${m.name}${m.isLeader ? '*' : ''} ${m.clientUrls.join(' ')}`).join(', '),
          },
          { name: 'uptime', value: formatAge(status.uptimeMs) },
          {
            name: 'scheduling',
            value: warmup.done
              ? 'on'
              : `warming up: ${warmup.reportedRegions} of ${warmup.knownRegions} regions reported`,
          },
          {
            name: 'regions',
            value: `${formatCount(regions.total)}${concerns.length === 0 ? '' : ` (${concerns.join(', ')})`}, ${formatCount(regions.keys)} keys, ${formatBytes(regions.sizeBytes)}, ${status.maxReplicas} replicas`,
          },
          { name: 'operators', value: `${status.runningOperators} running` },
        ],
        sections: [
          section(
            'Stores',
            STORE_SHAPE.columns.filter((column) => session.printer.mode === 'wide' || column.isWide !== true),
            stores,
          ),
          ...(operators.length === 0
            ? []
            : [
                section(
                  'Operators',
                  operatorShape(Date.now()).columns.filter((column) => column.isWide !== true),
                  operators,
                ),
              ]),
          ...(status.problems.length === 0 ? [] : [problemSection('Problems', status.problems)]),
        ],
      });
      return EXIT_DONE;
    },
  });
}

// ---------------------------------------------------------------------------------------------------------- stores

function storeCommands(store: Command, app: App): void {
  addCommand<{ all?: true }>(store, app, {
    usage: 'list',
    isList: true,
    summary: 'List stores',
    examples: ['braid ctl store list', 'braid ctl store list --sort-by -regions -o wide'],
    modes: LIST_MODES,
    mode: 'table',
    isWatchable: true,
    options: [flag('--all', 'removed stores, too')],
    task: () => 'list stores',
    run: async (session, _, options) => {
      const admin = await session.admin();
      await session.printer.list(
        STORE_SHAPE,
        await admin.stores({ ...session.limits(), includeRemoved: options.all ?? false }),
      );
      return EXIT_DONE;
    },
  });
  addCommand<object>(store, app, {
    usage: 'show <id>',
    summary: 'Show one store',
    arguments: { id: 'store id' },
    examples: ['braid ctl store show 1', 'braid ctl store show 1 -o yaml'],
    modes: LIST_MODES,
    mode: 'table',
    isWatchable: true,
    isQuestion: true,
    task: ([id]) => `show store ${id}`,
    run: async (session, [id]) => {
      const storeId = parseId(id as string, 'store');
      const admin = await session.admin();
      await session.printer.single(storeSingle(await admin.store(storeId, session.limits())));
      return EXIT_DONE;
    },
  });
}

// --------------------------------------------------------------------------------------------------------- regions

interface RegionListFlags {
  readonly store?: string;
  readonly filter?: RegionFilter;
  readonly limit?: number;
  readonly prefix?: string;
}

function regionCommands(region: Command, app: App): void {
  addCommand<RegionListFlags>(region, app, {
    usage: 'list [start] [end]',
    isList: true,
    summary: 'List regions in key order',
    details: 'Gaps in the key space are reported as well.',
    arguments: { start: 'a key of the first region', end: 'key after the last region' },
    examples: [
      'braid ctl region list',
      'braid ctl region list --store 2 --filter pending-peer',
      'braid ctl region list --sort-by -keys -o wide',
    ],
    modes: LIST_MODES,
    mode: 'table',
    isWatchable: true,
    options: [
      flag('--prefix <prefix>', 'regions with keys that start with this'),
      flag('--store <id>', 'regions with a replica on this store'),
      flag('--filter <filter>', `only some: ${REGION_FILTERS.join(', ')}`).argParser(choice(REGION_FILTERS)),
    ],
    task: () => 'list regions',
    run: async (session, [start, end], options) => {
      const range = rangeArgument(session, start, end, options.prefix);
      const admin = await session.admin();
      const { regions, holes, more } = await admin.regions({
        ...session.limits(),
        start: range.start,
        end: range.end,
        ...(options.store === undefined ? {} : { storeId: parseId(options.store, 'store') }),
        ...(options.filter === undefined ? {} : { filter: options.filter }),
        // What is chosen or ordered here is chosen among all of them.
        ...(options.limit === undefined || session.printer.isChoosy ? {} : { limit: options.limit }),
      });
      const format = session.options.keyFormat;
      await session.printer.list(regionShape(format), regions, {
        holes: holes.map((hole) => rangeText(hole, format)),
        more,
      });
      for (const hole of holes) {
        await session.printer.note(`no region covers ${rangeText(hole, format)}`);
      }
      if (more) {
        await session.printer.note(`there are more regions than the ${regions.length} listed`);
      }
      return EXIT_DONE;
    },
  });
  addCommand<object>(region, app, {
    usage: 'show <id>',
    summary: 'Show one region with its peers and neighbours',
    arguments: { id: 'region id' },
    examples: ['braid ctl region show 2', 'braid ctl region show 2 -o json --key-format hex'],
    modes: LIST_MODES,
    mode: 'table',
    isWatchable: true,
    isQuestion: true,
    task: ([id]) => `show region ${id}`,
    run: async (session, [id]) => {
      const regionId = parseId(id as string, 'region');
      const admin = await session.admin();
      await session.printer.single(
        regionSingle(await admin.region(regionId, session.limits()), session.options.keyFormat),
      );
      return EXIT_DONE;
    },
  });
  addCommand<object>(region, app, {
    usage: 'locate <key>',
    summary: 'Show the region that holds a key',
    arguments: { key: 'the key' },
    examples: ['braid ctl region locate user:1', 'braid ctl region locate user:1 -o name'],
    modes: LIST_MODES,
    mode: 'table',
    isQuestion: true,
    task: ([key]) => `locate ${key}`,
    run: async (session, [text]) => {
      const key = parseKey(text as string, session.options.keyFormat);
      const admin = await session.admin();
      await session.printer.single(
        regionSingle(await admin.region({ key }, session.limits()), session.options.keyFormat),
      );
      return EXIT_DONE;
    },
  });
  addCommand<OperatorFlags & { key?: string }>(region, app, {
    usage: 'split <id>',
    summary: 'Split a region in two',
    details: 'In the middle of its data, or at --key, which becomes the first key of the right part.',
    arguments: { id: 'region id' },
    examples: ['braid ctl region split 2 --key m', 'braid ctl region split 2 --detach'],
    modes: LIST_MODES,
    mode: 'table',
    options: [flag('--key <key>', 'where to split'), ...operatorFlags()],
    task: ([id]) => `split region ${id}`,
    run: async (session, [id], options) => {
      const regionId = parseId(id as string, 'region');
      const keys = options.key === undefined ? [] : [parseKey(options.key, session.options.keyFormat)];
      if (keys[0]?.length === 0) {
        throw new UsageError('the split key is empty', 'give a key inside the region, above its start');
      }
      const request = requestOptions(session, options);
      const admin = await session.admin();
      return finishOperator(session, admin, await admin.splitRegion(regionId, keys, request), options);
    },
  });
  addCommand<OperatorFlags>(region, app, {
    usage: 'merge <source> <target>',
    summary: 'Merge a region into a neighbour',
    details:
      'The target keeps its id and takes over the range of the source. Phases: align, prepare, catch-up, commit or rollback.',
    arguments: { source: 'id of the region that ends', target: 'id of the touching region that grows' },
    examples: ['braid ctl region merge 4 2', 'braid ctl region merge 4 2 --dry-run'],
    modes: LIST_MODES,
    mode: 'table',
    options: operatorFlags(),
    task: ([source, target]) => `merge region ${source} into ${target}`,
    run: async (session, [sourceText, targetText], options) => {
      const merge = {
        source: parseId(sourceText as string, 'region'),
        target: parseId(targetText as string, 'region'),
      };
      const request = requestOptions(session, options);
      const admin = await session.admin();
      return finishOperator(session, admin, await admin.mergeRegions(merge, request), options);
    },
  });
  addCommand<OperatorFlags & { from: string; to: string }>(region, app, {
    usage: 'move <id>',
    summary: 'Move a replica from one store to another',
    arguments: { id: 'region id' },
    examples: ['braid ctl region move 2 --from 1 --to 4', 'braid ctl region move 2 --from 1 --to 4 --detach -o name'],
    modes: LIST_MODES,
    mode: 'table',
    options: [
      flag('--from <store>', 'store that gives the replica up').makeOptionMandatory(),
      flag('--to <store>', 'store that takes it').makeOptionMandatory(),
      ...operatorFlags(),
    ],
    task: ([id]) => `move region ${id}`,
    run: async (session, [id], options) => {
      const regionId = parseId(id as string, 'region');
      const move = { fromStore: parseId(options.from, 'store'), toStore: parseId(options.to, 'store') };
      const request = requestOptions(session, options);
      const admin = await session.admin();
      return finishOperator(session, admin, await admin.moveRegion(regionId, move, request), options);
    },
  });
  addCommand<ExpectEpochFlag & { off?: true }>(region, app, {
    usage: 'pin <id>',
    summary: 'Keep a region from being split and merged automatically',
    arguments: { id: 'region id' },
    examples: ['braid ctl region pin 2', 'braid ctl region pin 2 --off'],
    modes: LIST_MODES,
    mode: 'table',
    options: [flag('--off', 'let it be split and merged again'), reasonFlag(), expectEpochFlag()],
    task: ([id]) => `change the pin of region ${id}`,
    run: async (session, [id], options) => {
      const regionId = parseId(id as string, 'region');
      const admin = await session.admin();
      const limits = { ...session.limits(), ...expectedEpoch(options) };
      if (!(await admin.pinRegion(regionId, options.off !== true, limits))) {
        await session.printer.note('nothing to do: it is as you want it already');
      }
      await session.printer.single(
        regionSingle(await admin.region(regionId, session.limits()), session.options.keyFormat),
      );
      return EXIT_DONE;
    },
  });
  addCommand<OperatorFlags>(region, app, {
    usage: 'scatter <id>',
    summary: 'Move the replicas of a region to the least used stores',
    arguments: { id: 'region id' },
    examples: ['braid ctl region scatter 2', 'braid ctl region scatter 2 --dry-run'],
    modes: LIST_MODES,
    mode: 'table',
    options: operatorFlags(),
    task: ([id]) => `scatter region ${id}`,
    run: async (session, [id], options) => {
      const regionId = parseId(id as string, 'region');
      const request = requestOptions(session, options);
      const admin = await session.admin();
      return finishOperator(session, admin, await admin.scatterRegion(regionId, request), options);
    },
  });
  addCommand<OperatorFlags & { to: string }>(region, app, {
    usage: 'transfer-leader <id>',
    summary: 'Make another replica the leader',
    arguments: { id: 'region id' },
    examples: ['braid ctl region transfer-leader 2 --to 3', 'braid ctl region transfer-leader 2 --to 3 --wait -q'],
    modes: LIST_MODES,
    mode: 'table',
    options: [flag('--to <store>', 'store whose replica shall lead').makeOptionMandatory(), ...operatorFlags()],
    task: ([id]) => `transfer the leader of region ${id}`,
    run: async (session, [id], options) => {
      const regionId = parseId(id as string, 'region');
      const toStore = parseId(options.to, 'store');
      const request = requestOptions(session, options);
      const admin = await session.admin();
      return finishOperator(session, admin, await admin.transferLeader(regionId, toStore, request), options);
    },
  });
}

// -------------------------------------------------------------------------------------------------------- switches

function switchCommands(group: Command, app: App): void {
  addCommand<object>(group, app, {
    usage: 'list',
    isList: true,
    summary: 'List checkers and schedulers',
    examples: ['braid ctl switch list', 'braid ctl switch list -o json'],
    modes: LIST_MODES,
    mode: 'table',
    isWatchable: true,
    task: () => 'list switches',
    run: async (session) => {
      const admin = await session.admin();
      await session.printer.list(SWITCH_SHAPE, await admin.switches(session.limits()));
      return EXIT_DONE;
    },
  });
  for (const [word, enabled] of [
    ['on', true],
    ['off', false],
  ] as const) {
    addCommand<ExpectVersionFlag>(group, app, {
      usage: `${word} <name>`,
      summary: `Switch a checker or scheduler ${word}`,
      details: 'It stays so over restarts.',
      arguments: { name: 'its name' },
      examples: [`braid ctl switch ${word} merge-checker`, `braid ctl switch ${word} balance-region -o json`],
      modes: LIST_MODES,
      mode: 'table',
      options: [reasonFlag(), expectVersionFlag('the switch (its column VERSION with -o wide)')],
      task: ([name]) => `switch ${name} ${word}`,
      run: async (session, [name], options) => {
        const admin = await session.admin();
        const limits = { ...session.limits(), ...expectedVersion(options) };
        await session.printer.list(SWITCH_SHAPE, [await admin.setSwitch(name as string, enabled, limits)]);
        return EXIT_DONE;
      },
    });
  }
}

// --------------------------------------------------------------------------------------------------------- explain

interface CheckRow {
  readonly name: string;
  readonly passed: boolean;
  readonly refusal: { readonly code: string; readonly message: string; readonly hint: string } | undefined;
}

function explainCommands(group: Command, app: App): void {
  addCommand<{ automatic?: true }>(group, app, {
    usage: 'merge <source> <target>',
    isList: true,
    summary: 'List every check of a merge with its outcome',
    details: 'Changes nothing. The exit code is 5 if the merge would be refused.',
    arguments: { source: 'id of the region that would end', target: 'id of the region that would grow' },
    examples: ['braid ctl explain merge 4 2', 'braid ctl explain merge 4 2 --automatic -o json'],
    modes: COMMON_MODES,
    mode: 'table',
    isQuestion: true,
    options: [flag('--automatic', 'also the checks that only automatic merges must pass')],
    task: ([source, target]) => `explain the merge of ${source} into ${target}`,
    run: async (session, [sourceText, targetText], options) => {
      const merge = {
        source: parseId(sourceText as string, 'region'),
        target: parseId(targetText as string, 'region'),
      };
      const admin = await session.admin();
      const { allowed, checks, steps, lastRefusal } = await admin.explainMerge(merge, {
        ...session.limits(),
        automatic: options.automatic ?? false,
      });
      await session.printer.list<CheckRow>(
        {
          kind: 'MergeExplanation',
          columns: [
            { head: 'check', cell: (check) => check.name },
            { head: 'outcome', cell: (check) => (check.passed ? 'passed' : 'refused') },
            { head: 'code', cell: (check) => check.refusal?.code ?? '' },
            { head: 'reason', cell: (check) => check.refusal?.message ?? '' },
            { head: 'next step', cell: (check) => check.refusal?.hint ?? '' },
          ],
          toObject: (check) => ({ ...check }),
        },
        checks,
        { ...merge, allowed, steps, lastRefusal: lastRefusal === undefined ? null : refusalObject(lastRefusal) },
      );
      await session.printer.note(
        allowed
          ? `region ${merge.source} can be merged into ${merge.target}`
          : `region ${merge.source} cannot be merged into ${merge.target}`,
      );
      if (lastRefusal !== undefined) {
        await session.printer.note(`latest attempt: ${refusalText(lastRefusal)}; ${lastRefusal.hint}`);
      }
      return allowed ? EXIT_DONE : EXIT_NO;
    },
  });
  explainObjectCommands(group, app);
  addCommand<object>(group, app, {
    usage: 'code [code]',
    isList: true,
    summary: 'Say what an error code means and what to do',
    details: 'Without a code it lists them all.',
    arguments: { code: 'the word in parentheses of an error' },
    examples: ['braid ctl explain code UndeterminedResult', 'braid ctl explain code -o json'],
    modes: LIST_MODES,
    mode: 'table',
    isQuestion: true,
    task: ([code]) => (code === undefined ? 'list error codes' : `explain the code ${code}`),
    run: async (session, [code]) => {
      const found =
        code === undefined
          ? ERROR_CODES
          : ERROR_CODES.filter((entry) => entry.code.toLowerCase() === code.toLowerCase());
      if (found.length === 0) {
        const closest = closestName(
          code as string,
          ERROR_CODES.map((entry) => entry.code),
        );
        throw new UsageError(
          `there is no error code ${JSON.stringify(code)}`,
          closest === undefined ? 'list them with "braid ctl explain code"' : `did you mean ${closest}?`,
        );
      }
      await session.printer.list(
        {
          kind: 'ErrorCodeList',
          columns: [
            { head: 'code', cell: (entry) => entry.code },
            { head: 'meaning', cell: (entry) => entry.meaning },
            { head: 'a change was', cell: (entry) => entry.outcome },
            { head: 'next step', cell: (entry) => entry.next },
          ],
          toObject: (entry) => ({ ...entry }),
          name: (entry) => entry.code,
        },
        found,
      );
      return EXIT_DONE;
    },
  });
}
