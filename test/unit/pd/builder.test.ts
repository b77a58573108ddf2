import { describe, expect, test } from 'vitest';
import { type StoreId, peerId, storeId } from '../../../src/base/ids.ts';
import { unreportedRegion } from '../../../src/pd/cluster/region-info.ts';
import { type BuilderView, type WantedRole, buildSteps } from '../../../src/pd/schedule/operator/builder.ts';
import { describeStep } from '../../../src/pd/schedule/operator/step.ts';
import { makeRegion } from './world.ts';

/** Store ids with a trailing L for learners, as wanted roles. */
function wantedOf(on: readonly string[]): Map<StoreId, WantedRole> {
  return new Map(on.map((spec) => [storeId(Number.parseInt(spec, 10)), spec.endsWith('L') ? 'learner' : 'voter']));
}

interface Options {
  readonly joint?: boolean;
  readonly leader?: number;
  readonly leaders?: Readonly<Record<number, number>>;
  readonly mayNotLead?: readonly number[];
}

function plan(from: readonly string[], to: readonly string[], options: Options = {}): string[] | string {
  let nextPeer = 1000;
  const region = makeRegion({ id: 1, on: from });
  const view: BuilderView = {
    takePeerId: () => peerId(nextPeer++),
    mayLead: (store) => !(options.mayNotLead ?? []).includes(store),
    leaderCount: (store) => options.leaders?.[store] ?? 0,
    distance: () => 1,
  };
  const built = buildSteps(
    {
      region: { ...unreportedRegion(region), leader: region.peers[0] },
      wanted: wantedOf(to),
      joint: options.joint ?? true,
      ...(options.leader === undefined ? {} : { leader: storeId(options.leader) }),
    },
    view,
  );
  return built.type === 'refused'
    ? built.refusal.code
    : built.value.map((step) => describeStep(step).replace(/learner \d+ /u, 'learner '));
}

describe('with joint steps', () => {
  test('the same peers need no steps', () => {
    expect(plan(['1', '2'], ['1', '2'])).toEqual([]);
  });

  test('{1,2} to {2,3}: the leader moves to the staying voter before the joint state', () => {
    expect(plan(['1', '2'], ['2', '3'])).toEqual([
      'add learner on store 3',
      'transfer leader to store 2',
      'enter joint state (+3 -1)',
      'leave joint state',
      'remove peer on store 1',
    ]);
  });

  test('{1,2,3} to {1,2,4}: the leader stays', () => {
    expect(plan(['1', '2', '3'], ['1', '2', '4'])).toEqual([
      'add learner on store 4',
      'enter joint state (+4 -3)',
      'leave joint state',
      'remove peer on store 3',
    ]);
  });

  test('{1,2,3} to {4,5,6}: the leader moves inside the joint state', () => {
    expect(plan(['1', '2', '3'], ['4', '5', '6'])).toEqual([
      'add learner on store 4',
      'add learner on store 5',
      'add learner on store 6',
      'enter joint state (+4 +5 +6 -1 -2 -3)',
      'transfer leader to store 4',
      'leave joint state',
      'remove peer on store 1',
      'remove peer on store 2',
      'remove peer on store 3',
    ]);
  });

  test('{1,2} to {1,2,3}: one change needs no joint state', () => {
    expect(plan(['1', '2'], ['1', '2', '3'])).toEqual(['add learner on store 3', 'promote learner on store 3']);
  });

  test('{1,2,3} to {1,2}: one removal', () => {
    expect(plan(['1', '2', '3'], ['1', '2'])).toEqual(['remove peer on store 3']);
  });

  test('{1,2,3 learner} to {1,2,3}: one promotion', () => {
    expect(plan(['1', '2', '3L'], ['1', '2', '3'])).toEqual(['promote learner on store 3']);
  });

  test('shrinking to a single peer demotes before it removes', () => {
    expect(plan(['1', '2'], ['1'])).toEqual(['enter joint state (-2)', 'remove peer on store 2']);
  });

  test('a single peer that moves hands its lead over inside the joint state', () => {
    expect(plan(['1'], ['2'])).toEqual([
      'add learner on store 2',
      'enter joint state (+2 -1)',
      'transfer leader to store 2',
      'leave joint state',
      'remove peer on store 1',
    ]);
  });

  test('a removed learner is not demoted first', () => {
    expect(plan(['1', '2', '3L', '4L'], ['1', '2'])).toEqual(['remove peer on store 3', 'remove peer on store 4']);
  });

  test('among new voters the store with the fewest leaders leads', () => {
    expect(plan(['1', '2', '3'], ['4', '5', '6'], { leaders: { 4: 3, 5: 1, 6: 2 } })).toContain(
      'transfer leader to store 5',
    );
  });

  test('a wished leader that was a voter all along gets the lead first', () => {
    expect(plan(['1', '2', '3'], ['1', '2', '4'], { leader: 2 })).toEqual([
      'add learner on store 4',
      'transfer leader to store 2',
      'enter joint state (+4 -3)',
      'leave joint state',
      'remove peer on store 3',
    ]);
  });

  test('a wished leader that is only promoted gets the lead last while the present one stays', () => {
    expect(plan(['1', '2', '3'], ['1', '2', '4'], { leader: 4 })).toEqual([
      'add learner on store 4',
      'enter joint state (+4 -3)',
      'leave joint state',
      'transfer leader to store 4',
      'remove peer on store 3',
    ]);
  });
});

describe('without joint steps', () => {
  test('{1,2} to {2,3}: add, promote, transfer, remove', () => {
    expect(plan(['1', '2'], ['2', '3'], { joint: false })).toEqual([
      'add learner on store 3',
      'promote learner on store 3',
      'transfer leader to store 2',
      'remove peer on store 1',
    ]);
  });

  test('replacing all peers pairs each addition with a removal', () => {
    expect(plan(['1', '2', '3'], ['4', '5', '6'], { joint: false })).toEqual([
      'add learner on store 4',
      'promote learner on store 4',
      'transfer leader to store 4',
      'remove peer on store 1',
      'add learner on store 5',
      'promote learner on store 5',
      'remove peer on store 2',
      'add learner on store 6',
      'promote learner on store 6',
      'remove peer on store 3',
    ]);
  });
});

describe('refusals', () => {
  test('a region between two memberships is refused', () => {
    expect(plan(['1', '2-'], ['1', '2'])).toBe('JointState');
    expect(plan(['1', '2+'], ['3'])).toBe('JointState');
  });

  test('a wish without a voter is refused', () => {
    expect(plan(['1', '2'], ['1L'])).toBe('LastVoter');
    expect(plan(['1', '2'], [])).toBe('LastVoter');
  });

  test('a wish that leaves nobody to lead is refused', () => {
    expect(plan(['1', '2'], ['3', '4'], { mayNotLead: [3, 4] })).toBe('NoLeaderCandidate');
  });
});
