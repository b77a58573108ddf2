/**
 * Three members of a placement service replicate ids, timestamps and a setting while the lead is handed over. The sweep
 * lets the member that is about to perform the k-th effect die instead, alone or with the others, or any member after
 * the k-th event, with every outcome its disk may have; or loses, doubles or delays the k-th message. Afterwards every
 * id and timestamp was given once and timestamps grew, a confirmed setting stayed, and all members hold the same state.
 */
import { assert } from '../../src/base/assert.ts';
import type { CrashKind } from '../../src/engine/index.ts';
import { PdHistory } from '../support/pd-history.ts';

const NAMES = ['pd1', 'pd2', 'pd3'] as const;
const OUTCOMES: readonly CrashKind[] = ['keep-all', 'power-loss', 'lose-unsynced'];
const WINDOW_MS = 1_300;
const ASK_MS = 35;
const CHANGE_MS = 120;
const HANDOVER_MS = 180;
/** How long the dead stay away: long enough for another member to take over. */
const DOWN_MS = 3_000;
const STRIKE_MS = 20_000;

export type PdFault =
  | { readonly type: 'effect'; readonly k: number; readonly dies: 'one' | 'all'; readonly kind: CrashKind }
  | { readonly type: 'event'; readonly k: number; readonly victims: readonly string[]; readonly kind: CrashKind }
  | { readonly type: 'drop' | 'duplicate' | 'delay'; readonly k: number };

export interface PdSweepSize {
  readonly effects: number;
  readonly events: number;
  readonly messages: number;
}

async function start(seed: number): Promise<PdHistory> {
  const history = new PdHistory(seed);
  await history.world.form(...NAMES);
  await history.world.leader();
  return history;
}

/** Questions, changes and a handover, all scheduled at once. */
function act(history: PdHistory): void {
  const { scheduler } = history.world;
  for (let atMs = ASK_MS; atMs < WINDOW_MS; atMs += ASK_MS) {
    scheduler.at(atMs, () => history.ask());
  }
  for (let atMs = CHANGE_MS; atMs < WINDOW_MS; atMs += CHANGE_MS) {
    scheduler.at(atMs, () => history.change());
  }
  scheduler.at(HANDOVER_MS, () => {
    try {
      history.world.serving()[0]?.member.group.transferLeader(undefined);
    } catch {
      // It has just lost the lead.
    }
  });
}

/** What the operation takes when nothing goes wrong. */
export async function measurePd(seed: number): Promise<PdSweepSize> {
  const history = await start(seed);
  const { world } = history;
  const { effects, sent } = world;
  const { steps } = world.scheduler;
  const [before] = world.serving();
  act(history);
  await world.run(WINDOW_MS);
  const [after] = world.serving();
  assert(after !== undefined && before?.name !== after.name, 'the lead did not change hands within the window');
  assert(
    history.timestamps.length > 10 && history.ids.length > 10 && history.confirmed > 2,
    'hardly anything was asked',
  );
  return { effects: world.effects - effects, events: world.scheduler.steps - steps, messages: world.sent - sent };
}

export async function runPdFault(seed: number, fault: PdFault): Promise<void> {
  const history = await start(seed);
  const { world } = history;
  let struck = false;
  const strike = (victims: readonly string[], kind: CrashKind): void => {
    struck = true;
    for (const victim of victims) {
      world.crash(victim, kind);
    }
  };
  const effect = world.effects + fault.k;
  const message = world.sent + fault.k;
  const step = world.scheduler.steps + fault.k;
  switch (fault.type) {
    case 'effect':
      world.onEffect = (number, name) => {
        if (number === effect) {
          strike(fault.dies === 'all' ? NAMES : [name], fault.kind);
        }
      };
      act(history);
      await world.until(() => struck, 'the chosen effect', STRIKE_MS);
      break;
    case 'event':
      act(history);
      await world.until(() => world.scheduler.steps >= step, 'the chosen event', STRIKE_MS);
      strike(fault.victims, fault.kind);
      break;
    default:
      world.messageFault = (number) => (number === message ? fault.type : undefined);
      act(history);
      await world.run(WINDOW_MS);
  }
  await world.run(DOWN_MS);
  history.ask();
  await history.recover();
  history.check();
}

/** The faults of a complete sweep, in a fixed order. */
export function pdFaults({ effects, events, messages }: PdSweepSize): PdFault[] {
  const faults: PdFault[] = [];
  for (let k = 1; k <= effects; k++) {
    for (const kind of OUTCOMES) {
      faults.push({ type: 'effect', k, dies: 'one', kind }, { type: 'effect', k, dies: 'all', kind });
    }
  }
  for (let k = 1; k <= events; k++) {
    const kind = OUTCOMES[k % OUTCOMES.length] as CrashKind;
    for (const victims of [[NAMES[k % NAMES.length] as string], NAMES]) {
      faults.push({ type: 'event', k, victims, kind });
    }
  }
  for (let k = 1; k <= messages; k++) {
    for (const type of ['drop', 'duplicate', 'delay'] as const) {
      faults.push({ type, k });
    }
  }
  return faults;
}
