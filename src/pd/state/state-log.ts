/**
 * The way durable changes go: `propose` a command, get its result once it is durable. The single-member log below
 * writes commands to the engine in order, many per batch; a replicated log with the same interface can take its place.
 * A result is visible to the rest of the service only after the write: a crash before it leaves nothing behind.
 */
import { assert } from '../../base/assert.ts';
import { keyAfter } from '../../base/bytes.ts';
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
  decodePins,
  decodeResource,
  decodeStore,
  decodeSwitches,
  documentKey,
  encodeGc,
  encodeLimit,
  encodeMeta,
  encodePins,
  encodeResource,
  encodeStore,
  encodeSwitches,
  regionKey,
  storeKey,
} from './record.ts';

export interface StateLog {
  /** Resolves with the command's result once it is durable. Rejects only when the log is broken for good. */
  propose(command: PdCommand): Promise<PdResult>;
  /** The state as of the last durable command, plus commands whose write is still running. */
  readonly state: PdState;
}

/** Commands and region changes written together at most. */
const BATCH_COMMANDS_MAX = 256;
const BATCH_REGIONS_MAX = 4_096;
const LOAD_PAGE_MAX = 1_000;

interface Waiting {
  readonly command: PdCommand;
  readonly resolve: (result: PdResult) => void;
  readonly reject: (cause: unknown) => void;
}

export class LocalStateLog implements StateLog {
  readonly state: PdState;
  readonly #engine: Engine;
  #waiting: Waiting[] = [];
  /** Region descriptors to write; undefined = delete. Coalesced: only the last one per id is written. */
  readonly #regions = new Map<RegionId, Region | undefined>();
  #running: Promise<void> | undefined;
  #failure: Error | undefined;

  constructor(engine: Engine, state: PdState) {
    this.#engine = engine;
    this.state = state;
  }

  propose(command: PdCommand): Promise<PdResult> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ command, resolve, reject });
      this.#start();
    });
  }

  /**
   * Writes a region descriptor some time soon. Losing it in a crash is harmless: the leader reports it again. Waits of
   * the map itself are not bounded because it never holds more entries than there are regions.
   */
  saveRegion(region: Region): void {
    this.#regions.set(region.id, region);
    this.#start();
  }

  deleteRegion(id: RegionId): void {
    this.#regions.set(id, undefined);
    this.#start();
  }

  /** Resolves when everything accepted so far is durable. Rejects when the engine failed. */
  async flush(): Promise<void> {
    while (this.#running !== undefined) {
      await this.#running;
    }
    if (this.#failure !== undefined) {
      throw this.#failure;
    }
  }

  #start(): void {
    if (this.#running === undefined) {
      this.#running = this.#run();
    }
  }

  async #run(): Promise<void> {
    // Let callers of the same turn join the batch.
    await Promise.resolve();
    while (this.#failure === undefined && (this.#waiting.length > 0 || this.#regions.size > 0)) {
      const commands = this.#waiting.splice(0, BATCH_COMMANDS_MAX);
      const batch = this.#engine.createBatch();
      const results = commands.map((waiting) => this.#applyInto(waiting.command, batch));
      this.#takeRegions(batch);
      try {
        await this.#engine.write(batch);
      } catch (cause) {
        this.#failure = cause instanceof Error ? cause : new Error(String(cause));
        for (const waiting of [...commands, ...this.#waiting.splice(0)]) {
          waiting.reject(cause);
        }
        break;
      }
      for (const [i, waiting] of commands.entries()) {
        waiting.resolve(results[i] as PdResult);
      }
    }
    if (this.#failure !== undefined) {
      for (const waiting of this.#waiting.splice(0)) {
        waiting.reject(this.#failure);
      }
      this.#regions.clear();
    }
    this.#running = undefined;
  }

  #applyInto(command: PdCommand, batch: WriteBatch): PdResult {
    const touched: PdRecordKey[] = [];
    const result = this.state.apply(command, touched);
    assert(result.type === 'done' || touched.length === 0, 'a refused command changed the state');
    for (const key of touched) {
      this.#put(key, batch);
    }
    return result;
  }

  #put(key: PdRecordKey, batch: WriteBatch): void {
    switch (key.type) {
      case 'meta': {
        const meta = this.state.meta;
        assert(meta !== undefined, 'changed cluster record is missing');
        batch.put(META_KEY, encodeMeta(meta));
        return;
      }
      case 'store': {
        const record = this.state.stores.get(key.id);
        assert(record !== undefined, 'changed store record is missing', { store: key.id });
        batch.put(storeKey(key.id), encodeStore(record));
        return;
      }
      case 'first-region':
        batch.put(regionKey(key.region.id), encodeRegion(key.region));
        return;
      case 'ids':
        batch.put(IDS_KEY, encodeLimit(this.state.idLimit));
        return;
      case 'tso':
        batch.put(TSO_KEY, encodeLimit(this.state.tsoSavedMs));
        return;
      case 'switches':
        batch.put(SWITCHES_KEY, encodeSwitches(this.state.switches));
        return;
      case 'gc':
        batch.put(GC_KEY, encodeGc(this.state.gcSafePoint, this.state.serviceSafePoints));
        return;
      case 'resource': {
        const resource = this.state.resources.get(resourceKey(key.kind, key.name));
        if (resource === undefined) {
          batch.del(documentKey(key.kind, key.name));
        } else {
          batch.put(documentKey(key.kind, key.name), encodeResource(resource));
        }
        return;
      }
      case 'resource-version':
        batch.put(RESOURCE_VERSION_KEY, encodeLimit(this.state.resourceVersion));
        return;
      case 'pins':
        batch.put(PINS_KEY, encodePins(this.state.pins));
    }
  }

  #takeRegions(batch: WriteBatch): void {
    let taken = 0;
    for (const [id, region] of this.#regions) {
      if (taken >= BATCH_REGIONS_MAX) {
        return;
      }
      this.#regions.delete(id);
      taken++;
      if (region === undefined) {
        batch.del(regionKey(id));
      } else {
        batch.put(regionKey(id), encodeRegion(region));
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
    if (page.entries.length > 0) {
      throw new EngineOpenError(
        'the data directory holds a database that is not one of the placement service',
        'give the placement service a directory of its own',
      );
    }
  }
  const [ids, tso, switches, gc, documents, pins] = await engine.getMany([
    IDS_KEY,
    TSO_KEY,
    SWITCHES_KEY,
    GC_KEY,
    RESOURCE_VERSION_KEY,
    PINS_KEY,
  ]);
  const gcSaved = gc === undefined ? { safePoint: 0n, services: [] } : decodeGc(gc);
  const state = new PdState();
  state.restore({
    meta: meta === undefined ? undefined : decodeMeta(meta),
    stores: (await readAll(engine, STORE_KEYS)).map(decodeStore),
    idLimit: ids === undefined ? 0 : decodeLimit(ids, 'id limit'),
    tsoSavedMs: tso === undefined ? 0 : decodeLimit(tso, 'timestamp reservation'),
    switches: switches === undefined ? [] : decodeSwitches(switches),
    gcSafePoint: gcSaved.safePoint,
    serviceSafePoints: gcSaved.services,
    resources: (await readAll(engine, RESOURCE_KEYS)).map(decodeResource),
    resourceVersion: documents === undefined ? 0 : decodeLimit(documents, 'document version'),
    pins: pins === undefined ? [] : decodePins(pins),
  });
  return { state, regions: (await readAll(engine, REGION_KEYS)).map(decodeRegion) };
}

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
