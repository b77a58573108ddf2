/** How benchmark results look as tables. */
import { formatCount } from '../text-form.ts';
import type { ListShape } from '../output/printer.ts';
import type { Cell, Ratio } from './report.ts';

/** Microseconds as milliseconds with three significant digits. */
export function formatUs(us: number): string {
  const ms = us / 1000;
  return ms >= 100 ? ms.toFixed(0) : ms >= 10 ? ms.toFixed(1) : ms.toFixed(2);
}

const formatRatio = (ratio: number): string => (Number.isFinite(ratio) ? `${ratio.toFixed(2)}x` : 'n/a');

export const CELL_SHAPE: ListShape<Cell> = {
  kind: 'BenchResultList',
  columns: [
    { head: 'target', cell: (cell) => cell.target },
    { head: 'workload', cell: (cell) => cell.workload },
    { head: 'clients', cell: (cell) => cell.clients, align: 'right' },
    { head: 'ops/s', cell: (cell) => formatCount(cell.perSecond), value: (cell) => cell.perSecond, align: 'right' },
    { head: 'low', cell: (cell) => formatCount(cell.perSecondLow), value: (cell) => cell.perSecondLow, align: 'right' },
    {
      head: 'high',
      cell: (cell) => formatCount(cell.perSecondHigh),
      value: (cell) => cell.perSecondHigh,
      align: 'right',
    },
    { head: 'p50-ms', cell: (cell) => formatUs(cell.latency.p50Us), align: 'right' },
    { head: 'p99-ms', cell: (cell) => formatUs(cell.latency.p99Us), align: 'right' },
    { head: 'p99.9-ms', cell: (cell) => formatUs(cell.latency.p999Us), align: 'right' },
    { head: 'max-ms', cell: (cell) => formatUs(cell.latency.maxUs), align: 'right' },
    { head: 'errors', cell: (cell) => cell.errors, align: 'right' },
    { head: 'client-cpu', cell: (cell) => `${Math.round(cell.clientCpu * 100)}%`, align: 'right' },
    { head: 'rounds', cell: (cell) => cell.rounds, align: 'right', isWide: true },
  ],
  toObject: (cell) => ({ ...cell }),
};

/** `baseName` and `otherName` head the two throughput columns. */
export function ratioShape(baseName: string, otherName: string): ListShape<Ratio> {
  return {
    kind: 'BenchComparison',
    columns: [
      { head: 'target', cell: (ratio) => ratio.other.target },
      { head: 'workload', cell: (ratio) => ratio.workload },
      { head: 'clients', cell: (ratio) => ratio.clients, align: 'right' },
      {
        head: `${baseName}-ops/s`,
        cell: (ratio) => formatCount(ratio.base.perSecond),
        value: (ratio) => ratio.base.perSecond,
        align: 'right',
      },
      {
        head: `${otherName}-ops/s`,
        cell: (ratio) => formatCount(ratio.other.perSecond),
        value: (ratio) => ratio.other.perSecond,
        align: 'right',
      },
      { head: 'throughput', cell: (ratio) => formatRatio(ratio.throughput), align: 'right' },
      { head: 'p50', cell: (ratio) => formatRatio(ratio.p50), align: 'right' },
      { head: 'p99', cell: (ratio) => formatRatio(ratio.p99), align: 'right' },
    ],
    toObject: (ratio) => ({ ...ratio }),
  };
}
