/**
 * All documents as far as they are durable, and what changed lately, for those who watch. Changes come in through
 * {@link ResourceStore.apply} after they were written; a draft plans several changes on top of each other without
 * touching anything.
 */
import { assert } from '../../base/assert.ts';
import { compareBytes } from '../../base/bytes.ts';
import { type KeyRange, isBeforeEnd, rangesOverlap } from '../../base/key-range.ts';
import {
  type Assignment,
  type Partition,
  type Resource,
  type ResourceKind,
  hiddenPartitionsOf,
  isActive,
  partitionsOf,
  resourceKey,
} from './resource.ts';

/** Written together or not at all, and only on top of the version it was planned on. */
export interface ResourceChange {
  readonly baseVersion: number;
  /** With their new resource versions, which are above `baseVersion`. */
  readonly puts: readonly Resource[];
  readonly deletes: readonly { readonly kind: ResourceKind; readonly name: string }[];
  /** The largest resource version given out so far. */
  readonly version: number;
}

export interface WatchedChange {
  readonly version: number;
  readonly type: 'put' | 'deleted';
  /** As it became, or as it was when it was deleted. */
  readonly resource: Resource;
}

/** Changes remembered for watchers. */
const CHANGES_MAX = 4_096;

/** Documents by kind and name, in the order of their names. */
export abstract class ResourceView {
  abstract get(kind: ResourceKind, name: string): Resource | undefined;
  abstract all(): Iterable<Resource>;
  abstract get size(): number;
  /** Partitions that serve a part of the range, in key order. Those that an Assignment is making do not count. */
  abstract servingIn(range: KeyRange): Partition[];

  partition(name: string): Partition | undefined {
    return this.get('Partition', name) as Partition | undefined;
  }

  assignment(name: string): Assignment | undefined {
    return this.get('Assignment', name) as Assignment | undefined;
  }

  list(kind: ResourceKind): readonly Resource[] {
    return [...this.all()]
      .filter((resource) => resource.kind === kind)
      .sort((a, b) => (a.meta.name < b.meta.name ? -1 : 1));
  }

  partitions(): readonly Partition[] {
    return this.list('Partition') as readonly Partition[];
  }

  activeAssignments(): readonly Assignment[] {
    return (this.list('Assignment') as readonly Assignment[]).filter(isActive);
  }

  /** The Assignment that is changing a Partition now. */
  lockOf(partition: string): Assignment | undefined {
    return this.activeAssignments().find((assignment) => partitionsOf(assignment).includes(partition));
  }
}

export class ResourceStore extends ResourceView {
  readonly #byKey = new Map<string, Resource>();
  #version = 0;
  #changes: WatchedChange[] = [];
  /** Versions up to this one may be missing in the list of changes. */
  #forgotten = 0;
  /** Partitions that serve, in key order; undefined after a change until somebody asks. */
  #ranges: readonly Partition[] | undefined;
  #active: readonly Assignment[] | undefined;
  readonly #lists = new Map<ResourceKind, readonly Resource[]>();
  readonly #listeners = new Set<() => void>();

  /** The largest resource version given out. */
  get version(): number {
    return this.#version;
  }

  /** Takes over what is durable. Watchers that saw an earlier state get the whole list. */
  load(resources: Iterable<Resource>, version: number): void {
    this.#byKey.clear();
    for (const resource of resources) {
      this.#byKey.set(resourceKey(resource.kind, resource.meta.name), resource);
    }
    this.#version = version;
    this.#forgotten = version;
    this.#changes = [];
    this.#changed();
  }

  get(kind: ResourceKind, name: string): Resource | undefined {
    return this.#byKey.get(resourceKey(kind, name));
  }

  all(): Iterable<Resource> {
    return this.#byKey.values();
  }

  get size(): number {
    return this.#byKey.size;
  }

  override list(kind: ResourceKind): readonly Resource[] {
    const known = this.#lists.get(kind) ?? super.list(kind);
    this.#lists.set(kind, known);
    return known;
  }

  override activeAssignments(): readonly Assignment[] {
    this.#active ??= super.activeAssignments();
    return this.#active;
  }

  /** The change is durable. */
  apply(change: ResourceChange): void {
    assert(change.baseVersion === this.#version, 'a change of documents was planned on another state', {
      base: change.baseVersion,
      version: this.#version,
    });
    for (const { kind, name } of change.deletes) {
      const key = resourceKey(kind, name);
      const resource = this.#byKey.get(key);
      if (resource !== undefined) {
        this.#byKey.delete(key);
        this.#changes.push({ version: change.version, type: 'deleted', resource });
      }
    }
    for (const resource of change.puts) {
      this.#byKey.set(resourceKey(resource.kind, resource.meta.name), resource);
      this.#changes.push({ version: resource.meta.resourceVersion, type: 'put', resource });
    }
    this.#changes.sort((a, b) => a.version - b.version);
    this.#version = change.version;
    if (this.#changes.length > CHANGES_MAX * 2) {
      this.#forgotten = this.#changes.at(-CHANGES_MAX - 1)?.version ?? this.#forgotten;
      this.#changes = this.#changes.slice(-CHANGES_MAX);
    }
    this.#changed();
  }

  #changed(): void {
    this.#ranges = undefined;
    this.#active = undefined;
    this.#lists.clear();
    for (const listener of [...this.#listeners]) {
      listener();
    }
  }

  /** Called after every change until the returned function is called. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Changes above a version in their order; undefined when some of them are forgotten, or were made elsewhere. */
  changesAfter(version: number): readonly WatchedChange[] | undefined {
    if (version < this.#forgotten || version > this.#version) {
      return undefined;
    }
    return this.#changes.filter((change) => change.version > version);
  }

  servingIn(range: KeyRange): Partition[] {
    this.#ranges ??= servingPartitions(this);
    const found: Partition[] = [];
    for (let i = firstAtOrBefore(this.#ranges, range.start); i < this.#ranges.length; i++) {
      const partition = this.#ranges[i] as Partition;
      if (!isBeforeEnd(partition.spec.range.start, range.end)) {
        break;
      }
      if (rangesOverlap(partition.spec.range, range)) {
        found.push(partition);
      }
    }
    return found;
  }
}

/** Partitions that may not overlap each other, in key order. */
export function servingPartitions(view: ResourceView): Partition[] {
  const hidden = new Set(view.activeAssignments().flatMap(hiddenPartitionsOf));
  return view
    .partitions()
    .filter(({ meta }) => !hidden.has(meta.name))
    .sort(byStart);
}

const byStart = (a: Partition, b: Partition): number => compareBytes(a.spec.range.start, b.spec.range.start);

/** Index of the last one that starts at or before `key`; 0 if there is none. */
function firstAtOrBefore(sorted: readonly Partition[], key: Uint8Array): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (compareBytes((sorted[middle] as Partition).spec.range.start, key) <= 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return Math.max(0, low - 1);
}

/** Changes planned on top of each other; nothing happens until the resulting change is written and applied. */
export class ResourceDraft extends ResourceView {
  readonly #base: ResourceStore;
  /** Undefined = deleted. */
  readonly #changed = new Map<string, Resource | undefined>();

  constructor(base: ResourceStore) {
    super();
    this.#base = base;
  }

  get(kind: ResourceKind, name: string): Resource | undefined {
    const key = resourceKey(kind, name);
    return this.#changed.has(key) ? this.#changed.get(key) : this.#base.get(kind, name);
  }

  *all(): Iterable<Resource> {
    for (const resource of this.#base.all()) {
      if (!this.#changed.has(resourceKey(resource.kind, resource.meta.name))) {
        yield resource;
      }
    }
    for (const resource of this.#changed.values()) {
      if (resource !== undefined) {
        yield resource;
      }
    }
  }

  get size(): number {
    let { size } = this.#base;
    for (const [key, resource] of this.#changed) {
      const [kind = '', name = ''] = key.split('/');
      const isKnown = this.#base.get(kind as ResourceKind, name) !== undefined;
      size += Number(resource !== undefined) - Number(isKnown);
    }
    return size;
  }

  override activeAssignments(): readonly Assignment[] {
    const changed = [...this.#changed.values()].filter(
      (resource): resource is Assignment => resource?.kind === 'Assignment' && isActive(resource),
    );
    return [...this.#base.activeAssignments().filter((one) => !this.#isChanged(one)), ...changed];
  }

  servingIn(range: KeyRange): Partition[] {
    const hidden = new Set(this.activeAssignments().flatMap(hiddenPartitionsOf));
    const changed = [...this.#changed.values()].filter(
      (resource): resource is Partition =>
        resource?.kind === 'Partition' && !hidden.has(resource.meta.name) && rangesOverlap(resource.spec.range, range),
    );
    return [...this.#base.servingIn(range).filter((one) => !this.#isChanged(one)), ...changed].sort(byStart);
  }

  #isChanged({ kind, meta }: Resource): boolean {
    return this.#changed.has(resourceKey(kind, meta.name));
  }

  put(resource: Resource): void {
    this.#changed.set(resourceKey(resource.kind, resource.meta.name), resource);
  }

  delete(kind: ResourceKind, name: string): void {
    this.#changed.set(resourceKey(kind, name), undefined);
  }

  /** Undefined when nothing was planned. */
  change(): ResourceChange | undefined {
    if (this.#changed.size === 0) {
      return undefined;
    }
    let { version } = this.#base;
    const puts: Resource[] = [];
    const deletes: { kind: ResourceKind; name: string }[] = [];
    for (const [key, resource] of this.#changed) {
      version++;
      if (resource === undefined) {
        const [kind = '', name = ''] = key.split('/');
        if (this.#base.get(kind as ResourceKind, name) !== undefined) {
          deletes.push({ kind: kind as ResourceKind, name });
        }
      } else {
        puts.push(withVersion(resource, version));
      }
    }
    return { baseVersion: this.#base.version, puts, deletes, version };
  }
}

function withVersion(resource: Resource, resourceVersion: number): Resource {
  const meta = { ...resource.meta, resourceVersion };
  return resource.kind === 'Partition' ? { ...resource, meta } : { ...resource, meta };
}
