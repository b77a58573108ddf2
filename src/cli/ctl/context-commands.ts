/** `braid ctl context`: names for clusters, and which of them commands use. Nothing is sent to any cluster. */
import type { Command } from 'commander';
import { type App, addCommand } from '../command.ts';
import { flag } from '../common-options.ts';
import { access, constants } from 'node:fs/promises';
import {
  type Contexts,
  type Target,
  type TlsFiles,
  clusterOf,
  loadContexts,
  parseEndpoints,
  requireContextName,
  saveContexts,
} from '../contexts.ts';
import { EXIT_DONE } from '../exit-code.ts';
import { InputFileError, UsageError } from '../failure.ts';
import { LIST_MODES } from '../output/mode.ts';
import type { ListShape } from '../output/printer.ts';

interface ContextRow {
  readonly name: string;
  readonly isCurrent: boolean;
  readonly pd: readonly string[];
  readonly tls: TlsFiles | undefined;
}

const CONTEXT_SHAPE: ListShape<ContextRow> = {
  kind: 'ContextList',
  columns: [
    { head: 'current', cell: (row) => (row.isCurrent ? '*' : ''), value: (row) => row.isCurrent },
    { head: 'name', cell: (row) => row.name },
    { head: 'pd', cell: (row) => row.pd.join(',') },
    { head: 'tls', cell: (row) => row.tls?.cert ?? row.tls?.ca ?? 'no', isWide: true },
  ],
  toObject: (row) => ({ ...row, tls: row.tls ?? null }),
  name: (row) => row.name,
};

const rowsOf = ({ current, byName }: Contexts): readonly ContextRow[] =>
  [...byName].map(([name, { pd, tls }]) => ({ name, isCurrent: name === current, pd, tls }));

const oneRow = (contexts: Contexts, name: string): readonly ContextRow[] =>
  rowsOf(contexts).filter((row) => row.name === name);

/** A mistyped path is found now rather than by the first command that uses the context. */
async function requireReadable(file: string): Promise<void> {
  try {
    await access(file, constants.R_OK);
  } catch (cause) {
    throw new InputFileError(`${file} cannot be read`, 'check the path and its permissions', { cause });
  }
}

export function contextCommands(ctl: Command, app: App): void {
  const group = ctl
    .command('context')
    .summary('names for clusters')
    .description('Names for clusters, kept in a file of yours, and which of them commands use.');
  addCommand<object>(group, app, {
    usage: 'list',
    summary: 'List contexts',
    examples: ['braid ctl context list', 'braid ctl context list -o name'],
    modes: LIST_MODES,
    mode: 'table',
    isList: true,
    task: () => 'list contexts',
    run: async (session) => {
      await session.printer.list(CONTEXT_SHAPE, rowsOf(await loadContexts(session.io.env)));
      return EXIT_DONE;
    },
  });
  addCommand<object>(group, app, {
    usage: 'show [name]',
    summary: 'Show a context, or which cluster commands talk to here',
    arguments: { name: 'of a context' },
    examples: ['braid ctl context show', 'braid ctl context show production -o json'],
    modes: LIST_MODES,
    mode: 'table',
    task: ([name]) => (name === undefined ? 'show the cluster in use' : `show context ${name}`),
    run: async (session, [name]) => {
      const target: Target =
        name === undefined
          ? await session.target()
          : { ...clusterOf(await loadContexts(session.io.env), name), from: `context ${name}`, context: name };
      const { tls } = target;
      await session.printer.single({
        document: { kind: 'Context', name: target.context ?? null, pd: target.pd, tls: tls ?? null, from: target.from },
        name: target.context ?? '',
        fields: [
          { name: 'name', value: target.context ?? '' },
          { name: 'pd', value: target.pd.join(', ') },
          { name: 'tls', value: tls === undefined ? 'no' : Object.values(tls).join(', ') },
          { name: 'named by', value: target.from },
        ],
      });
      return EXIT_DONE;
    },
  });
  addCommand<{ replace?: true; use?: true }>(group, app, {
    usage: 'add <name>',
    summary: 'Give a cluster a name',
    details:
      'The first one becomes the current one. Of an encrypted cluster the paths of the certificates are kept with it, not what they hold.',
    arguments: { name: 'of the context' },
    examples: [
      'braid ctl context add production --pd 10.0.0.1:2379,10.0.0.2:2379',
      'braid ctl context add test --pd 127.0.0.1:2379 --replace --use',
      'braid ctl context add secret --pd 10.0.0.1:2379 --tls-ca ca.pem --tls-cert ada.pem --tls-key ada-key.pem',
    ],
    modes: LIST_MODES,
    mode: 'table',
    options: [flag('--replace', 'change it if it is there already'), flag('--use', 'and make it the current one')],
    task: ([name]) => `add context ${name}`,
    run: async (session, [given], options) => {
      const name = requireContextName(given as string);
      const { pd, tls, from } = await session.target();
      if (from !== '--pd' && from !== 'BRAID_PD') {
        throw new UsageError('it is not said which cluster it is', 'add --pd with the placement endpoints');
      }
      const { current, byName } = await loadContexts(session.io.env);
      if (byName.has(name) && options.replace !== true) {
        throw new UsageError(`there is a context ${name} already`, 'add --replace to change it');
      }
      const cluster = { pd: parseEndpoints(pd, tls), tls };
      for (const file of Object.values(tls ?? {})) {
        await requireReadable(file as string);
      }
      const contexts: Contexts = {
        current: options.use === true ? name : (current ?? name),
        byName: new Map([...byName, [name, cluster]]),
      };
      await saveContexts(session.io.env, contexts);
      await session.printer.list(CONTEXT_SHAPE, oneRow(contexts, name));
      return EXIT_DONE;
    },
  });
  addCommand<object>(group, app, {
    usage: 'use <name>',
    summary: 'Let commands talk to this cluster unless they are told otherwise',
    arguments: { name: 'of the context' },
    examples: ['braid ctl context use production', 'braid ctl context use test -o name'],
    modes: LIST_MODES,
    mode: 'table',
    task: ([name]) => `use context ${name}`,
    run: async (session, [given]) => {
      const name = given as string;
      const before = await loadContexts(session.io.env);
      clusterOf(before, name);
      const contexts: Contexts = { ...before, current: name };
      await saveContexts(session.io.env, contexts);
      await session.printer.list(CONTEXT_SHAPE, oneRow(contexts, name));
      return EXIT_DONE;
    },
  });
  addCommand<object>(group, app, {
    usage: 'remove <name>',
    summary: 'Forget the name of a cluster',
    details: 'If it is the current one, there is none afterwards. Nothing happens to the cluster.',
    arguments: { name: 'of the context' },
    examples: ['braid ctl context remove test', 'braid ctl context remove test -o json'],
    modes: LIST_MODES,
    mode: 'table',
    task: ([name]) => `remove context ${name}`,
    run: async (session, [given]) => {
      const name = given as string;
      const before = await loadContexts(session.io.env);
      clusterOf(before, name);
      const byName = new Map([...before.byName].filter(([each]) => each !== name));
      await saveContexts(session.io.env, { current: before.current === name ? undefined : before.current, byName });
      await session.printer.list(CONTEXT_SHAPE, oneRow(before, name));
      return EXIT_DONE;
    },
  });
}
