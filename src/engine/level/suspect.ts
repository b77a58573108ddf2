/**
 * What happens once a database turns out to have lost acknowledged writes: it is refused, now and at every later start.
 * Its store gave promises (votes, acknowledgements) that it no longer remembers, so it may only come back under a new
 * id. LevelDB drops the damaged part at the first successful open and looks sound afterwards, hence the mark.
 */
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { EngineOpenError } from '../../env/engine.ts';

const MARK_FILE = 'SUSPECT';

/** The database lost writes that it had acknowledged. */
export class SuspectDatabaseError extends EngineOpenError {
  /** What was found, without the path. */
  readonly finding: string;

  constructor(path: string, finding: string) {
    super(
      `the database at ${path} lost writes that it had acknowledged: ${finding}`,
      `this store broke promises it gave to other stores and must not rejoin: keep ${path} aside for analysis, start with an empty directory as a new store, and let the regions be replicated again`,
    );
    this.finding = finding;
  }
}

/** The finding of an earlier start; undefined if there is no mark. */
export async function readSuspectMark(path: string, names: readonly string[]): Promise<string | undefined> {
  return names.includes(MARK_FILE) ? (await readFile(join(path, MARK_FILE), 'utf8')).trim() : undefined;
}

/** Leaves the mark, durably. The caller must be the only user of the directory. */
export async function writeSuspectMark(path: string, finding: string): Promise<void> {
  const handle = await open(join(path, MARK_FILE), 'w');
  try {
    await handle.writeFile(`${finding}\n`);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await syncDirectory(path);
}

/** Makes the creation of files in a directory durable; LevelDB does not do it for a new database. */
export async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
