/**
 * Opens and checks a LevelDB directory. Everything that LevelDB would silently accept is refused here: a missing
 * CURRENT file (LevelDB would start empty and delete the old tables), a damaged log, a database of someone else.
 */
import { mkdir, readdir, readFile, rm, stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { CorruptionError, EngineOpenError, type EngineOptions } from '../../env/engine.ts';
import { seal, unseal } from '../checksum.ts';
import { ENGINE_PREFIX } from '../keyspace.ts';
import { nativeErrorCode, nativeErrorMessage, openNative, type NativeDatabase, type NativeOptions } from './native.ts';
import { checkRing, WRITE_BUFFER_BYTES } from './ring.ts';
import { readSuspectMark, SuspectDatabaseError, syncDirectory, writeSuspectMark } from './suspect.ts';
import { scanWal } from './wal-scan.ts';

/** Version of what this room writes: sealed values, the ring, the room byte 0x00. */
const FORMAT_VERSION = 1;
const FORMAT_KIND = 0x00;
const FORMAT_MAGIC = 'braid-engine';
/** LevelDB keeps this many table files open. */
const OPEN_FILES_MAX = 1000;
const TABLE_FILE_BYTES = 8 * 1024 * 1024;
const LOG_LINES_IN_ERROR_MAX = 3;

export interface OpenedDatabase {
  readonly database: NativeDatabase;
  /** Number of the last physical batch; 0 in a new database. */
  readonly lastNumber: number;
}

type DirectoryState =
  | { readonly type: 'missing' }
  | { readonly type: 'empty' }
  | { readonly type: 'database' }
  | { readonly type: 'damaged'; readonly finding: string }
  /** An earlier open found that acknowledged writes are lost. */
  | { readonly type: 'suspect'; readonly finding: string };

async function inspectDirectory(path: string): Promise<DirectoryState> {
  let names: string[];
  try {
    names = await readdir(path);
  } catch (error) {
    if (isMissing(error)) {
      return { type: 'missing' };
    }
    throw error;
  }
  const mark = await readSuspectMark(path, names);
  if (mark !== undefined) {
    return { type: 'suspect', finding: mark };
  }
  const hasCurrent = names.includes('CURRENT');
  const hasTables = names.some((name) => name.endsWith('.ldb') || name.endsWith('.sst'));
  const hasLog = names.some((name) => name.endsWith('.log'));
  // A crash while a database is created leaves at most LOG, LOCK and a manifest; data files prove that it had lived.
  if (!hasCurrent && (hasTables || hasLog)) {
    return { type: 'damaged', finding: 'it has data files but no CURRENT file' };
  }
  // Every open creates a log before it deletes older ones. LevelDB itself would go on without it, minus its writes.
  if (hasTables && !hasLog) {
    return { type: 'damaged', finding: 'it has table files but no log file' };
  }
  return { type: hasCurrent ? 'database' : 'empty' };
}

function refuseDirectory(state: DirectoryState, options: EngineOptions): EngineOpenError | undefined {
  const { path } = options;
  if (state.type === 'suspect') {
    return new SuspectDatabaseError(path, state.finding);
  }
  if (state.type === 'damaged') {
    return new EngineOpenError(
      `the database at ${path} is damaged: ${state.finding}`,
      `do not start a store on this directory: restore it completely, or move it away and start an empty store under a new id`,
    );
  }
  if (state.type === 'database' || options.createIfMissing) {
    return undefined;
  }
  return new EngineOpenError(
    state.type === 'missing' ? `there is no directory ${path}` : `the directory ${path} holds no database`,
    `check the data directory in the configuration; a new store must be bootstrapped first, and one that lost its disk must join under a new id`,
  );
}

function openError(path: string, error: unknown): EngineOpenError {
  const reason = nativeErrorMessage(error);
  switch (nativeErrorCode(error)) {
    case 'LEVEL_LOCKED':
      return new EngineOpenError(
        `the database at ${path} is in use: ${reason}`,
        `another process holds ${path}; stop it first, or give this process its own data directory`,
        error,
      );
    case 'LEVEL_CORRUPTION':
      return new EngineOpenError(
        `the database at ${path} is damaged: ${reason}`,
        `keep ${path} aside for analysis and start an empty store under a new id; its regions are replicated again`,
        error,
      );
    default:
      return new EngineOpenError(
        `the database at ${path} cannot be opened: ${reason}`,
        `check that ${path} exists, belongs to this user, is writable, and that the disk is neither full nor faulty`,
        error,
      );
  }
}

/** What the log files say; the worst finding of all of them. */
type LogFinding =
  | { readonly type: 'sound' }
  /** A write was in flight when the process or the machine stopped; nobody was told that it succeeded. */
  | { readonly type: 'torn-tail' }
  | { readonly type: 'damaged'; readonly finding: string };

/** Examines the logs before LevelDB replays and deletes them. */
async function inspectLogs(path: string): Promise<LogFinding> {
  let isTorn = false;
  for (const name of await logNames(path)) {
    let log: Uint8Array;
    try {
      log = await readFile(join(path, name));
    } catch (error) {
      if (isMissing(error)) {
        continue; // Another process has the database open and has just moved on to its next log.
      }
      throw error;
    }
    const finding = scanWal(log);
    if (finding.type === 'damaged') {
      return { type: 'damaged', finding: `${name} is damaged at byte ${finding.offset}, and sound records follow` };
    }
    isTorn ||= finding.type === 'torn-tail';
  }
  return { type: isTorn ? 'torn-tail' : 'sound' };
}

async function logNames(path: string): Promise<string[]> {
  try {
    return (await readdir(path)).filter((name) => name.endsWith('.log')).toSorted();
  } catch (error) {
    if (isMissing(error)) {
      return [];
    }
    throw error;
  }
}

const isMissing = (error: unknown): boolean => (error as { code?: unknown }).code === 'ENOENT';

/**
 * Marks a damaged database without opening it. The logs of a database in use change under the eyes of a reader, so the
 * finding counts only if nobody holds the lock, which LevelDB tries before it complains that the database exists.
 */
async function refuseDamagedLogs(path: string, finding: string): Promise<never> {
  await openNative(path, { ...nativeOptions(0), createIfMissing: false, errorIfExists: true }).then(
    (database) => database.close(),
    (error: unknown) => {
      if (nativeErrorCode(error) === 'LEVEL_LOCKED') {
        throw error;
      }
    },
  );
  await writeSuspectMark(path, finding);
  throw new SuspectDatabaseError(path, finding);
}

/** LevelDB notes ignored damage only in its text log, which starts afresh at every open. */
async function checkTextLog(path: string): Promise<void> {
  const text = await readFile(join(path, 'LOG'), 'utf8');
  const findings = text.split('\n').filter((line) => /ignoring error|dropping \d+ bytes|Corruption:/.test(line));
  if (findings.length > 0) {
    throw new SuspectDatabaseError(path, findings.splice(0, LOG_LINES_IN_ERROR_MAX).join('; '));
  }
}

const formatKey = (): Uint8Array => Uint8Array.of(ENGINE_PREFIX, FORMAT_KIND);

async function checkFormat(database: NativeDatabase, options: EngineOptions): Promise<void> {
  const { path } = options;
  const key = formatKey();
  const stored = await database.get(key);
  if (stored === undefined) {
    const isEmpty = await isDatabaseEmpty(database);
    if (isEmpty && options.createIfMissing) {
      await writeFormat(database, path);
      return;
    }
    throw new EngineOpenError(
      isEmpty
        ? `the database at ${path} was never completely created`
        : `${path} is a LevelDB database of another program`,
      isEmpty ? `delete ${path} and bootstrap the store again` : 'choose another data directory',
    );
  }
  let text: string;
  try {
    text = Buffer.from(unseal(key, stored)).toString('latin1');
  } catch (error) {
    throw new EngineOpenError(
      `${path} is a LevelDB database of another program, or its format record is damaged`,
      'choose another data directory',
      error,
    );
  }
  if (text !== `${FORMAT_MAGIC} ${FORMAT_VERSION}`) {
    throw new EngineOpenError(
      `the database at ${path} has the format "${text}", this program needs "${FORMAT_MAGIC} ${FORMAT_VERSION}"`,
      'start the version of the program that wrote this directory',
    );
  }
}

async function isDatabaseEmpty(database: NativeDatabase): Promise<boolean> {
  const iterator = database.iterator({ reverse: false, values: false, highWaterMarkBytes: 1024, fillCache: false });
  try {
    return (await iterator.nextv(1)).length === 0;
  } finally {
    await iterator.close();
  }
}

async function writeFormat(database: NativeDatabase, path: string): Promise<void> {
  const key = formatKey();
  const batch = database.batch();
  batch.put(key, seal(key, Buffer.from(`${FORMAT_MAGIC} ${FORMAT_VERSION}`, 'latin1')));
  await batch.write({ sync: true });
  await syncDirectory(path);
  await syncDirectory(dirname(resolve(path)));
}

/**
 * LevelDB does not sync its very first manifest, so a power cut while a database is created can leave one that cannot be
 * opened. A database without tables whose logs are empty was never written to: it is removed, never repaired. `CURRENT`
 * goes last, so that a crash in between leaves a directory that is found half-created again.
 * @returns whether there was one
 */
async function removeHalfCreated(path: string): Promise<boolean> {
  const names = await readdir(path);
  if (!names.includes('CURRENT') || names.some((name) => name.endsWith('.ldb') || name.endsWith('.sst'))) {
    return false;
  }
  if (!/^MANIFEST-\d+\n$/.test(await readFile(join(path, 'CURRENT'), 'latin1'))) {
    return false;
  }
  for (const name of await logNames(path)) {
    if ((await stat(join(path, name))).size > 0) {
      return false;
    }
  }
  for (const name of names.filter((each) => /^(MANIFEST-\d+|\d+\.(log|dbtmp))$/.test(each))) {
    await rm(join(path, name));
  }
  await rm(join(path, 'CURRENT'));
  await syncDirectory(path);
  return true;
}

/** Opens the database; one that was never completely created is created anew where that is allowed. */
async function openOrCreate(path: string, options: NativeOptions): Promise<NativeDatabase> {
  try {
    return await openNative(path, options);
  } catch (error) {
    // Whoever holds the lock may be creating it at this moment.
    const isOurs = options.createIfMissing && nativeErrorCode(error) !== 'LEVEL_LOCKED';
    if (isOurs && (await removeHalfCreated(path))) {
      return openNative(path, options);
    }
    throw error;
  }
}

const nativeOptions = (cacheBytes: number): NativeOptions => ({
  createIfMissing: false,
  writeBufferSize: WRITE_BUFFER_BYTES,
  cacheSize: cacheBytes,
  maxFileSize: TABLE_FILE_BYTES,
  maxOpenFiles: OPEN_FILES_MAX,
});

/** @throws EngineOpenError in every case of failure; nothing is left open then. */
export async function openChecked(options: EngineOptions, cacheBytes: number): Promise<OpenedDatabase> {
  const { path, createIfMissing } = options;
  try {
    const refusal = refuseDirectory(await inspectDirectory(path), options);
    if (refusal !== undefined) {
      throw refusal;
    }
    if (createIfMissing) {
      await mkdir(path, { recursive: true });
    }
    const logs = await inspectLogs(path);
    if (logs.type === 'damaged') {
      await refuseDamagedLogs(path, logs.finding);
    }
    const database = await openOrCreate(path, { ...nativeOptions(cacheBytes), createIfMissing });
    return await checkOpened(database, options, logs);
  } catch (error) {
    throw error instanceof EngineOpenError ? error : openError(path, error);
  }
}

/** Checks what can be checked only in an open database; closes it again if anything is wrong. */
async function checkOpened(
  database: NativeDatabase,
  options: EngineOptions,
  logs: LogFinding,
): Promise<OpenedDatabase> {
  const { path } = options;
  try {
    // LevelDB reports a torn tail like any other damage; the scan of the logs told them apart.
    if (logs.type !== 'torn-tail') {
      await checkTextLog(path);
    }
    await checkFormat(database, options);
    return { database, lastNumber: await checkRing(database, path) };
  } catch (error) {
    if (error instanceof SuspectDatabaseError) {
      await writeSuspectMark(path, error.finding);
    }
    await database.close();
    if (error instanceof CorruptionError) {
      throw new EngineOpenError(
        `the database at ${path} is damaged: ${error.message}`,
        `keep ${path} aside for analysis and start an empty store under a new id`,
        error,
      );
    }
    throw error;
  }
}
