/**
 * Splits a byte stream into lines with their numbers. Owns the two border checks of every text format: a line must be
 * UTF-8 and must not be longer than anything that could be stored. Never buffers more than one line and one chunk.
 */
import { isUtf8 } from 'node:buffer';

export type SourceLine =
  | { readonly type: 'line'; readonly line: number; readonly text: string }
  | { readonly type: 'bad'; readonly line: number; readonly problem: 'not-utf8' | 'too-long' };

const LF = 0x0a;
const BOM = [0xef, 0xbb, 0xbf];

/** `text` keeps a carriage return at its end: inside a quoted field it belongs to the value. */
export async function* readLines(
  source: AsyncIterable<Uint8Array>,
  lineBytesMax: number,
  onBytes: (bytes: number) => void,
): AsyncGenerator<readonly SourceLine[], void, undefined> {
  let pending: Buffer[] = [];
  let pendingBytes = 0;
  let isTooLong = false;
  let line = 0;
  let isFirst = true;

  const finish = (last: Buffer): SourceLine => {
    line++;
    const whole = pending.length === 0 ? last : Buffer.concat([...pending, last], pendingBytes + last.length);
    const wasTooLong = isTooLong || whole.length > lineBytesMax;
    pending = [];
    pendingBytes = 0;
    isTooLong = false;
    if (wasTooLong) {
      return { type: 'bad', line, problem: 'too-long' };
    }
    const isMarked = isFirst && BOM.every((byte, i) => whole[i] === byte);
    isFirst = false;
    const text = isMarked ? whole.subarray(BOM.length) : whole;
    return isUtf8(text)
      ? { type: 'line', line, text: text.toString('utf8') }
      : { type: 'bad', line, problem: 'not-utf8' };
  };

  for await (const part of source) {
    const chunk = Buffer.from(part.buffer, part.byteOffset, part.length);
    const lines: SourceLine[] = [];
    let at = 0;
    for (let end = chunk.indexOf(LF); end >= 0; end = chunk.indexOf(LF, at)) {
      lines.push(finish(chunk.subarray(at, end)));
      at = end + 1;
    }
    if (at < chunk.length) {
      if (isTooLong || pendingBytes + chunk.length - at > lineBytesMax) {
        isTooLong = true;
        pending = [];
        pendingBytes = 0;
      } else {
        // Copied, because the stream may use its memory again.
        pending.push(Buffer.from(chunk.subarray(at)));
        pendingBytes += chunk.length - at;
      }
    }
    onBytes(chunk.length);
    if (lines.length > 0) {
      yield lines;
    }
  }
  if (pendingBytes > 0 || isTooLong) {
    yield [finish(Buffer.alloc(0))];
  }
}
