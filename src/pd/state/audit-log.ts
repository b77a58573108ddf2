/**
 * What people changed, and what was removed: kept with the replicated state, so that it outlives restarts and changes of
 * the lead. An entry is written in the batch of the change it tells of; there is never one without the other. Bounded:
 * the oldest entries go first, in the same way on every member.
 */
import { concatBytes, prefixEnd, utf8 } from '../../base/bytes.ts';
import type { KeyRange } from '../../base/key-range.ts';
import { RecordError, decodeRecord, encodeRecord, fieldArray, fieldInt } from '../../codec/record.ts';

/** Entries kept at most. */
export const AUDIT_ENTRIES_MAX = 10_000;
/** Size of all entries together at most, as `sizeOf` counts it. */
export const AUDIT_BYTES_MAX: number = 2 * 1024 * 1024;
/** Longer texts are cut when an entry is made, UTF-16 units. */
export const AUDIT_TEXT_CHARS_MAX = 1_024;
/** What an entry takes besides its texts. */
const ENTRY_BYTES = 64;

/** An entry before it has its place. */
export interface AuditInput {
  /** Wall clock of the lead that took the request. */
  readonly wallMs: number;
  /** The word of the event that tells of the same. */
  readonly type: string;
  readonly message: string;
  /** Empty for what the placement service did by itself. */
  readonly actor: string;
  /** Empty when none was given. */
  readonly reason: string;
  /** 0 = none is concerned. */
  readonly regionId: number;
  readonly storeId: number;
  readonly operatorId: number;
}

export interface AuditEntry extends AuditInput {
  /** From 1, without gaps, whoever leads. */
  readonly sequence: number;
}

const sizeOf = ({ type, message, actor, reason }: AuditInput): number =>
  ENTRY_BYTES + utf8(type).length + utf8(message).length + utf8(actor).length + utf8(reason).length;

export class AuditLog {
  readonly #entriesMax: number;
  readonly #bytesMax: number;
  #entries: AuditEntry[] = [];
  #bytes = 0;

  constructor(limits: { readonly entriesMax: number; readonly bytesMax: number } = LIMITS) {
    this.#entriesMax = limits.entriesMax;
    this.#bytesMax = limits.bytesMax;
  }

  /** Oldest first. */
  get entries(): readonly AuditEntry[] {
    return this.#entries;
  }

  /** Of the latest entry; 0 before the first one. */
  get lastSequence(): number {
    return this.#entries.at(-1)?.sequence ?? 0;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** With a greater sequence number, oldest first, at most `limit`. */
  after(sequence: number, limit: number): readonly AuditEntry[] {
    const first = this.#entries[0]?.sequence ?? 0;
    const from = Math.max(0, sequence + 1 - first);
    return this.#entries.slice(from, from + limit);
  }

  get(sequence: number): AuditEntry | undefined {
    return this.#entries[sequence - (this.#entries[0]?.sequence ?? 0)];
  }

  /** Adds an entry and forgets the oldest ones beyond the limits; `changed` collects the sequence numbers of both. */
  append(input: AuditInput, changed: number[]): number {
    const sequence = this.lastSequence + 1;
    this.#entries.push({ ...input, sequence });
    this.#bytes += sizeOf(input);
    changed.push(sequence);
    // The latest entry stays in any case: numbers go on from it.
    while (this.#entries.length > 1 && (this.#entries.length > this.#entriesMax || this.#bytes > this.#bytesMax)) {
      const oldest = this.#entries.shift() as AuditEntry;
      this.#bytes -= sizeOf(oldest);
      changed.push(oldest.sequence);
    }
    return sequence;
  }

  /** Takes over what is on disk, in the order of the sequence numbers. @throws RecordError if one is missing */
  restore(entries: readonly AuditEntry[]): void {
    for (const [i, { sequence }] of entries.entries()) {
      if (sequence !== (entries[0] as AuditEntry).sequence + i) {
        throw new RecordError(`the audit log lacks the entry before ${sequence}`);
      }
    }
    this.#entries = [...entries];
    this.#bytes = entries.reduce((sum, entry) => sum + sizeOf(entry), 0);
  }
}

const LIMITS = Object.freeze({ entriesMax: AUDIT_ENTRIES_MAX, bytesMax: AUDIT_BYTES_MAX });

// ------------------------------------------------------------------------------------------------------- records

const VERSION = 1;
const PREFIX = utf8('pd/audit/');

export const AUDIT_KEYS: KeyRange = { start: PREFIX, end: prefixEnd(PREFIX) };

export function auditKey(sequence: number): Uint8Array {
  const out = new Uint8Array(8);
  new DataView(out.buffer).setBigUint64(0, BigInt(sequence));
  return concatBytes(PREFIX, out);
}

/** An entry without its number, as commands and membership changes carry it. */
export const packAudit = (input: AuditInput): readonly unknown[] => [
  input.wallMs,
  input.type,
  input.message,
  input.actor,
  input.reason,
  input.regionId,
  input.storeId,
  input.operatorId,
];

function text(value: unknown): string {
  if (typeof value !== 'string') {
    throw new RecordError('a text of an audit entry is missing');
  }
  return value;
}

/** @throws RecordError */
export function unpackAudit(value: unknown): AuditInput {
  const f = fieldArray(value, 'audit entry');
  return {
    wallMs: fieldInt(f[0], 'time of an audit entry'),
    type: text(f[1]),
    message: text(f[2]),
    actor: text(f[3]),
    reason: text(f[4]),
    regionId: fieldInt(f[5], 'region of an audit entry'),
    storeId: fieldInt(f[6], 'store of an audit entry'),
    operatorId: fieldInt(f[7], 'operator of an audit entry'),
  };
}

export const encodeAudit = (entry: AuditEntry): Uint8Array => encodeRecord(VERSION, [entry.sequence, packAudit(entry)]);

export function decodeAudit(bytes: Uint8Array): AuditEntry {
  const { fields } = decodeRecord(bytes, 'audit entry', VERSION, 2);
  return { ...unpackAudit(fields[1]), sequence: fieldInt(fields[0], 'number of an audit entry') };
}
