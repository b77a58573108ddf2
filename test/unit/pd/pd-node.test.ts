import { describe, expect, test } from 'vitest';
import { EngineOpenError } from '../../../src/env/engine.ts';
import { sleep } from '../../../src/env/clock.ts';
import type { RegionHeartbeat } from '../../../src/meta/heartbeat.ts';
import type { Peer, Region } from '../../../src/meta/region.ts';
import { utf8 } from '../../../src/base/bytes.ts';
import { term } from '../../../src/base/ids.ts';
import { DEFAULT_PLACEMENT_CONFIG } from '../../../src/pd/defaults.ts';
import type { PdNode } from '../../../src/pd/pd-node.ts';
import type { SchedulerChange } from '../../../src/pd/schedule/scheduler-plan.ts';
import type { SwitchName } from '../../../src/pd/schedule/switches.ts';
import { type PlacementRule, defaultRule } from '../../../src/pd/schedule/placement/rule.ts';
import type { Result } from '../../../src/pd/schedule/verdict.ts';
import { LOGICAL_MAX, composeTimestamp } from '../../../src/pd/tso/timestamp-oracle.ts';
import { Machine, store } from './machine.ts';
import { R, S, accepted, key, makeRegion, refusedWith } from './world.ts';

const valueOf = <T>(result: Result<T>): T => {
  if (result.type === 'refused') {
    throw new Error(result.refusal.message);
  }
  return result.value;
};

const report = (region: Region, over: Partial<RegionHeartbeat> = {}): RegionHeartbeat => ({
  region,
  leader: region.peers[0] as Peer,
  term: term(6),
  downPeers: [],
  pendingPeers: [],
  approximateSizeBytes: 10,
  approximateKeys: 1,
  bytesWritten: 0,
  keysWritten: 0,
  bytesRead: 0,
  keysRead: 0,
  merging: false,
  intervalStartSeconds: 0,
  intervalEndSeconds: 1,
  ...over,
});

describe('cluster identity', () => {
  test('the id is made once, is below 2^53 and survives', async () => {
    const machine = new Machine();
    const { clusterId } = await machine.start();
    expect(clusterId > 0n && clusterId < 2n ** 53n).toBe(true);
    machine.crash();
    expect((await machine.start()).clusterId).toBe(clusterId);
  });

  test('a data directory of another cluster is refused with a hint', async () => {
    const machine = new Machine();
    await machine.start({ clusterId: 5n });
    machine.crash();
    const refused = machine.start({ clusterId: 6n });
    await expect(refused).rejects.toThrow(EngineOpenError);
    await expect(refused).rejects.toMatchObject({
      code: 'EngineOpen',
      hint: expect.stringContaining('data directory'),
    });
  });
});

describe('ids and timestamps across crashes', () => {
  test('no id is ever given twice', async () => {
    const machine = new Machine();
    let highest = 0;
    for (let life = 0; life < 4; life++) {
      const node = await machine.start();
      for (const count of [1, 3, 2_500, 1]) {
        const first = valueOf(await machine.settle(node.allocIds(count)));
        expect(first).toBeGreaterThan(highest);
        highest = first + count - 1;
      }
      machine.crash();
    }
  });

  test('concurrent requests get disjoint ids', async () => {
    const machine = new Machine();
    const node = await machine.start();
    const firsts = await machine.settle(Promise.all(Array.from({ length: 40 }, () => node.allocIds(100))));
    const starts = firsts.map(valueOf).sort((a, b) => a - b);
    for (const [i, start] of starts.entries()) {
      expect(i === 0 || start >= (starts[i - 1] as number) + 100).toBe(true);
    }
  });

  test('timestamps only grow, even if the clock of the next life starts earlier', async () => {
    const machine = new Machine();
    let last = 0n;
    for (let life = 0; life < 4; life++) {
      const node = await machine.start();
      for (const count of [1, 1_000, LOGICAL_MAX, LOGICAL_MAX]) {
        const end = composeTimestamp(await machine.settle(node.timestamps(count)));
        expect(end - BigInt(count) + 1n > last).toBe(true);
        last = end;
      }
      machine.crash();
    }
  });

  test('timestamps follow the wall clock', async () => {
    const machine = new Machine();
    const node = await machine.start();
    for (let i = 0; i < 300; i++) {
      await machine.clock.step();
    }
    const { physical } = await machine.settle(node.timestamps(1));
    expect(machine.clock.wallMs() - physical).toBeLessThanOrEqual(60);
  });
});

describe('bootstrap and stores', () => {
  test('the second bootstrap is refused, before and after a crash', async () => {
    const machine = new Machine();
    const node = await machine.bootstrapped();
    const again = (n: PdNode) => machine.settle(n.bootstrap(store(9), makeRegion({ id: 10, on: ['9'] })));
    expect((await again(node))?.code).toBe('AlreadyBootstrapped');
    expect(node.firstRegion?.id).toBe(2);
    machine.crash();
    const reborn = await machine.start();
    expect(reborn.isBootstrapped).toBe(true);
    expect((await again(reborn))?.code).toBe('AlreadyBootstrapped');
    expect(reborn.placement.cluster.tree.find(key('x'))?.region.id).toBe(2);
  });

  test('a store may repeat its own bootstrap, before and after a crash', async () => {
    const machine = new Machine();
    const node = await machine.bootstrapped();
    const repeat = (n: PdNode) => machine.settle(n.bootstrap(store(1), makeRegion({ id: 2, on: ['1'] })));
    expect(await repeat(node)).toBeUndefined();
    node.onRegionHeartbeat(report(makeRegion({ id: 2, start: 'm', on: ['1'], version: 2 })));
    machine.crash();
    expect(await repeat(await machine.start())).toBeUndefined();
  });

  test('of two bootstraps at once exactly one wins', async () => {
    const machine = new Machine();
    const node = await machine.start();
    const results = await machine.settle(
      Promise.all([1, 5].map((id) => node.bootstrap(store(id), makeRegion({ id: id + 1, on: [String(id)] })))),
    );
    expect(results.map((refusal) => refusal?.code)).toEqual([undefined, 'AlreadyBootstrapped']);
    expect(node.placement.cluster.stores().map((info) => info.record.store.id)).toEqual([1]);
  });

  test('an address belongs to one living store, even when two ask at once', async () => {
    const machine = new Machine();
    const node = await machine.bootstrapped();
    const results = await machine.settle(
      Promise.all([
        node.putStore(store(2, 'same:1')),
        node.putStore(store(3, 'same:1')),
        node.putStore(store(2, 'same:1')),
      ]),
    );
    expect(results.map((refusal) => refusal?.code)).toEqual([undefined, 'DuplicateAddress', undefined]);
  });

  test('a store whose start was counted already has an old disk and may not join, even after a restart', async () => {
    const machine = new Machine();
    const node = await machine.bootstrapped();
    const at = (startTimestamp: number) => ({ ...store(2), startTimestamp });
    const put = async (from: typeof node, starts: number | undefined, startTimestamp: number) =>
      (await machine.settle(from.putStore(at(startTimestamp), starts)))?.code;
    expect(await put(node, 1, 100)).toBeUndefined();
    expect(await put(node, 4, 200)).toBeUndefined();
    // The same process repeats what may have been lost.
    expect(await put(node, 4, 200)).toBeUndefined();
    expect(await put(node, 3, 300)).toBe('StoreRolledBack');
    expect(await put(node, 4, 300)).toBe('StoreRolledBack');
    // Stores of other programs do not count; what is known stays.
    expect(await put(node, undefined, 250)).toBeUndefined();
    expect(await put(node, 2, 300)).toBe('StoreRolledBack');
    machine.crash();
    const again = await machine.start();
    expect(await put(again, 2, 300)).toBe('StoreRolledBack');
    expect(await put(again, 5, 400)).toBeUndefined();
  });

  test('stores may not join before the bootstrap', async () => {
    const machine = new Machine();
    const node = await machine.start();
    expect((await machine.settle(node.putStore(store(2))))?.code).toBe('NotBootstrapped');
  });

  test('announcing itself again changes the address and keeps the state of a store', async () => {
    const machine = new Machine();
    const node = await machine.bootstrapped({ maxReplicas: 1 });
    await machine.settle(node.putStore(store(2)));
    const options = { physicallyDestroyed: false, dryRun: false, actor: 'test' };
    expect(await machine.settle(node.setStoreState(S(2), 'removing', options))).toBeUndefined();
    await machine.settle(node.putStore({ ...store(2, 'moved:2'), labels: [{ key: 'host', value: 'b' }] }));
    expect(node.placement.cluster.store(S(2))?.record.store).toMatchObject({
      state: 'offline',
      address: 'moved:2',
      labels: [{ value: 'b' }],
    });
    machine.crash();
    const reborn = await machine.start();
    expect(reborn.placement.cluster.store(S(2))?.record.store).toMatchObject({ state: 'offline', address: 'moved:2' });
  });

  test('an empty store that is being removed is removed, and cannot come back', async () => {
    const machine = new Machine();
    const node = await machine.bootstrapped({ maxReplicas: 1, warmupMaxMs: 0, storeCheckMs: 100 });
    await machine.settle(node.putStore(store(2)));
    const options = { physicallyDestroyed: false, dryRun: false, actor: 'test' };
    await machine.settle(node.setStoreState(S(2), 'removing', options));
    while (node.placement.cluster.store(S(2))?.record.store.state !== 'tombstone') {
      expect(machine.clock.monoMs()).toBeLessThan(5_000);
      await machine.clock.step();
    }
    expect((await machine.settle(node.putStore(store(2))))?.code).toBe('StoreRemoved');
    expect(node.placement.onStoreHeartbeat({ storeId: S(2) } as never)?.code).toBe('StoreRemoved');
  });

  test('a store is not emptied when too few stores would be left', async () => {
    const machine = new Machine();
    const node = await machine.bootstrapped();
    const options = { physicallyDestroyed: false, dryRun: false, actor: 'test' };
    expect((await machine.settle(node.setStoreState(S(1), 'removing', options)))?.code).toBe('TooFewStores');
    expect((await machine.settle(node.setStoreState(S(1), 'removed', options)))?.code).toBe('StoreNotDown');
    expect(node.placement.cluster.store(S(1))?.record.store.state).toBe('up');
  });
});

describe('the region map', () => {
  test('is rebuilt from disk after a crash, without leaders', async () => {
    const machine = new Machine();
    const node = await machine.bootstrapped();
    node.onRegionHeartbeat(report(makeRegion({ id: 3, start: '', end: 'm', on: ['1'], version: 2 })));
    node.onRegionHeartbeat(report(makeRegion({ id: 2, start: 'm', end: '', on: ['1'], version: 2 })));
    await machine.settle(node.putStore(store(2)));
    await machine.settle(node.putStore(store(3)));
    machine.crash();
    const reborn = await machine.start();
    const { tree } = reborn.placement.cluster;
    expect([...tree.values()].map((info) => [info.region.id, info.leader])).toEqual([
      [3, undefined],
      [2, undefined],
    ]);
    expect([tree.reportedCount, reborn.placement.coordinator.warmup().done]).toEqual([0, false]);
  });

  test('a region that was merged away does not come back from disk', async () => {
    const machine = new Machine();
    const node = await machine.bootstrapped();
    node.onRegionHeartbeat(report(makeRegion({ id: 3, start: '', end: 'm', on: ['1'], version: 2 })));
    node.onRegionHeartbeat(report(makeRegion({ id: 2, start: 'm', end: '', on: ['1'], version: 2 })));
    await machine.settle(node.putStore(store(2)));
    node.onRegionHeartbeat(report(makeRegion({ id: 2, on: ['1'], version: 3 })));
    await machine.close();
    const reborn = await machine.start();
    expect([...reborn.placement.cluster.tree.values()].map((info) => info.region.id)).toEqual([2]);
  });

  test('a split report closes the hole of a child that has no leader yet, and keeps the leader of the parent', async () => {
    const machine = new Machine();
    const node = await machine.bootstrapped();
    const parent = makeRegion({ id: 2, on: ['1'] });
    node.onRegionHeartbeat(report(parent));
    const left = makeRegion({ id: 5, start: '', end: 'm', on: ['1'], version: 2 });
    const right = { ...parent, range: { start: key('m'), end: key('') }, epoch: { confVer: 1, version: 2 } };
    node.onSplitReport([left, right]);
    const { tree } = node.placement.cluster;
    expect(tree.holes(9)).toEqual([]);
    expect([tree.find(key('a'))?.region.id, tree.find(key('z'))?.leader?.id]).toEqual([5, 201]);
    // Older news changes nothing, and the leaders' reports are taken.
    node.onSplitReport([parent]);
    expect(node.onRegionHeartbeat(report(left)).type).toBe('accepted');
    expect(tree.find(key('a'))?.leader?.storeId).toBe(1);
  });

  test('ids for a split are given only for the current epoch and not during a merge', async () => {
    const machine = new Machine();
    const node = await machine.bootstrapped();
    const region = makeRegion({ id: 2, start: 'm', on: ['1', '2', '3'], version: 4 });
    node.onRegionHeartbeat(report(region));
    const ids = valueOf(await machine.settle(node.askBatchSplit(region, 2)));
    expect(ids.map((split) => split.newPeerIds.length)).toEqual([3, 3]);
    const all = ids.flatMap((split) => [split.newRegionId as number, ...split.newPeerIds]);
    expect(new Set(all).size).toBe(8);
    const stale = { ...region, epoch: { confVer: 1, version: 3 } };
    expect(await machine.settle(node.askBatchSplit(stale, 1))).toMatchObject({ refusal: { code: 'EpochChanged' } });
    expect(await machine.settle(node.askBatchSplit({ ...region, id: R(99) }, 1))).toMatchObject({
      refusal: { code: 'RegionNotFound' },
    });
    expect(await machine.settle(node.askBatchSplit(region, 0))).toMatchObject({ refusal: { code: 'InvalidArgument' } });
  });
});

describe('operators', () => {
  test('commands reach the bound stream, are lost without one and sent again', async () => {
    const machine = new Machine();
    const node = await machine.bootstrapped();
    for (const id of [2, 3]) {
      await machine.settle(node.putStore(store(id)));
    }
    node.onRegionHeartbeat(report(makeRegion({ id: 2, on: ['1', '2', '3'], version: 2 })));
    const operator = accepted(node.act((placement) => placement.transferLeader(R(2), S(2))));
    const got: number[] = [];
    const unbind = node.bindStore(S(1), (reply) => {
      got.push(reply.regionId);
      return true;
    });
    while (got.length === 0) {
      expect(machine.clock.monoMs()).toBeLessThan(10_000);
      await machine.clock.step();
    }
    unbind();
    expect([got, operator.status]).toEqual([[2], 'started']);
  });

  test('waiting for an operator ends when it ends, or when the time is over', async () => {
    const machine = new Machine();
    const node = await machine.bootstrapped();
    for (const id of [2, 3]) {
      await machine.settle(node.putStore(store(id)));
    }
    const region = makeRegion({ id: 2, on: ['1', '2', '3'], version: 2 });
    node.onRegionHeartbeat(report(region));
    const operator = accepted(node.act((placement) => placement.transferLeader(R(2), S(2))));
    const start = machine.clock.monoMs();
    await machine.settle(node.waitForOperator(operator, 700));
    expect([operator.hasEnded, machine.clock.monoMs() - start]).toEqual([false, 700]);
    const waiting = node.waitForOperator(operator, 60_000);
    node.onRegionHeartbeat(report(region, { leader: region.peers[1] as Peer, term: term(7) }));
    await machine.settle(waiting);
    expect(operator.status).toBe('success');
    expect(machine.clock.monoMs() - start).toBeLessThan(2_000);
  });

  test('switches and settings survive a crash', async () => {
    const machine = new Machine();
    const node = await machine.bootstrapped();
    await machine.settle(node.setSwitch('merge-checker', true, 'test'));
    await machine.settle(node.setSwitch('balance-leader', false, 'test'));
    expect(await machine.settle(node.setMaxReplicas(5))).toBeUndefined();
    expect((await machine.settle(node.setMaxReplicas(0)))?.code).toBe('InvalidArgument');
    machine.crash();
    const reborn = await machine.start();
    expect([reborn.placement.switches.isOn('merge-checker'), reborn.placement.switches.isOn('balance-leader')]).toEqual(
      [true, false],
    );
    expect(reborn.placement.cluster.config.maxReplicas).toBe(5);
  });
});

describe('checkers and schedulers', () => {
  const HOW = { actor: 'me', reason: 'a test', dryRun: false, expectVersion: undefined };

  test('keep over a crash what was set, added and removed; a dry run and a refusal leave nothing', async () => {
    const machine = new Machine();
    const node = await machine.bootstrapped();
    const change = (name: SwitchName, what: SchedulerChange, how = HOW) =>
      machine.settle(node.schedulers.change(name, what, how));
    const set = (value: number): SchedulerChange => ({ type: 'configure', set: [{ name: 'limit', value }], reset: [] });
    expect(await change('merge-checker', set(2), { ...HOW, dryRun: true })).toMatchObject({
      value: { record: { version: 1 } },
    });
    expect(refusedWith(await change('merge-checker', set(-2)))).toBe('OutOfRange');
    expect(node.placement.cluster.config.mergeScheduleLimit).toBe(8);
    const both = await Promise.all([change('merge-checker', set(2)), change('merge-checker', set(4))]);
    expect(both).toMatchObject([{ value: { record: { version: 1 } } }, { value: { record: { version: 2 } } }]);
    await change('grant-leader', { type: 'add', storeId: S(1) });
    await change('balance-region', { type: 'remove', storeId: undefined });
    expect(node.placement.cluster.config.mergeScheduleLimit).toBe(4);
    expect(node.placement.events.after(0, 100).filter(({ type }) => type === 'scheduler-changed')).toMatchObject([
      { message: 'merge-checker was configured: limit=2', actor: 'me', reason: 'a test' },
      { message: 'merge-checker was configured: limit=4' },
      { message: 'grant-leader was added for store 1' },
      { message: 'balance-region was removed' },
    ]);
    machine.crash();
    const { cluster } = (await machine.start()).placement;
    expect(cluster.config.mergeScheduleLimit).toBe(4);
    expect(cluster.schedulers.record('grant-leader')).toMatchObject({ presence: 'added', stores: [1] });
    expect(cluster.schedulers.isPresent('balance-region')).toBe(false);
  });
});

describe('placement rules', () => {
  const ssd: PlacementRule = {
    ...defaultRule(1),
    id: 'ssd',
    index: 1,
    override: true,
    range: { start: utf8('g'), end: utf8('p') },
  };
  const change = (machine: Machine, node: PdNode, rule: PlacementRule, dryRun = false, expect?: number) =>
    machine.settle(
      node.changeRules((placement, version) => placement.planSetRule(version, rule, expect), {
        dryRun,
        actor: 'test',
        note: 'why',
      }),
    );

  test('survive a crash; a dry run and a refusal leave nothing', async () => {
    const machine = new Machine();
    const node = await machine.bootstrapped();
    expect(await change(machine, node, ssd, true)).toMatchObject({ value: { outcome: 'created' } });
    expect(refusedWith(await change(machine, node, { ...ssd, count: 0 }))).toBe('InvalidRule');
    expect(node.placement.cluster.rules.rules).toEqual([]);
    expect(await change(machine, node, ssd)).toMatchObject({ value: { outcome: 'created', rule: { version: 1 } } });
    expect(refusedWith(await change(machine, node, { ...ssd, count: 2 }, false, 0))).toBe('Conflict');
    expect(await change(machine, node, { ...ssd, count: 2 }, false, 1)).toMatchObject({
      value: { outcome: 'changed' },
    });
    expect(node.placement.events.after(0, 100).filter(({ type }) => type === 'rule-changed')).toMatchObject([
      { message: 'placement rule default/ssd was created', reason: 'why', actor: 'test' },
      { message: 'placement rule default/ssd was changed', reason: 'why' },
    ]);
    machine.crash();
    const reborn = await machine.start();
    expect(reborn.placement.cluster.rules.rules).toEqual([{ ...ssd, count: 2, version: 2 }]);
  });

  test('and Partitions do not cut each other', async () => {
    const machine = new Machine();
    const node = await machine.bootstrapped();
    const apply = (name: string, start: string, end: string) =>
      machine.settle(
        node.changeDocuments(
          () =>
            node.placement.resources.planApply([
              { kind: 'Partition', metadata: { name }, spec: { range: { start, end } } },
            ]),
          { dryRun: false },
        ),
      );
    expect((await apply('inside', 'h', 'm')).refusal).toBeUndefined();
    expect((await apply('across', 'm', 'z')).refusal).toBeUndefined();
    expect(refusedWith(await change(machine, node, ssd))).toBe('RuleBorder');
    expect(await change(machine, node, { ...ssd, range: { start: utf8('g'), end: utf8('m') } })).toMatchObject({
      type: 'ok',
    });
    expect((await apply('late', 'a', 'h')).refusal?.code).toBe('RuleBorder');
  });
});

describe('documents', () => {
  const partition = (name: string, start: string, end: string): unknown => ({
    kind: 'Partition',
    metadata: { name },
    spec: { range: { start, end } },
  });
  const apply = (machine: Machine, node: PdNode, documents: readonly unknown[], dryRun = false) =>
    machine.settle(node.changeDocuments(() => node.placement.resources.planApply(documents), { dryRun }));

  test('survive a crash with their versions, and so do pins; a dry run and a refusal leave nothing', async () => {
    const machine = new Machine();
    const node = await machine.bootstrapped();
    await apply(machine, node, [partition('p1', 'a', 'c')]);
    expect((await apply(machine, node, [partition('p2', 'c', 'e')], true)).results[0]?.outcome).toBe('created');
    expect((await apply(machine, node, [partition('p3', 'm', 'n'), partition('p4', 'b', 'd')])).refusal?.code).toBe(
      'OverlappingRange',
    );
    expect(await machine.settle(node.pinRegion(R(2), true, { actor: 'me', reason: '' }))).toEqual({
      type: 'ok',
      value: true,
    });
    expect(await machine.settle(node.pinRegion(R(2), true, { actor: 'me', reason: '' }))).toEqual({
      type: 'ok',
      value: false,
    });
    const before = [...node.placement.resources.store.all()];
    const { version } = node.placement.resources.store;
    machine.crash();
    const again = await machine.start();
    expect([...again.placement.resources.store.all()]).toEqual(before);
    expect(before.map(({ meta }) => meta.name)).toEqual(['p1']);
    expect(again.placement.resources.store.version).toBe(version);
    expect(again.placement.resources.isPinnedByHand(R(2))).toBe(true);
    // A new document is not mistaken for an old one, although this process draws the same random numbers.
    await apply(machine, again, [partition('p5', 'x', 'y')]);
    expect(new Set([...again.placement.resources.store.all()].map(({ meta }) => meta.uid)).size).toBe(2);
    await machine.close();
  });

  test('changes at the same time are planned on top of each other', async () => {
    const machine = new Machine();
    const node = await machine.bootstrapped();
    const plan = (document: unknown) =>
      node.changeDocuments(() => node.placement.resources.planApply([document]), { dryRun: false });
    const [first, second] = await machine.settle(
      Promise.all([plan(partition('p1', 'a', 'c')), plan(partition('p2', 'b', 'd'))]),
    );
    expect(first.refusal).toBeUndefined();
    expect(second.refusal?.code).toBe('OverlappingRange');
    await machine.close();
  });

  test('a watch is answered at once by a change, and by nothing when its time is over', async () => {
    const machine = new Machine();
    const node = await machine.bootstrapped();
    const { store: documents } = node.placement.resources;
    const waiting = node.waitForDocuments(documents.version, 5_000);
    await apply(machine, node, [partition('p1', 'a', 'c')]);
    expect((await machine.settle(waiting))?.[0]?.resource.meta.name).toBe('p1');
    await machine.settle(
      node.changeDocuments(() => node.placement.resources.planDelete('Partition', 'p1', 0), { dryRun: false }),
    );
    // Nothing is left that could change.
    expect(await machine.settle(node.waitForDocuments(documents.version, 1_000))).toEqual([]);
    expect(await machine.settle(node.waitForDocuments(documents.version + 1, 1_000))).toBeUndefined();
    await machine.close();
  });

  test('a pinned region gets no ids for a split by size, but for one that was asked for', async () => {
    const machine = new Machine();
    const node = await machine.bootstrapped();
    const region = makeRegion({ id: 2, on: ['1'] });
    node.onRegionHeartbeat(report(region));
    await machine.settle(node.pinRegion(R(2), true, { actor: 'me', reason: '' }));
    expect(await machine.settle(node.askBatchSplit(region, 1))).toMatchObject({ refusal: { code: 'RegionPinned' } });
    expect(await machine.settle(node.askBatchSplit(region, 1))).toMatchObject({ refusal: { code: 'RegionPinned' } });
    const noted = node.placement.events.after(0, 100).filter(({ type }) => type === 'step-refused');
    expect(noted).toHaveLength(1);
    expect(node.act((placement) => placement.splitRegion(R(2), [key('m')])).type).toBe('ok');
    expect((await machine.settle(node.askBatchSplit(region, 1))).type).toBe('ok');
    await machine.close();
  });
});

describe('pauses', () => {
  const reportOf = (node: PdNode): Region => {
    const region = makeRegion({ id: 2, on: ['1'] });
    node.onRegionHeartbeat(report(region));
    return region;
  };
  const refusalOfSplit = (node: PdNode): string => {
    const result = node.act((placement) => placement.splitRegion(R(2), [key('m')], { dryRun: true }));
    return result.type === 'refused' ? result.refusal.code : 'ok';
  };

  test('of regions and switches survive a crash, with their ends; ids for splits are refused meanwhile', async () => {
    const machine = new Machine();
    const node = await machine.bootstrapped();
    const region = reportOf(node);
    const options = { reason: 'disk check', forMs: 60_000, actor: 'me' };
    expect((await machine.settle(node.pauses.pause(R(2), options))).type).toBe('ok');
    expect(await machine.settle(node.setSwitch('balance-leader', false, 'me', { offMs: 60_000 }))).toBeUndefined();
    expect(await machine.settle(node.setSwitch('balance-region', false, 'me'))).toBeUndefined();
    expect(refusalOfSplit(node)).toBe('RegionPaused');
    expect(await machine.settle(node.askBatchSplit(region, 1))).toMatchObject({ refusal: { code: 'RegionPaused' } });
    const wallMs = machine.clock.wallMs();
    machine.crash();
    const again = await machine.start();
    reportOf(again);
    expect(refusalOfSplit(again)).toBe('RegionPaused');
    const info = again.placement.cluster.tree.get(R(2));
    expect(info === undefined ? undefined : again.placement.resources.pauses.on(info)).toMatchObject({
      reason: 'disk check',
      actor: 'me',
      regionId: 2,
    });
    const { switches } = again.placement;
    expect([switches.isOn('balance-leader'), switches.isOn('balance-region')]).toEqual([false, false]);
    expect(switches.offUntilWallMs('balance-leader')).toBeGreaterThanOrEqual(wallMs);
    await machine.settle(sleep(machine.clock, 59_000, 'test'));
    expect(refusalOfSplit(again)).toBe('RegionPaused');
    await machine.settle(sleep(machine.clock, 2_000, 'test'));
    expect(refusalOfSplit(again)).toBe('ok');
    expect([switches.isOn('balance-leader'), switches.isOn('balance-region')]).toEqual([true, false]);
    // What is over is forgotten for good.
    await machine.settle(sleep(machine.clock, 2 * DEFAULT_PLACEMENT_CONFIG.storeCheckMs, 'test'));
    const messages = again.placement.events.after(0, 100).map(({ message }) => message);
    expect(messages).toContain('the pause of region 2 is over');
    machine.crash();
    const third = await machine.start();
    expect(third.placement.resources.pauses.over()).toEqual([]);
    await machine.close();
  });

  test('end when somebody says so, and are refused for unknown regions', async () => {
    const machine = new Machine();
    const node = await machine.bootstrapped();
    reportOf(node);
    const options = { reason: '', forMs: 0, actor: 'me' };
    expect(await machine.settle(node.pauses.pause(R(9), options))).toMatchObject({
      refusal: { code: 'RegionNotFound' },
    });
    expect(await machine.settle(node.pauses.resume(R(9), { actor: 'me' }))).toMatchObject({
      refusal: { code: 'RegionNotFound' },
    });
    expect(await machine.settle(node.pauses.resume(R(2), { actor: 'me' }))).toEqual({ type: 'ok', value: false });
    await machine.settle(node.pauses.pause(R(2), options));
    expect(await machine.settle(node.pauses.resume(R(2), { actor: 'me' }))).toEqual({ type: 'ok', value: true });
    expect(refusalOfSplit(node)).toBe('ok');
    machine.crash();
    const again = await machine.start();
    reportOf(again);
    expect(refusalOfSplit(again)).toBe('ok');
    await machine.close();
  });

  test('of switches have a length only when they go off', async () => {
    const machine = new Machine();
    const node = await machine.bootstrapped();
    const set = (enabled: boolean, offMs: number): Promise<{ readonly code: string } | undefined> =>
      machine.settle(node.setSwitch('balance-leader', enabled, 'me', { offMs }));
    expect((await set(true, 5))?.code).toBe('InvalidArgument');
    expect((await set(false, -1))?.code).toBe('InvalidArgument');
    expect(node.placement.switches.isOn('balance-leader')).toBe(true);
    await machine.close();
  });
});

describe('faults', () => {
  test('a storage fault stops the process', async () => {
    const machine = new Machine();
    const node = await machine.bootstrapped();
    machine.disk.failNextWrite('write-error');
    await expect(machine.settle(node.putStore(store(2)))).rejects.toThrow();
    expect(machine.aborts).toEqual(['storage']);
    expect(node.placement.cluster.store(S(2))).toBeUndefined();
  });

  test('after closing, no timer is left', async () => {
    const machine = new Machine();
    await machine.bootstrapped();
    await machine.close();
    await machine.clock.runAll();
    expect(machine.clock.pendingCount).toBe(0);
  });

  test('safe points only grow and follow the slowest live service', async () => {
    const machine = new Machine();
    const node = await machine.bootstrapped();
    expect(await machine.settle(node.advanceGcSafePoint(10n))).toBe(10n);
    expect(await machine.settle(node.advanceGcSafePoint(4n))).toBe(10n);
    await machine.settle(node.updateServiceSafePoint('slow', 100, 20n));
    expect(await machine.settle(node.updateServiceSafePoint('fast', 100, 30n))).toMatchObject({
      serviceId: 'slow',
      safePoint: 20n,
    });
    expect(await machine.settle(node.updateServiceSafePoint('slow', 0, 0n))).toMatchObject({
      serviceId: 'fast',
      safePoint: 30n,
    });
  });
});
