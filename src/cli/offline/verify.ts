/** `braid offline verify`: whether everything in a directory is as a store or placement member needs it. */
import type { Command } from 'commander';
import { AppError } from '../../base/app-error.ts';
import { FULL_RANGE } from '../../base/key-range.ts';
import { formatBytes } from '../../base/units.ts';
import type { Engine } from '../../env/engine.ts';
import { loadGroup, loadGroupRegions } from '../../pd/group/group-disk.ts';
import { type App, addCommand } from '../command.ts';
import { EXIT_DONE, EXIT_NO, type ExitCode } from '../exit-code.ts';
import { LIST_MODES } from '../output/mode.ts';
import { section, type Single } from '../output/printer.ts';
import { ProgressLine } from '../output/progress.ts';
import type { Session } from '../session.ts';
import { formatCount, formatKey } from '../text-form.ts';
import { type OpenDirectory, openDirectory } from './data-directory.ts';
import type { FrozenCopy } from './frozen-copy.ts';
import { filesObject } from './inspect.ts';
import { walkRecords } from './record-walk.ts';
import { readStore } from './store-content.ts';
import { type Finding, type RegionSum, type Verification, verifyStore } from './verify-store.ts';

const NOTHING_READ: Verification = { findings: [], regions: [], rows: 0, rowBytes: 0, cleaningRows: 0 };
/** Damaged values of a placement member that are listed one by one. */
const PLACEMENT_FINDINGS_MAX = 100;

export function verifyCommand(offline: Command, app: App): void {
  addCommand<object>(offline, app, {
    usage: 'verify <dir>',
    summary: 'Check every record in the directory of a stopped store or placement member',
    details:
      'Checks the write-ahead log, every checksum, the logs and states of all regions, that no two of them overlap and that every row belongs to one, and prints the hash of each region. Exit code 5 with findings. Changes nothing.',
    arguments: { dir: 'data directory of a store or of a placement member' },
    examples: ['braid offline verify braid-data/store-1', 'braid offline verify /var/lib/braid/store -o json --quiet'],
    modes: LIST_MODES,
    mode: 'table',
    task: ([dir]) => `verify ${dir}`,
    run: (session, [dir]) => verify(session, dir as string),
  });
}

async function verify(session: Session, dir: string): Promise<ExitCode> {
  const opened = await openDirectory(dir);
  await using copy = opened.copy;
  const findings: Finding[] = logFindings(copy);
  let done = NOTHING_READ;
  const { state } = copy;
  if (state.type === 'damaged') {
    findings.push({ code: 'DamagedDatabase', regionId: 0, detail: state.error.message });
    await session.printer.note('the database cannot be opened: nothing in it was checked');
  } else {
    done =
      opened.type === 'store'
        ? await verifyRegions(session, opened, state.engine)
        : await verifyPlacement(state.engine, opened);
  }
  findings.push(...done.findings);
  await session.printer.single(reportSingle(opened, { ...done, findings }, state.type === 'sound'));
  return findings.length === 0 ? EXIT_DONE : EXIT_NO;
}

const logFindings = ({ files }: FrozenCopy): Finding[] =>
  files.logs.flatMap(({ name, finding }) =>
    finding.type === 'damaged'
      ? [
          {
            code: 'DamagedDatabase',
            regionId: 0,
            detail: `${name} is damaged at byte ${finding.offset}, and sound records follow`,
          },
        ]
      : [],
  );

async function verifyRegions(
  session: Session,
  { ident }: Extract<OpenDirectory, { type: 'store' }>,
  engine: Engine,
): Promise<Verification> {
  const progress = new ProgressLine(session.io.stderr, session.options.quiet);
  const facts = await readStore(engine, async (done, total) => {
    session.signal.throwIfAborted();
    await progress.update(() => ({ done, total, unit: 'logs', count: done, remark: '' }));
  });
  const total = facts.regions.length;
  try {
    return await verifyStore({
      engine,
      facts,
      storeId: ident.storeId,
      formatKey: (key) => formatKey(key, session.options.keyFormat),
      onRows: async (done, rows) => {
        session.signal.throwIfAborted();
        await progress.update(() => ({ done, total, unit: 'rows', count: rows, remark: '' }));
      },
    });
  } finally {
    await progress.clear();
  }
}

/** Of a placement member: that every value matches its checksum, and that its state can be loaded. */
async function verifyPlacement(
  engine: Engine,
  { content }: Extract<OpenDirectory, { type: 'placement' }>,
): Promise<Verification> {
  const findings: Finding[] = [];
  let rows = 0;
  let rowBytes = 0;
  for await (const page of walkRecords(engine, FULL_RANGE)) {
    for (const record of page) {
      rows++;
      rowBytes += record.key.length + (record.type === 'record' ? record.value.length : 0);
      if (record.type !== 'record' && findings.length < PLACEMENT_FINDINGS_MAX) {
        findings.push({
          code: 'BadRecord',
          regionId: 0,
          detail: `record ${formatKey(record.key, 'escaped')}: ${record.reason}`,
        });
      }
    }
  }
  try {
    await loadGroupRegions(engine);
    if (content?.type === 'member') {
      await loadGroup(engine);
    }
  } catch (error) {
    if (!(error instanceof AppError)) {
      throw error;
    }
    findings.push({ code: 'WouldNotStart', regionId: 0, detail: error.message });
  }
  return { findings, regions: [], rows, rowBytes, cleaningRows: 0 };
}

function reportSingle(opened: OpenDirectory, done: Verification, isOpened: boolean): Single {
  const { findings, regions, rows, rowBytes, cleaningRows } = done;
  const { copy } = opened;
  const torn = copy.files.logs.filter(({ finding }) => finding.type === 'torn-tail').length;
  const isStore = opened.type === 'store';
  return {
    document: {
      kind: 'VerifyReport',
      directory: opened.path,
      ...(isStore ? { storeId: opened.ident.storeId, clusterId: opened.ident.clusterId } : {}),
      sound: findings.length === 0,
      opened: isOpened,
      database: filesObject(copy.files),
      ...(isStore ? { rows, rowBytes, rowsBeingCleaned: cleaningRows } : { records: rows, recordBytes: rowBytes }),
      regions,
      findings: findings.map(({ code, regionId, detail, more }) => ({
        code,
        regionId: regionId === 0 ? null : regionId,
        detail,
        ...more,
      })),
    },
    name: findings.map(({ code, regionId }) => (regionId === 0 ? code : `${code} ${regionId}`)).join('\n'),
    fields: [
      { name: isStore ? 'store' : 'placement member', value: isStore ? opened.ident.storeId : opened.path },
      {
        name: 'write-ahead logs',
        value: `${copy.files.logs.length}${torn === 0 ? '' : `, ${torn} with an unfinished last write, which nobody was told of`}`,
      },
      ...(isStore ? [{ name: 'regions', value: formatCount(regions.length) }] : []),
      {
        name: isStore ? 'rows' : 'records',
        value: `${formatCount(rows)} with ${formatBytes(rowBytes)}${cleaningRows === 0 ? '' : `, ${formatCount(cleaningRows)} more are about to be deleted`}`,
      },
      { name: 'findings', value: findings.length === 0 ? 'none' : formatCount(findings.length) },
    ],
    sections: [
      ...(findings.length === 0
        ? []
        : [
            section(
              'Findings',
              [
                { head: 'code', cell: (finding: Finding) => finding.code },
                {
                  head: 'region',
                  cell: ({ regionId }: Finding) => (regionId === 0 ? '' : regionId),
                  align: 'right',
                },
                { head: 'detail', cell: ({ detail }: Finding) => detail },
              ],
              findings,
            ),
          ]),
      ...(regions.length === 0
        ? []
        : [
            section(
              'Regions',
              [
                { head: 'id', cell: ({ id }: RegionSum) => id, align: 'right' },
                { head: 'applied', cell: ({ appliedIndex }: RegionSum) => appliedIndex, align: 'right' },
                { head: 'rows', cell: ({ keys }: RegionSum) => keys, align: 'right' },
                { head: 'size', cell: ({ sizeBytes }: RegionSum) => formatBytes(sizeBytes), align: 'right' },
                { head: 'hash', cell: ({ hash }: RegionSum) => hash ?? '' },
              ],
              regions,
            ),
          ]),
    ],
  };
}
