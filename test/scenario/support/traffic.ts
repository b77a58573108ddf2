/** Clients that read and write a few keys while a scenario runs, leaders and followers alike, and what they saw. */
import { checkHistory } from '../../../jepsen-lite/checkers.ts';
import { HistoryRecorder } from '../../../jepsen-lite/history.ts';
import { fromUtf8, utf8 } from '../../../src/base/bytes.ts';
import { storeId } from '../../../src/base/ids.ts';
import { rangeContains } from '../../../src/base/key-range.ts';
import { decodeDataValue } from '../../../src/codec/data-value.ts';
import type { Rng } from '../../../src/env/rng.ts';
import { dataKey } from '../../../src/engine/index.ts';
import { findPeerOnStore, type Peer, type Region } from '../../../src/meta/region.ts';
import type { ReadOutcome, RequestHeader, WriteOutcome } from '../../../src/raftstore/msg.ts';
import type { StoreCluster } from '../../sim/store-cluster.ts';

const TIMEOUT_MS = 2_500;
const THINK_MS = 40;

interface Target {
  readonly store: number;
  readonly region: Region;
  readonly peer: Peer;
  readonly isLeader: boolean;
}

export class Traffic {
  readonly #cluster: StoreCluster;
  readonly #keys: readonly string[];
  readonly #history: HistoryRecorder;
  readonly #clients: Promise<void>[] = [];
  #stopping = false;
  #nextValue = 1;
  /** Operations that succeeded. */
  ok = 0;
  /** Requests without an answer, with the life of the process that owes it. */
  readonly #open: Set<{ readonly store: number; readonly incarnation: number }> = new Set();

  constructor(cluster: StoreCluster, rng: Rng, keys: readonly string[], clients: number) {
    this.#cluster = cluster;
    this.#keys = keys;
    this.#history = new HistoryRecorder(() => Math.round(cluster.scheduler.nowMs * 1e6));
    for (let i = 0; i < clients; i++) {
      this.#clients.push(this.#client(rng.fork(`client-${i}`)));
    }
  }

  async stop(): Promise<void> {
    if (!this.#stopping) {
      this.#stopping = true;
      await this.#cluster.run(Promise.all(this.#clients));
      // Whatever is still waiting reaches its deadline.
      await this.#cluster.advance(TIMEOUT_MS);
    }
  }

  /** Throws unless everything the clients saw is linearizable. */
  judge(): void {
    const [first] = checkHistory(this.#history.events).problems;
    if (first !== undefined) {
      throw new Error(`${first.promise}: ${first.text}`);
    }
    for (const { store, incarnation } of this.#open) {
      const machine = this.#cluster.machine(store);
      if (machine.store !== undefined && machine.incarnation === incarnation) {
        throw new Error(`I28: store ${store} never answered a request`);
      }
    }
    if (this.ok < 10) {
      throw new Error(`only ${this.ok} operations of the clients succeeded`);
    }
  }

  async #client(rng: Rng): Promise<void> {
    const cluster = this.#cluster;
    let process = this.#history.newProcess();
    while (!this.#stopping) {
      await cluster.sleep(rng.float() * 2 * THINK_MS);
      const key = rng.pick(this.#keys);
      const isRead = rng.chance(0.5);
      const target = this.#target(key, rng, !isRead || rng.chance(0.6));
      if (target === undefined) {
        continue;
      }
      const value = `v${this.#nextValue++}`;
      this.#history.invoke(process, isRead ? { f: 'get', key } : { f: 'put', key, value });
      const timeout = cluster.sleep(TIMEOUT_MS).then(() => 'timeout' as const);
      if (isRead) {
        const answer = await Promise.race([this.#read(target, key), timeout]);
        if (answer === 'timeout' || 'error' in answer) {
          this.#history.fail(process, answer === 'timeout' ? answer : answer.error);
        } else {
          this.ok++;
          this.#history.ok(process, { f: 'get', value: answer.value ?? null }, `store ${target.store}`);
        }
        continue;
      }
      const outcome = await Promise.race([this.#write(target, key, value), timeout]);
      if (outcome !== 'timeout' && outcome.type === 'ok') {
        this.ok++;
        this.#history.ok(process, { f: 'done' }, `store ${target.store}`);
      } else if (outcome !== 'timeout' && outcome.error.type !== 'undetermined-result') {
        this.#history.fail(process, outcome.error.type);
      } else {
        this.#history.info(process, outcome === 'timeout' ? outcome : 'undetermined');
        process = this.#history.newProcess();
      }
    }
  }

  /** Somebody who might serve the key; stale ones are as good as others. */
  #target(key: string, rng: Rng, needsLeader: boolean): Target | undefined {
    const bytes = utf8(key);
    const found: Target[] = [];
    for (const { id, store } of this.#cluster.machines.values()) {
      for (const s of store?.status() ?? []) {
        const isLeader = s.role === 'leader';
        const peer = findPeerOnStore(s.region, storeId(id));
        if (peer !== undefined && (isLeader || !needsLeader) && rangeContains(s.region.range, bytes)) {
          found.push({ store: id, region: s.region, peer, isLeader });
        }
      }
    }
    return found.length === 0 ? undefined : rng.pick(found);
  }

  #header({ region, peer, store }: Target): RequestHeader {
    const deadlineMonoMs = this.#cluster.machine(store).clock.monoMs() + TIMEOUT_MS;
    return { regionId: region.id, epoch: region.epoch, peerId: peer.id, term: 0, deadlineMonoMs };
  }

  #write(target: Target, key: string, value: string): Promise<WriteOutcome> {
    const machine = this.#cluster.machine(target.store);
    return new Promise((resolve) => {
      machine.clock.deliver(() => {
        machine.store?.write({
          header: this.#header(target),
          ops: [{ type: 'put', key: utf8(key), value: utf8(value), expireAtSeconds: 0 }],
          respond: this.#once(target.store, resolve),
        });
      }, 'client');
    });
  }

  #read(target: Target, key: string): Promise<{ readonly value: string | undefined } | { readonly error: string }> {
    const machine = this.#cluster.machine(target.store);
    const { engine } = machine;
    return new Promise((resolve) => {
      const respond = this.#once(target.store, (outcome: ReadOutcome): void => {
        if (outcome.type === 'refused' || engine === undefined) {
          resolve({ error: outcome.type === 'refused' ? outcome.error.type : 'down' });
          return;
        }
        engine.get(dataKey(utf8(key))).then(
          (stored) => {
            const found = stored === undefined ? undefined : decodeDataValue(stored);
            resolve({ value: found === undefined ? undefined : fromUtf8(found.value) });
          },
          () => resolve({ error: 'read failed' }),
        );
      });
      machine.clock.deliver(() => {
        machine.store?.read({
          header: this.#header(target),
          keys: [utf8(key)],
          replicaRead: !target.isLeader,
          isPointRead: true,
          respond,
        });
      }, 'client');
    });
  }

  /** Every request is answered exactly once, unless its process dies. */
  #once<T>(store: number, respond: (outcome: T) => void): (outcome: T) => void {
    const request = { store, incarnation: this.#cluster.machine(store).incarnation };
    this.#open.add(request);
    return (outcome) => {
      if (!this.#open.delete(request)) {
        throw new Error(`I28: store ${store} answered a request twice`);
      }
      respond(outcome);
    };
  }
}
