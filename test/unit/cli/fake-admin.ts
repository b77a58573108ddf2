export const auditEntry = (
  sequence: number,
  message: string,
): ReplyOf<typeof adminMethods.listAudit>['entries'][number] => ({
  sequence,
  unixMs: T0 + sequence,
  type: 'store-state',
  message,
  regionId: 0,
  storeId: 2,
  operatorId: 0,
  actor: 'ada',
  reason: 'old disk',
});

/** An administration service that answers from fixtures, for tests of `braid ctl` without a cluster. */
import { utf8 } from '../../../src/base/bytes.ts';
import { SILENT_LOGGER } from '../../../src/env/log.ts';
import { realClock } from '../../../src/env/real/index.ts';
import { createRng } from '../../../src/env/rng.ts';
import type { Method } from '../../../src/rpc/method.ts';
import { ServiceBuilder } from '../../../src/rpc/service-builder.ts';
import { adminMethods, pdMethods, processMethods } from '../../../src/rpc/services.ts';
import { FakeNet } from '../client/fake-net.ts';
import { FakeSchedulers } from './fake-schedulers.ts';
import { type RunOptions, type RunOutcome, connectorOf, runWith } from './harness.ts';

export type RequestOf<M> = M extends Method<infer R, infer _Reply> ? R : never;
export type ReplyOf<M> = M extends Method<infer _Request, infer R> ? R : never;
export type WireOperator = NonNullable<ReplyOf<typeof adminMethods.moveRegion>['operator']>;
type WireStore = ReplyOf<typeof adminMethods.listStores>['stores'][number];
type WireRegion = ReplyOf<typeof adminMethods.listRegions>['regions'][number];
type WireEvent = ReplyOf<typeof adminMethods.listEvents>['events'][number];
type WireRefusal = NonNullable<ReplyOf<typeof adminMethods.moveRegion>['refusal']>;

const T0 = Date.UTC(2000, 0, 1);

const PEERS = [
  { id: 11, storeId: 1, role: 0 as const },
  { id: 12, storeId: 2, role: 0 as const },
  { id: 13, storeId: 3, role: 1 as const },
];

export const region = (id: number, start: string, end: string): WireRegion => ({
  id,
  startKey: utf8(start),
  endKey: utf8(end),
  epoch: { confVer: 3, version: id },
  peers: PEERS,
  leader: PEERS[0],
  term: 6,
  sizeBytes: 1_048_576,
  keys: 1234,
  downPeers: [],
  pendingPeers: [],
  operatorId: 0,
  merging: false,
  bytesWrittenPerSecond: 0,
  bytesReadPerSecond: 2048,
  lastReportAgeMs: 1500,
  reportSeen: true,
  pinned: false,
  partition: '',
  consistency: undefined,
  damagedPeerIds: [],
});

const RULE = {
  group: 'default',
  id: 'ssd',
  index: 1,
  override: true,
  start: utf8('a'),
  end: utf8('f'),
  role: 'voter',
  count: 3,
  constraints: [{ key: 'disk', op: 'in', values: ['ssd'] }],
  locationLabels: [],
  isolationLevel: '',
  version: 4,
};

export const store = (id: number): WireStore => ({
  id,
  address: `127.0.0.1:${20160 + id}`,
  statusAddress: '',
  state: 1 as const,
  labels: [{ key: 'host', value: `h${id}` }],
  version: '0.1.0',
  capacityBytes: 1024 ** 4,
  availableBytes: 1024 ** 3,
  usedBytes: 10 * 1024 ** 2,
  regionCount: 2,
  leaderCount: id === 1 ? 2 : 0,
  learnerCount: 0,
  pendingPeerCount: 0,
  regionSizeBytes: 2 * 1024 ** 2,
  lastHeartbeatAgeMs: 250,
  heartbeatSeen: true,
  startUnixMs: T0,
  isBusy: false,
  isStopping: false,
  sendingSnapshots: 0,
  receivingSnapshots: 0,
  applyingSnapshots: 0,
  blockers: [],
  leadersEvicted: false,
  leaderWeight: 1,
  regionWeight: 1,
  limitPerMinute: 60,
  limitIsOwn: false,
  removingSinceUnixMs: 0,
  removingPeers: 0,
  removingSizeBytes: 0,
  settingsVersion: 5,
});

const member = (name: string, id: number, isLeader: boolean) => ({
  name,
  id,
  clientUrls: [`http://adm:${id}`],
  isLeader,
  isVoter: true,
  isAnswering: name !== 'silent',
  lag: 0,
});

const phase = (name: string, state: 0 | 1 | 2 | 3 | 4) => ({
  name,
  state,
  startedUnixMs: state === 0 ? 0 : T0 + 1000,
  finishedUnixMs: state === 2 ? T0 + 1040 : 0,
  detail: state === 1 ? 'waiting' : '',
});

const operator = (status: 2 | 3 | 4 | 7, phases: readonly ReturnType<typeof phase>[]): WireOperator => ({
  id: 95,
  regionId: 4,
  relatedRegionId: 2,
  relatedOperatorId: 96,
  desc: 'admin-merge-region',
  brief: 'merge region 4 into region 2',
  kinds: ['admin', 'merge'],
  priority: 3,
  status,
  reasonCode: status === 4 ? 'DownPeer' : status === 7 ? 'Timeout' : '',
  reason: status === 4 ? 'region 4 has a down peer' : status === 7 ? 'it took too long' : '',
  hint: status === 4 ? 'wait until it is repaired' : '',
  createdUnixMs: T0,
  startedUnixMs: T0 + 1000,
  finishedUnixMs: status === 2 ? 0 : T0 + 1250,
  timeoutMs: 60_000,
  epoch: { confVer: 3, version: 4 },
  steps: [
    {
      type: 'merge-region',
      text: 'merge region 4 into region 2',
      state: status === 3 ? 2 : 1,
      startedUnixMs: T0 + 1000,
      finishedUnixMs: status === 3 ? T0 + 1250 : 0,
      detail: '',
      current: status === 2,
      sends: 1,
      phase: 'prepare',
      timeoutMs: 60_000,
    },
  ],
  phases: [...phases],
  cancelable: true,
  isMergeSource: true,
  isMergeTarget: false,
  note: '',
  lastRefusal: undefined,
});

export const RUNNING: WireOperator = operator(2, [
  phase('align', 2),
  phase('prepare', 1),
  phase('catch-up', 0),
  phase('commit', 0),
]);
export const DONE: WireOperator = operator(3, [
  phase('align', 2),
  phase('prepare', 2),
  phase('catch-up', 2),
  phase('commit', 2),
]);
export const CANCELED: WireOperator = operator(4, [
  phase('align', 2),
  phase('prepare', 3),
  phase('catch-up', 4),
  phase('commit', 4),
]);
export const TIMED_OUT: WireOperator = operator(7, [phase('align', 3)]);

const refusal = (code: string): WireRefusal => ({
  code,
  message: `refused as ${code}`,
  hint: 'do something else',
  details: new Map(),
});

export const event = (sequence: number, type: string, message: string): WireEvent => ({
  sequence,
  unixMs: T0 + sequence,
  type,
  message,
  regionId: 2,
  storeId: 0,
  operatorId: 95,
  actor: 'cli',
  reason: '',
  auditSequence: 0,
});

/** An administration service that answers from fixtures and remembers what it was asked to change. */
export class FakeAdmin {
  readonly net: FakeNet = new FakeNet(realClock());
  readonly changes: unknown[] = [];
  /** What `getOperator` answers, one after the other; the last one stays. */
  operatorAnswers: WireOperator[] = [DONE];
  operatorCalls = 0;
  readonly storeChanges: unknown[] = [];
  /** What changes of a store's state answer, one after the other. */
  drained: ReturnType<typeof store>[] = [];
  refuse: string | undefined;
  /** Placement members, and what was asked of them. */
  members: ReplyOf<typeof adminMethods.listMembers>['members'] = [
    member('pd', 1, true),
    member('pd2', 2, false),
    member('silent', 3, false),
  ];
  readonly memberChanges: unknown[] = [];
  /** What the lead of this term noted; answers hold three at a time. */
  term = 7;
  events: WireEvent[] = [event(7, 'merge', 'region 4 went into 2')];
  /** The audit log; answers hold two at a time. */
  audit: ReplyOf<typeof adminMethods.listAudit>['entries'] = [auditEntry(3, 'store 2 is to be removing')];
  /** Called before events are read. */
  onEvents: (() => void) | undefined;
  /** What `listRegions` answers, by filter (0 is all of them), and the gaps between them. */
  regions: ReplyOf<typeof adminMethods.listRegions>['regions'] = [region(2, '', 'm'), region(4, 'm', '')];
  filtered: (filter: number) => ReplyOf<typeof adminMethods.listRegions>['regions'] = (filter) =>
    filter === 0 ? this.regions : [];
  holes: ReplyOf<typeof adminMethods.listRegions>['holes'] = [];
  stores: WireStore[] = [store(1), store(2), store(3)];
  /** Settings of each process by address, as JSON; `undefined` takes its address off the network. */
  readonly settings: Map<string, Record<string, unknown> | undefined> = new Map();
  versions: Record<string, string> = {};
  /** What is set at run time. */
  config: Record<string, unknown> = {};
  problems: ReplyOf<typeof adminMethods.getStatus>['problems'] = [];
  /** What was asked to be paused and resumed, and the pause of every region. */
  readonly pauses: unknown[] = [];
  readonly schedulers: FakeSchedulers = new FakeSchedulers();
  pause: NonNullable<ReplyOf<typeof adminMethods.getRegion>['region']>['pause'];

  constructor() {
    const pd = {
      name: 'pd',
      memberId: '1',
      peerUrls: [],
      clientUrls: ['http://adm:1'],
      leaderPriority: 0,
      deployPath: '',
      binaryVersion: '',
      gitHash: '',
    };
    const submit = (request: unknown): ReplyOf<typeof adminMethods.moveRegion> => {
      this.changes.push(request);
      return this.refuse === undefined
        ? { operator: RUNNING, nothingToDo: false }
        : { refusal: refusal(this.refuse), nothingToDo: false };
    };
    const { regions } = this;
    const builder = new ServiceBuilder()
      .unary(pdMethods.getMembers, () => ({ header: { clusterId: '77' }, members: [pd], leader: pd }))
      .unary(adminMethods.getStatus, () => this.status())
      .unary(adminMethods.listMembers, () => ({ members: this.members, term: 7, version: 5 }))
      .unary(adminMethods.removeMember, (request) => {
        this.memberChanges.push(request);
        return this.refuse === undefined ? { member: member('silent', 3, false) } : { refusal: refusal(this.refuse) };
      })
      .unary(adminMethods.transferMemberLeader, (request) => {
        this.memberChanges.push(request);
        if (this.refuse !== undefined) {
          return { refusal: refusal(this.refuse) };
        }
        const target = request.member === '' ? 'pd2' : request.member;
        this.members = this.members.map((each) => ({ ...each, isLeader: each.name === target }));
        return { member: member(target, 2, false) };
      })
      .unary(adminMethods.listStores, () => ({ stores: this.stores }))
      .unary(adminMethods.getStore, ({ storeId }) =>
        storeId > 3 ? { refusal: refusal('StoreNotFound') } : { store: store(storeId) },
      )
      .unary(adminMethods.listRegions, ({ filter }) => ({
        regions: this.filtered(filter),
        more: false,
        nextStart: new Uint8Array(0),
        holes: filter === 0 ? this.holes : [],
      }))
      .unary(adminMethods.getRegion, ({ which }) => {
        const found = which?.$case === 'id' ? regions.find(({ id }) => id === which.value) : regions[1];
        return found === undefined
          ? { refusal: refusal('RegionNotFound') }
          : { region: { ...found, pause: this.pause }, previous: regions[0] };
      })
      .unary(adminMethods.moveRegion, submit)
      .unary(adminMethods.mergeRegion, submit)
      .unary(adminMethods.splitRegion, submit)
      .unary(adminMethods.scatterRegion, submit)
      .unary(adminMethods.addPeer, submit)
      .unary(adminMethods.removePeer, submit)
      .unary(adminMethods.setStoreState, (request) => {
        this.storeChanges.push(request);
        return request.storeId > 3
          ? { refusal: refusal('StoreNotFound') }
          : this.refuse === undefined
            ? { store: this.drained.shift() ?? store(request.storeId) }
            : { refusal: refusal(this.refuse) };
      })
      .unary(adminMethods.setStoreSettings, (request) => {
        this.storeChanges.push(request);
        return { store: { ...store(request.storeId), leadersEvicted: request.leadersEvicted ?? false } };
      })
      .unary(adminMethods.explain, ({ which }) =>
        which?.value === 'nonsense'
          ? { refusal: refusal('UnknownSwitch'), findings: [] }
          : {
              findings: [
                { name: 'usable', detail: 'up', refusal: undefined },
                ...(which?.$case === 'storeId'
                  ? [{ name: 'has-room', detail: '', refusal: refusal('StoreBusy') }]
                  : []),
              ],
            },
      )
      .unary(adminMethods.pinRegion, (request) => {
        this.changes.push(request);
        return { changed: true };
      })
      .unary(adminMethods.transferLeader, (request) => {
        this.changes.push(request);
        return { nothingToDo: true };
      })
      .unary(adminMethods.listOperators, () => ({ operators: [DONE] }))
      .unary(adminMethods.finishedOperators, () => ({ operators: [DONE, CANCELED] }))
      .unary(adminMethods.getOperator, () => {
        this.operatorCalls++;
        const { operatorAnswers: answers } = this;
        return { operator: (answers.length > 1 ? answers.shift() : answers[0]) as WireOperator };
      })
      .unary(adminMethods.cancelOperator, (request) => {
        this.changes.push(request);
        return { operator: CANCELED };
      })
      .unary(adminMethods.explainMerge, () => ({
        allowed: false,
        checks: [
          { name: 'neighbors', passed: true },
          { name: 'source-has-leader', passed: false, refusal: refusal('NoLeader') },
        ],
        steps: [],
      }))
      .unary(adminMethods.listRules, (request) =>
        request.id === 'none' ? { refusal: refusal('RuleNotFound'), rules: [] } : { rules: [RULE] },
      )
      .unary(adminMethods.setRule, (request) => {
        this.changes.push(request);
        return this.refuse === undefined
          ? { outcome: 'created', rule: request.rule, regionsToSplit: 1, regionsToChange: 2 }
          : { refusal: refusal(this.refuse), outcome: '', regionsToSplit: 0, regionsToChange: 0 };
      })
      .unary(adminMethods.deleteRule, (request) => {
        this.changes.push(request);
        return { outcome: 'deleted', rule: RULE, regionsToSplit: 0, regionsToChange: 2 };
      })
      .unary(adminMethods.listDocuments, () => ({
        version: 1,
        documents: [
          {
            kind: 'Config',
            name: 'placement',
            uid: '',
            generation: 0,
            resourceVersion: 1,
            createdUnixMs: T0,
            specJson: JSON.stringify(this.config),
            statusJson: 'null',
            conditions: [],
            regions: [],
            pods: new Map<number, string>(),
            remainingMs: 0,
            settled: true,
            changedBy: '',
            changeReason: '',
            observedJson: '',
          },
        ],
      }))
      .unary(adminMethods.listSwitches, () => ({
        switches: [
          {
            name: 'merge-checker',
            enabled: true,
            description: 'Merges.',
            idleReason: '',
            offUntilUnixMs: 0,
            version: 3,
          },
          {
            name: 'hot-region',
            enabled: false,
            description: 'Cools.',
            idleReason: '',
            offUntilUnixMs: T0 + 60_000,
            version: 1,
          },
        ],
      }))
      .unary(adminMethods.listSchedulers, () => this.schedulers.list())
      .unary(adminMethods.changeScheduler, (request) =>
        this.refuse === undefined ? this.schedulers.change(request) : { refusal: refusal(this.refuse), changed: false },
      )
      .unary(adminMethods.setSwitch, (request) => {
        this.pauses.push(request);
        const { name, enabled, offMs } = request;
        const offUntilUnixMs = offMs === 0 ? 0 : T0 + offMs;
        return this.refuse === undefined
          ? { switch: { name, enabled, description: '', idleReason: '', offUntilUnixMs, version: 4 } }
          : { refusal: refusal(this.refuse) };
      })
      .unary(adminMethods.pauseRegion, (request) => {
        this.pauses.push(request);
        const { reason, forMs, regionId } = request;
        const untilUnixMs = forMs === 0 ? 0 : T0 + forMs;
        this.pause = { reason, actor: 'cli', sinceUnixMs: T0, untilUnixMs, regionId };
        return this.refuse === undefined
          ? { changed: true, stoppedOperatorIds: [95], goingOperatorIds: [97] }
          : { refusal: refusal(this.refuse), changed: false, stoppedOperatorIds: [], goingOperatorIds: [] };
      })
      .unary(adminMethods.resumeRegion, (request) => {
        this.pauses.push(request);
        const changed = this.pause !== undefined;
        this.pause = undefined;
        return this.refuse === undefined
          ? { changed, stoppedOperatorIds: [], goingOperatorIds: [] }
          : { refusal: refusal(this.refuse), changed: false, stoppedOperatorIds: [], goingOperatorIds: [] };
      })
      .unary(adminMethods.listAudit, ({ afterSequence }) => ({
        entries: this.audit.filter(({ sequence }) => sequence > afterSequence).slice(0, 2),
        oldestSequence: this.audit[0]?.sequence ?? 1,
        lastSequence: this.audit.at(-1)?.sequence ?? 0,
      }))
      .unary(adminMethods.listEvents, (request) => {
        this.onEvents?.();
        const isOther = request.afterTerm !== 0 && request.afterTerm !== this.term;
        return {
          events: this.events.filter((event) => isOther || event.sequence > request.afterSequence).slice(0, 3),
          oldestSequence: this.events[0]?.sequence ?? 1,
          term: this.term,
        };
      });
    this.#tell(builder, 'adm:1');
    this.net.serve('adm:1', builder.build());
    for (const address of ['adm:2', 'adm:3', ...this.stores.map((one) => one.address)]) {
      const other = new ServiceBuilder();
      this.#tell(other, address);
      this.net.serve(address, other.build());
    }
  }

  #tell(builder: ServiceBuilder, address: string): void {
    const isPd = address.startsWith('adm:');
    const usual = isPd
      ? {
          'placement.max-replicas': 3,
          'placement.location-labels': ['zone', 'host'],
          'placement.region-max-size': 1_048_576,
          'placement.merge-source-size-max': 131_072,
          'group.tick': 100,
        }
      : { 'raftstore.region-max-size': 1_048_576, 'raftstore.tick': 100, 'raftstore.snapshot-sends-max': 4 };
    builder.unary(processMethods.getSettings, () => ({
      version: this.versions[address] ?? '0.1.0',
      role: isPd ? 'pd' : 'store',
      settings: Object.entries({ ...usual, ...this.settings.get(address) }).map(([name, value]) => ({
        name,
        value: JSON.stringify(value),
        text: JSON.stringify(value),
        origin: 'file',
      })),
    }));
  }

  status(): ReplyOf<typeof adminMethods.getStatus> {
    return {
      clusterId: '77',
      bootstrapped: true,
      members: [member('pd', 1, true)],
      stores: {
        up: 3,
        disconnected: 0,
        down: 0,
        removing: 0,
        removed: 0,
        capacityBytes: 3,
        usedBytes: 2,
        availableBytes: 1,
      },
      regions: {
        total: 2,
        withoutLeader: 0,
        withDownPeers: this.problems.length,
        withPendingPeers: 0,
        underReplicated: 0,
        overReplicated: 0,
        inJointState: 0,
        withLearners: 1,
        holes: 0,
        sizeBytes: 2_097_152,
        keys: 2468,
        reported: 2,
      },
      runningOperators: 1,
      problems: this.problems,
      warmup: { done: true, reportedRegions: 2, knownRegions: 2, elapsedMs: 1, limitMs: 2 },
      maxReplicas: 3,
      uptimeMs: 65_000,
    };
  }

  run(args: readonly string[], options?: RunOptions): Promise<RunOutcome> {
    const env = { clock: realClock(), rng: createRng(1), net: this.net, log: SILENT_LOGGER };
    return runWith(connectorOf(env, 'adm:1'), args, options);
  }
}
