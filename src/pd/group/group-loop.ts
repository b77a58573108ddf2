/**
 * Runs one member's state machine: one loop that takes its inputs, writes its batches in order, sends its messages and
 * feeds completions back. Everything that waits is here.
 */
import { RecordError } from '../../codec/record.ts';
import type { TimerId } from '../../env/clock.ts';
import { type Engine, EngineClosedError, type WriteBatch } from '../../env/engine.ts';
import type { Env } from '../../env/env.ts';
import type { Logger } from '../../env/log.ts';
import type { ConfChangeV2, HardState, Message, Role, Snapshot } from '../../raft/types.ts';
import { type Result, ok, refuse, refused } from '../schedule/verdict.ts';
import type { AuditEntry, AuditInput } from '../state/audit-log.ts';
import type { PdResult, PdState } from '../state/pd-state.ts';
import type { GroupConfig } from './config.ts';
import { GroupBusyError, LeadershipLostError, NotLeaderError, describeMember } from './errors.ts';
import { installSnapshot, makeSnapshot } from './group-disk.ts';
import { type GroupEffect, GroupFsm, type ProposalOutcome, type SavedGroup } from './group-fsm.ts';
import type { GroupCommand } from './group-record.ts';
import { type Member, type Membership, isVoter } from './membership.ts';
import {
  type GroupView,
  type MemberChangeOptions,
  describeChange,
  planJoin,
  planPromotion,
  planRemoval,
  planTransfer,
} from './membership-change.ts';

/** How messages reach other members. May lose, repeat and delay them. */
export interface GroupTransport {
  send(to: Member, message: Message): void;
  /** Lets everything sent so far leave. */
  flush(): void;
  /** `done` is called exactly once, later. */
  sendSnapshot(to: Member, message: Message, done: (ok: boolean) => void): void;
}

/** A group of one has nobody to talk to. */
export const NO_TRANSPORT: GroupTransport = {
  send: () => undefined,
  flush: () => undefined,
  sendSnapshot: () => {
    throw new Error('a group of one sends no snapshots');
  },
};

export interface GroupEvents {
  /** This member leads and has applied everything earlier leaders can have committed. */
  readonly onLead: (term: number) => void;
  readonly onStepDown: (term: number) => void;
  /** This member was removed for good. */
  readonly onRemoved: () => void;
}

export interface MemberStatus extends Member {
  readonly isLeader: boolean;
  readonly isVoter: boolean;
  /** As the leader sees it; undefined if this member does not lead. */
  readonly isAnswering: boolean | undefined;
  /** Entries behind the leader's commit index; undefined if this member does not lead. */
  readonly lag: number | undefined;
}

export interface GroupStatus {
  readonly self: number;
  readonly role: Role;
  readonly term: number;
  readonly leader: Member | undefined;
  readonly members: readonly MemberStatus[];
  readonly commitIndex: number;
  readonly appliedIndex: number;
}

/** A member that came or went, and the entry that the audit log kept with it; absent for a dry run. */
export interface ChangedMember extends Member {
  readonly audit?: AuditEntry;
}

const changedMember = (member: Member, audit: AuditInput, sequence: number | undefined): ChangedMember =>
  sequence === undefined ? member : { ...member, audit: { ...audit, sequence } };

/** Repeats of a join that meets a change in progress. */
const JOIN_ROUNDS_MAX = 3;

export interface PdGroupOptions {
  readonly env: Env;
  readonly engine: Engine;
  readonly id: number;
  readonly config: GroupConfig;
  readonly saved: SavedGroup;
  readonly restarted: boolean;
  readonly transport: GroupTransport;
  readonly events: GroupEvents;
}

export class PdGroup {
  readonly #env: Env;
  readonly #log: Logger;
  readonly #engine: Engine;
  readonly #config: GroupConfig;
  readonly #fsm: GroupFsm;
  readonly #transport: GroupTransport;
  readonly #events: GroupEvents;
  #timer: TimerId | undefined;
  #isScheduled = false;
  #isClosed = false;
  #isMakingSnapshot = false;
  /** Resolves when every batch handed out so far is durable. Never rejects. */
  #lastWrite: Promise<void> = Promise.resolve();
  /** Round in which the membership was last looked at for promotions. */
  #promoting = false;

  constructor(options: PdGroupOptions) {
    const { env, id, config, saved, restarted } = options;
    this.#env = env;
    this.#log = env.log.child({ component: 'pd-group', memberId: id });
    this.#engine = options.engine;
    this.#config = config;
    this.#transport = options.transport;
    this.#events = options.events;
    const rng = env.rng.fork(`pd-group-${id}`);
    this.#fsm = new GroupFsm({
      id,
      config,
      saved,
      restarted,
      monoMs: () => env.clock.monoMs(),
      random: (n) => rng.below(n),
      log: this.#log,
    });
  }

  /** Begins to tick, to vote and, in a group of one, to lead. */
  start(): void {
    this.#guard(() => this.#fsm.start());
    this.#armTick();
    this.#schedule();
  }

  /** Stops at once as far as promises go; waits for what is being written. Idempotent. */
  async close(): Promise<void> {
    if (!this.#isClosed) {
      this.#isClosed = true;
      if (this.#timer !== undefined) {
        this.#env.clock.clearTimer(this.#timer);
      }
      this.#fsm.abandon();
    }
    await this.#lastWrite;
  }

  // ------------------------------------------------------------------------------------------------------ views

  get id(): number {
    return this.#fsm.id;
  }

  get state(): PdState {
    return this.#fsm.state;
  }

  get membership(): Membership {
    return this.#fsm.membership;
  }

  get leader(): Member | undefined {
    return this.#fsm.leader;
  }

  get term(): number {
    return this.#fsm.term;
  }

  /** Index before the first log entry that is kept. */
  get logBegin(): number {
    return this.#fsm.truncated.index;
  }

  /** Term in which this member leads; undefined if it does not. */
  get leadTerm(): number | undefined {
    return this.#fsm.isLeader ? this.#fsm.term : undefined;
  }

  get serveFromMs(): number {
    return this.#fsm.serveFromMs;
  }

  /** Whether an answer as the leader of `term` is allowed at this moment. To be asked after the last wait. */
  servesTerm(term: number): boolean {
    return !this.#isClosed && this.#fsm.servesTerm(term);
  }

  status(): GroupStatus {
    const { id, membership, leader, role, term, commitIndex, applied } = this.#fsm;
    const progress = this.#fsm.progress();
    return {
      self: id,
      role,
      term,
      leader,
      commitIndex,
      appliedIndex: applied.index,
      members: membership.members.map((member) => {
        const seen = progress.find((one) => one.id === member.id);
        return {
          ...member,
          isLeader: member.id === leader?.id,
          isVoter: isVoter(membership, member.id),
          isAnswering: seen === undefined ? undefined : this.#fsm.isAnswering(member.id),
          lag:
            seen === undefined ? undefined : Math.max(0, commitIndex - (member.id === id ? commitIndex : seen.match)),
        };
      }),
    };
  }

  // ------------------------------------------------------------------------------------------------------ input

  /** A message of another member. @param from how to answer it */
  receive(message: Message, from: Member): void {
    if (!this.#isClosed) {
      this.#guard(() => {
        this.#fsm.introduce(from);
        this.#fsm.receive(message);
      });
      this.#schedule();
    }
  }

  /** Sending to this member failed. */
  unreachable(id: number): void {
    if (!this.#isClosed) {
      this.#guard(() => this.#fsm.unreachable(id));
      this.#schedule();
    }
  }

  /**
   * Carries out a command in `term`, the term of the caller's leadership. Resolves when it is applied, which is after
   * a majority made it durable. @throws NotLeaderError (nothing happened), LeadershipLostError (unknown), GroupBusyError
   */
  async propose(term: number, command: GroupCommand): Promise<PdResult> {
    const outcome = await this.#ask((done) => this.#fsm.propose(term, command, done));
    switch (outcome.type) {
      case 'applied':
        return outcome.result;
      case 'lost':
        throw new LeadershipLostError();
      case 'busy':
        throw new GroupBusyError();
      case 'not-leader':
      case 'refused':
        throw this.notLeader();
    }
  }

  notLeader(why?: string): NotLeaderError {
    const { leader } = this.#fsm;
    return new NotLeaderError(leader?.id === this.id ? undefined : leader, why);
  }

  #ask(start: (done: (outcome: ProposalOutcome) => void) => void): Promise<ProposalOutcome> {
    if (this.#isClosed) {
      return Promise.resolve({ type: 'not-leader' });
    }
    return new Promise((resolve) => {
      this.#guard(() => start(resolve));
      this.#schedule();
    });
  }

  /** Resolves when everything applied so far is readable from the engine. */
  flush(): Promise<void> {
    return this.#lastWrite;
  }

  // ------------------------------------------------------------------------------------------------------ members

  #view(): GroupView {
    const { id, membership, commitIndex, changesMembership } = this.#fsm;
    return {
      self: id,
      membership,
      progress: this.#fsm.progress(),
      commitIndex,
      isChanging: changesMembership,
      isAnswering: (member) => this.#fsm.isAnswering(member),
    };
  }

  /** Admits a member with an empty directory; it votes as soon as it has caught up. @throws as `propose` */
  async addMember(joining: { readonly name: string; readonly address: string }): Promise<Result<ChangedMember>> {
    for (let round = 0; round < JOIN_ROUNDS_MAX; round++) {
      const term = this.#requireLead();
      const plan = planJoin(this.#view(), joining, this.#env.clock.wallMs());
      if (plan.type === 'refused') {
        return plan;
      }
      const done = await this.#change(term, plan.value.change);
      if (done.type === 'refused') {
        return done;
      }
      if (plan.value.type === 'add') {
        return ok(changedMember(plan.value.member, plan.value.audit, done.value));
      }
    }
    return refused(refuse('MembershipChanging', `${joining.name} is being joined by somebody else`, 'try again'));
  }

  /** @param which name or id. @throws as `propose` */
  async removeMember(
    which: string,
    dryRun: boolean,
    options: MemberChangeOptions = {},
  ): Promise<Result<ChangedMember>> {
    const term = this.#requireLead();
    const plan = planRemoval(this.#view(), which, options, this.#env.clock.wallMs());
    if (plan.type === 'refused' || dryRun) {
      return plan.type === 'refused' ? plan : ok(plan.value.member);
    }
    const { member, change, audit } = plan.value;
    const done = await this.#change(term, change);
    return done.type === 'refused' ? done : ok(changedMember(member, audit, done.value));
  }

  /** To whom the lead would go. @throws NotLeaderError */
  planTransfer(which: string | undefined, options: MemberChangeOptions = {}): Result<Member> {
    this.#requireLead();
    return planTransfer(this.#view(), which, options);
  }

  /** Starts handing over; the answer says to whom. @throws NotLeaderError */
  transferLeader(which: string | undefined, options: MemberChangeOptions = {}): Result<Member> {
    const plan = this.planTransfer(which, options);
    if (plan.type === 'ok' && plan.value.id !== this.id) {
      this.#log.info({ to: describeMember(plan.value) }, 'handing over the lead');
      this.#guard(() => this.#fsm.transferLeader(plan.value.id));
      this.#schedule();
    }
    return plan;
  }

  /** Makes a member's new name or address known. @throws as `propose` */
  async updateMember(member: Member): Promise<void> {
    await this.propose(this.#requireLead(), { type: 'member', member });
  }

  #requireLead(): number {
    const term = this.leadTerm;
    if (term === undefined || !this.servesTerm(term)) {
      throw this.notLeader();
    }
    return term;
  }

  /** @returns the number of the entry that the audit log kept with it */
  async #change(term: number, change: ConfChangeV2): Promise<Result<number | undefined>> {
    this.#log.info({ change: describeChange(change) }, 'changing the members of the placement service');
    const outcome = await this.#ask((done) => this.#fsm.proposeChange(term, change, done));
    switch (outcome.type) {
      case 'applied':
        return ok(outcome.result.type === 'done' ? outcome.result.firstAudit : undefined);
      case 'refused':
        return refused(
          refuse('MembershipChanging', `the change is not possible now: ${outcome.reason}`, 'try again in a moment'),
        );
      case 'lost':
        throw new LeadershipLostError();
      case 'busy':
        throw new GroupBusyError();
      case 'not-leader':
        throw this.notLeader();
    }
  }

  #promote(): void {
    const term = this.leadTerm;
    if (term === undefined || this.#promoting || !this.#fsm.servesTerm(term)) {
      return;
    }
    const change = this.#fsm.membership.confState.learners.length === 0 ? undefined : planPromotion(this.#view());
    if (change === undefined) {
      return;
    }
    this.#promoting = true;
    this.#change(term, change)
      .catch((cause: unknown) => this.#log.debug({ cause }, 'a member was not promoted'))
      .finally(() => {
        this.#promoting = false;
      });
  }

  // ------------------------------------------------------------------------------------------------------ loop

  #armTick(): void {
    this.#timer = this.#env.clock.setTimer(
      this.#config.tickMs,
      () => {
        if (!this.#isClosed) {
          // One tick, however late: a stall must not look like silence of the leader.
          this.#guard(() => this.#fsm.tick());
          this.#promote();
          this.#schedule();
          this.#armTick();
        }
      },
      'pd-group-tick',
    );
  }

  #schedule(): void {
    if (!this.#isScheduled && !this.#isClosed) {
      this.#isScheduled = true;
      this.#env.clock.defer(() => {
        this.#isScheduled = false;
        if (!this.#isClosed) {
          this.#guard(() => this.#round());
        }
      }, 'pd-group-round');
    }
  }

  #round(): void {
    const batch = this.#engine.createBatch();
    const number = this.#fsm.collect(batch);
    if (number !== undefined || batch.count > 0) {
      this.#write(batch, number);
    }
    for (const effect of this.#fsm.takeEffects()) {
      this.#run(effect);
    }
    this.#transport.flush();
    if (this.#fsm.hasWork) {
      this.#schedule();
    }
  }

  #write(batch: WriteBatch, number: number | undefined): void {
    this.#lastWrite = this.#engine.write(batch).then(
      () => {
        if (number !== undefined && !this.#isClosed) {
          this.#guard(() => this.#fsm.persisted(number));
          this.#schedule();
        }
      },
      (cause: unknown) => this.#writeFailed(cause),
    );
  }

  /** The engine has stopped by itself; nothing is promised any more. */
  #writeFailed(cause: unknown): void {
    this.#isClosed = true;
    this.#fsm.abandon();
    if (!(cause instanceof EngineClosedError)) {
      this.#log.error({ cause }, 'the placement service cannot write any more');
    }
  }

  #run(effect: GroupEffect): void {
    switch (effect.type) {
      case 'send':
        this.#transport.send(effect.to, effect.message);
        return;
      case 'send-snapshot':
        this.#sendSnapshot(effect.to, effect.message);
        return;
      case 'make-snapshot':
        this.#makeSnapshot();
        return;
      case 'install':
        this.#install(effect.snapshot, effect.hardState);
        return;
      case 'lead':
        this.#log.info({ term: effect.term }, 'this member leads');
        this.#events.onLead(effect.term);
        return;
      case 'step-down':
        this.#log.info({ term: effect.term }, 'this member leads no more');
        this.#events.onStepDown(effect.term);
        return;
      case 'removed':
        this.#log.warn({}, 'this member was removed from the cluster');
        this.#leaveSoon();
    }
  }

  /** Those who removed it may still need its vote until they have its removal on disk. */
  #leaveSoon(): void {
    const { electionTicks, tickMs } = this.#config;
    this.#env.clock.setTimer(2 * electionTicks * tickMs, () => this.#isClosed || this.#events.onRemoved(), 'pd-leave');
  }

  #sendSnapshot(to: Member, message: Message): void {
    this.#log.info({ to: describeMember(to), index: message.snapshot?.metadata.index }, 'sending the whole state');
    this.#transport.sendSnapshot(to, message, (sent) => {
      if (!this.#isClosed) {
        this.#guard(() => this.#fsm.snapshotSent(to.id, sent));
        this.#schedule();
      }
    });
  }

  #makeSnapshot(): void {
    if (this.#isMakingSnapshot) {
      return;
    }
    this.#isMakingSnapshot = true;
    this.#lastWrite
      .then(() => makeSnapshot(this.#engine))
      .then(
        (snapshot) => {
          this.#isMakingSnapshot = false;
          if (!this.#isClosed) {
            this.#fsm.snapshotMade(snapshot);
          }
        },
        (cause: unknown) => {
          this.#isMakingSnapshot = false;
          this.#log.warn({ cause }, 'the state could not be copied for another member');
        },
      );
  }

  #install(snapshot: Snapshot, hardState: HardState): void {
    this.#log.info({ index: snapshot.metadata.index }, 'receiving the whole state');
    this.#lastWrite = this.#lastWrite
      .then(() => installSnapshot(this.#engine, snapshot, hardState))
      .then(
        (saved) => {
          if (!this.#isClosed) {
            this.#guard(() => this.#fsm.installed(saved, snapshot, hardState));
            this.#schedule();
          }
        },
        (cause: unknown) => {
          this.#writeFailed(cause);
          if (!(cause instanceof EngineClosedError)) {
            this.#env.abort('storage', `the state of another member could not be taken over: ${String(cause)}`, cause);
          }
        },
      );
  }

  /** A broken invariant stops the process: going on could let members differ. */
  #guard(step: () => void): void {
    try {
      step();
    } catch (cause) {
      this.#isClosed = true;
      const reason = cause instanceof Error ? cause.message : String(cause);
      // A log entry that only a newer program understands: going on without it would make this member differ.
      this.#env.abort(cause instanceof RecordError ? 'storage' : 'bug', reason, cause);
    }
  }
}
