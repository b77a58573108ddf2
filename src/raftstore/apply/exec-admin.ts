/**
 * Executes admin commands: computes the new descriptor, writes region records into the apply batch and says what the
 * peer FSM must know. A refused command leaves the batch untouched. Where going on could corrupt data the store stops
 * (`ctx.abort`). References in brackets are sections of the merge reference; TiKV's counterpart is
 * `components/raftstore/src/store/fsm/apply.rs` (`exec_*`).
 */
import { assert } from '../../base/assert.ts';
import { peerId, regionId } from '../../base/ids.ts';
import type { AdminCommand } from '../../codec/command.ts';
import {
  decodeRaftLocalState,
  decodeRegionLocalState,
  encodeApplyState,
  encodeRegionLocalState,
} from '../../codec/raft-records.ts';
import type { RegionError } from '../../codec/region-error.ts';
import type { ApplyState, MergeState, RaftLocalState, RegionLocalState } from '../../codec/store-record.ts';
import { applyStateKey, raftStateKey, regionStateKey } from '../../engine/keyspace.ts';
import type { WriteBatch } from '../../env/engine.ts';
import { buriedRegion, findPeer, regionsEqual, type Region } from '../../meta/region.ts';
import type { ConfChangeV2, Entry } from '../../raft/types.ts';
import type { StoreContext } from '../context.ts';
import type { AdminRefusal, ExecResult } from '../msg.ts';
import {
  assertEpochMoved,
  changePeers,
  extendByMerge,
  prepareMergeRegion,
  beforePrepare,
  rollbackMergeRegion,
  splitRegion,
} from '../operation/region-change.ts';
import { messageOnly } from '../refusal.ts';
import { putRedirect } from '../store/redirects.ts';
import { childApplyState, truncate } from './apply-state.ts';

/** The state of the region right before the entry. */
export interface AdminInput {
  readonly ctx: StoreContext;
  readonly peerId: number;
  readonly region: Region;
  readonly applyState: ApplyState;
  readonly isMerging: boolean;
  readonly entry: Entry;
  /** Everything before the entry is durable in the engine and `batch` is empty. */
  readonly isFlushed: boolean;
  /** The source whose apply FSM has reported that it is complete and dead; 0 if none. */
  readonly readySourceId: number;
  readonly batch: WriteBatch;
}

export type AdminExecution =
  /** The command reads the engine or needs an exact index: write what is pending and come again. */
  | { readonly type: 'flush-first' }
  /** CommitMerge, first pass: ask the source to complete its log, wait, come again. */
  | {
      readonly type: 'wait-merge-source';
      readonly source: Region;
      readonly commit: number;
      readonly entries: readonly Entry[];
    }
  /** No effect, on all replicas alike. */
  | { readonly type: 'refused'; readonly error: RegionError; readonly refusal?: AdminRefusal }
  | {
      readonly type: 'applied';
      readonly region: Region;
      readonly isMerging: boolean;
      readonly applyState: ApplyState;
      readonly result: ExecResult | undefined;
      /** Resulting regions for whoever proposed the command. */
      readonly regions: readonly Region[];
      /** Clean tasks to start once the batch is durable. */
      readonly cleanTasks: readonly number[];
    };

type Applied = Extract<AdminExecution, { type: 'applied' }>;

const refusedBy = (refusal: AdminRefusal): AdminExecution => ({
  type: 'refused',
  refusal,
  error: messageOnly(`${refusal.code}: ${refusal.message}`),
});

function applied(input: AdminInput, change: Partial<Applied>): Applied {
  const region = change.region ?? input.region;
  return {
    type: 'applied',
    region,
    isMerging: input.isMerging,
    applyState: input.applyState,
    result: undefined,
    regions: [region],
    cleanTasks: [],
    ...change,
  };
}

function putRegion(batch: WriteBatch, state: RegionLocalState): void {
  batch.put(regionStateKey(state.region.id), encodeRegionLocalState(state));
}

const putNormal = (batch: WriteBatch, region: Region): void =>
  putRegion(batch, { state: 'normal', region, mergeState: undefined });

function readRegionState(ctx: StoreContext, region: number): RegionLocalState | undefined {
  const bytes = ctx.engine.getSync(regionStateKey(regionId(region)));
  return bytes === undefined ? undefined : decodeRegionLocalState(bytes);
}

/** What a replica without data promised here; it outlives the process, the replica in memory does not. */
function readRaftState(ctx: StoreContext, region: number): RaftLocalState | undefined {
  const bytes = ctx.engine.getSync(raftStateKey(regionId(region)));
  return bytes === undefined ? undefined : decodeRaftLocalState(bytes);
}

// ---------------------------------------------------------------------------------------------------- split

/**
 * Decides which children this store creates [9.2]. A child's peer may already exist here, created by a message of a
 * store that split earlier, or may even have been removed and added again. Memory is asked before disk, because a
 * destroy that runs concurrently writes its tombstone while it still holds the slot in memory.
 */
function claimChildren(ctx: StoreContext, parent: Region, myPeerId: number, children: readonly Region[]): Set<number> {
  const position = parent.peers.findIndex((peer) => peer.id === myPeerId);
  assert(position >= 0, 'a split is applied by a peer that is not a member', { region: parent.id, myPeerId });
  const skipped = new Set<number>();
  const replacing = new Set<number>();
  for (const child of children) {
    const { id: childPeerId } = child.peers[position] as Region['peers'][number];
    const pending = ctx.pendingCreatePeers.get(child.id);
    if (pending === undefined) {
      ctx.pendingCreatePeers.set(child.id, { peerId: childPeerId, isSplitting: true });
    } else if (pending.peerId === childPeerId && !pending.isSplitting && pending.hasSnapshot !== true) {
      ctx.pendingCreatePeers.set(child.id, { peerId: childPeerId, isSplitting: true });
      replacing.add(child.id);
    } else {
      ctx.log.warn(
        { region: parent.id, child: child.id, pending: pending.peerId },
        'split skips a child that is being created',
      );
      skipped.add(child.id);
    }
  }
  for (const child of children) {
    if (skipped.has(child.id)) {
      continue;
    }
    const existing = readRegionState(ctx, child.id);
    if (existing === undefined) {
      const { id: childPeerId } = child.peers[position] as Region['peers'][number];
      const promised = readRaftState(ctx, child.id)?.peerId ?? 0;
      if (promised > childPeerId) {
        // Removed here and added again, which this store learned before it died: the newer replica waits for its data.
        ctx.pendingCreatePeers.delete(child.id);
        ctx.log.warn({ region: parent.id, child: child.id, promised }, 'split skips a child that was replaced');
        skipped.add(child.id);
      }
      continue;
    }
    if (replacing.has(child.id)) {
      ctx.abort(`region ${child.id} has a record although its uninitialized peer was still waiting to be replaced`);
    }
    ctx.pendingCreatePeers.delete(child.id);
    ctx.log.warn(
      { region: parent.id, child: child.id, state: existing.state },
      'split skips a child that existed before',
    );
    skipped.add(child.id);
  }
  return skipped;
}

function execSplit(input: AdminInput, command: Extract<AdminCommand, { type: 'batch-split' }>): AdminExecution {
  const { ctx, batch } = input;
  const split = splitRegion(input.region, command.children);
  if (split.type === 'refused') {
    return refusedBy(split.refusal);
  }
  const { derived, regions } = split;
  const children = regions.filter((region) => region.id !== derived.id);
  const skipped = claimChildren(ctx, input.region, input.peerId, children);
  // One batch: a crash before it repeats the whole command, one after it finds all parts.
  putNormal(batch, derived);
  putRedirect(batch, input.region, derived.id);
  const cleanTasks: number[] = [];
  for (const child of children) {
    if (skipped.has(child.id)) {
      cleanTasks.push(ctx.workers.addCleanTask(batch, child.range));
      continue;
    }
    putNormal(batch, child);
    batch.put(applyStateKey(child.id), encodeApplyState(childApplyState()));
  }
  return applied(input, {
    region: derived,
    regions,
    cleanTasks,
    result: { type: 'split', derived, regions, skipped },
  });
}

// ---------------------------------------------------------------------------------------------------- merge

function execPrepareMerge(
  input: AdminInput,
  command: Extract<AdminCommand, { type: 'prepare-merge' }>,
): AdminExecution {
  const { ctx, applyState, batch, entry } = input;
  const firstIndex = applyState.truncatedIndex + 1;
  if (command.minIndex < firstIndex) {
    return ctx.abort(
      `region ${input.region.id} compacted its log up to ${applyState.truncatedIndex}, but a merge needs entries from ${command.minIndex}`,
    );
  }
  assert(!input.isMerging, 'PrepareMerge passed its epoch check while merging', { region: input.region.id });
  const region = prepareMergeRegion(input.region);
  const state: MergeState = { minIndex: command.minIndex, target: command.target, commit: entry.index };
  putRegion(batch, { state: 'merging', region, mergeState: state });
  return applied(input, { region, isMerging: true, result: { type: 'prepare-merge', region, state } });
}

function execCommitMerge(input: AdminInput, command: Extract<AdminCommand, { type: 'commit-merge' }>): AdminExecution {
  const { ctx, batch, region: target, readySourceId } = input;
  const { source, commit } = command;
  const extended = extendByMerge(target, source);
  if (extended.type === 'refused') {
    return refusedBy(extended.refusal);
  }
  if (!input.isFlushed) {
    return { type: 'flush-first' };
  }
  if (readySourceId === 0) {
    return { type: 'wait-merge-source', source, commit, entries: command.entries };
  }
  if (readySourceId !== source.id) {
    return ctx.abort(`region ${target.id} waits for source ${source.id}, but source ${readySourceId} reported`);
  }
  const state = readRegionState(ctx, source.id);
  if (state?.state !== 'merging' || state.mergeState?.commit !== commit || !regionsEqual(state.region, source)) {
    return ctx.abort(
      `source ${source.id} of a merge into region ${target.id} is not in the state the merge was decided on`,
    );
  }
  // One batch: the target owns the source's keys exactly when the source is gone. The tombstone names the target as it
  // was before, which is what later gc decisions compare with [4.10].
  putNormal(batch, extended.region);
  for (const before of [target, source, beforePrepare(source)]) {
    putRedirect(batch, before, target.id);
  }
  putRegion(batch, {
    state: 'tombstone',
    region: source,
    mergeState: { minIndex: state.mergeState.minIndex, target, commit },
  });
  return applied(input, {
    region: extended.region,
    result: { type: 'commit-merge', index: input.entry.index, region: extended.region, source },
  });
}

function execRollbackMerge(
  input: AdminInput,
  command: Extract<AdminCommand, { type: 'rollback-merge' }>,
): AdminExecution {
  const { ctx, batch } = input;
  if (!input.isFlushed) {
    return { type: 'flush-first' };
  }
  const state = readRegionState(ctx, input.region.id);
  if (state?.state !== 'merging' || state.mergeState?.commit !== command.commit || !input.isMerging) {
    return ctx.abort(`region ${input.region.id} rolls back the merge at ${command.commit} without being in it`);
  }
  const region = rollbackMergeRegion(input.region);
  putNormal(batch, region);
  for (const before of [input.region, beforePrepare(input.region)]) {
    putRedirect(batch, before, region.id);
  }
  return applied(input, {
    region,
    isMerging: false,
    result: { type: 'rollback-merge', region, commit: command.commit },
  });
}

// ---------------------------------------------------------------------------------------------------- membership, log

/** A conf change entry: `command` came in its context. */
export function execChangePeer(
  input: AdminInput,
  command: Extract<AdminCommand, { type: 'change-peer' }>,
  confChange: ConfChangeV2,
): AdminExecution {
  const changed = changePeers(input.region, command.changes);
  if (changed.type === 'refused') {
    return refusedBy(changed.refusal);
  }
  const { region } = changed;
  assertEpochMoved('change-peer', input.region, region);
  // A replica that removes itself leaves a tombstone at once: after a crash nobody would be there to finish its end.
  const self = findPeer(input.region, peerId(input.peerId));
  assert(self !== undefined, 'a membership change is applied by a peer that is not a member', { peer: input.peerId });
  if (findPeer(region, self.id) === undefined) {
    putRegion(input.batch, { state: 'tombstone', region: buriedRegion(region, self), mergeState: undefined });
  } else {
    putNormal(input.batch, region);
  }
  return applied(input, {
    region,
    result: {
      type: 'change-peer',
      index: input.entry.index,
      confChange,
      changes: command.changes,
      region,
      applied: true,
    },
  });
}

function execCompactLog(input: AdminInput, command: Extract<AdminCommand, { type: 'compact-log' }>): AdminExecution {
  const { applyState } = input;
  if (input.isMerging || command.index <= applyState.truncatedIndex + 1) {
    // While merging the entries from minIndex on must stay: CommitMerge may have to carry them [4.3, 12.1].
    return applied(input, {});
  }
  if (command.index > applyState.appliedIndex || command.term === 0) {
    return refusedBy({
      code: 'CompactBeyondApplied',
      message: `cannot compact the log up to ${command.index} (term ${command.term}), applied is ${applyState.appliedIndex}`,
    });
  }
  return applied(input, {
    applyState: truncate(applyState, command.index, command.term),
    result: { type: 'compact-log', truncatedIndex: command.index, truncatedTerm: command.term },
  });
}

/** Executes an admin command whose epoch was checked. Consistency commands need state of their own and live in the FSM. */
export function execAdmin(
  input: AdminInput,
  command: Exclude<AdminCommand, { type: 'change-peer' | 'compute-hash' | 'verify-hash' }>,
): AdminExecution {
  const execution = dispatch(input, command);
  if (execution.type === 'applied') {
    assertEpochMoved(command.type, input.region, execution.region);
  }
  return execution;
}

function dispatch(
  input: AdminInput,
  command: Exclude<AdminCommand, { type: 'change-peer' | 'compute-hash' | 'verify-hash' }>,
): AdminExecution {
  switch (command.type) {
    case 'batch-split':
      return execSplit(input, command);
    case 'prepare-merge':
      return execPrepareMerge(input, command);
    case 'commit-merge':
      return execCommitMerge(input, command);
    case 'rollback-merge':
      return execRollbackMerge(input, command);
    case 'compact-log':
      return execCompactLog(input, command);
  }
}
