/**
 * The way durable changes go: `propose` a command, get its result once a majority of the members has it on disk and it
 * is applied here. The log behind the interface is `group/term-log.ts`. Below: the records a changed state leaves in a
 * batch, and how they are read back.
 */
import { assert } from '../../base/assert.ts';
import { keyAfter, startsWith, utf8 } from '../../base/bytes.ts';
import type { KeyRange } from '../../base/key-range.ts';
import type { RegionId } from '../../base/ids.ts';
import { type Engine, EngineOpenError, type WriteBatch } from '../../env/engine.ts';
import { decodeRegion, encodeRegion } from '../../codec/raft-records.ts';
import type { Region } from '../../meta/region.ts';
import { resourceKey } from '../resource/resource.ts';
import { type PdCommand, type PdRecordKey, type PdResult, PdState } from './pd-state.ts';
import {
  GC_KEY,
  IDS_KEY,
  META_KEY,
  PAUSES_KEY,
  PINS_KEY,
  REGION_KEYS,
  RESOURCE_KEYS,
  RESOURCE_VERSION_KEY,
  STORE_KEYS,
  SWITCHES_KEY,
  TSO_KEY,
  decodeGc,
  decodeLimit,
  decodeMeta,
  decodePauses,
  decodePins,
  decodeResource,
  decodeStore,
  decodeSwitches,
  documentKey,
  encodeGc,
  encodeLimit,
  encodeMeta,
  encodePauses,
  encodePins,
  encodeResource,
  encodeStore,
  encodeSwitches,
  regionKey,
  storeKey,
} from './record.ts';
import { AUDIT_KEYS, auditKey, decodeAudit, encodeAudit } from './audit-log.ts';
import { RULES_KEY, decodeRules, encodeRules } from './rule-record.ts';
import { SCHEDULERS_KEY, decodeSchedulers, encodeSchedulers } from './scheduler-record.ts';
import { SETTINGS_KEY, decodeSettings, encodeSettings } from './settings-record.ts';

export interface StateLog {
  /**
   * Resolves with the command's result once it is durable. Rejects when this member does not lead any more: with
   * NotLeaderError nothing was changed, with LeadershipLostError the next leader may carry it out or not.
   */
  propose(command: PdCommand): Promise<PdResult>;
  /** The state as of the last command applied. */
  readonly state: PdState;
}

/** Besides commands takes region descriptors, which nobody waits for. */
export interface RegionLog extends StateLog {
  /** Writes a region descriptor some time soon. Losing it is harmless: the region's leader reports it again. */
  saveRegion(region: Region): void;
  deleteRegion(id: RegionId): void;
  /** Resolves when every region change accepted so far is written or given up. */
  flush(): Promise<void>;
}

const LOAD_PAGE_MAX = 1_000;

/** Adds the record behind `key`, as it is now, to a batch. */
export function writeRecord(state: PdState, key: PdRecordKey, batch: WriteBatch): void {
  switch (key.type) {
    case 'meta': {
      const meta = state.meta;
      assert(meta !== undefined, 'changed cluster record is missing');
      batch.put(META_KEY, encodeMeta(meta));
      return;
    }
    case 'store': {
      const record = state.stores.get(key.id);
      assert(record !== undefined, 'changed store record is missing', { store: key.id });
      batch.put(storeKey(key.id), encodeStore(record));
      return;
    }
    case 'first-region':
      batch.put(regionKey(key.region.id), encodeRegion(key.region));
      return;
    case 'ids':
      batch.put(IDS_KEY, encodeLimit(state.idLimit));
      return;
    case 'tso':
      batch.put(TSO_KEY, encodeLimit(state.tsoSavedMs));
      return;
    case 'switches':
      batch.put(SWITCHES_KEY, encodeSwitches(state.switches, state.switchVersions));
      return;
    case 'gc':
      batch.put(GC_KEY, encodeGc(state.gcSafePoint, state.serviceSafePoints));
      return;
    case 'resource': {
      const resource = state.resources.get(resourceKey(key.kind, key.name));
      if (resource === undefined) {
        batch.del(documentKey(key.kind, key.name));
      } else {
        batch.put(documentKey(key.kind, key.name), encodeResource(resource));
      }
      return;
    }
    case 'resource-version':
      batch.put(RESOURCE_VERSION_KEY, encodeLimit(state.resourceVersion));
      return;
    case 'pins':
      batch.put(PINS_KEY, encodePins(state.pins));
      return;
    case 'pauses':
      batch.put(PAUSES_KEY, encodePauses(state.pauses));
      return;
    case 'rules':
      batch.put(RULES_KEY, encodeRules({ version: state.ruleVersion, rules: [...state.rules.values()] }));
      return;
    case 'schedulers':
      batch.put(SCHEDULERS_KEY, encodeSchedulers(state.schedulers.values()));
      return;
    case 'settings':
      batch.put(SETTINGS_KEY, encodeSettings(state.settings));
      return;
    case 'audit': {
      const entry = state.audit.get(key.sequence);
      if (entry === undefined) {
        batch.del(auditKey(key.sequence));
      } else {
        batch.put(auditKey(key.sequence), encodeAudit(entry));
      }
    }
  }
}

export interface LoadedState {
  readonly state: PdState;
  /** Descriptors written by earlier processes; some may be outdated or overlap. */
  readonly regions: readonly Region[];
}

/**
 * Reads everything an earlier process wrote. A database with other content is refused.
 * @throws EngineOpenError, RecordError
 */
export async function loadState(engine: Engine): Promise<LoadedState> {
  const meta = await engine.get(META_KEY);
  if (meta === undefined) {
    const page = await engine.scan({
      range: { start: new Uint8Array(0), end: new Uint8Array(0) },
      limit: 1,
      keysOnly: true,
    });
    if (page.entries.length > 0 && !isGroupKey(page.entries[0]?.[0])) {
      throw new EngineOpenError(
        'the data directory holds a database that is not one of the placement service',
        'give the placement service a directory of its own',
      );
    }
  }
  const [ids, tso, switches, gc, documents, pins, pauses, rules, schedulers, settings] = await engine.getMany([
    IDS_KEY,
    TSO_KEY,
    SWITCHES_KEY,
    GC_KEY,
    RESOURCE_VERSION_KEY,
    PINS_KEY,
    PAUSES_KEY,
    RULES_KEY,
    SCHEDULERS_KEY,
    SETTINGS_KEY,
  ]);
  const savedSwitches = switches === undefined ? { switches: [], versions: [] } : decodeSwitches(switches);
  const gcSaved = gc === undefined ? { safePoint: 0n, services: [] } : decodeGc(gc);
  const state = new PdState();
  state.restore({
    meta: meta === undefined ? undefined : decodeMeta(meta),
    stores: (await readAll(engine, STORE_KEYS)).map(decodeStore),
    idLimit: ids === undefined ? 0 : decodeLimit(ids, 'id limit'),
    tsoSavedMs: tso === undefined ? 0 : decodeLimit(tso, 'timestamp reservation'),
    switches: savedSwitches.switches,
    switchVersions: savedSwitches.versions,
    gcSafePoint: gcSaved.safePoint,
    serviceSafePoints: gcSaved.services,
    resources: (await readAll(engine, RESOURCE_KEYS)).map(decodeResource),
    resourceVersion: documents === undefined ? 0 : decodeLimit(documents, 'document version'),
    pins: pins === undefined ? [] : decodePins(pins),
    pauses: pauses === undefined ? [] : decodePauses(pauses),
    rules: rules === undefined ? { version: 0, rules: [] } : decodeRules(rules),
    schedulers: schedulers === undefined ? [] : decodeSchedulers(schedulers),
    settings: settings === undefined ? undefined : decodeSettings(settings),
    audit: (await readAll(engine, AUDIT_KEYS)).map(decodeAudit),
  });
  return { state, regions: await loadRegions(engine) };
}

/** Region descriptors as they are on disk. @throws RecordError */
export const loadRegions = async (engine: Engine): Promise<readonly Region[]> =>
  (await readAll(engine, REGION_KEYS)).map(decodeRegion);

/** A member that has joined holds records of the group before its first state. */
const isGroupKey = (key: Uint8Array | undefined): boolean => key !== undefined && startsWith(key, utf8('group/'));

async function readAll(engine: Engine, range: KeyRange): Promise<Uint8Array[]> {
  const values: Uint8Array[] = [];
  let start = range.start;
  for (;;) {
    const page = await engine.scan({ range: { start, end: range.end }, limit: LOAD_PAGE_MAX });
    for (const [, value] of page.entries) {
      values.push(value);
    }
    const last = page.entries.at(-1);
    if (!page.more || last === undefined) {
      return values;
    }
    start = keyAfter(last[0]);
  }
}
