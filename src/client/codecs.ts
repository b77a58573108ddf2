/**
 * How typed keys and values become bytes. A codec used for keys must keep order: `compareBytes(encode(a), encode(b))`
 * has the sign of `a` compared with `b`; those are the ones typed `KeyCodec`.
 */
import { concatBytes, fromUtf8, utf8 } from '../base/bytes.ts';
import { CodecError, InvalidArgumentError } from './errors.ts';

export interface Codec<T> {
  /** The result is read before the call that caused it returns; it may be kept by the codec. */
  encode(value: T): Uint8Array;
  /** `bytes` belongs to the codec. Throws when it is not an encoding of this codec. */
  decode(bytes: Uint8Array): T;
}

/** A codec whose encoding keeps the order of the values. */
export interface KeyCodec<T> extends Codec<T> {
  readonly ordered: true;
}

const strictDecoder = new TextDecoder('utf-8', { fatal: true });
const U64_MAX = 2n ** 64n - 1n;

/** Text as UTF-8; ordered by code point. */
export const utf8Codec: KeyCodec<string> = {
  ordered: true,
  encode(value) {
    if (typeof value !== 'string') {
      throw new InvalidArgumentError(`the utf8 codec takes a string, got ${describe(value)}`);
    }
    return utf8(value);
  },
  decode(bytes) {
    try {
      return strictDecoder.decode(bytes);
    } catch (cause) {
      throw new CodecError(`${bytes.length} bytes are not UTF-8 text`, { cause });
    }
  },
};

/** Bytes as they are; a string stands for its UTF-8 bytes. This is what a plain connection uses. */
export const bytesCodec: KeyCodec<Uint8Array> = {
  ordered: true,
  encode(value: Uint8Array | string) {
    if (typeof value === 'string') {
      return utf8(value);
    }
    if (value instanceof Uint8Array) {
      return value;
    }
    throw new InvalidArgumentError(`keys and values are Uint8Array or string, got ${describe(value)}`, {
      hint: 'choose a codec with withCodec() for other types',
    });
  },
  decode: (bytes) => bytes,
};

/**
 * JSON text. `validate` turns what was parsed into the wanted type and throws otherwise. Not for keys: object order and
 * number formats do not sort.
 */
export function json<T>(validate?: (value: unknown) => T): Codec<T> {
  return {
    encode(value) {
      const text = JSON.stringify(value);
      if (text === undefined) {
        throw new InvalidArgumentError(`${describe(value)} has no JSON form`, {
          hint: 'delete the key instead of storing undefined',
        });
      }
      return utf8(text);
    },
    decode(bytes) {
      let parsed: unknown;
      try {
        parsed = JSON.parse(fromUtf8(bytes));
      } catch (cause) {
        throw new CodecError(`${bytes.length} bytes are not JSON`, { cause });
      }
      return validate === undefined ? (parsed as T) : validate(parsed);
    },
  };
}

/** Integers from 0 to 2^64-1 as eight bytes, big end first. */
export const u64be: KeyCodec<bigint> = {
  ordered: true,
  encode(value) {
    if (typeof value !== 'bigint' || value < 0n || value > U64_MAX) {
      throw new InvalidArgumentError(`the u64be codec takes a bigint from 0 to 2^64-1, got ${describe(value)}`);
    }
    const out = new Uint8Array(8);
    new DataView(out.buffer).setBigUint64(0, value);
    return out;
  },
  decode(bytes) {
    if (bytes.length !== 8) {
      throw new CodecError(`u64be needs 8 bytes, got ${bytes.length}`);
    }
    return new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0);
  },
};

/** A tuple codec, which can also encode the first elements alone as the common prefix of all tuples that start so. */
export interface TupleCodec<T extends readonly unknown[]> extends KeyCodec<T> {
  /** Bytes with which every tuple begins whose first elements are `elements`; use it with `prefix()`. */
  prefix(...elements: Partial<T>): Uint8Array;
}

const ESCAPE = 0x00;
const ESCAPED_ZERO = 0xff;
const TERMINATOR = 0x01;

/**
 * Several keys in one, ordered element by element. Zero bytes inside an element become 00 ff and every element ends
 * with 00 01, which sorts a shorter element before every longer one (the scheme of CockroachDB's key encoding,
 * cockroachdb/cockroach: pkg/util/encoding/encoding.go).
 */
export function tuple<T extends readonly unknown[]>(
  ...codecs: { readonly [I in keyof T]: KeyCodec<T[I]> }
): TupleCodec<T> {
  const parts = codecs as readonly KeyCodec<unknown>[];
  const encodeFirst = (values: readonly unknown[]): Uint8Array =>
    concatBytes(...values.map((value, i) => escapeElement((parts[i] as KeyCodec<unknown>).encode(value))));
  return {
    ordered: true,
    encode(value) {
      if (!Array.isArray(value) || value.length !== parts.length) {
        throw new InvalidArgumentError(
          `the tuple codec takes an array of ${parts.length} elements, got ${describe(value)}`,
        );
      }
      return encodeFirst(value);
    },
    decode(bytes) {
      const elements = splitElements(bytes);
      if (elements.length !== parts.length) {
        throw new CodecError(`the key has ${elements.length} elements, the tuple codec ${parts.length}`);
      }
      return elements.map((element, i) => (parts[i] as KeyCodec<unknown>).decode(element)) as unknown as T;
    },
    prefix(...elements) {
      if (elements.length > parts.length) {
        throw new InvalidArgumentError(`the tuple codec has ${parts.length} elements, got ${elements.length}`);
      }
      return encodeFirst(elements);
    },
  };
}

function escapeElement(bytes: Uint8Array): Uint8Array {
  let zeros = 0;
  for (const byte of bytes) {
    if (byte === ESCAPE) {
      zeros++;
    }
  }
  const out = new Uint8Array(bytes.length + zeros + 2);
  let at = 0;
  for (const byte of bytes) {
    out[at++] = byte;
    if (byte === ESCAPE) {
      out[at++] = ESCAPED_ZERO;
    }
  }
  out[at++] = ESCAPE;
  out[at] = TERMINATOR;
  return out;
}

function splitElements(bytes: Uint8Array): Uint8Array[] {
  const elements: Uint8Array[] = [];
  const element = new Uint8Array(bytes.length);
  let length = 0;
  let at = 0;
  while (at < bytes.length) {
    const byte = bytes[at++] as number;
    if (byte !== ESCAPE) {
      element[length++] = byte;
      continue;
    }
    const next = bytes[at++];
    if (next === ESCAPED_ZERO) {
      element[length++] = ESCAPE;
    } else if (next === TERMINATOR) {
      elements.push(new Uint8Array(element.subarray(0, length)));
      length = 0;
    } else {
      throw new CodecError('the key is not an encoded tuple');
    }
  }
  if (length !== 0) {
    throw new CodecError('the key is an encoded tuple that was cut off');
  }
  return elements;
}

function describe(value: unknown): string {
  if (value === null) {
    return 'null';
  }
  if (Array.isArray(value)) {
    return `an array of ${value.length}`;
  }
  return typeof value === 'number' || typeof value === 'bigint' ? `${typeof value} ${value}` : typeof value;
}
