/** Log entries of regions as people and tools read them: what each one does, without the values it writes. */
import { formatRange } from '../../base/key-range.ts';
import type { AdminCommand, RaftCommand, WriteOp } from '../../codec/command.ts';
import { decodeRaftCommand } from '../../codec/raft-records.ts';
import { RecordError } from '../../codec/record.ts';
import { formatEpoch, formatRegion, type RegionEpoch } from '../../meta/region.ts';
import { tryDecodeConfChangeV2 } from '../../raft/conf-change.ts';
import { type Entry, EntryType } from '../../raft/types.ts';
import { formatCount, formatEnd, formatKey, formatStart, type KeyFormat } from '../text-form.ts';

/** Operations of one entry that a table shows; documents have all of them. */
const OPS_SHOWN_MAX = 4;

export interface EntryView {
  readonly index: number;
  readonly term: number;
  /** `no-op`, `write`, the name of an admin command, or `unreadable`. */
  readonly type: string;
  readonly epoch: RegionEpoch | undefined;
  readonly sizeBytes: number;
  readonly text: string;
  /** What documents say beyond that. */
  readonly details: Readonly<Record<string, unknown>>;
}

const seconds = (at: number): string => new Date(at * 1000).toISOString();

function opText(op: WriteOp, format: KeyFormat): string {
  switch (op.type) {
    case 'put':
      return `put ${formatKey(op.key, format)} (${formatCount(op.value.length)} bytes${op.expireAtSeconds === 0 ? '' : `, until ${seconds(op.expireAtSeconds)}`})`;
    case 'delete':
      return `delete ${formatKey(op.key, format)}`;
    case 'delete-range':
      return `delete range ${formatStart(op.range.start, format)} to ${formatEnd(op.range.end, format)}`;
    case 'compare-and-swap':
      return `compare and ${op.deletes ? 'delete' : 'swap'} ${formatKey(op.key, format)}`;
    case 'expire':
      return `expire ${formatKey(op.key, format)}`;
  }
}

function opObject(op: WriteOp, format: KeyFormat): object {
  switch (op.type) {
    case 'put':
      return {
        type: op.type,
        key: formatKey(op.key, format),
        valueBytes: op.value.length,
        ...(op.expireAtSeconds === 0 ? {} : { expireAt: seconds(op.expireAtSeconds) }),
      };
    case 'delete-range':
      return {
        type: op.type,
        startKey: op.range.start.length === 0 ? null : formatKey(op.range.start, format),
        endKey: op.range.end.length === 0 ? null : formatKey(op.range.end, format),
      };
    case 'compare-and-swap':
      return {
        type: op.type,
        key: formatKey(op.key, format),
        expectsAbsent: op.expected === undefined,
        valueBytes: op.value.length,
        deletes: op.deletes,
      };
    case 'delete':
    case 'expire':
      return { type: op.type, key: formatKey(op.key, format) };
  }
}

function adminText(command: AdminCommand, format: KeyFormat): string {
  switch (command.type) {
    case 'batch-split':
      return `split off ${command.children.map((child) => `region ${child.newRegionId} up to ${formatKey(child.splitKey, format)}`).join(', ')}`;
    case 'prepare-merge':
      return `prepare the merge into ${formatRegion(command.target)}, from entry ${command.minIndex} on`;
    case 'commit-merge':
      return `take in ${formatRegion(command.source)} as of its entry ${command.commit}, with ${command.entries.length} of its entries`;
    case 'rollback-merge':
      return `take the merge of entry ${command.commit} back`;
    case 'compact-log':
      return `compact the log up to ${command.index} (term ${command.term})`;
    case 'compute-hash':
      return 'hash the data';
    case 'verify-hash':
      return `compare with the hash ${Buffer.from(command.hash).toString('hex')} of entry ${command.index}`;
    case 'change-peer':
      return command.changes
        .map(({ type, peer }) => `${type} peer ${peer.id} on store ${peer.storeId} as ${peer.role}`)
        .join(', ');
  }
}

function adminObject(command: AdminCommand, format: KeyFormat): Readonly<Record<string, unknown>> {
  switch (command.type) {
    case 'batch-split':
      return {
        children: command.children.map((child) => ({
          regionId: child.newRegionId,
          splitKey: formatKey(child.splitKey, format),
          peerIds: child.newPeerIds,
        })),
      };
    case 'prepare-merge':
      return {
        targetId: command.target.id,
        targetRange: formatRange(command.target.range),
        minIndex: command.minIndex,
      };
    case 'commit-merge':
      return {
        sourceId: command.source.id,
        sourceRange: formatRange(command.source.range),
        commit: command.commit,
        entries: command.entries.length,
      };
    case 'rollback-merge':
      return { commit: command.commit };
    case 'compact-log':
      return { compactIndex: command.index, compactTerm: command.term };
    case 'compute-hash':
      return {};
    case 'verify-hash':
      return { hashIndex: command.index, hash: Buffer.from(command.hash).toString('hex') };
    case 'change-peer':
      return {
        changes: command.changes.map(({ type, peer }) => ({
          type,
          peerId: peer.id,
          storeId: peer.storeId,
          role: peer.role,
        })),
      };
  }
}

/** The command in an entry: undefined for the no-op of a new leader and for what leaves a joint configuration. @throws RecordError */
export function commandOf(entry: Entry): RaftCommand | undefined {
  if (entry.type === EntryType.Normal) {
    return entry.data.length === 0 ? undefined : decodeRaftCommand(entry.data);
  }
  const change = tryDecodeConfChangeV2(entry.data);
  if (change === undefined) {
    throw new RecordError('the membership change cannot be decoded');
  }
  return change.context.length === 0 ? undefined : decodeRaftCommand(change.context);
}

export function viewEntry(entry: Entry, format: KeyFormat): EntryView {
  const base = { index: entry.index, term: entry.term, sizeBytes: entry.data.length };
  let command: RaftCommand | undefined;
  try {
    command = commandOf(entry);
  } catch (error) {
    if (!(error instanceof RecordError)) {
      throw error;
    }
    return { ...base, type: 'unreadable', epoch: undefined, text: error.message, details: {} };
  }
  if (command === undefined) {
    const isNoop = entry.type === EntryType.Normal;
    return {
      ...base,
      type: isNoop ? 'no-op' : 'leave-joint',
      epoch: undefined,
      text: isNoop ? 'a leader began its term' : 'leave the joint configuration',
      details: {},
    };
  }
  const { epoch } = command;
  if (command.type === 'admin') {
    return {
      ...base,
      type: command.command.type,
      epoch,
      text: adminText(command.command, format),
      details: adminObject(command.command, format),
    };
  }
  const { ops } = command;
  const shown = ops.slice(0, OPS_SHOWN_MAX).map((op) => opText(op, format));
  const more = ops.length - shown.length;
  return {
    ...base,
    type: 'write',
    epoch,
    text: `${shown.join(', ')}${more > 0 ? `, and ${formatCount(more)} more` : ''}`,
    details: { operations: ops.map((op) => opObject(op, format)) },
  };
}

export const epochText = (epoch: RegionEpoch | undefined): string => (epoch === undefined ? '' : formatEpoch(epoch));
