/**
 * A database that nobody uses, opened for reading without a change to its directory.
 *
 * LevelDB has no such mode: every open replays the write-ahead log into new tables and deletes files. So a scratch
 * directory is opened instead, in which tables, which never change, are links to the real ones, and logs and manifests
 * are copies. The lock is the real one: a link to it makes a second, empty scratch database take it, so that as long as
 * this is open no process can start on the directory, and nothing is opened while one uses it.
 *
 * ```text
 * <scratch>/lock/LOCK        -> <database>/LOCK          held from before the first byte is read
 * <scratch>/db/000005.ldb    -> <database>/000005.ldb
 * <scratch>/db/CURRENT, MANIFEST-*, *.log, SUSPECT       copies
 * ```
 */
import { constants, copyFile, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { AppError } from '../../base/app-error.ts';
import { createLevelEngineFactory } from '../../engine/index.ts';
import { nativeErrorCode } from '../../engine/level/native.ts';
import { SuspectDatabaseError } from '../../engine/level/suspect.ts';
import { scanWal, type WalFinding } from '../../engine/level/wal-scan.ts';
import { CorruptionError, type Engine, EngineOpenError } from '../../env/engine.ts';

const LOCK = 'LOCK';
const SCRATCH_PREFIX = 'braid-offline-';
/** Files whose content changes while the database is in use. */
const COPIED = /^(?:CURRENT|SUSPECT|MANIFEST-\d+|\d+\.log)$/;
/** Written once, under a name that is never used again. */
const LINKED = /^\d+\.(?:ldb|sst)$/;

/** A process uses the directory. */
export class DirectoryInUseError extends AppError {
  constructor(path: string, cause?: unknown) {
    super('EngineOpen', `${path} is in use by a running process`, {
      hint: 'stop the process that uses it; "braid ctl" looks at running stores',
      cause,
    });
  }
}

/** There is no room for the scratch copy, or no right to make it. */
export class ScratchError extends AppError {
  constructor(cause: unknown) {
    super(
      'Scratch',
      `the scratch copy in ${tmpdir()} cannot be made: ${cause instanceof Error ? cause.message : String(cause)}`,
      {
        hint: 'set TMPDIR to a directory that this user may write to and that has room for the write-ahead log',
        cause,
      },
    );
  }
}

/** What one log file of a database looks like. */
export interface LogFile {
  readonly name: string;
  readonly sizeBytes: number;
  readonly finding: WalFinding;
}

/** Files of a database, as they are in its own directory. */
export interface DatabaseFiles {
  readonly tables: number;
  readonly tableBytes: number;
  readonly logs: readonly LogFile[];
}

export type FrozenState =
  | { readonly type: 'sound'; readonly engine: Engine }
  /** The database is one of ours and has lost or damaged records; it cannot be read. */
  | { readonly type: 'damaged'; readonly error: EngineOpenError };

/** Holds the lock of a database until it is disposed of. Nothing that is done with it reaches the directory. */
export class FrozenCopy implements AsyncDisposable {
  readonly files: DatabaseFiles;
  readonly state: FrozenState;
  readonly #close: () => Promise<void>;

  private constructor(files: DatabaseFiles, state: FrozenState, close: () => Promise<void>) {
    this.files = files;
    this.state = state;
    this.#close = close;
  }

  /**
   * @param path directory of the database itself
   * @throws DirectoryInUseError; EngineOpenError for anything that is no database of this program
   */
  static async open(path: string): Promise<FrozenCopy> {
    const scratch = await makeScratch();
    const opened: Engine[] = [];
    const close = async (): Promise<void> => {
      for (const engine of opened.toReversed()) {
        await engine.close();
      }
      await rm(scratch, { recursive: true, force: true });
    };
    try {
      const hasLock = await holdLock(path, scratch, opened);
      const files = await copyFiles(path, join(scratch, 'db')).catch((error: unknown) => {
        throw isNoSpace(error) ? new ScratchError(error) : error;
      });
      if (!hasLock && (await exists(join(path, LOCK)))) {
        // It was started on while its files were being copied.
        throw new DirectoryInUseError(path);
      }
      return new FrozenCopy(files, await openCopy(path, join(scratch, 'db'), opened), close);
    } catch (error) {
      await close();
      throw error;
    }
  }

  /** @throws EngineOpenError when the database is damaged */
  get engine(): Engine {
    if (this.state.type === 'damaged') {
      throw this.state.error;
    }
    return this.state.engine;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#close();
  }
}

async function makeScratch(): Promise<string> {
  try {
    return await mkdtemp(join(tmpdir(), SCRATCH_PREFIX));
  } catch (error) {
    throw new ScratchError(error);
  }
}

/** Takes the lock of the database. Without a lock file, as in a copy that left it out, nobody can hold it. */
async function holdLock(path: string, scratch: string, opened: Engine[]): Promise<boolean> {
  if (!(await exists(join(path, LOCK)))) {
    return false;
  }
  const holder = join(scratch, 'lock');
  await mkdir(holder);
  await symlink(resolve(path, LOCK), join(holder, LOCK));
  try {
    opened.push(await createLevelEngineFactory({ blockCacheBytes: 0 }).open({ path: holder, createIfMissing: true }));
  } catch (error) {
    throw nativeErrorCode(error) === 'LEVEL_LOCKED'
      ? new DirectoryInUseError(path, error)
      : new EngineOpenError(
          `the lock of ${path} cannot be taken: ${error instanceof Error ? error.message : String(error)}`,
          'run this as the user the store runs as; the file LOCK must be writable, although nothing is written to it',
          error,
        );
  }
  return true;
}

async function copyFiles(from: string, to: string): Promise<DatabaseFiles> {
  await mkdir(to);
  let tables = 0;
  let tableBytes = 0;
  const logs: LogFile[] = [];
  for (const name of (await readdir(from)).toSorted()) {
    const source = join(from, name);
    if (LINKED.test(name)) {
      await symlink(resolve(source), join(to, name));
      tables++;
      tableBytes += (await stat(source)).size;
    } else if (COPIED.test(name)) {
      await copyFile(source, join(to, name), constants.COPYFILE_FICLONE);
      if (name.endsWith('.log')) {
        const log = await readFile(join(to, name));
        logs.push({ name, sizeBytes: log.length, finding: scanWal(log) });
      }
    }
  }
  return { tables, tableBytes, logs };
}

async function openCopy(path: string, copy: string, opened: Engine[]): Promise<FrozenState> {
  try {
    const engine = await createLevelEngineFactory().open({ path: copy, createIfMissing: false });
    opened.push(engine);
    return { type: 'sound', engine };
  } catch (error) {
    if (!(error instanceof EngineOpenError)) {
      throw error;
    }
    // The user knows the directory, not its copy.
    const named = new EngineOpenError(
      error.message.replaceAll(copy, path),
      (error.hint ?? '').replaceAll(copy, path),
      error,
    );
    if (isDamage(error)) {
      return { type: 'damaged', error: named };
    }
    throw named;
  }
}

const isDamage = (error: EngineOpenError): boolean =>
  error instanceof SuspectDatabaseError ||
  error.cause instanceof CorruptionError ||
  nativeErrorCode(error) === 'LEVEL_CORRUPTION' ||
  /^the database at .* is damaged:/.test(error.message);

const isNoSpace = (error: unknown): boolean =>
  ['ENOSPC', 'EDQUOT', 'EROFS'].includes((error as NodeJS.ErrnoException).code ?? '');

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') {
      return false;
    }
    throw error;
  }
}
