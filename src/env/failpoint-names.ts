/**
 * Every failpoint of the program, as `room::moment`. A room that calls `failpoints.hit` adds its name here first;
 * a misspelt name is a type error, and `test/tidy` finds names that nothing uses.
 */
export const FAILPOINT_NAMES = [
  /** Used only by the tests of the registry itself. */
  'test::point',
  /** Before an entry of this kind takes effect; `pause` holds the apply FSM of the region. */
  'apply::before-write',
  'apply::before-split',
  'apply::before-prepare-merge',
  'apply::before-commit-merge',
  'apply::before-rollback-merge',
  'apply::before-compact-log',
  'apply::before-compute-hash',
  'apply::before-verify-hash',
  'apply::before-change-peer',
  /** Before a source peer offers CommitMerge to its target; any action holds it back until the next look. */
  'merge::before-commit',
  /** Before the installation of a received snapshot wipes the range. */
  'snapshot::before-install',
] as const;

export type FailpointName = (typeof FAILPOINT_NAMES)[number];

/** Whether a text from outside names a failpoint. */
export const isFailpointName = (text: string): text is FailpointName =>
  (FAILPOINT_NAMES as readonly string[]).includes(text);
