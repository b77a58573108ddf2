import { describe, expect, test } from 'vitest';
import { AppError } from '../../../src/base/app-error.ts';
import {
  AbortError,
  DeadlineExceededError,
  EntryTooLargeError,
  InvalidArgumentError,
  OperatorFailedError,
  RefusedError,
  UnavailableError,
  UndeterminedResultError,
} from '../../../src/client/errors.ts';
import { exitCodeOf } from '../../../src/cli/exit-code.ts';
import { UsageError, formatFailure, formatUsageFailure } from '../../../src/cli/failure.ts';

describe('exitCodeOf', () => {
  test.each([
    ['a usage error', new UsageError('m', 'h'), 1],
    ['an unreachable cluster', new UnavailableError('m'), 1],
    ['an argument outside its limits', new InvalidArgumentError('m'), 1],
    ['an entry that is too large', new EntryTooLargeError('m'), 1],
    ['an error that is not ours', new TypeError('m'), 1],
    ['something thrown that is no error', 'm', 1],
    ['a refusal of the cluster', new RefusedError('NotAdjacent', 'm'), 3],
    ['a canceled operator', new OperatorFailedError('m', { details: { status: 'canceled' } }), 3],
    ['an operator that ran out of time', new OperatorFailedError('m', { details: { status: 'timeout' } }), 4],
    ['a passed deadline', new DeadlineExceededError('m'), 4],
    ['an unknown outcome', new UndeterminedResultError('m'), 4],
    ['an interruption', new AbortError('m'), 130],
  ])('%s ends with its number', (_, error, code) => {
    expect(exitCodeOf(error)).toBe(code);
  });
});

describe('formatFailure', () => {
  test('tells in three lines what failed, why, and what to do next', () => {
    const error = new RefusedError('NotAdjacent', 'regions 4 and 9 do not touch', { hint: 'name a neighbor' });
    expect(formatFailure('merge region 4 into 9', error, false)).toBe(
      'error: cannot merge region 4 into 9\nwhy:   regions 4 and 9 do not touch (Refused: NotAdjacent)\nnext:  name a neighbor\n',
    );
  });

  test('keeps every part on one line', () => {
    const text = formatFailure('get a\nb', new AppError('X', 'one\n  two', { hint: 'three\r\nfour' }), false);
    expect(text).toBe('error: cannot get a; b\nwhy:   one; two (X)\nnext:  three; four\n');
  });

  test('always has a next step', () => {
    for (const error of [new Error('boom'), new UnavailableError('m'), new AppError('Strange', 'm')]) {
      expect(formatFailure('x', error, false)).toMatch(/\nnext: {2}\S.+\n$/);
    }
  });

  test('shortens an object of 8 KiB', () => {
    const [first] = formatFailure(`get ${'k'.repeat(8192)}`, new Error('m'), false).split('\n');
    expect((first as string).length).toBeLessThan(200);
  });

  test('shows the causes only when asked', () => {
    const error = new UnavailableError('outer', { cause: new Error('inner reason') });
    expect(formatFailure('x', error, false)).not.toContain('inner reason');
    expect(formatFailure('x', error, true)).toContain('caused by: Error: inner reason');
  });
});

test('a command that was not understood is answered in three lines', () => {
  expect(formatUsageFailure("unknown command 'gte'", 'did you mean get?').split('\n')).toHaveLength(4);
});
