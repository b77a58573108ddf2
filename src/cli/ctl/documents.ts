/** `braid ctl apply`, `get`, `describe`, `delete`, `diff`, `export`, `retry`: documents of all kinds. */
import type { Command } from 'commander';
import type { AdminClient } from '../../client/admin.ts';
import {
  type DocumentInfo,
  type DocumentKind,
  type DocumentResult,
  DocumentsRefusedError,
} from '../../client/documents.ts';
import { DeadlineExceededError, RefusedError } from '../../client/errors.ts';
import { closestName } from '../../client/options.ts';
import { type App, addCommand } from '../command.ts';
import {
  flag,
  positive,
  reasonFlag,
  type ExpectVersionFlag,
  expectedVersion,
  expectVersionFlag,
} from '../common-options.ts';
import { EXIT_DONE, EXIT_NO, type ExitCode } from '../exit-code.ts';
import { UsageError } from '../failure.ts';
import { toPlainYaml } from '../output/document.ts';
import { LIST_MODES, isMachineMode } from '../output/mode.ts';
import type { Session } from '../session.ts';
import { readDocuments } from './document-file.ts';
import { printDocument, watchDocuments } from './document-watch.ts';
import {
  DOCUMENT_SHAPE,
  RESULT_SHAPE,
  documentName,
  documentSingle,
  exportedDocument,
  fullDocument,
  lineDiff,
  specYaml,
  statusText,
} from './document-shapes.ts';

/** Words for kinds on the command line; plurals, and the nouns of other commands, mean the same. */
const KINDS: Readonly<Record<string, DocumentKind | undefined>> = {
  partition: 'Partition',
  partitions: 'Partition',
  assignment: 'Assignment',
  assignments: 'Assignment',
  'placement-rule': 'PlacementRule',
  'placement-rules': 'PlacementRule',
  rule: 'PlacementRule',
  rules: 'PlacementRule',
  scheduler: 'Scheduler',
  schedulers: 'Scheduler',
  checker: 'Scheduler',
  checkers: 'Scheduler',
  config: 'Config',
  configs: 'Config',
  all: undefined,
};
const ONE_KIND_WORDS = 'partition, assignment, placement-rule, scheduler or config';
const KIND_WORDS = 'partition, assignment, placement-rule, scheduler, config or all';

/** Waiting without --timeout ends after this. */
const WAIT_MS_DEFAULT = 600_000;

function kindOf(word: string, allowsAll: boolean): DocumentKind | undefined {
  const key = word.toLowerCase();
  if (!Object.hasOwn(KINDS, key) || (key === 'all' && !allowsAll)) {
    const closest = closestName(word, Object.keys(KINDS));
    throw new UsageError(
      `${JSON.stringify(word)} is not a kind of document`,
      closest === undefined ? `write ${allowsAll ? KIND_WORDS : ONE_KIND_WORDS}` : `did you mean ${closest}?`,
    );
  }
  return KINDS[key];
}

const oneKind = (word: string): DocumentKind => kindOf(word, false) as DocumentKind;

export function registerDocumentCommands(ctl: Command, app: App): void {
  applyCommand(ctl, app);
  diffCommand(ctl, app);
  moveCommand(ctl, app);
  getCommand(ctl, app);
  describeCommand(ctl, app);
  deleteCommand(ctl, app);
  exportCommand(ctl, app);
  const retry = ctl.command('retry').summary('retry').description('Starts again what has failed too often.');
  retryCommand(retry, app);
}

const fileFlag = (): ReturnType<typeof flag> =>
  flag('-f, --file <file>', 'YAML or JSON documents; - reads stdin; may be given several times')
    .makeOptionMandatory()
    .argParser((path: string, before: readonly string[] | undefined) => [...(before ?? []), path]);

// ---------------------------------------------------------------------------------------------------------- applying

interface ApplyFlags {
  readonly file: readonly string[];
  readonly dryRun?: true;
  readonly wait?: true;
  readonly detach?: true;
}

function applyCommand(ctl: Command, app: App): void {
  addCommand<ApplyFlags>(ctl, app, {
    usage: 'apply',
    summary: 'Create or change documents: Partitions, Assignments, placement rules, schedulers, settings',
    details:
      'All documents of the files are taken, or none. A document that says what is known already changes nothing.',
    examples: [
      'braid ctl apply -f examples/part1.yaml',
      'braid ctl apply -f - --wait',
      'braid ctl apply -f a1.yaml --dry-run',
      "braid ctl apply -f examples/placement.yaml --reason 'new disks'",
    ],
    modes: LIST_MODES,
    mode: 'table',
    options: [
      fileFlag(),
      flag('--dry-run', 'only say what would become of each document'),
      flag('--wait', 'until Partitions are served and Assignments completed; the default on a terminal'),
      flag('--detach', 'return at once; the default elsewhere'),
      reasonFlag(),
    ],
    task: () => 'apply the documents',
    run: async (session, _, options) => {
      requireOneWay(options);
      const documents = await readDocuments(session.io, options.file);
      return applyAndWait(session, documents, options);
    },
  });
}

/** Applies documents, prints what became of each, and follows them if that is wanted. */
async function applyAndWait(
  session: Session,
  documents: readonly unknown[],
  flags: Omit<ApplyFlags, 'file'>,
): Promise<ExitCode> {
  const admin = await session.admin();
  const { version } = await admin.documents.list(session.limits());
  const results = await applied(session, admin, documents, flags.dryRun ?? false);
  await session.printer.list(RESULT_SHAPE, results, flags.dryRun === true ? { dryRun: true } : {});
  await noteWarnings(session, results);
  const waits = flags.wait ?? (flags.detach === true ? false : session.io.stderr.isTerminal);
  if (flags.dryRun === true) {
    await session.printer.note('dry run: nothing was changed');
  } else if (waits) {
    await waitSettled(session, admin, version, results);
  }
  return EXIT_DONE;
}

interface MoveFlags extends Omit<ApplyFlags, 'file'> {
  readonly to: string;
  readonly from?: string;
  readonly proxyThreshold?: string;
}

function moveCommand(ctl: Command, app: App): void {
  addCommand<MoveFlags>(ctl, app, {
    usage: 'move <partition>',
    summary: 'Move a Partition from its pod to another one',
    details: 'Applies an Assignment of type InterWorkerMove, which can be watched and deleted like any other.',
    arguments: { partition: 'name of the Partition' },
    examples: ['braid ctl move part1 --to dstPod --wait', 'braid ctl move part1 --from srcPod --to dstPod --dry-run'],
    modes: LIST_MODES,
    mode: 'table',
    options: [
      flag('--to <pod>', 'pod that takes it').makeOptionMandatory(),
      flag('--from <pod>', 'refuse unless this is its primary; the default is whichever is'),
      flag('--proxy-threshold <duration>', 'how long the old pod still serves old routes'),
      flag('--dry-run', 'only say whether it would be taken'),
      flag('--wait', 'until it is completed; the default on a terminal'),
      flag('--detach', 'return at once; the default elsewhere'),
      reasonFlag(),
    ],
    task: ([partition]) => `move partition ${partition}`,
    run: async (session, [name], options) => {
      requireOneWay(options);
      const admin = await session.admin();
      const partition = await admin.documents.get('Partition', name as string, session.limits());
      const { version } = await admin.documents.list(session.limits());
      const from = options.from ?? primaryPod(partition.spec);
      const document = {
        kind: 'Assignment',
        // Every move is an Assignment of its own, also one that was made before.
        metadata: { name: `move-${partition.metadata.name}-${version + 1}` },
        spec: {
          type: 'InterWorkerMove',
          moveParams: {
            partition: partition.metadata.name,
            from,
            to: options.to,
            proxyThreshold: options.proxyThreshold,
          },
        },
      };
      return applyAndWait(session, [document], options);
    },
  });
}

function primaryPod(spec: DocumentInfo['spec']): unknown {
  const pods = spec['assignedPods'];
  return Array.isArray(pods)
    ? (pods as { readonly name: unknown; readonly type: unknown }[]).find(({ type }) => type === 'primary')?.name
    : spec['primary'];
}

function requireOneWay(flags: { readonly wait?: true; readonly detach?: true }): void {
  if (flags.wait === true && flags.detach === true) {
    throw new UsageError('--wait and --detach exclude each other', 'leave one of them out');
  }
}

async function noteWarnings(session: Session, results: readonly DocumentResult[]): Promise<void> {
  for (const result of results) {
    for (const warning of result.warnings) {
      await session.printer.note(`warning: ${documentName(result)}: ${warning}`);
    }
  }
}

/** Prints the result of every document also when one of them makes the whole request fail. */
async function applied(
  session: Session,
  admin: AdminClient,
  documents: readonly unknown[],
  dryRun: boolean,
): Promise<readonly DocumentResult[]> {
  try {
    return await admin.documents.apply(documents, { ...session.limits(), dryRun });
  } catch (error) {
    if (error instanceof DocumentsRefusedError && (isMachineMode(session.printer.mode) || error.results.length > 1)) {
      await session.printer.list(RESULT_SHAPE, error.results);
    }
    throw error;
  }
}

/** Follows the applied documents until each of them is as wished, with a line on stderr for every step. */
async function waitSettled(
  session: Session,
  admin: AdminClient,
  afterVersion: number,
  results: readonly DocumentResult[],
): Promise<void> {
  const open = new Map(
    results.filter(({ after }) => after !== undefined).map((result) => [documentName(result), result] as const),
  );
  const limitMs = session.isTimeoutGiven ? session.leftMs : WAIT_MS_DEFAULT;
  const ended = new AbortController();
  const timer = setTimeout(() => ended.abort(), limitMs);
  const signal = AbortSignal.any([session.signal, ended.signal]);
  const shown = new Map<string, string>();
  try {
    for (const [name, { after }] of open) {
      if (
        after?.settled === true &&
        (await admin.documents.get(after.kind, after.metadata.name, session.limits())).settled
      ) {
        open.delete(name);
      }
    }
    if (open.size === 0) {
      return;
    }
    for await (const { document, isDeleted } of admin.documents.watch({ afterVersion, signal })) {
      const name = documentName({ kind: document.kind, name: document.metadata.name });
      const text = isDeleted ? 'deleted' : statusText(document);
      const line = [text, ...document.conditions.map(({ type, message }) => `${type}: ${message}`)]
        .filter((part) => part !== '')
        .join('; ');
      if (shown.get(name) !== line && line !== '') {
        shown.set(name, line);
        await session.printer.note(`${name}: ${line}`);
      }
      const stalled = document.conditions.find(({ type }) => type === 'Stalled');
      if (open.has(name) && stalled !== undefined) {
        throw new RefusedError('Stalled', `${name}: ${stalled.message}`, {
          hint: `see "braid ctl describe ${name.replace('/', ' ')}", then "braid ctl retry assignment ${document.metadata.name}"`,
        });
      }
      if (isDeleted || document.settled) {
        open.delete(name);
      }
      if (open.size === 0) {
        return;
      }
    }
  } catch (error) {
    if (!signal.aborted || session.signal.aborted) {
      if (session.signal.aborted) {
        await session.io.stderr.write('stopped watching; the cluster goes on, see: braid ctl get all -w\n');
      }
      throw error;
    }
  } finally {
    clearTimeout(timer);
  }
  throw new DeadlineExceededError(`${[...open.keys()].join(', ')} not settled after ${Math.round(limitMs / 1000)} s`, {
    hint: 'it goes on; see "braid ctl get all -w"',
  });
}

function diffCommand(ctl: Command, app: App): void {
  addCommand<{ file: readonly string[] }>(ctl, app, {
    usage: 'diff',
    summary: 'Show what apply would change',
    details: 'The exit code is 0 if nothing would change and 5 if something would.',
    examples: ['braid ctl diff -f examples/part1.yaml', 'braid ctl export | braid ctl diff -f -'],
    modes: LIST_MODES,
    mode: 'table',
    options: [fileFlag()],
    task: () => 'compare the documents',
    run: async (session, _, options) => {
      const documents = await readDocuments(session.io, options.file);
      const admin = await session.admin();
      const results = await applied(session, admin, documents, true);
      const changed = results.filter(({ outcome }) => outcome !== 'unchanged');
      if (session.printer.mode === 'table' || session.printer.mode === 'wide') {
        for (const result of changed) {
          const lines = lineDiff(specYaml(result.before), specYaml(result.after));
          await session.io.stdout.write(`${documentName(result)} would be ${result.outcome}\n${lines.join('\n')}\n`);
        }
      } else {
        await session.printer.list(
          {
            ...RESULT_SHAPE,
            kind: 'DocumentDiffList',
            toObject: ({ kind, name, outcome, before, after }) => ({
              kind,
              name,
              outcome,
              before: before?.spec ?? null,
              after: after?.spec ?? null,
            }),
          },
          changed,
        );
      }
      await noteWarnings(session, results);
      return changed.length === 0 ? EXIT_DONE : EXIT_NO;
    },
  });
}

// ----------------------------------------------------------------------------------------------------------- showing

function getCommand(ctl: Command, app: App): void {
  addCommand<{ watch?: true }>(ctl, app, {
    usage: 'get [kind] [name]',
    isList: true,
    summary: 'List documents',
    details:
      'Without a kind, everything that somebody has written. With --watch every change is printed as it happens, in order; Ctrl-C or --timeout ends that.',
    arguments: { kind: KIND_WORDS, name: 'of one document' },
    examples: ['braid ctl get partition', 'braid ctl get assignment a1 -w -o yaml', 'braid ctl get config -o yaml'],
    modes: LIST_MODES,
    mode: 'table',
    isQuestion: true,
    options: [flag('-w, --watch', 'print every change')],
    task: ([kind, name]) => `get ${[kind, name].filter((word) => word !== undefined).join(' ')}`,
    run: async (session, [kindWord, name], options) => {
      const kind = kindWord === undefined ? undefined : kindOf(kindWord, true);
      const which = { ...(kind === undefined ? {} : { kind }), ...(name === undefined ? {} : { name }) };
      const admin = await session.admin();
      if (options.watch === true) {
        return watchDocuments(session, admin, which);
      }
      const { documents } = await admin.documents.list({ ...session.limits(), ...which });
      const [only] = documents;
      const isWhole = session.options.fields === undefined && !session.printer.isChoosy;
      if (name !== undefined && isWhole && only !== undefined && isMachineMode(session.printer.mode)) {
        await printDocument(session, only);
      } else {
        await session.printer.list(DOCUMENT_SHAPE, documents);
      }
      return EXIT_DONE;
    },
  });
}

function describeCommand(ctl: Command, app: App): void {
  addCommand<object>(ctl, app, {
    usage: 'describe <kind> <name>',
    summary: 'Show all that is known about a document',
    details:
      'Also its conditions, its regions and where their replicas are; of the config every setting with its value and where that comes from.',
    arguments: { kind: ONE_KIND_WORDS, name: 'of the document' },
    examples: ['braid ctl describe partition part1', 'braid ctl describe config placement'],
    modes: LIST_MODES,
    mode: 'table',
    isQuestion: true,
    isWatchable: true,
    task: ([kind, name]) => `describe ${kind} ${name}`,
    run: async (session, [kindWord, name]) => {
      const admin = await session.admin();
      const document = await admin.documents.get(oneKind(kindWord as string), name as string, session.limits());
      const { keyFormat } = session.options;
      if (session.printer.mode === 'yaml') {
        await session.io.stdout.write(toPlainYaml(fullDocument(document, keyFormat)));
      } else {
        await session.printer.single(documentSingle(document, keyFormat, Date.now()));
      }
      return EXIT_DONE;
    },
  });
}

function exportCommand(ctl: Command, app: App): void {
  addCommand<object>(ctl, app, {
    usage: 'export [kind] [name]',
    summary: 'Print documents so that apply takes them again',
    details:
      'Without status and versions. Completed Assignments are history, and what is as by default needs no document: both are left out unless they are named.',
    arguments: { kind: KIND_WORDS, name: 'of one document' },
    examples: ['braid ctl export > documents.yaml', 'braid ctl export config > settings.yaml'],
    modes: LIST_MODES,
    mode: 'yaml',
    isQuestion: true,
    task: () => 'export the documents',
    run: async (session, [kindWord, name]) => {
      const kind = kindWord === undefined ? undefined : kindOf(kindWord, true);
      const admin = await session.admin();
      const { documents } = await admin.documents.list({
        ...session.limits(),
        ...(kind === undefined ? {} : { kind }),
        ...(name === undefined ? {} : { name }),
      });
      // Partitions come first, so that Assignments find them.
      const chosen = documents
        .filter((document) => name !== undefined || isWorthKeeping(document))
        .toSorted((a, b) => Number(a.kind === 'Assignment') - Number(b.kind === 'Assignment'));
      if (session.printer.mode === 'yaml') {
        await session.io.stdout.write(chosen.map((document) => toPlainYaml(exportedDocument(document))).join('---\n'));
      } else {
        await session.printer.list({ ...DOCUMENT_SHAPE, toObject: exportedDocument }, chosen);
      }
      return EXIT_DONE;
    },
  });
}

/** Whether a file for `apply` needs it. */
function isWorthKeeping({ kind, settled, metadata, spec, observed }: DocumentInfo): boolean {
  switch (kind) {
    case 'Partition':
      return true;
    case 'Assignment':
      return !settled;
    case 'PlacementRule':
      return metadata.resourceVersion > 0;
    case 'Scheduler':
      return observed?.['changed'] === true;
    case 'Config':
      return Object.keys(spec).length > 0;
  }
}

// ----------------------------------------------------------------------------------------------------------- changing

interface DeleteFlags {
  readonly yes?: true;
  readonly dryRun?: true;
  readonly detach?: true;
  readonly expectVersion?: number;
}

function deleteCommand(ctl: Command, app: App): void {
  addCommand<DeleteFlags>(ctl, app, {
    usage: 'delete <kind> <name>',
    summary: 'Delete a document',
    details:
      'No data is deleted: the region of a deleted Partition goes on without a name. A running Assignment is taken back, or ends after the step that cannot be taken back. A scheduler returns to its defaults, the config to what the file says.',
    arguments: { kind: ONE_KIND_WORDS, name: 'of the document' },
    examples: ['braid ctl delete assignment a1 --yes', 'braid ctl delete config placement --dry-run'],
    modes: LIST_MODES,
    mode: 'table',
    options: [
      flag('--yes', 'do not ask; needed without a terminal'),
      flag('--dry-run', 'only say what would happen'),
      flag('--detach', 'do not wait for a running Assignment to end'),
      flag('--expect-version <version>', 'refuse if the document has changed since').argParser(positive),
      reasonFlag(),
    ],
    task: ([kind, name]) => `delete ${kind} ${name}`,
    run: async (session, [kindWord, nameWord], options) => {
      const kind = oneKind(kindWord as string);
      const name = nameWord as string;
      const admin = await session.admin();
      if (options.dryRun !== true && options.yes !== true) {
        await confirmByName(session, kind, name);
      }
      const { version } = await admin.documents.list(session.limits());
      const result = await admin.documents.delete(kind, name, {
        ...session.limits(),
        dryRun: options.dryRun ?? false,
        ...(options.expectVersion === undefined ? {} : { expectVersion: options.expectVersion }),
      });
      await session.printer.list(RESULT_SHAPE, [result]);
      if (result.outcome === 'ending' && options.dryRun !== true && options.detach !== true) {
        await waitSettled(session, admin, version, [result]);
      }
      return EXIT_DONE;
    },
  });
}

const EFFECT_OF_DELETE: Readonly<Record<DocumentKind, string>> = {
  Partition: 'its data stays',
  Assignment: 'its data stays',
  PlacementRule: 'replicas that only it asked for go away',
  Scheduler: 'its switch and its parameters return to their defaults',
  Config: 'every setting returns to what the file says',
};

/** Asks for the name on a terminal; refuses where nobody could answer. */
async function confirmByName(session: Session, kind: DocumentKind, name: string): Promise<void> {
  const what = `${kind} ${name}`;
  if (!session.io.isStdinTerminal) {
    throw new RefusedError('NotConfirmed', `deleting ${what} was not confirmed`, {
      hint: 'repeat the command with --yes',
    });
  }
  await session.io.stderr.write(`${what} will be deleted; ${EFFECT_OF_DELETE[kind]}. Type its name to go on: `);
  let typed = '';
  for await (const part of session.io.stdin) {
    typed += Buffer.from(part).toString('utf8');
    if (typed.includes('\n')) {
      break;
    }
  }
  if (typed.trim() !== name) {
    throw new RefusedError('NotConfirmed', `the name was not ${name}`, { hint: 'nothing was deleted' });
  }
}

function retryCommand(retry: Command, app: App): void {
  addCommand<ExpectVersionFlag>(retry, app, {
    usage: 'assignment <name>',
    summary: 'Let an Assignment go on after its operators failed too often',
    arguments: { name: 'of the Assignment' },
    examples: ['braid ctl retry assignment a1', 'braid ctl retry assignment a1 -o json'],
    modes: LIST_MODES,
    mode: 'table',
    options: [reasonFlag(), expectVersionFlag('the document')],
    task: ([name]) => `retry assignment ${name}`,
    run: async (session, [name], options) => {
      const admin = await session.admin();
      const limits = { ...session.limits(), ...expectedVersion(options) };
      await session.printer.list(RESULT_SHAPE, [await admin.documents.retryAssignment(name as string, limits)]);
      return EXIT_DONE;
    },
  });
}
