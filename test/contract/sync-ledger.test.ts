/**
 * What the product's engine promises about durability, seen from below: a library between a real process and its files
 * notes every sync, and each acknowledged batch must lie in bytes that were synced before. Then the process is killed,
 * or the power of its files is cut, and what a new process finds must be a state that the simulated disk allows, too.
 * `LEDGER_ROUNDS` sets how many processes live and die, `LEDGER_FIRST_SEED` the first.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { utf8 } from '../../src/base/bytes.ts';
import {
  createLevelEngineFactory,
  createMemoryEngineFactory,
  type CrashKind,
  MemoryDisk,
} from '../../src/engine/index.ts';
import { openNative } from '../../src/engine/level/native.ts';
import { createRng } from '../../src/env/rng.ts';
import { contentOf, markerOf, programOf, type ProgramSpec, writeBatch } from '../support/engine-program.ts';
import { drainMicrotasks, ManualClock } from '../support/manual-clock.ts';
import { buildLedger, cutPower, durableAtAck, type LedgerEvent, locate, parseLedger } from '../support/sync-ledger.ts';

const WRITER = fileURLToPath(new URL('../support/ledger-writer.ts', import.meta.url));
const ROUNDS = Number(process.env['LEDGER_ROUNDS'] ?? 3);
const FIRST_SEED = Number(process.env['LEDGER_FIRST_SEED'] ?? 1);
const FOREVER = 1e9;

const root = mkdtempSync(join(tmpdir(), 'braid-ledger-'));
const library = buildLedger(root);
let runs = 0;

interface Life {
  readonly path: string;
  /** Logs that were removed while the process lived. */
  readonly grave: string;
  readonly spec: ProgramSpec;
  readonly events: readonly LedgerEvent[];
  readonly signal: string | null;
}

/** Lets a process write until it has acknowledged so many batches, or to the end of its program. */
function live(mode: 'engine' | 'native', spec: ProgramSpec, lifetime: number, fail?: string): Life {
  const home = join(root, String(runs++));
  const [path, grave, ledger] = [join(home, 'db'), join(home, 'grave'), join(home, 'ledger')];
  mkdirSync(grave, { recursive: true });
  const args = ['--import', 'tsx', WRITER, path, mode, JSON.stringify(spec), String(lifetime)];
  const { signal, status, stderr } = spawnSync(process.execPath, args, {
    env: {
      ...process.env,
      LD_PRELOAD: library,
      SYNC_LEDGER: ledger,
      SYNC_LEDGER_DIR: path,
      SYNC_LEDGER_GRAVE: grave,
      ...(fail === undefined ? {} : { SYNC_LEDGER_FAIL: fail }),
    },
    timeout: 60_000,
    encoding: 'utf8',
  });
  expect(signal === 'SIGKILL' || status === 0, stderr).toBe(true);
  return { path, grave, spec, signal, events: parseLedger(readFileSync(ledger, 'utf8')) };
}

const acked = ({ events }: Life): number[] => events.flatMap((e) => (e.type === 'ack' ? [e.batch] : []));

/** Every state that the simulated disk may show after a crash while the last batches of the program were under way. */
async function simulatedStates(spec: ProgramSpec, batches: number): Promise<Map<string, string>[]> {
  const program = programOf(spec).slice(0, batches);
  const states: Map<string, string>[] = [];
  for (const kind of ['keep-all', 'lose-unsynced', 'power-loss', 'kill'] as const satisfies readonly CrashKind[]) {
    const clock = new ManualClock();
    const disk = new MemoryDisk(createRng(spec.seed), { segmentBytes: 64 * 1024 });
    const open = () => createMemoryEngineFactory(disk, clock).open({ path: 'db', createIfMissing: true });
    const engine = await clock.settle(open());
    for (const [i, batch] of program.entries()) {
      const write = writeBatch(engine, batch);
      // The last batch is still under way when the crash comes.
      await (i === program.length - 1 ? drainMicrotasks() : clock.settle(write));
    }
    disk.crash(kind);
    states.push(await clock.settle(contentOf(await clock.settle(open()))));
  }
  return states;
}

/** Opens what a dead process left, and compares it with what the simulated disk may leave. */
async function checkSurvivors({ path, spec }: Life, acknowledged: readonly number[]): Promise<number> {
  const engine = await createLevelEngineFactory().open({ path, createIfMissing: false });
  try {
    const content = await contentOf(engine);
    const survived = Array.from({ length: spec.batches }, (_, i) => i).filter((i) => content.has(markerOf(i)));
    expect(survived).toEqual(survived.map((_, i) => i));
    expect(survived.length).toBeGreaterThan(Math.max(-1, ...acknowledged));
    const states = await simulatedStates(spec, survived.length);
    expect(
      states.some((state) => state.size === content.size && [...state].every(([k, v]) => content.get(k) === v)),
    ).toBe(true);
    return survived.length;
  } finally {
    await engine.close();
  }
}

afterAll(() => rmSync(root, { recursive: true, force: true }));

// Needs Linux and a C compiler; a notice says so where they are missing.
describe.runIf(library !== undefined)('the engine on LevelDB, seen from its files', () => {
  beforeAll(() => {
    // The library must work at all, or every other test would see nothing.
    expect(existsSync(library as string)).toBe(true);
    execFileSync('true', { env: { ...process.env, LD_PRELOAD: library } });
  });

  for (let seed = FIRST_SEED; seed < FIRST_SEED + ROUNDS; seed++) {
    const rng = createRng(seed).fork('ledger');
    // Every third process writes more than a memtable holds, so that logs rotate and tables are written.
    const isLong = seed % 3 === 0;
    const spec = { seed, batches: isLong ? 700 : 150, valueBytesMax: isLong ? 90_000 : 3_000 };
    const lifetime = isLong ? 500 + rng.below(150) : 1 + rng.below(140);

    test(`syncs the log before each acknowledgement, and a killed process keeps all of them (${seed})`, async () => {
      const life = live('engine', spec, lifetime);
      expect(life.signal).toBe('SIGKILL');
      const acknowledged = acked(life);
      expect(acknowledged).toEqual(acknowledged.map((_, i) => i));
      const places = locate([life.path, life.grave]);
      for (const { batch, durable } of durableAtAck(life.events)) {
        const place = places.get(markerOf(batch));
        expect(place, `batch ${batch} is in no log`).toBeDefined();
        expect(
          durable.get(place?.log ?? '') ?? 0,
          `batch ${batch} was acknowledged before it was synced`,
        ).toBeGreaterThanOrEqual(place?.end ?? Infinity);
      }
      if (isLong) {
        expect(new Set([...places.values()].map(({ log }) => log)).size).toBeGreaterThan(1);
      }
      await checkSurvivors(life, acknowledged);
    });

    test(`keeps every acknowledged batch when the power is cut (${seed})`, async () => {
      const life = live('engine', spec, lifetime);
      cutPower(life.path, life.events, rng);
      await checkSurvivors(life, acked(life));
    });
  }

  test.each(['fdatasync:20', 'flush:20'])('stops at %s, and keeps what it acknowledged before', async (fail) => {
    const life = live('engine', { seed: 5, batches: 150, valueBytesMax: 3_000 }, FOREVER, fail);
    const at = life.events.findIndex(({ type }) => type === 'fail');
    expect(at).toBeGreaterThan(0);
    expect(life.events.at(-1)).toEqual({ type: 'end', health: 'poisoned' });
    expect(life.events.slice(at).filter(({ type }) => type === 'ack' || type === 'sync')).toEqual([]);
    await checkSurvivors(life, acked(life));
  });

  test('shows that unsynced batches of bare LevelDB are not durable, and loses them with the power', async () => {
    const life = live('native', { seed: 7, batches: 95, valueBytesMax: 200 }, FOREVER);
    const places = locate([life.path]);
    const isDurable = ({ batch, durable }: ReturnType<typeof durableAtAck>[number]): boolean => {
      const place = places.get(markerOf(batch));
      return place !== undefined && (durable.get(place.log) ?? 0) >= place.end;
    };
    const acks = durableAtAck(life.events);
    expect(acks.filter(isDurable).map(({ batch }) => batch)).toEqual(
      acks.filter((a) => a.isSynced).map(({ batch }) => batch),
    );
    // All of what was not synced is lost, and none of what was.
    cutPower(life.path, life.events, 'nothing more');
    const database = await openNative(life.path, {
      createIfMissing: false,
      writeBufferSize: 1 << 20,
      cacheSize: 1 << 20,
      maxFileSize: 1 << 20,
      maxOpenFiles: 50,
    });
    const found = await database.getMany(Array.from({ length: 95 }, (_, i) => utf8(markerOf(i))));
    await database.close();
    expect(found.filter((value) => value !== undefined).length).toBe(91);
  });
});
