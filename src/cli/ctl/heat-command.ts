/** `braid ctl heat`: the heat map in text, and the hottest regions below it. */
import type { Command } from 'commander';
import { formatBytes } from '../../base/units.ts';
import type { RegionDetails } from '../../client/admin-wire.ts';
import { type App, addCommand } from '../command.ts';
import { choice, count, flag } from '../common-options.ts';
import { completeWith } from '../completion.ts';
import { EXIT_DONE } from '../exit-code.ts';
import { UsageError } from '../failure.ts';
import { COMMON_MODES } from '../output/mode.ts';
import { section } from '../output/printer.ts';
import type { Column } from '../output/table.ts';
import { type KeyFormat, formatEnd, formatStart } from '../text-form.ts';
import { HEAT_MEASURES, type HeatMeasure, type HeatRow, heatMap, heatOf } from './heat.ts';
import { peersText, rangeObject } from './shapes.ts';

const ROWS_DEFAULT = 24;
const ROWS_MAX = 1_000;
const TOP_DEFAULT = 5;
const TOP_MAX = 1_000;

const rate = (bytesPerSecond: number): string => `${formatBytes(bytesPerSecond)}/s`;
const percent = (share: number): string => `${(share * 100).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;

const rowColumns = (format: KeyFormat): readonly Column<HeatRow>[] => [
  { head: 'start', cell: (row) => formatStart(row.range.start, format) },
  { head: 'end', cell: (row) => formatEnd(row.range.end, format) },
  { head: 'regions', cell: (row) => row.regions, align: 'right' },
  { head: 'read', cell: (row) => rate(row.bytesReadPerSecond), align: 'right' },
  { head: 'written', cell: (row) => rate(row.bytesWrittenPerSecond), align: 'right' },
  { head: 'share', cell: (row) => percent(row.share), align: 'right' },
  // Bars keep a table narrow where nothing happens, so the map comes last.
  { head: 'heat', cell: (row) => row.heat.trimEnd() },
];

interface TopRow {
  readonly region: RegionDetails;
  readonly share: number;
}

const topColumns = (format: KeyFormat): readonly Column<TopRow>[] => [
  { head: 'region', cell: ({ region }) => region.id, align: 'right' },
  { head: 'start', cell: ({ region }) => formatStart(region.range.start, format) },
  { head: 'stores', cell: ({ region }) => peersText(region) },
  { head: 'size', cell: ({ region }) => formatBytes(region.sizeBytes), align: 'right' },
  { head: 'read', cell: ({ region }) => rate(region.bytesReadPerSecond), align: 'right' },
  { head: 'written', cell: ({ region }) => rate(region.bytesWrittenPerSecond), align: 'right' },
  { head: 'share', cell: ({ share }) => percent(share), align: 'right' },
];

interface HeatFlags {
  readonly rows: number;
  readonly top: number;
}

export function heatCommand(ctl: Command, app: App): void {
  const command = addCommand<HeatFlags>(ctl, app, {
    usage: 'heat [what]',
    summary: 'Show where the key space is read and written most',
    details:
      'Rows are regions in key order, or many of them, each character one region or some neighbors, darker the hotter; then the hottest regions. Rates are those of the latest report of each region.',
    arguments: { what: 'what counts: read or write; both unless it is said' },
    examples: ['braid ctl heat', 'braid ctl heat write -w --rows 40'],
    modes: COMMON_MODES,
    mode: 'table',
    isWatchable: true,
    options: [
      flag('--rows <count>', 'at most so many rows').default(ROWS_DEFAULT).argParser(count(1, ROWS_MAX)),
      flag('--top <count>', 'so many of the hottest regions').default(TOP_DEFAULT).argParser(count(0, TOP_MAX)),
    ],
    task: () => 'show the heat map',
    run: async (session, [what], options) => {
      const measure: HeatMeasure = what === undefined ? 'both' : measureOf(what);
      const { keyFormat } = session.options;
      const admin = await session.admin();
      const { regions } = await admin.regions(session.limits());
      const map = heatMap(regions, measure, options.rows);
      const total = regions.reduce((all, region) => all + heatOf(region, measure), 0);
      const top: readonly TopRow[] = regions
        .filter((region) => heatOf(region, measure) > 0)
        .toSorted((a, b) => heatOf(b, measure) - heatOf(a, measure) || a.id - b.id)
        .slice(0, options.top)
        .map((region) => ({ region, share: heatOf(region, measure) / total }));
      await session.printer.single({
        document: {
          kind: 'HeatMap',
          by: measure,
          regions: regions.length,
          regionsPerCell: map.regionsPerCell,
          bytesReadPerSecond: map.bytesReadPerSecond,
          bytesWrittenPerSecond: map.bytesWrittenPerSecond,
          rows: map.rows.map(({ range, ...row }) => ({ ...rangeObject(range, keyFormat), ...row })),
          top: top.map(({ region, share }) => ({
            id: region.id,
            ...rangeObject(region.range, keyFormat),
            leader: region.leader ?? null,
            sizeBytes: region.sizeBytes,
            bytesReadPerSecond: region.bytesReadPerSecond,
            bytesWrittenPerSecond: region.bytesWrittenPerSecond,
            share,
          })),
        },
        fields: [
          { name: 'regions', value: regions.length },
          { name: 'read', value: rate(map.bytesReadPerSecond) },
          { name: 'written', value: rate(map.bytesWrittenPerSecond) },
          { name: 'regions per character', value: map.regionsPerCell, isWide: true },
        ],
        sections: [
          section('Heat', rowColumns(keyFormat), map.rows),
          ...(top.length === 0 ? [] : [section('Top regions', topColumns(keyFormat), top)]),
        ],
      });
      if (total === 0) {
        await session.printer.note('nothing was read or written lately, or nothing was reported yet');
      }
      return EXIT_DONE;
    },
  });
  completeWith(command, HEAT_MEASURES);
}

function measureOf(word: string): HeatMeasure {
  try {
    return choice(HEAT_MEASURES)(word);
  } catch (cause) {
    throw new UsageError(
      `${JSON.stringify(word)} cannot be shown`,
      cause instanceof Error ? cause.message : 'write read or write',
    );
  }
}
