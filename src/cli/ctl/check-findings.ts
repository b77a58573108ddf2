/**
 * What `braid ctl check regions` and `check config` find, as pure functions of what the cluster said: one finding per
 * thing that is not as it should be, with what to do about it.
 */
import type { KeyRange } from '../../base/key-range.ts';
import { compareBytes } from '../../base/bytes.ts';
import { formatBytes, parseSizeBytes } from '../../base/units.ts';
import type { PlacementMember, ProcessSettings, RegionDetails, StoreInfo } from '../../client/admin-wire.ts';
import { formatAge } from '../text-form.ts';

export interface RegionFinding {
  readonly code:
    | 'Hole'
    | 'NoLeader'
    | 'NotReported'
    | 'StaleReport'
    | 'DownReplica'
    | 'PendingReplica'
    | 'MissingReplica'
    | 'ExtraReplica'
    | 'Oversized';
  readonly range: KeyRange;
  readonly regionId: number | undefined;
  readonly storeId: number | undefined;
  readonly message: string;
  readonly hint: string;
}

/** Regions are split a moment after they have grown too large; only those well above the limit are found. */
const OVERSIZED_FACTOR = 1.5;

export interface RegionFacts {
  readonly regions: readonly RegionDetails[];
  readonly holes: readonly KeyRange[];
  /** Ids of regions with fewer, and with more, voters than their rules want. */
  readonly underReplicated: ReadonlySet<number>;
  readonly overReplicated: ReadonlySet<number>;
  /** Size at which regions are split; undefined if nobody said. */
  readonly regionMaxSizeBytes: number | undefined;
  readonly staleAfterMs: number;
}

/** In key order. */
export function regionFindings(facts: RegionFacts): readonly RegionFinding[] {
  const holes = facts.holes.map(
    (range): RegionFinding => ({
      code: 'Hole',
      range,
      regionId: undefined,
      storeId: undefined,
      message: 'no region covers these keys',
      hint: 'wait until all regions have reported; if it stays, see "braid ctl region list" and the logs of the stores around it',
    }),
  );
  return [...holes, ...facts.regions.flatMap((region) => findingsOf(region, facts))].toSorted((a, b) =>
    compareBytes(a.range.start, b.range.start),
  );
}

function findingsOf(region: RegionDetails, facts: RegionFacts): readonly RegionFinding[] {
  const found: RegionFinding[] = [];
  const add = (code: RegionFinding['code'], message: string, hint: string, storeId?: number): void => {
    found.push({ code, range: region.range, regionId: region.id, storeId, message, hint });
  };
  const explain = `braid ctl explain region ${region.id}`;
  if (region.leader === undefined) {
    add('NoLeader', 'it has no leader: its keys are neither read nor written', 'start the stores of its replicas');
  }
  if (region.lastReportAgeMs === undefined) {
    add(
      'NotReported',
      'its leader has not reported since the placement leader started',
      'wait a moment; then look at the store that led it',
    );
  } else if (region.lastReportAgeMs > facts.staleAfterMs) {
    add(
      'StaleReport',
      `its leader reported ${formatAge(region.lastReportAgeMs)} ago for the last time`,
      'see "braid ctl store list" and the log of the store that leads it',
      region.leader?.storeId,
    );
  }
  for (const { peer, downSeconds } of region.downPeers) {
    add(
      'DownReplica',
      `the replica on store ${peer.storeId} has been silent for ${formatAge(downSeconds * 1000)}`,
      `start store ${peer.storeId}, or wait until it is replaced: ${explain}`,
      peer.storeId,
    );
  }
  const down = new Set(region.downPeers.map(({ peer }) => peer.id));
  for (const peer of region.pendingPeers.filter(({ id }) => !down.has(id))) {
    add(
      'PendingReplica',
      `the replica on store ${peer.storeId} is still catching up`,
      `wait; if it stays, see the log of store ${peer.storeId}`,
      peer.storeId,
    );
  }
  const voters = region.peers.filter(({ role }) => role !== 'learner').length;
  if (facts.underReplicated.has(region.id)) {
    add('MissingReplica', `it has ${voters} voters, fewer than its rules want`, `see why nothing is added: ${explain}`);
  }
  if (facts.overReplicated.has(region.id)) {
    add('ExtraReplica', `it has ${voters} voters, more than its rules want`, `see why none is removed: ${explain}`);
  }
  const { regionMaxSizeBytes: max } = facts;
  if (max !== undefined && region.sizeBytes > max * OVERSIZED_FACTOR) {
    add(
      'Oversized',
      `it has ${formatBytes(region.sizeBytes)}, regions are split above ${formatBytes(max)}`,
      region.pinned
        ? 'it is pinned or a Partition, so it is not split; unpin it, or split it by hand'
        : `see why it is not split: ${explain}; or split it: braid ctl region split ${region.id}`,
    );
  }
  return found;
}

// ---------------------------------------------------------------------------------------------------- configuration

export interface ConfigFinding {
  readonly code:
    | 'NoAnswer'
    | 'VersionDiffers'
    | 'SettingDiffers'
    | 'LabelMissing'
    | 'LabelTwice'
    | 'EvenReplicas'
    | 'EvenMembers'
    | 'TooFewStores'
    | 'RegionSizeDiffers'
    | 'MergeSizeTooLarge';
  /** `store 2`, `member pd1` or `cluster`. */
  readonly subject: string;
  readonly setting: string | undefined;
  readonly message: string;
  readonly hint: string;
}

/** A process and what it said; or why it said nothing. */
export interface Told {
  /** `store 2` or `member pd1` */
  readonly subject: string;
  readonly settings: ProcessSettings | undefined;
  readonly failure: string | undefined;
}

export interface ConfigFacts {
  readonly stores: readonly StoreInfo[];
  readonly members: readonly PlacementMember[];
  readonly maxReplicas: number;
  readonly told: readonly Told[];
  /** What is set at run time, by names without section: it wins over the files of the placement members. */
  readonly runTime: Readonly<Record<string, unknown>>;
}

/**
 * Settings of stores that must be the same everywhere: those that decide whether two replicas agree, and those a region
 * would see change whenever its leader moves. Pace, memory and places may differ from machine to machine.
 */
const EQUAL_ON_STORES: readonly RegExp[] = [
  /^storage\.enable-ttl$/,
  /^raftstore\.(tick|heartbeat-ticks|election-ticks|leader-lease)$/,
  /^raftstore\.(entry-size-max|key-size-max|merge-max-log-gap|max-peer-down)$/,
  /^raftstore\.(region-max-size|region-max-keys|region-split-size|region-split-keys)$/,
  /^raftstore\.(load-split-qps|load-split-flow|load-split-detect)$/,
  /^raftstore\.(proxy-threshold|leader-transfer-max-log-lag)$/,
];
/** Any member may lead, so all that the leader decides by must be the same. */
const EQUAL_ON_MEMBERS: readonly RegExp[] = [/^(placement|allocation|group)\./];

/** A merge of two regions of this size makes one that is split at once. */
const MERGED_PARTS = 2;

export function configFindings(facts: ConfigFacts): readonly ConfigFinding[] {
  const stores = facts.told.filter(({ settings }) => settings?.role === 'store');
  const members = facts.told
    .filter(({ settings }) => settings?.role === 'pd')
    .map((member) => withRunTime(member, facts.runTime));
  return [
    ...silent(facts.told),
    ...versions(facts.told),
    ...differences(stores, EQUAL_ON_STORES),
    ...differences(members, EQUAL_ON_MEMBERS),
    ...places(facts, members[0]),
    ...counts(facts),
    ...sizes(stores, members[0]),
  ];
}

/** Sizes are written with their unit. */
const valueOf = (shown: unknown): unknown => (typeof shown === 'string' ? (parseSizeBytes(shown) ?? shown) : shown);

function withRunTime(member: Told, runTime: ConfigFacts['runTime']): Told {
  const { settings } = member;
  if (settings === undefined) {
    return member;
  }
  const set = Object.entries(runTime).map(
    ([name, shown]) =>
      [`placement.${name}`, { value: valueOf(shown), text: JSON.stringify(shown), origin: 'run time' }] as const,
  );
  return { ...member, settings: { ...settings, settings: new Map([...settings.settings, ...set]) } };
}

const silent = (told: readonly Told[]): readonly ConfigFinding[] =>
  told.flatMap(({ subject, failure }) =>
    failure === undefined
      ? []
      : [
          {
            code: 'NoAnswer' as const,
            subject,
            setting: undefined,
            message: `it does not tell its settings: ${failure}`,
            hint: 'start it, or check that its address can be reached from here',
          },
        ],
  );

/** The value most of them have; of equally many the one of the first. */
function usual<T>(values: readonly T[]): T | undefined {
  const counts = new Map<T, number>();
  for (const value of values) {
    counts.set(value, (counts.get(value) ?? 0) + 1);
  }
  return [...counts].toSorted(([, a], [, b]) => b - a)[0]?.[0];
}

function versions(told: readonly Told[]): readonly ConfigFinding[] {
  const known = told.filter(({ settings }) => settings !== undefined && settings.version !== '');
  const most = usual(known.map(({ settings }) => settings?.version));
  return known
    .filter(({ settings }) => settings?.version !== most)
    .map(({ subject, settings }) => ({
      code: 'VersionDiffers',
      subject,
      setting: undefined,
      message: `it runs version ${settings?.version ?? ''}, most run ${most ?? ''}`,
      hint: 'finish the upgrade: placement members first, then store by store',
    }));
}

function differences(told: readonly Told[], patterns: readonly RegExp[]): readonly ConfigFinding[] {
  const names = [...new Set(told.flatMap(({ settings }) => [...(settings?.settings.keys() ?? [])]))].filter((name) =>
    patterns.some((pattern) => pattern.test(name)),
  );
  return names.flatMap((name) => {
    const texts = told.flatMap(({ subject, settings }) => {
      const setting = settings?.settings.get(name);
      return setting === undefined ? [] : [{ subject, setting }];
    });
    const most = usual(texts.map(({ setting }) => setting.text));
    return texts
      .filter(({ setting }) => setting.text !== most)
      .map(({ subject, setting }) => ({
        code: 'SettingDiffers' as const,
        subject,
        setting: name,
        message: `${name} is ${setting.text} (${setting.origin}), elsewhere ${most ?? ''}`,
        hint: 'give all of them the same value and restart the one that differs',
      }));
  });
}

function places({ stores }: ConfigFacts, member: Told | undefined): readonly ConfigFinding[] {
  const wanted = member?.settings?.settings.get('placement.location-labels')?.value;
  const keys = Array.isArray(wanted) ? wanted.filter((key): key is string => typeof key === 'string') : [];
  const here = stores.filter(({ state }) => state !== 'removed' && state !== 'removing');
  const missing = keys
    .filter((key) => here.some(({ labels }) => labels[key] !== undefined))
    .flatMap((key) =>
      here
        .filter(({ labels }) => labels[key] === undefined)
        .map(
          ({ id }): ConfigFinding => ({
            code: 'LabelMissing',
            subject: `store ${id}`,
            setting: 'server.labels',
            message: `it has no label ${key}, which other stores have: nobody knows which place it shares`,
            hint: `braid ctl store label ${id} ${key}=VALUE`,
          }),
        ),
    );
  const twice = here.flatMap(({ id, labels }): readonly ConfigFinding[] => {
    const name = labels['name'];
    const other = here.find((one) => one.id < id && one.labels['name'] === name);
    return name === undefined || other === undefined
      ? []
      : [
          {
            code: 'LabelTwice',
            subject: `store ${id}`,
            setting: 'server.labels',
            message: `it is called ${name} like store ${other.id}: documents cannot tell them apart`,
            hint: `braid ctl store label ${id} name=OTHER`,
          },
        ];
  });
  return [...missing, ...twice];
}

function counts({ stores, members, maxReplicas }: ConfigFacts): readonly ConfigFinding[] {
  const found: ConfigFinding[] = [];
  const add = (code: ConfigFinding['code'], setting: string | undefined, message: string, hint: string): void => {
    found.push({ code, subject: 'cluster', setting, message, hint });
  };
  if (maxReplicas % 2 === 0) {
    add(
      'EvenReplicas',
      'placement.max-replicas',
      `regions have ${maxReplicas} replicas: they survive no more losses than with ${maxReplicas - 1}`,
      'use an odd number',
    );
  }
  const usable = stores.filter(({ state }) => state !== 'removed' && state !== 'removing').length;
  if (usable < maxReplicas) {
    add(
      'TooFewStores',
      'placement.max-replicas',
      `${maxReplicas} replicas are wanted, but there are ${usable} stores`,
      'add stores',
    );
  }
  const voters = members.filter(({ isVoter }) => isVoter).length;
  if (voters > 0 && voters % 2 === 0) {
    add(
      'EvenMembers',
      undefined,
      `the placement service has ${voters} members: it survives no more losses than with ${voters - 1}`,
      'add a member with "braid pd --join", or remove one',
    );
  }
  return found;
}

const numberOf = (told: Told | undefined, name: string): number | undefined => {
  const value = told?.settings?.settings.get(name)?.value;
  return typeof value === 'number' ? value : undefined;
};

function sizes(stores: readonly Told[], member: Told | undefined): readonly ConfigFinding[] {
  if (member === undefined) {
    return [];
  }
  const found: ConfigFinding[] = [];
  for (const key of ['region-max-size', 'region-max-keys']) {
    const wanted = numberOf(member, `placement.${key}`);
    for (const store of stores) {
      const actual = numberOf(store, `raftstore.${key}`);
      if (actual !== undefined && wanted !== undefined && actual !== wanted) {
        const text = (told: Told, section: string): string =>
          told.settings?.settings.get(`${section}.${key}`)?.text ?? '';
        found.push({
          code: 'RegionSizeDiffers',
          subject: store.subject,
          setting: `raftstore.${key}`,
          message: `it splits regions above ${text(store, 'raftstore')}, the placement service reckons with ${text(member, 'placement')}`,
          hint: `give placement.${key} and raftstore.${key} the same value`,
        });
      }
    }
  }
  for (const [source, max] of [
    ['merge-source-size-max', 'region-max-size'],
    ['merge-source-keys-max', 'region-max-keys'],
  ] as const) {
    const merged = numberOf(member, `placement.${source}`);
    const split = numberOf(member, `placement.${max}`);
    if (merged !== undefined && split !== undefined && merged * MERGED_PARTS > split) {
      found.push({
        code: 'MergeSizeTooLarge',
        subject: 'cluster',
        setting: `placement.${source}`,
        message: `regions are merged up to a size of which two make one that is split again (${max})`,
        hint: `set placement.${source} well below half of placement.${max}`,
      });
    }
  }
  return found;
}
