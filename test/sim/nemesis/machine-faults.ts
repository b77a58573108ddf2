/** Crashes, pauses, clocks, and steps of the program that are held back. */
import { FAILPOINT_NAMES } from '../../../src/env/failpoint-names.ts';
import type { NemesisAction } from '../case.ts';
import type { WallShape } from '../sim-clock.ts';
import { pick, type NemesisHost } from './host.ts';

const HELD_APPLIES = [
  'apply::before-write',
  'apply::before-split',
  'apply::before-prepare-merge',
  'apply::before-commit-merge',
  'apply::before-rollback-merge',
  'apply::before-change-peer',
  'apply::before-compact-log',
] as const;

/** Rates of monotonic clocks that leases must bear: 0.95 to 1.05. */
const boundedRate = (draw: number): number => 0.95 + (draw % 1001) / 10_000;
/** Rates beyond anything promised: 0.3 to 2. */
const wildRate = (draw: number): number => 0.3 + (draw % 1701) / 1_000;

function wallShape(b: number, c: number): WallShape {
  const heightMs = (b % 120_000) - 60_000;
  const periodMs = 20 + (c % 2_000);
  const shapes: readonly WallShape[] = [
    { type: 'drift', perSecondMs: heightMs / 600 },
    { type: 'sawtooth', heightMs, periodMs },
    { type: 'strobe', heightMs, periodMs },
    { type: 'strobe', heightMs: heightMs / 1_000, periodMs },
  ];
  return pick(shapes, b >>> 8) ?? { type: 'true' };
}

export class MachineFaults {
  readonly #host: NemesisHost;

  constructor(host: NemesisHost) {
    this.#host = host;
  }

  /** False if the action is not about machines. */
  act(action: NemesisAction): boolean {
    const { cluster } = this.#host;
    const { kind, a, b, c, forMs } = action;
    const ids = [...cluster.machines.keys()];
    const up = ids.filter((id) => cluster.isUp(id));
    const store = pick(ids, a) as number;
    const machine = cluster.machine(store);
    // A suspend that neither clock of the machine shows is beyond what leases promise (src/raft/lease.ts).
    const isClockSafe = !this.#host.config.isClockUnsafe;
    const say = (text: string, lane = 0): void => {
      this.#host.count(kind);
      this.#host.note(lane, text, forMs);
    };
    switch (kind) {
      case 'crash': {
        const id = pick(up, b);
        if (id !== undefined) {
          say(`store ${id} crashes (${c % 2 === 0 ? 'killed' : 'power'})`, id);
          cluster.crash(id, c % 2 === 0 ? 'kill' : 'power-loss');
          this.#host.later(forMs, 'reboot', () => this.#host.reboot(id));
        }
        return true;
      }
      case 'crash-point': {
        const id = pick(up, b);
        const name = pick(FAILPOINT_NAMES, c) as (typeof FAILPOINT_NAMES)[number];
        if (id !== undefined) {
          say(`store ${id} will die at ${name}`, id);
          const key = `${id}!${name}`;
          cluster.failpoints.set(key, { type: 'crash' });
          this.#host.later(forMs + 500, 'crash-point', () => {
            cluster.failpoints.delete(key);
            this.#host.reboot(id);
          });
        }
        return true;
      }
      case 'crash-all':
        say('all stores lose power');
        for (const id of up) {
          cluster.crash(id, 'power-loss');
          this.#host.later(forMs * (0.1 + ((id * 7919) % 10) / 20), 'reboot', () => this.#host.reboot(id));
        }
        return true;
      case 'stall':
        say(`store ${store} stalls`, store);
        machine.clock.stall(forMs);
        return true;
      case 'suspend':
        if (isClockSafe && machine.wall.type !== 'true') {
          this.#host.count(`${kind}:not-now`);
          return true;
        }
        say(`store ${store} is suspended as a virtual machine`, store);
        machine.clock.suspend(forMs);
        return true;
      case 'clock-rate':
      case 'clock-wild': {
        const rate = kind === 'clock-rate' ? boundedRate(b) : wildRate(b);
        say(`clock of store ${store} runs at ${rate}`, store);
        machine.rate = rate;
        machine.clock.setRate(rate);
        return true;
      }
      case 'wall-jump':
        if (isClockSafe && machine.clock.isSuspended) {
          this.#host.count(`${kind}:not-now`);
          return true;
        }
        say(`wall clock of store ${store} jumps`, store);
        machine.clock.jumpWall(c % 3 === 0 ? (b % 600) - 300 : (b % 600_000) - 300_000);
        return true;
      case 'wall-shape': {
        if (isClockSafe && machine.clock.isSuspended) {
          this.#host.count(`${kind}:not-now`);
          return true;
        }
        const shape = wallShape(b, c);
        say(`wall clock of store ${store}: ${shape.type}`, store);
        machine.wall = shape;
        machine.clock.setWallShape(shape);
        this.#host.later(forMs, 'wall-shape', () => {
          machine.wall = { type: 'true' };
          machine.clock.setWallShape(machine.wall);
        });
        return true;
      }
      case 'hold-apply': {
        const name = pick(HELD_APPLIES, c) as (typeof HELD_APPLIES)[number];
        say(`apply of store ${store} is held at ${name}`, store);
        this.#hold(store, name, forMs);
        return true;
      }
      case 'starve-apply':
        say(`apply of store ${store} starves`, store);
        for (const name of [...HELD_APPLIES]) {
          this.#hold(store, name, forMs);
        }
        return true;
      case 'hold-merge':
        say(`store ${store} holds CommitMerge back`, store);
        this.#hold(store, 'merge::before-commit', forMs);
        return true;
      case 'hold-install':
        say(`store ${store} holds a snapshot back`, store);
        this.#hold(store, 'snapshot::before-install', forMs);
        return true;
      default:
        return false;
    }
  }

  #hold(store: number, name: string, forMs: number): void {
    const { failpoints } = this.#host.cluster;
    const key = `${store}!${name}`;
    failpoints.set(key, { type: 'pause' });
    this.#host.later(forMs, 'hold', () => {
      failpoints.delete(key);
    });
  }
}
