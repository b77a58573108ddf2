/** A placement service of one member on a simulated disk and clock, which can be killed and started again. */
import { expect } from 'vitest';
import { createMemoryEngineFactory } from '../../../src/engine/memory/memory-engine.ts';
import { MemoryDisk } from '../../../src/engine/memory/crash-model.ts';
import type { Env } from '../../../src/env/env.ts';
import { NO_FAILPOINTS } from '../../../src/env/failpoints.ts';
import { SILENT_LOGGER } from '../../../src/env/log.ts';
import type { Net } from '../../../src/env/net.ts';
import { createRng } from '../../../src/env/rng.ts';
import type { Store } from '../../../src/meta/region.ts';
import { DEFAULT_ALLOCATION_CONFIG, DEFAULT_PLACEMENT_CONFIG, type PlacementConfig } from '../../../src/pd/defaults.ts';
import type { PdMember } from '../../../src/pd/pd-member.ts';
import type { PdNode } from '../../../src/pd/pd-node.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { openPdNode } from '../../support/pd-node.ts';
import { S, makeRegion } from './world.ts';

const NO_NET: Net = {
  dial: () => {
    throw new Error('the node must not use the network');
  },
  listen: () => Promise.reject(new Error('the node must not use the network')),
};

export const store = (id: number, address = `127.0.0.1:${id}`): Store => ({
  id: S(id),
  address,
  statusAddress: '',
  state: 'up',
  labels: [],
  version: '1',
  startTimestamp: 1,
});

/** A machine with a disk; the node on it can be killed and started again. */
export class Machine {
  clock: ManualClock = new ManualClock();
  readonly disk: MemoryDisk = new MemoryDisk(createRng(3));
  readonly aborts: string[] = [];
  member: PdMember | undefined;

  async start(
    options: { readonly clusterId?: bigint; readonly config?: Partial<PlacementConfig> } = {},
  ): Promise<PdNode> {
    const engines = createMemoryEngineFactory(this.disk, this.clock);
    const env: Env = {
      clock: this.clock,
      rng: createRng(11),
      net: NO_NET,
      engines,
      failpoints: NO_FAILPOINTS,
      log: SILENT_LOGGER,
      // A real process is gone after this call; here the caller goes on and sees the fault itself.
      abort: (kind) => {
        this.aborts.push(kind);
        return undefined as never;
      },
    };
    const engine = await this.clock.settle(engines.open({ path: 'pd', createIfMissing: true }));
    const { node, member } = await this.clock.settle(
      openPdNode(env, engine, {
        placement: { ...DEFAULT_PLACEMENT_CONFIG, ...options.config },
        allocation: DEFAULT_ALLOCATION_CONFIG,
        ...(options.clusterId === undefined ? {} : { clusterId: options.clusterId }),
      }),
    );
    this.member = member;
    return node;
  }

  /** Power loss: the old process and its timers are gone. */
  crash(): void {
    this.disk.crash('power-loss');
    this.clock = new ManualClock();
  }

  async bootstrapped(config: Partial<PlacementConfig> = {}): Promise<PdNode> {
    const node = await this.start({ config });
    expect(await this.clock.settle(node.bootstrap(store(1), makeRegion({ id: 2, on: ['1'] })))).toBeUndefined();
    return node;
  }

  settle<T>(promise: Promise<T>): Promise<T> {
    return this.clock.settle(promise);
  }

  async close(): Promise<void> {
    await this.clock.settle(this.member?.close() ?? Promise.resolve());
  }
}
