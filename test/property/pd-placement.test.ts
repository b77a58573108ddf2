/**
 * The whole placement logic against pretend stores: random splits, moves, merges and restarts, with commands and
 * reports lost, repeated, late and out of order. After every event the rules that must never be broken are checked.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type RegionId, regionId, storeId } from '../../src/base/ids.ts';
import { rangeContains, rangesOverlap } from '../../src/base/key-range.ts';
import type { RegionHeartbeat, RegionHeartbeatReply } from '../../src/meta/heartbeat.ts';
import { epochsEqual, isInJointState } from '../../src/meta/region.ts';
import { isAligned } from '../../src/pd/schedule/operator/merge-pair.ts';
import { World } from '../unit/pd/world.ts';

const STORES = [1, 2, 3, 4, 5];
const KEYS: readonly Uint8Array[] = Array.from({ length: 14 }, (_unused, i) => Uint8Array.of(i * 16 + 5));
const REGIONS_MAX = 10;

type Event =
  | { readonly type: 'deliver'; readonly pick: number; readonly keep: boolean }
  | { readonly type: 'lose'; readonly pick: number }
  | { readonly type: 'report'; readonly pick: number; readonly delay: boolean }
  | { readonly type: 'late-report'; readonly pick: number }
  | { readonly type: 'split'; readonly pick: number; readonly key: number }
  | { readonly type: 'elect'; readonly pick: number; readonly to: number }
  | { readonly type: 'merge'; readonly pick: number; readonly left: boolean }
  | { readonly type: 'move'; readonly pick: number; readonly from: number; readonly to: number }
  | { readonly type: 'cancel'; readonly pick: number }
  | { readonly type: 'finish-merge'; readonly pick: number }
  | { readonly type: 'tick'; readonly ms: number }
  | { readonly type: 'restart' };

const pick = fc.nat();
const event: fc.Arbitrary<Event> = fc.oneof(
  { weight: 12, arbitrary: fc.record({ type: fc.constant('deliver' as const), pick, keep: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ type: fc.constant('lose' as const), pick }) },
  { weight: 8, arbitrary: fc.record({ type: fc.constant('report' as const), pick, delay: fc.boolean() }) },
  { weight: 4, arbitrary: fc.record({ type: fc.constant('late-report' as const), pick }) },
  { weight: 4, arbitrary: fc.record({ type: fc.constant('split' as const), pick, key: fc.nat(KEYS.length - 1) }) },
  { weight: 2, arbitrary: fc.record({ type: fc.constant('elect' as const), pick, to: fc.nat() }) },
  { weight: 5, arbitrary: fc.record({ type: fc.constant('merge' as const), pick, left: fc.boolean() }) },
  { weight: 3, arbitrary: fc.record({ type: fc.constant('move' as const), pick, from: fc.nat(), to: fc.nat(4) }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('cancel' as const), pick }) },
  { weight: 5, arbitrary: fc.record({ type: fc.constant('finish-merge' as const), pick }) },
  { weight: 6, arbitrary: fc.record({ type: fc.constant('tick' as const), ms: fc.integer({ min: 0, max: 4_000 }) }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('restart' as const) }) },
);

class Scenario {
  readonly world: World = new World(
    {
      warmupMaxMs: 1_000,
      splitMergeIntervalMs: 500,
      storeDownMs: 10_000_000,
      storeDisconnectedMs: 5_000_000,
      stepStoreSilentMs: 5_000_000,
    },
    STORES,
  );
  /** On their way to a store. */
  #commands: RegionHeartbeatReply[] = [];
  /** On their way to the placement service. */
  #late: RegionHeartbeat[] = [];

  constructor() {
    this.world.region({ id: 1, on: ['1', '2', '3'] });
    this.world.placement.switches.set('merge-checker', true);
  }

  #region(n: number): RegionId {
    const ids = [...this.world.regions.keys()];
    return ids[n % ids.length] as RegionId;
  }

  run(what: Event): void {
    const { world } = this;
    switch (what.type) {
      case 'deliver':
        this.#deliver(what.pick, what.keep);
        break;
      case 'lose':
        this.#commands.splice(what.pick % Math.max(1, this.#commands.length), 1);
        break;
      case 'report':
        if (what.delay) {
          this.#late.push(world.heartbeatOf(this.#region(what.pick)));
        } else {
          world.report(this.#region(what.pick));
        }
        break;
      case 'late-report': {
        const [late] = this.#late.splice(what.pick % Math.max(1, this.#late.length), 1);
        if (late !== undefined) {
          world.placement.onRegionHeartbeat(late);
        }
        break;
      }
      case 'split':
        this.#split(this.#region(what.pick), KEYS[what.key] as Uint8Array);
        break;
      case 'elect':
        this.#elect(this.#region(what.pick), what.to);
        break;
      case 'merge': {
        const info = world.placement.cluster.tree.get(this.#region(what.pick));
        const neighbors = info === undefined ? undefined : world.placement.cluster.tree.neighbours(info);
        const target = what.left ? neighbors?.previous : neighbors?.next;
        if (info !== undefined && target !== undefined) {
          world.placement.mergeRegions(info.region.id, target.region.id);
        }
        break;
      }
      case 'move': {
        const id = this.#region(what.pick);
        const { peers } = world.truth(id).region;
        const from = peers[what.from % peers.length]?.storeId;
        if (from !== undefined) {
          world.placement.moveRegion(id, from, storeId(STORES[what.to] as number));
        }
        break;
      }
      case 'cancel': {
        const running = world.placement.controller.running();
        const operator = running[what.pick % Math.max(1, running.length)];
        if (operator !== undefined) {
          world.placement.cancelOperator(operator, 'test');
        }
        break;
      }
      case 'finish-merge':
        this.#finishMerge(what.pick);
        break;
      case 'tick':
        this.#tick(what.ms);
        break;
      case 'restart':
        world.take();
        world.restart();
        world.placement.switches.set('merge-checker', true);
        break;
    }
    this.#collect();
  }

  #collect(): void {
    const commands = this.world.take();
    for (const command of commands) {
      this.#checkMergeCommand(command);
    }
    this.#commands.push(...commands);
  }

  /** A merge is asked for only when, as far as both epochs are still true, the regions are aligned and healthy. */
  #checkMergeCommand({ regionId: id, epoch, step }: RegionHeartbeatReply): void {
    if (step.type !== 'merge') {
      return;
    }
    const source = this.world.regions.get(id);
    const target = this.world.regions.get(step.target.id);
    if (
      source !== undefined &&
      target !== undefined &&
      epochsEqual(source.region.epoch, epoch) &&
      epochsEqual(target.region.epoch, step.target.epoch)
    ) {
      expect(isAligned(source.region, target.region), 'a merge is asked for only when the regions are aligned').toBe(
        true,
      );
    }
  }

  #deliver(n: number, keep: boolean): void {
    const at = n % Math.max(1, this.#commands.length);
    const command = this.#commands[at];
    if (command === undefined) {
      return;
    }
    if (!keep) {
      this.#commands.splice(at, 1);
    }
    if (this.world.execute(command) && command.step.type !== 'merge') {
      this.world.report(command.regionId);
    }
  }

  #split(id: RegionId, key: Uint8Array): void {
    const { world } = this;
    const { region, merging } = world.truth(id);
    const isStart = region.range.start.length === key.length && region.range.start[0] === key[0];
    if (
      world.regions.size < REGIONS_MAX &&
      !merging &&
      rangeContains(region.range, key) &&
      !isStart &&
      !isInJointState(region)
    ) {
      const children = world.splitTruth(id, [key]);
      world.placement.coordinator.noteSplit([id, ...children]);
    }
  }

  #elect(id: RegionId, n: number): void {
    const truth = this.world.truth(id);
    const voters = truth.region.peers.filter((peer) => peer.role !== 'learner');
    truth.leader = voters[n % voters.length] as (typeof voters)[number];
    truth.term++;
  }

  #finishMerge(n: number): void {
    const prepared = [...this.world.regions.values()].filter((truth) => truth.merging);
    const source = prepared[n % Math.max(1, prepared.length)];
    if (source?.mergeTarget !== undefined) {
      const target = source.mergeTarget.id;
      const report = this.world.finishMerge(source.region.id) === 'committed' ? target : source.region.id;
      this.world.report(report);
    }
  }

  #tick(ms: number): void {
    const { world } = this;
    world.advance(ms);
    world.beatAll();
    world.placement.tickOperators();
    world.placement.tickPatrol();
    world.placement.tickSchedulers();
  }

  check(): void {
    this.#checkMap();
    this.#checkSlots();
    for (const { region, leader } of this.world.regions.values()) {
      const voters = region.peers.filter((peer) => peer.role === 'voter' || peer.role === 'incoming-voter');
      expect(voters.length, 'a region never loses its voters').toBeGreaterThan(0);
      expect(region.peers.find((peer) => peer.id === leader.id)?.role).not.toBe('learner');
      expect(new Set(region.peers.map((peer) => peer.storeId)).size).toBe(region.peers.length);
    }
  }

  #checkMap(): void {
    const all = [...this.world.placement.cluster.tree.values()];
    for (const [i, info] of all.entries()) {
      const next = all[i + 1];
      expect(next !== undefined && rangesOverlap(info.region.range, next.region.range)).toBe(false);
    }
  }

  /** One operator per region; a merge holds both slots or none. */
  #checkSlots(): void {
    const { controller } = this.world.placement;
    for (const operator of controller.running()) {
      expect(operator.hasEnded).toBe(false);
      expect(controller.runningOn(operator.regionId)).toBe(operator);
      if (operator.isMergeSource || operator.isMergeTarget) {
        const partner = operator.related;
        expect(partner !== undefined && controller.runningOn(partner.regionId) === partner).toBe(true);
      }
    }
  }

  /** No more faults: everything is delivered, and whatever was begun comes to its end. */
  heal(): void {
    const { world } = this;
    this.#commands = [];
    this.#late = [];
    for (let round = 0; round < 400; round++) {
      for (const truth of [...world.regions.values()]) {
        if (truth.merging) {
          this.#finishMerge(0);
        }
      }
      for (const id of [...world.regions.keys()]) {
        if (world.regions.has(id)) {
          world.report(id);
        }
      }
      world.settle(200);
      this.#tick(1_000);
      world.settle(200);
      this.check();
    }
    // Automatic merges go on as long as there are two regions; look at a moment without them.
    world.placement.switches.set('merge-checker', false);
    for (let round = 0; round < 60; round++) {
      for (const truth of [...world.regions.values()]) {
        if (truth.merging) {
          this.#finishMerge(0);
        }
      }
      for (const id of [...world.regions.keys()]) {
        if (world.regions.has(id)) {
          world.report(id);
        }
      }
      world.settle(200);
      this.#tick(1_000);
      world.settle(200);
    }
  }

  checkHealed(): void {
    const { world } = this;
    const { tree } = world.placement.cluster;
    expect(world.placement.controller.running().map((operator) => operator.brief)).toEqual([]);
    expect(tree.holes(9)).toEqual([]);
    expect(new Set([...tree.values()].map((info) => info.region.id))).toEqual(new Set(world.regions.keys()));
    for (const { region } of world.regions.values()) {
      expect(tree.get(regionId(region.id))?.region).toEqual(region);
      expect(region.peers.map((peer) => peer.role)).toEqual(['voter', 'voter', 'voter']);
    }
  }
}

describe('placement under random faults', () => {
  test('keeps its rules after every event, and repairs everything once the faults are over', () => {
    fc.assert(
      fc.property(fc.array(event, { maxLength: 150 }), (events) => {
        const scenario = new Scenario();
        for (const one of events) {
          scenario.run(one);
          scenario.check();
        }
        scenario.heal();
        scenario.checkHealed();
      }),
      { numRuns: 60 },
    );
  });
});
