/** `braid offline dump`: the user's rows in the directory of a stopped store, in the form `braid import` reads. */
import type { Command } from 'commander';
import { utf8 } from '../../base/bytes.ts';
import { intersectRanges, type KeyRange } from '../../base/key-range.ts';
import { decodeDataValue, isExpired } from '../../codec/data-value.ts';
import { dataRange, userKeyOf } from '../../engine/keyspace.ts';
import type { Engine } from '../../env/engine.ts';
import { type App, addCommand } from '../command.ts';
import { flag, positive } from '../common-options.ts';
import { EXIT_DONE, EXIT_NO, EXIT_PARTLY, type ExitCode } from '../exit-code.ts';
import { rangeArgument } from '../kv/arguments.ts';
import { DATA_MODES } from '../output/mode.ts';
import type { ListShape } from '../output/printer.ts';
import type { Session } from '../session.ts';
import { formatCount, formatKey, parseId, showValue } from '../text-form.ts';
import { openStoreDirectory } from './data-directory.ts';
import { walkRecords } from './record-walk.ts';
import { commitOf, lastPosition, readStore, type RegionFacts } from './store-content.ts';
import { liveInOrder } from './verify-store.ts';

interface DumpFlags {
  readonly region?: number;
  readonly start?: string;
  readonly end?: string;
  readonly limit?: number;
}

interface DumpRow {
  readonly key: Uint8Array;
  readonly value: Uint8Array;
  /** Unix seconds; 0 means never. */
  readonly expireAtSeconds: number;
}

/** Rows that are not in the dump. */
interface Counts {
  expired: number;
  damaged: number;
}

/** Damaged rows that are named one by one. */
const DAMAGED_SHOWN_MAX = 100;

export function dumpCommand(offline: Command, app: App): void {
  addCommand<DumpFlags>(offline, app, {
    usage: 'dump <dir>',
    summary: 'Print the rows in the directory of a stopped store in key order',
    details:
      'JSON lines that "braid import --format rows" stores again, with the time at which each row expires. A replica may be behind: its rows may be older than what the cluster acknowledged, and rows of regions that this store has no replica of are missing. Rows that have expired are left out; exit code 2 if some are damaged. Changes nothing.',
    arguments: { dir: 'data directory of a store' },
    examples: [
      'braid offline dump braid-data/store-1 > rows.jsonl',
      'braid offline dump braid-data/store-1 --region 2 --limit 10 -o table',
      'braid offline dump braid-data/store-1 --start user: --end user; -o raw',
    ],
    modes: [...DATA_MODES, 'name'],
    mode: 'jsonl',
    options: [
      flag('--region <id>', 'only rows of this region').argParser((text: string) => parseId(text, 'region')),
      flag('--start <key>', 'first key'),
      flag('--end <key>', 'key after the last one'),
      flag('--limit <count>', 'at most so many rows').argParser(positive),
    ],
    task: ([dir]) => `dump ${dir}`,
    run: (session, [dir], flags) => dump(session, dir as string, flags),
  });
}

async function dump(session: Session, dir: string, flags: DumpFlags): Promise<ExitCode> {
  const wanted = rangeArgument(session, flags.start, flags.end, undefined);
  const opened = await openStoreDirectory(dir);
  await using copy = opened.copy;
  const { engine } = copy;
  const { regions } = await readStore(engine, () => {
    session.signal.throwIfAborted();
    return Promise.resolve();
  });
  const live = liveInOrder(regions).filter(({ region }) => flags.region === undefined || region.id === flags.region);
  if (flags.region !== undefined && live.length === 0) {
    await session.printer.note(`absent: this store has no data of region ${flags.region}`);
    return EXIT_NO;
  }
  const chosen = live.flatMap(({ facts, region }) => {
    const range = intersectRanges(region.range, wanted);
    return range === undefined ? [] : [{ facts, range }];
  });
  const remarks = chosen.flatMap(({ facts }) => remarkOf(facts));
  const counts: Counts = { expired: 0, damaged: 0 };
  const nowSeconds = Math.floor(Date.now() / 1000);
  const readable = chosen.filter(({ facts }) => facts.state !== 'applying').map(({ range }) => range);
  const printed = await session.printer.stream(
    rowShape(session),
    rowsOf(session, engine, readable, flags.limit, nowSeconds, counts),
  );
  await session.printer.note(
    `${countText(printed, 'row')} of ${countText(readable.length, 'region')}, as this store has them: the cluster may have acknowledged newer ones`,
  );
  if (counts.expired > 0) {
    await session.printer.note(`${countText(counts.expired, 'expired row')} left out`);
  }
  for (const remark of remarks) {
    await session.printer.note(remark);
  }
  if (counts.damaged > 0) {
    // Said whatever --quiet says: a dump is trusted to be whole.
    await session.io.stderr.write(`${countText(counts.damaged, 'damaged row')} missing in this dump\n`);
    return EXIT_PARTLY;
  }
  return EXIT_DONE;
}

const countText = (n: number, what: string): string => `${formatCount(n)} ${what}${n === 1 ? '' : 's'}`;

/** What is missing in the rows of a region. */
function remarkOf(facts: RegionFacts): string[] {
  if (facts.state === 'applying') {
    return [
      `region ${facts.id} is left out: it is being installed from a snapshot; start the store once, it goes on by itself`,
    ];
  }
  const applied = facts.apply?.appliedIndex ?? 0;
  const { index } = lastPosition(facts);
  const committed = commitOf(facts) - applied;
  return index > applied
    ? [
        `region ${facts.id} has ${formatCount(index - applied)} log entries that are not in its rows yet, ${formatCount(Math.max(0, committed))} of them known to be committed; see "braid offline inspect DIR ${facts.id} --log ${applied + 1}.."`,
      ]
    : [];
}

async function* rowsOf(
  session: Session,
  engine: Engine,
  ranges: readonly KeyRange[],
  limit: number | undefined,
  nowSeconds: number,
  counts: Counts,
): AsyncGenerator<readonly DumpRow[], void, undefined> {
  let left = limit ?? Infinity;
  for (const range of ranges) {
    for await (const page of walkRecords(engine, dataRange(range))) {
      session.signal.throwIfAborted();
      const rows: DumpRow[] = [];
      for (const record of page) {
        const decoded = record.type === 'record' ? decodeDataValue(record.value) : undefined;
        if (decoded === undefined) {
          counts.damaged++;
          if (counts.damaged <= DAMAGED_SHOWN_MAX) {
            const shown = formatKey(userKeyOf(record.key), session.options.keyFormat);
            const reason = record.type === 'record' ? 'the bytes are no stored value' : record.reason;
            await session.io.stderr.write(`the row ${shown} cannot be read: ${reason}\n`);
          }
        } else if (isExpired(decoded.expireAtSeconds, nowSeconds)) {
          counts.expired++;
        } else if (left > 0) {
          left--;
          rows.push({ key: userKeyOf(record.key), ...decoded });
        }
      }
      yield rows;
      if (left <= 0) {
        return;
      }
    }
  }
}

function rowShape(session: Session): ListShape<DumpRow> {
  const { keyFormat, valueFormat } = session.options;
  const key = (row: DumpRow): string => formatKey(row.key, keyFormat);
  const expiry = ({ expireAtSeconds }: DumpRow): string | undefined =>
    expireAtSeconds === 0 ? undefined : new Date(expireAtSeconds * 1000).toISOString();
  return {
    kind: 'RowList',
    columns: [
      { head: 'key', cell: key },
      { head: 'value', cell: (row) => showValue(row.value, valueFormat).text },
      { head: 'expires', cell: (row) => expiry(row) ?? '' },
      { head: 'size', cell: (row) => row.value.length, align: 'right', isWide: true },
    ],
    toObject: (row) => {
      const { text, encoding } = showValue(row.value, valueFormat);
      return { key: key(row), value: text, encoding, expireAt: expiry(row) };
    },
    name: key,
    raw: (row) => Buffer.concat([utf8(`${key(row)}\t`), row.value, utf8('\n')]),
  };
}
