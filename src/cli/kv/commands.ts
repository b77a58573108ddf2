/** The data commands: get, put, del, cas, scan, ttl. */
import type { Command } from 'commander';
import { utf8 } from '../../base/bytes.ts';
import { SCAN_PAGE_MAX } from '../../client/defaults.ts';
import type { KeyValue } from '../../client/kv.ts';
import { type App, addCommand } from '../command.ts';
import { count, duration, flag, positive } from '../common-options.ts';
import { EXIT_DONE, EXIT_NO } from '../exit-code.ts';
import { UsageError } from '../failure.ts';
import { COMMON_MODES, DATA_MODES, isMachineMode } from '../output/mode.ts';
import type { ListShape } from '../output/printer.ts';
import type { Session } from '../session.ts';
import { formatAge, formatCount, formatKey, showValue } from '../text-form.ts';
import { keyArgument, rangeArgument, valueArgument } from './arguments.ts';

const HELP_GROUP = 'Data:';

const ttlFlag = (): ReturnType<typeof flag> =>
  flag('--ttl <duration>', 'the entry disappears after this long, in whole seconds').argParser(duration);

export function registerKvCommands(program: Command, app: App): void {
  const groups = [getCommand, putCommand, delCommand, casCommand, scanCommand, ttlCommand];
  for (const register of groups) {
    register(program, app).helpGroup(HELP_GROUP);
  }
}

/** A key as typed, visible also when it is empty. */
const typed = (key: string | undefined): string => (key === undefined || key === '' ? '""' : key);

/** A value on stdout as it is; on a terminal the prompt must not follow it in the same line. */
function rawValue(session: Session, value: Uint8Array): Uint8Array {
  return session.io.stdout.isTerminal && value.at(-1) !== 0x0a ? Buffer.concat([value, utf8('\n')]) : value;
}

function getCommand(program: Command, app: App): Command {
  return addCommand<object>(program, app, {
    usage: 'get <key>',
    summary: 'Print the value of a key',
    details:
      'Linearizable. Prints the bytes as they are unless -o says otherwise; the exit code is 5 if the key has no value.',
    arguments: { key: 'the key, escaped text unless --key-format says otherwise' },
    examples: ['braid get user:1', String.raw`braid get 'id\x00\x01' -o json`],
    modes: DATA_MODES,
    mode: 'raw',
    task: ([key]) => `get ${typed(key)}`,
    run: async (session, [text]) => {
      const key = keyArgument(session, text as string);
      const value = await (await session.db()).get(key);
      const keyText = formatKey(key, session.options.keyFormat);
      if (value === undefined) {
        await absent(session, 'Value', keyText);
        return EXIT_NO;
      }
      const shown = showValue(value, session.options.valueFormat);
      await session.printer.single({
        document: {
          kind: 'Value',
          key: keyText,
          found: true,
          value: shown.text,
          encoding: shown.encoding,
          sizeBytes: value.length,
        },
        fields: [
          { name: 'key', value: keyText },
          { name: 'value', value: shown.text },
          { name: 'encoding', value: shown.encoding, isWide: true },
          { name: 'size', value: value.length, isWide: true },
        ],
        raw: rawValue(session, value),
      });
      return EXIT_DONE;
    },
  });
}

function putCommand(program: Command, app: App): Command {
  return addCommand<{ ttl?: number; ifAbsent?: true }>(program, app, {
    usage: 'put <key> <value>',
    summary: 'Store a value under a key',
    details: 'A majority of the replicas holds it on disk before the command ends.',
    arguments: { key: 'the key', value: 'the value as text, or - to read it from stdin' },
    examples: ['braid put user:1 Ada', 'braid put image:7 - < seven.png', 'braid put session:9 open --ttl 30m'],
    modes: COMMON_MODES,
    mode: 'table',
    options: [ttlFlag(), flag('--if-absent', 'only if the key has no value; exit code 5 otherwise')],
    task: ([key]) => `put ${typed(key)}`,
    run: async (session, [text, valueText], options) => {
      const key = keyArgument(session, text as string);
      const value = await valueArgument(session, key, valueText as string);
      const { written } = await (await session.db()).put(key, value, {
        ...(options.ttl === undefined ? {} : { ttlMs: options.ttl }),
        ifAbsent: options.ifAbsent ?? false,
      });
      const keyText = formatKey(key, session.options.keyFormat);
      await mutation(session, { kind: 'PutResult', key: keyText, written, sizeBytes: value.length }, [
        written ? `stored ${keyText}` : `not stored: ${keyText} has a value already`,
      ]);
      return written ? EXIT_DONE : EXIT_NO;
    },
  });
}

function delCommand(program: Command, app: App): Command {
  return addCommand<object>(program, app, {
    usage: 'del <key>',
    summary: 'Remove a key',
    details: 'Removing a key that has no value succeeds.',
    arguments: { key: 'the key' },
    examples: ['braid del user:1', 'braid del 757365723a31 --key-format hex'],
    modes: COMMON_MODES,
    mode: 'table',
    task: ([key]) => `delete ${typed(key)}`,
    run: async (session, [text]) => {
      const key = keyArgument(session, text as string);
      await (await session.db()).delete(key);
      const keyText = formatKey(key, session.options.keyFormat);
      await mutation(session, { kind: 'DeleteResult', key: keyText }, [`deleted ${keyText}`]);
      return EXIT_DONE;
    },
  });
}

function casCommand(program: Command, app: App): Command {
  return addCommand<{ expect?: string; absent?: true; ttl?: number }>(program, app, {
    usage: 'cas <key> <new>',
    summary: 'Replace a value if it is what you expect',
    details: 'One atomic step. The exit code is 5, and what the key holds is printed, if it held something else.',
    arguments: { key: 'the key', new: 'the new value, or - to read it from stdin' },
    examples: ['braid cas counter --expect 41 42', 'braid cas lock:report --absent worker-3 --ttl 30s'],
    modes: COMMON_MODES,
    mode: 'table',
    options: [
      flag('--expect <value>', 'the value the key must have now'),
      flag('--absent', 'the key must have no value now'),
      ttlFlag(),
    ],
    task: ([key]) => `compare and swap ${typed(key)}`,
    run: async (session, [text, next], options) => {
      if ((options.expect === undefined) === (options.absent === undefined)) {
        throw new UsageError(
          options.absent === undefined
            ? 'nothing says what the key must hold'
            : '--expect and --absent exclude each other',
          'give either --expect VALUE or --absent',
        );
      }
      const key = keyArgument(session, text as string);
      const value = await valueArgument(session, key, next as string);
      const { swapped, previous } = await (await session.db()).compareAndSwap(key, {
        expected: options.expect === undefined ? undefined : utf8(options.expect),
        value,
        ...(options.ttl === undefined ? {} : { ttlMs: options.ttl }),
      });
      const keyText = formatKey(key, session.options.keyFormat);
      const shown = previous === undefined ? undefined : showValue(previous, session.options.valueFormat);
      await session.printer.single({
        document: {
          kind: 'CompareAndSwapResult',
          key: keyText,
          swapped,
          ...(shown === undefined ? { previous: null } : { previous: shown.text, previousEncoding: shown.encoding }),
        },
        fields: [
          { name: 'key', value: keyText },
          { name: 'swapped', value: swapped ? 'yes' : 'no' },
          { name: 'previous', value: shown === undefined ? '(absent)' : shown.text },
        ],
      });
      return swapped ? EXIT_DONE : EXIT_NO;
    },
  });
}

interface ScanFlags {
  readonly prefix?: string;
  readonly limit?: number;
  readonly keysOnly?: true;
  readonly reverse?: true;
  readonly pageSize?: number;
}

type Entry = KeyValue<Uint8Array, Uint8Array | undefined>;

function entryShape(session: Session, keysOnly: boolean): ListShape<Entry> {
  const { keyFormat, valueFormat } = session.options;
  const key = (entry: Entry): string => formatKey(entry.key, keyFormat);
  const value = (entry: Entry): { text: string; encoding: string } =>
    entry.value === undefined ? { text: '', encoding: 'none' } : showValue(entry.value, valueFormat);
  const keyColumn = { head: 'key', cell: key };
  return {
    kind: keysOnly ? 'KeyList' : 'EntryList',
    columns: keysOnly
      ? [keyColumn]
      : [
          keyColumn,
          { head: 'value', cell: (entry) => value(entry).text },
          { head: 'size', cell: (entry) => entry.value?.length ?? 0, align: 'right', isWide: true },
        ],
    toObject: (entry) => {
      if (keysOnly) {
        return { key: key(entry) };
      }
      const shown = value(entry);
      return { key: key(entry), value: shown.text, encoding: shown.encoding };
    },
    name: key,
    raw: (entry) =>
      keysOnly ? `${key(entry)}\n` : Buffer.concat([utf8(`${key(entry)}\t`), entry.value ?? utf8(''), utf8('\n')]),
  };
}

function scanCommand(program: Command, app: App): Command {
  return addCommand<ScanFlags>(program, app, {
    usage: 'scan [start] [end]',
    summary: 'Print the entries of a range in key order',
    details:
      'START is part of the range, END is not; without them the range is open. Every key that is there all the time is printed exactly once. The deadline holds for each page.',
    arguments: { start: 'first key', end: 'key after the last one' },
    examples: [
      'braid scan --prefix user: --limit 20',
      'braid scan a b --keys-only -o jsonl',
      'braid scan --reverse --limit 1',
    ],
    modes: [...DATA_MODES, 'name'],
    mode: 'table',
    options: [
      flag('--prefix <prefix>', 'keys that start with this, instead of START and END'),
      flag('--limit <count>', 'at most so many entries').argParser(positive),
      flag('--keys-only', 'do not read values'),
      flag('--reverse', 'from the last key to the first'),
      flag('--page-size <count>', 'entries per request').argParser(count(1, SCAN_PAGE_MAX)),
    ],
    task: ([start, end]) =>
      `scan ${start === undefined ? 'the range' : `from ${start}${end === undefined ? '' : ` to ${end}`}`}`,
    run: async (session, [start, end], options) => {
      const range = rangeArgument(session, start, end, options.prefix);
      const keysOnly = options.keysOnly ?? false;
      const db = await session.db();
      const scan = db.scan(range, {
        keysOnly,
        reverse: options.reverse ?? false,
        // A scan may take long; what must not take long is each of its pages.
        timeoutMs: session.options.timeout,
        ...(options.limit === undefined ? {} : { limit: options.limit }),
        ...(options.pageSize === undefined ? {} : { pageSize: options.pageSize }),
      });
      const blocks = async function* (): AsyncGenerator<readonly Entry[], void, undefined> {
        for await (const page of scan.pages()) {
          yield page.entries;
        }
      };
      const found = await session.printer.stream(entryShape(session, keysOnly), blocks());
      if (found === 0) {
        await session.printer.note('no entries in the range');
      } else if (session.io.stdout.isTerminal) {
        await session.printer.note(`${formatCount(found)} entries`);
      }
      return EXIT_DONE;
    },
  });
}

function ttlCommand(program: Command, app: App): Command {
  return addCommand<object>(program, app, {
    usage: 'ttl <key>',
    summary: 'Print how long an entry lives on',
    details: 'The exit code is 5 if the key has no value.',
    arguments: { key: 'the key' },
    examples: ['braid ttl session:9', 'braid ttl session:9 -o json'],
    modes: DATA_MODES,
    mode: 'table',
    task: ([key]) => `read the time to live of ${typed(key)}`,
    run: async (session, [text]) => {
      const key = keyArgument(session, text as string);
      const keyText = formatKey(key, session.options.keyFormat);
      const ttlMs = await (await session.db()).ttl(key);
      if (ttlMs === undefined) {
        await absent(session, 'TimeToLive', keyText);
        return EXIT_NO;
      }
      const isEndless = ttlMs === Infinity;
      await session.printer.single({
        document: {
          kind: 'TimeToLive',
          key: keyText,
          found: true,
          expires: !isEndless,
          ...(isEndless ? {} : { ttlMs }),
        },
        fields: [
          { name: 'key', value: keyText },
          { name: 'ttl', value: isEndless ? 'never expires' : formatAge(ttlMs) },
        ],
        raw: `${isEndless ? '+inf' : ttlMs}\n`,
      });
      return EXIT_DONE;
    },
  });
}

/** The key has no value: a remark for people, a document for machines. */
async function absent(session: Session, kind: string, keyText: string): Promise<void> {
  await session.printer.note(`absent: ${keyText} has no value`);
  if (isMachineMode(session.printer.mode)) {
    await session.printer.single({ document: { kind, key: keyText, found: false }, fields: [] });
  }
}

/** The result of a change: a document for machines; people get a sentence, on stderr because it is no data. */
async function mutation(
  session: Session,
  document: { readonly kind: string; readonly [field: string]: unknown },
  sentences: readonly string[],
): Promise<void> {
  if (!isMachineMode(session.printer.mode)) {
    for (const sentence of sentences) {
      await session.printer.note(sentence);
    }
    return;
  }
  await session.printer.single({ document, fields: [] });
}
