/**
 * What must hold of Partition and Assignment documents, whoever leads: phases only go forward, a part that gave its
 * keys away never gets them back, versions only grow, and a new leader goes on where the last one was.
 */
import type { PdNode } from '../../src/pd/pd-node.ts';
import { statusShown } from '../../src/pd/resource/render.ts';
import { type Assignment, type Phase, type Resource, resourceKey } from '../../src/pd/resource/resource.ts';
import { InvariantError } from './invariants.ts';

const fail = (text: string): never => {
  throw new InvariantError('PD2', text);
};

const RANK: Readonly<Record<Phase, number>> = { '': 0, loading: 1, following: 2, proxying: 3, completed: 4 };
const GIVEN_AWAY: readonly string[] = ['proxy', 'disconnected'];

export class PdDocumentChecks {
  readonly counts: Record<string, number> = {};
  readonly #seen = new Map<string, Resource>();
  #version = 0;

  #count(name: string): void {
    this.counts[name] = (this.counts[name] ?? 0) + 1;
  }

  /** Looks at the documents of the node that serves now. */
  look({ placement }: PdNode): void {
    const { store } = placement.resources;
    if (store.version === this.#version) {
      return;
    }
    if (store.version < this.#version) {
      fail(`documents have version ${store.version}, and had version ${this.#version}`);
    }
    this.#version = store.version;
    const now = new Set<string>();
    for (const resource of [...store.list('Partition'), ...store.list('Assignment')]) {
      const key = `${resourceKey(resource.kind, resource.meta.name)} ${resource.meta.uid}`;
      now.add(key);
      const before = this.#seen.get(key);
      if (before !== undefined && before.meta.resourceVersion > resource.meta.resourceVersion) {
        fail(`${key} went back from version ${before.meta.resourceVersion} to ${resource.meta.resourceVersion}`);
      }
      if (resource.kind === 'Assignment' && before?.kind === 'Assignment') {
        this.#compare(before, resource);
      }
      this.#seen.set(key, resource);
    }
    for (const key of this.#seen.keys()) {
      if (!now.has(key)) {
        this.#seen.delete(key);
      }
    }
    this.#count('documents');
  }

  #compare(before: Assignment, after: Assignment): void {
    const [from, to] = [before.status.phase, after.status.phase];
    const name = `Assignment ${after.meta.name} (${after.spec.type})`;
    if (from !== to) {
      this.#count(`phase:${after.spec.type}:${to}`);
    }
    const hasGiven = before.status.parts.some(([, state]) => GIVEN_AWAY.includes(state));
    const mayGoBack = from === 'following' && to === 'loading' && !hasGiven;
    if (RANK[to] < RANK[from] && !mayGoBack) {
      fail(`${name} went back from ${from} to ${to}: ${show(before)} became ${show(after)}`);
    }
    const states = new Map(after.status.parts);
    for (const [part, state] of before.status.parts) {
      const next = states.get(part);
      if (GIVEN_AWAY.includes(state) && next !== undefined && !GIVEN_AWAY.includes(next)) {
        fail(`${name}: ${part} was ${state} and is ${next}: ${show(before)} became ${show(after)}`);
      }
    }
  }

  /** Everything users see, as text: the same before and after a restart of a service at rest. */
  static shown({ placement }: PdNode): string {
    const { store } = placement.resources;
    return [...store.list('Partition'), ...store.list('Assignment')]
      .map((resource) => `${resourceKey(resource.kind, resource.meta.name)} ${JSON.stringify(statusShown(resource))}`)
      .sort()
      .join('\n');
  }
}

const show = ({ status }: Assignment): string =>
  JSON.stringify({ phase: status.phase, main: status.main, parts: status.parts });
