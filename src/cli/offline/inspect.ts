/** `braid offline inspect`: what the directory of a process that does not run holds. */
import { type Command, InvalidArgumentError } from 'commander';
import { regionId } from '../../base/ids.ts';
import { formatBytes } from '../../base/units.ts';
import { DATA_KEY_OVERHEAD_BYTES, dataRange } from '../../engine/keyspace.ts';
import type { Engine } from '../../env/engine.ts';
import { loadGroup, loadGroupRegions } from '../../pd/group/group-disk.ts';
import { IDENT_FORMAT } from '../../server/data-dir.ts';
import { type App, addCommand } from '../command.ts';
import { flag } from '../common-options.ts';
import { EXIT_DONE, EXIT_NO, type ExitCode } from '../exit-code.ts';
import { UsageError } from '../failure.ts';
import { isMachineMode, LIST_MODES } from '../output/mode.ts';
import { type Field, type ListShape, section, type Single } from '../output/printer.ts';
import { ProgressLine } from '../output/progress.ts';
import type { Session } from '../session.ts';
import { formatCount, formatEnd, formatStart, type KeyFormat, parseId } from '../text-form.ts';
import { type OpenDirectory, openDirectory } from './data-directory.ts';
import { epochText, type EntryView, viewEntry } from './entry-text.ts';
import type { DatabaseFiles } from './frozen-copy.ts';
import { walkRecords } from './record-walk.ts';
import { factsObject, rangeObject, regionColumns, regionSingle } from './region-shapes.ts';
import {
  INDEX_MAX,
  isLive,
  readEntries,
  readRegion,
  readStore,
  type StagedFacts,
  type StoreFacts,
} from './store-content.ts';

interface IndexRange {
  readonly from: number;
  readonly to: number;
}

interface InspectFlags {
  readonly log?: IndexRange;
}

/** `5..9`, `5..`, `..9`, `..` or `7`; both ends are included. */
function indexRange(text: string): IndexRange {
  const [, from = '', dots, to = ''] = /^(\d{0,15})(\.\.)?(\d{0,15})$/.exec(text) ?? [];
  const first = from === '' ? 0 : Number(from);
  const last = dots === undefined ? first : to === '' ? INDEX_MAX : Number(to);
  if ((dots === undefined && (from === '' || to !== '')) || first > last) {
    throw new InvalidArgumentError('Write two log indexes as FROM..TO, both included, for example 5..20, 5.. or ..20.');
  }
  return { from: first, to: last };
}

export function inspectCommand(offline: Command, app: App): void {
  addCommand<InspectFlags>(offline, app, {
    usage: 'inspect <dir> [region-id]',
    summary: 'Show what the directory of a stopped store or placement member holds',
    details:
      'With a region id everything about one replica, its merge and hard state included; with --log its log entries. Changes nothing, and is refused while a process uses the directory.',
    arguments: { dir: 'data directory of a store or of a placement member', 'region-id': 'one region of a store' },
    examples: [
      'braid offline inspect braid-data/store-1',
      'braid offline inspect braid-data/store-1 2 -o yaml',
      'braid offline inspect braid-data/store-1 2 --log 10..20',
    ],
    modes: LIST_MODES,
    mode: 'table',
    options: [
      flag('--log <from..to>', 'print these log entries of the region, both ends included').argParser(indexRange),
    ],
    task: ([dir]) => `inspect ${dir}`,
    run: (session, [dir, region], flags) => inspect(session, dir as string, region, flags),
  });
}

async function inspect(
  session: Session,
  dir: string,
  region: string | undefined,
  { log }: InspectFlags,
): Promise<ExitCode> {
  if (log !== undefined && region === undefined) {
    throw new UsageError('--log needs a region', `name one: braid offline inspect ${dir} REGION --log ..`);
  }
  const id = region === undefined ? undefined : parseId(region, 'region');
  const opened = await openDirectory(dir);
  await using copy = opened.copy;
  if (opened.type === 'placement') {
    if (id !== undefined) {
      throw new UsageError(`${dir} is of a placement member, which has no replicas`, 'leave the region id out');
    }
    await session.printer.single(await placementSingle(opened, copy.engine));
    return EXIT_DONE;
  }
  const { engine } = copy;
  if (id === undefined) {
    const progress = new ProgressLine(session.io.stderr, session.options.quiet);
    const facts = await readStore(engine, async (done, total) => {
      session.signal.throwIfAborted();
      await progress.update(() => ({ done, total, unit: 'regions', count: done, remark: '' }));
    });
    await progress.clear();
    await session.printer.single(storeSingle(opened, facts, session.options.keyFormat));
    return EXIT_DONE;
  }
  return await (log === undefined ? inspectRegion(session, engine, id) : inspectLog(session, engine, id, log));
}

async function absent(session: Session, id: number): Promise<ExitCode> {
  await session.printer.note(`absent: this store has no record of region ${id}`);
  if (isMachineMode(session.printer.mode)) {
    await session.printer.single({ document: { kind: 'OfflineRegion', id, found: false }, fields: [] });
  }
  return EXIT_NO;
}

async function inspectRegion(session: Session, engine: Engine, id: number): Promise<ExitCode> {
  const facts = await readRegion(engine, regionId(id));
  if (facts === undefined) {
    return absent(session, id);
  }
  let rows: { keys: number; bytes: number } | undefined;
  if (isLive(facts)) {
    rows = { keys: 0, bytes: 0 };
    for await (const page of walkRecords(engine, dataRange(facts.local.region.range))) {
      session.signal.throwIfAborted();
      for (const record of page) {
        rows.keys++;
        rows.bytes += record.key.length - DATA_KEY_OVERHEAD_BYTES;
        rows.bytes += record.type === 'record' ? record.value.length : 0;
      }
    }
  }
  await session.printer.single(regionSingle(facts, rows, session.options.keyFormat));
  return EXIT_DONE;
}

async function inspectLog(session: Session, engine: Engine, id: number, range: IndexRange): Promise<ExitCode> {
  if ((await readRegion(engine, regionId(id))) === undefined) {
    return absent(session, id);
  }
  const format = session.options.keyFormat;
  const blocks = async function* (): AsyncGenerator<readonly EntryView[], void, undefined> {
    for await (const entries of readEntries(engine, regionId(id), range.from, range.to)) {
      session.signal.throwIfAborted();
      yield entries.map((entry) => viewEntry(entry, format));
    }
  };
  const found = await session.printer.stream(ENTRY_SHAPE, blocks());
  if (found === 0) {
    await session.printer.note(`region ${id} has no log entries there`);
  }
  return EXIT_DONE;
}

const ENTRY_SHAPE: ListShape<EntryView> = {
  kind: 'LogEntryList',
  columns: [
    { head: 'index', cell: ({ index }) => index, align: 'right' },
    { head: 'term', cell: ({ term }) => term, align: 'right' },
    { head: 'type', cell: ({ type }) => type },
    { head: 'epoch', cell: ({ epoch }) => epochText(epoch) },
    { head: 'size', cell: ({ sizeBytes }) => sizeBytes, align: 'right', isWide: true },
    { head: 'what', cell: ({ text }) => text },
  ],
  toObject: ({ index, term, type, epoch, sizeBytes, text, details }) => ({
    index,
    term,
    type,
    epoch: epoch ?? null,
    sizeBytes,
    text,
    ...details,
  }),
  name: ({ index }) => String(index),
};

export const filesObject = ({ tables, tableBytes, logs }: DatabaseFiles): Readonly<Record<string, unknown>> => ({
  tables,
  tableBytes,
  logs: logs.map(({ name, sizeBytes, finding }) => ({ name, sizeBytes, state: finding.type })),
});

const filesText = ({ tables, tableBytes, logs }: DatabaseFiles): string =>
  `${formatCount(tables)} tables with ${formatBytes(tableBytes)}, ${logs.length} logs with ${formatBytes(logs.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0))}`;

/** `2 normal, 1 tombstone`. */
function stateCounts(facts: StoreFacts): string {
  const counts = new Map<string, number>();
  for (const { state } of facts.regions) {
    counts.set(state, (counts.get(state) ?? 0) + 1);
  }
  return [...counts].map(([state, count]) => `${formatCount(count)} ${state}`).join(', ') || 'none';
}

function storeSingle(
  { path, ident, copy }: Extract<OpenDirectory, { type: 'store' }>,
  facts: StoreFacts,
  format: KeyFormat,
): Single {
  const stagedBytes = facts.staged.reduce((sum, { bytes }) => sum + bytes, 0);
  const fields: Field[] = [
    { name: 'store', value: ident.storeId },
    { name: 'cluster', value: String(ident.clusterId) },
    { name: 'format', value: IDENT_FORMAT },
    { name: 'starts', value: facts.starts },
    { name: 'database', value: filesText(copy.files) },
    { name: 'regions', value: stateCounts(facts) },
    { name: 'redirects', value: formatCount(facts.redirects), isWide: true },
    { name: 'staged snapshots', value: `${facts.staged.length} with ${formatBytes(stagedBytes)}` },
    { name: 'ranges being cleaned', value: facts.cleaning.length },
    ...facts.bad.map(({ what, reason }) => ({ name: 'problem', value: `${what}: ${reason}` })),
  ];
  return {
    document: {
      kind: 'OfflineStore',
      directory: path,
      storeId: ident.storeId,
      clusterId: ident.clusterId,
      formatVersion: IDENT_FORMAT,
      starts: facts.starts,
      database: filesObject(copy.files),
      regions: facts.regions.map((region) => factsObject(region, format)),
      redirects: facts.redirects,
      stagedSnapshots: facts.staged.map(stagedObject),
      cleaning: facts.cleaning.map((range) => rangeObject(range, format)),
      problems: facts.bad,
    },
    name: facts.regions.map(({ id }) => String(id)).join('\n'),
    fields,
    sections: [
      section('Regions', regionColumns(format), facts.regions),
      ...(facts.staged.length === 0
        ? []
        : [
            section(
              'Staged snapshots',
              [
                { head: 'staging', cell: (staged: StagedFacts) => staged.stagingId, align: 'right' },
                { head: 'region', cell: ({ record }: StagedFacts) => record?.region.id ?? '' },
                {
                  head: 'complete',
                  cell: ({ record }: StagedFacts) => (record === undefined ? 'no' : 'yes'),
                },
                { head: 'records', cell: ({ rows }: StagedFacts) => rows, align: 'right' },
                { head: 'size', cell: ({ bytes }: StagedFacts) => formatBytes(bytes), align: 'right' },
              ],
              facts.staged,
            ),
          ]),
      ...(facts.cleaning.length === 0
        ? []
        : [
            section(
              'Ranges being cleaned',
              [
                { head: 'start', cell: (range) => formatStart(range.start, format) },
                { head: 'end', cell: (range) => formatEnd(range.end, format) },
              ],
              facts.cleaning,
            ),
          ]),
    ],
  };
}

const stagedObject = ({ stagingId, record, rows, bytes }: StagedFacts): Readonly<Record<string, unknown>> => ({
  stagingId,
  complete: record !== undefined,
  regionId: record?.region.id ?? null,
  keys: record?.keys ?? null,
  records: rows,
  sizeBytes: bytes,
});

/** A member of the placement service: who it is, who else belongs to the group, and how far its log goes. */
async function placementSingle(
  { path, content, copy }: Extract<OpenDirectory, { type: 'placement' }>,
  engine: Engine,
): Promise<Single> {
  const regions = await loadGroupRegions(engine);
  const group = content?.type === 'member' ? await loadGroup(engine) : undefined;
  const member = content?.type === 'member' ? content.ident : undefined;
  const last = group?.entries.at(-1) ?? group?.truncated;
  const { voters = [] } = group?.membership.confState ?? {};
  return {
    document: {
      kind: 'OfflinePlacement',
      directory: path,
      clusterId: content?.clusterId,
      memberId: member?.memberId ?? null,
      name: member?.name ?? null,
      database: filesObject(copy.files),
      members: group?.membership.members ?? [],
      voters,
      hardState: group?.hardState ?? null,
      appliedIndex: group?.applied.index ?? null,
      truncatedIndex: group?.truncated.index ?? null,
      lastIndex: last?.index ?? null,
      lastTerm: last?.term ?? null,
      logEntries: group?.entries.length ?? null,
      stores: group === undefined ? null : group.state.stores.size,
      regions: regions.length,
    },
    name: member?.name ?? 'pd',
    fields: [
      { name: 'member', value: member === undefined ? 'alone' : `${member.name} (${member.memberId})` },
      { name: 'cluster', value: String(content?.clusterId ?? '') },
      { name: 'database', value: filesText(copy.files) },
      ...(group === undefined
        ? []
        : [
            {
              name: 'members',
              value: group.membership.members.map(({ name, address }) => `${name} at ${address}`).join(', '),
            },
            { name: 'hard state', value: `term ${group.hardState.term}, commit ${group.hardState.commit}` },
            { name: 'applied', value: group.applied.index },
            { name: 'truncated', value: group.truncated.index },
            { name: 'last', value: `${last?.index ?? 0} (term ${last?.term ?? 0})` },
            { name: 'log entries', value: formatCount(group.entries.length) },
            { name: 'stores', value: group.state.stores.size },
          ]),
      { name: 'regions', value: formatCount(regions.length) },
    ],
  };
}
