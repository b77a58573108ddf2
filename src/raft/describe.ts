/**
 * Printers for people and for the conformance files: messages, entries, Readies, progress. Worded as etcd-io/raft
 * words them. Pure; nothing in the core imports this file.
 */
import { tryDecodeConfChangeV2 } from './conf-change.ts';
import { addressText, confStateText, messageTypeText, progressText, quoteBytes, roleText } from './log-text.ts';
import type { Progress } from './progress.ts';
import type { Ready } from './ready.ts';
import {
  ConfChangeType,
  EntryType,
  type ConfChangeSingle,
  type Entry,
  type HardState,
  type Message,
  type ReadState,
  type Snapshot,
  type SoftState,
} from './types.ts';

export const describeHardState = (s: HardState): string =>
  `Term:${s.term}${s.vote === 0 ? '' : ` Vote:${s.vote}`} Commit:${s.commit}`;

export const describeSoftState = (s: SoftState): string => `Lead:${s.lead} State:${roleText(s.role)}`;

export const describeSnapshot = ({ metadata }: Snapshot): string =>
  `Index:${metadata.index} Term:${metadata.term} ConfState:${confStateText(metadata.confState)}`;

const TOKENS: Readonly<Record<ConfChangeType, string>> = {
  [ConfChangeType.AddNode]: 'v',
  [ConfChangeType.AddLearnerNode]: 'l',
  [ConfChangeType.RemoveNode]: 'r',
  [ConfChangeType.UpdateNode]: 'u',
};

/** Changes as tokens: `v1 l2 r3 u4`. */
export const describeChanges = (changes: readonly ConfChangeSingle[]): string =>
  changes.map(({ type, nodeId }) => `${TOKENS[type]}${nodeId}`).join(' ');

const ENTRY_NAMES: Readonly<Record<EntryType, string>> = {
  [EntryType.Normal]: 'EntryNormal',
  [EntryType.ConfChange]: 'EntryConfChange',
  [EntryType.ConfChangeV2]: 'EntryConfChangeV2',
};

export function describeEntry(entry: Entry): string {
  let payload: string;
  if (entry.type === EntryType.Normal) {
    payload = quoteBytes(entry.data);
  } else {
    const cc = tryDecodeConfChangeV2(entry.data);
    payload = cc === undefined ? 'the membership change cannot be decoded' : describeChanges(cc.changes);
  }
  return `${entry.term}/${entry.index} ${ENTRY_NAMES[entry.type]}${payload === '' ? '' : ` ${payload}`}`;
}

/** One entry per line, each line ended. */
export const describeEntries = (entries: readonly Entry[]): string =>
  entries.map((e) => `${describeEntry(e)}\n`).join('');

/** A message without final newline; `indent` is what nested responses are moved by. */
export function describeMessage(m: Message, indent = ''): string {
  let text = `${indent}${addressText(m.from)}->${addressText(m.to)} ${messageTypeText(m.type)} Term:${m.term} Log:${m.logTerm}/${m.index}`;
  if (m.reject) {
    text += ` Rejected (Hint: ${m.rejectHint})`;
  }
  if (m.commit !== 0) {
    text += ` Commit:${m.commit}`;
  }
  if (m.vote !== 0) {
    text += ` Vote:${m.vote}`;
  }
  if (m.entries.length === 1) {
    text += ` Entries:[${describeEntry(m.entries[0] as Entry)}]`;
  } else if (m.entries.length > 1) {
    const lines = m.entries.map((e) => `\n${indent}  ${describeEntry(e)}`).join('');
    text += ` Entries:[${lines}\n${indent}]`;
  }
  if (m.snapshot !== null && m.snapshot.metadata.index !== 0) {
    text += `\n${indent}  Snapshot: ${describeSnapshot(m.snapshot)}`;
  }
  if (m.responses.length > 0) {
    const lines = m.responses.map((r) => `\n${describeMessage(r, `${indent}  `)}`).join('');
    text += ` Responses:[${lines}\n${indent}]`;
  }
  return text;
}

const describeReadStates = (states: readonly ReadState[]): string =>
  `[${states.map((s) => `{${s.index} [${[...s.requestContext].join(' ')}]}`).join(' ')}]`;

/** A Ready; lines ended, except for the empty one. */
export function describeReady(rd: Ready): string {
  let text = '';
  if (rd.softState !== null) {
    text += `${describeSoftState(rd.softState)}\n`;
  }
  if (rd.hardState !== null) {
    text += `HardState ${describeHardState(rd.hardState)}\n`;
  }
  if (rd.readStates.length > 0) {
    text += `ReadStates ${describeReadStates(rd.readStates)}\n`;
  }
  if (rd.entries.length > 0) {
    text += `Entries:\n${describeEntries(rd.entries)}`;
  }
  if (rd.snapshot !== null) {
    text += `Snapshot ${describeSnapshot(rd.snapshot)}\n`;
  }
  if (rd.committedEntries.length > 0) {
    text += `CommittedEntries:\n${describeEntries(rd.committedEntries)}`;
  }
  if (rd.messages.length > 0) {
    text += `Messages:\n${rd.messages.map((m) => `${describeMessage(m)}\n`).join('')}`;
  }
  return text === '' ? '<empty Ready>' : `Ready MustSync=${rd.mustSync}:\n${text}`;
}

/** One line per member, ascending id. */
export const describeProgressMap = (progress: readonly Progress[]): string =>
  progress.map((p) => `${p.id}: ${progressText(p)}\n`).join('');
