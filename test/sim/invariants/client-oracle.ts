/**
 * The white-box oracle: every answer a store gives is compared with the model of the committed logs at once, without
 * any search. A write that was answered is committed, took effect after it was asked for, and returned what the model
 * returned; a write that was refused for certain never takes effect; a read shows a committed value that is not older
 * than anything shown before it was asked for.
 */
import { fromUtf8 } from '../../../src/base/bytes.ts';
import type { WriteOp } from '../../../src/codec/command.ts';
import type { Region } from '../../../src/meta/region.ts';
import type { OpResult, WriteOutcome } from '../../../src/raftstore/msg.ts';
import { applyStateOn, regionStateOn } from './durable.ts';
import { type ObservedMachine, type Tally, textOf, violated } from './observed.ts';
import type { RegionModel, Version } from './region-model.ts';

export interface WriteTicket {
  readonly seq: number;
  readonly ops: readonly WriteOp[];
  readonly floors: ReadonlyMap<string, number>;
}

export interface ReadTicket {
  readonly floors: ReadonlyMap<string, number>;
  readonly shown: ReadonlyMap<number, number>;
  /** Point reads of a leader wait only for writes of their own keys. */
  readonly showsWholeIndex: boolean;
}

const nameOf = (key: string, value: string): string => `${key}\n${value}`;

export class ClientOracle {
  readonly #model: RegionModel;
  readonly #tally: Tally;
  readonly #acknowledge: (region: number, index: number) => void;
  /** Place of the newest version of each key that somebody was shown. */
  readonly #floors: Map<string, number> = new Map();
  /** Highest index of each region that somebody was shown. */
  readonly #shown: Map<number, number> = new Map();
  readonly #byValue: Map<string, Version> = new Map();
  readonly #issued: Set<string> = new Set();
  readonly #refused: Set<string> = new Set();
  /** Answered writes whose entry nobody was seen to have: the store died in the round that answered. */
  readonly #open: { readonly ticket: WriteTicket; readonly outcome: WriteOutcome }[] = [];

  constructor(model: RegionModel, tally: Tally, acknowledge: (region: number, index: number) => void) {
    this.#model = model;
    this.#tally = tally;
    this.#acknowledge = acknowledge;
  }

  onVersion(version: Version): void {
    if (version.value === undefined) {
      return;
    }
    const name = nameOf(version.key, version.value);
    if (this.#refused.has(name)) {
      violated(
        'P1',
        `${version.value} of ${version.key} was refused for certain and takes effect at ${placeOf(version)}`,
      );
    }
    const other = this.#byValue.get(name);
    if (other !== undefined && this.#issued.has(name)) {
      violated(
        'P1',
        `${version.value} of ${version.key} takes effect twice, at ${placeOf(other)} and ${placeOf(version)}`,
      );
    }
    this.#byValue.set(name, version);
  }

  // ------------------------------------------------------------------------------------------ writes

  beginWrite(ops: readonly WriteOp[]): WriteTicket {
    for (const op of ops) {
      if (op.type === 'put' || op.type === 'compare-and-swap') {
        this.#issued.add(nameOf(textOf(op.key), fromUtf8(op.value)));
      }
    }
    return { seq: this.#model.seq, ops, floors: new Map(this.#floors) };
  }

  endWrite(ticket: WriteTicket, outcome: WriteOutcome): void {
    if (outcome.type === 'refused') {
      if (outcome.error.type !== 'undetermined-result') {
        this.#onRefused(ticket);
      }
      return;
    }
    if (!this.#onAnswered(ticket, outcome)) {
      this.#open.push({ ticket, outcome });
    }
  }

  #onRefused({ ops }: WriteTicket): void {
    for (const op of ops) {
      if (op.type === 'put' || op.type === 'compare-and-swap') {
        const name = nameOf(textOf(op.key), fromUtf8(op.value));
        const version = this.#byValue.get(name);
        if (version !== undefined) {
          violated(
            'P1',
            `${version.value} of ${version.key} is refused for certain; it took effect at ${placeOf(version)}`,
          );
        }
        this.#refused.add(name);
      }
    }
  }

  /** False if the entry is not known yet. */
  #onAnswered(ticket: WriteTicket, outcome: Extract<WriteOutcome, { type: 'ok' }>): boolean {
    return ticket.ops.every((op, i) => this.#checkOp(ticket, op, outcome.results[i]));
  }

  #checkOp(ticket: WriteTicket, op: WriteOp, result: OpResult | undefined): boolean {
    switch (op.type) {
      case 'put':
        return this.#checkValue(textOf(op.key), fromUtf8(op.value));
      case 'delete':
        return this.#show(this.#versionsOf(textOf(op.key)).find((v) => v.seq > ticket.seq && v.value === undefined));
      case 'delete-range':
        return this.#checkRemoval(ticket, textOf(op.range.start), textOf(op.range.end));
      case 'compare-and-swap': {
        const key = textOf(op.key);
        if (result?.type !== 'compared') {
          return violated('P1', `a compare-and-swap of ${key} was answered without a comparison`);
        }
        if (result.swapped) {
          return this.#checkValue(key, fromUtf8(op.value));
        }
        this.#checkShown(ticket.floors, key, result.previous === undefined ? undefined : fromUtf8(result.previous));
        return true;
      }
      case 'expire':
        return true;
    }
  }

  #versionsOf(key: string): readonly Version[] {
    return this.#model.versions.get(key) ?? [];
  }

  #checkValue(key: string, value: string): boolean {
    return this.#show(this.#byValue.get(nameOf(key, value)));
  }

  #checkRemoval(ticket: WriteTicket, start: string, end: string): boolean {
    const removal = this.#model.removals.find((r) => r.seq > ticket.seq && r.start === start && r.end === end);
    if (removal === undefined) {
      return false;
    }
    for (const [key, versions] of this.#model.versions) {
      if (key >= start && (end === '' || key < end)) {
        const before = versions.findLast((v) => v.seq < removal.seq);
        if (before !== undefined) {
          this.#show(before.value === undefined ? before : versions[before.at + 1]);
        }
      }
    }
    this.#acknowledged(removal.region, removal.index);
    return true;
  }

  #acknowledged(region: number, index: number): void {
    this.#tally.add('answers to writes');
    this.#shown.set(region, Math.max(index, this.#shown.get(region) ?? 0));
    this.#acknowledge(region, index);
  }

  #show(version: Version | undefined): boolean {
    if (version === undefined) {
      return false;
    }
    if ((this.#floors.get(version.key) ?? -1) < version.at) {
      this.#floors.set(version.key, version.at);
    }
    this.#acknowledged(version.region, version.index);
    return true;
  }

  /** At the end of a history: every answered write was committed by somebody. */
  finish(): void {
    for (const { ticket, outcome } of this.#open) {
      if (outcome.type === 'ok' && !this.#onAnswered(ticket, outcome)) {
        violated('P1', `a write was answered and is not in any log: ${ticket.ops.map((op) => op.type).join(', ')}`);
      }
    }
  }

  // ------------------------------------------------------------------------------------------ reads

  beginRead(showsWholeIndex: boolean): ReadTicket {
    return { floors: new Map(this.#floors), shown: new Map(this.#shown), showsWholeIndex };
  }

  /** A store lets a reader look at its engine now. */
  onServed(ticket: ReadTicket, region: Region, machine: ObservedMachine): void {
    const view = machine.database?.view;
    if (view === undefined || machine.store === undefined) {
      return;
    }
    const where = `region ${region.id} on store ${machine.id}`;
    this.#model.checkDescriptor(region, `the answer of store ${machine.id}`);
    const state = regionStateOn(view, region.id)?.state;
    // Apply writes the tombstone of a member that a change removed before the replica hears of it. Its data is there
    // until the replica's own end is written, and so it may be in the event in which it hears of it.
    const life = machine.store.inspect().replicas.get(region.id)?.fsm.peer.life.type;
    const isLeaving = state === 'tombstone' && life !== undefined && life !== 'destroying' && life !== 'dead';
    if (!isLeaving && (state === 'applying' || state === 'tombstone' || state === undefined)) {
      violated('I21', `a read is served from ${where}, which is ${state ?? 'unknown'} on disk`);
    }
    const applied = applyStateOn(view, region.id)?.appliedIndex ?? 0;
    const shown = ticket.shown.get(region.id) ?? 0;
    if (ticket.showsWholeIndex) {
      if (applied < shown) {
        violated(
          'I21',
          `a read is served from ${where} at index ${applied}; ${shown} was shown before it was asked for`,
        );
      }
      this.#shown.set(region.id, Math.max(applied, this.#shown.get(region.id) ?? 0));
    }
    this.#tally.add('served reads');
  }

  endGet(ticket: ReadTicket, key: string, value: string | undefined): void {
    this.#checkShown(ticket.floors, key, value);
  }

  /** Every key of the page counts, absent ones included. */
  endScan(ticket: ReadTicket, start: string, coveredTo: string, rows: readonly (readonly [string, string])[]): void {
    const found = new Map(rows);
    for (const key of new Set([...this.#model.versions.keys(), ...found.keys()])) {
      if (key >= start && (coveredTo === '' || key < coveredTo)) {
        this.#checkShown(ticket.floors, key, found.get(key));
      }
    }
    this.#checkOneIndex(rows);
  }

  #checkShown(floors: ReadonlyMap<string, number>, key: string, value: string | undefined): void {
    const floor = floors.get(key) ?? -1;
    const versions = this.#versionsOf(key);
    if (value === undefined) {
      const absent = versions.find((v) => v.at >= floor && v.value === undefined);
      if (absent === undefined && floor >= 0) {
        violated(
          'I21',
          `${key} is shown as absent; ${placeOf(versions[floor])} was shown before and nothing removed it`,
        );
      }
      if (absent !== undefined && floor >= 0) {
        this.#raise(key, absent.at);
      }
      return;
    }
    const version = this.#byValue.get(nameOf(key, value));
    if (version === undefined) {
      return violated('I21', `${value} of ${key} is shown and was never committed`);
    }
    if (version.at < floor) {
      violated('I21', `${key} is shown as of ${placeOf(version)}; ${placeOf(versions[floor])} was shown before`);
    }
    this.#raise(key, version.at);
    this.#tally.add('values shown');
  }

  #raise(key: string, at: number): void {
    if ((this.#floors.get(key) ?? -1) < at) {
      this.#floors.set(key, at);
    }
  }

  /** A page is the state at one index: its newest value is older than the replacement of any of them. */
  #checkOneIndex(rows: readonly (readonly [string, string])[]): void {
    let newest: Version | undefined;
    let replaced: Version | undefined;
    for (const [key, value] of rows) {
      const version = this.#byValue.get(nameOf(key, value));
      const next = version === undefined ? undefined : this.#versionsOf(key)[version.at + 1];
      if (version !== undefined && (newest === undefined || version.seq > newest.seq)) {
        newest = version;
      }
      if (next !== undefined && (replaced === undefined || next.seq < replaced.seq)) {
        replaced = next;
      }
    }
    if (newest !== undefined && replaced !== undefined && replaced.seq <= newest.seq && !this.#isPaged(replaced)) {
      violated('I21', `a page shows ${placeOf(newest)}, but not yet ${placeOf(replaced)}`);
    }
  }

  /** Ranges are removed page by page, so that a reader may see some of it. */
  #isPaged(version: Version): boolean {
    return version.value === undefined;
  }
}

function placeOf(version: Version | undefined): string {
  return version === undefined
    ? 'nothing'
    : `${version.key}=${version.value ?? 'absent'} (region ${version.region}, index ${version.index})`;
}
