/** What people change is kept with the change, in order, once, and survives whoever leads; a stale version is refused. */
import { describe, expect, test } from 'vitest';
import { toHex, utf8 } from '../../../src/base/bytes.ts';
import { term } from '../../../src/base/ids.ts';
import { RecordError, encodeRecord } from '../../../src/codec/record.ts';
import type { Peer, Region, Store } from '../../../src/meta/region.ts';
import { type Author, EventList, auditOf } from '../../../src/pd/cluster/events.ts';
import { auditOfChange, decodeMembership, encodeMembership } from '../../../src/pd/group/membership.ts';
import type { PdNode } from '../../../src/pd/pd-node.ts';
import type { Refusal, Result } from '../../../src/pd/schedule/verdict.ts';
import {
  AUDIT_BYTES_MAX,
  AUDIT_ENTRIES_MAX,
  AUDIT_TEXT_CHARS_MAX,
  type AuditInput,
  AuditLog,
  decodeAudit,
  encodeAudit,
} from '../../../src/pd/state/audit-log.ts';
import { decodeCommand, encodeCommand } from '../../../src/pd/state/command-record.ts';
import { type PdRecordKey, PdState } from '../../../src/pd/state/pd-state.ts';
import { decodeStore, decodeSwitches, encodeStore } from '../../../src/pd/state/record.ts';
import { defaultRule } from '../../../src/pd/schedule/placement/rule.ts';
import { ConfChangeTransition, ConfChangeType } from '../../../src/raft/types.ts';
import { PdGroupWorld } from '../../support/pd-group-world.ts';
import { R, S, makeRegion } from './world.ts';

const input = (message: string, over: Partial<AuditInput> = {}): AuditInput => ({
  wallMs: 1_700_000_000_000,
  type: 'switch',
  message,
  actor: 'ada',
  reason: 'why',
  regionId: 0,
  storeId: 0,
  operatorId: 0,
  ...over,
});

const ADA: Author = { actor: 'ada', reason: 'why' };

const store = (id: number, labels: Store['labels'] = []): Store => ({
  id: S(id),
  address: `store:${id}`,
  statusAddress: '',
  state: 'up',
  labels,
  version: '1',
  startTimestamp: 1,
});

const report = (region: Region): Parameters<PdNode['onRegionHeartbeat']>[0] => ({
  region,
  leader: region.peers[0] as Peer,
  term: term(6),
  downPeers: [],
  pendingPeers: [],
  approximateSizeBytes: 10,
  approximateKeys: 1,
  bytesWritten: 0,
  keysWritten: 0,
  bytesRead: 0,
  keysRead: 0,
  merging: false,
  intervalStartSeconds: 0,
  intervalEndSeconds: 1,
});

/** A cluster of stores 1 to 3 with one region, whose epoch is 1.2. */
async function cluster(seed: number, ...names: readonly string[]): Promise<{ world: PdGroupWorld; node: PdNode }> {
  const world = new PdGroupWorld(seed);
  await world.form(...names);
  const { node } = await world.leader();
  await world.settle(node.bootstrap(store(1), makeRegion({ id: 2, on: ['1'] })));
  for (const id of [2, 3]) {
    await world.settle(node.putStore(store(id)));
  }
  node.onRegionHeartbeat(report(makeRegion({ id: 2, on: ['1', '2', '3'], version: 2 })));
  return { world, node };
}

const messages = (node: PdNode): string[] => node.audit.entries.map(({ message }) => message);
const codeOf = (result: Refusal | Result<unknown> | undefined): string | undefined =>
  result === undefined
    ? undefined
    : 'code' in result
      ? result.code
      : result.type === 'refused'
        ? result.refusal.code
        : undefined;
const textOf = (result: Refusal | Result<unknown> | undefined): string =>
  result === undefined
    ? ''
    : 'code' in result
      ? result.message
      : result.type === 'refused'
        ? result.refusal.message
        : '';

describe('AuditLog', () => {
  test('keeps at most so many entries, the latest ones, and numbers go on', () => {
    const log = new AuditLog();
    const changed: number[] = [];
    for (let i = 1; i <= AUDIT_ENTRIES_MAX + 2; i++) {
      expect(log.append(input(''), changed)).toBe(i);
    }
    expect([log.entries.length, log.entries[0]?.sequence, log.lastSequence]).toEqual([
      AUDIT_ENTRIES_MAX,
      3,
      AUDIT_ENTRIES_MAX + 2,
    ]);
    // The two that went are deleted from the disk.
    expect(changed.slice(-4)).toEqual([AUDIT_ENTRIES_MAX + 1, 1, AUDIT_ENTRIES_MAX + 2, 2]);
    expect([log.get(2), log.get(3)?.sequence]).toEqual([undefined, 3]);
  });

  test('keeps at most so many bytes, but always the latest entry', () => {
    const log = new AuditLog();
    const long = 'x'.repeat(AUDIT_TEXT_CHARS_MAX);
    for (let i = 0; i < 3_000; i++) {
      log.append(input(long), []);
      expect(log.bytes).toBeLessThanOrEqual(AUDIT_BYTES_MAX);
    }
    expect(log.entries.length).toBeLessThan(3_000);
    const small = new AuditLog({ entriesMax: 10, bytesMax: 1 });
    small.append(input('a'), []);
    small.append(input('b'), []);
    expect(small.entries.map(({ message }) => message)).toEqual(['b']);
  });

  test('is read in pages, and from wherever it begins', () => {
    const log = new AuditLog({ entriesMax: 5, bytesMax: AUDIT_BYTES_MAX });
    expect(log.after(0, 10)).toEqual([]);
    for (let i = 1; i <= 8; i++) {
      log.append(input(String(i)), []);
    }
    const numbers = (after: number, limit: number): number[] => log.after(after, limit).map(({ sequence }) => sequence);
    expect([numbers(0, 2), numbers(5, 10), numbers(8, 10)]).toEqual([[4, 5], [6, 7, 8], []]);
  });

  test('is restored as it was; a gap is damage', () => {
    const log = new AuditLog();
    const entries = [7, 8, 9].map((sequence) => ({ ...input('m'), sequence }));
    log.restore(entries);
    expect([log.append(input('next'), []), log.bytes > 0]).toEqual([10, true]);
    expect(() => new AuditLog().restore([entries[0], entries[2]] as typeof entries)).toThrow(RecordError);
  });

  test('texts are cut when an entry is made', () => {
    const event = { type: 'document', message: 'm'.repeat(5_000), actor: 'a', reason: 'r'.repeat(5_000) } as const;
    const audit = auditOf(event, 12.5);
    expect([audit.message.length, audit.reason.length, audit.wallMs]).toEqual([
      AUDIT_TEXT_CHARS_MAX,
      AUDIT_TEXT_CHARS_MAX,
      12,
    ]);
  });
});

describe('records', () => {
  test('of entries and of commands with entries keep their bytes', () => {
    const entry = { ...input('m', { regionId: 2, storeId: 3, operatorId: 4 }), sequence: 5 };
    expect(decodeAudit(encodeAudit(entry))).toEqual(entry);
    expect(toHex(encodeAudit(entry))).toBe('93010598cb4278bcfe56800000a6737769746368a16da3616461a3776879020304');
    for (const command of [undefined, { type: 'set-switch', name: 'n', enabled: false, expectVersion: 3 }] as const) {
      const audited = { type: 'audited', command, audits: [input('a'), input('b')] } as const;
      expect(decodeCommand(encodeCommand(audited))).toEqual(audited);
    }
  });

  test('of programs that knew no versions are read as version 0', () => {
    const saved = decodeSwitches(encodeRecord(1, [[['merge-checker', true]]]));
    expect(saved).toEqual({ switches: [['merge-checker', { enabled: true }]], versions: [] });
    const record = { store: store(1), physicallyDestroyed: false, lastHeartbeatWallMs: 1 };
    const settings = { leadersEvicted: true, leaderWeight: 1, regionWeight: 2, limitPerMinute: 3, removal: undefined };
    const before = encodeStore({ ...record, settings: { ...settings, version: 0 } });
    expect(toHex(before)).toBe('9c0101a773746f72653a31a00090a13101c201c095c3010203c0');
    expect(decodeStore(before).settings?.version).toBe(0);
    const after = encodeStore({ ...record, settings: { ...settings, version: 9 } });
    expect(decodeStore(after).settings?.version).toBe(9);
    const membership = {
      members: [{ id: 1, name: 'pd', address: 'pd:1' }],
      confState: { voters: [1], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false },
      lastId: 1,
      version: 0,
    };
    const old = encodeRecord(1, [[[1, 'pd', 'pd:1']], [1], [], [], [], false, 1]);
    expect(toHex(encodeMembership(membership))).toBe(toHex(old));
    expect(decodeMembership(old)).toEqual(membership);
    expect(decodeMembership(encodeMembership({ ...membership, version: 4 })).version).toBe(4);
  });

  test('of membership changes that older programs made say nothing', () => {
    const removal = { transition: ConfChangeTransition.Auto, context: new Uint8Array(0) };
    expect(auditOfChange({ ...removal, changes: [{ type: ConfChangeType.RemoveNode, nodeId: 2 }] })).toBeUndefined();
    const joining = encodeRecord(1, [2, 'pd2', 'pd2:1']);
    const change = { type: ConfChangeType.AddLearnerNode, nodeId: 2 };
    expect(auditOfChange({ ...removal, context: joining, changes: [change] })).toBeUndefined();
  });
});

describe('PdState', () => {
  test('keeps an entry if and only if its command is carried out', () => {
    const state = new PdState();
    const touched: PdRecordKey[] = [];
    const wrong = { type: 'extend-ids', expected: 5, limit: 9 } as const;
    expect(state.apply({ type: 'audited', command: wrong, audits: [input('no')] }, touched).type).toBe('refused');
    expect([touched, state.audit.entries]).toEqual([[], []]);
    const right = { type: 'extend-ids', expected: 0, limit: 9 } as const;
    const audits = [input('one'), input('two')];
    expect(state.apply({ type: 'audited', command: right, audits }, touched)).toEqual({ type: 'done', firstAudit: 1 });
    expect(touched).toEqual([{ type: 'ids' }, { type: 'audit', sequence: 1 }, { type: 'audit', sequence: 2 }]);
  });

  test('counts how often a switch is set, and refuses another count', () => {
    const state = new PdState();
    const set = (expectVersion?: number): string =>
      state.apply(
        {
          type: 'set-switch',
          name: 'merge-checker',
          enabled: true,
          ...(expectVersion === undefined ? {} : { expectVersion }),
        },
        [],
      ).type;
    expect([set(0), set(0), set(1), set()]).toEqual(['done', 'refused', 'done', 'done']);
    expect(state.switchVersions.get('merge-checker')).toBe(3);
  });
});

describe('EventList', () => {
  test('shows a pending event, and those behind it, only when its entry is kept', () => {
    const events = new EventList(100);
    const seen = (): (readonly [number, number | undefined])[] =>
      events.after(0, 10).map(({ sequence, audit }) => [sequence, audit]);
    events.add({ type: 'split', message: 's' }, 1);
    const pending = events.add({ type: 'operator-started', message: 'o' }, 2, 'pending');
    events.add({ type: 'merge', message: 'm' }, 3);
    expect(seen()).toEqual([[1, undefined]]);
    events.settle(pending, 7);
    expect(seen()).toEqual([
      [1, undefined],
      [2, 7],
      [3, undefined],
    ]);
  });
});

describe('a placement service', () => {
  test('keeps one entry for every change that somebody asked for, over a power loss', async () => {
    const { world, node } = await cluster(1, 'pd1');
    const settle = <T>(promise: Promise<T>): Promise<T> => world.settle(promise);
    await settle(node.setSwitch('merge-checker', true, 'ada', { reason: 'why' }));
    await settle(node.setStoreSettings(S(2), { leaderWeight: 2 }, ADA));
    const state = { physicallyDestroyed: false, dryRun: false, ...ADA };
    await settle(node.setStoreState(S(2), 'removing', { ...state, dryRun: true }));
    expect(codeOf(await settle(node.setStoreState(S(2), 'removing', state)))).toBe('TooFewStores');
    await settle(node.pinRegion(R(2), true, ADA));
    await settle(node.pinRegion(R(2), true, ADA));
    await settle(node.pauses.pause(R(2), { forMs: 60_000, ...ADA }));
    await settle(node.pauses.resume(R(2), ADA));
    const rule = { ...defaultRule(1), id: 'ssd', index: 1, range: { start: utf8('g'), end: utf8('p') } };
    const how = { dryRun: false, actor: 'ada', note: 'why' };
    await settle(node.changeRules((placement, version) => placement.planSetRule(version, rule, undefined), how));
    await settle(
      node.changeRules((placement, version) => placement.planDeleteRule(version, 'default', 'ssd', undefined), how),
    );
    const document = {
      kind: 'Partition',
      metadata: { name: 'p1' },
      spec: { range: { start: 'a', end: 'c' } },
    };
    await settle(
      node.changeDocuments(() => node.placement.resources.planApply([document], ADA), { dryRun: false, author: ADA }),
    );
    const expected = [
      'store 2 joined at store:2',
      'store 3 joined at store:3',
      'merge-checker was switched on',
      'settings of store 2 were changed: {"leaderWeight":2}',
      'region 2 was pinned',
      'region 2 was paused for 60 s',
      'region 2 was resumed',
      'placement rule default/ssd was created',
      'placement rule default/ssd was deleted',
      'Partition p1 was created',
    ];
    expect(messages(node)).toEqual(expected);
    expect(node.audit.entries.slice(2).every(({ actor, reason }) => actor === 'ada' && reason === 'why')).toBe(true);
    // The list of events names the same entries.
    const events = node.placement.events.after(0, 100).filter(({ audit }) => audit !== undefined);
    expect(events.map(({ audit, message }) => [audit, message])).toEqual(
      node.audit.entries.map(({ sequence, message }) => [sequence, message]),
    );
    const before = node.audit.entries;
    world.crash('pd1');
    await settle(world.boot('pd1'));
    const again = (await world.leader()).node;
    expect(again.audit.entries).toEqual(before);
    expect(again.placement.events.after(0, 100)).toEqual([]);
  });

  test('keeps what somebody asked operators for, before anybody sees it', async () => {
    const { world, node } = await cluster(2, 'pd1');
    const before = node.audit.lastSequence;
    const moved = node.act((placement) => placement.transferLeader(R(2), S(2), { actor: 'ada', note: 'why' }));
    const operator = moved.type === 'ok' ? moved.value.operator : undefined;
    expect(operator).toBeDefined();
    const started = (): unknown => node.placement.events.after(0, 100).find(({ type }) => type === 'operator-started');
    expect(started()).toBeUndefined();
    await world.settle(node.auditor.written());
    expect(started()).toMatchObject({ audit: before + 1, actor: 'ada', reason: 'why' });
    node.act((placement) => operator && placement.cancelOperator(operator, 'bob', ''));
    node.act((placement) => operator && placement.cancelOperator(operator, 'bob', ''));
    await world.settle(node.auditor.written());
    expect(node.audit.after(before, 10).map(({ type, actor }) => [type, actor])).toEqual([
      ['operator-started', 'ada'],
      ['operator-canceled', 'bob'],
    ]);
    // What the service decides by itself, and what is only planned, is none of it.
    node.act((placement) => placement.transferLeader(R(2), S(3), { actor: 'ada', dryRun: true }));
    node.act((placement) => placement.transferLeader(R(2), S(3)));
    await world.settle(node.auditor.written());
    expect(node.audit.lastSequence).toBe(before + 2);
  });

  test('an entry is there once under the next leader, and so are those of member changes', async () => {
    const { world, node } = await cluster(3, 'pd1', 'pd2', 'pd3');
    const { name, member } = await world.leader();
    const other = [...world.machines.keys()].find((each) => each !== name) as string;
    await world.settle(node.setSwitch('merge-checker', true, 'ada', { reason: 'why' }));
    const removed = await world.settle(member.group.removeMember(other, false, { author: ADA }));
    expect(removed).toMatchObject({
      type: 'ok',
      value: { audit: { message: `the placement member ${other} was removed` } },
    });
    await world.join('pd4');
    await world.untilVoters(3);
    const before = (await world.leader()).node.audit.entries;
    world.crash((await world.leader()).name);
    const { node: next } = await world.leader(15_000);
    expect(next.audit.entries).toEqual(before);
    const told = messages(next);
    expect(told.filter((message) => message === 'merge-checker was switched on')).toHaveLength(1);
    expect(told.filter((message) => message === `the placement member ${other} was removed`)).toHaveLength(1);
    expect(told.filter((message) => message.startsWith('the placement member pd4 joined'))).toHaveLength(1);
    expect(world.aborts).toEqual([]);
  });

  test('a member that receives the whole state has the audit log, too', async () => {
    const { world, node } = await cluster(4, 'pd1');
    await world.settle(node.setSwitch('merge-checker', true, 'ada'));
    await world.join('pd2');
    await world.untilVoters(2);
    const { node: leading } = await world.leader();
    await world.until(
      () => world.machine('pd2').member?.group.state.audit.lastSequence === leading.audit.lastSequence,
      'the new member has it all',
    );
    expect(world.machine('pd2').member?.group.state.audit.entries).toEqual(leading.audit.entries);
  });
});

describe('a change that was made for another version', () => {
  test('of the settings of a store is refused with both versions, and changes nothing', async () => {
    const { world, node } = await cluster(5, 'pd1');
    const version = (): number | undefined => node.placement.cluster.store(S(2))?.record.settings?.version;
    const weigh = (leaderWeight: number, expectVersion?: number): Promise<Refusal | undefined> =>
      node.setStoreSettings(
        S(2),
        { leaderWeight },
        { ...ADA, ...(expectVersion === undefined ? {} : { expectVersion }) },
      );
    expect(await world.settle(weigh(2, 0))).toBeUndefined();
    expect(version()).toBe(1);
    const refused = await world.settle(weigh(3, 0));
    expect([refused?.code, refused?.message]).toEqual([
      'Conflict',
      'the settings record of store 2 has version 1, not 0',
    ]);
    expect(node.placement.cluster.store(S(2))?.record.settings?.leaderWeight).toBe(2);
    // Of two at once exactly one is first.
    const both = await world.settle(Promise.all([weigh(4, 1), weigh(5, 1)]));
    expect(both.map(codeOf)).toEqual([undefined, 'Conflict']);
    expect([version(), node.placement.cluster.store(S(2))?.record.settings?.leaderWeight]).toEqual([2, 4]);
    // What changes nothing is no change.
    await world.settle(weigh(4));
    expect(version()).toBe(2);
    const state = { physicallyDestroyed: true, dryRun: false, ...ADA };
    expect(codeOf(await world.settle(node.setStoreState(S(2), 'removing', { ...state, expectVersion: 1 })))).toBe(
      'Conflict',
    );
    expect(await world.settle(node.setStoreState(S(2), 'removing', { ...state, expectVersion: 2 }))).toBeUndefined();
    expect(version()).toBe(3);
    await world.settle(node.putStore(store(3, [{ key: 'zone', value: 'a' }])));
    expect(node.placement.cluster.store(S(3))?.record.settings?.version).toBe(1);
    await world.settle(node.putStore(store(3, [{ key: 'zone', value: 'a' }])));
    expect(node.placement.cluster.store(S(3))?.record.settings?.version).toBe(1);
  });

  test('of a switch, and of a region, is refused with both versions', async () => {
    const { world, node } = await cluster(6, 'pd1');
    const set = (expectVersion: number): Promise<Refusal | undefined> =>
      node.setSwitch('merge-checker', true, 'ada', { expectVersion });
    const both = await world.settle(Promise.all([set(0), set(0)]));
    expect([codeOf(both[0]), textOf(both[1])]).toEqual([undefined, 'the switch merge-checker has version 1, not 0']);
    const stale = { confVer: 1, version: 1 };
    const fits = { confVer: 1, version: 2 };
    const count = node.audit.lastSequence;
    for (const change of [
      node.pinRegion(R(2), true, ADA, stale),
      node.pauses.pause(R(2), { forMs: 0, ...ADA, expectEpoch: stale }),
      node.pauses.resume(R(2), { ...ADA, expectEpoch: stale }),
    ]) {
      const result: Result<unknown> = await world.settle<Result<unknown>>(change);
      expect([codeOf(result), textOf(result)]).toEqual(['EpochChanged', 'region 2 has epoch 1:2, not 1:1']);
    }
    expect([node.audit.lastSequence, node.placement.resources.isPinnedByHand(R(2))]).toEqual([count, false]);
    expect(await world.settle(node.pinRegion(R(2), true, ADA, fits))).toEqual({ type: 'ok', value: true });
    expect((await world.settle(node.pauses.pause(R(2), { forMs: 0, ...ADA, expectEpoch: fits }))).type).toBe('ok');
    expect(await world.settle(node.pauses.resume(R(2), { ...ADA, expectEpoch: fits }))).toEqual({
      type: 'ok',
      value: true,
    });
  });

  test('of the membership is refused with both versions', async () => {
    const { world } = await cluster(7, 'pd1', 'pd2', 'pd3');
    const { name, member } = await world.leader();
    const { version } = member.group.membership;
    // Two members joined and were promoted.
    expect(version).toBeGreaterThanOrEqual(4);
    const other = [...world.machines.keys()].find((each) => each !== name) as string;
    const stale = { expectVersion: version - 1 };
    const refused = await world.settle(member.group.removeMember(other, false, stale));
    expect([codeOf(refused), textOf(refused)]).toEqual([
      'Conflict',
      `the membership of the placement service has version ${version}, not ${version - 1}`,
    ]);
    expect(codeOf(member.group.transferLeader(other, stale))).toBe('Conflict');
    expect((await world.settle(member.group.removeMember(other, false, { expectVersion: version }))).type).toBe('ok');
    expect(member.group.membership.version).toBe(version + 1);
  });
});
