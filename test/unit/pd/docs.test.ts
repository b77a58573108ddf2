/** docs/placement.md explains every word a user can meet. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { ASSIGNMENT_TYPES, CONDITION_TYPES } from '../../../src/pd/resource/resource.ts';
import { STEP_REFUSALS } from '../../../src/meta/step-refusal.ts';
import { END_REASON_CODES } from '../../../src/pd/schedule/operator/status.ts';
import { MIB } from '../../../src/base/units.ts';
import { DEFAULT_PLACEMENT_CONFIG } from '../../../src/pd/defaults.ts';
import { type ParameterUnit, parametersOf } from '../../../src/pd/schedule/parameters.ts';
import { SWITCHES } from '../../../src/pd/schedule/switches.ts';
import { REFUSAL_CODES } from '../../../src/pd/schedule/verdict.ts';

const documents = readFileSync(new URL('../../../docs/documents.md', import.meta.url), 'utf8');
const text = readFileSync(new URL('../../../docs/placement.md', import.meta.url), 'utf8');

describe('docs/placement.md', () => {
  test('explains every refusal, every reason for an end, and every switch', () => {
    const words = [...REFUSAL_CODES, ...END_REASON_CODES, ...SWITCHES.map((info) => info.name)];
    expect(words.filter((word) => !text.includes(`\`${word}\``))).toEqual([]);
  });

  test('explains every refusal of stores, and whether it lasts', () => {
    for (const [code, { outlook }] of Object.entries(STEP_REFUSALS)) {
      const row = text
        .split('\n')
        .find((line) => line.startsWith('| `') && line.includes(`\`${code}\``) && / \| (passes|lasts) \| /.test(line));
      expect(row, code).toContain(outlook === 'lasting' ? '| lasts |' : '| passes |');
    }
  });

  test('says how every switch is set by default', () => {
    for (const info of SWITCHES) {
      const state = info.isOptional === true ? 'not added' : info.enabledByDefault ? 'on' : 'off';
      expect(text).toContain(`| \`${info.name}\` | ${state} |`);
    }
  });
});

describe('the parameters of checkers and schedulers in docs/placement.md', () => {
  const rows = text.split('\n').filter((line) => line.startsWith('| `'));

  test('are all there, each with its default', () => {
    for (const { name } of SWITCHES) {
      for (const spec of parametersOf(name)) {
        const value = valueText(spec.defaultOf(DEFAULT_PLACEMENT_CONFIG), spec.unit);
        expect(
          rows.some((row) => row.startsWith(`| \`${name}\` | \`${spec.name}\` | ${value} |`)),
          `${name} ${spec.name} ${value}`,
        ).toBe(true);
      }
    }
  });
});

function valueText(value: number, unit: ParameterUnit): string {
  switch (unit) {
    case 'bytes':
      return `${value / MIB} MiB`;
    case 'bytes-per-second':
      return `${value / MIB} MiB/s`;
    case 'milliseconds':
      return value % 60_000 === 0 ? `${value / 60_000} m` : `${value} ms`;
    case 'count':
    case 'ratio':
      return String(value);
  }
}

describe('docs/documents.md', () => {
  test('explains every condition, type and status of a pod', () => {
    const words = [...CONDITION_TYPES, ...ASSIGNMENT_TYPES, 'starting', 'follower', 'primary', 'proxy', 'unassigning'];
    expect(words.filter((word) => !documents.includes(`\`${word}\``))).toEqual([]);
  });

  test('names examples that exist', () => {
    const names = new Set([...documents.matchAll(/examples\/([\w-]+\.yaml)/g)].map(([, name]) => name as string));
    expect(names.size).toBeGreaterThan(6);
    for (const name of names) {
      expect(readFileSync(new URL(`../../../examples/${name}`, import.meta.url), 'utf8')).toContain('metadata:');
    }
  });

  test('shows recordings with every phase in its order', () => {
    const statusOf = (one: unknown): unknown => (one as { readonly status?: unknown } | null)?.status;
    const recordings = [...documents.matchAll(/^```yaml\n(.*?)^```$/gms)]
      .map(([, block]) => parseAllDocuments(block as string).map((one) => one.toJS() as unknown))
      .filter((all) => all.length > 1);
    expect(recordings).toHaveLength(2);
    const phases = recordings.map((all) =>
      all
        .map(statusOf)
        .map((status) => Object.values((status ?? {}) as Record<string, unknown>)[0])
        .filter((inner) => typeof inner === 'object' && inner !== null)
        .map((inner) => (inner as { readonly status: string }).status),
    );
    expect(phases).toEqual([
      ['loading', 'following', 'proxying', 'completed'],
      ['loading', 'following', 'proxying', 'completed'],
    ]);
  });
});
