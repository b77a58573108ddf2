/**
 * A randomized adversary for the consensus core alone: a group of members on simulated disks and a hostile network.
 * One seed is one run. It loses, repeats and reorders messages, crashes members at every persistence boundary with
 * whatever was not durable, changes the membership, transfers the leadership, compacts logs, and reads, and looks after
 * every step whether a promise was broken. In the end it stops being hostile: the group must then come to work again.
 *
 * What is checked, by name of the rule, is listed in docs/testing-raft.md.
 */
import { EMPTY_BYTES } from '../../src/base/bytes.ts';
import { InvariantError } from '../../src/base/assert.ts';
import { confStatesEquivalent } from '../../src/raft/conf-change.ts';
import type { Defect, DefectSet } from '../../src/raft/defects.ts';
import {
  COMPACTED,
  type ConfChangeSingle,
  ConfChangeTransition,
  ConfChangeType,
  type ConfState,
  decodeConfChangeV2,
  type Entry,
  entriesSizeBytes,
  EntryType,
  type HardState,
  LEAVE_JOINT,
  LOCAL_APPEND_THREAD,
  LOCAL_APPLY_THREAD,
  type LogErrorCode,
  type LogStorage,
  type Message,
  MsgType,
  type RaftConfig,
  RawNode,
  type Ready,
  type Role,
  type Snapshot,
  UNAVAILABLE,
  UNLIMITED,
} from '../../src/raft/index.ts';
import { limitSize } from '../../src/raft/entry.ts';
import { configText, progressText } from '../../src/raft/log-text.ts';
import { Ballot, jointVote, majorityOf } from '../../src/raft/quorum.ts';
import { TRANSFER_CONTEXT, type Raft } from '../../src/raft/raft.ts';

/** A broken promise. */
export class Violation extends Error {
  readonly rule: string;

  constructor(rule: string, detail: string) {
    super(`${rule}: ${detail}`);
    this.name = 'Violation';
    this.rule = rule;
  }
}

/** Small fast random generator (sfc32), seeded by one integer. */
export class Chance {
  #a: number;
  #b: number;
  #c: number;
  #d: number;

  constructor(seed: number) {
    this.#a = 0x9e3779b9 ^ seed;
    this.#b = 0x243f6a88;
    this.#c = Math.imul(seed, 0x85ebca6b) | 0;
    this.#d = 1;
    for (let i = 0; i < 16; i++) {
      this.next();
    }
  }

  next(): number {
    const t = (((this.#a + this.#b) | 0) + this.#d) | 0;
    this.#d = (this.#d + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = ((this.#c << 21) | (this.#c >>> 11)) + t;
    this.#c |= 0;
    return t >>> 0;
  }

  below(n: number): number {
    return this.next() % n;
  }

  /** True in `percent` of 100 cases. */
  percent(percent: number): boolean {
    return this.next() % 100 < percent;
  }

  pick<T>(list: readonly T[]): T {
    return list[this.next() % list.length] as T;
  }
}

// ------------------------------------------------------------------------------------------------ disks and state

/** What a state machine is after some index: a hash of everything applied. */
interface MachineState {
  readonly applied: number;
  readonly term: number;
  readonly hash: number;
  readonly conf: ConfState;
}

function mix(hash: number, entry: Entry): number {
  let h = Math.imul(hash ^ entry.term, 0x85ebca6b) ^ entry.index;
  for (const byte of entry.data) {
    h = Math.imul(h ^ byte, 0x01000193);
  }
  return h >>> 0;
}

/** Durable log of one member. Everything in here survives a crash. */
class Disk implements LogStorage {
  hardState: HardState = { term: 0, vote: 0, commit: 0 };
  baseIndex = 0;
  baseTerm = 0;
  log: Entry[] = [];
  /** Durable state of the state machine. */
  machine: MachineState;
  snapshotFor: () => Snapshot | null = () => null;

  constructor(machine: MachineState) {
    this.machine = machine;
  }

  initialState(): { readonly hardState: HardState; readonly confState: ConfState } {
    const { term, vote, commit } = this.hardState;
    const { applied, conf } = this.machine;
    return { hardState: { term, vote, commit: term === 0 ? commit : Math.max(commit, applied) }, confState: conf };
  }

  firstIndex(): number {
    return this.baseIndex + 1;
  }

  lastIndex(): number {
    return this.baseIndex + this.log.length;
  }

  term(index: number): number {
    if (index < this.baseIndex) {
      return COMPACTED;
    }
    if (index === this.baseIndex) {
      return this.baseTerm;
    }
    return this.log[index - this.baseIndex - 1]?.term ?? UNAVAILABLE;
  }

  entries(lo: number, hi: number, maxSize: number): readonly Entry[] | LogErrorCode {
    if (lo <= this.baseIndex) {
      return COMPACTED;
    }
    if (hi > this.lastIndex() + 1) {
      return UNAVAILABLE;
    }
    return limitSize(this.log.slice(lo - this.baseIndex - 1, hi - this.baseIndex - 1), maxSize);
  }

  snapshot(): Snapshot | null {
    return this.snapshotFor();
  }

  append(entries: readonly Entry[]): void {
    const first = entries[0];
    if (first === undefined) {
      return;
    }
    const at = first.index - this.baseIndex - 1;
    if (at > this.log.length) {
      throw new Violation('writes are in order', `a hole before ${first.index}, the disk ends at ${this.lastIndex()}`);
    }
    // A part at or below the base was compacted meanwhile.
    const kept = at < 0 ? entries.slice(-at) : entries;
    this.log.length = Math.max(at, 0);
    for (const entry of kept) {
      this.log.push(entry);
    }
  }

  reset(snapshot: Snapshot): void {
    this.baseIndex = snapshot.metadata.index;
    this.baseTerm = snapshot.metadata.term;
    this.log = [];
  }

  compact(index: number): void {
    if (index > this.baseIndex) {
      this.baseTerm = this.term(index);
      this.log = this.log.slice(index - this.baseIndex);
      this.baseIndex = index;
    }
  }

  holds(index: number, term: number): boolean {
    return index < this.baseIndex || this.term(index) === term;
  }
}

function snapshotOf(state: MachineState): Snapshot {
  const data = new Uint8Array(4);
  new DataView(data.buffer).setUint32(0, state.hash);
  return { data, metadata: { index: state.applied, term: state.term, confState: state.conf } };
}

function machineOf(snapshot: Snapshot): MachineState {
  const { index, term, confState } = snapshot.metadata;
  const { data } = snapshot;
  const hash = new DataView(data.buffer, data.byteOffset, data.byteLength).getUint32(0);
  return { applied: index, term, hash, conf: confState };
}

// ------------------------------------------------------------------------------------------------ members

/** One write on its way to the disk, with what may leave afterwards. */
interface Write {
  readonly hardState: HardState | null;
  readonly entries: readonly Entry[];
  readonly snapshot: Snapshot | null;
  readonly held: readonly Message[];
  readonly responses: readonly Message[];
}

/** Sync mode: a Ready between its stages. */
interface OpenReady {
  readonly rd: Ready;
  /** 0 to be written, 1 to be sent, 2 to be applied, 3 to be advanced. */
  stage: number;
}

interface WaitingRead {
  readonly context: string;
  /** Everything committed anywhere when the read began. */
  readonly atLeast: number;
}

interface Member {
  readonly id: number;
  readonly disk: Disk;
  raw: RawNode | null;
  /** Counts processes, to tell a leader from the same member after a crash. */
  incarnation: number;
  machine: MachineState;
  writes: Write[];
  /** Responses of its own threads that it has not read yet; in order, never lost. */
  mailbox: Message[];
  applies: Message[];
  open: OpenReady | null;
  reads: WaitingRead[];
  ticks: number;
  commitSeen: number;
  roleSeen: Role;
  termSeen: number;
  /** Highest index acknowledged to a leader in `ackTerm`. */
  ackTerm: number;
  ackIndex: number;
  isStalled: boolean;
  /** On a leader: it began with entries that were not applied, whose size the uncommitted limit does not know. */
  hasInherited: boolean;
  /** On a leader: members that were waiting for a snapshot when it was last looked at. */
  readonly waiting: Set<number>;
  /** On a leader: empty proposals it took that were not seen as entries yet. */
  emptyCredit: number;
}

/** What is known about one committed index. */
interface CommittedEntry {
  readonly entry: Entry;
  /** Term of the leader that committed it. */
  readonly inTerm: number;
}

/** The voter that requests reach last in runs that begin with split votes. */
const LATE_VOTER = 5;
const FIRST_INDEX = 5;
const FIRST_TERM = 1;
const FIRST_HASH = 0x1234567;

export interface AdversaryOptions {
  readonly defects?: readonly Defect[];
  /** False shows what D11 is for: a group can end up unable to leave a joint configuration. */
  readonly commitByVote?: boolean;
  /** Hostile steps of one run. */
  readonly steps?: number;
}

export interface RunReport {
  /** Steps taken until the end or the violation. */
  readonly steps: number;
  readonly violation: string | undefined;
  readonly rule: string | undefined;
  /** Index committed in the end: a run in which nothing happens proves nothing. */
  readonly committed: number;
  readonly elections: number;
  readonly reads: number;
  readonly changes: number;
  readonly snapshots: number;
  readonly crashes: number;
}

const STEPS_DEFAULT = 800;
/** Rounds in which a healed group must come to work again. */
const HEAL_ROUNDS = 600;
/** Messages on the network; older ones are lost beyond that. */
const NETWORK_MAX = 400;

export class Adversary {
  readonly #chance: Chance;
  readonly #defects: DefectSet | null;
  readonly #stepsMax: number;
  readonly #members: Member[] = [];
  readonly #config: Omit<RaftConfig, 'id' | 'storage' | 'applied' | 'voteGraceTicks'>;
  readonly #graceTicks: number;
  /** The driver lets requests of non-leaders out before their Ready is durable, as etcd allows. */
  readonly #isEager: boolean;
  /** Steps of a special beginning; mostly 0. */
  readonly #openingSteps: number;
  /** Writes pile up: chance in percent that a completed unit of work is a write. */
  readonly #writePercent: number;
  /** The same for responses of the own threads. */
  readonly #mailPercent: number;
  #network: Message[] = [];
  /** Pairs `from * 16 + to` that nothing passes. */
  readonly #cut = new Set<number>();
  readonly #lossPercent: number;
  /** While not 0: appends reach this member only, and it reads what its disk reports very late. */
  #focus = 0;
  /** MsgSnap whose fate the sender was not told yet. */
  readonly #snapshotReports: {
    readonly from: number;
    readonly to: number;
    readonly ok: boolean;
    readonly term: number;
  }[] = [];

  // What the run has seen.
  readonly #committed: CommittedEntry[] = [];
  readonly #hashes: number[] = [FIRST_HASH];
  readonly #confAt = new Map<number, ConfState>();
  readonly #seen = new Map<number, { readonly entry: Entry; readonly previousTerm: number }>();
  readonly #leaders = new Map<number, { readonly id: number; readonly incarnation: number }>();
  readonly #votes = new Map<string, number>();
  readonly #granted = new Map<string, Set<number>>();
  #payloads = 0;
  #steps = 0;
  #elections = 0;
  #readsDone = 0;
  #changes = 0;
  #snapshots = 0;
  #crashes = 0;
  #isHostile = true;

  constructor(seed: number, options: AdversaryOptions = {}) {
    const chance = new Chance(seed);
    this.#chance = chance;
    this.#defects = options.defects === undefined || options.defects.length === 0 ? null : new Set(options.defects);
    this.#stepsMax = options.steps ?? STEPS_DEFAULT;
    const opening = chance.pick([
      'none',
      'none',
      'none',
      'none',
      'none',
      'none',
      'none',
      'none',
      'late-reports',
      'split-votes',
    ]);
    const size = opening === 'none' ? 3 + chance.below(5) : 5 + chance.below(3);
    const founders = opening === 'none' ? Math.min(size, chance.pick([1, 2, 3, 3, 3, 4, 5])) : 5;
    const voters = Array.from({ length: founders }, (_, i) => i + 1);
    this.#openingSteps = opening === 'none' ? 0 : 500;
    this.#focus = opening === 'late-reports' ? founders : 0;
    const maxSizePerMsg = chance.pick([0, 48, 150, UNLIMITED]);
    const electionTick = 4 + chance.below(6);
    const checkQuorum = opening === 'none' && chance.percent(60);
    this.#lossPercent = chance.pick([0, 2, 10, 25]);
    this.#graceTicks = checkQuorum && chance.percent(50) ? electionTick : 0;
    this.#isEager = chance.percent(35);
    this.#writePercent = chance.pick([50, 50, 50, 15, 4]);
    this.#mailPercent = chance.pick([60, 60, 60, 10, 3]);
    const ignore = (): void => {};
    this.#config = {
      electionTick,
      heartbeatTick: 1 + chance.below(2),
      random: (n) => chance.below(n),
      logger: { debugEnabled: false, infoEnabled: false, debug: ignore, info: ignore, warn: ignore, error: ignore },
      asyncStorageWrites: opening === 'late-reports' || chance.percent(75),
      preVote: opening !== 'split-votes' && chance.percent(60),
      checkQuorum,
      stepDownOnRemoval: chance.percent(70),
      maxSizePerMsg,
      maxInflightMsgs: chance.pick([1, 2, 4, 256]),
      maxInflightBytes: maxSizePerMsg < 200 && chance.percent(50) ? Math.max(maxSizePerMsg, 100) : 0,
      maxUncommittedBytes: chance.pick([0, 0, 60, 300]),
      maxCommittedSizePerReady: chance.pick([1, 60, 400, UNLIMITED]),
      disableProposalForwarding: chance.percent(50),
      disableConfChangeValidation: false,
      reportCommit: chance.percent(50),
      commitByVote: options.commitByVote ?? true,
      skipBcastCommit: chance.percent(30),
    };
    const conf: ConfState = { voters, votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false };
    const none: ConfState = { voters: [], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false };
    for (let id = 1; id <= size; id++) {
      const isFounder = voters.includes(id);
      const machine = isFounder
        ? { applied: FIRST_INDEX, term: FIRST_TERM, hash: FIRST_HASH, conf }
        : { applied: 0, term: 0, hash: 0, conf: none };
      const disk = new Disk(machine);
      if (isFounder) {
        disk.baseIndex = FIRST_INDEX;
        disk.baseTerm = FIRST_TERM;
        disk.hardState = { term: FIRST_TERM, vote: 0, commit: FIRST_INDEX };
      }
      const member: Member = {
        id,
        disk,
        raw: null,
        incarnation: 0,
        machine,
        writes: [],
        mailbox: [],
        applies: [],
        open: null,
        reads: [],
        ticks: 0,
        commitSeen: 0,
        roleSeen: 'follower',
        termSeen: 0,
        ackTerm: 0,
        ackIndex: 0,
        isStalled: false,
        hasInherited: false,
        waiting: new Set(),
        emptyCredit: 0,
      };
      this.#members.push(member);
      this.#start(member, 0);
    }
  }

  // ---------------------------------------------------------------------------------------------- running

  /** The state of all members, for people who look into a failed seed. */
  describe(): string {
    return this.#members
      .map(({ id, raw, machine, reads }) => {
        if (raw === null) {
          return `${id}: down`;
        }
        const { log, graceTicks, electionElapsed, tracker } = raw.internals;
        const lines = [
          `${id}: ${raw.role} term ${raw.term} vote ${raw.vote} lead ${raw.lead} ${configText(tracker.config)} ` +
            `log ${raw.firstIndex}-${raw.lastIndex} (${log.describe()}) machine ${machine.applied} elapsed ${electionElapsed} ` +
            `grace ${graceTicks} reads ${reads.map((r) => r.context).join()}`,
        ];
        if (raw.role === 'leader') {
          lines.push(...tracker.progress.map((p) => `   ${p.id}: ${progressText(p)}`));
        }
        return lines.join('\n');
      })
      .join('\n');
  }

  /** Runs the seed to its end or to the first violation. */
  run(): RunReport {
    let violation: string | undefined;
    let rule: string | undefined;
    try {
      while (this.#steps < this.#stepsMax) {
        this.#steps++;
        this.#hostileStep();
      }
      this.#heal();
    } catch (error) {
      if (error instanceof Violation) {
        ({ rule } = error);
        violation = error.message;
      } else if (error instanceof InvariantError) {
        rule = 'the core contradicts itself';
        violation = `${rule}: ${error.message}`;
      } else {
        throw error;
      }
    }
    return {
      steps: this.#steps,
      violation,
      rule,
      committed: FIRST_INDEX + this.#committed.length,
      elections: this.#elections,
      reads: this.#readsDone,
      changes: this.#changes,
      snapshots: this.#snapshots,
      crashes: this.#crashes,
    };
  }

  /**
   * The beginning of some runs. Two members take turns as leader and only a third one, the focus, gets their appends; it
   * reads the reports of its disk very late. Its log is overwritten, and overwritten back, before it hears that the
   * first version is durable.
   */
  #lateReportsStep(): void {
    const chance = this.#chance;
    const member = chance.pick(this.#members);
    const dice = chance.below(100);
    if (dice < 2) {
      this.#act(this.#members[chance.below(2)] as Member, (raw) => raw.campaign());
    } else if (dice < 4) {
      this.#propose(this.#leaderOr(member));
    } else if (dice < 5) {
      this.#act(this.#leaderOr(member), (raw) => raw.ping());
    } else if (dice < 45) {
      this.#deliverSome();
    } else {
      this.#work(member);
    }
  }

  /**
   * The beginning of other runs: several candidates in every term, and a voter that hears of the winner by heartbeat
   * before any request for its vote arrives.
   */
  #splitVotesStep(): void {
    const chance = this.#chance;
    const dice = chance.below(100);
    if (dice < 3) {
      for (const member of this.#members) {
        if (chance.percent(40)) {
          this.#act(member, (raw) => raw.campaign());
        }
      }
    } else if (dice < 8) {
      this.#act(this.#leaderOr(chance.pick(this.#members)), (raw) => raw.ping());
    } else if (dice < 50) {
      this.#deliverSome(true);
    } else {
      this.#work(chance.pick(this.#members));
    }
  }

  #hostileStep(): void {
    const chance = this.#chance;
    if (this.#steps < this.#openingSteps) {
      if (this.#focus === 0) {
        this.#splitVotesStep();
      } else {
        this.#lateReportsStep();
      }
      return;
    }
    if (this.#steps === this.#openingSteps) {
      this.#focus = 0;
    }
    const dice = chance.below(1000);
    const member = chance.pick(this.#members);
    if (dice < 250) {
      this.#deliverSome();
    } else if (dice < 400) {
      this.#work(member);
    } else if (dice < 500) {
      this.#tick(member);
    } else if (dice < 600) {
      this.#propose(this.#leaderOr(member));
    } else if (dice < 640) {
      this.#read(chance.percent(60) ? this.#leaderOr(member) : member);
    } else if (dice < 670) {
      this.#changeMembers(this.#leaderOr(member));
    } else if (dice < 680) {
      this.#transfer(this.#leaderOr(member));
    } else if (dice < 690) {
      this.#crashOrRestart(member);
    } else if (dice < 700) {
      this.#restartSome();
    } else if (dice < 712) {
      this.#changeNetwork(member);
    } else if (dice < 730) {
      this.#compact(member);
    } else if (dice < 740) {
      this.#campaign(member);
    } else if (dice < 750) {
      this.#reportSomething(member);
    } else if (dice < 754) {
      member.isStalled = !member.isStalled && chance.percent(50);
    } else if (dice < 760) {
      this.#act(member, (raw) => (chance.percent(30) ? raw.forgetLeader() : this.#ping(member, raw)));
    } else {
      // A burst of progress: without it a hostile network would let little happen.
      for (let i = 0; i < 12; i++) {
        this.#deliverSome();
        this.#work(chance.pick(this.#members));
      }
    }
  }

  #restartSome(): void {
    for (const member of this.#members) {
      if (member.raw === null && this.#chance.percent(60)) {
        this.#start(member, this.#graceTicks);
      }
    }
  }

  #leaderOr(member: Member): Member {
    let best: Member | undefined;
    for (const m of this.#members) {
      if (
        m.raw !== null &&
        m.raw.role === 'leader' &&
        (best === undefined || best.raw === null || m.raw.term > best.raw.term)
      ) {
        best = m;
      }
    }
    return best === undefined || this.#chance.percent(15) ? member : best;
  }

  /** Does something with a member that is up, and looks at it afterwards. */
  #act(member: Member, action: (raw: RawNode) => void): void {
    const { raw } = member;
    if (raw !== null) {
      action(raw);
      this.#observe(member);
    }
  }

  // ---------------------------------------------------------------------------------------------- starting, crashing

  #start(member: Member, graceTicks: number): void {
    const { disk } = member;
    member.machine = disk.machine;
    disk.snapshotFor = () => {
      if (member.machine.applied === 0 || (this.#isHostile && this.#chance.percent(15))) {
        return null;
      }
      return snapshotOf(member.machine);
    };
    member.incarnation++;
    member.writes = [];
    member.mailbox = [];
    member.applies = [];
    member.open = null;
    member.reads = [];
    member.ticks = 0;
    const raw = new RawNode(
      { ...this.#config, id: member.id, storage: disk, applied: disk.machine.applied, voteGraceTicks: graceTicks },
      this.#defects,
    );
    member.raw = raw;
    member.commitSeen = disk.machine.applied;
    member.roleSeen = 'follower';
    member.termSeen = raw.term;
    const { hardState } = disk.initialState();
    if (raw.term !== hardState.term || raw.vote !== hardState.vote || raw.committed < hardState.commit) {
      throw new Violation(
        'promises survive a restart',
        `member ${member.id} restarted with term ${raw.term}, vote ${raw.vote}, commit ${raw.committed} instead of ` +
          `${hardState.term}, ${hardState.vote}, ${hardState.commit}`,
      );
    }
    this.#observe(member);
  }

  #crashOrRestart(member: Member): void {
    if (member.raw === null) {
      this.#start(member, this.#graceTicks);
      return;
    }
    this.#crashes++;
    member.raw = null;
    member.isStalled = false;
    // Of the writes in flight a prefix happened to reach the disk; nobody was told.
    const reached = this.#chance.below(member.writes.length + 1);
    for (const write of member.writes.slice(0, reached)) {
      this.#toDisk(member, write);
    }
    if (member.open !== null && member.open.stage === 0 && this.#chance.percent(50)) {
      const { hardState, entries, snapshot } = member.open.rd;
      this.#toDisk(member, { hardState, entries, snapshot, held: [], responses: [] });
    }
    member.writes = [];
    member.mailbox = [];
    member.applies = [];
    member.open = null;
    if (this.#chance.percent(40)) {
      this.#start(member, this.#graceTicks);
    }
  }

  #toDisk(member: Member, write: Write): void {
    const { disk } = member;
    const { hardState, entries, snapshot } = write;
    if (hardState !== null) {
      if (hardState.term < disk.hardState.term || hardState.commit < disk.hardState.commit) {
        throw new Violation(
          'term and commit never decrease',
          `member ${member.id} writes ${hardState.term}/${hardState.commit} over ${disk.hardState.term}/${disk.hardState.commit}`,
        );
      }
      if (
        hardState.term === disk.hardState.term &&
        disk.hardState.vote !== 0 &&
        hardState.vote !== disk.hardState.vote
      ) {
        throw new Violation('a vote never changes within its term', `member ${member.id} at term ${hardState.term}`);
      }
      disk.hardState = hardState;
    }
    if (snapshot !== null) {
      disk.reset(snapshot);
      disk.machine = machineOf(snapshot);
    }
    disk.append(entries);
  }

  // ---------------------------------------------------------------------------------------------- readies, writes, applies

  /** One unit of a member's own work: a Ready, a write, an application, or a stage of a Ready. */
  #work(member: Member): void {
    const { raw } = member;
    if (raw === null || member.isStalled) {
      return;
    }
    const chance = this.#chance;
    if (!this.#config.asyncStorageWrites) {
      if (member.open === null) {
        this.#openReady(member, raw);
      } else {
        this.#advanceReady(member, raw, member.open);
      }
      return;
    }
    if (member.writes.length > 0 && chance.percent(this.#writePercent)) {
      this.#completeWrite(member);
    } else if (member.applies.length > 0 && chance.percent(40)) {
      this.#applySome(member, raw);
    } else if (member.mailbox.length > 0 && chance.percent(member.id === this.#focus ? 1 : this.#mailPercent)) {
      this.#readMailbox(member, raw);
    } else {
      this.#takeReady(member, raw);
    }
  }

  #takeReady(member: Member, raw: RawNode): void {
    if (!raw.hasReady()) {
      return;
    }
    const rd = raw.ready();
    this.#inspectReady(member, raw, rd);
    const held: Message[] = [];
    let append: Message | undefined;
    for (const m of rd.messages) {
      if (m.to === LOCAL_APPEND_THREAD) {
        append = m;
      } else if (m.to === LOCAL_APPLY_THREAD) {
        for (const entry of m.entries) {
          if (!member.disk.holds(entry.index, entry.term)) {
            throw new Violation('only durable entries are applied', `member ${member.id} entry ${entry.index}`);
          }
        }
        member.applies.push(m);
      } else if (rd.leaderMessages || this.#isEager) {
        this.#send(member, m);
      } else {
        held.push(m);
      }
    }
    if (append !== undefined || held.length > 0) {
      const { term, vote, commit } = append ?? { term: 0, vote: 0, commit: 0 };
      member.writes.push({
        hardState: term === 0 && vote === 0 && commit === 0 ? null : { term, vote, commit },
        entries: append?.entries ?? [],
        snapshot: append?.snapshot ?? null,
        held,
        responses: append?.responses ?? [],
      });
    }
    this.#observe(member);
  }

  #completeWrite(member: Member): void {
    const write = member.writes.shift();
    if (write === undefined) {
      return;
    }
    this.#toDisk(member, write);
    if (write.snapshot !== null) {
      this.#installed(member, write.snapshot);
    }
    for (const m of write.held) {
      this.#send(member, m);
    }
    for (const m of write.responses) {
      if (m.to === member.id) {
        this.#checkPromise(member, m);
        member.mailbox.push(m);
      } else {
        this.#send(member, m);
      }
    }
  }

  #readMailbox(member: Member, raw: RawNode): void {
    const m = member.mailbox.shift();
    if (m !== undefined) {
      raw.step(m);
      this.#observe(member);
    }
  }

  #applySome(member: Member, raw: RawNode): void {
    const m = member.applies.shift();
    if (m === undefined) {
      return;
    }
    this.#apply(member, raw, m.entries);
    member.mailbox.push(...m.responses);
  }

  #openReady(member: Member, raw: RawNode): void {
    if (!raw.hasReady()) {
      return;
    }
    const rd = raw.ready();
    this.#inspectReady(member, raw, rd);
    member.open = { rd, stage: 0 };
    if (rd.leaderMessages) {
      // A leader's appends and heartbeats need not wait for its own disk.
      for (const m of rd.messages) {
        if (!isAcknowledgement(m)) {
          this.#send(member, m);
        }
      }
    }
    this.#observe(member);
  }

  #advanceReady(member: Member, raw: RawNode, open: OpenReady): void {
    const { rd } = open;
    switch (open.stage++) {
      case 0: {
        const { hardState, entries, snapshot } = rd;
        this.#toDisk(member, { hardState, entries, snapshot, held: [], responses: [] });
        if (snapshot !== null) {
          this.#installed(member, snapshot);
        }
        return;
      }
      case 1:
        for (const m of rd.messages) {
          if (!rd.leaderMessages || isAcknowledgement(m)) {
            this.#send(member, m);
          }
        }
        return;
      case 2:
        this.#apply(member, raw, rd.committedEntries);
        return;
      default:
        member.open = null;
        raw.advance();
        this.#observe(member);
    }
  }

  #installed(member: Member, snapshot: Snapshot): void {
    this.#snapshots++;
    const state = machineOf(snapshot);
    this.#checkState(member, state);
    member.machine = state;
  }

  #apply(member: Member, raw: RawNode, entries: readonly Entry[]): void {
    for (const entry of entries) {
      const { machine } = member;
      if (entry.index <= machine.applied) {
        // A snapshot overtook it.
        continue;
      }
      if (entry.index !== machine.applied + 1) {
        throw new Violation(
          'every index is applied once',
          `member ${member.id} ${entry.index} after ${machine.applied}`,
        );
      }
      let { conf } = machine;
      if (entry.type !== EntryType.Normal) {
        conf = raw.applyConfChange(decodeConfChangeV2(entry.data));
        this.#observe(member);
        if (member.raw === null) {
          return;
        }
      }
      member.machine = { applied: entry.index, term: entry.term, hash: mix(machine.hash, entry), conf };
      this.#checkState(member, member.machine);
    }
    if (this.#chance.percent(50)) {
      this.#flush(member);
    }
  }

  /** The state machine becomes durable as far as its log is: never further. */
  #flush(member: Member): void {
    if (member.machine.applied > member.disk.machine.applied && member.machine.applied <= member.disk.lastIndex()) {
      member.disk.machine = member.machine;
    }
  }

  // ---------------------------------------------------------------------------------------------- network

  #send(member: Member, m: Message): void {
    this.#checkPromise(member, m);
    if (
      m.type === MsgType.Snap &&
      (this.#network.length >= NETWORK_MAX || (this.#isHostile && this.#chance.percent(30)))
    ) {
      // The snapshot did not get through; its sender will be told.
      this.#snapshotReports.push({ from: m.from, to: m.to, ok: false, term: m.term });
      return;
    }
    if (this.#network.length < NETWORK_MAX) {
      this.#network.push(m);
    }
  }

  #deliverSome(isLateForOne = false): void {
    const network = this.#network;
    if (network.length === 0) {
      return;
    }
    const chance = this.#chance;
    // Mostly the oldest, often any.
    const at = chance.percent(60) ? 0 : chance.below(network.length);
    const m = network[at] as Message;
    if (
      isLateForOne &&
      m.to === LATE_VOTER &&
      (m.type === MsgType.Vote || m.type === MsgType.App) &&
      chance.percent(95)
    ) {
      network.splice(at, 1);
      network.push(m);
      return;
    }
    const isMissed = this.#focus !== 0 && m.type === MsgType.App && m.to !== this.#focus && chance.percent(85);
    const isLost = isMissed || this.#cut.has(m.from * 16 + m.to) || chance.percent(this.#lossPercent);
    const isRepeated = !isLost && chance.percent(8);
    if (!isRepeated) {
      network.splice(at, 1);
    }
    if (isLost) {
      if (m.type === MsgType.Snap) {
        this.#snapshotReports.push({ from: m.from, to: m.to, ok: false, term: m.term });
      }
      return;
    }
    this.#deliver(m, isRepeated);
  }

  #deliver(m: Message, isRepeated: boolean): void {
    const member = this.#members[m.to - 1];
    if (member === undefined || member.raw === null || member.isStalled) {
      if (m.type === MsgType.Snap && !isRepeated) {
        this.#snapshotReports.push({ from: m.from, to: m.to, ok: false, term: m.term });
      }
      return;
    }
    if (m.type === MsgType.Snap) {
      if (this.#config.asyncStorageWrites ? member.applies.length > 0 : member.open !== null) {
        // The state machine is busy; a store would not take a snapshot now.
        this.#snapshotReports.push({ from: m.from, to: m.to, ok: false, term: m.term });
        return;
      }
      this.#snapshotReports.push({ from: m.from, to: m.to, ok: true, term: m.term });
    }
    this.#step(member, member.raw, m);
  }

  /** Steps a message and checks the rules that speak about one step. */
  #step(member: Member, raw: RawNode, m: Message): void {
    const { term, vote, lead, role } = raw;
    const raft = raw.internals;
    const grants = countGrants(raft);
    const answers = raft.messagesAfterAppend.length;
    const progress = role === 'leader' && m.type === MsgType.AppResp ? raft.tracker.get(m.from) : undefined;
    const nextBefore = progress?.next ?? 0;
    const metadata = m.type === MsgType.Snap && m.term >= term ? m.snapshot?.metadata : undefined;
    const hasSnapshotEntry =
      metadata !== undefined && raw.pendingSnapshotIndex === 0 && raw.termAt(metadata.index) === metadata.term;
    const result = raw.step(m);
    if (result.type === 'malformed') {
      throw new Violation(
        'members understand each other',
        `${result.reason} (type ${m.type} from ${m.from} to ${m.to})`,
      );
    }
    const isRequest = m.type === MsgType.Vote || m.type === MsgType.PreVote;
    if (isRequest && countGrants(raft) > grants) {
      if (m.type === MsgType.Vote && m.term === term && vote === 0 && lead !== 0) {
        throw new Violation('no vote while a leader is known', `member ${member.id} follows ${lead} at term ${term}`);
      }
      if (member.incarnation > 1 && member.ticks < this.#graceTicks && !isTransferRequest(m)) {
        throw new Violation('no vote right after a restart', `member ${member.id} after ${member.ticks} ticks`);
      }
    }
    if (m.type === MsgType.Vote && countGrants(raft) > grants && raft.electionElapsed !== 0) {
      throw new Violation(
        'a vote restarts the election timer',
        `member ${member.id} after ${raft.electionElapsed} ticks`,
      );
    }
    if (hasSnapshotEntry && raw.pendingSnapshotIndex > 0) {
      throw new Violation(
        'a snapshot of what is in the log is not installed',
        `member ${member.id} at ${raw.pendingSnapshotIndex}`,
      );
    }
    const isOldLeader = (m.type === MsgType.App || m.type === MsgType.Heartbeat) && m.term < term;
    if (
      isOldLeader &&
      !this.#config.checkQuorum &&
      !this.#config.preVote &&
      raft.messagesAfterAppend.length > answers
    ) {
      throw new Violation(
        'old leaders are answered only where it is needed',
        `member ${member.id} answers term ${m.term}`,
      );
    }
    const isMovedBack = progress !== undefined && m.reject && progress.next < nextBefore;
    if (isMovedBack && progress.state === 'probe' && raft.messages.every((sent) => sent.to !== m.from)) {
      this.#checkSentCommit(member, progress.sentCommit, progress.next);
    }
    if (m.type === MsgType.TimeoutNow && m.term === term && role === 'follower' && raw.role === 'pre-candidate') {
      throw new Violation('a transfer needs no pre-election', `member ${member.id}`);
    }
    this.#observe(member);
  }

  /** Nothing was sent since the rejection, so the member cannot have been told a commit index beyond the probe. */
  #checkSentCommit(member: Member, sentCommit: number, next: number): void {
    if (sentCommit > next - 1) {
      throw new Violation(
        'a rejection takes back what was told',
        `leader ${member.id} told ${sentCommit}, probes ${next}`,
      );
    }
  }

  #changeNetwork(member: Member): void {
    const chance = this.#chance;
    if (chance.percent(50)) {
      this.#cut.clear();
      this.#focus = 0;
      return;
    }
    if (chance.percent(20)) {
      this.#focus = member.id;
      return;
    }
    const isOneWay = chance.percent(30);
    const group = new Set<number>([member.id]);
    for (const other of this.#members) {
      if (chance.percent(30)) {
        group.add(other.id);
      }
    }
    for (const a of this.#members) {
      for (const b of this.#members) {
        if (group.has(a.id) !== group.has(b.id) && (!isOneWay || group.has(a.id))) {
          this.#cut.add(a.id * 16 + b.id);
        }
      }
    }
  }

  // ---------------------------------------------------------------------------------------------- actions

  #tick(member: Member): void {
    const { raw } = member;
    if (raw === null || member.isStalled) {
      return;
    }
    const n = this.#chance.percent(10) ? 1 + this.#chance.below(6) : 1;
    raw.advanceTicks(n);
    member.ticks += n;
    this.#observe(member);
  }

  #campaign(member: Member): void {
    this.#act(member, (raw) => raw.campaign());
    if (this.#chance.percent(60)) {
      // A storm: several candidates of one term, and their requests on the way at the same time.
      for (const other of this.#members) {
        if (this.#chance.percent(35)) {
          this.#act(other, (raw) => raw.campaign());
        }
      }
    }
  }

  #propose(member: Member): void {
    this.#act(member, (raw) => {
      // Forwarded proposals may be repeated by the network, so only leaders are asked for empty ones.
      const isEmpty = raw.role === 'leader' && this.#chance.percent(8);
      const data = new Uint8Array(isEmpty ? 0 : 4 + this.#chance.below(60));
      if (!isEmpty) {
        new DataView(data.buffer).setUint32(0, ++this.#payloads);
      }
      if (raw.propose(data).type === 'proposed' && isEmpty) {
        member.emptyCredit++;
      }
    });
  }

  #read(member: Member): void {
    this.#act(member, (raw) => {
      // Leaders often repeat a context within one term, as careless clients do; elsewhere contexts are unique.
      if (raw.role === 'leader' && this.#chance.percent(60)) {
        this.#readAtLeader(member, raw);
      } else {
        this.#readWith(member, raw, `read ${++this.#payloads} ${member.id}`);
      }
    });
  }

  #readAtLeader(member: Member, raw: RawNode): void {
    this.#readWith(member, raw, `same ${raw.term}`);
  }

  #readWith(member: Member, raw: RawNode, context: string): void {
    const atLeast = FIRST_INDEX + this.#committed.length;
    if (raw.readIndex(Buffer.from(context)).type === 'ok') {
      member.reads.push({ context, atLeast });
    }
  }

  #changeMembers(member: Member): void {
    this.#act(member, (raw) => {
      if (raw.role !== 'leader') {
        return;
      }
      const chance = this.#chance;
      if (raw.isJoint && chance.percent(80)) {
        raw.proposeConfChange(LEAVE_JOINT);
        return;
      }
      const { voters } = raw.confState;
      const other = voters.find((id) => id !== member.id);
      if (voters.length === 2 && other !== undefined && !raw.isJoint && chance.percent(30)) {
        // Down to one voter while a read waits for the other.
        raw.proposeConfChange({
          transition: ConfChangeTransition.Auto,
          changes: [{ type: ConfChangeType.RemoveNode, nodeId: other }],
          context: EMPTY_BYTES,
        });
        this.#readAtLeader(member, raw);
        return;
      }
      const changes: ConfChangeSingle[] = [];
      const count = chance.pick([1, 1, 1, 2, 3]);
      for (let i = 0; i < count; i++) {
        const type = chance.pick([
          ConfChangeType.AddNode,
          ConfChangeType.AddNode,
          ConfChangeType.RemoveNode,
          ConfChangeType.AddLearnerNode,
        ]);
        changes.push({ type, nodeId: chance.pick(this.#members).id });
      }
      const transition = chance.pick([
        ConfChangeTransition.Auto,
        ConfChangeTransition.Auto,
        ConfChangeTransition.JointImplicit,
        ConfChangeTransition.JointExplicit,
      ]);
      raw.proposeConfChange({ transition, changes, context: EMPTY_BYTES });
      if (chance.percent(20)) {
        // Impatient: a second one right behind it.
        raw.proposeConfChange({
          transition: ConfChangeTransition.Auto,
          changes: changes.slice(0, 1),
          context: EMPTY_BYTES,
        });
      }
    });
  }

  #transfer(member: Member): void {
    this.#act(member, (raw) => {
      const before = raw.leadTransferee;
      raw.transferLeader(this.#chance.pick(this.#members).id);
      if (
        raw.role === 'leader' &&
        raw.leadTransferee !== 0 &&
        raw.leadTransferee !== before &&
        raw.internals.electionElapsed !== 0
      ) {
        throw new Violation('a transfer gets a full election timeout', `leader ${member.id}`);
      }
    });
  }

  #ping(member: Member, raw: RawNode): void {
    raw.ping();
    if (raw.role !== 'leader') {
      return;
    }
    for (const p of raw.internals.tracker.progress) {
      if (p.id !== member.id && p.sentCommit !== Math.min(p.match, raw.committed)) {
        throw new Violation('a heartbeat tells a commit index', `leader ${member.id} about ${p.id}`);
      }
    }
  }

  #compact(member: Member): void {
    if (member.raw === null) {
      return;
    }
    this.#flush(member);
    const { disk } = member;
    const to = disk.machine.applied - this.#chance.below(4);
    if (to <= member.raw.applied && to <= disk.lastIndex()) {
      disk.compact(to);
    }
  }

  #reportSomething(member: Member): void {
    const report = this.#snapshotReports.shift();
    if (report !== undefined) {
      this.#reportSnapshot(report);
    } else {
      this.#act(member, (raw) => raw.reportUnreachable(this.#chance.pick(this.#members).id));
    }
  }

  #reportSnapshot(report: {
    readonly from: number;
    readonly to: number;
    readonly ok: boolean;
    readonly term: number;
  }): void {
    const sender = this.#members[report.from - 1];
    if (sender === undefined || sender.raw === null || sender.raw.term !== report.term) {
      return;
    }
    const progress = sender.raw.internals.tracker.get(report.to);
    const wasWaiting = sender.raw.role === 'leader' && progress?.state === 'snapshot';
    sender.raw.reportSnapshot(report.to, report.ok);
    if (wasWaiting && progress !== undefined) {
      if (progress.state === 'snapshot') {
        throw new Violation('a reported snapshot ends the wait', `leader ${sender.id} about ${report.to}`);
      }
      if (!report.ok && progress.next !== progress.match + 1) {
        throw new Violation(
          'a failed snapshot is not probed behind',
          `leader ${sender.id} probes ${progress.next} at match ${progress.match}`,
        );
      }
    }
    this.#observe(sender);
  }

  // ---------------------------------------------------------------------------------------------- checks

  /** What a member promises with a message that leaves it must be on its disk. */
  #checkPromise(member: Member, m: Message): void {
    const { disk } = member;
    switch (m.type) {
      case MsgType.AppResp: {
        if (m.reject || m.index === 0) {
          return;
        }
        if (disk.hardState.term > m.term) {
          // It moved on to a later term before this left; whoever leads that term was elected with the entry in view,
          // or without this member, and then nobody can commit by counting it.
          return;
        }
        if (disk.lastIndex() < m.index || disk.hardState.term < m.term) {
          throw new Violation(
            'an acknowledgement is durable',
            `member ${member.id} acknowledges ${m.index} at term ${m.term}, its disk ends at ${disk.lastIndex()} with term ${disk.hardState.term}`,
          );
        }
        if (m.to !== member.id) {
          member.ackIndex = m.term === member.ackTerm ? Math.max(member.ackIndex, m.index) : m.index;
          member.ackTerm = m.term;
        }
        return;
      }
      case MsgType.VoteResp: {
        if (m.reject) {
          return;
        }
        const key = `${member.id}@${m.term}`;
        const before = this.#votes.get(key);
        if (before !== undefined && before !== m.to) {
          throw new Violation(
            'one vote per term',
            `member ${member.id} voted for ${before} and ${m.to} at term ${m.term}`,
          );
        }
        if (disk.hardState.term < m.term || (disk.hardState.term === m.term && disk.hardState.vote !== m.to)) {
          throw new Violation('a vote is durable', `member ${member.id} for ${m.to} at term ${m.term}`);
        }
        this.#votes.set(key, m.to);
        const election = `${m.to}@${m.term}`;
        const granted = this.#granted.get(election) ?? new Set<number>();
        granted.add(member.id);
        this.#granted.set(election, granted);
        return;
      }
      default:
    }
  }

  /** Rules about what a Ready contains. */
  #inspectReady(member: Member, raw: RawNode, rd: Ready): void {
    const { maxSizePerMsg, maxCommittedSizePerReady } = this.#config;
    const first = rd.entries[0];
    if (first !== undefined) {
      let previousTerm = raw.termAt(first.index - 1);
      for (const entry of rd.entries) {
        this.#sawEntry(member, entry, previousTerm);
        previousTerm = entry.term;
      }
    }
    if (raw.role === 'leader') {
      for (const entry of rd.entries) {
        const isUnasked = entry.term === raw.term && entry.index > raw.internals.termStart && entry.data.length === 0;
        if (isUnasked && entry.type === EntryType.Normal && --member.emptyCredit < 0) {
          throw new Violation('a leader appends nothing unasked', `leader ${member.id} at ${entry.index}`);
        }
      }
    }
    for (const m of rd.messages) {
      if (m.type === MsgType.App && m.entries.length > 1 && entriesSizeBytes(m.entries) > maxSizePerMsg) {
        throw new Violation(
          'appends keep their size limit',
          `${entriesSizeBytes(m.entries)} bytes of ${maxSizePerMsg}`,
        );
      }
    }
    const applyLimit = maxCommittedSizePerReady === 0 ? maxSizePerMsg : maxCommittedSizePerReady;
    if (rd.committedEntries.length > 0) {
      const size = entriesSizeBytes(rd.committedEntries);
      const before = raw.internals.log.applyingBytes - size;
      if (before >= applyLimit || (size > applyLimit - before && rd.committedEntries.length > 1)) {
        throw new Violation('applying keeps its size limit', `${before} and ${size} bytes of ${applyLimit}`);
      }
    }
    for (const { requestContext, index } of rd.readStates) {
      const context = Buffer.from(requestContext).toString();
      const at = member.reads.findIndex((r) => r.context === context);
      const read = member.reads[at];
      if (read !== undefined) {
        member.reads.splice(at, 1);
        this.#readsDone++;
        if (index < read.atLeast) {
          throw new Violation(
            'reads are linearizable',
            `member ${member.id} may read at ${index}, ${read.atLeast} was committed when the read began`,
          );
        }
      }
    }
  }

  /** Log matching: an index and a term name one entry and one predecessor, everywhere and for ever. */
  #sawEntry(member: Member, entry: Entry, previousTerm: number): void {
    const key = entry.term * 1_000_000 + entry.index;
    const known = this.#seen.get(key);
    if (known === undefined) {
      this.#seen.set(key, { entry, previousTerm });
      return;
    }
    const isSame =
      known.entry === entry || (known.entry.type === entry.type && Buffer.compare(known.entry.data, entry.data) === 0);
    if (!isSame || (previousTerm >= 0 && known.previousTerm >= 0 && previousTerm !== known.previousTerm)) {
      throw new Violation('log matching', `member ${member.id} has another entry at ${entry.term}/${entry.index}`);
    }
  }

  #checkState(member: Member, state: MachineState): void {
    const at = state.applied - FIRST_INDEX;
    if (at >= this.#hashes.length) {
      throw new Violation('only committed entries are applied', `member ${member.id} at ${state.applied}`);
    }
    if (this.#hashes[at] !== state.hash) {
      throw new Violation('state machine safety', `member ${member.id} differs at ${state.applied}`);
    }
    const conf = this.#confAt.get(state.applied);
    if (conf === undefined) {
      this.#confAt.set(state.applied, state.conf);
    } else if (!confStatesEquivalent(conf, state.conf)) {
      throw new Violation('configurations agree', `member ${member.id} at ${state.applied}`);
    }
  }

  /** Looks at a member after anything happened to it. */
  #observe(member: Member): void {
    const { raw } = member;
    if (raw === null) {
      return;
    }
    const { role, term, committed } = raw;
    const raft = raw.internals;
    if (term < member.termSeen) {
      throw new Violation(
        'term and commit never decrease',
        `member ${member.id} from term ${member.termSeen} to ${term}`,
      );
    }
    if (committed < member.commitSeen) {
      throw new Violation(
        'term and commit never decrease',
        `member ${member.id} from commit ${member.commitSeen} to ${committed}`,
      );
    }
    if (role !== member.roleSeen || term !== member.termSeen) {
      this.#roleChanged(member, raw);
      member.roleSeen = role;
      member.termSeen = term;
    }
    if (committed > member.commitSeen) {
      this.#commitAdvanced(member, raw, member.commitSeen, committed);
      member.commitSeen = committed;
    }
    if (term === member.ackTerm && raw.lastIndex < member.ackIndex) {
      throw new Violation(
        'acknowledged entries stay',
        `member ${member.id} acknowledged ${member.ackIndex} at term ${term} and ends at ${raw.lastIndex}`,
      );
    }
    const { log } = raft;
    if (log.applied > log.applying || log.applying > committed || committed > raw.lastIndex) {
      throw new Violation('cursors are in order', log.describe());
    }
    if (this.#config.asyncStorageWrites && log.unstable.snapshot === null) {
      const stable = log.unstable.offset - 1;
      const expected = this.#seen.size === 0 ? undefined : member.disk.term(stable);
      if (member.disk.lastIndex() < stable || (expected !== undefined && raw.termAt(stable) !== expected)) {
        throw new Violation(
          'stable entries are on disk',
          `member ${member.id} takes ${stable} for durable, its disk ends at ${member.disk.lastIndex()}`,
        );
      }
    }
    if (role === 'leader') {
      this.#checkLeader(member, raft);
    }
  }

  #checkLeader(member: Member, raft: Raft): void {
    const { maxInflightMsgs, maxInflightBytes, maxSizePerMsg, maxUncommittedBytes } = this.#config;
    for (const p of raft.tracker.progress) {
      if (p.state !== 'snapshot') {
        member.waiting.delete(p.id);
      } else if (!member.waiting.has(p.id)) {
        member.waiting.add(p.id);
        if (!p.recentActive) {
          throw new Violation('no snapshot for a silent member', `leader ${member.id} to ${p.id}`);
        }
      }
      if (p.match >= p.next) {
        throw new Violation('match is below next', `leader ${member.id} about ${p.id}: ${p.match} and ${p.next}`);
      }
      if (p.inflightCount > maxInflightMsgs) {
        throw new Violation(
          'the inflight window keeps its limits',
          `${p.inflightCount} messages of ${maxInflightMsgs}`,
        );
      }
      if (maxInflightBytes > 0 && p.inflightBytes > maxInflightBytes + Math.max(maxSizePerMsg, 64)) {
        throw new Violation('the inflight window keeps its limits', `${p.inflightBytes} bytes of ${maxInflightBytes}`);
      }
    }
    // Its own entries that are not applied: a pending membership change must be alone, payloads limited.
    const { log } = raft;
    const from = Math.max(log.applied + 1, raft.termStart);
    if (from > log.lastIndex) {
      return;
    }
    const pending = log.slice(Math.max(log.applied + 1, log.firstIndex), log.lastIndex + 1, UNLIMITED);
    if (typeof pending === 'number') {
      return;
    }
    let changes = 0;
    let payloads = 0;
    let withPayload = 0;
    for (const entry of pending) {
      if (entry.type !== EntryType.Normal && (entry.index >= raft.termStart || changes > 0)) {
        changes++;
      } else if (entry.type !== EntryType.Normal) {
        // Inherited ones are counted once a new one joins them.
        changes = 1;
      }
      if (entry.term === raft.term) {
        payloads += entry.data.length;
        withPayload += entry.data.length > 0 ? 1 : 0;
      }
    }
    const own = pending.some((e) => e.type !== EntryType.Normal && e.index >= raft.termStart);
    if (own && changes > 1) {
      throw new Violation('one membership change at a time', `leader ${member.id} has ${changes} unapplied`);
    }
    if (maxUncommittedBytes > 0 && payloads > maxUncommittedBytes && withPayload > 1 && !member.hasInherited) {
      throw new Violation('uncommitted payload keeps its limit', `${payloads} bytes of ${maxUncommittedBytes}`);
    }
  }

  #roleChanged(member: Member, raw: RawNode): void {
    const { role, term } = raw;
    const isCampaign = role === 'candidate' || role === 'pre-candidate';
    if (isCampaign && member.roleSeen === 'follower') {
      if (raw.pendingSnapshotIndex > 0) {
        throw new Violation('no campaign with a pending snapshot', `member ${member.id}`);
      }
      if (raw.internals.hasUnappliedConfChange()) {
        throw new Violation('no campaign with an unapplied membership change', `member ${member.id} at term ${term}`);
      }
    }
    if (role !== 'leader') {
      return;
    }
    this.#elections++;
    member.waiting.clear();
    member.hasInherited = raw.applied < raw.internals.termStart - 1;
    const leader = this.#leaders.get(term);
    if (leader !== undefined && (leader.id !== member.id || leader.incarnation !== member.incarnation)) {
      throw new Violation('election safety', `term ${term} was won by ${leader.id} and by ${member.id}`);
    }
    if (member.disk.hardState.term !== term || member.disk.hardState.vote !== member.id) {
      throw new Violation('the own vote of a leader is durable', `member ${member.id} at term ${term}`);
    }
    this.#leaders.set(term, { id: member.id, incarnation: member.incarnation });
    const granted = new Set(this.#granted.get(`${member.id}@${term}`));
    if (member.disk.hardState.term === term && member.disk.hardState.vote === member.id) {
      granted.add(member.id);
    }
    const { voters, votersOutgoing } = raw.confState;
    if (jointVote(voters, votersOutgoing, (id) => (granted.has(id) ? Ballot.Granted : Ballot.None)) !== 'won') {
      throw new Violation(
        'a leader has a quorum of votes',
        `member ${member.id} at term ${term} has ${[...granted].join()}`,
      );
    }
    // Leader completeness: everything committed in earlier terms is in its log.
    for (let i = this.#committed.length - 1; i >= 0; i--) {
      const { entry, inTerm } = this.#committed[i] as CommittedEntry;
      if (inTerm < term) {
        const known = raw.termAt(entry.index);
        if (known !== entry.term && known !== COMPACTED) {
          throw new Violation(
            'leader completeness',
            `leader ${member.id} of term ${term} lacks ${entry.term}/${entry.index}`,
          );
        }
        break;
      }
    }
  }

  #commitAdvanced(member: Member, raw: RawNode, from: number, to: number): void {
    const { term } = raw;
    if (raw.role === 'leader' && member.roleSeen === 'leader' && raw.termAt(to) !== term) {
      throw new Violation(
        'only entries of the own term are committed by counting',
        `leader ${member.id} commits ${raw.termAt(to)}/${to} at term ${term}`,
      );
    }
    const known = FIRST_INDEX + this.#committed.length;
    const first = Math.max(from + 1, raw.firstIndex, FIRST_INDEX + 1);
    const entries = first > to ? [] : raw.slice(first, to + 1, UNLIMITED);
    for (const entry of entries) {
      const at = entry.index - FIRST_INDEX - 1;
      const before = this.#committed[at];
      if (before !== undefined) {
        if (before.entry.term !== entry.term || Buffer.compare(before.entry.data, entry.data) !== 0) {
          throw new Violation(
            'state machine safety',
            `member ${member.id} commits ${entry.term}/${entry.index}, ${before.entry.term}/${entry.index} was committed`,
          );
        }
        continue;
      }
      if (at !== this.#committed.length) {
        throw new Violation(
          'nothing is committed unseen',
          `member ${member.id} knows ${entry.index}, the leader committed ${known}`,
        );
      }
      this.#committed.push({ entry, inTerm: term });
      this.#hashes.push(mix(this.#hashes[at] as number, entry));
      if (entry.type !== EntryType.Normal) {
        this.#changes++;
      }
    }
    if (to > known) {
      this.#checkDurableQuorum(member, raw, to);
    }
  }

  /** A newly committed entry is on the disks of a quorum of both halves. */
  #checkDurableQuorum(member: Member, raw: RawNode, index: number): void {
    const term = raw.termAt(index);
    const { voters, votersOutgoing } = raw.confState;
    for (const half of votersOutgoing.length === 0 ? [voters] : [voters, votersOutgoing]) {
      const holding = half.filter((id) => this.#members[id - 1]?.disk.holds(index, term) === true).length;
      if (holding < majorityOf(half.length)) {
        throw new Violation(
          'committed entries are durable on a quorum',
          `member ${member.id} commits ${term}/${index} with ${holding} of ${half.join()} holding it`,
        );
      }
    }
  }

  // ---------------------------------------------------------------------------------------------- the end

  /** No more hostility: the newest configuration must elect a leader, commit, apply everywhere and answer reads. */
  #heal(): void {
    this.#isHostile = false;
    this.#focus = 0;
    this.#cut.clear();
    for (const member of this.#members) {
      member.isStalled = false;
      if (member.raw === null) {
        this.#start(member, this.#graceTicks);
      }
    }
    let target = 0;
    let targetTerm = 0;
    let lastRead: { readonly at: Member; readonly read: WaitingRead } | undefined;
    for (let round = 0; round < HEAL_ROUNDS; round++) {
      const conf = this.#newestConf();
      const inConf = (id: number): boolean =>
        conf.voters.includes(id) || conf.votersOutgoing.includes(id) || conf.learners.includes(id);
      for (const member of this.#members) {
        // A removed member that does not know it would disturb for ever; one that knows must live on, because its vote
        // may be needed once more when the lease it supports, or its grace after a restart, is over.
        const { raw } = member;
        const knowsRemoval = raw?.promotable() === false && raw.role !== 'leader';
        if (inConf(member.id) || knowsRemoval || (raw?.internals.graceTicks ?? 0) > 0) {
          // Unequal clocks, or two candidates could go on in lockstep.
          if (this.#chance.percent(85)) {
            raw?.tick();
            member.ticks++;
            this.#observe(member);
          }
        } else {
          // Its clock stands still, so a lease it supports would never end.
          this.#act(member, (silent) => silent.forgetLeader());
        }
      }
      for (let turn = 0; turn < 12; turn++) {
        this.#peacefulTurn();
      }
      const leader = this.#members.find((m) => m.raw?.role === 'leader' && inConf(m.id) && m.raw.leadTransferee === 0);
      if (leader === undefined || leader.raw === null) {
        continue;
      }
      const { raw } = leader;
      if (target === 0 || raw.term !== targetTerm) {
        if (raw.isJoint && !raw.confState.autoLeave) {
          raw.proposeConfChange(LEAVE_JOINT);
        }
        const result = raw.propose(Uint8Array.of(1));
        this.#observe(leader);
        if (result.type === 'proposed') {
          target = result.index;
          targetTerm = result.term;
          const context = `last ${raw.term} ${++this.#payloads}`;
          if (raw.readIndex(Buffer.from(context)).type === 'ok') {
            const read = { context, atLeast: FIRST_INDEX + this.#committed.length };
            leader.reads.push(read);
            lastRead = { at: leader, read };
          }
        }
        continue;
      }
      const everybody = [...new Set([...conf.voters, ...conf.votersOutgoing, ...conf.learners])];
      const lagging = everybody.filter((id) => (this.#members[id - 1]?.machine.applied ?? 0) < target);
      const isRead = lastRead === undefined || !lastRead.at.reads.includes(lastRead.read);
      const stuck = leader.reads.filter((r) => r.context === `same ${raw.term}`);
      if (lagging.length === 0 && isRead && stuck.length === 0) {
        return;
      }
    }
    const leading = Math.max(0, ...this.#members.map((m) => (m.raw?.role === 'leader' ? m.raw.term : 0)));
    if (!this.#config.preVote && this.#members.some((m) => (m.raw?.term ?? 0) > leading)) {
      // Without pre-votes a member that does not know the newest configuration can outrun the terms of the others for
      // long: a weakness of that setting, not a broken promise.
      return;
    }
    if (!this.#config.stepDownOnRemoval && this.#members.some((m) => m.raw?.role === 'leader' && !m.raw.promotable())) {
      // A removed leader that goes on leading; the setting says so.
      return;
    }
    throw new Violation(
      'a healed group works again',
      `index ${target} of term ${targetTerm} is not everywhere\n${this.describe()}`,
    );
  }

  #newestConf(): ConfState {
    let best = this.#members[0] as Member;
    for (const member of this.#members) {
      if (member.machine.applied > best.machine.applied) {
        best = member;
      }
    }
    return best.machine.conf;
  }

  /** Everybody does all work there is, and everything on the network arrives, in order. */
  #peacefulTurn(): void {
    for (const member of this.#members) {
      const { raw } = member;
      if (raw === null) {
        continue;
      }
      for (let i = 0; i < 40; i++) {
        if (this.#config.asyncStorageWrites) {
          if (member.mailbox.length > 0) {
            this.#readMailbox(member, raw);
          } else if (member.writes.length > 0) {
            this.#completeWrite(member);
          } else if (member.applies.length > 0) {
            this.#applySome(member, raw);
          } else if (raw.hasReady()) {
            this.#takeReady(member, raw);
          } else {
            break;
          }
        } else if (member.open !== null) {
          this.#advanceReady(member, raw, member.open);
        } else if (raw.hasReady()) {
          this.#openReady(member, raw);
        } else {
          break;
        }
      }
    }
    const arriving = this.#network;
    this.#network = [];
    for (const m of arriving) {
      this.#deliver(m, false);
    }
    for (const report of this.#snapshotReports.splice(0)) {
      this.#reportSnapshot(report);
    }
  }
}

const isAcknowledgement = (m: Message): boolean =>
  m.type === MsgType.AppResp || m.type === MsgType.VoteResp || m.type === MsgType.PreVoteResp;

const isTransferRequest = (m: Message): boolean =>
  m.context.length === TRANSFER_CONTEXT.length && Buffer.compare(m.context, TRANSFER_CONTEXT) === 0;

function countGrants(raft: Raft): number {
  let n = 0;
  for (const m of raft.messagesAfterAppend) {
    if ((m.type === MsgType.VoteResp || m.type === MsgType.PreVoteResp) && !m.reject && m.to !== raft.id) {
      n++;
    }
  }
  return n;
}

/** Runs one seed. */
export const runSeed = (seed: number, options: AdversaryOptions = {}): RunReport => new Adversary(seed, options).run();
