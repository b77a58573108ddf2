/** What the nemesis may do to a world, and what it may know of it. */
import type { Region } from '../../../src/meta/region.ts';
import type { AdminRequestBody } from '../../../src/raftstore/msg.ts';
import type { SimConfig } from '../case.ts';
import type { StoreCluster } from '../store-cluster.ts';

export interface NemesisHost {
  readonly cluster: StoreCluster;
  readonly config: SimConfig;
  /** Descriptors of regions that somebody leads, in key order. */
  leaders(): Region[];
  /** Asks the leader of a region; the outcome is counted under `action`. */
  fire(region: number, body: AdminRequestBody, action: string): void;
  /** Counts what was done, for the totals of a run. */
  count(action: string): void;
  /** A line of the story; `forMs` draws a band. */
  note(lane: number, text: string, forMs: number): void;
  /** Takes a fault back after so long, or when everything heals. */
  later(forMs: number, what: string, undo: () => void): void;
  /** Goes on with an action after a while, unless everything heals before. */
  soon(ms: number, act: () => void): void;
  /** Requests for membership changes that are neither answered nor refused. */
  openMembershipChanges(): number;
  /** Starts a store that is down. */
  reboot(id: number): void;
}

/** The element a number of an action means; undefined for an empty list. */
export const pick = <T>(items: readonly T[], number: number): T | undefined =>
  items[number % Math.max(1, items.length)];
