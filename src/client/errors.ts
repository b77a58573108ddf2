/**
 * The SDK's errors. `code` is stable and the same word in logs, docs and on the command line; `outcome` tells whether
 * a write may have taken effect; `hint` says what to do next. Every message names what was tried.
 */
import { AppError, type AppErrorOptions } from '../base/app-error.ts';
import { TlsFailure, type TlsProblem } from '../rpc/tls-failure.ts';
import { type RegionError, type RegionErrorType, formatRegionError } from '../codec/region-error.ts';

/** Where a call was when its deadline passed. */
export type CallPhase = 'connecting' | 'routing' | 'queued' | 'in-flight' | 'backoff';

/** Base of everything the SDK throws. */
export class BraidError extends AppError {}

/** The deadline passed. `outcome` is `unknown` only for a write that a store had been sent. */
export class DeadlineExceededError extends BraidError {
  declare readonly code: 'DeadlineExceeded';

  constructor(message: string, options: AppErrorOptions = {}) {
    super('DeadlineExceeded', message, { retry: 'backoff', ...options });
  }
}

/** A write was sent and its fate is unknown: the connection broke, or the cluster itself could not tell. */
export class UndeterminedResultError extends BraidError {
  declare readonly code: 'UndeterminedResult';

  constructor(message: string, options: AppErrorOptions = {}) {
    super('UndeterminedResult', message, {
      hint: 'the write may or may not have happened: read the key before writing again',
      ...options,
      outcome: 'unknown',
      retry: 'never',
    });
  }
}

/** No endpoint could be reached; `details.tried` lists every endpoint with its failure. */
export class UnavailableError extends BraidError {
  declare readonly code: 'Unavailable';

  constructor(message: string, options: AppErrorOptions = {}) {
    super('Unavailable', message, { retry: 'backoff', ...options });
  }
}

/** Key and value together, or an atomic batch, exceed what one raft entry may hold. */
export class EntryTooLargeError extends BraidError {
  declare readonly code: 'EntryTooLarge';

  constructor(message: string, options: AppErrorOptions = {}) {
    super('EntryTooLarge', message, {
      hint: 'store large values in several keys, or put fewer operations into one batch',
      ...options,
    });
  }
}

export class InvalidArgumentError extends BraidError {
  declare readonly code: 'InvalidArgument';

  constructor(message: string, options: AppErrorOptions = {}) {
    super('InvalidArgument', message, options);
  }
}

/** The client has as many unanswered calls as it may have. */
export class QueueFullError extends BraidError {
  declare readonly code: 'QueueFull';

  constructor(message: string, options: AppErrorOptions = {}) {
    super('QueueFull', message, {
      retry: 'backoff',
      hint: 'wait for earlier calls, or raise the option queueMax',
      ...options,
    });
  }
}

export class ClientClosedError extends BraidError {
  declare readonly code: 'ClientClosed';

  constructor(message: string, options: AppErrorOptions = {}) {
    super('ClientClosed', message, options);
  }
}

/** The caller's signal aborted the call. `cause` is the signal's reason. */
export class AbortError extends BraidError {
  declare readonly code: 'Aborted';

  constructor(message: string, options: AppErrorOptions = {}) {
    super('Aborted', message, options);
  }
}

/** The endpoints belong to different clusters, or to another one than before. */
export class ClusterMismatchError extends BraidError {
  declare readonly code: 'ClusterMismatch';

  constructor(message: string, options: AppErrorOptions = {}) {
    super('ClusterMismatch', message, {
      hint: 'list only placement endpoints of one cluster in the option pd',
      ...options,
    });
  }
}

/**
 * No connection because of TLS: certificates that cannot be used, or that one side does not accept, or only one side
 * that speaks it. `reason` is a stable word; no retry helps.
 */
export class TlsError extends BraidError {
  declare readonly code: 'Tls';
  readonly reason: TlsProblem;

  constructor(reason: TlsProblem, message: string, options: AppErrorOptions = {}) {
    super('Tls', message, { details: { reason }, ...options });
    this.reason = reason;
  }
}

/** The TLS failure behind an error of the transport, as users get it; undefined if that is something else. */
export function tlsErrorOf(error: unknown): TlsError | undefined {
  const failure = error instanceof TlsFailure ? error : error instanceof Error ? error.cause : undefined;
  return failure instanceof TlsFailure
    ? new TlsError(failure.reason, failure.message, {
        cause: error,
        ...(failure.hint === undefined ? {} : { hint: failure.hint }),
      })
    : undefined;
}

/** A server refused a command for a reason that no retry changes. */
export class ServerRefusedError extends BraidError {
  declare readonly code: 'ServerRefused';

  constructor(message: string, options: AppErrorOptions = {}) {
    super('ServerRefused', message, options);
  }
}

/** Stored bytes that the view's codec cannot decode. */
export class CodecError extends BraidError {
  declare readonly code: 'Codec';

  constructor(message: string, options: AppErrorOptions = {}) {
    super('Codec', message, { hint: 'the data was written with another codec', ...options });
  }
}

/** An administrative request that the placement service refused; nothing was changed. `reason` is its stable word. */
export class RefusedError extends BraidError {
  declare readonly code: 'Refused';
  readonly reason: string;

  constructor(reason: string, message: string, options: AppErrorOptions = {}) {
    super('Refused', message, options);
    this.reason = reason;
  }
}

/** An operator ended without success; `details` carry its status, reason and ids. */
export class OperatorFailedError extends BraidError {
  declare readonly code: 'OperatorFailed';

  constructor(message: string, options: AppErrorOptions = {}) {
    super('OperatorFailed', message, options);
  }
}

/** Codes of region errors, as users see them in the cause of an error. */
export type RegionErrorCode =
  | 'NotLeader'
  | 'RegionNotFound'
  | 'KeyNotInRegion'
  | 'EpochNotMatch'
  | 'ServerIsBusy'
  | 'StaleCommand'
  | 'StoreNotMatch'
  | 'EntryTooLarge'
  | 'ReadIndexNotReady'
  | 'RegionMerging'
  | 'RegionNotInitialized'
  | 'DiskFull'
  | 'RecoveryInProgress'
  | 'MismatchPeerId'
  | 'UndeterminedResult'
  | 'RegionBusy';

const REGION_ERROR_CODES: Readonly<Record<RegionErrorType, RegionErrorCode>> = {
  'not-leader': 'NotLeader',
  'region-not-found': 'RegionNotFound',
  'key-not-in-region': 'KeyNotInRegion',
  'epoch-not-match': 'EpochNotMatch',
  'server-is-busy': 'ServerIsBusy',
  'stale-command': 'StaleCommand',
  'store-not-match': 'StoreNotMatch',
  'raft-entry-too-large': 'EntryTooLarge',
  'read-index-not-ready': 'ReadIndexNotReady',
  'proposal-in-merging-mode': 'RegionMerging',
  'region-not-initialized': 'RegionNotInitialized',
  'disk-full': 'DiskFull',
  'recovery-in-progress': 'RecoveryInProgress',
  'mismatch-peer-id': 'MismatchPeerId',
  'undetermined-result': 'UndeterminedResult',
  message: 'RegionBusy',
};

export const regionErrorCode = (error: RegionError): RegionErrorCode => REGION_ERROR_CODES[error.type];

/** A store's refusal of one try. Users meet it only as the `cause` of the error that ended the call. */
export class RegionRefusalError extends BraidError {
  declare readonly code: RegionErrorCode;
  readonly regionError: RegionError;

  constructor(error: RegionError, where: string) {
    super(regionErrorCode(error), `${where}: ${formatRegionError(error)}`, {
      retry: 'route',
      outcome: error.type === 'undetermined-result' ? 'unknown' : 'not-applied',
    });
    this.regionError = error;
  }
}

/** One line of what went wrong, for messages that list several failures. */
export function briefOf(error: unknown): string {
  if (error instanceof Error) {
    const code = error instanceof AppError ? `${error.code}: ` : '';
    return `${code}${error.message}`;
  }
  return String(error);
}
