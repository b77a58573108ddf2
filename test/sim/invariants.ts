/**
 * What must hold at every moment, checked from outside while a history runs. The checker reads stores through their
 * inside and their disks, and keeps its own memory across crashes. Names follow the reference (simulation-and-faults
 * 2.11, region-merge 16); each group has its own file under `invariants/`.
 */
import type { RegionCache } from '../../src/client/region-cache.ts';
import type { PeerMessage } from '../../src/codec/peer-message.ts';
import { watchCache } from './invariants/client-caches.ts';
import { ClientOracle } from './invariants/client-oracle.ts';
import { CommittedLog } from './invariants/committed-log.ts';
import { DiskChecks } from './invariants/disks.ts';
import { DurableState } from './invariants/durable.ts';
import { Evidence } from './invariants/evidence.ts';
import { LeaseChecks } from './invariants/leases.ts';
import { InvariantError, type ObservedMachine, Tally } from './invariants/observed.ts';
import { PromiseLedger } from './invariants/promises.ts';
import { watchRecords } from './invariants/records.ts';
import { unrest } from './invariants/quiescence.ts';
import { RegionModel } from './invariants/region-model.ts';
import { type Grave, ReplicaChecks } from './invariants/replicas.ts';

export { InvariantError, type ObservedMachine } from './invariants/observed.ts';

/** Expensive checks run once in so many events. */
const DISK_CHECK_EVENTS = 400;

/** Assumptions of the design that a history breaks on purpose; what rests on them is not checked then. */
export interface BrokenAssumptions {
  /** Clocks drift further than leases allow. */
  readonly clocks?: boolean;
  /** More copies are lost than the budget allows, committed entries among them. */
  readonly copies?: boolean;
}

export class Invariants {
  readonly #machines: () => readonly ObservedMachine[];
  readonly #machine: (id: number) => ObservedMachine | undefined;
  readonly #tally: Tally = new Tally();
  readonly #log: CommittedLog = new CommittedLog();
  readonly #graves: Map<string, Grave> = new Map();
  readonly #durable: DurableState = new DurableState();
  readonly #replicas: ReplicaChecks;
  readonly #promises: PromiseLedger;
  readonly #evidence: Evidence;
  readonly #disks: DiskChecks;
  readonly #acknowledged: Map<number, number> = new Map();
  readonly model: RegionModel;
  readonly #oracle: ClientOracle;
  #answersChecked = true;
  readonly #looks: {
    readonly node: number;
    readonly look: (oracle: ClientOracle, machine: ObservedMachine) => void;
  }[] = [];
  #events = 0;
  /** Found where nobody could report it. */
  #found: InvariantError | undefined;

  /**
   * @param machine by the id of its store, which events carry as well
   */
  constructor(machines: () => readonly ObservedMachine[], machine: (id: number) => ObservedMachine | undefined) {
    this.#machines = machines;
    this.#machine = machine;
    const tally = this.#tally;
    this.model = new RegionModel(tally);
    this.#oracle = new ClientOracle(this.model, tally, (region, index) => this.#acknowledge(region, index));
    this.model.watcher = this.#oracle;
    const acknowledged = (region: number) => this.#acknowledged.get(region) ?? 0;
    this.#evidence = new Evidence(machine, machines, acknowledged, tally);
    this.#promises = new PromiseLedger(this.#log, this.model, this.#graves, tally);
    this.#disks = new DiskChecks(this.#log, this.model, this.#graves, tally);
    this.#replicas = new ReplicaChecks({
      log: this.#log,
      model: this.model,
      durable: this.#durable,
      evidence: this.#evidence,
      leases: new LeaseChecks(
        machine,
        acknowledged,
        (region) => this.model.mergesAt(region),
        (region) => this.model.regions.get(region)?.splitAt ?? 0,
        tally,
      ),
      graves: this.#graves,
      promisedTerm: (store, region, peer) => this.#promises.promisedTerm(store, region, peer),
      hasAcknowledged: (store, region, peer, index, term) =>
        this.#promises.hasAcknowledged(store, region, peer, index, term),
      tally,
    });
  }

  /** Checks made, by name; a run that checked nothing proves nothing. */
  get counts(): Record<string, number> {
    return this.#tally.counts;
  }

  afterEvent(node: number, kind: string): void {
    if (this.#found !== undefined) {
      throw this.#found;
    }
    if (kind === 'store-round') {
      const machine = this.#machine(node);
      if (machine?.store !== undefined) {
        this.#observe(machine);
        this.#replicas.check(machine, machine.store);
      }
    }
    if (this.#looks.length > 0) {
      this.#lookAtAnswers();
    }
    if (++this.#events % DISK_CHECK_EVENTS === 0) {
      this.checkDisks();
    }
  }

  #observe(machine: ObservedMachine): void {
    this.#durable.observe(machine);
    if (machine.database !== undefined && machine.database.watch === undefined) {
      watchRecords(machine.id, machine.database, this.#tally, (check) => this.#inside(check));
    }
  }

  onSend(message: PeerMessage, store: number): void {
    this.#inside(() => {
      this.#promises.onSend(message, store);
      this.#evidence.onSend(message, store);
    });
  }

  /** Runs a check in the middle of a store's work, which would take its exception for an error of its own. */
  #inside(check: () => void): void {
    try {
      check();
    } catch (error) {
      if (!(error instanceof InvariantError)) {
        throw error;
      }
      this.#found ??= error;
    }
  }

  /** A client is about to live by this cache. */
  watchCache(client: string, cache: RegionCache): void {
    watchCache(client, cache, this.#tally, (check) => this.#inside(check));
  }

  /** A message reaches its store. */
  onReceive(message: PeerMessage, store: number): void {
    this.#evidence.onReceive(message, store);
  }

  /** A store dies in this moment, perhaps in the middle of a round: what it has committed by now may be known to others. */
  beforeDeath(id: number): void {
    const machine = this.#machine(id);
    this.#inside(() => {
      if (machine?.store !== undefined) {
        this.#replicas.learnCommits(machine.store);
      }
    });
  }

  relax({ clocks, copies }: BrokenAssumptions): void {
    if (clocks === true || copies === true) {
      this.#replicas.ignoreLeases();
      this.#evidence.checksTimes = false;
    }
    if (clocks === true || copies === true) {
      this.#answersChecked = false;
    }
    if (copies === true) {
      this.#replicas.ignoreModel();
    }
  }

  /** A store has restarted: its disk must still hold whatever it promised (P1). */
  onBoot(id: number): void {
    const machine = this.#machine(id);
    if (machine !== undefined) {
      this.#observe(machine);
      this.#promises.onBoot(machine);
      this.#replicas.onBoot(machine);
    }
  }

  /** The outcome of an entry was shown to somebody: nobody may show less from here on. */
  #acknowledge(region: number, index: number): void {
    if ((this.#acknowledged.get(region) ?? 0) < index) {
      this.#acknowledged.set(region, index);
    }
  }

  /**
   * Looks at an answer after the event in which a store gave it, when the model knows what that store knows. `machine`
   * has no store if it died in that very event.
   */
  answering(node: number, look: (oracle: ClientOracle, machine: ObservedMachine) => void): void {
    if (this.#answersChecked) {
      this.#looks.push({ node, look });
    }
  }

  #lookAtAnswers(): void {
    for (const { node, look } of this.#looks.splice(0)) {
      const machine = this.#machine(node);
      if (this.#replicas.hasModel && machine !== undefined) {
        look(this.#oracle, machine);
      }
    }
  }

  /** Before a request leaves its client. */
  asking<T>(look: (oracle: ClientOracle) => T): T {
    return look(this.#oracle);
  }

  /** At the end of a history. */
  finish(): void {
    if (this.#answersChecked && this.#replicas.hasModel) {
      this.#oracle.finish();
    }
  }

  /** I2, R2, R7, I11 on all disks as they are now. */
  checkDisks(): void {
    this.#disks.check(this.#machines());
  }

  /** The same at rest, and I9. */
  checkDisksAtRest(): void {
    this.checkDisks();
    this.#disks.checkOwners(this.#machines());
  }

  /** M1: what still waits; must become empty once the cluster is at rest. */
  unrest(): string[] {
    return unrest(this.#machines());
  }
}
