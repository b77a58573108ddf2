/**
 * Planted defects for tests of the tests: each switches one rule of the protocol off, so that the adversary can show
 * that it would notice. They enter only through the second argument of {@link RawNode}'s constructor, which no
 * production code passes; configuration cannot name them.
 */

export const DEFECTS = [
  'commit-old-term-by-counting',
  'new-leader-forgets-pending-conf-index',
  'proposal-forgets-pending-conf-index',
  'auto-leave-ignores-pending-conf-index',
  'vote-although-leader-known',
  'async-applies-unstable',
  'answer-lower-term-always',
  'probe-accepts-stale-rejection',
  'sent-commit-not-regressed',
  'heartbeat-forgets-sent-commit',
  'snapshot-to-inactive',
  'timeout-now-uses-pre-vote',
  'transfer-keeps-election-timer',
  'vote-keeps-election-timer',
  'no-snapshot-fast-forward',
  'stale-append-truncates',
  'apply-size-ignored',
  'advance-order-reversed',
  'leader-without-own-vote',
  'joint-commit-incoming-only',
  'joint-vote-incoming-only',
  'learner-refuses-vote',
  'no-aba-term-check',
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
  'commit-beyond-message',
  'heartbeat-commit-uncapped',
  'vote-for-outdated-log',
  'double-vote',
  'acknowledge-before-durable',
  'reads-stuck-after-shrink',
  'restart-votes-inside-lease',
] as const;

export type Defect = (typeof DEFECTS)[number];
export type DefectSet = ReadonlySet<Defect>;
