/**
 * Writes rows to the cluster: batches, several of them under way, one outcome per row. Of two rows with one key the
 * later one wins, as if the rows were put one after the other: a batch never holds a key twice, and no batch is sent
 * while another one with one of its keys is under way.
 */
import { AppError } from '../../base/app-error.ts';
import type { Reject } from './record-reader.ts';
import type { Row } from './row-mapper.ts';

/** Writes some rows with distinct keys; one outcome per row, undefined for a row that is stored. */
export type WriteRows = (rows: readonly Row[]) => Promise<readonly (Error | undefined)[]>;

export type DuplicatePolicy = 'last' | 'refuse';

export interface LoaderOptions {
  readonly write: WriteRows;
  readonly batchRowsMax: number;
  readonly batchBytesMax: number;
  /** Batches under way at one time. */
  readonly concurrency: number;
  /** `refuse` keeps all keys of the file in memory and rejects every row whose key came before. */
  readonly onDuplicate: DuplicatePolicy;
  readonly onReject: (reject: Reject, row: Row) => void;
}

/** Why loading was given up: no batch got through any more. */
export class LoadStoppedError extends Error {
  constructor(cause: unknown) {
    super('the cluster does not take rows any more', { cause });
    this.name = 'LoadStoppedError';
  }
}

/** So many batches in a row without a single stored row end the import. */
const FAILED_BATCHES_MAX = 3;

/** Errors that say nothing about the row itself. */
const CLUSTER_CODES: ReadonlySet<string> = new Set([
  'Unavailable',
  'DeadlineExceeded',
  'UndeterminedResult',
  'ClientClosed',
  'ClusterMismatch',
  'Aborted',
]);

export class Loader {
  readonly #options: LoaderOptions;
  readonly #running = new Map<Promise<void>, ReadonlySet<string>>();
  readonly #firstLines = new Map<string, number>();
  /** Rows by key; of several with one key only the last is sent, and its outcome is the outcome of them all. */
  #batch = new Map<string, Row[]>();
  #batchBytes = 0;
  #failedBatches = 0;
  #stopped: LoadStoppedError | undefined;

  writtenRows = 0;
  writtenBytes = 0;

  constructor(options: LoaderOptions) {
    this.#options = options;
  }

  /** Takes one row; waits while enough batches are under way. Throws {@link LoadStoppedError} when there is no use. */
  async add(row: Row): Promise<void> {
    const id = Buffer.from(row.key.buffer, row.key.byteOffset, row.key.length).toString('latin1');
    if (this.#options.onDuplicate === 'refuse') {
      const firstLine = this.#firstLines.get(id);
      if (firstLine !== undefined) {
        this.#options.onReject(
          { line: row.line, code: 'DuplicateKey', reason: `the key was already in line ${firstLine}` },
          row,
        );
        return;
      }
      this.#firstLines.set(id, row.line);
    }
    const earlier = this.#batch.get(id);
    if (earlier === undefined) {
      this.#batch.set(id, [row]);
    } else {
      earlier.push(row);
    }
    this.#batchBytes += rowBytes(row);
    if (this.#batch.size >= this.#options.batchRowsMax || this.#batchBytes >= this.#options.batchBytesMax) {
      await this.#send();
    }
  }

  /** Sends what is left and waits for everything under way. */
  async finish(): Promise<void> {
    if (this.#stopped === undefined && this.#batch.size > 0) {
      await this.#send();
    }
    await Promise.all(this.#running.keys());
    if (this.#stopped !== undefined) {
      throw this.#stopped;
    }
  }

  async #send(): Promise<void> {
    const batch = this.#batch;
    this.#batch = new Map();
    this.#batchBytes = 0;
    const keys: ReadonlySet<string> = new Set(batch.keys());
    // Every round waits for at least one batch to end, so the loop ends after as many rounds as there are batches.
    for (;;) {
      const rival = [...this.#running].find(([, others]) => intersects(keys, others));
      if (rival !== undefined) {
        await rival[0];
      } else if (this.#running.size >= this.#options.concurrency) {
        await Promise.race(this.#running.keys());
      } else {
        break;
      }
    }
    if (this.#stopped !== undefined) {
      throw this.#stopped;
    }
    const task = this.#write([...batch.values()]).finally(() => this.#running.delete(task));
    this.#running.set(task, keys);
  }

  /** Never rejects: every failure becomes a rejection of rows. */
  async #write(groups: readonly (readonly Row[])[]): Promise<void> {
    const rows = groups.map((group) => group.at(-1) as Row);
    let outcomes: readonly (Error | undefined)[];
    try {
      outcomes = await this.#options.write(rows);
    } catch (error) {
      const failure = error instanceof Error ? error : new Error(String(error));
      outcomes = rows.map(() => failure);
    }
    let stored = 0;
    let clusterError: Error | undefined;
    groups.forEach((group, i) => {
      const error = outcomes[i];
      if (error === undefined) {
        stored += group.length;
        this.writtenBytes += rowBytes(rows[i] as Row);
        return;
      }
      const isUnknown = error instanceof AppError && error.outcome === 'unknown';
      if (error instanceof AppError && CLUSTER_CODES.has(error.code)) {
        clusterError = error;
      }
      const code = isUnknown ? 'OutcomeUnknown' : 'WriteFailed';
      const reason = `${isUnknown ? 'it is not known whether the row was stored' : 'not stored'}: ${error.message}`;
      for (const row of group) {
        this.#options.onReject({ line: row.line, code, reason }, row);
      }
    });
    this.writtenRows += stored;
    this.#failedBatches = stored > 0 || clusterError === undefined ? 0 : this.#failedBatches + 1;
    if (this.#failedBatches >= FAILED_BATCHES_MAX) {
      this.#stopped ??= new LoadStoppedError(clusterError);
    }
  }
}

const rowBytes = (row: Row): number => row.key.length + row.value.length;

function intersects(a: ReadonlySet<string>, b: ReadonlySet<string>): boolean {
  const [small, large] = a.size < b.size ? [a, b] : [b, a];
  for (const item of small) {
    if (large.has(item)) {
      return true;
    }
  }
  return false;
}
