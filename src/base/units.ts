/** Text forms of durations and sizes, for configuration files and the command line only; code uses `Ms` and `Bytes` numbers. */

const DURATION_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const SIZE_BYTES: Readonly<Record<string, number>> = {
  B: 1,
  KiB: 1024,
  MiB: 1024 ** 2,
  GiB: 1024 ** 3,
  TiB: 1024 ** 4,
  KB: 1000,
  MB: 1000 ** 2,
  GB: 1000 ** 3,
};

export const KIB = 1024;
export const MIB: number = 1024 * 1024;
export const GIB: number = 1024 * 1024 * 1024;

function parseWithUnit(text: string, units: Readonly<Record<string, number>>): number | undefined {
  const match = /^\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*$/.exec(text);
  if (match === null || !Object.hasOwn(units, match[2] as string)) {
    return undefined;
  }
  return Number(match[1]) * (units[match[2] as string] as number);
}

/** Parses `250ms`, `10s`, `5m`, `2h`, `1d` into milliseconds; undefined if it is not a duration. */
export const parseDurationMs = (text: string): number | undefined => parseWithUnit(text, DURATION_MS);

/** Parses `512B`, `96KiB`, `8MiB`, `1GiB` into bytes; undefined if it is not a size. */
export function parseSizeBytes(text: string): number | undefined {
  const value = parseWithUnit(text, SIZE_BYTES);
  return value === undefined ? undefined : Math.floor(value);
}

export function formatBytes(bytes: number): string {
  for (const unit of ['GiB', 'MiB', 'KiB'] as const) {
    const factor = SIZE_BYTES[unit] as number;
    if (bytes >= factor) {
      return `${(bytes / factor).toFixed(1)} ${unit}`;
    }
  }
  return `${bytes} B`;
}

export function formatDurationMs(ms: number): string {
  if (ms < 1000) {
    return `${Math.round(ms)}ms`;
  }
  const s = ms / 1000;
  if (s < 60) {
    return `${s.toFixed(1)}s`;
  }
  const m = Math.floor(s / 60);
  return m < 60 ? `${m}m${Math.round(s % 60)}s` : `${Math.floor(m / 60)}h${m % 60}m`;
}
