/**
 * Keys, values, durations and sizes as the user writes and reads them. Keys have three reversible forms; values are
 * shown as text only when that loses nothing.
 */
import { escapeKey, fromHex, fromUtf8, toHex, unescapeKey } from '../base/bytes.ts';
import { UsageError } from './failure.ts';

export const KEY_FORMATS = ['escaped', 'hex', 'base64'] as const;
export type KeyFormat = (typeof KEY_FORMATS)[number];

export const VALUE_FORMATS = ['auto', 'utf8', 'escaped', 'hex', 'base64'] as const;
export type ValueFormat = (typeof VALUE_FORMATS)[number];

/** What the end of the key space is called. */
export const END_OF_KEYS = '+inf';
export const START_OF_KEYS = '-inf';

const strictUtf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

const toBase64 = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64');

export function formatKey(key: Uint8Array, format: KeyFormat): string {
  switch (format) {
    case 'escaped':
      return escapeKey(key);
    case 'hex':
      return toHex(key);
    case 'base64':
      return toBase64(key);
  }
}

/** Start of a range: empty is minus infinity. */
export const formatStart = (key: Uint8Array, format: KeyFormat): string =>
  key.length === 0 ? START_OF_KEYS : formatKey(key, format);

/** Exclusive end of a range: empty is plus infinity. */
export const formatEnd = (key: Uint8Array, format: KeyFormat): string =>
  key.length === 0 ? END_OF_KEYS : formatKey(key, format);

/** Reverse of {@link formatKey}. Refuses broken escapes with the way out. */
export function parseKey(text: string, format: KeyFormat): Uint8Array {
  switch (format) {
    case 'escaped': {
      const key = unescapeKey(text);
      if (key === undefined) {
        throw new UsageError(
          `the key ${JSON.stringify(text)} has a backslash that starts no escape`,
          String.raw`write a backslash as \\ and other bytes as \xNN, or use --key-format hex`,
        );
      }
      return key;
    }
    case 'hex': {
      const key = fromHex(text);
      if (key === undefined) {
        throw new UsageError(
          `the key ${JSON.stringify(text)} is not hexadecimal`,
          'write two digits per byte, or use --key-format escaped',
        );
      }
      return key;
    }
    case 'base64':
      if (!/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(text)) {
        throw new UsageError(
          `the key ${JSON.stringify(text)} is not base64`,
          'write it with padding, or use --key-format escaped',
        );
      }
      return new Uint8Array(Buffer.from(text, 'base64'));
  }
}

export interface ShownValue {
  readonly text: string;
  /** How `text` stands for the bytes. */
  readonly encoding: 'utf8' | 'escaped' | 'hex' | 'base64';
}

/** A value as text. `auto` is UTF-8 when the bytes are that, base64 otherwise; `utf8` shows other bytes as U+FFFD. */
export function showValue(value: Uint8Array, format: ValueFormat): ShownValue {
  switch (format) {
    case 'auto':
      try {
        return { text: strictUtf8.decode(value), encoding: 'utf8' };
      } catch {
        return { text: toBase64(value), encoding: 'base64' };
      }
    case 'utf8':
      return { text: fromUtf8(value), encoding: 'utf8' };
    case 'escaped':
      return { text: escapeKey(value), encoding: 'escaped' };
    case 'hex':
      return { text: toHex(value), encoding: 'hex' };
    case 'base64':
      return { text: toBase64(value), encoding: 'base64' };
  }
}

/** A decimal id from 1 to 2^53-1. */
export function parseId(text: string, what: string): number {
  const id = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(id) || id < 1) {
    throw new UsageError(
      `${JSON.stringify(text)} is not a ${what} id`,
      `ids are whole numbers from 1; list them with "braid ctl ${what} list"`,
    );
  }
  return id;
}

/** Milliseconds as people read them: `850ms`, `12.3s`, `4m05s`, `2h07m`, `3d4h`. */
export function formatAge(ms: number): string {
  if (ms < 1000) {
    return `${Math.round(ms)}ms`;
  }
  const s = ms / 1000;
  if (s < 60) {
    return `${s.toFixed(1)}s`;
  }
  const pad = (n: number): string => String(n).padStart(2, '0');
  const m = Math.floor(s / 60);
  if (m < 60) {
    return `${m}m${pad(Math.floor(s % 60))}s`;
  }
  const h = Math.floor(m / 60);
  return h < 48 ? `${h}h${pad(m % 60)}m` : `${Math.floor(h / 24)}d${h % 24}h`;
}

/** Groups the digits of a whole number, independent of the locale. */
export const formatCount = (n: number): string => String(Math.round(n)).replace(/\B(?=(\d{3})+$)/g, ',');
