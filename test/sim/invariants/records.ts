/**
 * What each record of a database's log does to the records of regions: P1, R5, I2, I4, I12. A crash may leave any prefix
 * of the log, so every record must leave a disk that a store may wake up on. Judged when the record becomes durable,
 * whether or not a crash comes.
 */
import { compareBytes, equalBytes } from '../../../src/base/bytes.ts';
import { compareEnds, rangesOverlap } from '../../../src/base/key-range.ts';
import { decodeRegionLocalState } from '../../../src/codec/raft-records.ts';
import type { ApplyState, RaftLocalState, RegionLocalState } from '../../../src/codec/store-record.ts';
import {
  applyStateKey,
  raftStateKey,
  regionIdOfLocalKey,
  regionIdOfStateKey,
  regionStateRange,
} from '../../../src/engine/index.ts';
import type { LogRecord, MemoryDatabase } from '../../../src/engine/memory/crash-model.ts';
import { formatRegion, type Region } from '../../../src/meta/region.ts';
import { applyStateOn, type DiskView, raftStateOn, regionStateOn } from './durable.ts';
import { type Tally, violated } from './observed.ts';

/** First byte and length by which keys of region records are told from entries and data. */
const STATE_FIRST_BYTE = regionStateRange().start[0];
const SAMPLE_LOCAL_KEY = raftStateKey(1 as Region['id']);

interface RegionRecords {
  readonly raft: RaftLocalState | undefined;
  readonly apply: ApplyState | undefined;
  readonly state: RegionLocalState | undefined;
}

const recordsOn = (view: DiskView, region: number): RegionRecords => ({
  raft: raftStateOn(view, region),
  apply: applyStateOn(view, region),
  state: regionStateOn(view, region),
});

const isLive = (state: RegionLocalState | undefined): state is RegionLocalState =>
  state !== undefined && state.state !== 'tombstone' && state.region.peers.length > 0;

const ownPeer = (state: RegionLocalState | undefined, store: number): number | undefined =>
  state?.region.peers.find((peer) => peer.storeId === store)?.id;

/** I2: the live regions on a disk, in key order. They never overlap. */
export function checkedLiveRegions(view: DiskView, store: number): Region[] {
  const live: Region[] = [];
  const range = regionStateRange();
  for (const [key, bytes] of view.entriesFrom(range.start)) {
    if (compareBytes(key, range.end) >= 0) {
      break;
    }
    const state = decodeRegionLocalState(bytes);
    if (isLive(state)) {
      live.push(state.region);
    }
  }
  live.sort((a, b) => compareBytes(a.range.start, b.range.start) || compareEnds(a.range.end, b.range.end));
  for (let i = 1; i < live.length; i++) {
    const [left, right] = [live[i - 1] as Region, live[i] as Region];
    if (rangesOverlap(left.range, right.range)) {
      violated('I2', `the disk of store ${store} holds ${formatRegion(left)} and ${formatRegion(right)}`);
    }
  }
  return live;
}

/** Regions of which a record of the log changes a record; `changesMap` if one of them may have come, gone or moved. */
function touchedBy({ batches }: LogRecord): { readonly regions: Set<number>; readonly changesMap: boolean } {
  const regions = new Set<number>();
  let changesMap = false;
  for (const { keys } of batches) {
    for (const key of keys) {
      if (key[0] === STATE_FIRST_BYTE) {
        regions.add(regionIdOfStateKey(key));
        changesMap = true;
      } else if (key[0] === SAMPLE_LOCAL_KEY[0] && key.length === SAMPLE_LOCAL_KEY.length) {
        const region = regionIdOfLocalKey(key);
        if (equalBytes(key, raftStateKey(region)) || equalBytes(key, applyStateKey(region))) {
          regions.add(region);
        }
      }
    }
  }
  return { regions, changesMap };
}

/**
 * Watches a database from now on.
 * @param inside runs a check in the middle of a store's work
 */
export function watchRecords(
  store: number,
  database: MemoryDatabase,
  tally: Tally,
  inside: (check: () => void) => void,
): void {
  database.watch = (record, apply) => {
    const { regions, changesMap } = touchedBy(record);
    const before = [...regions].map((region) => [region, recordsOn(database.view, region)] as const);
    apply();
    inside(() => {
      for (const [region, old] of before) {
        checkRecords(`region ${region} on store ${store}`, store, old, recordsOn(database.view, region));
      }
      if (changesMap) {
        checkedLiveRegions(database.view, store);
      }
      tally.add('log records');
    });
  };
}

function checkRecords(where: string, store: number, old: RegionRecords, now: RegionRecords): void {
  checkPromises(where, old, now);
  if (old.apply !== undefined && now.apply !== undefined) {
    const { appliedIndex, truncatedIndex } = now.apply;
    if (appliedIndex < old.apply.appliedIndex || truncatedIndex < old.apply.truncatedIndex) {
      violated(
        'R5',
        `the disk of ${where} went back: applied ${old.apply.appliedIndex} to ${appliedIndex}, compacted ${old.apply.truncatedIndex} to ${truncatedIndex}`,
      );
    }
  }
  const buried = old.state?.state === 'tombstone' ? ownPeer(old.state, store) : undefined;
  const own = isLive(now.state) ? ownPeer(now.state, store) : undefined;
  if (buried !== undefined && own !== undefined && own <= buried) {
    violated('I4', `${where} has a tombstone of peer ${buried} and is brought back as peer ${own}`);
  }
  if (isLive(old.state) && isLive(now.state)) {
    const [a, b] = [old.state.region.epoch, now.state.region.epoch];
    if (b.version < a.version || b.confVer < a.confVer) {
      violated(
        'I12',
        `on the disk ${formatRegion(old.state.region)} of ${where} becomes ${formatRegion(now.state.region)}`,
      );
    }
  }
}

/** P1: whatever a replica promised stays promised, until it is buried or a younger one takes its place. */
function checkPromises(where: string, { raft: old }: RegionRecords, { raft: now, state }: RegionRecords): void {
  if (old === undefined) {
    return;
  }
  if (now === undefined) {
    if (old.term > 0 && state?.state !== 'tombstone') {
      violated('P1', `the disk forgets term ${old.term} of peer ${old.peerId} of ${where}, which is not buried`);
    }
    return;
  }
  if (now.peerId !== old.peerId) {
    if (now.peerId < old.peerId) {
      violated('I4', `peer ${now.peerId} of ${where} follows peer ${old.peerId}`);
    }
    return;
  }
  if (now.term < old.term || (now.term === old.term && old.vote !== 0 && now.vote !== old.vote)) {
    violated(
      'P1',
      `the disk of ${where} had a vote for ${old.vote} in term ${old.term}, and now one for ${now.vote} in term ${now.term}`,
    );
  }
  if (now.commit < old.commit) {
    violated('R5', `the disk of ${where} went back from commit ${old.commit} to ${now.commit}`);
  }
}
