/**
 * Decisions not taken. Every refusal of the placement service is one of these values: a stable code, a sentence that
 * names the objects, a hint what to do next, and particulars for machines. docs/placement.md lists all codes.
 */

/** All codes; docs/placement.md explains each. */
export const REFUSAL_CODES = [
  // Requests that make no sense.
  'SameRegion',
  'NotAdjacent',
  'RegionNotFound',
  'StoreNotFound',
  'PeerNotFound',
  'PeerExists',
  'LastVoter',
  'NotAVoter',
  'KeyNotInRegion',
  'NoSplitKeys',
  'EpochChanged',
  'UnknownSwitch',
  'UnknownParameter',
  'OutOfRange',
  'NotAScheduler',
  'NotAdded',
  'SwitchedOff',
  'Idle',
  'OperatorNotFound',
  // The region is not in a state to be changed.
  'NoLeader',
  'DownPeer',
  'PendingPeer',
  'ReplicaDamaged',
  'JointState',
  'MergeInProgress',
  'NotFullyReplicated',
  'RecentlySplit',
  'RecentlyStarted',
  'TooLarge',
  'MergedTooLarge',
  'WouldSplitAgain',
  // The store cannot take part.
  'StoreRemoving',
  'StoreRemoved',
  'StoreRolledBack',
  'StoreDisconnected',
  'StoreBusy',
  'StoreLowOnSpace',
  'LeadersEvicted',
  'LeadersGranted',
  'StoreNotDown',
  'TooFewStores',
  'DuplicateAddress',
  'PeersLeft',
  'PhysicallyDestroyed',
  // The scheduler has no room.
  'OperatorExists',
  'TooManyOperators',
  'TooManyWaiting',
  'StoreLimit',
  'MergeLimit',
  'NoLeaderCandidate',
  'NoTargetStore',
  'IdsExhausted',
  'LonelyMerge',
  'Expired',
  // Documents.
  'InvalidDocument',
  'UnknownKind',
  'UnknownField',
  'UnknownPod',
  'OverlappingRange',
  'NonAdjacentRanges',
  'NotOnePod',
  'NameTaken',
  'ImmutableField',
  'PartitionBusy',
  'Conflict',
  'ResourceNotFound',
  'TooManyResources',
  'RegionPinned',
  'RegionLocked',
  'RegionPaused',
  'TooManyPauses',
  'DuplicatePod',
  'NotStalled',
  'NeedsRestart',
  // Placement rules.
  'InvalidRule',
  'NoVoterRule',
  'RuleNotFound',
  'TooManyRules',
  'RuleBorder',
  'RuleBroken',
  // The members of the service.
  'MemberExists',
  'MemberNotFound',
  'MemberIsLeader',
  'MemberNotReady',
  'MembershipChanging',
  'TooManyMembers',
  'WouldLoseQuorum',
  // The service itself.
  'NotBootstrapped',
  'AlreadyBootstrapped',
  'InvalidArgument',
] as const;

export type RefusalCode = (typeof REFUSAL_CODES)[number];

export interface Refusal {
  readonly code: RefusalCode;
  readonly message: string;
  readonly hint: string;
  readonly details: Readonly<Record<string, string>>;
}

export function refuse(
  code: RefusalCode,
  message: string,
  hint: string,
  details: Readonly<Record<string, string | number>> = {},
): Refusal {
  return {
    code,
    message,
    hint,
    details: Object.fromEntries(Object.entries(details).map(([key, value]) => [key, String(value)])),
  };
}

/** Success with a value, or a refusal. */
export type Result<T> =
  | { readonly type: 'ok'; readonly value: T }
  | { readonly type: 'refused'; readonly refusal: Refusal };

export const ok = <T>(value: T): Result<T> => ({ type: 'ok', value });

export const refused = <T = never>(refusal: Refusal): Result<T> => ({ type: 'refused', refusal });

/** Why a change that was made for another version than the present one is not carried out. */
export const versionConflict = (
  what: string,
  version: number,
  expected: number,
  details: Readonly<Record<string, string | number>> = {},
): Refusal =>
  refuse('Conflict', `${what} has version ${version}, not ${expected}`, 'look at it again and repeat your change', {
    ...details,
    version,
    expected_version: expected,
  });

export const regionNotFound = (id: number): Refusal =>
  refuse('RegionNotFound', `region ${id} is not known`, 'list the regions; it may have been merged into a neighbor', {
    region_id: id,
  });

export const storeNotFound = (id: number): Refusal =>
  refuse('StoreNotFound', `store ${id} is not known`, 'list the stores to see their ids', { store_id: id });

export const unknownSwitch = (name: string): Refusal =>
  refuse('UnknownSwitch', `there is no checker or scheduler ${name}`, 'list them: braid ctl scheduler list', { name });
