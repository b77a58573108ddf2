/** `ctl get --watch`: every change of documents as it happens. */
import type { AdminClient } from '../../client/admin.ts';
import type { DocumentChange, DocumentInfo, DocumentKind } from '../../client/documents.ts';
import { BraidError, RefusedError } from '../../client/errors.ts';
import { EXIT_DONE, EXIT_INTERRUPTED, type ExitCode } from '../exit-code.ts';
import { UsageError } from '../failure.ts';
import { toJson, toJsonLine, toPlainYaml } from '../output/document.ts';
import { isMachineMode } from '../output/mode.ts';
import { formatTable } from '../output/table.ts';
import type { Session } from '../session.ts';
import { rest } from '../watch.ts';
import { DOCUMENT_SHAPE, documentName, plainDocument } from './document-shapes.ts';

/** Kinds that change only when somebody asks for it: they are looked at, the others tell their changes themselves. */
const SETTING_KINDS: readonly DocumentKind[] = ['PlacementRule', 'Scheduler', 'Config'];
const LOOK_MS = 1_000;

export interface WhichDocuments {
  readonly kind?: DocumentKind;
  readonly name?: string;
}

/** A watch prints changes as they come. @throws UsageError for flags that need a whole list */
export function requireUnordered(session: Session): void {
  const { sortBy, fields } = session.options;
  const flag = sortBy === undefined ? (fields === undefined ? undefined : '--fields') : '--sort-by';
  if (flag !== undefined) {
    throw new UsageError(`--watch prints changes as they come, which ${flag} cannot be used with`, `leave ${flag} out`);
  }
}

/** One document, complete for `describe`, in the words of its author for `get`. */
export async function printDocument(session: Session, document: DocumentInfo, isDeleted = false): Promise<void> {
  const shown = { ...plainDocument(document), ...(isDeleted ? { deleted: true } : {}) };
  switch (session.printer.mode) {
    case 'yaml':
      await session.io.stdout.write(toPlainYaml(shown));
      break;
    case 'json':
      await session.io.stdout.write(toJson(shown));
      break;
    default:
      await session.io.stdout.write(toJsonLine(shown));
  }
}

/** What is there, then every change until Ctrl-C or `--timeout`. A document that is not there is waited for. */
export async function watchDocuments(session: Session, admin: AdminClient, which: WhichDocuments): Promise<ExitCode> {
  requireUnordered(session);
  const isMeant = ({ kind, metadata }: DocumentInfo): boolean =>
    (which.kind === undefined || which.kind === kind) && (which.name === undefined || which.name === metadata.name);
  const { documents, version } = await admin.documents.list({
    ...session.limits(),
    ...(which.kind === undefined ? {} : { kind: which.kind }),
  });
  const present = documents.filter(isMeant);
  const show = new ChangePrinter(session);
  for (const document of present) {
    await show.print(document, false);
  }
  await session.printer.note('watching for changes; Ctrl-C ends this');
  // Without --timeout a watch has no end.
  const ended = new AbortController();
  const timer = session.isTimeoutGiven ? setTimeout(() => ended.abort(), session.leftMs) : undefined;
  const signal = AbortSignal.any([session.signal, ended.signal]);
  const follow = async (changes: AsyncIterable<DocumentChange>): Promise<void> => {
    for await (const { document, isDeleted } of changes) {
      if (isMeant(document)) {
        await show.print(document, isDeleted);
      }
    }
  };
  const isSetting = which.kind !== undefined && SETTING_KINDS.includes(which.kind);
  try {
    await Promise.all([
      ...(isSetting ? [] : [follow(admin.documents.watch({ afterVersion: version, signal }))]),
      ...(isSetting || which.kind === undefined ? [follow(settingChanges(admin, which, documents, signal))] : []),
    ]);
  } catch (error) {
    if (!signal.aborted) {
      throw error;
    }
  } finally {
    ended.abort();
    clearTimeout(timer);
  }
  return session.signal.aborted ? EXIT_INTERRUPTED : EXIT_DONE;
}

/** Compares what is set with what was, every second. A service that does not answer for a moment is asked again. */
async function* settingChanges(
  admin: AdminClient,
  { kind }: WhichDocuments,
  before: readonly DocumentInfo[],
  signal: AbortSignal,
): AsyncGenerator<DocumentChange> {
  const isSetting = (document: DocumentInfo): boolean => SETTING_KINDS.includes(document.kind);
  const keyOf = ({ kind: of, metadata }: DocumentInfo): string => documentName({ kind: of, name: metadata.name });
  let known = new Map(before.filter(isSetting).map((document) => [keyOf(document), document]));
  for (;;) {
    await rest(LOOK_MS, signal);
    if (signal.aborted) {
      return;
    }
    let found: readonly DocumentInfo[];
    try {
      found = (await admin.documents.list({ signal, ...(kind === undefined ? {} : { kind }) })).documents;
    } catch (error) {
      if (error instanceof BraidError && error.retryable && !(error instanceof RefusedError)) {
        continue;
      }
      throw error;
    }
    const now = new Map(found.filter(isSetting).map((document) => [keyOf(document), document]));
    const version = (document: DocumentInfo): number => document.metadata.resourceVersion;
    for (const [key, document] of known) {
      if (!now.has(key)) {
        yield { version: version(document), isDeleted: true, document };
      }
    }
    for (const document of now.values()) {
      yield { version: version(document), isDeleted: false, document };
    }
    known = now;
  }
}

/** Prints what differs from what was printed last of a document; one after the other, whoever asks. */
class ChangePrinter {
  readonly #session: Session;
  readonly #printed = new Map<string, string>();
  #count = 0;
  #last: Promise<void> = Promise.resolve();

  constructor(session: Session) {
    this.#session = session;
  }

  print(document: DocumentInfo, isDeleted: boolean): Promise<void> {
    this.#last = this.#last.then(() => this.#print(document, isDeleted));
    return this.#last;
  }

  async #print(document: DocumentInfo, isDeleted: boolean): Promise<void> {
    const session = this.#session;
    const { mode } = session.printer;
    if (session.printer.chosen(DOCUMENT_SHAPE, [document], true).length === 0) {
      return;
    }
    const name = documentName({ kind: document.kind, name: document.metadata.name });
    const { spec, status, conditions } = document;
    const seen = JSON.stringify([isDeleted, spec, status, mode === 'wide' ? conditions : []]);
    if (this.#printed.get(name) === seen) {
      return;
    }
    this.#printed.set(name, seen);
    if (mode === 'yaml') {
      await session.io.stdout.write(this.#count === 0 ? '' : '---\n');
    }
    this.#count++;
    if (isMachineMode(mode)) {
      await printDocument(session, document, isDeleted);
    } else if (mode === 'name') {
      await session.io.stdout.write(`${name}\n`);
    } else {
      const columns = DOCUMENT_SHAPE.columns.filter((column) => mode === 'wide' || column.isWide !== true);
      const row = isDeleted ? { ...document, status: 'deleted' } : document;
      await session.io.stdout.write(formatTable(columns, [row], this.#count === 1 && session.options.headers));
    }
  }
}
