/**
 * The first start of the first store of a cluster, on real files: data directory, store id, first region. Arguments:
 * data directory, and a file that plays the placement service, which lives on another machine and forgets nothing.
 * Prints the store id and the ids of the regions on the disk.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { storeId } from '../../src/base/ids.ts';
import { decodeRegionLocalState } from '../../src/codec/raft-records.ts';
import { createLevelEngineFactory } from '../../src/engine/index.ts';
import { regionStateRange } from '../../src/engine/keyspace.ts';
import { SILENT_LOGGER } from '../../src/env/log.ts';
import type { Region, Store } from '../../src/meta/region.ts';
import { joinCluster, openDataDir } from '../../src/server/data-dir.ts';

interface PlacementState {
  lastId: number;
  /** The first region and its store, once the cluster exists. */
  first: { readonly region: number; readonly store: number } | undefined;
}

const [path, file] = process.argv.slice(2) as [string, string];
const state = (
  existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : { lastId: 0, first: undefined }
) as PlacementState;
let region: Region | undefined;
const pd = {
  clusterId: 7n,
  allocIds: (count: number): Promise<number[]> => {
    state.lastId += count;
    writeFileSync(file, JSON.stringify(state));
    return Promise.resolve(Array.from({ length: count }, (_, i) => state.lastId - count + 1 + i));
  },
  isBootstrapped: () => Promise.resolve(state.first !== undefined),
  bootstrap: (store: Store, first: Region): Promise<boolean> => {
    if (state.first !== undefined) {
      return Promise.resolve(false);
    }
    region = first;
    state.first = { region: first.id, store: store.id };
    writeFileSync(file, JSON.stringify(state));
    return Promise.resolve(true);
  },
  getRegionById: (id: number): Promise<Region | undefined> =>
    Promise.resolve(id === state.first?.region ? (region ?? ({ id } as Region)) : undefined),
};

const { engine, ident } = await openDataDir({ path, engines: createLevelEngineFactory(), pd, log: SILENT_LOGGER });
const store: Store = {
  id: storeId(ident.storeId),
  address: '127.0.0.1:1',
  statusAddress: '',
  state: 'up',
  labels: [],
  version: '8.5.0',
  startTimestamp: 0,
};
await joinCluster({ engine, pd, store, log: SILENT_LOGGER });
const { entries } = await engine.scan({ range: regionStateRange(), limit: 10 });
await engine.close();
process.stdout.write(
  JSON.stringify({
    store: ident.storeId,
    regions: entries.map(([, value]) => decodeRegionLocalState(value).region.id),
  }),
);
