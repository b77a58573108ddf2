/** `braid ctl operator`: the changes under way, those that ended, and new ones by name. */
import type { Command } from 'commander';
import type { AdminClient, OperatorRequestOptions, Submission } from '../../client/admin.ts';
import { closestName } from '../../client/options.ts';
import { type App, addCommand } from '../command.ts';
import { flag, reasonFlag } from '../common-options.ts';
import { EXIT_DONE, type ExitCode } from '../exit-code.ts';
import { UsageError } from '../failure.ts';
import { LIST_MODES } from '../output/mode.ts';
import type { Session } from '../session.ts';
import { parseId, parseKey } from '../text-form.ts';
import { type OperatorFlags, finishOperator, operatorFlags, requestOptions, showOperator } from './operator-request.ts';
import { watchOperator } from './operator-watch.ts';
import { operatorShape, operatorSingle } from './shapes.ts';

interface OperatorFilters {
  readonly kind?: string;
  readonly region?: string;
}

interface OperatorListFlags extends OperatorFilters {
  readonly ended?: true;
}

const filterFlags = (): ReturnType<typeof flag>[] => [
  flag('--kind <kind>', 'only merge, move, split, replica, region, leader or admin operators'),
  flag('--region <id>', 'only operators of this region'),
];

/** What can be asked of one region by name, as pd-ctl names it (tikv/pd tools/pd-ctl/pdctl/command/operator.go). */
interface Wish {
  /** The arguments in words. */
  readonly usage: string;
  readonly summary: string;
  /** How many there are behind the region, at least and at most. */
  readonly arguments: readonly [number, number];
  /** Reads the arguments before anything is asked. */
  readonly prepare: (
    region: number,
    more: readonly string[],
    options: OperatorRequestOptions,
    session: Session,
  ) => (admin: AdminClient) => Promise<Submission>;
}

const storeOf = (more: readonly string[], at: number): number => parseId(more[at] as string, 'store');

const WISHES: Readonly<Record<string, Wish>> = {
  'transfer-leader': {
    usage: 'REGION STORE',
    summary: 'let the replica on a store lead',
    arguments: [1, 1],
    prepare: (region, more, options) => {
      const store = storeOf(more, 0);
      return (admin) => admin.transferLeader(region, store, options);
    },
  },
  'transfer-peer': {
    usage: 'REGION FROM TO',
    summary: 'move the replica of one store to another',
    arguments: [2, 2],
    prepare: (region, more, options) => {
      const [from, to] = [storeOf(more, 0), storeOf(more, 1)];
      return (admin) => admin.moveRegion(region, { fromStore: from, toStore: to }, options);
    },
  },
  'add-peer': {
    usage: 'REGION STORE',
    summary: 'add a voting replica',
    arguments: [1, 1],
    prepare: (region, more, options) => {
      const store = storeOf(more, 0);
      return (admin) => admin.addPeer(region, store, options);
    },
  },
  'add-learner': {
    usage: 'REGION STORE',
    summary: 'add a replica that does not vote',
    arguments: [1, 1],
    prepare: (region, more, options) => {
      const store = storeOf(more, 0);
      return (admin) => admin.addPeer(region, store, { ...options, learner: true });
    },
  },
  'remove-peer': {
    usage: 'REGION STORE',
    summary: 'remove the replica on a store',
    arguments: [1, 1],
    prepare: (region, more, options) => {
      const store = storeOf(more, 0);
      return (admin) => admin.removePeer(region, store, options);
    },
  },
  'merge-region': {
    usage: 'REGION TARGET',
    summary: 'merge it into a neighbour',
    arguments: [1, 1],
    prepare: (region, more, options) => {
      const target = parseId(more[0] as string, 'region');
      return (admin) => admin.mergeRegions({ source: region, target }, options);
    },
  },
  'split-region': {
    usage: 'REGION [KEY...]',
    summary: 'split it at keys, or in the middle',
    arguments: [0, 64],
    prepare: (region, more, options, session) => {
      const keys = more.map((text) => parseKey(text, session.options.keyFormat));
      return (admin) => admin.splitRegion(region, keys, options);
    },
  },
  'scatter-region': {
    usage: 'REGION',
    summary: 'move its replicas to the least used stores',
    arguments: [0, 0],
    prepare: (region, _, options) => (admin) => admin.scatterRegion(region, options),
  },
};

async function listOperators(session: Session, options: OperatorFilters, isEnded: boolean): Promise<ExitCode> {
  const regionId = options.region === undefined ? undefined : parseId(options.region, 'region');
  const admin = await session.admin();
  const found = isEnded
    ? await admin.finishedOperators({ ...session.limits(), ...(regionId === undefined ? {} : { regionId }) })
    : await admin.operators(session.limits());
  const shown = found.filter(
    (one) =>
      (options.kind === undefined || one.kinds.includes(options.kind)) &&
      (regionId === undefined || one.regionId === regionId),
  );
  await session.printer.list(operatorShape(Date.now()), shown);
  if (shown.length === 0) {
    await session.printer.note(isEnded ? 'no ended operators' : 'no running operators');
  }
  return EXIT_DONE;
}

export function operatorCommands(operator: Command, app: App): void {
  addCommand<OperatorListFlags>(operator, app, {
    usage: 'list',
    isList: true,
    summary: 'List running operators, or ended ones',
    examples: ['braid ctl operator list', 'braid ctl operator list --ended --limit 10'],
    modes: LIST_MODES,
    mode: 'table',
    isWatchable: true,
    options: [flag('--ended', 'ended operators, latest first'), ...filterFlags()],
    task: () => 'list operators',
    run: (session, _, options) => listOperators(session, options, options.ended === true),
  });
  addCommand<{ watch?: true }>(operator, app, {
    usage: 'show <id>',
    summary: 'Show one operator with its phases and steps',
    arguments: { id: 'operator id' },
    examples: ['braid ctl operator show 12', 'braid ctl operator show 12 --watch'],
    modes: LIST_MODES,
    mode: 'table',
    isQuestion: true,
    options: [flag('-w, --watch', 'until it has ended')],
    task: ([id]) => `show operator ${id}`,
    run: async (session, [id], options) => {
      const operatorId = parseId(id as string, 'operator');
      const admin = await session.admin();
      const found =
        options.watch === true
          ? await watchOperator(session, admin, operatorId)
          : await admin.operator(operatorId, session.limits());
      await session.printer.single(operatorSingle(found, Date.now()));
      return EXIT_DONE;
    },
  });
  addCommand<OperatorFilters>(operator, app, {
    usage: 'history',
    isList: true,
    summary: 'List ended operators, latest first',
    details: 'The same as list --ended. How far it goes back is a setting of the placement service.',
    examples: ['braid ctl operator history --kind merge', 'braid ctl operator history --region 2 --limit 5 -o json'],
    modes: LIST_MODES,
    mode: 'table',
    isWatchable: true,
    options: filterFlags(),
    task: () => 'list ended operators',
    run: (session, _, options) => listOperators(session, options, true),
  });
  addCommand<OperatorFlags>(operator, app, {
    usage: 'add <what> <region> [more...]',
    summary: 'Start an operator on a region',
    details: `What there is:\n${Object.entries(WISHES)
      .map(([what, { usage, summary }]) => `  ${`${what} ${usage}`.padEnd(38)}${summary}`)
      .join('\n')}`,
    arguments: { what: 'which change', region: 'region id', more: 'what the change needs, see above' },
    examples: [
      'braid ctl operator add transfer-leader 2 3',
      'braid ctl operator add add-learner 2 4 --dry-run',
      'braid ctl operator add merge-region 4 2 --wait',
    ],
    modes: LIST_MODES,
    mode: 'table',
    options: operatorFlags(),
    task: ([what, region]) => `start ${what} of region ${region}`,
    run: async (session, [what, region, ...more], options) => {
      const wish = WISHES[what as string];
      if (wish === undefined) {
        const near = closestName(what as string, Object.keys(WISHES));
        throw new UsageError(
          `there is no operator ${JSON.stringify(what)}`,
          near === undefined ? `choose one of ${Object.keys(WISHES).join(', ')}` : `did you mean ${near}?`,
        );
      }
      const [least, most] = wish.arguments;
      if (more.length < least || more.length > most) {
        throw new UsageError(
          `${what} takes ${least === most ? least : `${least} to ${most}`} arguments behind the region, not ${more.length}`,
          `write: braid ctl operator add ${what} ${wish.usage}`,
        );
      }
      const regionId = parseId(region as string, 'region');
      const submit = wish.prepare(regionId, more, requestOptions(session, options), session);
      const admin = await session.admin();
      return finishOperator(session, admin, await submit(admin), options);
    },
  });
  addCommand<object>(operator, app, {
    usage: 'cancel <id>',
    summary: 'Cancel a running operator',
    details: 'Steps already done stay done. A merge that is prepared is finished by the stores whatever happens here.',
    arguments: { id: 'operator id' },
    examples: ['braid ctl operator cancel 12', 'braid ctl operator cancel 12 -o json'],
    modes: LIST_MODES,
    mode: 'table',
    options: [reasonFlag()],
    task: ([id]) => `cancel operator ${id}`,
    run: async (session, [id]) => {
      const operatorId = parseId(id as string, 'operator');
      const admin = await session.admin();
      const ended = await admin.cancelOperator(operatorId, session.limits());
      await showOperator(session, ended);
      if (!ended.cancelable && ended.isMergeSource) {
        await session.printer.note('the merge was prepared already: the stores finish it or roll it back on their own');
      }
      return EXIT_DONE;
    },
  });
}
