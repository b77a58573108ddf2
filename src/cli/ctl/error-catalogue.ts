/**
 * Codes that appear in parentheses in the second line of an error, with what they mean and what to do. Words of the
 * placement service's refusals are explained by the refusal itself and in docs/placement.md; those of stores that do not
 * carry out a step are here as well.
 */
import { STEP_REFUSALS } from '../../client/admin-wire.ts';

export interface ErrorCodeEntry {
  readonly code: string;
  readonly meaning: string;
  /** What became of a change that ended with it. */
  readonly outcome: 'not made' | 'unknown' | 'see the message';
  readonly next: string;
}

const OWN_CODES: readonly ErrorCodeEntry[] = [
  {
    code: 'Usage',
    meaning: 'The command as typed makes no sense; nothing was sent.',
    outcome: 'not made',
    next: 'Read the third line, or add --help.',
  },
  {
    code: 'InputFile',
    meaning: 'A file cannot be read or is not what the command expects.',
    outcome: 'not made',
    next: 'Check the path and the format.',
  },
  {
    code: 'InvalidArgument',
    meaning: 'A key, range or option is outside its limits.',
    outcome: 'not made',
    next: 'The message names the limit and the actual size.',
  },
  {
    code: 'EntryTooLarge',
    meaning: 'Key and value, or an atomic batch, do not fit into one raft entry.',
    outcome: 'not made',
    next: 'Store large values in several keys.',
  },
  {
    code: 'Unavailable',
    meaning: 'No endpoint answered; the message lists what was tried.',
    outcome: 'not made',
    next: 'Check --pd and that the cluster runs: braid ctl status.',
  },
  {
    code: 'Tls',
    meaning: 'No encrypted connection: a certificate or key does not fit, or only one side speaks TLS.',
    outcome: 'not made',
    next: 'The word behind the code says which: look at --tls-ca, --tls-cert and --tls-key.',
  },
  {
    code: 'DeadlineExceeded',
    meaning: 'The time was over before an answer came; the message names the phase.',
    outcome: 'see the message',
    next: 'Try with a longer --timeout; read the key first after a write.',
  },
  {
    code: 'UndeterminedResult',
    meaning: 'A write was sent and its answer was lost.',
    outcome: 'unknown',
    next: 'Read the key before writing again.',
  },
  {
    code: 'QueueFull',
    meaning: 'This client has too many unanswered calls.',
    outcome: 'not made',
    next: 'Run fewer calls at one time.',
  },
  {
    code: 'ClientClosed',
    meaning: 'The connection was closed while the call was under way.',
    outcome: 'see the message',
    next: 'Connect again.',
  },
  {
    code: 'Aborted',
    meaning: 'The call was interrupted.',
    outcome: 'see the message',
    next: 'Run it again.',
  },
  {
    code: 'ClusterMismatch',
    meaning: 'The endpoints belong to different clusters.',
    outcome: 'not made',
    next: 'Name only endpoints of one cluster with --pd.',
  },
  {
    code: 'ServerRefused',
    meaning: 'A store refused the command for a reason that no retry changes.',
    outcome: 'not made',
    next: 'Read the message.',
  },
  {
    code: 'Codec',
    meaning: 'Stored bytes cannot be decoded as asked.',
    outcome: 'not made',
    next: 'Read them with --value-format base64.',
  },
  {
    code: 'Refused',
    meaning: 'The placement service refused; the word behind the colon says why.',
    outcome: 'not made',
    next: 'Read the third line; for merges: braid ctl explain merge.',
  },
  {
    code: 'OperatorFailed',
    meaning: 'An operator ended without success.',
    outcome: 'see the message',
    next: 'See its steps: braid ctl operator show ID.',
  },
  {
    code: 'NotLeader',
    meaning: 'The replica asked does not lead its region; clients follow the leader on their own.',
    outcome: 'not made',
    next: 'If it persists: braid ctl region locate KEY.',
  },
  {
    code: 'EpochNotMatch',
    meaning: 'The region was split, merged or moved meanwhile; clients look up the new ones on their own.',
    outcome: 'not made',
    next: 'If it persists: braid ctl region locate KEY.',
  },
  {
    code: 'RegionNotFound',
    meaning: 'The store does not hold the region any more.',
    outcome: 'not made',
    next: 'braid ctl region locate KEY.',
  },
  {
    code: 'KeyNotInRegion',
    meaning: 'The key lies outside the region that was asked.',
    outcome: 'not made',
    next: 'braid ctl region locate KEY.',
  },
  {
    code: 'StoreNotMatch',
    meaning: 'Another store answers at that address.',
    outcome: 'not made',
    next: 'braid ctl store list.',
  },
  {
    code: 'ServerIsBusy',
    meaning: 'The store has more work than it can queue.',
    outcome: 'not made',
    next: 'Send less, or look at braid ctl store show ID.',
  },
  {
    code: 'StaleCommand',
    meaning: 'The command was proposed under an older leadership and dropped.',
    outcome: 'not made',
    next: 'Nothing; clients try again on their own.',
  },
  {
    code: 'ReadIndexNotReady',
    meaning: 'A read came while the region was splitting, merging or electing.',
    outcome: 'not made',
    next: 'Nothing; clients try again on their own.',
  },
  {
    code: 'RegionMerging',
    meaning: 'The region is prepared for a merge and takes no writes until that ends.',
    outcome: 'not made',
    next: 'braid ctl operator list --kind merge.',
  },
  {
    code: 'RegionNotInitialized',
    meaning: 'The replica waits for its first snapshot.',
    outcome: 'not made',
    next: 'braid ctl region show ID.',
  },
  {
    code: 'DiskFull',
    meaning: 'The store has no room for writes.',
    outcome: 'not made',
    next: 'Free space, add a store, or move regions away.',
  },
  {
    code: 'RecoveryInProgress',
    meaning: 'The region is being recovered.',
    outcome: 'not made',
    next: 'braid ctl status.',
  },
  {
    code: 'MismatchPeerId',
    meaning: 'The store holds another replica of the region than expected.',
    outcome: 'not made',
    next: 'Nothing; clients look up the route on their own.',
  },
  {
    code: 'RegionBusy',
    meaning: 'The region cannot serve the command now; the message says why.',
    outcome: 'not made',
    next: 'Try again.',
  },
  {
    code: 'DataDir',
    meaning: 'A directory is not the one of a store or placement member, or contradicts itself.',
    outcome: 'not made',
    next: 'The message says what it is instead.',
  },
  {
    code: 'EngineOpen',
    meaning: 'A database is in use, missing, damaged or of another program.',
    outcome: 'not made',
    next: 'Stop the process that uses it; of a damaged one see braid offline verify DIR.',
  },
  {
    code: 'Scratch',
    meaning: 'A command on a directory of a stopped process has no place for its temporary files.',
    outcome: 'not made',
    next: 'Set TMPDIR to a directory with room.',
  },
  {
    code: 'Internal',
    meaning: 'A fault of this program.',
    outcome: 'see the message',
    next: 'Run the command with --debug and report it.',
  },
];

const sentence = (text: string): string => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;

/** All codes: those of commands, then those with which stores refuse steps of operators. */
export const ERROR_CODES: readonly ErrorCodeEntry[] = [
  ...OWN_CODES,
  ...Object.entries(STEP_REFUSALS)
    .filter(([code]) => OWN_CODES.every((own) => own.code !== code))
    .map(
      ([code, { outlook, hint }]): ErrorCodeEntry => ({
        code,
        meaning:
          outlook === 'lasting'
            ? 'A store refused a step of an operator for good; the operator ends.'
            : 'A store refused a step of an operator for the moment; the step is sent again.',
        outcome: 'not made',
        next: sentence(hint),
      }),
    ),
];
