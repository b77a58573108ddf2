/** Configuration of one group member and its checks. Deviations from etcd-io/raft (D1 to D13) are explained in docs/raft.md. */
import { UNLIMITED } from './entry.ts';
import { POSITION_MAX } from './message.ts';
import type { LogStorage, RaftLogger } from './types.ts';

/** All ids, terms and indexes are safe integers. */
export interface RaftConfig {
  /** This member's id; never 0, never used before by a member whose disk is gone. */
  readonly id: number;
  /** Ticks without a leader before an election; the real timeout is drawn from [n, 2n) at every change of role. */
  readonly electionTick: number;
  /** Ticks between a leader's heartbeats; smaller than `electionTick`. */
  readonly heartbeatTick: number;
  readonly storage: LogStorage;
  /** Last index the state machine has applied durably; 0 takes the position before the first entry. */
  readonly applied: number;
  /** Uniform integer in [0, n). The only source of chance. */
  readonly random: (n: number) => number;
  readonly logger: RaftLogger;
  /** True: storage messages and their responses instead of `advance`. The production mode. */
  readonly asyncStorageWrites: boolean;
  readonly preVote: boolean;
  readonly checkQuorum: boolean;
  /** D10: a leader that is removed or demoted becomes a follower when it applies that. */
  readonly stepDownOnRemoval: boolean;
  /** Encoding bytes of the entries of one append; at least one entry is always sent. 0: one entry per message. */
  readonly maxSizePerMsg: number;
  /** Appends in flight to one member. */
  readonly maxInflightMsgs: number;
  /** Payload bytes in flight to one member; 0 is unlimited, otherwise at least `maxSizePerMsg`. */
  readonly maxInflightBytes: number;
  /** Payload bytes a leader holds that are not applied; proposals beyond are dropped. 0 is unlimited. */
  readonly maxUncommittedBytes: number;
  /** Encoding bytes handed out for applying and not acknowledged. 0 takes `maxSizePerMsg`. */
  readonly maxCommittedSizePerReady: number;
  /** D8: a proposal at a follower is dropped instead of sent on. */
  readonly disableProposalForwarding: boolean;
  /** Skips the checks of membership changes at proposal; the layer above must serialize them then. */
  readonly disableConfChangeValidation: boolean;
  /** D5: acknowledgements carry the sender's commit index. */
  readonly reportCommit: boolean;
  /** D11: vote traffic carries commit positions, and a non-leader learns from them. */
  readonly commitByVote: boolean;
  /** D13: after construction no votes and no own campaigns for this many ticks. Election timeout after a restart, else 0. */
  readonly voteGraceTicks: number;
  /** Followers learn a new commit index with the next append or heartbeat instead of by a message of its own. */
  readonly skipBcastCommit: boolean;
  /** D1: leadership needs the own vote recorded, hence durable. Default true; false only to show why. */
  readonly requireOwnVote?: boolean;
  /** Answer reads without asking the followers. Unsafe across transfers and pauses (D6); needs `checkQuorum`. Default false. */
  readonly leaseReads?: boolean;
  /** D9 off: a refused membership change still appends an empty entry, as etcd does. Default false. */
  readonly appendRefusedConfChanges?: boolean;
}

/** Reads a leader holds unconfirmed, and reads parked until the first commit of the term; more are dropped (D7). */
export const PENDING_READS_MAX = 4096;

/** First problem of a configuration as a sentence, or undefined. */
export function configProblem(config: RaftConfig): string | undefined {
  const { id, electionTick, heartbeatTick } = config;
  if (!Number.isSafeInteger(id) || id <= 0 || id >= POSITION_MAX) {
    return `id ${id} is not a positive integer in range`;
  }
  if (!(heartbeatTick > 0)) {
    return 'heartbeatTick must be greater than 0';
  }
  if (!(electionTick > heartbeatTick)) {
    return 'electionTick must be greater than heartbeatTick';
  }
  if (!(config.maxInflightMsgs > 0)) {
    return 'maxInflightMsgs must be greater than 0';
  }
  if (config.maxInflightBytes !== 0 && config.maxInflightBytes < config.maxSizePerMsg) {
    return 'maxInflightBytes must be 0 or at least maxSizePerMsg';
  }
  if (config.maxUncommittedBytes < 0 || config.maxCommittedSizePerReady < 0 || config.maxSizePerMsg < 0) {
    return 'sizes must not be negative';
  }
  if (config.leaseReads === true && !config.checkQuorum) {
    return 'leaseReads needs checkQuorum';
  }
  return undefined;
}

/** 0 means unlimited for this setting. */
export const orUnlimited = (bytes: number): number => (bytes === 0 ? UNLIMITED : bytes);
