/**
 * Clients of registers beside a scenario. Each key has one writer that counts upwards, so a register is linearizable exactly when no
 * read shows less than was acknowledged or shown before it began, or more than was attempted. Readers ask leaders and
 * followers in turn, with whatever idea of the regions they can find.
 */
import { assert } from '../../../src/base/assert.ts';
import { utf8 } from '../../../src/base/bytes.ts';
import { storeId } from '../../../src/base/ids.ts';
import { rangeContains } from '../../../src/base/key-range.ts';
import type { Rng } from '../../../src/env/rng.ts';
import { findPeerOnStore } from '../../../src/meta/region.ts';
import type { StoreCluster } from '../../sim/store-cluster.ts';

interface Register {
  attempted: number;
  acknowledged: number;
  /** Highest value a finished read has shown. */
  shown: number;
}

/** Longer than any request may take: afterwards it cannot take effect any more. */
const ANSWER_MS = 12_000;

export class RegisterClients {
  readonly #cluster: StoreCluster;
  readonly #rng: Rng;
  readonly #registers: Map<string, Register> = new Map();
  readonly #running: Promise<void>[] = [];
  #isStopped = false;
  writes = 0;
  reads = 0;
  replicaReads = 0;

  constructor(cluster: StoreCluster, rng: Rng, keys: readonly string[]) {
    this.#cluster = cluster;
    this.#rng = rng;
    for (const key of keys) {
      this.#registers.set(key, { attempted: 0, acknowledged: 0, shown: 0 });
      this.#running.push(this.#write(key), this.#read(key, false), this.#read(key, true));
    }
    for (const client of this.#running) {
      // A client that found something wrong says so when the scenario ends.
      client.catch(() => {});
    }
  }

  acknowledged(key: string): number {
    return this.#register(key).acknowledged;
  }

  #register(key: string): Register {
    const register = this.#registers.get(key);
    assert(register !== undefined, 'no such key', { key });
    return register;
  }

  /** Lets the clients finish and checks that nothing acknowledged is missing. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#cluster.run(Promise.all(this.#running));
    for (const [key, { acknowledged, attempted }] of this.#registers) {
      const found = Number((await this.#cluster.mustGet(key)) ?? 0);
      assert(found >= acknowledged && found <= attempted, 'an acknowledged write is lost', {
        key,
        found,
        acknowledged,
        attempted,
      });
    }
  }

  async #write(key: string): Promise<void> {
    const register = this.#register(key);
    while (!this.#isStopped) {
      const value = ++register.attempted;
      const outcome = await Promise.race([
        this.#cluster.writeOnce([{ type: 'put', key: utf8(key), value: utf8(String(value)), expireAtSeconds: 0 }], key),
        this.#cluster.sleep(ANSWER_MS).then(() => ({ type: 'silence' }) as const),
      ]);
      if (outcome.type === 'ok') {
        register.acknowledged = value;
        this.writes++;
      }
      await this.#cluster.sleep(5 + this.#rng.float() * 20);
    }
  }

  async #read(key: string, isReplica: boolean): Promise<void> {
    const register = this.#register(key);
    while (!this.#isStopped) {
      const floor = Math.max(register.acknowledged, register.shown);
      const answer = await Promise.race([
        isReplica ? this.#readReplica(key) : this.#cluster.readOnce(key),
        this.#cluster.sleep(ANSWER_MS).then(() => ({ error: 'silence' }) as const),
      ]);
      if (!('error' in answer)) {
        const value = Number(answer.value ?? 0);
        assert(value >= floor && value <= register.attempted, 'a read is not linearizable', {
          key,
          isReplica,
          value,
          floor,
          attempted: register.attempted,
        });
        register.shown = Math.max(register.shown, value);
        if (isReplica) {
          this.replicaReads++;
        } else {
          this.reads++;
        }
      }
      await this.#cluster.sleep(3 + this.#rng.float() * 15);
    }
  }

  /** Asks any replica of any region that some store believes to own the key, leader or not. */
  #readReplica(key: string): ReturnType<StoreCluster['readOnce']> {
    const options: (() => ReturnType<StoreCluster['readOnce']>)[] = [];
    for (const { id, store } of this.#cluster.machines.values()) {
      for (const { region } of store?.status() ?? []) {
        const peer = findPeerOnStore(region, storeId(id));
        if (peer !== undefined && rangeContains(region.range, utf8(key))) {
          const isFollowerRead = this.#rng.chance(0.6);
          options.push(() => this.#cluster.readAt(id, region, peer.id, key, isFollowerRead));
        }
      }
    }
    return options.length === 0 ? Promise.resolve({ error: 'no-leader' }) : this.#rng.pick(options)();
  }
}
