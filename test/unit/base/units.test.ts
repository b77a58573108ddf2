import { describe, expect, test } from 'vitest';
import {
  formatBytes,
  formatDurationMs,
  GIB,
  KIB,
  MIB,
  parseDurationMs,
  parseSizeBytes,
} from '../../../src/base/units.ts';

describe('durations', () => {
  test.each([
    ['250ms', 250],
    ['10s', 10_000],
    ['1.5s', 1500],
    ['5m', 300_000],
    ['2h', 7_200_000],
    ['1d', 86_400_000],
    [' 3 s ', 3000],
    ['0ms', 0],
  ])('%j is %d milliseconds', (text, ms) => {
    expect(parseDurationMs(text)).toBe(ms);
  });

  test.each(['', '10', 's', '-1s', '1 week', '1e3s', '1S', '1s2m', 'toString'])('%j is none', (text) => {
    expect(parseDurationMs(text)).toBeUndefined();
  });

  test.each([
    [0, '0ms'],
    [999, '999ms'],
    [1500, '1.5s'],
    [61_000, '1m1s'],
    [3_600_000, '1h0m'],
  ])('%d prints as %j', (ms, text) => {
    expect(formatDurationMs(ms)).toBe(text);
  });
});

describe('sizes', () => {
  test.each([
    ['512B', 512],
    ['96KiB', 96 * KIB],
    ['8MiB', 8 * MIB],
    ['1.5GiB', 1.5 * GIB],
    ['1KB', 1000],
  ])('%j is %d bytes', (text, bytes) => {
    expect(parseSizeBytes(text)).toBe(bytes);
  });

  test.each(['', '5', 'KiB', '-1B', '1kib', '1 XB', '1constructor'])('%j is none', (text) => {
    expect(parseSizeBytes(text)).toBeUndefined();
  });

  test.each([
    [0, '0 B'],
    [1023, '1023 B'],
    [1024, '1.0 KiB'],
    [96 * MIB, '96.0 MiB'],
    [3 * GIB, '3.0 GiB'],
  ])('%d prints as %j', (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text);
  });
});
