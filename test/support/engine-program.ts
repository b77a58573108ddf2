/**
 * A sequence of batches drawn from a seed, for writing the same to several engines: few keys that are overwritten and
 * deleted again and again, small and large values, and one key of its own per batch, so that a state tells which batches
 * it holds.
 */
import { fromUtf8, utf8 } from '../../src/base/bytes.ts';
import type { Engine } from '../../src/env/engine.ts';
import { createRng } from '../../src/env/rng.ts';

export interface ProgramBatch {
  readonly changes: readonly (readonly [key: string, value: string | undefined])[];
}

export interface ProgramSpec {
  readonly seed: number;
  readonly batches: number;
  /** Largest value. */
  readonly valueBytesMax: number;
}

const KEYS = 30;
const CHANGES_MAX = 6;

export const markerOf = (batch: number): string => `b${batch}`;

export function programOf({ seed, batches, valueBytesMax }: ProgramSpec): ProgramBatch[] {
  const rng = createRng(seed).fork('engine-program');
  return Array.from({ length: batches }, (_, i) => {
    const changes: (readonly [string, string | undefined])[] = [[markerOf(i), String(i)]];
    for (let n = rng.below(CHANGES_MAX); n > 0; n--) {
      const bytes = rng.chance(0.3) ? rng.below(valueBytesMax) : rng.below(20);
      changes.push([`k${rng.below(KEYS)}`, rng.chance(0.3) ? undefined : `${i}:${'x'.repeat(bytes)}`]);
    }
    return { changes };
  });
}

/** Hands a batch over without waiting for it. */
export function writeBatch(engine: Engine, { changes }: ProgramBatch): Promise<void> {
  const batch = engine.createBatch();
  for (const [key, value] of changes) {
    if (value === undefined) {
      batch.del(utf8(key));
    } else {
      batch.put(utf8(key), utf8(value));
    }
  }
  return engine.write(batch);
}

/** Everything in the engine, by key. */
export async function contentOf(engine: Engine): Promise<Map<string, string>> {
  const content = new Map<string, string>();
  let start = utf8('a');
  for (;;) {
    const page = await engine.scan({ range: { start, end: utf8('z') }, limit: 500 });
    for (const [key, value] of page.entries) {
      content.set(fromUtf8(key), fromUtf8(value));
    }
    const last = page.entries.at(-1);
    if (!page.more || last === undefined) {
      return content;
    }
    start = Uint8Array.of(...last[0], 0);
  }
}
