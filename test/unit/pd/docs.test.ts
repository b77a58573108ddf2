/** docs/placement.md explains every word a user can meet. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { END_REASON_CODES } from '../../../src/pd/schedule/operator/status.ts';
import { SWITCHES } from '../../../src/pd/schedule/switches.ts';
import { REFUSAL_CODES } from '../../../src/pd/schedule/verdict.ts';

const text = readFileSync(new URL('../../../docs/placement.md', import.meta.url), 'utf8');

describe('docs/placement.md', () => {
  test('explains every refusal, every reason for an end, and every switch', () => {
    const words = [...REFUSAL_CODES, ...END_REASON_CODES, ...SWITCHES.map((info) => info.name)];
    expect(words.filter((word) => !text.includes(`\`${word}\``))).toEqual([]);
  });

  test('says how every switch is set by default', () => {
    for (const info of SWITCHES) {
      expect(text).toContain(`| \`${info.name}\` | ${info.enabledByDefault ? 'on' : 'off'} |`);
    }
  });
});
