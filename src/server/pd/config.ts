/** Configuration of a placement service process: one interface, one set of defaults. */
import { AppError } from '../../base/app-error.ts';
import {
  type AllocationConfig,
  DEFAULT_ALLOCATION_CONFIG,
  DEFAULT_PLACEMENT_CONFIG,
  type PlacementConfig,
  checkPlacementConfig,
} from '../../pd/defaults.ts';
import { DEFAULT_GROUP_CONFIG, type GroupConfig, checkGroupConfig } from '../../pd/group/config.ts';
import { MEMBERS_MAX, MEMBER_NAME_PATTERN } from '../../pd/group/membership.ts';

/** A member as it is named before it has an id. */
export interface NamedAddress {
  readonly name: string;
  readonly address: string;
}

export interface PdConfig {
  /** Name of the member, for people. */
  readonly name: string;
  /** Id of the member that founds a cluster; others receive theirs when they join. Not 0. */
  readonly memberId: number;
  /** Directory of the member's database; it belongs to this member alone. */
  readonly dataDir: string;
  /** Whether a missing data directory is created. */
  readonly createIfMissing: boolean;
  /** `host:port` to listen on; port 0 takes a free one. */
  readonly listenAddress: string;
  /** `host:port` under which clients and stores reach this member; undefined takes the bound address. */
  readonly advertiseAddress: string | undefined;
  /** The cluster this member must belong to; undefined takes the data directory's, or founds a new cluster. */
  readonly clusterId: bigint | undefined;
  /** Any members of the cluster to join, `host:port` or URLs; only looked at by a member with an empty directory. */
  readonly join: readonly string[];
  /**
   * All members of a cluster that is to be founded, as `name=http://host:port`, the same list in the same order for each
   * of them, this member included. Only looked at by a member with an empty directory.
   */
  readonly initialCluster: readonly string[];
  /** How long a new member looks for the others before it gives up. */
  readonly startTimeoutMs: number;
  readonly cluster: PlacementConfig;
  readonly allocation: AllocationConfig;
  readonly group: GroupConfig;
  /** Running calls may go on for this long when the process stops. */
  readonly closeGraceMs: number;
  /** With which members are announced: clients that follow URLs take TLS from it. */
  readonly scheme: Scheme;
}

export type Scheme = 'http' | 'https';

/** What a caller may leave out. */
export type PdConfigInput = Partial<Omit<PdConfig, 'cluster' | 'allocation' | 'group' | 'dataDir'>> & {
  readonly dataDir: string;
  readonly cluster?: Partial<PlacementConfig>;
  readonly allocation?: Partial<AllocationConfig>;
  readonly group?: Partial<GroupConfig>;
};

export const DEFAULT_PD_PORT = 2379;

/** A setting that cannot work. */
export class PdConfigError extends AppError {
  constructor(message: string) {
    super('BadConfig', `the configuration of the placement service cannot work: ${message}`, {
      hint: 'correct the setting and start again',
    });
  }
}

/** Fills in defaults and checks. @throws PdConfigError */
export function pdConfig(input: PdConfigInput): PdConfig {
  const config: PdConfig = {
    name: input.name ?? 'pd',
    memberId: input.memberId ?? 1,
    dataDir: input.dataDir,
    createIfMissing: input.createIfMissing ?? true,
    listenAddress: input.listenAddress ?? `127.0.0.1:${DEFAULT_PD_PORT}`,
    advertiseAddress: input.advertiseAddress,
    clusterId: input.clusterId,
    join: (input.join ?? []).map(hostOf),
    initialCluster: input.initialCluster ?? [],
    startTimeoutMs: input.startTimeoutMs ?? 60_000,
    cluster: { ...DEFAULT_PLACEMENT_CONFIG, ...input.cluster },
    allocation: { ...DEFAULT_ALLOCATION_CONFIG, ...input.allocation },
    group: { ...DEFAULT_GROUP_CONFIG, ...input.group },
    closeGraceMs: input.closeGraceMs ?? 1_000,
    scheme: input.scheme ?? 'http',
  };
  const problem =
    membersProblem(config) ??
    checkPlacementConfig(config.cluster) ??
    checkGroupConfig(config.group) ??
    (MEMBER_NAME_PATTERN.test(config.name)
      ? undefined
      : 'name must consist of letters, digits, "-", "_" and ".", at most 63') ??
    (Number.isSafeInteger(config.memberId) && config.memberId > 0
      ? undefined
      : 'memberId must be a positive integer') ??
    (config.dataDir === '' ? 'dataDir must not be empty' : undefined) ??
    (config.clusterId === undefined || (config.clusterId > 0n && config.clusterId < 2n ** 53n)
      ? undefined
      : 'clusterId must be above 0 and below 2^53');
  if (problem !== undefined) {
    throw new PdConfigError(problem);
  }
  return config;
}

/** `host:port` of an endpoint that may be written as a URL. */
const hostOf = (endpoint: string): string => endpoint.replace(/^https?:\/\//u, '').replace(/\/$/u, '');

/** The list of initial members; undefined if it is not one. */
export function parseInitialCluster(list: readonly string[]): NamedAddress[] | undefined {
  const members = list.map((item) => /^([^=]+)=(.+)$/u.exec(item.trim()));
  const named = members.map((match) => ({ name: match?.[1] ?? '', address: hostOf(match?.[2] ?? '') }));
  const isValid = named.every(
    ({ name, address }) => MEMBER_NAME_PATTERN.test(name) && /^(?:\[[^\]]+\]|[^:/\s]+):\d+$/u.test(address),
  );
  const isUnique =
    new Set(named.map(({ name }) => name)).size === named.length &&
    new Set(named.map(({ address }) => address)).size === named.length;
  return isValid && isUnique && named.length <= MEMBERS_MAX ? named : undefined;
}

function membersProblem({ join, initialCluster, name }: PdConfig): string | undefined {
  if (join.length > 0 && initialCluster.length > 0) {
    return 'join and initialCluster exclude each other: the first is for a cluster that exists, the second for a new one';
  }
  const members = parseInitialCluster(initialCluster);
  if (members === undefined) {
    return `initialCluster must list up to ${MEMBERS_MAX} different members as name=http://host:port`;
  }
  return members.length === 0 || members.some((member) => member.name === name)
    ? undefined
    : `initialCluster does not contain this member, ${name}`;
}
