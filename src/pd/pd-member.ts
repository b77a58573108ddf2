/**
 * One member of the placement service: its place in the group and, while it leads, the node that serves. Of several
 * members exactly one serves at a time; a member alone is a group of one and takes the same way.
 *
 * ```text
 * follower ──elected, own entry applied──► starting ──state loaded, windows reserved, old lease over──► serving
 *     ▲                                       │                                                            │
 *     └──────────────── lead lost ────────────┴────────────────────────────────────────────────────────────┘
 * ```
 */
import { AppError } from '../base/app-error.ts';
import { type TimerId, sleep } from '../env/clock.ts';
import { type Engine, EngineOpenError } from '../env/engine.ts';
import type { Env } from '../env/env.ts';
import type { GroupConfig } from './group/config.ts';
import type { NotLeaderError } from './group/errors.ts';
import { type DiskContent, inspectDisk, loadGroup, loadGroupRegions } from './group/group-disk.ts';
import { type GroupTransport, PdGroup } from './group/group-loop.ts';
import type { GroupIdent } from './group/group-record.ts';
import { type Member, findMember, isSoleVoter } from './group/membership.ts';
import { PdNode, type PdNodeConfig } from './pd-node.ts';
import { TermLog } from './group/term-log.ts';

export interface PdMemberConfig extends PdNodeConfig {
  readonly group: GroupConfig;
}

/** The member was removed from its cluster and cannot come back with this directory. */
export class MemberRemovedError extends AppError {
  constructor(name: string) {
    super('MemberRemoved', `the placement member ${name} was removed from the cluster`, {
      hint: 'to join again, start it with --join and an empty data directory',
      details: { member: name },
    });
  }
}

export interface PdMemberEvents {
  /** This member serves from now on, with this node. */
  readonly onServing: (node: PdNode) => void;
  /** The node serves no more. */
  readonly onStopped: () => void;
  readonly onRemoved: () => void;
}

export interface PdMemberOptions {
  readonly env: Env;
  /** Taken over: `close` closes it. Holds a member (see `foundGroup` and `joinGroup`). */
  readonly engine: Engine;
  readonly ident: GroupIdent;
  readonly config: PdMemberConfig;
  /** `host:port` the others reach this member under. */
  readonly address: string;
  readonly transport: GroupTransport;
  /** Whether the directory existed when this process started. */
  readonly restarted: boolean;
  readonly events?: Partial<PdMemberEvents>;
}

/** Interval of looks whether the lead was taken over. */
const HAND_OVER_LOOK_MS = 20;
/** Pause after a start that failed although the lead stayed. */
const START_AGAIN_MS = 100;

type Serving =
  | { readonly type: 'no' }
  | { readonly type: 'starting'; readonly term: number; timer: TimerId | undefined }
  | { readonly type: 'yes'; readonly term: number; readonly node: PdNode; readonly log: TermLog };

/**
 * What a directory is to a member of `clusterId`: its own, new, or of an older program that ran alone.
 * @throws EngineOpenError for a directory of another cluster
 */
export async function openDirectory(engine: Engine, clusterId: bigint | undefined): Promise<DiskContent> {
  const content = await inspectDisk(engine);
  const known = content.type === 'empty' ? 0n : content.clusterId;
  if (clusterId !== undefined && known !== 0n && known !== clusterId) {
    throw new EngineOpenError(
      `the data directory belongs to cluster ${known}, not to cluster ${clusterId}`,
      'check the data directory and the cluster id in the configuration',
    );
  }
  return content;
}

export class PdMember {
  readonly #env: Env;
  readonly #engine: Engine;
  readonly #ident: GroupIdent;
  readonly #config: PdMemberConfig;
  readonly #address: string;
  readonly #events: Partial<PdMemberEvents>;
  readonly #group: PdGroup;
  #serving: Serving = { type: 'no' };
  readonly #waiters = new Set<(node: PdNode | undefined) => void>();
  #isClosed = false;

  private constructor(options: PdMemberOptions, saved: Awaited<ReturnType<typeof loadGroup>>) {
    this.#env = options.env;
    this.#engine = options.engine;
    this.#ident = options.ident;
    this.#config = options.config;
    this.#address = options.address;
    this.#events = options.events ?? {};
    this.#group = new PdGroup({
      env: options.env,
      engine: options.engine,
      id: options.ident.memberId,
      config: options.config.group,
      saved,
      restarted: options.restarted,
      transport: options.transport,
      events: {
        onLead: (term) => this.#onLead(term),
        onStepDown: () => this.#stopServing(),
        onRemoved: () => this.#events.onRemoved?.(),
      },
    });
  }

  /**
   * Loads the member and lets it take part in its group.
   * @throws MemberRemovedError, EngineOpenError, RecordError; the caller keeps the engine then
   */
  static async open(options: PdMemberOptions): Promise<PdMember> {
    const { env, engine, ident } = options;
    const saved = await loadGroup(engine);
    if (saved.membership.members.length > 0 && findMember(saved.membership, ident.memberId) === undefined) {
      throw new MemberRemovedError(ident.name);
    }
    engine.onPoisoned((reason) => env.abort('storage', `the placement service's database failed: ${reason}`));
    const member = new PdMember(options, saved);
    member.#group.start();
    return member;
  }

  get group(): PdGroup {
    return this.#group;
  }

  get id(): number {
    return this.#ident.memberId;
  }

  get name(): string {
    return this.#ident.name;
  }

  /** 0 until the cluster has one, which is before anything is served. */
  get clusterId(): bigint {
    return this.#group.state.meta?.clusterId ?? this.#ident.clusterId;
  }

  get leader(): Member | undefined {
    return this.#group.leader;
  }

  /** The node that serves at this moment; undefined on a member that does not lead. */
  get node(): PdNode | undefined {
    return this.#serving.type === 'yes' ? this.#serving.node : undefined;
  }

  /** The refusal of everything only the serving member does. */
  notLeader(): NotLeaderError {
    const leads = this.#group.leadTerm !== undefined;
    return this.#group.notLeader(leads ? 'this member is not sure of its lead at the moment' : undefined);
  }

  /** Whether this member is a group of one. */
  get isAlone(): boolean {
    return isSoleVoter(this.#group.membership, this.id);
  }

  /** Resolves when this member serves; undefined if it is closed before. */
  whenServing(): Promise<PdNode | undefined> {
    const { node } = this;
    return node !== undefined || this.#isClosed
      ? Promise.resolve(node)
      : new Promise((resolve) => this.#waiters.add(resolve));
  }

  /** Lets another member lead before this one stops, and waits for it no longer than `limitMs`. */
  async handOver(limitMs: number): Promise<void> {
    const { clock } = this.#env;
    if (this.node?.isLeading !== true || this.isAlone || this.#group.transferLeader(undefined).type === 'refused') {
      return;
    }
    const deadlineMs = clock.monoMs() + limitMs;
    while (this.#group.leadTerm !== undefined && clock.monoMs() < deadlineMs) {
      await sleep(clock, HAND_OVER_LOOK_MS, 'pd-hand-over');
    }
  }

  /** Stops serving at once, then the group, then closes the engine. Idempotent. */
  async close(): Promise<void> {
    if (this.#isClosed) {
      return;
    }
    this.#isClosed = true;
    const serving = this.#serving;
    if (serving.type === 'yes' && this.isAlone) {
      // Nobody else can be waited for in vain: what is accepted becomes durable.
      await serving.node.close();
    }
    this.#stopServing();
    this.#wake(undefined);
    await this.#group.close();
    await this.#engine.close();
  }

  #wake(node: PdNode | undefined): void {
    for (const wake of this.#waiters) {
      wake(node);
    }
    this.#waiters.clear();
  }

  // ------------------------------------------------------------------------------------------------------ serving

  #onLead(term: number): void {
    this.#stopServing();
    if (this.#isClosed) {
      return;
    }
    this.#serving = { type: 'starting', term, timer: undefined };
    this.#startServing(term).catch((cause: unknown) => {
      if (this.#isClosed || !this.#isStarting(term)) {
        return;
      }
      if (!(cause instanceof AppError && cause.retryable)) {
        this.#env.abort('bug', `the placement service cannot start to serve: ${String(cause)}`, cause);
      }
      this.#pause(term, START_AGAIN_MS).then(
        () => this.#group.leadTerm === term && this.#isStarting(term) && this.#onLead(term),
        () => undefined,
      );
    });
  }

  #isStarting(term: number): boolean {
    return this.#serving.type === 'starting' && this.#serving.term === term;
  }

  /** Waits out the lease of earlier leaders, loads what they left, reserves the windows above theirs. */
  async #startServing(term: number): Promise<void> {
    const group = this.#group;
    const leftMs = group.serveFromMs - this.#env.clock.monoMs();
    if (leftMs > 0) {
      await this.#pause(term, leftMs);
    }
    await group.flush();
    const regions = await loadGroupRegions(this.#engine);
    if (!this.#isStarting(term)) {
      return;
    }
    const log = new TermLog({ group, clock: this.#env.clock, term });
    const node = await PdNode.start({
      env: this.#env,
      config: this.#config,
      log,
      regions,
      leadership: { isHeld: () => group.servesTerm(term), refusal: () => this.notLeader() },
    });
    if (!this.#isStarting(term)) {
      node.stop();
      log.close();
      return;
    }
    this.#serving = { type: 'yes', term, node, log };
    this.#env.log.info({ component: 'pd', member: this.name, term }, 'the placement service serves');
    this.#events.onServing?.(node);
    this.#wake(node);
    this.#announceAddress();
  }

  /** Resolves after `delayMs`, and never if the lead is lost before. */
  #pause(term: number, delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      const serving = this.#serving;
      if (serving.type === 'starting' && serving.term === term) {
        serving.timer = this.#env.clock.setTimer(delayMs, resolve, 'pd-start-serving');
      }
    });
  }

  #stopServing(): void {
    const serving = this.#serving;
    this.#serving = { type: 'no' };
    if (serving.type === 'starting' && serving.timer !== undefined) {
      this.#env.clock.clearTimer(serving.timer);
    }
    if (serving.type === 'yes') {
      serving.node.stop();
      serving.log.close();
      this.#events.onStopped?.();
    }
  }

  /** The leader makes its own new address known; other members ask it to. */
  #announceAddress(): void {
    const known = findMember(this.#group.membership, this.id);
    if (known !== undefined && (known.address !== this.#address || known.name !== this.name)) {
      this.#group
        .updateMember({ id: this.id, name: this.name, address: this.#address })
        .catch((cause: unknown) => this.#env.log.debug({ cause }, 'the address of this member was not written yet'));
    }
  }
}
