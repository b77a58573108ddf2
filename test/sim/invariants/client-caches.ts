/**
 * C1: a client that knows a region in an epoch is not talked out of it by an older view, whoever holds that. Requests
 * routed by an older view are refused by stores, so nobody sees a wrong answer; clients only ask in vain, for as long as
 * the older view is told. Watched at every insertion into the caches of the SDK, with rules of its own.
 */
import { rangesOverlap } from '../../../src/base/key-range.ts';
import type { RegionCache } from '../../../src/client/region-cache.ts';
import { formatRegion, type Region } from '../../../src/meta/region.ts';
import { type Tally, violated } from './observed.ts';

/** Whether a client that knows `known` must not give it up for `offered`. */
function isNewer(known: Region, offered: Region): boolean {
  const isLaterVersion = known.epoch.version > offered.epoch.version;
  return known.id === offered.id
    ? isLaterVersion || known.epoch.confVer > offered.epoch.confVer
    : isLaterVersion && rangesOverlap(known.range, offered.range);
}

/** @param inside runs a check in the middle of the client's work, which must not take its exception for an answer */
export function watchCache(
  client: string,
  cache: RegionCache,
  tally: Tally,
  inside: (check: () => void) => void,
): void {
  const insert = cache.insert.bind(cache);
  cache.insert = (region, leader) => {
    const newer = cache.entries().filter((entry) => isNewer(entry.region, region));
    const entry = insert(region, leader);
    inside(() => {
      tally.add('views offered');
      for (const known of newer) {
        tally.add('older views offered');
        if (cache.byId(known.region.id) !== known) {
          violated('C1', `${client} knows ${formatRegion(known.region)} and gives it up for ${formatRegion(region)}`);
        }
      }
    });
    return entry;
  };
}
