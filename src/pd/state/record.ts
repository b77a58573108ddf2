/**
 * Bytes of everything the placement service persists, and the keys it lies under. The database holds nothing else.
 * Records are versioned (see codec/record.ts); golden-byte tests pin them.
 */
import { concatBytes, prefixEnd, utf8 } from '../../base/bytes.ts';
import { type RegionId, type StoreId, regionId, storeId } from '../../base/ids.ts';
import type { KeyRange } from '../../base/key-range.ts';
import { decodeRegion, encodeRegion } from '../../codec/raft-records.ts';
import { RecordError, decodeRecord, encodeRecord, fieldArray, fieldBytes, fieldInt } from '../../codec/record.ts';
import type { StoreLabel, StoreState } from '../../meta/region.ts';
import type { RegionPause } from '../cluster/pauses.ts';
import type { StoreRecord, StoreSettings } from '../cluster/store-info.ts';
import type { Author } from '../cluster/events.ts';
import { RESOURCE_KINDS, type Resource, type ResourceKind, fromJson, toJson } from '../resource/resource.ts';
import type { SwitchSetting } from '../schedule/switches.ts';
import type { ClusterMeta, ServiceSafePoint } from './pd-state.ts';

const VERSION = 1;
const STORE_STATES: readonly StoreState[] = ['up', 'offline', 'tombstone'];

const STORE_PREFIX = utf8('pd/store/');
const REGION_PREFIX = utf8('pd/region/');
const RESOURCE_PREFIX = utf8('pd/document/');

export const META_KEY: Uint8Array = utf8('pd/cluster');
export const IDS_KEY: Uint8Array = utf8('pd/ids');
export const TSO_KEY: Uint8Array = utf8('pd/tso');
export const SWITCHES_KEY: Uint8Array = utf8('pd/switches');
export const GC_KEY: Uint8Array = utf8('pd/gc');
export const RESOURCE_VERSION_KEY: Uint8Array = utf8('pd/documents');
export const PINS_KEY: Uint8Array = utf8('pd/pins');
export const PAUSES_KEY: Uint8Array = utf8('pd/pauses');

/** Eight bytes, big endian, so that keys sort by id. */
function idBytes(id: number): Uint8Array {
  const out = new Uint8Array(8);
  new DataView(out.buffer).setBigUint64(0, BigInt(id));
  return out;
}

export const storeKey = (id: StoreId): Uint8Array => concatBytes(STORE_PREFIX, idBytes(id));
export const regionKey = (id: RegionId): Uint8Array => concatBytes(REGION_PREFIX, idBytes(id));

export const STORE_KEYS: KeyRange = { start: STORE_PREFIX, end: prefixEnd(STORE_PREFIX) };
export const REGION_KEYS: KeyRange = { start: REGION_PREFIX, end: prefixEnd(REGION_PREFIX) };

export const documentKey = (kind: ResourceKind, name: string): Uint8Array =>
  concatBytes(RESOURCE_PREFIX, utf8(`${kind}/${name}`));
export const RESOURCE_KEYS: KeyRange = { start: RESOURCE_PREFIX, end: prefixEnd(RESOURCE_PREFIX) };

function fieldText(value: unknown, what: string): string {
  if (typeof value !== 'string') {
    throw new RecordError(`${what} is not text`);
  }
  return value;
}

function fieldPositive(value: unknown, what: string): number {
  if (typeof value !== 'number' || !(value > 0 && value < Infinity)) {
    throw new RecordError(`${what} is not a positive number`);
  }
  return value;
}

function fieldBool(value: unknown, what: string): boolean {
  if (typeof value !== 'boolean') {
    throw new RecordError(`${what} is not true or false`);
  }
  return value;
}

function fieldBig(value: unknown, what: string): bigint {
  if (typeof value === 'bigint') {
    return value;
  }
  return BigInt(fieldInt(value, what));
}

export const encodeMeta = (meta: ClusterMeta): Uint8Array =>
  encodeRecord(VERSION, [
    meta.clusterId,
    meta.bootstrapped,
    meta.maxReplicas,
    meta.bootstrapWallMs,
    meta.firstRegion === undefined ? new Uint8Array(0) : encodeRegion(meta.firstRegion),
  ]);

export function decodeMeta(bytes: Uint8Array): ClusterMeta {
  const { fields } = decodeRecord(bytes, 'cluster record', VERSION, 5);
  const first = fieldBytes(fields[4], 'first region');
  return {
    clusterId: fieldBig(fields[0], 'cluster id'),
    bootstrapped: fieldBool(fields[1], 'bootstrapped'),
    maxReplicas: fieldInt(fields[2], 'max replicas'),
    bootstrapWallMs: fieldInt(fields[3], 'bootstrap time'),
    firstRegion: first.length === 0 ? undefined : decodeRegion(first),
  };
}

export function encodeStore(record: StoreRecord): Uint8Array {
  const { store } = record;
  return encodeRecord(VERSION, [
    store.id,
    store.address,
    store.statusAddress,
    STORE_STATES.indexOf(store.state),
    store.labels.map((label) => [label.key, label.value]),
    store.version,
    store.startTimestamp,
    record.physicallyDestroyed,
    record.lastHeartbeatWallMs,
    ...(record.starts === undefined && record.settings === undefined ? [] : [record.starts ?? null]),
    ...(record.settings === undefined ? [] : [encodeSettings(record.settings)]),
  ]);
}

const encodeSettings = ({
  leadersEvicted,
  leaderWeight,
  regionWeight,
  limitPerMinute,
  removal,
  version,
}: StoreSettings): readonly unknown[] => [
  leadersEvicted,
  leaderWeight,
  regionWeight,
  limitPerMinute ?? null,
  removal === undefined ? null : [removal.sinceWallMs, removal.peers, removal.sizeBytes],
  // Absent in records of older programs.
  ...(version === 0 ? [] : [version]),
];

function decodeSettings(value: unknown): StoreSettings {
  const fields = fieldArray(value, 'store settings');
  const removal = fields[4] === null ? undefined : fieldArray(fields[4], 'removal');
  return {
    leadersEvicted: fieldBool(fields[0], 'leaders evicted'),
    leaderWeight: fieldPositive(fields[1], 'leader weight'),
    regionWeight: fieldPositive(fields[2], 'region weight'),
    limitPerMinute: fields[3] === null ? undefined : fieldInt(fields[3], 'store limit'),
    removal:
      removal === undefined
        ? undefined
        : {
            sinceWallMs: fieldInt(removal[0], 'start of the removal'),
            peers: fieldInt(removal[1], 'peers at the start'),
            sizeBytes: fieldInt(removal[2], 'size at the start'),
          },
    version: fields[5] === undefined ? 0 : fieldInt(fields[5], 'version of the settings'),
  };
}

export function decodeStore(bytes: Uint8Array): StoreRecord {
  const { fields } = decodeRecord(bytes, 'store record', VERSION, 9);
  const state = STORE_STATES[fieldInt(fields[3], 'store state')];
  if (state === undefined) {
    throw new RecordError(`store state has the unknown value ${String(fields[3])}`);
  }
  const labels: StoreLabel[] = fieldArray(fields[4], 'labels').map((item) => {
    const pair = fieldArray(item, 'label');
    return { key: fieldText(pair[0], 'label key'), value: fieldText(pair[1], 'label value') };
  });
  return {
    store: {
      id: storeId(fieldInt(fields[0], 'store id')),
      address: fieldText(fields[1], 'address'),
      statusAddress: fieldText(fields[2], 'status address'),
      state,
      labels,
      version: fieldText(fields[5], 'version'),
      startTimestamp: fieldInt(fields[6], 'start time'),
    },
    physicallyDestroyed: fieldBool(fields[7], 'physically destroyed'),
    lastHeartbeatWallMs: fieldInt(fields[8], 'last heartbeat'),
    ...(typeof fields[9] === 'number' ? { starts: fieldInt(fields[9], 'starts') } : {}),
    ...(fields[10] === undefined ? {} : { settings: decodeSettings(fields[10]) }),
  };
}

/** A single non-negative safe integer: the id limit or the timestamp reservation. */
export const encodeLimit = (limit: number): Uint8Array => encodeRecord(VERSION, [limit]);

export const decodeLimit = (bytes: Uint8Array, what: string): number =>
  fieldInt(decodeRecord(bytes, what, VERSION, 1).fields[0], what);

const byName = ([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number => (a < b ? -1 : 1);

export const encodeSwitches = (
  switches: ReadonlyMap<string, SwitchSetting>,
  versions: ReadonlyMap<string, number> = new Map(),
): Uint8Array =>
  encodeRecord(VERSION, [
    [...switches]
      .sort(byName)
      .map(([name, { enabled, untilWallMs }]) => [name, enabled, ...(untilWallMs === undefined ? [] : [untilWallMs])]),
    // Absent in records of older programs.
    ...(versions.size === 0 ? [] : [[...versions].sort(byName)]),
  ]);

export interface SavedSwitches {
  readonly switches: readonly (readonly [string, SwitchSetting])[];
  /** How often each was set. */
  readonly versions: readonly (readonly [string, number])[];
}

export function decodeSwitches(bytes: Uint8Array): SavedSwitches {
  const { fields } = decodeRecord(bytes, 'switches', VERSION, 1);
  const versions = fieldArray(fields[1] ?? [], 'versions of switches').map((item) => {
    const [name, version] = fieldArray(item, 'version of a switch');
    return [fieldText(name, 'switch name'), fieldInt(version, 'version of a switch')] as const;
  });
  const switches = fieldArray(fields[0], 'switches').map((item) => {
    const pair = fieldArray(item, 'switch');
    const enabled = fieldBool(pair[1], 'switch value');
    const until = pair[2] === undefined ? {} : { untilWallMs: fieldInt(pair[2], 'end of a switch being off') };
    return [fieldText(pair[0], 'switch name'), { enabled, ...until }] as const;
  });
  return { switches, versions };
}

export const encodeGc = (safePoint: bigint, services: ReadonlyMap<string, ServiceSafePoint>): Uint8Array =>
  encodeRecord(VERSION, [
    safePoint,
    [...services.values()]
      .sort((a, b) => (a.serviceId < b.serviceId ? -1 : 1))
      .map((point) => [point.serviceId, point.safePoint, point.expiresAtSeconds]),
  ]);

export function decodeGc(bytes: Uint8Array): { safePoint: bigint; services: ServiceSafePoint[] } {
  const { fields } = decodeRecord(bytes, 'safe points', VERSION, 2);
  return {
    safePoint: fieldBig(fields[0], 'safe point'),
    services: fieldArray(fields[1], 'service safe points').map((item) => {
      const f = fieldArray(item, 'service safe point');
      return {
        serviceId: fieldText(f[0], 'service id'),
        safePoint: fieldBig(f[1], 'safe point'),
        expiresAtSeconds: fieldInt(f[2], 'expiry'),
      };
    }),
  };
}

/** A document: what identifies it as fields, spec and status as JSON, because they nest. */
export function encodeResource(resource: Resource): Uint8Array {
  const { kind, meta, spec, status } = resource;
  return encodeRecord(VERSION, [
    kind,
    meta.name,
    meta.uid,
    meta.generation,
    meta.resourceVersion,
    meta.createdWallMs,
    toJson(spec),
    toJson(status),
    meta.author?.actor ?? '',
    meta.author?.reason ?? '',
  ]);
}

export function decodeResource(bytes: Uint8Array): Resource {
  const { fields } = decodeRecord(bytes, 'document', VERSION, 8);
  const kind = RESOURCE_KINDS.find((known) => known === fields[0]);
  if (kind === undefined) {
    throw new RecordError(`document has the unknown kind ${String(fields[0])}`);
  }
  return {
    kind,
    meta: {
      name: fieldText(fields[1], 'document name'),
      uid: fieldText(fields[2], 'document uid'),
      generation: fieldInt(fields[3], 'generation'),
      resourceVersion: fieldInt(fields[4], 'resource version'),
      createdWallMs: fieldInt(fields[5], 'creation time'),
      ...authorOf(fields[8], fields[9]),
    },
    spec: fieldJson(fields[6], 'spec'),
    status: fieldJson(fields[7], 'status'),
  } as Resource;
}

/** Documents of older programs do not say. */
const authorOf = (actor: unknown, reason: unknown): { readonly author?: Author } =>
  typeof actor === 'string' && actor !== '' ? { author: { actor, reason: fieldText(reason ?? '', 'reason') } } : {};

function fieldJson(value: unknown, what: string): unknown {
  try {
    return fromJson(fieldText(value, what));
  } catch (cause) {
    throw new RecordError(`${what} of a document cannot be read`, cause);
  }
}

export const encodePins = (pins: ReadonlySet<RegionId>): Uint8Array =>
  encodeRecord(VERSION, [[...pins].sort((a, b) => a - b)]);

export const decodePins = (bytes: Uint8Array): RegionId[] =>
  fieldArray(decodeRecord(bytes, 'pinned regions', VERSION, 1).fields[0], 'pinned regions').map((id) =>
    regionId(fieldInt(id, 'pinned region')),
  );

const packPause = ({
  range,
  regionId: id,
  reason,
  actor,
  sinceWallMs,
  untilWallMs,
}: RegionPause): readonly unknown[] => [range.start, range.end, id, reason, actor, sinceWallMs, untilWallMs ?? null];

function unpackPause(value: unknown): RegionPause {
  const f = fieldArray(value, 'pause');
  return {
    range: { start: fieldBytes(f[0], 'start of a pause'), end: fieldBytes(f[1], 'end of a pause') },
    regionId: regionId(fieldInt(f[2], 'paused region')),
    reason: fieldText(f[3], 'reason of a pause'),
    actor: fieldText(f[4], 'who paused'),
    sinceWallMs: fieldInt(f[5], 'begin of a pause'),
    untilWallMs: f[6] === null ? undefined : fieldInt(f[6], 'end of a pause'),
  };
}

/** One pause, as a command carries it. */
export const encodePause = (pause: RegionPause): Uint8Array => encodeRecord(VERSION, packPause(pause));

export const decodePause = (bytes: Uint8Array): RegionPause =>
  unpackPause(decodeRecord(bytes, 'pause', VERSION, 7).fields);

export const encodePauses = (pauses: readonly RegionPause[]): Uint8Array =>
  encodeRecord(VERSION, [pauses.map(packPause)]);

export const decodePauses = (bytes: Uint8Array): RegionPause[] =>
  fieldArray(decodeRecord(bytes, 'paused regions', VERSION, 1).fields[0], 'paused regions').map(unpackPause);
