/** Documents come true: every phase in its order, whatever is in the way, and the same after a restart at any point. */
import { describe, expect, test } from 'vitest';
import { fromUtf8, utf8 } from '../../../src/base/bytes.ts';
import { type RegionId, regionId, storeId } from '../../../src/base/ids.ts';
import { isServed } from '../../../src/pd/resource/resource.ts';
import { DocumentWorld } from './document-world.ts';

const partition = (name: string, start: string, end: string, primary = 'pod1'): unknown => ({
  kind: 'Partition',
  metadata: { name },
  spec: { range: { start, end }, primary },
});

const assigned = (name: string, start: string, end: string, pods: readonly (readonly [string, string])[]): unknown => ({
  metadata: { name },
  spec: { range: { start, end }, assignedPods: pods.map(([pod, type]) => ({ name: pod, type })) },
});

const merge = (name: string, partitions: readonly string[], more: object = {}): unknown => ({
  kind: 'Assignment',
  metadata: { name },
  spec: { type: 'InWorkerMerge', mergeParams: { partitions, ...more } },
});

const assignment = (name: string, spec: object): unknown => ({ kind: 'Assignment', metadata: { name }, spec });

function threePods(): DocumentWorld {
  const made = new DocumentWorld(['pod1', 'pod2', 'pod3']);
  made.world.region({ id: 1, on: ['2', '1', '3'] });
  return made;
}

function twoParts(made: DocumentWorld): void {
  made.apply(partition('part1', 'a', 'e'), partition('part2', 'j', 'o'));
  made.until(
    'both parts are ready',
    () => made.partition('part1').status.ready && made.partition('part2').status.ready,
  );
}

const subParts = (state: string): object => ({ part1: state, part2: state });
const MERGE_PHASES = [
  null,
  { merge: { status: 'loading', mergedPart: 'loading', subParts: subParts('primary') } },
  { merge: { status: 'following', mergedPart: 'follower', subParts: subParts('primary') } },
  { merge: { status: 'proxying', mergedPart: 'primary', subParts: subParts('proxy') } },
  { merge: { status: 'completed', mergedPart: 'primary', subParts: subParts('disconnected') } },
];

describe('a Partition', () => {
  test('gets a region of its own, led from its pod, which is then left alone', () => {
    const made = threePods();
    made.apply(partition('part1', 'a', 'e'));
    expect(made.statusesOf('part1')).toEqual([null]);
    made.until('ready', () => made.partition('part1').status.ready);
    expect(made.map()).toEqual(['[,a) 2', '[a,e) 1', '[e,) 2']);
    const info = made.world.placement.cluster.tree.find(new TextEncoder().encode('b'));
    expect(made.world.placement.resources.pinnedReason(info as NonNullable<typeof info>)?.code).toBe('RegionPinned');
    const id = info?.region.id as NonNullable<typeof info>['region']['id'];
    expect(made.world.placement.splitRegion(id, [new TextEncoder().encode('c')])).toMatchObject({
      refusal: { code: 'RegionPinned' },
    });
    for (let i = 0; i < 50; i++) {
      made.tick();
    }
    expect(made.ranges()).toEqual(['[,a)', '[a,e)', '[e,)']);
    expect(made.map()[1]).toBe('[a,e) 1');
    expect(made.statusesOf('part1')).toEqual([null, 'ready']);
  });

  test('takes in regions that divide its range', () => {
    const made = new DocumentWorld(['pod1', 'pod2', 'pod3']);
    made.world.region({ id: 1, end: 'c', on: ['2', '1', '3'] });
    made.world.region({ id: 2, start: 'c', end: 'm', on: ['3', '1', '2'] });
    made.world.region({ id: 3, start: 'm', on: ['1', '3', '2'] });
    made.apply(partition('wide', 'b', 'x', 'pod3'));
    made.until('ready', () => made.partition('wide').status.ready);
    expect(made.ranges()).toEqual(['[,b)', '[b,x)', '[x,)']);
    expect(made.map()[1]).toBe('[b,x) 3');
  });

  test('follows an edited primary, also to a pod that has no replica yet', () => {
    const made = new DocumentWorld(['pod1', 'pod2', 'pod3', 'pod4']);
    made.world.region({ id: 1, on: ['1', '2', '3'] });
    made.apply(partition('part1', 'a', 'e'));
    made.until('ready', () => made.partition('part1').status.ready);
    made.apply(partition('part1', 'a', 'e', 'pod4'));
    // Nobody who waits for it may believe what was true before.
    expect(made.partition('part1').status.ready).toBe(false);
    made.until('moved', () => made.map()[1] === '[a,e) 4');
    const region = [...made.world.regions.values()].find(({ leader }) => leader.storeId === 4)?.region;
    expect(region?.peers.filter((peer) => peer.role === 'voter')).toHaveLength(3);
  });

  test('waits while a part of its range is in no known region', () => {
    const made = new DocumentWorld(['pod1', 'pod2', 'pod3']);
    made.world.region({ id: 1, end: 'c', on: ['1', '2', '3'] });
    made.apply(partition('part1', 'a', 'e'));
    made.tick();
    expect(made.conditionsOf(made.partition('part1'))).toEqual(['WaitingForRegions']);
    made.world.region({ id: 2, start: 'c', on: ['1', '2', '3'] });
    made.until('ready', () => made.partition('part1').status.ready);
    expect(made.conditionsOf(made.partition('part1'))).toEqual([]);
  });
});

describe('InWorkerMerge', () => {
  test('goes through its phases in order, absorbs what lies between, and leaves one Partition', () => {
    const made = threePods();
    twoParts(made);
    made.apply(merge('a1', ['part1', 'part2']));
    made.until('completed', () => made.assignment('a1').status.phase === 'completed');
    expect(made.statusesOf('a1')).toEqual(MERGE_PHASES);
    expect(made.conditionsOf(made.assignment('a1'))).toEqual(['AbsorbedRanges']);
    expect(made.ranges()).toEqual(['[,a)', '[a,o)', '[o,)']);
    expect(made.map()[1]).toBe('[a,o) 1');
    expect(made.statusesOf('part1')).toEqual([null, 'ready', 'deleted']);
    expect(made.seen.filter(({ name }) => name === 'part1').map(({ spec }) => spec)).toContainEqual({
      range: { start: 'a', end: 'e' },
      proxy: 'pod1',
    });
    expect(made.partition('a1-merged').spec.pods).toEqual([{ name: 'pod1', type: 'primary' }]);
    expect(made.statusesOf('a1-merged')).toEqual([null, 'ready']);
    expect(made.store.partition('part1')).toBeUndefined();
  });

  test('keeps its proxies for the threshold, also over restarts', () => {
    const made = threePods();
    twoParts(made);
    made.apply(merge('a1', ['part1', 'part2'], { proxyThreshold: '10s', mergedName: 'superPart' }));
    made.until('proxying', () => made.assignment('a1').status.phase === 'proxying');
    const startMs = made.world.time.nowMs;
    for (let i = 0; i < 5; i++) {
      made.restart();
      made.tick();
    }
    made.until('completed', () => made.assignment('a1').status.phase === 'completed');
    const tookMs = made.world.time.nowMs - startMs;
    expect(tookMs).toBeGreaterThanOrEqual(10_000);
    // A restart counts again from what was written last.
    expect(tookMs).toBeLessThan(10_000 + 6 * 1_000);
    expect(made.partition('superPart').status.ready).toBe(true);
  });

  test('computes the same when the service is restarted after every single change', () => {
    const made = threePods();
    twoParts(made);
    made.restartsAlways = true;
    made.apply(merge('a1', ['part1', 'part2']));
    made.until('completed', () => made.assignment('a1').status.phase === 'completed', 2_000);
    expect(made.assignment('a1').status.parts).toEqual([
      ['part1', 'disconnected'],
      ['part2', 'disconnected'],
    ]);
    expect(made.ranges()).toEqual(['[,a)', '[a,o)', '[o,)']);
    expect(made.map()[1]).toBe('[a,o) 1');
  });

  test('merges a chain of parts one after the other, on the stores of the target', () => {
    const made = new DocumentWorld(['pod1', 'pod2', 'pod3', 'pod4']);
    made.world.region({ id: 1, end: 'c', on: ['1', '2', '3'] });
    made.world.region({ id: 2, start: 'c', end: 'f', on: ['4', '2', '3'], sizeBytes: 4096 });
    made.world.region({ id: 3, start: 'f', end: 'm', on: ['1', '2', '4'] });
    made.world.region({ id: 4, start: 'm', on: ['3', '2', '4'] });
    made.apply(
      partition('p1', 'a', 'c'),
      partition('p2', 'c', 'f', 'pod4'),
      partition('p3', 'g', 'k'),
      partition('p4', 'k', 'm', 'pod2'),
    );
    made.until('ready', () => ['p1', 'p2', 'p3', 'p4'].every((name) => made.partition(name).status.ready));
    made.apply(merge('chain', ['p4', 'p2', 'p1', 'p3']));
    made.until('completed', () => made.assignment('chain').status.phase === 'completed');
    const statuses = made.statusesOf('chain') as ({
      merge: { status: string; mergedPart: string; subParts: Record<string, string> };
    } | null)[];
    const phases = statuses.map((status) => status?.merge.status);
    expect(phases.filter((phase, i) => i === 0 || phase !== phases[i - 1])).toEqual([
      undefined,
      'loading',
      'following',
      'proxying',
      'completed',
    ]);
    // Until the whole range is served the status stays, while parts become proxies one by one.
    const proxies = statuses
      .filter((status) => status?.merge.status === 'following')
      .map((status) => Object.values(status?.merge.subParts ?? {}).filter((state) => state === 'proxy').length);
    expect(proxies).toEqual([0, 1, 2]);
    expect(made.map().filter((line) => line.startsWith('[a,'))).toHaveLength(1);
    expect(made.map()[1]).toMatch(/^\[a,m\)/);
    expect(Object.keys(statuses[1]?.merge.subParts ?? {})).toEqual(['p4', 'p2', 'p1', 'p3']);
  });

  test('goes back to loading when a replica falls behind before the first merge', () => {
    const made = threePods();
    twoParts(made);
    made.held.add('merge');
    made.apply(merge('a1', ['part1', 'part2']));
    made.until('following', () => made.assignment('a1').status.phase === 'following');
    const id = made.regionAt('f').region.id;
    made.cancelMerge();
    made.world.truth(id).down.add(3);
    made.world.report(id);
    made.until('loading', () => made.assignment('a1').status.phase === 'loading');
    expect(made.conditionsOf(made.assignment('a1'))).toContain('Unhealthy');
    made.world.truth(id).down.clear();
    made.world.report(id);
    made.held.clear();
    made.until('completed', () => made.assignment('a1').status.phase === 'completed', 2_000);
  });

  test('a store that is lost for good is replaced first, then the merge goes on', () => {
    const made = new DocumentWorld(['pod1', 'pod2', 'pod3', 'pod4'], { warmupMaxMs: 0 });
    made.world.region({ id: 1, on: ['1', '2', '3'] });
    twoParts(made);
    made.silent.add(3);
    for (let i = 0; i < 110; i++) {
      made.tick();
    }
    made.apply(merge('a1', ['part1', 'part2']));
    made.until('it is said', () => made.conditionsOf(made.assignment('a1')).includes('Unhealthy'));
    expect(made.assignment('a1').status.phase).toBe('loading');
    made.until('completed', () => made.assignment('a1').status.phase === 'completed', 5_000);
    expect(new Set(made.regionAt('f').region.peers.map((peer) => peer.storeId))).toEqual(new Set([1, 2, 4]));
  });

  test('stalls after ten failed operators and goes on when it is retried', () => {
    const made = threePods();
    twoParts(made);
    made.apply(merge('a1', ['part1', 'part2']));
    made.held.add('merge');
    const { controller } = made.world.placement;
    for (let i = 0; i < 10; i++) {
      const running = () =>
        controller.running().find(({ maker, isMergeSource }) => maker === 'assignment/a1' && isMergeSource);
      made.until('a merge is asked for', () => running() !== undefined, 2_000);
      controller.cancel(running() as NonNullable<ReturnType<typeof running>>, {
        code: 'Timeout',
        text: 'it took too long',
        hint: '',
      });
    }
    made.until('stalled', () => made.conditionsOf(made.assignment('a1')).includes('Stalled'));
    expect(made.assignment('a1').status.phase).toBe('following');
    made.held.clear();
    for (let i = 0; i < 400; i++) {
      made.tick();
    }
    expect(made.assignment('a1').status.phase).toBe('following');
    made.retry('a1');
    made.until('completed', () => made.assignment('a1').status.phase === 'completed');
    expect(made.conditionsOf(made.assignment('a1'))).toEqual(['AbsorbedRanges']);
  });

  test.each(['loading', 'following'] as const)('deleted while %s it leaves the parts as they were', (phase) => {
    const made = threePods();
    twoParts(made);
    made.held.add('merge').add('transfer-leader');
    made.apply(merge('a1', ['part1', 'part2']));
    if (phase === 'following') {
      made.held.delete('transfer-leader');
    }
    made.until(phase, () => made.assignment('a1').status.phase === phase);
    if (phase === 'following') {
      made.cancelMerge();
    }
    made.delete('assignment', 'a1');
    made.until('gone', () => made.store.assignment('a1') === undefined);
    made.held.clear();
    expect(made.store.partition('a1-merged')).toBeUndefined();
    expect(made.partition('part1').spec.pods).toEqual([{ name: 'pod1', type: 'primary' }]);
    made.until('quiet', () => made.world.placement.controller.running().length === 0);
    expect(made.ranges()).toEqual(['[,a)', '[a,e)', '[e,j)', '[j,o)', '[o,)']);
  });

  test('deleted after the first merge it keeps what is merged under the new name and the rest under theirs', () => {
    const made = threePods();
    made.apply(partition('p1', 'a', 'c'), partition('p2', 'c', 'e'), partition('p3', 'e', 'g'));
    made.until('ready', () => ['p1', 'p2', 'p3'].every((name) => made.partition(name).status.ready));
    made.apply(merge('a1', ['p1', 'p2', 'p3']));
    made.until('p2 took in one neighbor', () => made.ranges().some((range) => range === '[a,e)' || range === '[c,g)'));
    // The other one cannot follow now.
    const left = made.ranges().includes('[a,e)') ? 'p3' : 'p1';
    const id = made.regionAt(left === 'p3' ? 'f' : 'b').region.id;
    made.world.truth(id).down.add(3);
    made.world.report(id);
    made.until('a part is a proxy', () => made.assignment('a1').status.parts.some(([, state]) => state === 'proxy'));
    made.delete('assignment', 'a1');
    made.until('gone', () => made.store.assignment('a1') === undefined);
    expect(made.store.partitions().map(({ meta }) => meta.name)).toEqual(['a1-merged', left]);
    expect(made.partition(left).spec.pods).toEqual([{ name: 'pod1', type: 'primary' }]);
    expect(made.partition('a1-merged').spec.range).toEqual(made.regionAt(left === 'p3' ? 'b' : 'f').region.range);
    made.until('all served', () => made.store.partitions().every(({ status }) => status.ready));
  });

  test('a hole in the region map is waited for, never taken as empty', () => {
    const made = threePods();
    twoParts(made);
    const gap = made.world.placement.cluster.tree.find(new TextEncoder().encode('f'))?.region.id as number;
    made.world.placement.cluster.tree.remove(made.world.truth(gap).region.id);
    made.apply(merge('a1', ['part1', 'part2']));
    made.tick();
    expect(made.conditionsOf(made.assignment('a1'))).toEqual(['WaitingForRegions']);
    made.world.report(gap);
    made.until('completed', () => made.assignment('a1').status.phase === 'completed');
  });

  test('its regions are left alone by everybody else', () => {
    const made = threePods();
    twoParts(made);
    made.held.add('merge');
    made.apply(merge('a1', ['part1', 'part2']));
    made.until('following', () => made.assignment('a1').status.phase === 'following');
    const info = made.world.placement.cluster.tree.find(new TextEncoder().encode('f'));
    const id = info?.region.id as NonNullable<typeof info>['region']['id'];
    expect(made.world.placement.splitRegion(id, [new TextEncoder().encode('g')])).toMatchObject({
      refusal: { code: expect.stringMatching(/^(RegionLocked|OperatorExists)$/) },
    });
  });
});

describe('moving', () => {
  const SRC = 'srcPod';
  const DST = 'dstPod';
  function world(replicas: number): DocumentWorld {
    const made = new DocumentWorld(replicas === 1 ? [SRC, DST] : [SRC, 'x', 'y', DST], { maxReplicas: replicas });
    made.world.region({ id: 1, on: replicas === 1 ? ['1'] : ['1', '2', '3'] });
    made.apply(assigned('part1', 'a', 'o', [[SRC, 'primary']]));
    made.until('ready', () => made.partition('part1').status.ready);
    return made;
  }
  const statuses = [
    { [SRC]: 'primary' },
    { [SRC]: 'primary', [DST]: 'starting' },
    { [SRC]: 'primary', [DST]: 'follower' },
    { [SRC]: 'proxy', [DST]: 'primary' },
    { [SRC]: 'unassigning', [DST]: 'primary' },
    { [DST]: 'primary' },
  ];

  test.each([1, 3])('by hand with %i replicas goes through every status of the pods', (replicas) => {
    const made = world(replicas);
    const from = made.seen.length;
    made.apply(
      assigned('part1', 'a', 'o', [
        [SRC, 'primary'],
        [DST, 'follower'],
      ]),
    );
    made.until('follower', () => JSON.stringify(made.partition('part1').status.pods).includes('follower'));
    made.apply(
      assigned('part1', 'a', 'o', [
        [SRC, 'proxy'],
        [DST, 'primary'],
      ]),
    );
    made.until('primary', () => JSON.stringify(made.partition('part1').status.pods).includes('proxy'));
    for (let i = 0; i < 50; i++) {
      made.tick();
    }
    expect(made.partition('part1').status.pods).toEqual([
      [SRC, 'proxy'],
      [DST, 'primary'],
    ]);
    made.apply(assigned('part1', 'a', 'o', [[DST, 'primary']]));
    made.until('gone', () => made.partition('part1').status.pods.length === 1);
    expect(
      [
        statuses[0],
        ...made.seen
          .slice(from)
          .filter(({ name }) => name === 'part1')
          .map(({ status }) => status),
      ].filter((status, i, all) => i === 0 || JSON.stringify(status) !== JSON.stringify(all[i - 1])),
    ).toEqual(statuses);
    const { region } = made.regionAt('b');
    expect(region.peers).toHaveLength(replicas);
    expect(region.peers.some((peer) => peer.storeId === 1)).toBe(false);
  });

  test('a pod that does not follow yet cannot become primary: the flip waits', () => {
    const made = world(3);
    made.held.add('change-peer');
    made.apply(
      assigned('part1', 'a', 'o', [
        [SRC, 'proxy'],
        [DST, 'primary'],
      ]),
    );
    made.tick();
    made.tick();
    expect(made.conditionsOf(made.partition('part1'))).toEqual(['NotCaughtUp']);
    expect(made.partition('part1').spec.pods[1]).toEqual({ name: DST, type: 'primary' });
    expect(made.map()[1]).toBe('[a,o) 1');
  });

  test('by an Assignment plays all edits itself', () => {
    const made = world(3);
    made.apply(assignment('m1', { type: 'InterWorkerMove', moveParams: { partition: 'part1', from: SRC, to: DST } }));
    made.until('completed', () => made.assignment('m1').status.phase === 'completed');
    expect(made.statusesOf('m1')).toEqual([
      null,
      { move: { status: 'loading', fromPod: 'primary', toPod: 'loading' } },
      { move: { status: 'following', fromPod: 'primary', toPod: 'following' } },
      { move: { status: 'proxying', fromPod: 'proxy', toPod: 'primary' } },
      { move: { status: 'completed', fromPod: 'disconnected', toPod: 'primary' } },
    ]);
    expect(made.statusesOf('part1').slice(-6)).toEqual(statuses);
  });

  test('moves a Partition that is written with a primary, too, and it is ready all the time', () => {
    const made = new DocumentWorld([SRC, 'x', 'y', DST]);
    made.world.region({ id: 1, on: ['1', '2', '3'] });
    made.apply(partition('part1', 'a', 'o', SRC));
    made.until('ready', () => made.partition('part1').status.ready);
    made.apply(assignment('m1', { type: 'InterWorkerMove', moveParams: { partition: 'part1', from: SRC, to: DST } }));
    made.until('completed', () => made.assignment('m1').status.phase === 'completed');
    expect(made.statusesOf('part1')).toEqual([null, 'ready']);
    const specs = made.seen.filter(({ name }) => name === 'part1').map(({ spec }) => spec);
    expect(specs).toContainEqual({ range: { start: 'a', end: 'o' }, proxy: SRC, primary: DST });
    expect(specs.at(-1)).toEqual({ range: { start: 'a', end: 'o' }, primary: DST });
    expect(made.regionAt('b').region.peers.map((peer) => peer.storeId)).not.toContain(1);
  });

  test('is the same when the service is restarted after every single change', () => {
    const made = world(3);
    made.restartsAlways = true;
    made.apply(assignment('m1', { type: 'InterWorkerMove', moveParams: { partition: 'part1', from: SRC, to: DST } }));
    made.until('completed', () => made.assignment('m1').status.phase === 'completed', 2_000);
    expect(made.partition('part1').status.pods).toEqual([[DST, 'primary']]);
    expect(made.map()[1]).toBe('[a,o) 4');
  });

  test('to a pod that has a vote already is a transfer, and the old pod gets a replacement', () => {
    const made = world(3);
    made.apply(assignment('m1', { type: 'InterWorkerMove', moveParams: { partition: 'part1', from: SRC, to: 'x' } }));
    made.until('proxying', () => made.assignment('m1').status.phase === 'proxying');
    expect(made.regionAt('b').region.peers.map((peer) => peer.role)).toEqual(['voter', 'voter', 'voter']);
    made.until('completed', () => made.assignment('m1').status.phase === 'completed');
    const { region } = made.regionAt('b');
    expect(new Set(region.peers.map((peer) => peer.storeId))).toEqual(new Set([2, 3, 4]));
  });

  test('a move that is deleted before its flip is taken back', () => {
    const made = world(3);
    made.held.add('change-peer-joint');
    made.apply(assignment('m1', { type: 'InterWorkerMove', moveParams: { partition: 'part1', from: SRC, to: DST } }));
    made.until('loading', () => made.assignment('m1').status.phase === 'loading');
    made.delete('assignment', 'm1');
    made.until('gone', () => made.store.assignment('m1') === undefined);
    made.held.clear();
    made.until('taken back', () => made.partition('part1').status.pods.length === 1);
    expect(made.partition('part1').status.pods).toEqual([[SRC, 'primary']]);
  });

  test('a dead target is said, and nothing is flipped', () => {
    const made = world(3);
    made.silent.add(4);
    for (let i = 0; i < 110; i++) {
      made.tick();
    }
    made.apply(assignment('m1', { type: 'InterWorkerMove', moveParams: { partition: 'part1', from: SRC, to: DST } }));
    for (let i = 0; i < 20; i++) {
      made.tick();
    }
    expect(made.assignment('m1').status.phase).toBe('loading');
    expect(made.conditionsOf(made.assignment('m1'))).toEqual(['Unhealthy']);
    made.silent.clear();
    made.until('completed', () => made.assignment('m1').status.phase === 'completed');
  });
});

describe('New and InWorkerSplit', () => {
  test('New names the pod of a Partition and is completed when it serves', () => {
    const made = threePods();
    made.apply(
      { kind: 'Partition', metadata: { name: 'part1' }, spec: { range: { start: 'a', end: 'e' } } },
      assignment('n1', { type: 'New', newParams: { partition: 'part1', primary: 'pod3' } }),
    );
    made.until('completed', () => made.assignment('n1').status.phase === 'completed');
    expect(made.statusesOf('n1')).toEqual([null, { new: { status: 'completed' } }]);
    expect(made.map()[1]).toBe('[a,e) 3');
    expect(made.partition('part1').spec.pods).toEqual([{ name: 'pod3', type: 'primary' }]);
  });

  test.each(['before it is planned', 'while it runs', 'when it is taken back'])(
    'InWorkerSplit takes out a border that an older split left %s',
    (when) => {
      const made = threePods();
      made.apply(partition('part1', 'a', 'z'));
      made.until('ready', () => made.partition('part1').status.ready);
      made.apply(assignment('s1', { type: 'InWorkerSplit', splitParams: { partition: 'part1', splitKey: 'h' } }));
      const late = (): void => {
        const id = [...made.world.regions.values()].find(({ region }) => fromUtf8(region.range.start) === 'a')?.region
          .id;
        const children = made.world.splitTruth(id as RegionId, [utf8('p')]);
        for (const region of [id as RegionId, ...children]) {
          made.world.report(region);
        }
      };
      if (when === 'before it is planned') {
        late();
      } else {
        made.held.add('split');
        made.until('following', () => made.assignment('s1').status.phase === 'following');
        late();
        made.held.delete('split');
      }
      if (when === 'when it is taken back') {
        made.delete('Assignment', 's1');
        made.until('gone', () => made.store.assignment('s1') === undefined);
        expect(made.ranges()).toEqual(['[,a)', '[a,z)', '[z,)']);
        return;
      }
      made.until('completed', () => made.assignment('s1').status.phase === 'completed');
      expect(made.ranges()).toEqual(['[,a)', '[a,h)', '[h,z)', '[z,)']);
    },
  );

  test('InWorkerSplit divides a Partition in two', () => {
    const made = threePods();
    made.apply(partition('part1', 'a', 'o'));
    made.until('ready', () => made.partition('part1').status.ready);
    made.apply(assignment('s1', { type: 'InWorkerSplit', splitParams: { partition: 'part1', splitKey: 'h' } }));
    made.until('completed', () => made.assignment('s1').status.phase === 'completed');
    const splits = (state: string): object => ({ 'part1-1': state, 'part1-2': state });
    expect(made.statusesOf('s1')).toEqual([
      null,
      { split: { status: 'loading', fromPart: 'primary', splits: splits('loading') } },
      { split: { status: 'following', fromPart: 'primary', splits: splits('following') } },
      { split: { status: 'completed', fromPart: 'disconnected', splits: splits('primary') } },
    ]);
    expect(made.store.partition('part1')).toBeUndefined();
    expect(made.partition('part1-1').status.ready && made.partition('part1-2').status.ready).toBe(true);
    expect(made.map().slice(1, 3)).toEqual(['[a,h) 1', '[h,o) 1']);
  });

  test('a split waits until an edited primary serves, so that its parts are ready when it is completed', () => {
    const made = threePods();
    made.apply(partition('part1', 'a', 'o'));
    made.until('ready', () => made.partition('part1').status.ready);
    made.apply(
      partition('part1', 'a', 'o', 'pod2'),
      assignment('s1', { type: 'InWorkerSplit', splitParams: { partition: 'part1', splitKey: 'h' } }),
    );
    made.until('completed', () => made.assignment('s1').status.phase === 'completed');
    expect(made.store.partitions().map((one) => isServed(one))).toEqual([true, true]);
    expect(made.map().slice(1, 3)).toEqual(['[a,h) 2', '[h,o) 2']);
  });

  test('a split that is deleted before it was sent leaves the Partition', () => {
    const made = threePods();
    made.apply(partition('part1', 'a', 'o'));
    made.until('ready', () => made.partition('part1').status.ready);
    made.held.add('split');
    made.apply(
      assignment('s1', {
        type: 'InWorkerSplit',
        splitParams: { partition: 'part1', splitKey: 'h', names: ['l', 'r'] },
      }),
    );
    made.until('following', () => made.assignment('s1').status.phase === 'following');
    made.delete('assignment', 's1');
    made.until('gone', () => made.store.assignment('s1') === undefined);
    expect(made.store.partitions().map(({ meta }) => meta.name)).toEqual(['part1']);
  });
});

describe('the assigner', () => {
  const small = { splitMergeIntervalMs: 0, warmupMaxMs: 0 };

  test('merges small Partitions side by side on one pod, and nothing else', () => {
    const made = new DocumentWorld(['pod1', 'pod2', 'pod3'], small);
    made.world.region({ id: 1, on: ['1', '2', '3'] });
    made.apply(
      partition('p1', 'a', 'c'),
      partition('p2', 'c', 'e'),
      partition('elsewhere', 'e', 'g', 'pod2'),
      partition('apart', 'k', 'm', 'pod2'),
    );
    made.until('served', () => made.store.partitions().every(({ status }) => status.ready));
    for (let i = 0; i < 20; i++) {
      made.tick();
    }
    expect(made.store.partitions()).toHaveLength(4);
    made.world.placement.switches.set('assigner', true);
    made.until('merged', () => made.store.partitions().length === 3);
    const [done] = made.store.list('Assignment');
    expect(done?.meta.name).toMatch(/^auto-merge-\d+$/);
    expect(made.store.partitions().map(({ meta }) => meta.name)).toEqual([
      'apart',
      `${done?.meta.name}-merged`,
      'elsewhere',
    ]);
    for (let i = 0; i < 50; i++) {
      made.tick();
    }
    expect(made.store.list('Assignment')).toHaveLength(1);
  });

  test('leaves large ones alone', () => {
    const made = new DocumentWorld(['pod1', 'pod2', 'pod3'], { ...small, mergeSourceSizeMaxBytes: 512 });
    made.world.region({ id: 1, on: ['1', '2', '3'] });
    made.apply(partition('p1', 'a', 'c'), partition('p2', 'c', 'e'));
    made.world.placement.switches.set('assigner', true);
    for (let i = 0; i < 100; i++) {
      made.tick();
    }
    expect(made.store.partitions()).toHaveLength(2);
    expect(made.store.list('Assignment')).toEqual([]);
  });
});

describe('redirects of stores', () => {
  test('are retired after the threshold, and a merge is completed when no living store reports them', () => {
    const made = threePods();
    twoParts(made);
    made.apply(merge('a1', ['part1', 'part2']));
    made.until('proxying', () => made.assignment('a1').status.phase === 'proxying');
    const regions = made.assignment('a1').status.merge?.regions.map((id) => regionId(id)) ?? [];
    expect(regions).toHaveLength(3);
    const { redirects } = made.world.placement;
    const other = regionId(77);
    made.redirected
      .set(1, [...regions, other])
      .set(2, regions)
      .set(3, regions);
    for (let i = 0; i < 10; i++) {
      made.tick();
    }
    // The threshold is not over.
    expect(redirects.toRetireOn(storeId(1))).toEqual([]);
    for (let i = 0; i < 20; i++) {
      made.tick();
    }
    expect(made.assignment('a1').status.phase).toBe('proxying');
    // The one that no Assignment is about has had its time as well.
    expect(redirects.toRetireOn(storeId(1))).toEqual([...regions, other]);
    made.redirected.set(1, [other]).set(2, []);
    for (let i = 0; i < 5; i++) {
      made.tick();
    }
    expect(made.assignment('a1').status.phase).toBe('proxying');
    // A store that is silent does not block the end.
    made.silent.add(3);
    made.until('completed', () => made.assignment('a1').status.phase === 'completed');
    expect(redirects.toRetireOn(storeId(1))).toEqual([]);
  });
});
