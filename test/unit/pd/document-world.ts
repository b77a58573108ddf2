/** Documents on pretend stores: applies them, lets time pass, carries out what is asked for, notes every status. */
import { utf8 } from '../../../src/base/bytes.ts';
import type { RegionId } from '../../../src/base/ids.ts';
import { rangeContains } from '../../../src/base/key-range.ts';
import type { PlacementConfig } from '../../../src/pd/defaults.ts';
import { specShown, statusShown } from '../../../src/pd/resource/render.ts';
import type { Assignment, Partition, Resource } from '../../../src/pd/resource/resource.ts';
import type { DocumentPlan } from '../../../src/pd/resource/resources.ts';
import { type TrueRegion, World } from './world.ts';

/** Real clocks do not stop at whole milliseconds. */
const TICK_MS = 200.25;
const ROUNDS_MAX = 64;

export class DocumentWorld {
  readonly world: World;
  /** Every version of every document, oldest first, as users see it. */
  readonly seen: { readonly name: string; readonly spec: unknown; readonly status: unknown }[] = [];
  /** Changes of stores that are kept back, e.g. because a store is slow. */
  readonly held: Set<string> = new Set();
  /** A new service takes over after every change when this is set. */
  restartsAlways = false;
  /** Stores that do not answer. */
  readonly silent: Set<number> = new Set();
  /** Regions for which stores say that they send old requests on. */
  readonly redirected: Map<number, readonly RegionId[]> = new Map();
  #noted = 0;

  constructor(pods: readonly string[], config: Partial<PlacementConfig> = {}) {
    this.world = new World({ proxyThresholdMs: 3_000, ...config }, []);
    pods.forEach((pod, i) => this.world.addStore(i + 1, [{ key: 'name', value: pod }]));
  }

  get store(): World['placement']['resources']['store'] {
    return this.world.placement.resources.store;
  }

  partition(name: string): Partition {
    const found = this.store.partition(name);
    if (found === undefined) {
      throw new Error(`there is no Partition ${name}`);
    }
    return found;
  }

  assignment(name: string): Assignment {
    const found = this.store.assignment(name);
    if (found === undefined) {
      throw new Error(`there is no Assignment ${name}`);
    }
    return found;
  }

  apply(...documents: readonly unknown[]): DocumentPlan {
    return this.#take(this.world.placement.resources.planApply(documents));
  }

  delete(kind: string, name: string): DocumentPlan {
    return this.#take(this.world.placement.resources.planDelete(kind, name, 0));
  }

  retry(name: string): DocumentPlan {
    return this.#take(this.world.placement.resources.planRetry(name));
  }

  #take(plan: DocumentPlan): DocumentPlan {
    if (plan.refusal !== undefined) {
      throw new Error(`${plan.refusal.code}: ${plan.refusal.message}`);
    }
    if (plan.change !== undefined) {
      this.store.apply(plan.change);
      this.#note();
    }
    return plan;
  }

  #note(): void {
    for (const { version, type, resource } of this.store.changesAfter(this.#noted) ?? []) {
      this.#noted = version;
      const name = resource.meta.name;
      const status = type === 'deleted' ? 'deleted' : statusShown(resource);
      const spec = specShown(resource);
      const last = this.seen.findLast((one) => one.name === name);
      if (JSON.stringify([last?.spec, last?.status]) !== JSON.stringify([spec, status])) {
        this.seen.push({ name, spec, status });
      }
    }
  }

  /** Statuses of one document in their order, repeated ones once. */
  statusesOf(name: string): unknown[] {
    const all = this.seen.filter((one) => one.name === name).map(({ status }) => status);
    return all.filter((status, i) => i === 0 || JSON.stringify(status) !== JSON.stringify(all[i - 1]));
  }

  conditionsOf(resource: Resource): string[] {
    return resource.status.conditions.map(({ type }) => type);
  }

  /** A new placement service takes over with what is durable; leaders report to it. */
  restart(): void {
    const { store } = this;
    const resources = [...store.all()];
    this.world.restart();
    this.world.placement.resources.store.load(resources, store.version);
    this.#noted = store.version;
    this.world.beatAll([...this.silent]);
    for (const id of this.world.regions.keys()) {
      this.world.report(id);
    }
  }

  /** One interval of the service: documents, operators, and what the stores make of them. */
  tick(): void {
    const { world } = this;
    world.advance(TICK_MS);
    world.beatAll([...this.silent, ...this.redirected.keys()]);
    for (const [store, redirectedRegions] of this.redirected) {
      if (!this.silent.has(store)) {
        world.beat(store, { redirectedRegions });
      }
    }
    for (let i = 0; i < ROUNDS_MAX; i++) {
      const change = world.placement.reconcile();
      if (change === undefined) {
        break;
      }
      for (const resource of change.puts) {
        if (resource.kind === 'Assignment' && !Number.isSafeInteger(resource.status.remainingMs)) {
          throw new Error(`${resource.status.remainingMs} ms cannot be sent`);
        }
      }
      this.store.apply(change);
      this.#note();
      if (this.restartsAlways) {
        this.restart();
      }
    }
    const proposed = world.placement.proposeAssignment();
    if (proposed !== undefined) {
      this.apply(proposed);
    }
    world.placement.tickOperators();
    world.placement.tickPatrol();
    world.placement.tickSchedulers();
    this.#stores();
  }

  #stores(): void {
    const { world } = this;
    const before = new Set(world.regions.keys());
    for (const command of world.take()) {
      if (!this.held.has(command.step.type) && world.execute(command)) {
        world.report(command.regionId);
      }
    }
    for (const id of world.regions.keys()) {
      if (!before.has(id)) {
        world.report(id);
      }
    }
    for (const [id, truth] of [...world.regions]) {
      if (truth.merging && !this.held.has('commit')) {
        const target = truth.mergeTarget?.id as RegionId;
        world.finishMerge(id);
        world.report(world.regions.has(id) ? id : target);
      }
    }
  }

  /** Ticks until something holds. */
  until(what: string, holds: () => boolean, ticksMax = 400): void {
    for (let i = 0; i < ticksMax; i++) {
      if (holds()) {
        return;
      }
      this.tick();
    }
    const documents = [...this.store.all()].map(({ meta, status }) => `${meta.name}: ${JSON.stringify(status)}`);
    const operators = this.world.placement.controller.running().map(({ brief }) => brief);
    throw new Error(`${what} did not come true:\n${documents.join('\n')}\nrunning: ${operators.join(', ')}`);
  }

  /** The true region that holds a key. */
  regionAt(key: string): TrueRegion {
    const info = [...this.world.regions.values()].find(({ region }) => rangeContains(region.range, utf8(key)));
    if (info === undefined) {
      throw new Error(`no region holds ${key}`);
    }
    return info;
  }

  /** Ends a running merge as if it had failed. */
  cancelMerge(): void {
    const { controller } = this.world.placement;
    const running = controller.running().find(({ isMergeSource }) => isMergeSource);
    if (running !== undefined) {
      controller.cancel(running, { code: 'Timeout', text: 'it took too long', hint: '' });
    }
  }

  /** Ranges of the true regions in key order. */
  ranges(): string[] {
    return this.map().map((line) => line.replace(/ \d+$/, ''));
  }

  /** Range and store of the leader of every true region, in key order. */
  map(): string[] {
    const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
    return [...this.world.regions.values()]
      .map(({ region, leader }) => ({ region, leader }))
      .sort((a, b) => (text(a.region.range.start) < text(b.region.range.start) ? -1 : 1))
      .map(({ region, leader }) => `[${text(region.range.start)},${text(region.range.end)}) ${leader.storeId}`);
  }
}
