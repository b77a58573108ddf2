/** Byte strings. Order is unsigned lexicographic everywhere, the order LevelDB and TiKV use. */

export const EMPTY_BYTES: Uint8Array = new Uint8Array(0);

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export const utf8 = (text: string): Uint8Array => encoder.encode(text);
/** Decodes UTF-8; malformed sequences become U+FFFD, so use it for display and known text only. */
export const fromUtf8 = (bytes: Uint8Array): string => decoder.decode(bytes);

/** The native comparison costs about 55 ns whatever the length; this many bytes are compared faster one by one. */
const COMPARED_HERE = 24;

/** Negative, zero or positive as `a` sorts before, equal to or after `b`. */
export function compareBytes(a: Uint8Array, b: Uint8Array): number {
  const common = Math.min(a.length, b.length);
  const here = Math.min(common, COMPARED_HERE);
  for (let i = 0; i < here; i++) {
    const difference = (a[i] as number) - (b[i] as number);
    if (difference !== 0) {
      return difference;
    }
  }
  return common > COMPARED_HERE ? Buffer.compare(a, b) : a.length - b.length;
}

export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && compareBytes(a, b) === 0;
}

/** A copy that owns its memory. Use it for every byte string kept longer than the call that delivered it. */
export function copyBytes(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(bytes);
}

export function concatBytes(...parts: readonly Uint8Array[]): Uint8Array {
  let length = 0;
  for (const part of parts) {
    length += part.length;
  }
  const out = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

export function startsWith(bytes: Uint8Array, prefix: Uint8Array): boolean {
  return bytes.length >= prefix.length && equalBytes(bytes.subarray(0, prefix.length), prefix);
}

/** The smallest key greater than `key`: the key with one zero byte behind it. */
export function keyAfter(key: Uint8Array): Uint8Array {
  const out = new Uint8Array(key.length + 1);
  out.set(key);
  return out;
}

/** The exclusive end of all keys that start with `prefix`; empty (no bound) if the prefix is empty or all 0xff. */
export function prefixEnd(prefix: Uint8Array): Uint8Array {
  for (let i = prefix.length - 1; i >= 0; i--) {
    const byte = prefix[i] as number;
    if (byte !== 0xff) {
      const out = copyBytes(prefix.subarray(0, i + 1));
      out[i] = byte + 1;
      return out;
    }
  }
  return EMPTY_BYTES;
}

export const toHex = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex');

/** Parses hex text; undefined if it is not an even number of hex digits. */
export function fromHex(text: string): Uint8Array | undefined {
  return /^([0-9a-fA-F]{2})*$/.test(text) ? new Uint8Array(Buffer.from(text, 'hex')) : undefined;
}

/**
 * Printable form that can be pasted back (see {@link unescapeKey}): printable ASCII as it is, backslash doubled, every
 * other byte as `\xNN`.
 */
export function escapeKey(bytes: Uint8Array): string {
  let out = '';
  for (const byte of bytes) {
    if (byte === 0x5c) {
      out += '\\\\';
    } else if (byte >= 0x20 && byte < 0x7f) {
      out += String.fromCharCode(byte);
    } else {
      out += `\\x${byte.toString(16).padStart(2, '0')}`;
    }
  }
  return out;
}

/** Reverse of {@link escapeKey}; non-ASCII characters stand for their UTF-8 bytes. Undefined for a broken escape. */
export function unescapeKey(text: string): Uint8Array | undefined {
  const parts: Uint8Array[] = [];
  let plain = '';
  for (let i = 0; i < text.length; i++) {
    const c = text[i] as string;
    if (c !== '\\') {
      plain += c;
      continue;
    }
    if (text[i + 1] === '\\') {
      plain += '\\';
      i++;
      continue;
    }
    const hex = /^x([0-9a-fA-F]{2})/.exec(text.slice(i + 1, i + 4));
    if (hex === null) {
      return undefined;
    }
    parts.push(utf8(plain), Uint8Array.of(Number.parseInt(hex[1] as string, 16)));
    plain = '';
    i += 3;
  }
  parts.push(utf8(plain));
  return concatBytes(...parts);
}
