/**
 * The adversary of the consensus core: random groups must keep every promise, and each planted defect must be noticed.
 * Longer hunts: `npx tsx bench/raft-adversary.ts --seeds 100000`.
 */
import { describe, expect, test } from 'vitest';
import type { Defect } from '../../src/raft/defects.ts';
import { runSeed } from './raft-adversary.ts';

const CLEAN_SEEDS = 1500;
/** Several times as many as the slowest of the listed defects needs. */
const SEARCH_SEEDS_MAX = 3000;

/** Defects whose search is long or that only cost speed are listed, with reasons, in docs/testing-raft.md. */
const NOTICED: readonly Defect[] = [
  'commit-old-term-by-counting',
  'new-leader-forgets-pending-conf-index',
  'proposal-forgets-pending-conf-index',
  'auto-leave-ignores-pending-conf-index',
  'async-applies-unstable',
  'answer-lower-term-always',
  'probe-accepts-stale-rejection',
  'sent-commit-not-regressed',
  'heartbeat-forgets-sent-commit',
  'timeout-now-uses-pre-vote',
  'transfer-keeps-election-timer',
  'vote-keeps-election-timer',
  'stale-append-truncates',
  'apply-size-ignored',
  'leader-without-own-vote',
  'joint-commit-incoming-only',
  'joint-vote-incoming-only',
  'stable-ignores-term',
  'no-empty-append-on-full-window',
  'restart-forgets-vote',
  'restart-forgets-commit',
  'read-before-own-term-commit',
  'read-without-quorum',
  'read-keyed-by-context',
  'message-size-ignored',
  'uncommitted-size-ignored',
  'inflight-bytes-ignored',
  'snapshot-status-ignored',
  'snapshot-failure-probes-behind-it',
  'campaign-with-pending-conf-change',
  'campaign-with-pending-snapshot',
  'heartbeat-commit-uncapped',
  'vote-for-outdated-log',
  'double-vote',
  'acknowledge-before-durable',
  'restart-votes-inside-lease',
];

describe('the adversary', () => {
  test('finds no broken promise in the core', () => {
    let committed = 0;
    let crashes = 0;
    for (let seed = 1; seed <= CLEAN_SEEDS; seed++) {
      const report = runSeed(seed);
      expect(report.violation, `seed ${seed}`).toBeUndefined();
      committed += report.committed;
      crashes += report.crashes;
    }
    // A run in which nothing happens proves nothing.
    expect(committed).toBeGreaterThan(CLEAN_SEEDS * 5);
    expect(crashes).toBeGreaterThan(CLEAN_SEEDS);
  });

  test.each(NOTICED)('notices %s', (defect) => {
    let rule: string | undefined;
    for (let seed = 1; seed <= SEARCH_SEEDS_MAX && rule === undefined; seed++) {
      ({ rule } = runSeed(seed, { defects: [defect] }));
    }
    expect(rule).toBeDefined();
  });

  test('gives the same run for the same seed', () => {
    for (const seed of [3, 77, 1234]) {
      expect(runSeed(seed)).toEqual(runSeed(seed));
    }
  });
});
