/**
 * The reference state machine: steps at the first commit of every entry and so knows, for each region and index, the
 * descriptor and the data that every replica must have there, and for each key all values it ever had, in order.
 *
 * An entry is committed before anybody may act on it, so what a replica shows is never ahead of the model.
 */
import { fromUtf8 } from '../../../src/base/bytes.ts';
import { rangeContains, rangeCovers } from '../../../src/base/key-range.ts';
import type { RaftCommand, WriteOp } from '../../../src/codec/command.ts';
import { encodeDataValue } from '../../../src/codec/data-value.ts';
import { decodeRaftCommand } from '../../../src/codec/raft-records.ts';
import { INIT_LOG_INDEX } from '../../../src/codec/store-record.ts';
import { dataKey } from '../../../src/engine/index.ts';
import { formatRegion, regionsEqual, type Region } from '../../../src/meta/region.ts';
import { decodeConfChangeV2 } from '../../../src/raft/conf-change.ts';
import { EntryType, type Entry } from '../../../src/raft/types.ts';
import { halvesOf, hasQuorum, RowDigest, type Tally, textOf, violated } from './observed.ts';
import { type Admin, changedPeers, joined, passesEpoch, splitParts } from './region-rules.ts';

/** One value of a key: a write took effect. */
export interface Version {
  /** Counts effective operations of the whole cluster. */
  readonly seq: number;
  /** Place among the versions of its key. */
  readonly at: number;
  readonly key: string;
  readonly region: number;
  readonly index: number;
  /** Undefined: the key was removed. */
  readonly value: string | undefined;
  readonly stored: Uint8Array | undefined;
}

export interface RangeRemoval {
  readonly seq: number;
  readonly region: number;
  readonly index: number;
  readonly start: string;
  readonly end: string;
}

interface Expected {
  readonly descriptor: string;
  readonly digest: string;
}

export interface ModelRegion {
  readonly id: number;
  descriptor: Region;
  index: number;
  /** The merge it is in as a source. */
  merging: { readonly commit: number; readonly minIndex: number; readonly target: Region } | undefined;
  /** Index of the newest split that took effect; 0 if there was none. */
  splitAt: number;
  /** Its configurations and the indexes from which on they hold, oldest first. */
  readonly halves: {
    readonly from: number;
    readonly voters: readonly number[];
    readonly outgoing: readonly number[];
  }[];
  /** Where it went. */
  mergedInto: { readonly target: number; readonly commit: number } | undefined;
  readonly digest: RowDigest;
  readonly expected: Map<number, Expected>;
  readonly attempts: Map<number, 'prepared' | 'committed' | 'rolled-back'>;
}

/** What follows a committed entry, for those who watch. */
export interface ModelWatcher {
  onVersion(version: Version): void;
}

const MODELED_REMOVALS_MAX = 2_000;

export class RegionModel {
  readonly regions: Map<number, ModelRegion> = new Map();
  readonly versions: Map<string, Version[]> = new Map();
  readonly removals: RangeRemoval[] = [];
  readonly #descriptors: Map<string, string> = new Map();
  /** `region/commit` → peers that asked for a rollback of this merge. */
  readonly #rollbackVotes: Map<string, Set<number>> = new Map();
  readonly #tally: Tally;
  watcher: ModelWatcher | undefined;
  /** Effective operations so far. */
  seq = 0;

  constructor(tally: Tally) {
    this.#tally = tally;
  }

  /** The first region of a cluster, before its first entry. */
  seed(region: Region): ModelRegion {
    if (this.regions.size > 0) {
      violated('G2', `region ${formatRegion(region)} was born from nothing`);
    }
    return this.#create(region, INIT_LOG_INDEX);
  }

  /** Index of the PrepareMerge by which the region is frozen or gone; undefined after its rollback. */
  mergesAt(id: number): number | undefined {
    const region = this.regions.get(id);
    return region?.merging?.commit ?? region?.mergedInto?.commit;
  }

  /** The voters, in both halves, that the log up to `index` names. */
  halvesAt(id: number, index: number): ModelRegion['halves'][number] | undefined {
    return this.regions.get(id)?.halves.findLast(({ from }) => from <= index);
  }

  #create(descriptor: Region, index: number): ModelRegion {
    const region: ModelRegion = {
      id: descriptor.id,
      descriptor,
      index,
      merging: undefined,
      splitAt: 0,
      halves: [{ from: index, ...halvesOf(descriptor) }],
      mergedInto: undefined,
      digest: new RowDigest(),
      expected: new Map(),
      attempts: new Map(),
    };
    this.regions.set(region.id, region);
    this.#record(region);
    return region;
  }

  #record(region: ModelRegion): void {
    const descriptor = formatRegion(region.descriptor);
    region.expected.set(region.index, { descriptor, digest: region.digest.text });
    const { id, epoch } = region.descriptor;
    const key = `${id}@${epoch.version}:${epoch.confVer}`;
    const known = this.#descriptors.get(key);
    if (known === undefined) {
      this.#descriptors.set(key, descriptor);
    } else if (known !== descriptor) {
      violated('G1', `one epoch, two descriptors: ${known} and ${descriptor}`);
    }
  }

  /** G1, G2: a descriptor on any store is one that the log of the region produced. */
  checkDescriptor(region: Region, where: string): void {
    const { id, epoch } = region;
    const known = this.#descriptors.get(`${id}@${epoch.version}:${epoch.confVer}`);
    const text = formatRegion(region);
    if (known !== text) {
      violated(
        'G1',
        `${where} holds ${text}; ${known === undefined ? 'no log produced that epoch' : `it is ${known}`}`,
      );
    }
  }

  expected(region: number, index: number): Expected | undefined {
    return this.regions.get(region)?.expected.get(index);
  }

  onRollbackVote(region: number, commit: number, peer: number): void {
    const key = `${region}/${commit}`;
    const votes = this.#rollbackVotes.get(key) ?? new Set<number>();
    votes.add(peer);
    this.#rollbackVotes.set(key, votes);
  }

  // ------------------------------------------------------------------------------------------ stepping

  commit(id: number, entry: Entry): void {
    const region = this.regions.get(id) ?? violated('G2', `region ${id} commits entries and was never created`);
    if (entry.index !== region.index + 1) {
      violated('R2', `the model of region ${id} stands at ${region.index}, entry ${entry.index} is committed`);
    }
    region.index = entry.index;
    const command = commandOf(entry);
    if (command !== undefined) {
      this.#run(region, command);
    }
    this.#record(region);
  }

  #run(region: ModelRegion, command: RaftCommand): void {
    const type = command.type === 'write' ? 'write' : command.command.type;
    if (!passesEpoch(type, command.epoch, region.descriptor.epoch)) {
      this.#tally.add('refused at apply');
      return;
    }
    if (command.type === 'write') {
      this.#write(region, command.ops);
      return;
    }
    const admin = command.command;
    switch (admin.type) {
      case 'compact-log':
      case 'compute-hash':
      case 'verify-hash':
        return;
      case 'rollback-merge':
        this.#rollback(region, admin.commit);
        return;
      case 'batch-split':
        this.#split(region, admin);
        return;
      case 'prepare-merge':
        this.#prepare(region, admin);
        return;
      case 'commit-merge':
        this.#join(region, admin);
        return;
      case 'change-peer':
        this.#changePeers(region, admin);
    }
  }

  /** I13: once PrepareMerge is committed only a rollback has an effect; nothing has one once the merge is done. */
  #mustBeFree(region: ModelRegion, what: string): void {
    if (region.merging !== undefined || region.mergedInto !== undefined) {
      violated(
        'I13',
        `${what} at index ${region.index} of region ${region.id} takes effect, which is ${region.merging === undefined ? 'merged away' : 'merging'} since ${region.merging?.commit ?? region.mergedInto?.commit}`,
      );
    }
  }

  #write(region: ModelRegion, ops: readonly WriteOp[]): void {
    const { range } = region.descriptor;
    const isInside = ops.every((op) =>
      op.type === 'delete-range' ? rangeCovers(range, op.range) : rangeContains(range, op.key),
    );
    if (!isInside) {
      return;
    }
    this.#mustBeFree(region, 'a write');
    for (const op of ops) {
      this.#writeOne(region, op);
    }
  }

  #writeOne(region: ModelRegion, op: WriteOp): void {
    switch (op.type) {
      case 'put':
        this.#set(region, op.key, op.value, op.expireAtSeconds);
        return;
      case 'delete':
        this.#set(region, op.key, undefined, 0);
        return;
      case 'delete-range': {
        const start = textOf(op.range.start);
        const end = textOf(op.range.end);
        this.removals.push({ seq: ++this.seq, region: region.id, index: region.index, start, end });
        if (this.removals.length > MODELED_REMOVALS_MAX) {
          this.removals.shift();
        }
        for (const [key, versions] of this.versions) {
          if (key >= start && (end === '' || key < end) && versions[versions.length - 1]?.value !== undefined) {
            this.#set(region, Buffer.from(key, 'latin1'), undefined, 0);
          }
        }
        return;
      }
      case 'compare-and-swap': {
        const current = this.#current(textOf(op.key));
        const expected = op.expected === undefined ? undefined : fromUtf8(op.expected);
        if (current?.value === expected) {
          this.#set(region, op.key, op.deletes ? undefined : op.value, op.expireAtSeconds);
        }
        return;
      }
      case 'expire': {
        const stored = this.#current(textOf(op.key))?.stored;
        const header = encodeDataValue(new Uint8Array(0), op.expireAtSeconds);
        if (op.expireAtSeconds !== 0 && stored !== undefined && textOf(stored).startsWith(textOf(header))) {
          this.#set(region, op.key, undefined, 0);
        }
      }
    }
  }

  #current(key: string): Version | undefined {
    const versions = this.versions.get(key);
    return versions?.[versions.length - 1];
  }

  #set(region: ModelRegion, userKey: Uint8Array, value: Uint8Array | undefined, expireAtSeconds: number): void {
    const key = textOf(userKey);
    const versions = this.versions.get(key) ?? [];
    this.versions.set(key, versions);
    const old = versions[versions.length - 1]?.stored;
    const row = dataKey(userKey);
    if (old !== undefined) {
      region.digest.remove(row, old);
    }
    const stored = value === undefined ? undefined : encodeDataValue(value, expireAtSeconds);
    if (stored !== undefined) {
      region.digest.add(row, stored);
    }
    const version: Version = {
      seq: ++this.seq,
      at: versions.length,
      key,
      region: region.id,
      index: region.index,
      value: value === undefined ? undefined : fromUtf8(value),
      stored,
    };
    versions.push(version);
    this.watcher?.onVersion(version);
  }

  // ------------------------------------------------------------------------------------------ regions

  #split(region: ModelRegion, { children }: Admin<'batch-split'>): void {
    const parts = splitParts(region.descriptor, children);
    if (parts === undefined) {
      return;
    }
    this.#mustBeFree(region, 'a split');
    this.#tally.add('splits');
    this.#tally.add('children', parts.length - 1);
    region.splitAt = region.index;
    for (const part of parts) {
      if (part.id === region.id) {
        region.descriptor = part;
        continue;
      }
      if (this.regions.has(part.id)) {
        violated('G6', `a split of region ${region.id} uses the id of region ${part.id} again`);
      }
      const child = this.#create(part, INIT_LOG_INDEX);
      for (const [key, versions] of this.versions) {
        const stored = versions[versions.length - 1]?.stored;
        const userKey = Buffer.from(key, 'latin1');
        if (stored !== undefined && rangeContains(part.range, userKey)) {
          region.digest.remove(dataKey(userKey), stored);
          child.digest.add(dataKey(userKey), stored);
        }
      }
      child.expected.clear();
      this.#record(child);
    }
    this.checkTiling();
  }

  #prepare(region: ModelRegion, { minIndex, target }: Admin<'prepare-merge'>): void {
    this.#mustBeFree(region, 'PrepareMerge');
    const { epoch } = region.descriptor;
    region.descriptor = { ...region.descriptor, epoch: { confVer: epoch.confVer + 1, version: epoch.version + 1 } };
    region.merging = { commit: region.index, minIndex, target };
    region.attempts.set(region.index, 'prepared');
    this.#tally.add('merges prepared');
  }

  /** G7, I14: of one attempt either the commit or the rollback takes effect. */
  #rollback(region: ModelRegion, commit: number): void {
    const outcome = region.attempts.get(commit);
    if (region.merging?.commit !== commit || outcome !== 'prepared') {
      violated('G7', `region ${region.id} rolls back the merge at ${commit}, which is ${outcome ?? 'unknown'}`);
    }
    // I23: only a quorum of voters that have seen that the merge cannot succeed may decide so. The leader's own vote is
    // not sent, so that one vote more may exist than was seen.
    const votes = this.#rollbackVotes.get(`${region.id}/${commit}`) ?? new Set<number>();
    const { voters, outgoing } = halvesOf(region.descriptor);
    const couldBe = voters.some((leader) => hasQuorum(voters, outgoing, (id) => id === leader || votes.has(id)));
    if (!couldBe) {
      violated(
        'I23',
        `region ${region.id} rolls back the merge at ${commit} after ${votes.size} votes of ${voters.length}`,
      );
    }
    region.attempts.set(commit, 'rolled-back');
    region.merging = undefined;
    const { epoch } = region.descriptor;
    region.descriptor = { ...region.descriptor, epoch: { ...epoch, version: epoch.version + 1 } };
    this.#tally.add('merges rolled back');
  }

  #join(target: ModelRegion, command: Admin<'commit-merge'>): void {
    const descriptor = joined(target.descriptor, command.source);
    if (descriptor === undefined) {
      return;
    }
    this.#mustBeFree(target, 'CommitMerge');
    const source = this.regions.get(command.source.id);
    const outcome = source?.attempts.get(command.commit);
    if (source === undefined || source.merging?.commit !== command.commit || outcome !== 'prepared') {
      return violated(
        'G7',
        `region ${target.id} takes in region ${command.source.id} by the merge at ${command.commit}, which is ${outcome ?? 'unknown'}`,
      );
    }
    if (!regionsEqual(source.descriptor, command.source) || source.merging.target.id !== target.id) {
      violated(
        'I15',
        `region ${target.id} takes in ${formatRegion(command.source)}; the source is ${formatRegion(source.descriptor)} and merges into region ${source.merging.target.id}`,
      );
    }
    source.attempts.set(command.commit, 'committed');
    source.merging = undefined;
    source.mergedInto = { target: target.id, commit: command.commit };
    target.descriptor = descriptor;
    target.digest.a = (target.digest.a + source.digest.a) | 0;
    target.digest.b = (target.digest.b + source.digest.b) | 0;
    target.digest.rows += source.digest.rows;
    this.#tally.add('merges committed');
    this.checkTiling();
  }

  #changePeers(region: ModelRegion, { changes }: Admin<'change-peer'>): void {
    const descriptor = changedPeers(region.descriptor, changes);
    if (descriptor === undefined) {
      return;
    }
    this.#mustBeFree(region, 'a membership change');
    this.#checkIntersection(region.descriptor, descriptor);
    region.descriptor = descriptor;
    region.halves.push({ from: region.index, ...halvesOf(descriptor) });
    this.#tally.add('membership changes');
  }

  /** G8: no two quorums of neighbouring configurations are disjoint. */
  #checkIntersection(before: Region, after: Region): void {
    const old = halvesOf(before);
    const now = halvesOf(after);
    const isSafe = [old.voters, old.outgoing]
      .filter((half) => half.length > 0)
      .some((a) =>
        [now.voters, now.outgoing]
          .filter((half) => half.length > 0)
          .some((b) => {
            const common = a.filter((id) => b.includes(id)).length;
            return Math.floor(a.length / 2) + 1 + Math.floor(b.length / 2) + 1 > a.length + b.length - common;
          }),
      );
    if (!isSafe) {
      violated('G8', `quorums of ${formatRegion(before)} and ${formatRegion(after)} need not meet`);
    }
  }

  /** I18, G2: the live regions tile the key space; a source counts until CommitMerge takes effect. */
  checkTiling(): void {
    const live = [...this.regions.values()]
      .filter((region) => region.mergedInto === undefined)
      .map(({ descriptor }) => ({
        start: textOf(descriptor.range.start),
        end: textOf(descriptor.range.end),
        text: formatRegion(descriptor),
      }))
      .sort((x, y) => (x.start < y.start ? -1 : 1));
    let end: string | undefined = '';
    for (const region of live) {
      if (end === undefined || region.start !== end) {
        violated('I18', `regions do not tile the key space: ${live.map((r) => r.text).join(' ')}`);
      }
      end = region.end === '' ? undefined : region.end;
    }
    if (end !== undefined) {
      violated('I18', `regions do not reach the end of the key space: ${live.map((r) => r.text).join(' ')}`);
    }
  }
}

/** Undefined for a leader's empty entry. */
function commandOf(entry: Entry): RaftCommand | undefined {
  if (entry.type === EntryType.ConfChangeV2) {
    const { context } = decodeConfChangeV2(entry.data);
    return context.length === 0 ? undefined : decodeRaftCommand(context);
  }
  return entry.data.length === 0 ? undefined : decodeRaftCommand(entry.data);
}
