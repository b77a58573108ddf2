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
import { MEMBER_NAME_PATTERN } from '../../pd/group/membership.ts';

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
  readonly cluster: PlacementConfig;
  readonly allocation: AllocationConfig;
  readonly group: GroupConfig;
  /** Running calls may go on for this long when the process stops. */
  readonly closeGraceMs: number;
}

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
    cluster: { ...DEFAULT_PLACEMENT_CONFIG, ...input.cluster },
    allocation: { ...DEFAULT_ALLOCATION_CONFIG, ...input.allocation },
    group: { ...DEFAULT_GROUP_CONFIG, ...input.group },
    closeGraceMs: input.closeGraceMs ?? 1_000,
  };
  const problem =
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
