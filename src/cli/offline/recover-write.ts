/** Carries a recovery plan out: per region one synced batch, and before it a durable note of what it replaces. */
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { toHex } from '../../base/bytes.ts';
import { encodeApplyState, encodeRaftLocalState, encodeRegionLocalState } from '../../codec/raft-records.ts';
import { applyStateKey, raftStateKey, regionStateKey } from '../../engine/keyspace.ts';
import type { Engine } from '../../env/engine.ts';
import { formatRegion } from '../../meta/region.ts';
import { initialRaftState } from '../../raftstore/store/load.ts';
import type { RegionPlan } from './recover-plan.ts';
import { lastPosition } from './store-content.ts';

/** File in the directory of the store: one JSON line per changed region, with its records as they were. */
export const BACKUP_FILE = 'unsafe-recover.jsonl';
/**
 * Terms jump by this. The lost replicas may have held elections that the survivor never heard of, and the placement
 * service believes nobody of an earlier term.
 */
export const TERMS_AHEAD = 1000;

/** Appends a line and makes it durable. */
async function writeBackup(directory: string, line: object): Promise<void> {
  const file = await open(join(directory, BACKUP_FILE), 'a', 0o600);
  try {
    await file.writeFile(`${JSON.stringify(line)}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
  const parent = await open(directory, 'r');
  try {
    await parent.sync();
  } finally {
    await parent.close();
  }
}

/** Regions of the directory that earlier runs made go on alone. */
export async function recoveredBefore(directory: string): Promise<ReadonlySet<number>> {
  let text: string;
  try {
    text = await readFile(join(directory, BACKUP_FILE), 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') {
      return new Set();
    }
    throw error;
  }
  return new Set(
    text.split('\n').flatMap((line) => {
      // A crash may have left half a line, of a region that was not changed then.
      const [, action, id] = /^\{"at":"[^"]*","action":"([a-z-]+)","regionId":(\d+),.*\}$/.exec(line) ?? [];
      return action === 'recover' ? [Number(id)] : [];
    }),
  );
}

/**
 * Makes what the plan says durable. A crash before the batch leaves the region as it was and a note that says so twice;
 * after it the new state, which a second run takes for healthy.
 * @returns whether anything was changed
 */
export async function carryOut(
  engine: Engine,
  plan: RegionPlan,
  { at, reason }: { readonly at: Date; readonly reason: string | undefined },
): Promise<boolean> {
  const { action, facts, region, chosen, peer } = plan;
  const { local, apply } = facts;
  const isChange = action.type === 'recover' || (action.type === 'start-first' && action.commitsLog);
  if (!isChange || local === undefined || apply === undefined || peer === undefined) {
    return false;
  }
  const last = lastPosition(facts);
  // The store would make up the same for a region that a split has just created.
  const isOwn = facts.raft?.peerId === peer.id && facts.raft.lastIndex > 0;
  const raft = isOwn && facts.raft !== undefined ? facts.raft : initialRaftState(peer.id, facts.raft);
  const batch = engine.createBatch();
  if (action.type === 'recover') {
    batch.put(regionStateKey(region.id), encodeRegionLocalState({ ...local, region: action.after }));
    const term = Math.max(raft.term, last.term) + TERMS_AHEAD;
    batch.put(raftStateKey(region.id), encodeRaftLocalState({ ...raft, term, vote: 0 }));
  } else {
    batch.put(raftStateKey(region.id), encodeRaftLocalState({ ...raft, commit: last.index }));
    batch.put(applyStateKey(region.id), encodeApplyState({ ...apply, commitIndex: last.index, commitTerm: last.term }));
  }
  await writeBackup(chosen.directory, {
    at: at.toISOString(),
    action: action.type,
    regionId: region.id,
    reason: reason ?? null,
    before: formatRegion(region),
    ...(action.type === 'recover' ? { after: formatRegion(action.after) } : { commits: last.index }),
    records: Object.fromEntries(
      await Promise.all(
        [regionStateKey(region.id), raftStateKey(region.id), applyStateKey(region.id)].map(async (key) => {
          const value = await engine.get(key);
          return [toHex(key), value === undefined ? null : toHex(value)] as const;
        }),
      ),
    ),
  });
  await engine.write(batch);
  return true;
}
