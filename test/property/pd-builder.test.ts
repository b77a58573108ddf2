/** Plans from any peer set to any other, carried out step by step on a model of a region. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type StoreId, peerId, storeId } from '../../src/base/ids.ts';
import type { PeerChange, RegionStep } from '../../src/meta/heartbeat.ts';
import type { Peer, PeerRole, Region } from '../../src/meta/region.ts';
import { type RegionInfo, unreportedRegion } from '../../src/pd/cluster/region-info.ts';
import { DEFAULT_PLACEMENT_CONFIG } from '../../src/pd/defaults.ts';
import { type BuilderView, type WantedRole, buildSteps } from '../../src/pd/schedule/operator/builder.ts';
import { type Step, checkStep, commandOf, confVerChanged, isFinished } from '../../src/pd/schedule/operator/step.ts';

type Roles = ReadonlyMap<number, WantedRole>;

/** Up to six stores, at least one voter. */
const roles: fc.Arbitrary<Roles> = fc
  .array(fc.tuple(fc.integer({ min: 1, max: 7 }), fc.constantFrom<WantedRole>('voter', 'voter', 'learner')), {
    minLength: 1,
    maxLength: 6,
  })
  .map((pairs) => new Map(pairs))
  .filter((map) => [...map.values()].includes('voter'));

const scenario = fc.record({
  from: roles,
  to: roles,
  leaderPick: fc.nat(),
  wish: fc.option(fc.nat(), { nil: undefined }),
  joint: fc.boolean(),
  leaders: fc.array(fc.nat(5), { minLength: 8, maxLength: 8 }),
});

const voters = (map: Roles): number[] => [...map].filter(([, role]) => role === 'voter').map(([store]) => store);

const isQuorum = (present: readonly number[], of: readonly number[]): boolean =>
  of.filter((store) => present.includes(store)).length * 2 > of.length;

const SETTLED: Readonly<Record<PeerRole, PeerRole>> = {
  voter: 'voter',
  learner: 'learner',
  'incoming-voter': 'voter',
  'demoting-voter': 'learner',
};

/** What a store does with a membership change. */
function changePeers(region: Region, changes: readonly PeerChange[]): Region {
  if (changes.length === 0) {
    const joint = region.peers.filter((peer) => SETTLED[peer.role] !== peer.role).length;
    return {
      ...region,
      peers: region.peers.map((peer) => ({ ...peer, role: SETTLED[peer.role] })),
      epoch: bump(region, joint),
    };
  }
  const joint = changes.length > 1;
  let { peers } = region;
  for (const { type, peer } of changes) {
    const present = peers.find((p) => p.storeId === peer.storeId);
    if (type === 'remove') {
      peers = peers.filter((p) => p.id !== peer.id);
      continue;
    }
    const role: PeerRole =
      type === 'add-voter' ? (joint ? 'incoming-voter' : 'voter') : joint ? 'demoting-voter' : 'learner';
    peers =
      present === undefined
        ? [...peers, { ...peer, role }]
        : peers.map((p) => (p.id === present.id ? { ...p, role } : p));
  }
  return { ...region, peers, epoch: bump(region, changes.length) };
}

const bump = (region: Region, by: number): Region['epoch'] => ({ ...region.epoch, confVer: region.epoch.confVer + by });

function execute(info: RegionInfo, command: RegionStep): RegionInfo {
  switch (command.type) {
    case 'change-peer':
      return { ...info, region: changePeers(info.region, [command.change]) };
    case 'change-peer-joint':
      return { ...info, region: changePeers(info.region, command.changes) };
    case 'transfer-leader':
      return { ...info, leader: command.peer };
    default:
      throw new Error(`a plan for peers sent ${command.type}`);
  }
}

const VIEW = { config: DEFAULT_PLACEMENT_CONFIG, silentMs: () => 0 };

/**
 * Joint plans keep a quorum of the old or of the new voters. Plans one by one do so, too, unless the sets have an even
 * size, where even the first replacement cannot; there each step changes one voter, which keeps quorums overlapping.
 */
function expectSafe(
  before: RegionInfo,
  info: RegionInfo,
  goal: { from: Roles; to: Roles; joint: boolean },
  step: Step,
): void {
  const { from, to } = goal;
  const isOdd = (map: Roles): boolean => voters(map).length % 2 === 1;
  const inRole = (...wanted: PeerRole[]): number[] =>
    info.region.peers.filter((peer) => wanted.includes(peer.role)).map((peer) => peer.storeId);
  // Two sets decide in a joint state; outside of it they are the same.
  for (const set of [inRole('voter', 'demoting-voter'), inRole('voter', 'incoming-voter')]) {
    if (goal.joint || (isOdd(from) && isOdd(to))) {
      expect(isQuorum(set, voters(from)) || isQuorum(set, voters(to)), `quorum after ${step.type}`).toBe(true);
    }
    expect(set.length).toBeGreaterThanOrEqual(Math.min(voters(from).length, voters(to).length));
  }
  if (!goal.joint) {
    const was = before.region.peers.filter((peer) => peer.role === 'voter').map((peer) => peer.storeId as number);
    const is = inRole('voter');
    const changed = [...was.filter((store) => !is.includes(store)), ...is.filter((store) => !was.includes(store))];
    expect(changed.length, `voters changed by ${step.type}`).toBeLessThanOrEqual(1);
  }
  const leader = info.region.peers.find((peer) => peer.id === info.leader?.id);
  expect(leader, `the leader is a member after ${step.type}`).toBeDefined();
  expect(leader?.role).not.toBe('learner');
  expect(new Set(info.region.peers.map((peer) => peer.storeId)).size).toBe(info.region.peers.length);
}

describe('plans from any peer set to any other', () => {
  test('keep quorums and a leader at every step, account for every membership change, and end as wished', () => {
    fc.assert(
      fc.property(scenario, ({ from, to, leaderPick, wish, joint, leaders }) => {
        const peers: Peer[] = [...from].map(([store, role]) => ({
          id: peerId(100 + store),
          storeId: storeId(store),
          role,
        }));
        const region: Region = {
          ...unreportedRegion({
            id: 1 as never,
            range: { start: new Uint8Array(0), end: new Uint8Array(0) },
            epoch: { confVer: 4, version: 2 },
            peers,
          }).region,
        };
        const leading = peers.filter((peer) => peer.role === 'voter');
        let info: RegionInfo = { ...unreportedRegion(region), leader: leading[leaderPick % leading.length] };
        const wished = wish === undefined ? undefined : storeId(voters(to)[wish % voters(to).length] as number);
        let next = 1_000;
        const view: BuilderView = {
          takePeerId: () => peerId(next++),
          mayLead: () => true,
          leaderCount: (store) => leaders[store] as number,
          distance: (a, b) => Math.abs(a - b) % 3,
        };
        const wanted = new Map<StoreId, WantedRole>([...to].map(([store, role]) => [storeId(store), role]));
        const built = buildSteps(
          { region: info, wanted, joint, ...(wished === undefined ? {} : { leader: wished }) },
          view,
        );
        if (built.type === 'refused') {
          throw new Error(built.refusal.message);
        }
        const done: Step[] = [];
        for (const step of built.value) {
          expect(isFinished(step, info), `${step.type} must have something to do`).toBe(false);
          expect(checkStep(step, info, VIEW), `${step.type} must be possible`).toBeUndefined();
          const command = commandOf(step, info);
          if (command === undefined) {
            throw new Error(`${step.type} sends nothing`);
          }
          const before = info;
          info = execute(info, command);
          done.push(step);
          expect(isFinished(step, info), `${step.type} must be finished`).toBe(true);
          // The membership changes the steps account for are exactly those that happened.
          const accounted = done.reduce((sum, one) => sum + confVerChanged(one, info.region), 0);
          expect(info.region.epoch.confVer - region.epoch.confVer).toBe(accounted);
          expectSafe(before, info, { from, to, joint }, step);
        }
        expect(new Map(info.region.peers.map((peer) => [peer.storeId as number, peer.role]))).toEqual(new Map(to));
        expect(to.get(info.leader?.storeId ?? 0)).toBe('voter');
        if (wished !== undefined) {
          expect(info.leader?.storeId).toBe(wished);
        } else if (to.get(leading[leaderPick % leading.length]?.storeId ?? 0) === 'voter') {
          expect(info.leader?.id).toBe(leading[leaderPick % leading.length]?.id);
        }
      }),
      { numRuns: 3_000 },
    );
  });
});
