/**
 * P1, the ledger of promises: what a replica let others believe by a message must still hold at each of its restarts,
 * whatever happened to its machine.
 */
import { logIndex, regionId as brandRegionId } from '../../../src/base/ids.ts';
import type { PeerMessage } from '../../../src/codec/peer-message.ts';
import { raftLogKey } from '../../../src/engine/index.ts';
import { MsgType } from '../../../src/raft/types.ts';
import type { CommittedLog } from './committed-log.ts';
import { applyStateOn, type DiskView, raftStateOn, regionStateOn } from './durable.ts';
import { type ObservedMachine, type Tally, violated } from './observed.ts';
import type { RegionModel } from './region-model.ts';
import type { Grave } from './replicas.ts';

interface Promised {
  readonly store: number;
  readonly region: number;
  readonly peer: number;
  term: number;
  /** Whom it voted for in `term`; 0 if it did not. */
  vote: number;
  /** Highest index acknowledged in `ackTerm`. */
  ackIndex: number;
  ackTerm: number;
}

export class PromiseLedger {
  readonly #promises: Map<string, Promised> = new Map();
  readonly #log: CommittedLog;
  readonly #model: RegionModel;
  readonly #graves: ReadonlyMap<string, Grave>;
  readonly #tally: Tally;

  constructor(log: CommittedLog, model: RegionModel, graves: ReadonlyMap<string, Grave>, tally: Tally) {
    this.#log = log;
    this.#model = model;
    this.#graves = graves;
    this.#tally = tally;
  }

  promisedTerm(store: number, region: number, peer: number): number {
    return this.#promises.get(`${store}/${region}/${peer}`)?.term ?? 0;
  }

  hasAcknowledged(store: number, region: number, peer: number, index: number, term: number): boolean {
    const promise = this.#promises.get(`${store}/${region}/${peer}`);
    return promise !== undefined && promise.ackTerm === term && promise.ackIndex >= index;
  }

  /** Everything of a store is lost and it is a new one. */
  forget(store: number): void {
    for (const [key, promise] of this.#promises) {
      if (promise.store === store) {
        this.#promises.delete(key);
      }
    }
  }

  onSend(message: PeerMessage, store: number): void {
    const { body, from, regionId } = message;
    if (body.type === 'want-rollback-merge') {
      this.#model.onRollbackVote(regionId, body.commit, from.id);
    }
    if (body.type !== 'raft') {
      return;
    }
    const grave = this.#graves.get(`${store}/${regionId}`);
    if (grave?.isBuried === true && from.id <= grave.peerId) {
      violated('I4', `peer ${from.id} of region ${regionId} on store ${store} speaks after tombstone ${grave.peerId}`);
    }
    const { message: raft } = body;
    const isVote = raft.type === MsgType.VoteResp && !raft.reject;
    const isAck = raft.type === MsgType.AppResp && !raft.reject;
    if (!isVote && !isAck) {
      return;
    }
    const key = `${store}/${regionId}/${from.id}`;
    const promise = this.#promises.get(key) ?? {
      store,
      region: regionId,
      peer: from.id,
      term: 0,
      vote: 0,
      ackIndex: 0,
      ackTerm: 0,
    };
    if (isVote) {
      if (promise.term === raft.term && promise.vote !== 0 && promise.vote !== message.to.id) {
        violated(
          'P1',
          `peer ${from.id} of region ${regionId} voted for ${promise.vote} and ${message.to.id} in term ${raft.term}`,
        );
      }
      if (raft.term >= promise.term) {
        promise.vote = message.to.id;
      }
    }
    if (isAck && raft.term >= promise.ackTerm) {
      promise.ackIndex = raft.term === promise.ackTerm ? Math.max(promise.ackIndex, raft.index) : raft.index;
      promise.ackTerm = raft.term;
    }
    if (raft.term > promise.term) {
      promise.term = raft.term;
      promise.vote = isVote ? message.to.id : 0;
    }
    this.#promises.set(key, promise);
  }

  /** A store has restarted: its disk must still hold whatever it promised. */
  onBoot(machine: ObservedMachine): void {
    const view = machine.database?.view;
    if (view === undefined) {
      return;
    }
    for (const promise of this.#promises.values()) {
      if (promise.store === machine.id && regionStateOn(view, promise.region)?.state !== 'tombstone') {
        this.#check(promise, view);
      }
    }
    this.#checkMerging(machine);
  }

  #check(promise: Promised, view: DiskView): void {
    const { store, region, peer } = promise;
    const where = `peer ${peer} of region ${region} on store ${store}`;
    const raft = raftStateOn(view, region);
    if (raft === undefined) {
      if (promise.term > 0) {
        violated('P1', `${where} answered in term ${promise.term} and is forgotten`);
      }
      return;
    }
    if (raft.peerId !== peer) {
      return;
    }
    this.#tally.add('promises');
    if (raft.term < promise.term) {
      violated('P1', `${where} answered in term ${promise.term}, now has ${raft.term}`);
    }
    if (promise.vote !== 0 && raft.term === promise.term && raft.vote !== promise.vote) {
      violated('P1', `${where} voted for ${promise.vote} in term ${promise.term}, now for ${raft.vote}`);
    }
    if (raft.term === promise.ackTerm && raft.lastIndex < promise.ackIndex) {
      violated('P1', `${where} acknowledged ${promise.ackIndex} in term ${promise.ackTerm}, holds ${raft.lastIndex}`);
    }
    this.#checkEntries(view, region, raft.lastIndex, where);
  }

  /** The log has no hole, and what is committed in it is what was committed (R2). */
  #checkEntries(view: DiskView, region: number, last: number, where: string): void {
    const truncated = applyStateOn(view, region)?.truncatedIndex ?? 0;
    for (let index = truncated + 1; index <= last; index++) {
      const bytes = view.get(raftLogKey(brandRegionId(region), logIndex(index)));
      if (bytes === undefined) {
        return violated('P1', `${where} holds entries up to ${last}, but not entry ${index}`);
      }
      if (index <= (applyStateOn(view, region)?.appliedIndex ?? 0)) {
        this.#log.compare(region, index, bytes, where);
      }
    }
  }

  /** I6: a source knows after a restart that it is merging, exactly if its disk says so. */
  #checkMerging({ id, store, database }: ObservedMachine): void {
    if (store === undefined || database === undefined) {
      return;
    }
    for (const { fsm } of store.inspect().replicas.values()) {
      const { peer } = fsm;
      const record = regionStateOn(database.view, peer.regionId);
      const onDisk = record?.state === 'merging' ? record.mergeState?.commit : undefined;
      if (record?.state !== 'tombstone' && peer.pendingMerge?.commit !== onDisk) {
        violated(
          'I6',
          `region ${peer.regionId} on store ${id} is merging at ${onDisk ?? 'nothing'} on disk and at ${peer.pendingMerge?.commit ?? 'nothing'} in memory`,
        );
      }
    }
  }
}
