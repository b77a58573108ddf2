/**
 * Everything the command line needs from its process: streams, environment, size of the terminal, Ctrl-C. Commands get
 * it handed in, so that tests run them without a process.
 */
import { once } from 'node:events';

/** Where text or bytes go. `write` resolves when the reader has room for more. */
export interface Sink {
  write(data: string | Uint8Array): Promise<void>;
  readonly isTerminal: boolean;
  /** Width of the terminal in characters; 0 when it is none. */
  readonly columns: number;
}

export interface CliIo {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly stdout: Sink;
  readonly stderr: Sink;
  readonly stdin: AsyncIterable<Uint8Array>;
  readonly isStdinTerminal: boolean;
  /** Aborts at Ctrl-C. */
  readonly signal: AbortSignal;
}

/** The reader of stdout went away, as in `braid scan | head`; ends the command without an error. */
export class ReaderGoneError extends Error {
  constructor() {
    super('the reader of the output has closed it');
    this.name = 'ReaderGoneError';
  }
}

class StreamSink implements Sink {
  readonly #stream: NodeJS.WriteStream;
  #isGone = false;

  constructor(stream: NodeJS.WriteStream) {
    this.#stream = stream;
    // Without a listener a closed pipe would end the process with a stack.
    stream.on('error', () => {
      this.#isGone = true;
    });
  }

  get isTerminal(): boolean {
    return this.#stream.isTTY;
  }

  get columns(): number {
    return this.#stream.isTTY ? this.#stream.columns : 0;
  }

  async write(data: string | Uint8Array): Promise<void> {
    if (this.#isGone || this.#stream.destroyed) {
      throw new ReaderGoneError();
    }
    if (data.length > 0 && !this.#stream.write(data)) {
      try {
        await once(this.#stream, 'drain');
      } catch {
        throw new ReaderGoneError();
      }
    }
  }
}

/**
 * The real process. Ctrl-C aborts `signal`, a second one ends the process at once; nothing is done about Ctrl-C before
 * somebody asks for the signal, so that servers handle it in their own way.
 */
export function processIo(): CliIo {
  let controller: AbortController | undefined;
  const interruption = (): AbortController => {
    if (controller === undefined) {
      const made = new AbortController();
      controller = made;
      process.once('SIGINT', () => {
        made.abort(new Error('interrupted'));
        process.once('SIGINT', () => process.exit(130));
      });
    }
    return controller;
  };
  return {
    env: process.env,
    stdout: new StreamSink(process.stdout),
    stderr: new StreamSink(process.stderr),
    // Read lazily: touching process.stdin keeps the process alive.
    stdin: { [Symbol.asyncIterator]: () => (process.stdin as AsyncIterable<Uint8Array>)[Symbol.asyncIterator]() },
    get isStdinTerminal() {
      return process.stdin.isTTY;
    },
    get signal() {
      return interruption().signal;
    },
  };
}

/** All bytes of a stream; undefined as soon as there are more than `maxBytes`. */
export async function readAll(source: AsyncIterable<Uint8Array>, maxBytes: number): Promise<Uint8Array | undefined> {
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const part of source) {
    length += part.length;
    if (length > maxBytes) {
      return undefined;
    }
    parts.push(part);
  }
  return new Uint8Array(Buffer.concat(parts, length));
}
