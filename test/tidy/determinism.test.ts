/** What runs in the simulator may not look at the world except through env. The linter checks the same with types. */
import { describe, expect, test } from 'vitest';
import { findAll, isIn, readSources } from './source-tree.ts';

/** Folders that touch the real world on behalf of everybody else. */
const WORLD = [
  'src/env/real',
  'src/engine/level',
  'src/rpc/grpc',
  'src/server',
  'src/cli',
  'src/dashboard',
  'src/testing',
] as const;

/** Code that must be a synchronous function of its input. */
const SYNCHRONOUS = [
  'src/base',
  'src/meta',
  'src/raft',
  'src/codec',
  'src/raftstore/peer',
  'src/raftstore/apply',
  'src/raftstore/operation',
  'src/raftstore/gate',
  'src/pd/schedule',
  'src/pd/resource',
] as const;

const deterministic = readSources('src').filter(({ path }) => !isIn(path, ...WORLD));

const places = (pattern: RegExp, files = deterministic): string[] => findAll(files, pattern).map(({ place }) => place);

describe('deterministic code', () => {
  test('takes time from the clock of env', () => {
    expect(places(/\bnew Date\b|\bDate\.(now|parse|UTC)\b|\bperformance\.\w+|\bprocess\.hrtime\b/)).toEqual([]);
    expect(places(/(?<![.\w])(setTimeout|setInterval|setImmediate|queueMicrotask)\b/)).toEqual([]);
    expect(places(/\bAbortSignal\.timeout\b/)).toEqual([]);
  });

  test('takes chance from the generator of env', () => {
    expect(places(/\bMath\.random\b|\brandom(Bytes|UUID|Int|FillSync)\b|\bgetRandomValues\b/)).toEqual([]);
    // Results of these differ between platforms in the last bit.
    expect(places(/\bMath\.(exp|expm1|log|log10|log1p|log2|pow|sin|cos|tan|sinh|cosh|tanh|cbrt)\b/)).toEqual([]);
  });

  test('depends on neither the process, nor a locale, nor the garbage collector', () => {
    expect(places(/(?<![.\w])process\.\w+/)).toEqual([]);
    expect(places(/\bIntl\b|\blocaleCompare\b|\btoLocale\w+/)).toEqual([]);
    expect(places(/\bWeakRef\b|\bFinalizationRegistry\b/)).toEqual([]);
  });

  test('imports only harmless parts of Node', () => {
    const harmless = new Set(['node:zlib', 'node:buffer', 'node:util', 'node:assert']);
    const imports = deterministic.flatMap((file) =>
      file.imports
        .filter(({ specifier }) => specifier.startsWith('node:') && !harmless.has(specifier))
        .map(({ specifier }) => `${file.path} imports ${specifier}`),
    );
    expect(imports).toEqual([]);
  });

  test('keeps no mutable state at module level', () => {
    expect(places(/^(export )?(let|var) /m)).toEqual([]);
    expect(
      places(/^(export )?const \w+[^=\n]*= (new (Map|Set|WeakMap|WeakSet|Array)(<[^\n]*>)?\(\)|\[\]|\{\});/m),
    ).toEqual([]);
  });

  test('is synchronous where it decides', () => {
    const files = deterministic.filter(({ path }) => isIn(path, ...SYNCHRONOUS));
    expect(places(/\basync\s+(function\b|\(|[#\w]+\s*(\(|<|=>))|\bawait\s|\bPromise\./, files)).toEqual([]);
  });
});
