/**
 * Interpreter of the interaction files: a handful of nodes, one list of messages in flight, and directives that drive
 * them. The core's log lines go through the same buffer as the harness' own text.
 */
import { EMPTY_BYTES, utf8 } from '../../src/base/bytes.ts';
import { decodeConfChangeV2 } from '../../src/raft/conf-change.ts';
import { describeEntries, describeMessage, describeProgressMap, describeReady } from '../../src/raft/describe.ts';
import { UNLIMITED } from '../../src/raft/entry.ts';
import { roleText } from '../../src/raft/log-text.ts';
import { EMPTY_SNAPSHOT, MemoryStorage } from '../../src/raft/memory-storage.ts';
import { EMPTY_MESSAGES, isLocalThread, newMessage } from '../../src/raft/message.ts';
import { RawNode } from '../../src/raft/raw-node.ts';
import {
  ConfChangeTransition,
  EntryType,
  LOCAL_APPEND_THREAD,
  LOCAL_APPLY_THREAD,
  MsgType,
  type ConfState,
  type Entry,
  type HardState,
  type LogStorage,
  type Message,
  type Snapshot,
} from '../../src/raft/types.ts';
import { concatBytes } from '../../src/base/bytes.ts';
import { parseChangeTokens } from './change-tokens.ts';
import { bareNumbers, type Directive, HarnessError, onlyValue, parseBoolean, parseNumber } from './datadriven.ts';

const LEVELS: readonly string[] = ['DEBUG', 'INFO', 'WARN', 'ERROR', 'FATAL', 'NONE'];
const LEVEL_NONE = LEVELS.length - 1;
const ELECTION_TICKS = 3;
const HEARTBEAT_TICKS = 1;
const MAX_INFLIGHT = 2 ** 31 - 1;
/** A stabilization that is not over by then never ends. */
const STABILIZE_ROUNDS_MAX = 10_000;

/** An error the environment reports as output; everything else fails the file. */
class CommandError extends Error {}

export interface InteractionOptions {
  /** Uniform integer in [0, n): the election timeouts. */
  readonly random: (n: number) => number;
  /** False: the core writes no log lines. */
  readonly showLog: boolean;
}

class Output {
  text = '';
  level = 0;

  /** Text of the harness itself; level NONE silences it. */
  write(text: string): void {
    if (this.level !== LEVEL_NONE) {
      this.text += text;
    }
  }

  log(level: number, line: string): void {
    if (this.level <= level) {
      this.text += `${LEVELS[level]} ${line}${line.endsWith('\n') ? '' : '\n'}`;
    }
  }

  /** Runs `action` and indents what it writes. */
  indented(action: () => void): void {
    const outer = this.text;
    this.text = '';
    try {
      action();
    } finally {
      const inner = this.text === '' ? [] : (this.text.endsWith('\n') ? this.text.slice(0, -1) : this.text).split('\n');
      this.text = outer + inner.map((line) => `  ${line}\n`).join('');
    }
  }
}

interface Node {
  readonly id: number;
  readonly raw: RawNode;
  readonly storage: MemoryStorage;
  readonly isAsync: boolean;
  readonly appendWork: Message[];
  readonly applyWork: Message[];
  /** The toy state machine after each applied entry. */
  readonly history: Snapshot[];
}

export class InteractionEnv {
  readonly #options: InteractionOptions;
  readonly #output = new Output();
  readonly #nodes: Node[] = [];
  #messages: Message[] = [];

  constructor(options: InteractionOptions) {
    this.#options = options;
  }

  handle(directive: Directive): string {
    const output = this.#output;
    output.text = '';
    try {
      this.#run(directive);
    } catch (error) {
      if (!(error instanceof CommandError)) {
        throw error;
      }
      if (output.level === LEVEL_NONE) {
        return error.message;
      }
      output.text += error.message;
    }
    return output.text === '' ? 'ok' : output.text;
  }

  #run(d: Directive): void {
    switch (d.command) {
      case '_breakpoint':
        return;
      case 'add-nodes':
        return this.#addNodes(d);
      case 'campaign':
        return this.#node(firstId(d)).raw.campaign();
      case 'compact':
        return this.#compact(d);
      case 'deliver-msgs':
        return this.#deliverMessages(d);
      case 'process-ready':
        return this.#forEach(d, 'handling Ready', (node) => this.#processReady(node));
      case 'process-append-thread':
        return this.#forEach(d, 'processing append thread', (node) => this.#processAppend(node));
      case 'process-apply-thread':
        return this.#forEach(d, 'processing apply thread', (node) => this.#processApply(node));
      case 'log-level':
        this.#output.level = levelOf(d.args[0]?.key ?? '');
        return;
      case 'raft-log':
        return this.#printLog(this.#node(firstId(d)));
      case 'raft-state':
        return this.#printStates();
      case 'set-randomized-election-timeout':
        this.#node(firstId(d)).raw.internals.randomizedElectionTimeout = parseNumber(valueOf(d, 'timeout'));
        return;
      case 'stabilize':
        return this.#stabilize(d);
      case 'status':
        return this.#printStatus(this.#node(firstId(d)));
      case 'tick-election':
        return ticks(this.#node(firstId(d)), ELECTION_TICKS);
      case 'tick-heartbeat':
        return ticks(this.#node(firstId(d)), HEARTBEAT_TICKS);
      case 'transfer-leadership':
        return this.#node(parseNumber(valueOf(d, 'from'))).raw.transferLeader(parseNumber(valueOf(d, 'to')));
      case 'forget-leader':
        return this.#node(firstId(d)).raw.forgetLeader();
      case 'send-snapshot':
        return this.#sendSnapshot(d);
      case 'propose':
        return this.#propose(d);
      case 'propose-conf-change':
        return this.#proposeConfChange(d);
      case 'report-unreachable':
        return this.#reportUnreachable(d);
      default:
        throw new CommandError('unknown command');
    }
  }

  #node(id: number): Node {
    const node = this.#nodes[id - 1];
    if (node === undefined) {
      throw new HarnessError(`there is no node ${id}`);
    }
    return node;
  }

  // ---------------------------------------------------------------------------------------------- nodes

  #addNodes(d: Directive): void {
    const count = parseNumber(d.args.find((a) => a.values.length === 0)?.key ?? '');
    const voters: number[] = [];
    const learners: number[] = [];
    let index = 0;
    let data: Uint8Array = EMPTY_BYTES;
    let isAsync = false;
    let preVote = false;
    let checkQuorum = false;
    let stepDownOnRemoval = false;
    let disableConfChangeValidation = false;
    let leaseReads = false;
    let maxInflightMsgs = MAX_INFLIGHT;
    let maxCommittedSizePerReady = UNLIMITED;
    for (const arg of d.args) {
      if (arg.values.length === 0) {
        continue;
      }
      switch (arg.key) {
        case 'voters':
          voters.push(...arg.values.map(parseNumber));
          break;
        case 'learners':
          learners.push(...arg.values.map(parseNumber));
          break;
        case 'index':
          index = parseNumber(onlyValue(arg));
          break;
        case 'content':
          data = utf8(onlyValue(arg));
          break;
        case 'async-storage-writes':
          isAsync = parseBoolean(onlyValue(arg));
          break;
        case 'prevote':
          preVote = parseBoolean(onlyValue(arg));
          break;
        case 'checkquorum':
          checkQuorum = parseBoolean(onlyValue(arg));
          break;
        case 'step-down-on-removal':
          stepDownOnRemoval = parseBoolean(onlyValue(arg));
          break;
        case 'disable-conf-change-validation':
          disableConfChangeValidation = parseBoolean(onlyValue(arg));
          break;
        case 'inflight':
          maxInflightMsgs = parseNumber(onlyValue(arg));
          break;
        case 'max-committed-size-per-ready':
          maxCommittedSizePerReady = parseNumber(onlyValue(arg));
          break;
        case 'read-only': {
          const option = onlyValue(arg);
          if (option !== 'safe' && option !== 'lease-based') {
            throw new CommandError(`invalid read-only option ${JSON.stringify(option)}`);
          }
          leaseReads = option === 'lease-based';
          break;
        }
        default:
          throw new HarnessError(`add-nodes does not know the argument ${arg.key}`);
      }
    }
    const isBootstrapped = voters.length > 0 || learners.length > 0 || index !== 0 || data.length > 0;
    for (let n = 0; n < count; n++) {
      const id = this.#nodes.length + 1;
      const storage = new MemoryStorage();
      let first: Snapshot = EMPTY_SNAPSHOT;
      if (isBootstrapped) {
        if (index <= 1) {
          throw new CommandError('index must be specified as > 1 due to bootstrap');
        }
        const confState: ConfState = { voters, votersOutgoing: [], learners, learnersNext: [], autoLeave: false };
        first = { data, metadata: { index, term: 1, confState } };
        storage.applySnapshot(first);
      }
      const history = [first];
      const raw = new RawNode({
        id,
        electionTick: ELECTION_TICKS,
        heartbeatTick: HEARTBEAT_TICKS,
        storage: snapshotsFrom(storage, history),
        applied: index,
        random: this.#options.random,
        logger: this.#logger(),
        asyncStorageWrites: isAsync,
        preVote,
        // The lease mode of reads needs it; the files that use that mode do not depend on it.
        checkQuorum: checkQuorum || leaseReads,
        stepDownOnRemoval,
        maxSizePerMsg: UNLIMITED,
        maxInflightMsgs,
        maxInflightBytes: 0,
        maxUncommittedBytes: 0,
        maxCommittedSizePerReady,
        disableProposalForwarding: false,
        disableConfChangeValidation,
        reportCommit: false,
        commitByVote: false,
        voteGraceTicks: 0,
        skipBcastCommit: false,
        leaseReads,
        appendRefusedConfChanges: true,
      });
      this.#nodes.push({ id, raw, storage, isAsync, appendWork: [], applyWork: [], history });
    }
  }

  #logger(): ConstructorParameters<typeof RawNode>[0]['logger'] {
    const output = this.#output;
    const at = (level: number) => (line: string) => output.log(level, line);
    return this.#options.showLog
      ? { debugEnabled: true, debug: at(0), info: at(1), warn: at(2), error: at(3) }
      : { debugEnabled: false, infoEnabled: false, debug: ignore, info: ignore, warn: ignore, error: ignore };
  }

  // ---------------------------------------------------------------------------------------------- readies and threads

  #forEach(d: Directive, what: string, action: (node: Node) => void): void {
    const ids = bareNumbers(d);
    if (ids.length === 0) {
      throw new HarnessError(`${d.command} needs a node id`);
    }
    for (const id of ids) {
      const node = this.#node(id);
      if (ids.length > 1) {
        this.#output.write(`> ${id} ${what}\n`);
        this.#output.indented(() => action(node));
      } else {
        action(node);
      }
    }
  }

  #processReady(node: Node): void {
    const rd = node.raw.ready();
    this.#output.write(describeReady(rd));
    if (!node.isAsync) {
      store(node.storage, rd.hardState, rd.entries, rd.snapshot);
      apply(node, rd.committedEntries);
    }
    for (const m of rd.messages) {
      if (m.to === LOCAL_APPEND_THREAD) {
        node.appendWork.push(m);
      } else if (m.to === LOCAL_APPLY_THREAD) {
        node.applyWork.push(m);
      } else {
        this.#messages.push(m);
      }
    }
    if (!node.isAsync) {
      node.raw.advance();
    }
  }

  #processAppend(node: Node): void {
    const m = node.appendWork.shift();
    if (m === undefined) {
      this.#output.write('no append work to perform');
      return;
    }
    this.#processing(m);
    const { term, vote, commit } = m;
    const isChanged = term !== 0 || vote !== 0 || commit !== 0;
    store(node.storage, isChanged ? { term, vote, commit } : null, m.entries, m.snapshot);
    this.#respond(m);
  }

  #processApply(node: Node): void {
    const m = node.applyWork.shift();
    if (m === undefined) {
      this.#output.write('no apply work to perform');
      return;
    }
    this.#processing(m);
    apply(node, m.entries);
    this.#respond(m);
  }

  #processing(m: Message): void {
    this.#output.write(`Processing:\n${describeMessage({ ...m, responses: EMPTY_MESSAGES })}\n`);
  }

  #respond(m: Message): void {
    this.#output.write('Responses:\n');
    for (const response of m.responses) {
      this.#output.write(`${describeMessage(response)}\n`);
      this.#messages.push(response);
    }
  }

  // ---------------------------------------------------------------------------------------------- messages

  #deliverMessages(d: Directive): void {
    const recipients: { readonly id: number; readonly drops: boolean }[] = [];
    let type: number | undefined;
    for (const arg of d.args) {
      if (arg.values.length === 0) {
        recipients.push({ id: parseNumber(arg.key), drops: false });
        continue;
      }
      for (const value of arg.values) {
        if (arg.key === 'drop') {
          const id = parseNumber(value);
          if (recipients.some((r) => r.id === id)) {
            throw new HarnessError(`can't both deliver and drop msgs to ${id}`);
          }
          recipients.push({ id, drops: true });
        } else if (arg.key === 'type') {
          type = typeOf(value);
        } else {
          throw new HarnessError(`deliver-msgs does not know the argument ${arg.key}`);
        }
      }
    }
    let handled = 0;
    for (const { id, drops } of recipients) {
      handled += this.#deliver(id, type, drops);
    }
    if (handled === 0) {
      this.#output.write('no messages\n');
    }
  }

  /** Delivers or drops what is on its way to `id`; returns the number of messages. */
  #deliver(id: number, type: number | undefined, drops: boolean): number {
    const { taken, rest } = this.#split(id, type, drops);
    this.#messages = rest;
    for (const m of taken) {
      this.#output.write(`${drops ? 'dropped: ' : ''}${describeMessage(m)}\n`);
      if (!drops) {
        this.#step(this.#node(id), m);
      }
    }
    return taken.length;
  }

  #split(
    id: number,
    type: number | undefined,
    drops: boolean,
  ): { readonly taken: Message[]; readonly rest: Message[] } {
    const taken: Message[] = [];
    const rest: Message[] = [];
    for (const m of this.#messages) {
      const isLocal = m.from === m.to || isLocalThread(m.from) || isLocalThread(m.to);
      const matches = m.to === id && (type === undefined || m.type === type) && !(drops && isLocal);
      (matches ? taken : rest).push(m);
    }
    return { taken, rest };
  }

  #step(node: Node, m: Message): void {
    const result = node.raw.step(m);
    switch (result.type) {
      case 'ok':
        return;
      case 'local-message':
        this.#output.write('raft: cannot step raft local message\n');
        return;
      case 'peer-not-found':
        this.#output.write('raft: cannot step as peer not found\n');
        return;
      case 'dropped':
        // Dropped reads and transfers are silent; only proposals report it.
        if (m.type === MsgType.Prop) {
          this.#output.write('raft proposal dropped\n');
        }
        return;
      case 'malformed':
        throw new HarnessError(`the core refused a message as malformed: ${result.reason}`);
    }
  }

  #stabilize(d: Directive): void {
    const level = this.#output.level;
    const levelArg = d.args.find((a) => a.values.length > 0);
    if (levelArg !== undefined) {
      if (levelArg.key !== 'log-level') {
        throw new HarnessError(`stabilize does not know the argument ${levelArg.key}`);
      }
      this.#output.level = levelOf(onlyValue(levelArg));
    }
    const ids = bareNumbers(d);
    const nodes = ids.length === 0 ? this.#nodes : ids.map((id) => this.#node(id));
    try {
      for (let round = 0; this.#stabilizeRound(nodes); round++) {
        if (round > STABILIZE_ROUNDS_MAX) {
          throw new HarnessError('the nodes do not come to rest');
        }
      }
    } finally {
      this.#output.level = level;
    }
  }

  /** Returns whether anything was done. */
  #stabilizeRound(nodes: readonly Node[]): boolean {
    const output = this.#output;
    let didSomething = false;
    const section = (id: number, what: string): void => {
      output.write(`> ${id} ${what}\n`);
      didSomething = true;
    };
    for (const node of nodes) {
      if (node.raw.hasReady()) {
        section(node.id, 'handling Ready');
        output.indented(() => this.#processReady(node));
      }
    }
    for (const node of nodes) {
      if (this.#messages.some((m) => m.to === node.id)) {
        section(node.id, 'receiving messages');
        output.indented(() => this.#deliver(node.id, undefined, false));
      }
    }
    for (const node of nodes) {
      if (node.appendWork.length > 0) {
        section(node.id, 'processing append thread');
        while (node.appendWork.length > 0) {
          output.indented(() => this.#processAppend(node));
        }
      }
    }
    for (const node of nodes) {
      if (node.applyWork.length > 0) {
        section(node.id, 'processing apply thread');
        while (node.applyWork.length > 0) {
          output.indented(() => this.#processApply(node));
        }
      }
    }
    return didSomething;
  }

  // ---------------------------------------------------------------------------------------------- single calls

  #propose(d: Directive): void {
    const [id, data] = d.args;
    if (id === undefined || data === undefined || d.args.length !== 2 || data.values.length > 0) {
      throw new HarnessError('propose needs a node id and the data');
    }
    if (this.#node(parseNumber(id.key)).raw.propose(utf8(data.key)).type === 'dropped') {
      throw new CommandError('raft proposal dropped');
    }
  }

  #proposeConfChange(d: Directive): void {
    let isV1 = false;
    let transition: ConfChangeTransition = ConfChangeTransition.Auto;
    for (const arg of d.args.slice(1)) {
      const value = arg.values[0];
      if (value === undefined) {
        continue;
      }
      switch (arg.key) {
        case 'v1':
          isV1 = parseBoolean(value);
          break;
        case 'transition':
          switch (value) {
            case 'auto':
              transition = ConfChangeTransition.Auto;
              break;
            case 'implicit':
              transition = ConfChangeTransition.JointImplicit;
              break;
            case 'explicit':
              transition = ConfChangeTransition.JointExplicit;
              break;
            default:
              throw new CommandError(`unknown transition ${value}`);
          }
          break;
        default:
          throw new CommandError(`unknown command ${arg.key}`);
      }
    }
    const changes = parseChangeTokens(d.input);
    if (typeof changes === 'string') {
      throw new CommandError(changes);
    }
    const { raw } = this.#node(firstId(d));
    const cc = { transition, changes, context: EMPTY_BYTES };
    if (isV1 && (changes.length > 1 || transition !== ConfChangeTransition.Auto)) {
      throw new CommandError('v1 conf change can only have one operation and no transition');
    }
    const result = isV1 ? raw.proposeConfChangeV1(cc) : raw.proposeConfChange(cc);
    if (result.type === 'dropped') {
      throw new CommandError('raft proposal dropped');
    }
  }

  #sendSnapshot(d: Directive): void {
    const [from, to] = bareNumbers(d);
    if (from === undefined || to === undefined) {
      throw new HarnessError('send-snapshot needs two node ids');
    }
    const node = this.#node(from);
    const m = newMessage(MsgType.Snap, to, from, node.raw.term);
    m.snapshot = last(node.history);
    this.#messages.push(m);
    this.#output.write(describeMessage(m));
  }

  #reportUnreachable(d: Directive): void {
    const [on, peer] = bareNumbers(d);
    if (on === undefined || peer === undefined || d.args.length !== 2) {
      throw new CommandError('must specify exactly two node indexes: node on which to report, and reported node');
    }
    this.#node(on).raw.reportUnreachable(peer);
  }

  #compact(d: Directive): void {
    const [id, index] = bareNumbers(d);
    if (id === undefined || index === undefined) {
      throw new HarnessError('compact needs a node id and an index');
    }
    const node = this.#node(id);
    const result = node.storage.compact(index);
    if (result.type === 'error') {
      throw new CommandError(result.message);
    }
    this.#printLog(node);
  }

  #printLog({ storage }: Node): void {
    const first = storage.firstIndex();
    const end = storage.lastIndex();
    this.#output.write(
      first > end ? `log is empty: first index=${first}, last index=${end}` : describeEntries(storage.allEntries()),
    );
  }

  #printStates(): void {
    for (const { id, raw } of this.#nodes) {
      const { voters, votersOutgoing } = raw.confState;
      const isVoter = voters.includes(id) || votersOutgoing.includes(id);
      this.#output.write(
        `${id}: ${roleText(raw.role)} ${isVoter ? '(Voter)' : '(Non-Voter)'} Term:${raw.term} Lead:${raw.lead}\n`,
      );
    }
  }

  #printStatus({ raw }: Node): void {
    if (raw.role === 'leader') {
      this.#output.write(describeProgressMap(raw.internals.tracker.progress));
    }
  }
}

const ignore = (): void => {};

const last = (history: readonly Snapshot[]): Snapshot => history[history.length - 1] as Snapshot;

/** The store, except that a leader sends what its state machine holds. */
function snapshotsFrom(storage: MemoryStorage, history: readonly Snapshot[]): LogStorage {
  return {
    initialState: () => storage.initialState(),
    firstIndex: () => storage.firstIndex(),
    lastIndex: () => storage.lastIndex(),
    term: (index) => storage.term(index),
    entries: (lo, hi, maxSize) => storage.entries(lo, hi, maxSize),
    snapshot: () => last(history),
  };
}

function store(
  storage: MemoryStorage,
  hardState: HardState | null,
  entries: readonly Entry[],
  snapshot: Snapshot | null,
): void {
  if (hardState !== null) {
    storage.setHardState(hardState);
  }
  if (snapshot === null) {
    storage.append(entries);
    return;
  }
  if (entries.length > 0) {
    throw new CommandError("can't apply snapshot and entries at the same time");
  }
  const result = storage.applySnapshot(snapshot);
  if (result.type === 'error') {
    throw new CommandError(result.message);
  }
}

/** Applies entries to the toy state machine, which concatenates payloads. */
function apply(node: Node, entries: readonly Entry[]): void {
  for (const entry of entries) {
    const before = last(node.history);
    let { confState } = before.metadata;
    let payload = entry.data;
    if (entry.type !== EntryType.Normal) {
      const cc = decodeConfChangeV2(entry.data);
      payload = cc.context;
      confState = node.raw.applyConfChange(cc);
    }
    node.history.push({
      data: concatBytes(before.data, payload),
      metadata: { index: entry.index, term: entry.term, confState },
    });
  }
}

function ticks(node: Node, count: number): void {
  for (let i = 0; i < count; i++) {
    node.raw.tick();
  }
}

function firstId(d: Directive): number {
  const [id] = d.args;
  if (id === undefined || id.values.length > 0) {
    throw new HarnessError(`${d.command} needs a node id`);
  }
  return parseNumber(id.key);
}

function valueOf(d: Directive, key: string): string {
  const arg = d.args.find((a) => a.key === key);
  if (arg === undefined) {
    throw new HarnessError(`${d.command} needs ${key}=`);
  }
  return onlyValue(arg);
}

function levelOf(name: string): number {
  const level = LEVELS.indexOf(name.toUpperCase());
  if (level < 0) {
    throw new CommandError(`log levels must be either of [${LEVELS.join(' ')}]`);
  }
  return level;
}

function typeOf(name: string): number {
  const found = Object.entries(MsgType).find(([key]) => `Msg${key}` === name);
  if (found === undefined) {
    throw new HarnessError(`unknown message type ${name}`);
  }
  return found[1];
}
