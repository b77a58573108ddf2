/**
 * Branded numbers for ids, terms and indexes. All of them are non-negative safe integers (at most 2^53-1); at a
 * million increments a second that range lasts 285 years. The constructors here are the only places that cast.
 */
import { assert } from './assert.ts';

declare const brand: unique symbol;
type Branded<Name extends string> = number & { readonly [brand]: Name };

export type RegionId = Branded<'RegionId'>;
export type StoreId = Branded<'StoreId'>;
export type PeerId = Branded<'PeerId'>;
/** Raft term. 0 is the term before the first election. */
export type Term = Branded<'Term'>;
/** Raft log index. 0 is the position before the first entry. */
export type LogIndex = Branded<'LogIndex'>;

function checked(value: number, what: string): number {
  assert(Number.isSafeInteger(value) && value >= 0, `${what} is not a non-negative safe integer`, { value });
  return value;
}

export const regionId = (value: number): RegionId => checked(value, 'region id') as RegionId;
export const storeId = (value: number): StoreId => checked(value, 'store id') as StoreId;
export const peerId = (value: number): PeerId => checked(value, 'peer id') as PeerId;
export const term = (value: number): Term => checked(value, 'term') as Term;
export const logIndex = (value: number): LogIndex => checked(value, 'log index') as LogIndex;

/** The index after `index`. */
export const nextIndex = (index: LogIndex): LogIndex => logIndex(index + 1);

/** Whether a number from outside may become an id, term or index. */
export const isSafeId = (value: number): boolean => Number.isSafeInteger(value) && value >= 0;
