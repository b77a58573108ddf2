/** `braid ctl region siblings|top|holes`: regions seen from one of them, the largest ones, and what no region covers. */
import type { Command } from 'commander';
import type { KeyRange } from '../../base/key-range.ts';
import type { RegionDetails } from '../../client/admin-wire.ts';
import { type App, addCommand } from '../command.ts';
import { choice, flag, positive } from '../common-options.ts';
import { EXIT_DONE, EXIT_NO } from '../exit-code.ts';
import { COMMON_MODES, LIST_MODES } from '../output/mode.ts';
import type { ListShape } from '../output/printer.ts';
import { type KeyFormat, formatEnd, formatKey, formatStart, parseId } from '../text-form.ts';
import { regionShape } from './shapes.ts';

const TOP_LIMIT = 10;

const MEASURES: Readonly<Record<string, (region: RegionDetails) => number>> = {
  size: (region) => region.sizeBytes,
  keys: (region) => region.keys,
  written: (region) => region.bytesWrittenPerSecond,
  read: (region) => region.bytesReadPerSecond,
};
const MEASURE_WORDS = Object.keys(MEASURES);

const holeShape = (format: KeyFormat): ListShape<KeyRange> => ({
  kind: 'HoleList',
  columns: [
    { head: 'start', cell: (hole) => formatStart(hole.start, format) },
    { head: 'end', cell: (hole) => formatEnd(hole.end, format) },
  ],
  toObject: (hole) => ({
    startKey: hole.start.length === 0 ? null : formatKey(hole.start, format),
    endKey: hole.end.length === 0 ? null : formatKey(hole.end, format),
  }),
});

export function regionViewCommands(region: Command, app: App): void {
  addCommand<object>(region, app, {
    usage: 'siblings <id>',
    summary: 'List the regions that touch a region, left one first',
    details: 'These are the ones it can be merged with.',
    arguments: { id: 'region id' },
    examples: ['braid ctl region siblings 2', 'braid ctl region siblings 2 -o name'],
    modes: LIST_MODES,
    mode: 'table',
    isList: true,
    isQuestion: true,
    isWatchable: true,
    task: ([id]) => `list the siblings of region ${id}`,
    run: async (session, [id]) => {
      const regionId = parseId(id as string, 'region');
      const admin = await session.admin();
      const { previous, next } = await admin.region(regionId, session.limits());
      const siblings = [previous, next].filter((one) => one !== undefined);
      await session.printer.list(regionShape(session.options.keyFormat), siblings, { regionId });
      return EXIT_DONE;
    },
  });
  addCommand<{ by: string; limit: number }>(region, app, {
    usage: 'top',
    summary: 'List the largest or busiest regions',
    examples: ['braid ctl region top', 'braid ctl region top --by written --limit 3'],
    modes: LIST_MODES,
    mode: 'table',
    isList: true,
    isWatchable: true,
    options: [
      flag('--by <measure>', `what counts: ${MEASURE_WORDS.join(', ')}`)
        .default('size')
        .argParser(choice(MEASURE_WORDS)),
      flag('--limit <count>', 'so many').default(TOP_LIMIT).argParser(positive),
    ],
    task: () => 'list the top regions',
    run: async (session, _, { by }) => {
      const measure = MEASURES[by] as (region: RegionDetails) => number;
      const admin = await session.admin();
      const { regions } = await admin.regions(session.limits());
      const sorted = regions.toSorted((a, b) => measure(b) - measure(a) || a.id - b.id);
      await session.printer.list(regionShape(session.options.keyFormat), sorted, { by });
      return EXIT_DONE;
    },
  });
  addCommand<object>(region, app, {
    usage: 'holes',
    summary: 'List ranges of keys that no region covers',
    details:
      'The exit code is 5 if there are any. After a split or a restart of the placement service they close when all regions have reported.',
    examples: ['braid ctl region holes', 'braid ctl region holes -o json --key-format hex'],
    modes: COMMON_MODES,
    mode: 'table',
    isList: true,
    isWatchable: true,
    task: () => 'list holes',
    run: async (session) => {
      const admin = await session.admin();
      const { holes } = await admin.regions(session.limits());
      await session.printer.list(holeShape(session.options.keyFormat), holes);
      return holes.length === 0 ? EXIT_DONE : EXIT_NO;
    },
  });
}
