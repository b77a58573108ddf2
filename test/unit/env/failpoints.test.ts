import { describe, expect, test } from 'vitest';
import { FAILPOINT_NAMES, type FailpointName } from '../../../src/env/failpoint-names.ts';
import { NO_FAILPOINTS } from '../../../src/env/failpoints.ts';
import { createFailpoints, FailpointSyntaxError, parseFailpoints } from '../../../src/env/real/index.ts';

class Crashed extends Error {}

const registry = (text: string) =>
  createFailpoints(parseFailpoints(text), (name: FailpointName): never => {
    throw new Crashed(name);
  });

describe('failpoints', () => {
  test('are listed once each, as room::moment', () => {
    expect(new Set(FAILPOINT_NAMES).size).toBe(FAILPOINT_NAMES.length);
    expect(FAILPOINT_NAMES.filter((name) => !/^[a-z-]+::[a-z-]+$/.test(name))).toEqual([]);
  });

  test('do nothing without rules', () => {
    expect(NO_FAILPOINTS.hit('test::point')).toBeUndefined();
    expect(registry('').hit('test::point')).toBeUndefined();
  });

  test('act on every hit by default', () => {
    const failpoints = registry('test::point=fail');
    expect(failpoints.hit('test::point')).toEqual({ type: 'fail' });
    expect(failpoints.hit('test::point', 9)).toEqual({ type: 'fail' });
  });

  test('count hits to let pass and actions to take', () => {
    const failpoints = registry('test::point=pause@2*1');
    const hits = [1, 2, 3, 4].map(() => failpoints.hit('test::point')?.type);
    expect(hits).toEqual([undefined, undefined, 'pause', undefined]);
  });

  test('can be narrowed to a key, and several rules work side by side', () => {
    const failpoints = registry(' test::point(7)=fail ; test::point(8)=pause*1;');
    expect(failpoints.hit('test::point')).toBeUndefined();
    expect(failpoints.hit('test::point', 7)).toEqual({ type: 'fail' });
    expect(failpoints.hit('test::point', 8)).toEqual({ type: 'pause' });
    expect(failpoints.hit('test::point', 8)).toBeUndefined();
    expect(failpoints.hit('test::point', 9)).toBeUndefined();
  });

  test('crash through the function of the process', () => {
    expect(() => registry('test::point=crash').hit('test::point')).toThrow(Crashed);
  });

  test.each(['test::point', 'test::point=explode', 'test::pointt=fail', 'test::point=fail*', '=fail', 'a b=fail'])(
    'refuse %j',
    (text) => {
      expect(() => parseFailpoints(text)).toThrow(FailpointSyntaxError);
    },
  );
});
