/** How replicas of an offline store look: as rows of a list, and one of them with everything. */
import type { KeyRange } from '../../base/key-range.ts';
import { formatBytes } from '../../base/units.ts';
import { formatEpoch, formatRegion, type Peer, type Region } from '../../meta/region.ts';
import type { Field, Single } from '../output/printer.ts';
import type { Column } from '../output/table.ts';
import { formatCount, formatEnd, formatKey, formatStart, type KeyFormat } from '../text-form.ts';
import { commitOf, lastPosition, type RegionFacts } from './store-content.ts';

const ROLE_MARKS: Readonly<Record<Peer['role'], string>> = {
  voter: '',
  learner: ' learner',
  'incoming-voter': ' incoming',
  'demoting-voter': ' demoting',
};

const peersText = (region: Region | undefined): string =>
  region === undefined ? '' : region.peers.map((peer) => `${peer.storeId}${ROLE_MARKS[peer.role]}`).join(',');

export const rangeObject = (range: KeyRange, format: KeyFormat): Readonly<Record<string, unknown>> => ({
  startKey: range.start.length === 0 ? null : formatKey(range.start, format),
  endKey: range.end.length === 0 ? null : formatKey(range.end, format),
});

export const regionObject = (region: Region, format: KeyFormat): Readonly<Record<string, unknown>> => ({
  id: region.id,
  ...rangeObject(region.range, format),
  epoch: region.epoch,
  peers: region.peers,
});

export function factsObject(facts: RegionFacts, format: KeyFormat): Readonly<Record<string, unknown>> {
  const { local, raft, apply, log } = facts;
  return {
    id: facts.id,
    state: facts.state,
    ...(local === undefined ? {} : { ...rangeObject(local.region.range, format), epoch: local.region.epoch }),
    peers: local?.region.peers ?? [],
    appliedIndex: apply?.appliedIndex,
    appliedTerm: apply?.appliedTerm,
    commitIndex: commitOf(facts),
    lastIndex: lastPosition(facts).index,
    lastTerm: lastPosition(facts).term,
    truncatedIndex: apply?.truncatedIndex,
    truncatedTerm: apply?.truncatedTerm,
    hardState:
      raft === undefined ? null : { peerId: raft.peerId, term: raft.term, vote: raft.vote, commit: raft.commit },
    log: { entries: log.count, sizeBytes: log.bytes, firstIndex: log.firstIndex, lastIndex: log.lastIndex },
    mergeState:
      local?.mergeState === undefined
        ? null
        : {
            minIndex: local.mergeState.minIndex,
            commit: local.mergeState.commit,
            target: regionObject(local.mergeState.target, format),
          },
    fence: facts.fence ?? null,
    stagingId: facts.stagingId ?? null,
    redirects: facts.redirects,
    approximateSizeBytes: facts.approximateBytes,
    problems: facts.bad,
  };
}

export const regionColumns = (format: KeyFormat): readonly Column<RegionFacts>[] => [
  { head: 'id', cell: ({ id }) => id, align: 'right' },
  { head: 'state', cell: ({ state, fence }) => (fence === undefined ? state : `${state} fenced`) },
  { head: 'start', cell: ({ local }) => (local === undefined ? '' : formatStart(local.region.range.start, format)) },
  { head: 'end', cell: ({ local }) => (local === undefined ? '' : formatEnd(local.region.range.end, format)) },
  { head: 'epoch', cell: ({ local }) => (local === undefined ? '' : formatEpoch(local.region.epoch)) },
  { head: 'stores', cell: ({ local }) => peersText(local?.region) },
  { head: 'term', cell: ({ raft }) => raft?.term ?? '', align: 'right' },
  { head: 'applied', cell: ({ apply }) => apply?.appliedIndex ?? '', align: 'right' },
  { head: 'commit', cell: commitOf, align: 'right' },
  { head: 'last', cell: (facts) => lastPosition(facts).index, align: 'right' },
  { head: 'last term', cell: (facts) => lastPosition(facts).term, align: 'right', isWide: true },
  { head: 'truncated', cell: ({ apply }) => apply?.truncatedIndex ?? '', align: 'right', isWide: true },
  { head: 'entries', cell: ({ log }) => log.count, align: 'right' },
  { head: 'log size', cell: ({ log }) => formatBytes(log.bytes), align: 'right', isWide: true },
  { head: 'size', cell: ({ approximateBytes }) => formatBytes(approximateBytes), align: 'right' },
  { head: 'redirects', cell: ({ redirects }) => redirects, align: 'right', isWide: true },
];

/** One region with everything its records say. `rows` were counted in its range. */
export function regionSingle(
  facts: RegionFacts,
  rows: { readonly keys: number; readonly bytes: number } | undefined,
  format: KeyFormat,
): Single {
  const { local, raft, apply, log, fence } = facts;
  const merge = local?.mergeState;
  const last = lastPosition(facts);
  const fields: Field[] = [
    { name: 'region', value: facts.id },
    { name: 'state', value: facts.state },
    ...(local === undefined
      ? []
      : [
          { name: 'start', value: formatStart(local.region.range.start, format) },
          { name: 'end', value: formatEnd(local.region.range.end, format) },
          { name: 'epoch', value: `${formatEpoch(local.region.epoch)} (members:range)` },
          {
            name: 'peers',
            value: local.region.peers
              .map((peer) => `${peer.id} on store ${peer.storeId}${ROLE_MARKS[peer.role]}`)
              .join(', '),
          },
        ]),
    ...(raft === undefined
      ? []
      : [
          {
            name: 'hard state',
            value: `term ${raft.term}, voted for ${raft.vote === 0 ? 'nobody' : `peer ${raft.vote}`}, commit ${raft.commit}`,
          },
          { name: 'own peer', value: raft.peerId },
        ]),
    ...(apply === undefined
      ? []
      : [
          { name: 'applied', value: `${apply.appliedIndex} (term ${apply.appliedTerm})` },
          { name: 'truncated', value: `${apply.truncatedIndex} (term ${apply.truncatedTerm})` },
        ]),
    { name: 'commit', value: commitOf(facts) },
    { name: 'last', value: `${last.index} (term ${last.term})` },
    { name: 'log', value: `${formatCount(log.count)} entries, ${formatBytes(log.bytes)}` },
    ...(merge === undefined
      ? []
      : [
          {
            name: facts.state === 'tombstone' ? 'merged into' : 'merging into',
            value: formatRegion(merge.target),
          },
          {
            name: 'merge',
            value: `prepared by entry ${merge.commit}, entries from ${merge.minIndex} on are sent along`,
          },
        ]),
    ...(facts.stagingId === undefined
      ? []
      : [{ name: 'being installed', value: `staged snapshot ${facts.stagingId}` }]),
    ...(fence === undefined
      ? []
      : [
          {
            name: 'fenced',
            value: `${fence.reason} behind entry ${fence.index} since ${new Date(fence.wallMs).toISOString()}`,
          },
        ]),
    { name: 'redirects', value: facts.redirects },
    ...(rows === undefined
      ? []
      : [{ name: 'data', value: `${formatCount(rows.keys)} rows, ${formatBytes(rows.bytes)}` }]),
    ...facts.bad.map(({ what, reason }) => ({ name: 'problem', value: `${what}: ${reason}` })),
  ];
  return {
    document: { kind: 'OfflineRegion', ...factsObject(facts, format), ...(rows === undefined ? {} : { rows }) },
    name: String(facts.id),
    fields,
  };
}
