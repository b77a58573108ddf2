/**
 * A few Raft members in one process for unit tests: storages, a network that can lose messages, and a driver that
 * persists, applies and advances. Deterministic; nothing here waits.
 */
import { EMPTY_BYTES, utf8 } from '../../../src/base/bytes.ts';
import {
  type ConfChangeSingle,
  ConfChangeTransition,
  ConfChangeType,
  type ConfChangeV2,
  type ConfState,
  decodeConfChangeV2,
  type Entry,
  EntryType,
  type HardState,
  LOCAL_APPEND_THREAD,
  LOCAL_APPLY_THREAD,
  MemoryStorage,
  type Message,
  MsgType,
  newMessage,
  type ProposeResult,
  type RaftConfig,
  RawNode,
  type ReadState,
  type Ready,
  type Snapshot,
  type StepResult,
  UNLIMITED,
} from '../../../src/raft/index.ts';
import type { DefectSet } from '../../../src/raft/defects.ts';
import type { Progress } from '../../../src/raft/progress.ts';
import type { Raft } from '../../../src/raft/raft.ts';

export const confState = (voters: readonly number[], parts: Partial<ConfState> = {}): ConfState => ({
  voters,
  votersOutgoing: [],
  learners: [],
  learnersNext: [],
  autoLeave: false,
  ...parts,
});

export const entry = (term: number, index: number, data = ''): Entry => ({
  type: EntryType.Normal,
  term,
  index,
  data: data === '' ? EMPTY_BYTES : utf8(data),
});

/** Entries at 1, 2, … with these terms. */
export const entriesOfTerms = (terms: readonly number[], first = 1): Entry[] =>
  terms.map((term, i) => entry(term, first + i));

export const snapshotAt = (index: number, term: number, state: ConfState): Snapshot => ({
  data: EMPTY_BYTES,
  metadata: { index, term, confState: state },
});

export const change = (
  changes: readonly ConfChangeSingle[],
  transition: ConfChangeTransition = ConfChangeTransition.Auto,
): ConfChangeV2 => ({ transition, changes, context: EMPTY_BYTES });

export const addNode = (nodeId: number): ConfChangeSingle => ({ type: ConfChangeType.AddNode, nodeId });
export const addLearner = (nodeId: number): ConfChangeSingle => ({ type: ConfChangeType.AddLearnerNode, nodeId });
export const removeNode = (nodeId: number): ConfChangeSingle => ({ type: ConfChangeType.RemoveNode, nodeId });
export const updateNode = (nodeId: number): ConfChangeSingle => ({ type: ConfChangeType.UpdateNode, nodeId });

/** A message with the given parts. */
export function message(type: MsgType, parts: Partial<Message>): Message {
  return Object.assign(newMessage(type, 0, 0, 0), parts);
}

export interface NodeOptions extends Partial<Omit<RaftConfig, 'id' | 'storage'>> {
  readonly voters?: readonly number[];
  readonly learners?: readonly number[];
  /** Takes precedence over voters and learners. */
  readonly confState?: ConfState;
  /** Terms of the stored entries from index 1 on. */
  readonly terms?: readonly number[];
  readonly hardState?: Partial<HardState>;
  readonly storage?: MemoryStorage;
  readonly defects?: DefectSet;
  /** Collects log lines. */
  readonly lines?: string[];
}

export function configOf(id: number, storage: RaftConfig['storage'], options: NodeOptions): RaftConfig {
  const { lines } = options;
  const write = (line: string): void => {
    lines?.push(line);
  };
  return {
    id,
    storage,
    electionTick: options.electionTick ?? 10,
    heartbeatTick: options.heartbeatTick ?? 1,
    applied: options.applied ?? 0,
    random: options.random ?? (() => 0),
    logger: options.logger ?? {
      debugEnabled: lines !== undefined,
      infoEnabled: lines !== undefined,
      debug: write,
      info: write,
      warn: write,
      error: write,
    },
    asyncStorageWrites: options.asyncStorageWrites ?? false,
    preVote: options.preVote ?? false,
    checkQuorum: options.checkQuorum ?? false,
    stepDownOnRemoval: options.stepDownOnRemoval ?? false,
    maxSizePerMsg: options.maxSizePerMsg ?? UNLIMITED,
    maxInflightMsgs: options.maxInflightMsgs ?? 256,
    maxInflightBytes: options.maxInflightBytes ?? 0,
    maxUncommittedBytes: options.maxUncommittedBytes ?? 0,
    maxCommittedSizePerReady: options.maxCommittedSizePerReady ?? 0,
    disableProposalForwarding: options.disableProposalForwarding ?? false,
    disableConfChangeValidation: options.disableConfChangeValidation ?? false,
    reportCommit: options.reportCommit ?? false,
    commitByVote: options.commitByVote ?? false,
    voteGraceTicks: options.voteGraceTicks ?? 0,
    skipBcastCommit: options.skipBcastCommit ?? false,
    leaseReads: options.leaseReads ?? false,
    appendRefusedConfChanges: options.appendRefusedConfChanges ?? false,
    requireOwnVote: options.requireOwnVote ?? true,
  };
}

export function storageOf(options: NodeOptions): MemoryStorage {
  const storage = new MemoryStorage();
  const state = options.confState ?? confState(options.voters ?? [], { learners: options.learners ?? [] });
  if (state.voters.length > 0 || state.learners.length > 0) {
    storage.applySnapshot(snapshotAt(0, 0, state));
  }
  const terms = options.terms ?? [];
  storage.append(entriesOfTerms(terms));
  const { hardState } = options;
  if (hardState !== undefined || terms.length > 0) {
    storage.setHardState({ term: terms.at(-1) ?? 0, vote: 0, commit: 0, ...hardState });
  }
  return storage;
}

/** One member with its storage and out-box. */
export class LabNode {
  readonly id: number;
  readonly options: NodeOptions;
  readonly storage: MemoryStorage;
  raw: RawNode;
  /** Entries applied so far, in order. */
  readonly applied: Entry[] = [];
  readonly readStates: ReadState[] = [];
  readonly readies: Ready[] = [];
  outbox: Message[] = [];
  /** False: membership changes are handed out but not applied. */
  appliesChanges = true;

  constructor(id: number, options: NodeOptions) {
    this.id = id;
    this.options = options;
    this.storage = options.storage ?? storageOf(options);
    this.raw = this.#create(options.applied ?? 0);
  }

  #create(applied: number): RawNode {
    return new RawNode(configOf(this.id, this.storage, { ...this.options, applied }), this.options.defects ?? null);
  }

  get raft(): Raft {
    return this.raw.internals;
  }

  progress(id: number): Progress {
    const found = this.raft.tracker.get(id);
    if (found === undefined) {
      throw new Error(`no progress of ${id}`);
    }
    return found;
  }

  /** Puts the member where a real history would have put it. */
  becomeFollower(term: number, lead = 0): void {
    this.raft.becomeFollower(term, lead);
  }

  becomeCandidate(): void {
    this.raft.campaign('election');
  }

  becomePreCandidate(): void {
    this.raft.campaign('pre-election');
  }

  /** Wins an election with the votes of a majority of voters; the messages of it are thrown away. */
  becomeLeader(): void {
    this.becomeCandidate();
    this.drain();
    for (const id of this.raft.tracker.voterIds()) {
      if (this.raw.role === 'candidate' && id !== this.id) {
        this.raw.step(message(MsgType.VoteResp, { from: id, to: this.id, term: this.raw.term }));
      }
    }
    if (this.raw.role !== 'leader') {
      throw new Error(`member ${this.id} did not become leader`);
    }
  }

  /** A leader whose messages up to here are gone. */
  becomeQuietLeader(): void {
    this.becomeLeader();
    this.take();
  }

  step(type: MsgType, parts: Partial<Message>): StepResult {
    return this.raw.step(message(type, { to: this.id, ...parts }));
  }

  ticks(n: number): void {
    for (let i = 0; i < n; i++) {
      this.raw.tick();
    }
  }

  /** Handles Readies until there is none: persists, applies, advances, collects messages. */
  drain(): void {
    for (let turn = 0; this.raw.hasReady(); turn++) {
      if (turn > 10_000) {
        throw new Error('a member never comes to rest');
      }
      this.handleReady();
    }
  }

  handleReady(): Ready {
    const rd = this.raw.ready();
    this.readies.push(rd);
    if (rd.hardState !== null) {
      this.storage.setHardState(rd.hardState);
    }
    if (rd.snapshot !== null) {
      this.storage.applySnapshot(rd.snapshot);
    }
    this.storage.append(rd.entries);
    this.apply(rd.committedEntries);
    this.readStates.push(...rd.readStates);
    const local: Message[] = [];
    for (const m of rd.messages) {
      if (m.to === LOCAL_APPEND_THREAD || m.to === LOCAL_APPLY_THREAD) {
        if (m.term !== 0) {
          this.storage.setHardState({ term: m.term, vote: m.vote, commit: m.commit });
        }
        local.push(...m.responses);
      } else {
        this.outbox.push(m);
      }
    }
    if (this.options.asyncStorageWrites === true) {
      for (const m of local) {
        if (m.to === this.id) {
          this.raw.step(m);
        } else {
          this.outbox.push(m);
        }
      }
    } else {
      this.raw.advance();
    }
    return rd;
  }

  apply(entries: readonly Entry[]): void {
    for (const e of entries) {
      if (e.type !== EntryType.Normal && this.appliesChanges) {
        this.raw.applyConfChange(decodeConfChangeV2(e.data));
      }
      this.applied.push(e);
    }
  }

  /** Drains and empties the out-box. */
  take(): Message[] {
    this.drain();
    const out = this.outbox;
    this.outbox = [];
    return out;
  }

  /** Messages the member wants to send right now, without persisting anything. */
  peek(): readonly Message[] {
    return this.raft.messages;
  }

  /** The whole log: stored entries overlaid by unstable ones, as [term, index]. */
  log(): (readonly [number, number])[] {
    const { raw } = this;
    return raw.slice(raw.firstIndex, raw.lastIndex + 1, UNLIMITED).map((e) => [e.term, e.index] as const);
  }

  terms(): number[] {
    return this.log().map(([term]) => term);
  }

  /** A new process on the same disk. */
  restart(applied = 0): void {
    this.raw = this.#create(applied);
    this.applied.length = 0;
    this.outbox = [];
  }
}

/** Members and the network between them. */
export class Lab {
  readonly nodes: Map<number, LabNode> = new Map();
  readonly #cut = new Set<string>();
  readonly #ignored = new Set<MsgType>();
  /** Messages for which this returns false are lost. */
  filter: (m: Message) => boolean = () => true;

  constructor(nodes: readonly LabNode[]) {
    for (const node of nodes) {
      this.nodes.set(node.id, node);
    }
  }

  /** Members 1 … n that all vote. */
  static of(n: number, options: NodeOptions = {}): Lab {
    const voters = Array.from({ length: n }, (_, i) => i + 1);
    return new Lab(voters.map((id) => new LabNode(id, { voters, ...options })));
  }

  /** Voters with these stored terms, in id order. */
  static withLogs(logs: readonly (readonly number[] | null)[], options: NodeOptions = {}): Lab {
    const voters = logs.map((_, i) => i + 1);
    const lab = new Lab(
      logs.flatMap((terms, i) => (terms === null ? [] : [new LabNode(i + 1, { voters, terms, ...options })])),
    );
    return lab;
  }

  node(id: number): LabNode {
    const node = this.nodes.get(id);
    if (node === undefined) {
      throw new Error(`no member ${id}`);
    }
    return node;
  }

  raw(id: number): RawNode {
    return this.node(id).raw;
  }

  cut(a: number, b: number): void {
    this.#cut.add(`${a}-${b}`).add(`${b}-${a}`);
  }

  /** Loses messages from `from` to `to` only. */
  drop(from: number, to: number): void {
    this.#cut.add(`${from}-${to}`);
  }

  isolate(id: number): void {
    for (const other of this.nodes.keys()) {
      if (other !== id) {
        this.cut(id, other);
      }
    }
  }

  ignore(type: MsgType): void {
    this.#ignored.add(type);
  }

  recover(): void {
    this.#cut.clear();
    this.#ignored.clear();
    this.filter = () => true;
  }

  #arrives(m: Message): boolean {
    return this.nodes.has(m.to) && !this.#cut.has(`${m.from}-${m.to}`) && !this.#ignored.has(m.type) && this.filter(m);
  }

  /** Handles Readies and delivers messages until nothing moves. */
  settle(): void {
    for (let round = 0; round < 10_000; round++) {
      const moving = [...this.nodes.values()].flatMap((node) => node.take()).filter((m) => this.#arrives(m));
      if (moving.length === 0) {
        return;
      }
      for (const m of moving) {
        this.node(m.to).raw.step(m);
      }
    }
    throw new Error('the group never comes to rest');
  }

  campaign(id: number): void {
    this.raw(id).campaign();
    this.settle();
  }

  propose(id: number, data = 'x'): ProposeResult {
    const result = this.raw(id).propose(utf8(data));
    this.settle();
    return result;
  }

  ticks(id: number, n: number): void {
    this.node(id).ticks(n);
    this.settle();
  }

  transfer(at: number, to: number): void {
    this.raw(at).transferLeader(to);
    this.settle();
  }

  changeMembers(id: number, cc: ConfChangeV2): ProposeResult {
    const result = this.raw(id).proposeConfChange(cc);
    this.settle();
    return result;
  }

  roles(): string[] {
    return [...this.nodes.values()].map((n) => n.raw.role);
  }

  committed(): number[] {
    return [...this.nodes.values()].map((n) => n.raw.committed);
  }

  /** Id of the only leader. */
  leader(): number {
    const leaders = [...this.nodes.values()].filter((n) => n.raw.role === 'leader');
    if (leaders.length !== 1) {
      throw new Error(`${leaders.length} leaders`);
    }
    return (leaders[0] as LabNode).id;
  }
}

export const typesOf = (messages: readonly Message[]): MsgType[] => messages.map((m) => m.type);

export const ofType = (messages: readonly Message[], type: MsgType): Message[] =>
  messages.filter((m) => m.type === type);
