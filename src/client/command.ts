/** What a client asks of one region, and what comes back, before and after the wire format. */
import type { KeyRange } from '../base/key-range.ts';
import type { RegionError } from '../codec/region-error.ts';

export interface PutEntry {
  readonly key: Uint8Array;
  readonly value: Uint8Array;
  /** Seconds; 0 = never expires. */
  readonly ttlSeconds: number;
}

/** Keys of batches are in ascending order without duplicates. */
export type Command =
  /** Only finds the region; is never sent. */
  | { readonly type: 'locate'; readonly key: Uint8Array }
  | { readonly type: 'get'; readonly key: Uint8Array }
  | { readonly type: 'batch-get'; readonly keys: readonly Uint8Array[] }
  | { readonly type: 'ttl'; readonly key: Uint8Array }
  /** The range may reach over regions: each try covers only the part in the region it is sent to. */
  | {
      readonly type: 'scan';
      readonly range: KeyRange;
      readonly limit: number;
      readonly keysOnly: boolean;
      readonly reverse: boolean;
    }
  | ({ readonly type: 'put' } & PutEntry)
  | { readonly type: 'batch-put'; readonly entries: readonly PutEntry[] }
  | { readonly type: 'delete'; readonly key: Uint8Array }
  | { readonly type: 'batch-delete'; readonly keys: readonly Uint8Array[] }
  /** As with scans, each try covers only the part of one region. */
  | { readonly type: 'delete-range'; readonly range: KeyRange }
  | {
      readonly type: 'compare-and-swap';
      readonly key: Uint8Array;
      /** Undefined expects absence. */
      readonly expected: Uint8Array | undefined;
      /** Undefined deletes on a match. */
      readonly value: Uint8Array | undefined;
      readonly ttlSeconds: number;
    };

export type CommandType = Command['type'];

export type Entry = readonly [key: Uint8Array, value: Uint8Array];

/** A store's answer to one command. Bytes are owned by the receiver. */
export type Reply =
  | { readonly type: 'refused'; readonly error: RegionError }
  /** The store will not run the command wherever it is sent. */
  | { readonly type: 'failed'; readonly message: string }
  | { readonly type: 'done' }
  | { readonly type: 'value'; readonly value: Uint8Array | undefined }
  | { readonly type: 'entries'; readonly entries: readonly Entry[] }
  /** Undefined = no such key, 0 = never expires. */
  | { readonly type: 'ttl'; readonly seconds: number | undefined }
  | { readonly type: 'swap'; readonly swapped: boolean; readonly previous: Uint8Array | undefined };

/** Replies that end a call well. */
export type Answer = Exclude<Reply, { readonly type: 'refused' | 'failed' }>;

export const DONE: Answer = Object.freeze({ type: 'done' });

export function isWrite(command: Command): boolean {
  switch (command.type) {
    case 'locate':
    case 'get':
    case 'batch-get':
    case 'ttl':
    case 'scan':
      return false;
    default:
      return true;
  }
}

/** Whether the protocol carries the command only in a call of its own, not in the batch stream. */
export const isUnary = (command: Command): boolean => command.type === 'ttl' || command.type === 'compare-and-swap';

/** Key and value bytes, for limits and for closing messages. */
export function payloadBytes(command: Command): number {
  switch (command.type) {
    case 'put':
      return command.key.length + command.value.length;
    case 'compare-and-swap':
      return command.key.length + (command.value?.length ?? 0) + (command.expected?.length ?? 0);
    case 'batch-put':
      return command.entries.reduce((sum, entry) => sum + entry.key.length + entry.value.length, 0);
    case 'batch-get':
    case 'batch-delete':
      return command.keys.reduce((sum, key) => sum + key.length, 0);
    case 'scan':
    case 'delete-range':
      return command.range.start.length + command.range.end.length;
    default:
      return command.key.length;
  }
}
