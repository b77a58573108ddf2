/**
 * Where the traffic is: the key space cut into rows of cells, each cell one region or some neighbors, darker the more is
 * read or written there. Pure; what the rows say adds up to what the regions say.
 */
import type { RegionDetails } from '../../client/admin-wire.ts';
import type { KeyRange } from '../../base/key-range.ts';

/** Cells of one row. */
export const CELLS_PER_ROW = 32;
/** From nothing to the hottest cell. */
const SHADES = ' .:-=+*#%@';

export const HEAT_MEASURES = ['read', 'write'] as const;
export type HeatMeasure = (typeof HEAT_MEASURES)[number] | 'both';

export interface HeatRow {
  readonly range: KeyRange;
  readonly regions: number;
  readonly bytesReadPerSecond: number;
  readonly bytesWrittenPerSecond: number;
  /** Of everything that is measured, 0 to 1. */
  readonly share: number;
  /** One character per cell. */
  readonly heat: string;
}

export interface HeatMap {
  readonly rows: readonly HeatRow[];
  readonly regionsPerCell: number;
  readonly bytesReadPerSecond: number;
  readonly bytesWrittenPerSecond: number;
}

export const heatOf = (region: RegionDetails, measure: HeatMeasure): number =>
  (measure === 'write' ? 0 : region.bytesReadPerSecond) + (measure === 'read' ? 0 : region.bytesWrittenPerSecond);

const sum = (regions: readonly RegionDetails[], value: (region: RegionDetails) => number): number =>
  regions.reduce((total, region) => total + value(region), 0);

function chunks<T>(items: readonly T[], size: number): readonly (readonly T[])[] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, i) => items.slice(i * size, (i + 1) * size));
}

/** Only nothing at all is blank, and only the hottest has the darkest shade. */
export function shade(value: number, max: number): string {
  if (value <= 0 || max <= 0) {
    return SHADES.charAt(0);
  }
  const steps = SHADES.length - 1;
  return SHADES.charAt(Math.min(steps, 1 + Math.floor((value / max) * (steps - 1))));
}

/**
 * @param regions in key order
 * @param rowsMax cells hold several regions if there are more than this many rows of one region each
 */
export function heatMap(regions: readonly RegionDetails[], measure: HeatMeasure, rowsMax: number): HeatMap {
  const regionsPerCell = Math.max(1, Math.ceil(regions.length / (rowsMax * CELLS_PER_ROW)));
  const cells = chunks(regions, regionsPerCell).map((inside) => ({
    inside,
    value: sum(inside, (region) => heatOf(region, measure)),
  }));
  const hottest = Math.max(0, ...cells.map(({ value }) => value));
  const total = cells.reduce((all, { value }) => all + value, 0);
  // Few regions make one cell a row, so that each has its rates beside it.
  const cellsPerRow = cells.length <= rowsMax ? 1 : CELLS_PER_ROW;
  return {
    rows: chunks(cells, cellsPerRow).map((row) => {
      const inside = row.flatMap((cell) => cell.inside);
      const value = row.reduce((all, cell) => all + cell.value, 0);
      return {
        range: {
          start: (inside[0] as RegionDetails).range.start,
          end: (inside.at(-1) as RegionDetails).range.end,
        },
        regions: inside.length,
        bytesReadPerSecond: sum(inside, (region) => region.bytesReadPerSecond),
        bytesWrittenPerSecond: sum(inside, (region) => region.bytesWrittenPerSecond),
        share: total === 0 ? 0 : value / total,
        heat:
          cellsPerRow === 1
            ? shade(value, hottest).repeat(barLength(value, hottest))
            : row.map((cell) => shade(cell.value, hottest)).join(''),
      };
    }),
    regionsPerCell,
    bytesReadPerSecond: sum(regions, (region) => region.bytesReadPerSecond),
    bytesWrittenPerSecond: sum(regions, (region) => region.bytesWrittenPerSecond),
  };
}

/** A row of one cell is as long as it is hot. */
const barLength = (value: number, max: number): number =>
  value <= 0 ? 0 : Math.max(1, Math.round((value / max) * CELLS_PER_ROW));
