/** docs/placement.md explains every word a user can meet. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { STEP_REFUSALS } from '../../../src/meta/step-refusal.ts';
import { END_REASON_CODES } from '../../../src/pd/schedule/operator/status.ts';
import { SWITCHES } from '../../../src/pd/schedule/switches.ts';
import { REFUSAL_CODES } from '../../../src/pd/schedule/verdict.ts';

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
      expect(text).toContain(`| \`${info.name}\` | ${info.enabledByDefault ? 'on' : 'off'} |`);
    }
  });
});
