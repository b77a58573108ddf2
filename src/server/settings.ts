/**
 * The vocabulary of the configuration: every section and key with its kind, default and meaning. `config.ts` reads
 * files, environment and flags with it, `config-sample.ts` prints it. Names of keys are derived from the names of the
 * settings they fill: `splitCheckMs` is the duration `split-check`, `entrySizeMaxBytes` the size `entry-size-max`.
 */
import { AppError } from '../base/app-error.ts';
import { assert } from '../base/assert.ts';
import { parseDurationMs, parseSizeBytes } from '../base/units.ts';
import { LOG_LEVELS, type LogLevel } from '../env/real/index.ts';
import { BLOCK_CACHE_BYTES_DEFAULT } from '../engine/index.ts';
import type { StoreLabel } from '../meta/region.ts';
import {
  type AllocationConfig,
  DEFAULT_ALLOCATION_CONFIG,
  DEFAULT_PLACEMENT_CONFIG,
  type PlacementConfig,
} from '../pd/defaults.ts';
import { DEFAULT_GROUP_CONFIG, type GroupConfig } from '../pd/group/config.ts';
import { DEFAULT_RAFTSTORE_CONFIG, type RaftstoreConfig } from '../raftstore/config.ts';

/** The configuration cannot be used; the message names file and line, environment variable or flag. */
export class ConfigError extends AppError {
  constructor(message: string, hint: string, cause?: unknown) {
    super('Config', message, { hint, ...(cause === undefined ? {} : { cause }) });
  }
}

export type Role = 'store' | 'pd';

// ------------------------------------------------------------------------------------------------- what settings fill

/** Section `[server]` of a store. */
export interface ServerSettings {
  /** `host:port` to listen on; port 0 takes a free one. */
  readonly addr: string;
  /** What other processes dial; empty means the bound address. */
  readonly advertiseAddr: string;
  /** Status HTTP; empty switches it off. */
  readonly statusAddr: string;
  readonly dataDir: string;
  readonly pd: readonly string[];
  /** `key=value` */
  readonly labels: readonly string[];
  readonly startTimeoutMs: number;
  readonly gracefulStopMs: number;
}

/** Section `[storage]` of a store. */
export interface StorageSettings {
  /** Whether values may expire (TiKV's mode V1TTL). */
  readonly enableTtl: boolean;
  readonly blockCacheBytes: number;
  /** Capacity reported to the placement service; 0 means the size of the file system. */
  readonly capacityBytes: number;
}

/** Section `[log]` of both roles. */
export interface LogSettings {
  readonly level: LogLevel;
  /** Empty means standard error. */
  readonly file: string;
}

/** Section `[tls]` of both roles: all three, or none for plain text. */
export interface TlsSettings {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

/** Section `[pd]` of the placement service. */
export interface PdSettings {
  readonly name: string;
  readonly addr: string;
  readonly advertiseAddr: string;
  readonly dataDir: string;
  readonly join: readonly string[];
  /** `name=http://host:port` */
  readonly initialCluster: readonly string[];
  readonly startTimeoutMs: number;
  readonly gracefulStopMs: number;
}

export interface StoreProcessConfig {
  readonly server: ServerSettings;
  readonly storage: StorageSettings;
  readonly raftstore: RaftstoreConfig;
  readonly tls: TlsSettings;
  readonly log: LogSettings;
}

export interface PdProcessConfig {
  readonly pd: PdSettings;
  readonly placement: PlacementConfig;
  readonly allocation: AllocationConfig;
  readonly group: GroupConfig;
  readonly tls: TlsSettings;
  readonly log: LogSettings;
}

const NO_TLS: TlsSettings = Object.freeze({ ca: '', cert: '', key: '' });

export const DEFAULT_STORE_CONFIG: StoreProcessConfig = Object.freeze({
  server: Object.freeze({
    addr: '127.0.0.1:20160',
    advertiseAddr: '',
    statusAddr: '127.0.0.1:20180',
    dataDir: 'braid-store',
    pd: Object.freeze(['127.0.0.1:2379']),
    labels: Object.freeze([]),
    startTimeoutMs: 30_000,
    gracefulStopMs: 10_000,
  }),
  storage: Object.freeze({ enableTtl: true, blockCacheBytes: BLOCK_CACHE_BYTES_DEFAULT, capacityBytes: 0 }),
  raftstore: DEFAULT_RAFTSTORE_CONFIG,
  tls: NO_TLS,
  log: Object.freeze({ level: 'info', file: '' }),
});

export const DEFAULT_PD_PROCESS_CONFIG: PdProcessConfig = Object.freeze({
  pd: Object.freeze({
    name: 'pd',
    addr: '127.0.0.1:2379',
    advertiseAddr: '',
    dataDir: 'braid-pd',
    join: Object.freeze([]),
    initialCluster: Object.freeze([]),
    startTimeoutMs: 60_000,
    gracefulStopMs: 1_000,
  }),
  placement: DEFAULT_PLACEMENT_CONFIG,
  allocation: DEFAULT_ALLOCATION_CONFIG,
  group: DEFAULT_GROUP_CONFIG,
  tls: NO_TLS,
  log: Object.freeze({ level: 'info', file: '' }),
});

// ------------------------------------------------------------------------------------------------- kinds of values

export type SettingKind = 'duration' | 'size' | 'integer' | 'ratio' | 'boolean' | 'text' | 'texts' | 'address' | 'word';

export interface Setting {
  readonly section: string;
  /** Kebab case, without unit. */
  readonly key: string;
  /** Name of the property it fills. */
  readonly property: string;
  readonly kind: SettingKind;
  readonly initial: unknown;
  readonly description: string;
  /** Allowed words of kind `word`. */
  readonly words?: readonly string[];
  readonly zeroAllowed: boolean;
}

/** Settings for which 0 has a meaning of its own. */
const ZERO_ALLOWED: ReadonlySet<string> = new Set([
  'capacityBytes',
  'gracefulStopMs',
  'consistencyCheckMs',
  'loadSplitQps',
  'loadSplitFlowBytes',
  'proxyThresholdMs',
  'proxyHoldMs',
  'mergeMaxLogGap',
  'leaderTransferMaxLogLag',
  'holdRequestMs',
  'leaderScheduleLimit',
  'regionScheduleLimit',
  'replicaScheduleLimit',
  'mergeScheduleLimit',
  'leaderTolerance',
  'regionToleranceRatio',
  'warmupReportedRatio',
  'warmupMaxMs',
  'proxyThresholdMs',
  'splitMergeIntervalMs',
  'mergeSourceSizeMaxBytes',
  'mergeSourceKeysMax',
  'fastStepMsPerMib',
  'slowStepMsPerMib',
  'storeHeartbeatSaveMs',
]);

const kebab = (name: string): string => name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

function kindOf(property: string, initial: unknown): SettingKind {
  if (property === 'addr' || property.endsWith('Addr')) {
    return 'address';
  }
  if (typeof initial === 'boolean') {
    return 'boolean';
  }
  if (typeof initial === 'number') {
    if (property.endsWith('Ms')) {
      return 'duration';
    }
    if (property.endsWith('Bytes')) {
      return 'size';
    }
    return property.endsWith('Ratio') ? 'ratio' : 'integer';
  }
  return Array.isArray(initial) ? 'texts' : 'text';
}

function keyOf(property: string, kind: SettingKind): string {
  if (kind === 'duration') {
    return kebab(property.replace(/Ms$/, ''));
  }
  return kebab(kind === 'size' ? property.replace(/Bytes$/, '') : property);
}

type Descriptions<T> = { readonly [K in keyof T]: string };

function sectionOf<T extends object>(
  section: string,
  defaults: T,
  descriptions: Descriptions<T>,
  words: { readonly [K in keyof T]?: readonly string[] } = {},
): readonly Setting[] {
  return Object.entries(descriptions).map(([property, description]) => {
    const initial: unknown = defaults[property as keyof T];
    assert(initial !== undefined, 'a described setting has a default', { section, property });
    const allowed = words[property as keyof T];
    const kind = allowed === undefined ? kindOf(property, initial) : 'word';
    return {
      section,
      key: keyOf(property, kind),
      property,
      kind,
      initial,
      description: description as string,
      ...(allowed === undefined ? {} : { words: allowed }),
      zeroAllowed: ZERO_ALLOWED.has(property),
    };
  });
}

const LOG_DESCRIPTIONS: Descriptions<LogSettings> = {
  level: 'Least severe lines that are written.',
  file: 'File to append to; empty means standard error.',
};

const SERVER: readonly Setting[] = sectionOf('server', DEFAULT_STORE_CONFIG.server, {
  addr: 'Where clients and other stores connect, host:port. Port 0 takes a free one.',
  advertiseAddr: 'What other processes dial instead of addr; needed when addr names no single host. Empty means addr.',
  statusAddr: 'HTTP for /status, /config, /regions and /metrics. Empty switches it off.',
  dataDir: 'Directory of the store. It belongs to one store of one cluster for ever.',
  pd: 'Endpoints of the placement service.',
  labels: 'Place of the store, such as "zone=a". Replicas are spread over different places.',
  startTimeoutMs: 'How long a starting store looks for the placement service before it gives up.',
  gracefulStopMs: 'How long a stopping store waits for its leaders to move to other stores. 0 does not wait.',
});

const STORAGE: readonly Setting[] = sectionOf('storage', DEFAULT_STORE_CONFIG.storage, {
  enableTtl: 'Whether values may be given a time to live. Must not change after the first start.',
  blockCacheBytes: 'Memory for uncompressed blocks of the database.',
  capacityBytes: 'Capacity reported to the placement service; 0 means the size of the file system.',
});

const RAFTSTORE: readonly Setting[] = sectionOf('raftstore', DEFAULT_RAFTSTORE_CONFIG, {
  tickMs: 'Length of one Raft tick.',
  heartbeatTicks: "Ticks between a leader's heartbeats.",
  electionTicks: 'Ticks without a leader before an election; the wait is random between one and two times this.',
  leaderLeaseMs:
    'How long a leader answers reads without asking its followers. Below the election timeout minus one tick.',
  entrySizeMaxBytes: 'Largest write that is accepted.',
  proposalBatchOpsMax: 'Most operations merged into one Raft entry.',
  proposalBatchBytesMax: 'Most bytes merged into one Raft entry.',
  mailboxLimit: 'Requests waiting in one region; more are answered with ServerIsBusy.',
  maxSizePerMsgBytes: 'Largest append message.',
  maxInflightMsgs: 'Unanswered append messages per follower.',
  maxInflightBytes: 'Unanswered append bytes per follower.',
  maxUncommittedBytes: 'Proposals a leader holds that are not committed yet.',
  maxCommittedPerReadyBytes: 'Committed entries handed to apply at a time.',
  entryCacheMaxBytes: 'Recent log entries kept in memory, for the whole store.',
  mergeCheckMs: 'Time between looks at the state of a merge.',
  mergeMaxLogGap: 'Most entries a replica may lag when its region is merged.',
  maintenanceTickMs: 'Interval of background checks of each region.',
  logGcThreshold: 'Compact the log when so many entries are replicated everywhere.',
  logGcCountLimit: 'Compact the log regardless of slow followers above so many entries.',
  logGcSizeLimitBytes: 'Compact the log regardless of slow followers above so many bytes.',
  pdHeartbeatMs: 'Interval of region reports to the placement service; changes are reported at once.',
  storeHeartbeatMs: 'Interval of store reports to the placement service.',
  splitCheckMs: 'Interval of looks for regions that have grown too large.',
  regionMaxSizeBytes: 'Split a region larger than this ...',
  regionMaxKeys: '... or with more keys than this ...',
  regionSplitSizeBytes: '... into parts of about this size ...',
  regionSplitKeys: '... and so many keys.',
  loadSplitQps: 'Split a region in which more keys are read and written per second than this ...',
  loadSplitFlowBytes: '... or more bytes per second; 0 = however many ...',
  loadSplitDetectMs: '... for so long, at a key that halves the load.',
  snapshotChunkBytes: 'Size of the pieces in which a region is copied to another store.',
  snapshotSendsMax: 'Regions copied to other stores at a time.',
  snapshotReceivesMax: 'Regions received from other stores at a time.',
  cleanBatchKeys: 'Keys deleted at a time when data of a region that left is removed.',
  abnormalLeaderMissingMs: 'Without a leader for so long a replica asks the others ...',
  maxLeaderMissingMs: '... and after so long the placement service whether it is still a member.',
  maxPeerDownMs: 'Silence after which a replica is reported as down.',
  holdRequestMs: 'How long a request for a region that is changing is held before it is refused.',
  proxyThresholdMs:
    'How long requests of clients with an outdated idea of a region are carried out for them; 0 = never.',
  proxyHoldMs: 'How long such a request waits while its region is in the middle of a merge or has no leader.',
  consistencyCheckMs:
    'Time between two comparisons of replicas that a store starts, one region after the other; 0 switches it off.',
  leaderTransferMaxLogLag: 'Leadership never moves to a replica that lags by more entries.',
  keySizeMaxBytes: 'Largest key that may be written.',
});

const PD: readonly Setting[] = sectionOf('pd', DEFAULT_PD_PROCESS_CONFIG.pd, {
  name: 'Name of this member, different from those of the others.',
  addr: 'Where stores, clients and other members connect, host:port. Port 0 takes a free one.',
  advertiseAddr: 'What others dial instead of addr. Empty means addr.',
  dataDir: 'Directory of this member.',
  join: 'Members of the cluster to join. Only a member with an empty directory looks at it, as at the next one.',
  initialCluster:
    'All members of a new cluster, such as "pd1=http://10.0.0.1:2379": the same list in the same order for each of them.',
  startTimeoutMs: 'How long a new member looks for the others before it gives up.',
  gracefulStopMs: 'How long running calls may take to finish when the process stops.',
});

const PLACEMENT: readonly Setting[] = sectionOf('placement', DEFAULT_PLACEMENT_CONFIG, {
  maxReplicas: 'Wanted voters of every region.',
  locationLabels: 'Store labels from the widest to the narrowest failure domain.',
  jointConsensus: 'Change several replicas in one joint step; off means one by one.',
  storeDisconnectedMs:
    'Silence after which a store counts as disconnected: nothing is sent to it, nothing is repaired yet.',
  storeDownMs: 'Silence after which a store counts as down and its replicas are replaced.',
  stepStoreSilentMs: 'A step that needs a store silent for so long is given up.',
  storeCheckMs: 'Interval of checks that turn an empty removing store into a removed one.',
  storeHeartbeatSaveMs: "A store's last heartbeat is written to disk at most this often.",
  lowSpaceRatio: 'Used share of the capacity above which a store receives no more replicas.',
  leaderScheduleLimit: 'Most running operators that move leaders. 0 switches them off, as with the three below.',
  regionScheduleLimit: 'Most running operators that move regions.',
  replicaScheduleLimit: 'Most running operators that repair replicas.',
  mergeScheduleLimit: 'Most running operators that merge regions; a merge counts two.',
  runningOperatorsMax: 'Most running operators of all kinds, those of administrators included.',
  waitingPerMakerMax: 'Most waiting operators of one checker or scheduler.',
  storeLimitPerMinute: 'Larger replicas that may be added to, or removed from, one store per minute.',
  storeSnapshotsMax: 'A store busy with more snapshots takes part in no more moves.',
  storePendingPeersMax: 'A store with more pending replicas receives no more.',
  operatorExpiryMs: 'An operator that was not started so long after it was made is dropped.',
  fastStepMs: 'Shortest time limit of quick steps ...',
  fastStepMsPerMib: '... and the milliseconds added per MiB of region.',
  slowStepMs: 'Shortest time limit of steps that copy data ...',
  slowStepMsPerMib: '... and the milliseconds added per MiB of region.',
  pushIntervalMs: 'Interval of the loop that sends unfinished steps again.',
  pushQuickMs: 'Time until an unfinished quick step is sent again.',
  pushSlowMs: 'Time until any other unfinished step is sent again.',
  operatorHistoryMax: 'Ended operators kept for inspection.',
  eventHistoryMax: 'Events kept for inspection.',
  patrolIntervalMs: 'Interval of the patrol that looks for regions to repair.',
  patrolBatchMax: 'Regions looked at per patrol round.',
  schedulerIntervalMs: 'Interval of the balancing schedulers.',
  warmupReportedRatio: 'Share of known regions that must have reported before anything is scheduled ...',
  warmupMaxMs: '... unless so much time has passed since the start.',
  leaderTolerance: 'Leaders a store may have above another one before a leader is moved.',
  regionToleranceRatio:
    'A region is moved for balance only if the difference exceeds this multiple of the average region size.',
  reconcileIntervalMs: 'Interval of looks at documents that are not as they should be.',
  proxyThresholdMs: 'How long old routes are still served after a Partition was merged or moved.',
  splitMergeIntervalMs: 'A region is not merged automatically so long after a split, nor after the start.',
  mergeSourceSizeMaxBytes: 'Only regions up to this size are merged automatically.',
  mergeSourceKeysMax: 'Only regions with up to so many keys are merged automatically.',
  mergedSizeMaxBytes: 'Two regions that are together larger are never merged.',
  regionMaxSizeBytes: 'Size at which stores split a region; keep it equal to region-max-size of the stores.',
  regionMaxKeys: 'Keys at which stores split a region; keep it equal to region-max-keys of the stores.',
});

const ALLOCATION: readonly Setting[] = sectionOf('allocation', DEFAULT_ALLOCATION_CONFIG, {
  idWindow: 'Ids reserved on disk at a time.',
  tsoWindowMs: 'How far the reservation of time stamps on disk reaches ahead.',
  tsoUpdateMs: 'Interval at which the time stamp follows the clock.',
  tsoWaitRoundsMax: 'Rounds of waiting for a time stamp before the call fails.',
});

const GROUP: readonly Setting[] = sectionOf('group', DEFAULT_GROUP_CONFIG, {
  tickMs: 'Length of one Raft tick of the members. Keep this section equal on all members.',
  heartbeatTicks: "Ticks between the leader's heartbeats.",
  electionTicks: 'Ticks without a leader before an election; the wait is random between one and two times this.',
  leaderLeaseMs:
    'How long the leader serves without hearing from a majority. Below the election timeout minus one tick.',
  logKeepEntries: 'Log entries kept for members that lag; those that lag more receive the whole state.',
  logKeepBytes: 'Bytes of log entries kept at most.',
});

const TLS: readonly Setting[] = sectionOf('tls', NO_TLS, {
  ca: 'Certificates (PEM) of the authorities that sign those of stores, members and clients. Empty means plain text.',
  cert: 'Certificate (PEM) of this process, made out to the name or address that others dial.',
  key: 'Private key (PEM) of cert, without a password.',
});

const log = (): readonly Setting[] =>
  sectionOf('log', DEFAULT_STORE_CONFIG.log, LOG_DESCRIPTIONS, { level: LOG_LEVELS });

/** Every key of a role, section by section. */
export const SETTINGS: Readonly<Record<Role, readonly Setting[]>> = Object.freeze({
  store: Object.freeze([...SERVER, ...STORAGE, ...RAFTSTORE, ...TLS, ...log()]),
  pd: Object.freeze([...PD, ...PLACEMENT, ...ALLOCATION, ...GROUP, ...TLS, ...log()]),
});

/** `section.key` */
export const settingName = (setting: Setting): string => `${setting.section}.${setting.key}`;

/** The environment variable of a setting: `raftstore.split-check` is `BRAID_RAFTSTORE__SPLIT_CHECK`. */
export const settingVariable = (setting: Setting): string =>
  `BRAID_${setting.section.toUpperCase()}__${setting.key.replaceAll('-', '_').toUpperCase()}`;

// ------------------------------------------------------------------------------------------------- reading values

export type Parsed = { readonly value: unknown } | { readonly problem: string };

const DURATION_MS_MAX: number = 2 ** 31 - 1;

/** `host:port`; the host may be a name, an IPv4 address, or an IPv6 address in brackets. */
export const isAddress = (text: string): boolean => {
  const match = /^(?:\[[0-9A-Fa-f:.]+\]|[^\s:/[\]]+):(\d{1,5})$/.exec(text);
  return match !== null && Number(match[1]) <= 65_535;
};

function parseNumber(setting: Setting, raw: unknown): Parsed {
  const value = typeof raw === 'string' && /^\d+(?:\.\d+)?$/.test(raw.trim()) ? Number(raw) : raw;
  const wantsInteger = setting.kind === 'integer';
  if (
    typeof value !== 'number' ||
    !Number.isFinite(value) ||
    value < 0 ||
    (wantsInteger && !Number.isSafeInteger(value))
  ) {
    return { problem: wantsInteger ? 'must be a whole number' : 'must be a number that is not negative' };
  }
  return value === 0 && !setting.zeroAllowed ? { problem: 'must be larger than 0' } : { value };
}

function parseDuration(setting: Setting, raw: unknown): Parsed {
  const value = raw === 0 || raw === '0' ? 0 : typeof raw === 'string' ? parseDurationMs(raw) : undefined;
  if (value === undefined || value > DURATION_MS_MAX) {
    return { problem: 'must be a duration with its unit, such as "250ms", "10s" or "5m", up to 24 days' };
  }
  return value === 0 && !setting.zeroAllowed ? { problem: 'must be longer than 0' } : { value };
}

function parseSize(setting: Setting, raw: unknown): Parsed {
  const plain = typeof raw === 'string' && /^\d+$/.test(raw.trim()) ? Number(raw) : raw;
  const value = typeof plain === 'string' ? parseSizeBytes(plain) : plain;
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) {
    return { problem: 'must be a size with its unit, such as "512KiB" or "8MiB"' };
  }
  return value === 0 && !setting.zeroAllowed ? { problem: 'must be larger than 0' } : { value };
}

/** Turns a TOML value, or the text of a variable or flag, into the value of a setting. */
export function parseSetting(setting: Setting, raw: unknown): Parsed {
  switch (setting.kind) {
    case 'duration':
      return parseDuration(setting, raw);
    case 'size':
      return parseSize(setting, raw);
    case 'integer':
    case 'ratio':
      return parseNumber(setting, raw);
    case 'boolean':
      if (raw === true || raw === 'true') {
        return { value: true };
      }
      return raw === false || raw === 'false' ? { value: false } : { problem: 'must be true or false' };
    case 'word':
      return setting.words?.includes(String(raw)) === true
        ? { value: raw }
        : { problem: `must be one of ${(setting.words ?? []).join(', ')}` };
    case 'address':
      if (typeof raw !== 'string' || (raw !== '' && !isAddress(raw))) {
        return { problem: 'must be an address, host:port' };
      }
      return raw === '' && setting.initial !== '' && setting.key === 'addr'
        ? { problem: 'must not be empty' }
        : { value: raw };
    case 'text':
      return typeof raw === 'string' ? { value: raw } : { problem: 'must be a text in quotes' };
    case 'texts': {
      const list: unknown =
        typeof raw === 'string'
          ? raw
              .split(',')
              .map((part) => part.trim())
              .filter((part) => part !== '')
          : raw;
      return Array.isArray(list) && list.every((part) => typeof part === 'string')
        ? { value: Object.freeze([...list]) }
        : { problem: 'must be a list of texts, such as ["a", "b"]' };
    }
  }
}

/** Splits `zone=a`; undefined if it has another form. Keys of labels are words, values free text without separators. */
export function parseLabel(text: string): StoreLabel | undefined {
  const match = /^([A-Za-z][\w.-]*)=([^=,\s]+)$/.exec(text);
  return match === null ? undefined : { key: match[1] as string, value: match[2] as string };
}
