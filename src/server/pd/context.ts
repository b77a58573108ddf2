/** What all services of a placement process share: the node, its identity, and the checks every call starts with. */
import type { Clock } from '../../env/clock.ts';
import type { Logger } from '../../env/log.ts';
import { RpcError, RpcStatus, type ServerCall } from '../../env/net.ts';
import { ErrorType, type ResponseHeader } from '../../gen/pdpb.ts';
import type { GroupStatus } from '../../pd/group/group-loop.ts';
import type { PdMember } from '../../pd/pd-member.ts';
import type { PdNode } from '../../pd/pd-node.ts';
import type { Scheme } from './config.ts';
import type { Refusal, RefusalCode } from '../../pd/schedule/verdict.ts';

/** Metadata key with which clients ask for a call to be answered by a certain member. */
const FORWARDED_HOST = 'pd-forwarded-host';

/** Characters of the reason for a change. */
const REASON_CHARS_MAX = 512;

const ERROR_TYPES: Readonly<Partial<Record<RefusalCode, ErrorType>>> = {
  NotBootstrapped: ErrorType.NOT_BOOTSTRAPPED,
  AlreadyBootstrapped: ErrorType.ALREADY_BOOTSTRAPPED,
  StoreRemoved: ErrorType.STORE_TOMBSTONE,
  RegionNotFound: ErrorType.REGION_NOT_FOUND,
  StoreNotFound: ErrorType.ENTRY_NOT_FOUND,
  DuplicateAddress: ErrorType.DUPLICATED_ENTRY,
  InvalidArgument: ErrorType.INVALID_VALUE,
  StoreRolledBack: ErrorType.INVALID_VALUE,
};

export class ServiceContext {
  readonly node: PdNode;
  readonly member: PdMember;
  readonly clock: Clock;
  readonly log: Logger;
  /** With which members are announced. */
  readonly scheme: Scheme;
  readonly #clusterId: string;
  /** All `host:port` under which this member knows itself. */
  readonly #ownHosts: ReadonlySet<string>;

  /** @param options.hosts all `host:port` under which this member is reached */
  constructor(options: {
    readonly node: PdNode;
    readonly member: PdMember;
    readonly clock: Clock;
    readonly log: Logger;
    readonly hosts: readonly string[];
    readonly scheme: Scheme;
  }) {
    this.node = options.node;
    this.member = options.member;
    this.clock = options.clock;
    this.log = options.log;
    this.scheme = options.scheme;
    this.#clusterId = String(options.node.clusterId);
    this.#ownHosts = new Set(options.hosts);
  }

  /** The members of the placement service as this one, the leader, sees them. */
  members(): GroupStatus {
    return this.member.group.status();
  }

  header(): ResponseHeader {
    return { clusterId: this.#clusterId, error: undefined };
  }

  /** A header that says why the call was refused. */
  refusal(refusal: Refusal): ResponseHeader {
    return this.errorHeader(ERROR_TYPES[refusal.code] ?? ErrorType.UNKNOWN, `${refusal.message}: ${refusal.hint}`);
  }

  errorHeader(type: ErrorType, message: string): ResponseHeader {
    return { clusterId: this.#clusterId, error: { type, message } };
  }

  /** The refusal every call but a few gives before the first store came. */
  notBootstrapped(): ResponseHeader | undefined {
    return this.node.isBootstrapped
      ? undefined
      : this.errorHeader(ErrorType.NOT_BOOTSTRAPPED, 'the cluster is not bootstrapped: start a store');
  }

  /**
   * Refuses calls for another cluster or another member, and every call while this member is not sure of its lead.
   * Cluster id 0 means that the caller does not know it yet.
   * @throws RpcError, NotLeaderError
   */
  check(header: { readonly clusterId: string; readonly reason?: string } | undefined, call: ServerCall): void {
    this.checkCaller(header, call);
    this.node.requireLead();
  }

  /** As `check`, for calls that look at the lead themselves. */
  checkCaller(header: { readonly clusterId: string; readonly reason?: string } | undefined, call: ServerCall): void {
    if ((header?.reason?.length ?? 0) > REASON_CHARS_MAX) {
      throw new RpcError(RpcStatus.INVALID_ARGUMENT, `a reason has at most ${REASON_CHARS_MAX} characters`);
    }
    const got = header?.clusterId ?? '0';
    if (got !== '0' && got !== this.#clusterId) {
      throw new RpcError(RpcStatus.FAILED_PRECONDITION, `mismatch cluster id, need ${this.#clusterId} but got ${got}`);
    }
    const wanted = call.metadata[FORWARDED_HOST];
    if (wanted !== undefined && wanted !== '' && !this.#ownHosts.has(hostOf(wanted))) {
      throw new RpcError(RpcStatus.UNAVAILABLE, `not leader: this member does not forward to ${wanted}`);
    }
  }
}

/** `host:port` of a URL with or without a scheme. */
function hostOf(url: string): string {
  return url.replace(/^[a-z]+:\/\//u, '').replace(/\/.*$/u, '');
}
