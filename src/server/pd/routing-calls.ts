/** Look-ups of regions by key and id, one by one, by range, and in batches on a stream. */
import { compareBytes, equalBytes } from '../../base/bytes.ts';
import { type KeyRange, compareEnds, isBeforeEnd } from '../../base/key-range.ts';
import { toRegionId, toWireRegion } from '../../codec/meta-wire.ts';
import {
  ErrorType,
  type QueryRegionRequest,
  type QueryRegionResponse,
  type RegionResponse,
  type ScanRegionsResponse,
} from '../../gen/pdpb.ts';
import type { RegionInfo } from '../../pd/cluster/region-info.ts';
import type { ServiceBuilder } from '../../rpc/service-builder.ts';
import { toRpcError } from '../../rpc/service-builder.ts';
import { pdMethods } from '../../rpc/services.ts';
import type { ServiceContext } from './context.ts';
import { leaderOrNone, regionReply, routeToWire } from './wire.ts';

export function addRoutingCalls(builder: ServiceBuilder, context: ServiceContext): void {
  const { tree } = context.node.placement.cluster;
  builder
    .unary(pdMethods.getRegion, (request, call) => {
      context.check(request.header, call);
      return regionReply(context.notBootstrapped() ?? context.header(), tree.find(request.regionKey));
    })
    .unary(pdMethods.getPrevRegion, (request, call) => {
      context.check(request.header, call);
      return regionReply(context.notBootstrapped() ?? context.header(), tree.findPrevious(request.regionKey));
    })
    .unary(pdMethods.getRegionByID, (request, call) => {
      context.check(request.header, call);
      return regionReply(context.notBootstrapped() ?? context.header(), tree.get(toRegionId(request.regionId)));
    })
    .unary(pdMethods.scanRegions, (request, call): ScanRegionsResponse => {
      context.check(request.header, call);
      const limit = request.limit > 0 ? request.limit : Number.POSITIVE_INFINITY;
      const found = tree.scan({ start: request.startKey, end: request.endKey }, limit);
      return {
        header: context.notBootstrapped() ?? context.header(),
        regionMetas: found.map((info) => toWireRegion(info.region)),
        leaders: found.map(leaderOrNone),
        regions: found.map(routeToWire),
      };
    })
    .unary(pdMethods.batchScanRegions, (request, call) => {
      context.check(request.header, call);
      const ranges = request.ranges.map((range): KeyRange => ({ start: range.startKey, end: range.endKey }));
      const limit = request.limit > 0 ? request.limit : Number.POSITIVE_INFINITY;
      const missing = context.notBootstrapped();
      if (missing !== undefined) {
        return { header: missing, regions: [] };
      }
      if (!areSorted(ranges)) {
        return {
          header: context.errorHeader(ErrorType.UNKNOWN, 'the ranges must be sorted and must not overlap'),
          regions: [],
        };
      }
      const scanned = scanRanges(context, ranges, limit);
      if (request.containAllKeyRange && scanned.hole) {
        return {
          header: context.errorHeader(
            ErrorType.REGIONS_NOT_CONTAIN_ALL_KEY_RANGE,
            'some keys are in no known region at the moment',
          ),
          regions: [],
        };
      }
      return { header: context.header(), regions: scanned.regions.map(routeToWire) };
    })
    .stream(pdMethods.queryRegion, (stream, call) => {
      stream.onMessage = (request) => {
        try {
          context.check(request.header, call);
          stream.send(answerQuery(context, request));
        } catch (cause) {
          const error = toRpcError(cause);
          stream.cancel(error.status, error.message);
        }
      };
      stream.onHalfClose = () => stream.end();
    });
}

function areSorted(ranges: readonly KeyRange[]): boolean {
  return ranges.every((range, i) => {
    const before = ranges[i - 1];
    const isRange = range.end.length === 0 || compareBytes(range.start, range.end) < 0;
    return isRange && (before === undefined || (before.end.length > 0 && compareBytes(before.end, range.start) <= 0));
  });
}

/** Regions of all ranges, each once; `hole` tells whether some key of a completely scanned range is in none. */
function scanRanges(
  context: ServiceContext,
  ranges: readonly KeyRange[],
  limit: number,
): { readonly regions: RegionInfo[]; readonly hole: boolean } {
  const regions: RegionInfo[] = [];
  let hole = false;
  for (const range of ranges) {
    const left = limit - regions.length;
    if (left <= 0) {
      break;
    }
    const found = context.node.placement.cluster.tree.scan(range, left);
    hole ||= hasHole(range, found, found.length >= left);
    regions.push(...found.filter((info) => info !== regions.at(-1)));
  }
  return { regions, hole };
}

/** A range cut short by the limit is complete as far as it goes. */
function hasHole(range: KeyRange, found: readonly RegionInfo[], cut: boolean): boolean {
  let at = range.start;
  for (const info of found) {
    const { start, end } = info.region.range;
    if (compareBytes(start, at) > 0) {
      return true;
    }
    if (end.length === 0) {
      return false;
    }
    at = end;
  }
  if (cut && found.length > 0) {
    return false;
  }
  return (
    found.length === 0 || (isBeforeEnd(at, range.end) && compareEnds(at, range.end) < 0 && !equalBytes(at, range.end))
  );
}

/** One batch: exactly one entry per key, 0 for a miss; regions by id, each once. */
function answerQuery(context: ServiceContext, request: QueryRegionRequest): QueryRegionResponse {
  const { tree } = context.node.placement.cluster;
  const regionsById = new Map<number, RegionResponse>();
  const add = (info: RegionInfo | undefined): number => {
    if (info === undefined) {
      return 0;
    }
    regionsById.set(info.region.id, routeToWire(info));
    return info.region.id;
  };
  const header = context.notBootstrapped();
  const reply = {
    keyIdMap: request.keys.map((key) => add(tree.find(key))),
    prevKeyIdMap: request.prevKeys.map((key) => add(tree.findPrevious(key))),
    regionsById,
  };
  for (const id of request.ids) {
    add(tree.get(toRegionId(id)));
  }
  return { header: header ?? context.header(), ...reply };
}
