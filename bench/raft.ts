/**
 * The consensus core alone, in memory: no disk, no network, no other room. Prints one JSON object. Run it with
 * `npm run bench:raft`, which passes `--expose-gc`; figures are only comparable on one machine in one state.
 */
import {
  type ConfState,
  LOCAL_APPEND_THREAD,
  LOCAL_APPLY_THREAD,
  MemoryStorage,
  type Message,
  type RaftConfig,
  RawNode,
} from '../src/raft/index.ts';
import { createRng } from '../src/env/rng.ts';

const SILENT = {
  debugEnabled: false,
  infoEnabled: false,
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
};
const rng = createRng(1);
const MIB = 1024 * 1024;

function config(id: number, storage: MemoryStorage): RaftConfig {
  return {
    id,
    electionTick: 10,
    heartbeatTick: 2,
    storage,
    applied: 0,
    random: (n) => rng.below(n),
    logger: SILENT,
    asyncStorageWrites: true,
    preVote: true,
    checkQuorum: true,
    stepDownOnRemoval: true,
    maxSizePerMsg: MIB,
    maxInflightMsgs: 256,
    maxInflightBytes: 32 * MIB,
    maxUncommittedBytes: 64 * MIB,
    maxCommittedSizePerReady: 16 * MIB,
    disableProposalForwarding: true,
    disableConfChangeValidation: false,
    reportCommit: true,
    commitByVote: true,
    voteGraceTicks: 0,
    skipBcastCommit: false,
  };
}

function storageOf(voters: readonly number[]): MemoryStorage {
  const storage = new MemoryStorage();
  const confState: ConfState = { voters, votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false };
  storage.applySnapshot({ data: new Uint8Array(0), metadata: { index: 5, term: 5, confState } });
  storage.setHardState({ term: 5, vote: 0, commit: 5 });
  return storage;
}

interface Member {
  readonly node: RawNode;
  readonly storage: MemoryStorage;
  committed: number;
}

/** A group whose storage completes at once. Compacts its logs, as a store would. */
class Group {
  readonly members: Map<number, Member> = new Map();

  constructor(ids: readonly number[]) {
    for (const id of ids) {
      const storage = storageOf(ids);
      this.members.set(id, { node: new RawNode(config(id, storage)), storage, committed: 0 });
    }
  }

  /** Runs until nobody has anything to do. */
  settle(): void {
    for (let isBusy = true; isBusy; ) {
      isBusy = false;
      for (const member of this.members.values()) {
        while (member.node.hasReady()) {
          isBusy = true;
          this.#take(member);
        }
      }
    }
  }

  #take({ node, storage }: Member): void {
    for (const message of node.ready().messages) {
      if (message.to === LOCAL_APPEND_THREAD) {
        if (message.term !== 0 || message.vote !== 0 || message.commit !== 0) {
          storage.setHardState({ term: message.term, vote: message.vote, commit: message.commit });
        }
        storage.append(message.entries);
        this.#deliver(message.responses);
      } else if (message.to === LOCAL_APPLY_THREAD) {
        const member = this.members.get(node.id) as Member;
        member.committed += message.entries.length;
        const last = message.entries[message.entries.length - 1];
        this.#deliver(message.responses);
        if (last !== undefined && last.index - storage.firstIndex() > 512) {
          storage.createSnapshot(last.index - 64, null, new Uint8Array(0));
          storage.compact(last.index - 64);
        }
      } else {
        this.members.get(message.to)?.node.step(message);
      }
    }
  }

  #deliver(messages: readonly Message[]): void {
    for (const message of messages) {
      this.members.get(message.to)?.node.step(message);
    }
  }
}

function gc(): void {
  globalThis.gc?.();
}

function proposals(batch: number): {
  readonly proposalsPerSecond: number;
  readonly heapBytesPerCommittedEntry: number;
} {
  const group = new Group([1, 2, 3]);
  const leader = group.members.get(1) as Member;
  leader.node.campaign();
  group.settle();
  const data = new Uint8Array(256);
  const run = (count: number): void => {
    for (let i = 0; i < count; i += batch) {
      for (let k = 0; k < batch; k++) {
        leader.node.propose(data);
      }
      group.settle();
    }
  };
  run(5_000);
  const count = 50_000;
  const start = performance.now();
  run(count);
  const seconds = (performance.now() - start) / 1000;
  for (const { node, committed } of group.members.values()) {
    // The leader's empty entry comes on top; a figure without the work would be worthless.
    if (committed < 5_000 + count || node.committed - 5 !== committed) {
      throw new Error(`member ${node.id} applied ${committed} entries of ${5_000 + count} proposals`);
    }
  }
  // Allocation per entry: growth of the heap over a stretch short enough for no collection in between.
  gc();
  let best = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 20; i++) {
    const before = process.memoryUsage().heapUsed;
    run(512);
    const grown = process.memoryUsage().heapUsed - before;
    if (grown > 0) {
      best = Math.min(best, grown / 512);
    }
  }
  return { proposalsPerSecond: Math.round(count / seconds), heapBytesPerCommittedEntry: Math.round(best) };
}

function idleGroups(count: number): { readonly ticksPerSecond: number; readonly heapBytesPerGroup: number } {
  gc();
  const before = process.memoryUsage().heapUsed;
  const nodes: RawNode[] = [];
  const storages: MemoryStorage[] = [];
  for (let i = 0; i < count; i++) {
    const storage = storageOf([1, 2, 3]);
    storages.push(storage);
    nodes.push(new RawNode(config(1, storage)));
  }
  gc();
  const heapBytesPerGroup = Math.round((process.memoryUsage().heapUsed - before) / count);
  const rounds = 50;
  const heartbeats: Message[] = [];
  let ticks = 0;
  const start = performance.now();
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < count; i++) {
      const node = nodes[i] as RawNode;
      node.tick();
      ticks++;
      if (node.hasReady()) {
        // An idle follower whose leader is silent starts a pre-vote now and then; its messages go nowhere.
        heartbeats.length = 0;
        node.ready();
      }
    }
  }
  const seconds = (performance.now() - start) / 1000;
  return { ticksPerSecond: Math.round(ticks / seconds), heapBytesPerGroup };
}

const result = {
  node: process.version,
  proposalsOneByOne: proposals(1),
  proposalsBatchOf64: proposals(64),
  idle: { groups: 10_000, ...idleGroups(10_000) },
};
process.stdout.write(`${JSON.stringify(result, null, 2)}\n`);
