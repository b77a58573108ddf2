/** Faults of disks: slow, stalling, stuck and failing ones, which lose nothing, and the lossy ones of the atlas. */
import type { NemesisAction } from '../case.ts';
import type { FaultAtlas } from './fault-atlas.ts';
import { pick, type NemesisHost } from './host.ts';

const FLIPS_MAX = 3;

export class DiskFaults {
  readonly #host: NemesisHost;
  readonly #atlas: FaultAtlas;

  constructor(host: NemesisHost, atlas: FaultAtlas) {
    this.#host = host;
    this.#atlas = atlas;
  }

  /** False if the action is not about disks. */
  act(action: NemesisAction): boolean {
    const { cluster, config } = this.#host;
    const { kind, a, b, c, forMs } = action;
    const up = [...cluster.machines.keys()].filter((id) => cluster.isUp(id));
    const store = pick(up, a);
    if (store === undefined) {
      return false;
    }
    const { disk } = cluster.machine(store);
    switch (kind) {
      case 'disk-slow':
        this.#say(action, store, `disk of store ${store} is slow`);
        disk.setBehavior({ writeDelayMs: [20, 20 + (b % 400)] });
        this.#host.later(forMs, 'disk', () => disk.setBehavior({ writeDelayMs: config.writeDelayMs }));
        return true;
      case 'disk-slow-reads':
        this.#say(action, store, `store ${store} reads slowly`);
        disk.setBehavior({ readDelayMs: [1, 5 + (b % 200)] });
        this.#host.later(forMs, 'disk', () => disk.setBehavior({ readDelayMs: [0.02, 0.2] }));
        return true;
      case 'disk-stalls':
        this.#say(action, store, `disk of store ${store} stalls now and then`);
        this.#stallNowAndThen(store, 50 + (b % 300), 50 + (c % 500), forMs);
        return true;
      case 'disk-stuck':
        // The write never ends: neither success nor failure. Only a restart gets rid of it.
        this.#say(action, store, `a write of store ${store} hangs for ever`);
        disk.failNextWrite('stuck');
        this.#host.later(forMs + 300, 'disk-stuck', () => {
          disk.clearFaults();
          cluster.crash(store, c % 2 === 0 ? 'kill' : 'power-loss');
          this.#host.reboot(store);
        });
        return true;
      case 'disk-error':
        this.#say(action, store, `a write of store ${store} fails`);
        cluster.mayStop.add(store);
        disk.failNextWrite(pick(['write-error', 'sync-error', 'no-space'] as const, c) ?? 'write-error');
        this.#host.later(forMs + 300, 'reboot', () => {
          disk.clearFaults();
          this.#host.reboot(store);
        });
        return true;
      case 'wipe':
        if (this.#atlas.claim(store)) {
          this.#say(action, store, `store ${store} loses its disk`);
          this.#atlas.replace(store);
        }
        return true;
      case 'rollback':
        this.#rollBack(action, store);
        return true;
      case 'bit-flip':
        this.#flipBits(action, store);
        return true;
      case 'log-loss':
        if (this.#atlas.claim(store)) {
          this.#say(action, store, `store ${store} loses batches out of the middle of its log`);
          cluster.crash(store, 'power-loss');
          const lost = disk.damageLog('db');
          this.#host.later(Math.min(forMs, 500), 'log-loss', () => this.#rebootDamaged(store, lost > 0));
        }
        return true;
      case 'files-damaged':
        if (this.#atlas.claim(store)) {
          const what = b % 2 === 0 ? 'a table file is missing' : 'it has data files but no CURRENT file';
          this.#say(action, store, `database of store ${store}: ${what}`);
          cluster.crash(store, 'power-loss');
          disk.database('db')?.damageFiles(what);
          this.#host.later(Math.min(forMs, 500), 'files-damaged', () => this.#rebootDamaged(store, true));
        }
        return true;
      default:
        return false;
    }
  }

  #say({ kind, forMs }: NemesisAction, store: number, text: string): void {
    this.#host.count(kind);
    this.#host.note(store, text, forMs);
  }

  #stallNowAndThen(store: number, stallMs: number, pauseMs: number, forMs: number): void {
    const { cluster, config } = this.#host;
    const machine = cluster.machine(store);
    let isOver = false;
    const stall = (): void => {
      if (!isOver) {
        machine.disk.setBehavior({ writeDelayMs: [stallMs, stallMs + 1] });
        cluster.scheduler.at(stallMs, release, { node: 0, kind: 'disk-stall' });
      }
    };
    const release = (): void => {
      machine.disk.setBehavior({ writeDelayMs: config.writeDelayMs });
      if (!isOver) {
        cluster.scheduler.at(pauseMs, stall, { node: 0, kind: 'disk-stall' });
      }
    };
    stall();
    this.#host.later(forMs, 'disk', () => {
      isOver = true;
      release();
    });
  }

  /** The disk as it was a while ago comes back; the store has started again since, so that it can be noticed. */
  #rollBack(action: NemesisAction, store: number): void {
    const { cluster } = this.#host;
    const machine = cluster.machine(store);
    const image = machine.disk.saveImage();
    const isSame = (): boolean => cluster.machines.get(machine.id) === machine;
    this.#host.later(action.forMs / 3, 'rollback', () => {
      if (isSame() && !this.#atlas.isDamaged(store)) {
        cluster.crash(store, 'kill');
        this.#host.reboot(store);
      }
    });
    this.#host.later(action.forMs, 'rollback', () => {
      if (!isSame() || !cluster.isUp(store) || machine.incarnation < 2 || !this.#atlas.claim(store)) {
        return;
      }
      this.#say(action, store, `an old image of the disk of store ${store} is restored`);
      cluster.crash(store, 'power-loss');
      machine.disk.restoreImage(image);
      this.#host.reboot(store);
    });
  }

  #flipBits(action: NemesisAction, store: number): void {
    const { cluster } = this.#host;
    const database = cluster.machine(store).disk.database('db');
    const keys = [...(database?.view.entriesFrom(new Uint8Array(0)) ?? [])].map(([key]) => key);
    if (database === undefined || keys.length === 0 || !this.#atlas.claim(store)) {
      return;
    }
    const flips = 1 + (action.b % FLIPS_MAX);
    this.#say(action, store, `${flips} stored values of store ${store} rot`);
    for (let i = 0; i < flips; i++) {
      const key = pick(keys, Math.imul(action.b, i * 2 + 1) >>> 0);
      if (key !== undefined) {
        database.damageValue(key);
      }
    }
    const machine = cluster.machine(store);
    if (action.c % 2 === 0) {
      this.#host.later(action.forMs / 2, 'bit-flip', () => {
        if (cluster.machines.get(machine.id) === machine && cluster.isUp(store)) {
          cluster.crash(store, 'kill');
          this.#host.reboot(store);
        }
      });
    }
    // Whether or not anybody has noticed by then, the operator replaces the disk.
    this.#host.later(action.forMs, 'bit-flip', () => this.#atlas.replace(store));
  }

  /** Starts a store whose disk was damaged while it was down; if nothing was lost it goes on. */
  #rebootDamaged(store: number, isDamaged: boolean): void {
    const { cluster } = this.#host;
    if (![...cluster.machines.keys()].some((id) => id === store)) {
      return;
    }
    const machine = cluster.machine(store);
    this.#host.reboot(store);
    machine.booting?.then(
      () => {
        // The lost batches were in table files already, or none was hit.
        if (!isDamaged || cluster.isUp(store)) {
          this.#atlas.release(store);
        }
      },
      () => {},
    );
  }
}
