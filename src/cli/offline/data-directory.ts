/** What the directory named on the command line is, and opening it for reading. Everything it may be instead is refused by name. */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { AppError } from '../../base/app-error.ts';
import type { StoreIdent } from '../../codec/store-record.ts';
import type { Engine } from '../../env/engine.ts';
import { type DiskContent, inspectDisk } from '../../pd/group/group-disk.ts';
import { readStoreIdent } from '../../raftstore/store/bootstrap.ts';
import { DATABASE, IDENT_FILE, readIdentFile } from '../../server/data-dir.ts';
import { FrozenCopy } from './frozen-copy.ts';

/** The directory cannot be worked on. */
export class OfflineDirectoryError extends AppError {
  constructor(message: string, hint: string, cause?: unknown) {
    super('DataDir', message, { hint, ...(cause === undefined ? {} : { cause }) });
  }
}

/** What can be told from the names of files alone. */
export type DirectoryKind =
  | { readonly type: 'store'; readonly ident: StoreIdent; readonly databasePath: string }
  /** Perhaps of a placement member: a database without a store around it. */
  | { readonly type: 'bare'; readonly databasePath: string };

export type OpenDirectory =
  | { readonly type: 'store'; readonly path: string; readonly ident: StoreIdent; readonly copy: FrozenCopy }
  | {
      readonly type: 'placement';
      readonly path: string;
      /** Undefined when the database is damaged. */
      readonly content: Exclude<DiskContent, { type: 'empty' }> | undefined;
      readonly copy: FrozenCopy;
    };

async function namesIn(path: string): Promise<readonly string[]> {
  try {
    return await readdir(path);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT') {
      throw new OfflineDirectoryError(`there is no directory ${path}`, 'check the path', cause);
    }
    throw code === 'ENOTDIR'
      ? new OfflineDirectoryError(`${path} is no directory`, 'name the data directory of a store', cause)
      : new OfflineDirectoryError(
          `${path} cannot be read: ${code ?? String(cause)}`,
          'run this as the user the store runs as',
          cause,
        );
  }
}

/** @throws OfflineDirectoryError, DataDirError for a damaged IDENT */
export async function directoryKind(path: string): Promise<DirectoryKind> {
  const names = await namesIn(path);
  const databasePath = join(path, DATABASE);
  const ident = await readIdentFile(path);
  const hasDatabase = names.includes(DATABASE) && (await stat(databasePath)).isDirectory();
  if (ident !== undefined && hasDatabase) {
    return { type: 'store', ident, databasePath };
  }
  if (ident !== undefined) {
    throw new OfflineDirectoryError(
      `${path} is the directory of store ${ident.storeId}, but its database ${databasePath} is missing`,
      'restore the directory as a whole, or start an empty store with another --data-dir',
    );
  }
  if (names.includes('CURRENT')) {
    if (names.some((name) => name.startsWith('MANIFEST-'))) {
      return { type: 'bare', databasePath: path };
    }
    throw new OfflineDirectoryError(
      `${path} is a database that is half there: it has no manifest`,
      'restore the directory as a whole',
    );
  }
  if (hasDatabase) {
    throw new OfflineDirectoryError(
      `${path} has a database but no ${IDENT_FILE}: the first start of this store was never completed, and nothing was promised from it`,
      'start the store again with this --data-dir, or delete the directory',
    );
  }
  const [inside] = names.filter((name) => /^store-\d+$/.test(name)).toSorted();
  throw inside === undefined
    ? new OfflineDirectoryError(
        `${path} is not the data directory of a store`,
        `name the --data-dir of "braid server"; it holds ${IDENT_FILE} and ${DATABASE}/`,
      )
    : new OfflineDirectoryError(
        `${path} holds the directories of several processes`,
        `name one of them: ${join(path, inside)}`,
      );
}

/**
 * Opens a directory without changing it. The caller disposes of `copy`.
 * @throws OfflineDirectoryError, DirectoryInUseError, EngineOpenError
 */
export async function openDirectory(path: string): Promise<OpenDirectory> {
  const kind = await directoryKind(path);
  const copy = await FrozenCopy.open(kind.databasePath);
  try {
    if (kind.type === 'bare') {
      return { type: 'placement', path, content: await placementContent(path, copy), copy };
    }
    if (copy.state.type === 'sound') {
      await requireIdent(path, kind.ident, copy.state.engine);
    }
    return { type: 'store', path, ident: kind.ident, copy };
  } catch (error) {
    await copy[Symbol.asyncDispose]();
    throw error;
  }
}

/** The same for what only stores have. @throws OfflineDirectoryError for a placement member */
export async function openStoreDirectory(path: string): Promise<Extract<OpenDirectory, { type: 'store' }>> {
  const opened = await openDirectory(path);
  if (opened.type === 'store') {
    return opened;
  }
  await opened.copy[Symbol.asyncDispose]();
  throw notOfAStore(path);
}

export const notOfAStore = (path: string): OfflineDirectoryError =>
  new OfflineDirectoryError(
    `${path} is the directory of a placement member, which holds no regions' data`,
    'name the directory of a store; "braid pd recover" brings a placement service back',
  );

async function placementContent(
  path: string,
  copy: FrozenCopy,
): Promise<Exclude<DiskContent, { type: 'empty' }> | undefined> {
  if (copy.state.type === 'damaged') {
    return undefined;
  }
  if ((await readStoreIdent(copy.state.engine)) !== undefined) {
    throw new OfflineDirectoryError(
      `${path} is only the database inside the directory of a store`,
      'name the directory above it',
    );
  }
  const content = await inspectDisk(copy.state.engine);
  if (content.type === 'empty') {
    throw new OfflineDirectoryError(
      `${path} holds an empty database: its first start was never completed`,
      'delete the directory',
    );
  }
  return content;
}

/** The file and the database tell the same store, as {@link openDataDir} of the store process demands. */
export async function requireIdent(path: string, ident: StoreIdent, engine: Engine): Promise<void> {
  const stored = await readStoreIdent(engine);
  if (stored === undefined || stored.storeId !== ident.storeId || stored.clusterId !== ident.clusterId) {
    const whose = stored === undefined ? 'of no store' : `of store ${stored.storeId} of cluster ${stored.clusterId}`;
    throw new OfflineDirectoryError(
      `${path} is the directory of store ${ident.storeId} of cluster ${ident.clusterId}, but its database is ${whose}`,
      'restore the directory as a whole',
    );
  }
}
