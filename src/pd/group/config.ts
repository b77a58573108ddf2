/** Settings of the Raft group the members of the placement service form. One set of defaults, one check. */
import { assert } from '../../base/assert.ts';
import { MIB } from '../../base/units.ts';

export interface GroupConfig {
  /** Length of one Raft tick. */
  readonly tickMs: number;
  /** Ticks between a leader's heartbeats. */
  readonly heartbeatTicks: number;
  /** Ticks without a leader before an election; the wait is drawn from one to two times this. */
  readonly electionTicks: number;
  /**
   * How long a leader serves without hearing from a majority, counted from the moment it asked them. Shorter than the
   * shortest election timeout, so that no other leader can exist meanwhile.
   */
  readonly leaderLeaseMs: number;
  /** Log entries kept behind the applied ones for members that lag; those that lag more receive the whole state. */
  readonly logKeepEntries: number;
  /** Payload bytes of applied entries kept at most. */
  readonly logKeepBytes: number;
}

export const DEFAULT_GROUP_CONFIG: GroupConfig = Object.freeze({
  tickMs: 100,
  heartbeatTicks: 2,
  electionTicks: 10,
  leaderLeaseMs: 800,
  logKeepEntries: 2_048,
  logKeepBytes: 8 * MIB,
});

/** First broken relation between settings as a sentence that begins with a setting, or undefined. */
export function checkGroupConfig(config: GroupConfig): string | undefined {
  const { tickMs, heartbeatTicks, electionTicks, leaderLeaseMs, logKeepEntries, logKeepBytes } = config;
  if (!(tickMs >= 1)) {
    return 'tickMs must be at least 1';
  }
  if (!Number.isSafeInteger(heartbeatTicks) || heartbeatTicks < 1) {
    return 'heartbeatTicks must be a positive integer';
  }
  if (!Number.isSafeInteger(electionTicks) || electionTicks <= heartbeatTicks) {
    return 'electionTicks must be an integer larger than heartbeatTicks';
  }
  if (!(leaderLeaseMs > 0) || leaderLeaseMs >= (electionTicks - 1) * tickMs) {
    return 'leaderLeaseMs must be shorter than electionTicks minus one tick';
  }
  if (leaderLeaseMs <= heartbeatTicks * tickMs) {
    return 'leaderLeaseMs must be longer than heartbeatTicks';
  }
  if (!Number.isSafeInteger(logKeepEntries) || logKeepEntries < 1 || !(logKeepBytes > 0)) {
    return 'logKeepEntries and logKeepBytes must be positive';
  }
  return undefined;
}

const problem = checkGroupConfig(DEFAULT_GROUP_CONFIG);
assert(problem === undefined, `default configuration is inconsistent: ${problem ?? ''}`);
