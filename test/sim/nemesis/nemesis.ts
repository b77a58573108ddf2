/** Carries out the actions of a schedule: regions, machines, disks, network and clients, each in a file of its own. */
import type { NemesisAction, NemesisKind } from '../case.ts';
import { DiskFaults } from './disk-faults.ts';
import { Exile } from './exile.ts';
import { FaultAtlas } from './fault-atlas.ts';
import { pick, type NemesisHost } from './host.ts';
import { MachineFaults } from './machine-faults.ts';
import { NetworkFaults } from './network-faults.ts';
import { Ordeals } from './ordeals.ts';
import { RegionActions } from './region-actions.ts';

/** Kinds that change who replicates a region. While copies are lost this is left to repairs. */
const MEMBERSHIP: ReadonlySet<NemesisKind> = new Set<NemesisKind>([
  'merge',
  'retarget',
  'move',
  'learner',
  'joint',
  'leave-joint',
  'lag',
  'forsake',
]);

/** What clients suffer from. */
export interface ClientFaults {
  /** Stores no client reaches. */
  readonly unreachable: Set<number>;
  /** Stores whose answers get lost on their way back. */
  readonly mute: Set<number>;
}

export class Nemesis {
  readonly atlas: FaultAtlas;
  readonly clients: ClientFaults = { unreachable: new Set(), mute: new Set() };
  readonly #host: NemesisHost;
  readonly #regions: RegionActions;
  readonly #machines: MachineFaults;
  readonly #disks: DiskFaults;
  readonly #network: NetworkFaults;
  readonly #exile: Exile;
  readonly #ordeals: Ordeals;

  constructor(host: NemesisHost) {
    this.#host = host;
    this.atlas = new FaultAtlas(host, host.config.isOverBudget);
    this.#regions = new RegionActions(host);
    this.#machines = new MachineFaults(host);
    this.#disks = new DiskFaults(host, this.atlas);
    this.#network = new NetworkFaults(host);
    this.#ordeals = new Ordeals(host, (action) => this.act(action));
    this.#exile = new Exile(host, (action) => this.act(action));
  }

  act(action: NemesisAction): void {
    if (this.atlas.isDegraded && MEMBERSHIP.has(action.kind)) {
      return;
    }
    if (!this.#actOnClients(action)) {
      // Each refuses what is not its own; an action that finds nothing to act on is left out.
      void (
        this.#exile.act(action) ||
        this.#ordeals.act(action) ||
        this.#regions.act(action) ||
        this.#machines.act(action) ||
        this.#network.act(action) ||
        this.#disks.act(action)
      );
    }
  }

  #actOnClients({ kind, a, b, forMs }: NemesisAction): boolean {
    const { cluster } = this.#host;
    if (kind !== 'clients-cut' && kind !== 'reply-lost') {
      return false;
    }
    const ids: readonly number[] = [...cluster.machines.keys()];
    const hit = b % 2 === 0 ? ids : ids.filter((id) => id === pick(ids, a));
    const set = kind === 'clients-cut' ? this.clients.unreachable : this.clients.mute;
    this.#host.count(kind);
    this.#host.note(0, kind === 'clients-cut' ? 'clients are cut off' : 'answers to clients get lost', forMs);
    for (const id of hit) {
      set.add(id);
    }
    this.#host.later(forMs, kind, () => {
      for (const id of hit) {
        set.delete(id);
      }
    });
    return true;
  }
}
