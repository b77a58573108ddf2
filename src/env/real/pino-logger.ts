/**
 * Structured logging with pino: one JSON object a line, written to standard error or a file. The only importer of
 * pino. Every line is handed to the operating system within the call: an asynchronous writer could not be waited for when
 * the process has to stop at once, and the last lines are the ones that matter.
 */
import { mkdirSync, openSync } from 'node:fs';
import { dirname } from 'node:path';
import { pino, stdSerializers, type DestinationStream } from 'pino';
import type { LogFields, Logger } from '../log.ts';

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** A logger whose lines can be forced out. */
export interface RealLogger extends Logger {
  /** Writes out what a full pipe held back, synchronously. Never throws. */
  flush(): void;
}

export interface RealLoggerOptions {
  /** Least severe level that is written. Default `info`. */
  readonly level?: LogLevel;
  /** File to append to, or a descriptor. Default 2, standard error. */
  readonly destination?: string | number;
  /** Fields of every line, e.g. the store's id. */
  readonly fields?: LogFields;
}

/** The file descriptor of standard error. */
const STDERR = 2;

interface FlushableStream extends DestinationStream {
  flushSync(): void;
}

class PinoLogger implements RealLogger {
  readonly #pino: pino.Logger;
  readonly #stream: FlushableStream;

  constructor(logger: pino.Logger, stream: FlushableStream) {
    this.#pino = logger;
    this.#stream = stream;
  }

  get debugEnabled(): boolean {
    return this.#pino.isLevelEnabled('debug');
  }

  debug(fields: LogFields, message: string): void {
    this.#pino.debug(fields, message);
  }

  info(fields: LogFields, message: string): void {
    this.#pino.info(fields, message);
  }

  warn(fields: LogFields, message: string): void {
    this.#pino.warn(fields, message);
  }

  error(fields: LogFields, message: string): void {
    this.#pino.error(fields, message);
  }

  child(fields: LogFields): RealLogger {
    return new PinoLogger(this.#pino.child(fields), this.#stream);
  }

  flush(): void {
    try {
      this.#stream.flushSync();
    } catch {
      // The destination is gone or full, and the process is about to stop: there is nowhere left to report it.
    }
  }
}

/** Opened at once: pino opens paths in the background, and a flush before that would lose every line. */
function descriptorOf(destination: string | number): number {
  if (typeof destination === 'number') {
    return destination;
  }
  mkdirSync(dirname(destination), { recursive: true });
  return openSync(destination, 'a');
}

/** A logger on pino. @throws if the destination cannot be opened for appending. */
export function createPinoLogger(options: RealLoggerOptions = {}): RealLogger {
  const stream = pino.destination({ dest: descriptorOf(options.destination ?? STDERR), sync: true });
  const logger = pino(
    {
      level: options.level ?? 'info',
      base: options.fields ?? {},
      timestamp: pino.stdTimeFunctions.isoTime,
      messageKey: 'message',
      errorKey: 'error',
      serializers: { error: stdSerializers.err, cause: stdSerializers.err },
      formatters: { level: (label) => ({ level: label }) },
    },
    stream,
  );
  return new PinoLogger(logger, stream);
}
