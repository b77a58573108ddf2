/**
 * The raw key-value API of a store: maps wire requests to requests of the raftstore and results back, with TiKV's
 * answers (reference wire-api 6.3). Owns nothing but the moment between "the region may be read now" and the read. All
 * methods answer exactly once, possibly before they return.
 */
import type { RegionId } from '../../base/ids.ts';
import { EMPTY_BYTES, compareBytes, keyAfter } from '../../base/bytes.ts';
import { compareEnds, isBeforeEnd, isEmptyRange, type KeyRange } from '../../base/key-range.ts';
import { MIB } from '../../base/units.ts';
import type { WriteOp } from '../../codec/command.ts';
import { type DataValue, decodeDataValue, isExpired } from '../../codec/data-value.ts';
import { toWireRegionError } from '../../codec/error-wire.ts';
import { toWireRegion } from '../../codec/meta-wire.ts';
import type { RegionError } from '../../codec/region-error.ts';
import { dataKey, dataRange, userKeyOf } from '../../engine/keyspace.ts';
import type { Clock } from '../../env/clock.ts';
import { CorruptionError, type Engine, type EngineSnapshot } from '../../env/engine.ts';
import type { Error as WireRegionError } from '../../gen/errorpb.ts';
import {
  ChecksumAlgorithm,
  type Context,
  type GetHealthFeedbackRequest,
  type GetHealthFeedbackResponse,
  type KvPair,
  type RawBatchDeleteRequest,
  type RawBatchDeleteResponse,
  type RawBatchGetRequest,
  type RawBatchGetResponse,
  type RawBatchPutRequest,
  type RawBatchPutResponse,
  type RawBatchScanRequest,
  type RawBatchScanResponse,
  type RawCASRequest,
  type RawCASResponse,
  type RawChecksumRequest,
  type RawChecksumResponse,
  type RawCoprocessorRequest,
  type RawCoprocessorResponse,
  type RawDeleteRangeRequest,
  type RawDeleteRangeResponse,
  type RawDeleteRequest,
  type RawDeleteResponse,
  type RawGetKeyTTLRequest,
  type RawGetKeyTTLResponse,
  type RawGetRequest,
  type RawGetResponse,
  type RawPutRequest,
  type RawPutResponse,
  type RawScanRequest,
  type RawScanResponse,
  type SplitRegionRequest,
  type SplitRegionResponse,
  type UnsafeDestroyRangeRequest,
  type UnsafeDestroyRangeResponse,
} from '../../gen/kvrpcpb.ts';
import type { Region } from '../../meta/region.ts';
import type { AdminRequest, OpResult, ReadRequest, WriteRequest } from '../../raftstore/msg.ts';
import { Crc64 } from './crc64.ts';
import { ReadBatcher } from './read-batcher.ts';
import { headerOf, refuseContext, refuseMode, type StoreIdentity } from './request-context.ts';

/** The part of the raftstore this service needs. */
export interface KvBackend {
  write(request: WriteRequest): void;
  read(request: ReadRequest): void;
  admin(request: AdminRequest): void;
  /** What an allowed read found, for the figures of its region. */
  noteBytesRead?(region: RegionId, bytes: number): void;
}

export interface RawKvOptions {
  readonly identity: StoreIdentity;
  readonly clock: Clock;
  readonly engine: Engine;
  readonly backend: KvBackend;
  readonly enableTtl: boolean;
  readonly keySizeMaxBytes: number;
  /** Told when the disk returned damaged data: this process must not go on serving it. */
  readonly onDamage: (error: CorruptionError) => void;
}

/** What a caller knows about its own deadline. */
export interface CallInfo {
  /** Monotonic time of arrival. */
  readonly nowMs: number;
  /** Time the caller waits; undefined if it did not say. */
  readonly timeoutMs: number | undefined;
  /** Another store passed it on; it goes no further. */
  readonly isForwarded?: boolean;
}

export type Respond<T> = (response: T) => void;

/** Scans, checksums and batch scans that read at a time; each holds a view of the engine. */
export const SCANS_RUNNING_MAX = 512;
/** Pairs and bytes of one engine page; bounds the work between two turns of the event loop. */
const SCAN_PAGE_PAIRS = 1024;
const SCAN_PAGE_BYTES: number = 1 * MIB;
/** A scan may not be cut short, so a larger result is refused as a whole. */
export const SCAN_REPLY_BYTES_MAX: number = 256 * MIB;
/** Largest expiry that fits into a stored value. */
const EXPIRY_SECONDS_MAX: number = 2 ** 48 - 1;

const NO_CONTEXT: Context = Object.freeze({
  regionId: 0,
  term: 0,
  priority: 0,
  replicaRead: false,
  maxExecutionDurationMs: 0,
  staleRead: false,
  isRetryRequest: false,
  apiVersion: 0,
  requestSource: '',
  busyThresholdMs: 0,
  keyspaceId: 0,
  clusterId: '0',
});

/** A request that is refused whatever region it meets; the text goes to `error`. */
class RequestRefused extends Error {}

interface ScanWork {
  readonly range: KeyRange;
  readonly reverse: boolean;
  readonly limit: number;
  readonly keyOnly: boolean;
}

/** Exclusive end of what a scan from `start` may return; a range end beyond the region is cut. */
function clampEnd(end: Uint8Array, region: Region): Uint8Array {
  return end.length === 0 || !isBeforeEnd(end, region.range.end) ? region.range.end : end;
}

const later = (a: Uint8Array, b: Uint8Array): Uint8Array => (compareBytes(a, b) >= 0 ? a : b);

export class RawKv {
  readonly #identity: StoreIdentity;
  readonly #clock: Clock;
  readonly #engine: Engine;
  readonly #backend: KvBackend;
  readonly #enableTtl: boolean;
  readonly #keySizeMaxBytes: number;
  readonly #onDamage: (error: CorruptionError) => void;
  readonly #reads: ReadBatcher;
  #scansRunning = 0;
  #feedbackSequence = 0;

  constructor(options: RawKvOptions) {
    this.#identity = options.identity;
    this.#clock = options.clock;
    this.#engine = options.engine;
    this.#backend = options.backend;
    this.#enableTtl = options.enableTtl;
    this.#keySizeMaxBytes = options.keySizeMaxBytes;
    this.#onDamage = options.onDamage;
    this.#reads = new ReadBatcher(options.engine);
  }

  // ------------------------------------------------------------------------------------------------- point reads

  rawGet(request: RawGetRequest, call: CallInfo, respond: Respond<RawGetResponse>): void {
    this.#getOne(
      request,
      call,
      (live) => respond({ error: '', value: live?.value ?? EMPTY_BYTES, notFound: live === undefined }),
      (regionError, error) => respond({ regionError, error, value: EMPTY_BYTES, notFound: false }),
    );
  }

  rawGetKeyTTL(request: RawGetKeyTTLRequest, call: CallInfo, respond: Respond<RawGetKeyTTLResponse>): void {
    this.#getOne(
      request,
      call,
      (live) => {
        const expiry = live?.expireAtSeconds ?? 0;
        respond({ error: '', ttl: expiry === 0 ? 0 : expiry - this.#nowSeconds(), notFound: live === undefined });
      },
      (regionError, error) => respond({ regionError, error, ttl: 0, notFound: false }),
    );
  }

  #getOne(
    request: { readonly context?: Context | undefined; readonly key: Uint8Array; readonly cf: string },
    call: CallInfo,
    found: (live: DataValue | undefined) => void,
    fail: (regionError: WireRegionError | undefined, error: string) => void,
  ): void {
    const { context, key } = request;
    if (this.#refuse(context, request.cf, fail)) {
      return;
    }
    this.#read(context, call, [key], true, fail, (region) => {
      this.#reads.add(dataKey(key), (stored, failure) => {
        this.#backend.noteBytesRead?.(region.id, key.length + (stored?.length ?? 0));
        const live = failure === undefined ? this.#live(stored) : failure;
        if (live instanceof Error) {
          fail(this.#readFailure(live), '');
        } else {
          found(live);
        }
      });
    });
  }

  rawBatchGet(request: RawBatchGetRequest, call: CallInfo, respond: Respond<RawBatchGetResponse>): void {
    const { context, keys } = request;
    const fail = (regionError: WireRegionError | undefined, error: string): void =>
      respond({ regionError, pairs: errorPairs(error) });
    if (this.#refuse(context, request.cf, fail)) {
      return;
    }
    this.#read(context, call, keys, true, fail, (region) => {
      this.#engine.getMany(keys.map(dataKey)).then(
        (values) => {
          const bytes = values.reduce((sum, stored, i) => sum + (stored?.length ?? 0) + (keys[i]?.length ?? 0), 0);
          this.#backend.noteBytesRead?.(region.id, bytes);
          const pairs: KvPair[] = [];
          for (const [i, stored] of values.entries()) {
            const live = this.#live(stored);
            if (live instanceof Error) {
              fail(this.#readFailure(live), '');
              return;
            }
            if (live !== undefined) {
              pairs.push({ key: keys[i] as Uint8Array, value: live.value });
            }
          }
          respond({ pairs });
        },
        (failure: unknown) => fail(this.#readFailure(failure), ''),
      );
    });
  }

  // ------------------------------------------------------------------------------------------------- range reads

  rawScan(request: RawScanRequest, call: CallInfo, respond: Respond<RawScanResponse>): void {
    const { context, startKey, endKey, limit, reverse, keyOnly } = request;
    const fail = (regionError: WireRegionError | undefined, error: string): void =>
      respond({ regionError, kvs: errorPairs(error) });
    if (this.#refuse(context, request.cf, fail)) {
      return;
    }
    // The upper bound of a reverse scan may be the region's end, which no key check lets pass.
    const keys = reverse ? [] : [startKey];
    this.#read(
      context,
      call,
      keys,
      false,
      fail,
      (region) => {
        const range = reverse
          ? reverseRange(startKey, endKey, region)
          : { start: startKey, end: clampEnd(endKey, region) };
        if (range === undefined) {
          fail(toWireRegionError(keyNotInRegion(startKey, region)), '');
          return;
        }
        this.#scanning(
          fail,
          (snapshot) => this.#scan([{ range, reverse, limit, keyOnly }], snapshot),
          (kvs) => {
            const bytes = kvs.reduce((sum, { key, value }) => sum + key.length + value.length, 0);
            this.#backend.noteBytesRead?.(region.id, bytes);
            respond({ kvs });
          },
        );
      },
      reverse || endKey.length === 0 ? undefined : endKey,
    );
  }

  rawBatchScan(request: RawBatchScanRequest, call: CallInfo, respond: Respond<RawBatchScanResponse>): void {
    const { context, ranges, eachLimit, keyOnly, reverse } = request;
    const fail = (regionError: WireRegionError | undefined, error: string): void =>
      respond({ regionError, kvs: errorPairs(error) });
    if (this.#refuse(context, request.cf, fail)) {
      return;
    }
    const keys = reverse ? [] : ranges.map((range) => range.startKey);
    this.#read(context, call, keys, false, fail, (region) => {
      const works: ScanWork[] = [];
      for (const [i, { startKey, endKey }] of ranges.entries()) {
        const next = ranges[i + 1];
        // An open end reaches up to where the next range starts.
        const bound = endKey.length === 0 && next !== undefined ? next.startKey : endKey;
        const isOrdered = next === undefined || compareBytes(startKey, next.startKey) * (reverse ? -1 : 1) < 0;
        const range = reverse
          ? reverseRange(startKey, bound, region)
          : { start: startKey, end: clampEnd(bound, region) };
        if (!isOrdered) {
          fail(undefined, 'Invalid KeyRange: the ranges are not in order');
          return;
        }
        if (range === undefined) {
          fail(toWireRegionError(keyNotInRegion(startKey, region)), '');
          return;
        }
        works.push({ range, reverse, limit: eachLimit, keyOnly });
      }
      this.#scanning(
        fail,
        (snapshot) => this.#scan(works, snapshot),
        (kvs) => respond({ kvs }),
      );
    });
  }

  rawChecksum(request: RawChecksumRequest, call: CallInfo, respond: Respond<RawChecksumResponse>): void {
    const { context, ranges, algorithm } = request;
    const fail = (regionError: WireRegionError | undefined, error: string): void =>
      respond({ regionError, error, checksum: '0', totalKvs: 0, totalBytes: 0 });
    if (this.#refuse(context, '', fail)) {
      return;
    }
    if (algorithm !== ChecksumAlgorithm.Crc64_Xor) {
      fail(undefined, `unknown checksum algorithm ${String(algorithm)}, only Crc64_Xor is supported`);
      return;
    }
    this.#read(
      context,
      call,
      ranges.map((range) => range.startKey),
      false,
      fail,
      (region) => {
        // As with scans: clients send the whole range and continue at the region's end, whatever the reply says.
        const parts = ranges.map(({ startKey, endKey }) => ({ start: startKey, end: clampEnd(endKey, region) }));
        this.#scanning(
          fail,
          (snapshot) => this.#checksum(parts, snapshot),
          (sum) => respond({ error: '', ...sum }),
        );
      },
    );
  }

  /** Runs `work` on a view of the engine taken now, and answers. */
  #scanning<T>(
    fail: (regionError: WireRegionError | undefined, error: string) => void,
    work: (snapshot: EngineSnapshot) => Promise<T>,
    done: (result: T) => void,
  ): void {
    if (this.#scansRunning >= SCANS_RUNNING_MAX) {
      const busy: RegionError = {
        type: 'server-is-busy',
        reason: `${SCANS_RUNNING_MAX} scans are running`,
        backoffMs: 0,
      };
      fail(toWireRegionError(busy), '');
      return;
    }
    let snapshot: EngineSnapshot;
    try {
      snapshot = this.#engine.snapshot();
    } catch (failure) {
      fail(this.#readFailure(failure), '');
      return;
    }
    this.#scansRunning++;
    const release = (): void => {
      this.#scansRunning--;
      snapshot.close();
    };
    work(snapshot).then(
      (result) => {
        release();
        done(result);
      },
      (failure: unknown) => {
        release();
        if (failure instanceof RequestRefused) {
          fail(undefined, failure.message);
        } else {
          fail(this.#readFailure(failure), '');
        }
      },
    );
  }

  /** The pairs of all ranges one after the other, each up to its limit or its end and never fewer. */
  async #scan(works: readonly ScanWork[], snapshot: EngineSnapshot): Promise<KvPair[]> {
    const pairs: KvPair[] = [];
    let bytes = 0;
    for (const { range, reverse, limit, keyOnly } of works) {
      const until = pairs.length + limit;
      let rest: KeyRange | undefined = isEmptyRange(range) ? undefined : range;
      while (rest !== undefined && pairs.length < until) {
        const page = await this.#page(rest, reverse, Math.min(SCAN_PAGE_PAIRS, until - pairs.length), snapshot);
        for (const { key, value } of page.pairs) {
          pairs.push({ key, value: keyOnly ? EMPTY_BYTES : value });
          bytes += key.length + (keyOnly ? 0 : value.length);
        }
        if (bytes > SCAN_REPLY_BYTES_MAX) {
          throw new RequestRefused(
            `the scan has more than ${SCAN_REPLY_BYTES_MAX} bytes of pairs; use a smaller limit`,
          );
        }
        ({ rest } = page);
      }
    }
    return pairs;
  }

  async #checksum(
    ranges: readonly KeyRange[],
    snapshot: EngineSnapshot,
  ): Promise<{ checksum: string; totalKvs: number; totalBytes: number }> {
    let checksum = 0n;
    let totalKvs = 0;
    let totalBytes = 0;
    for (const range of ranges) {
      let rest: KeyRange | undefined = isEmptyRange(range) ? undefined : range;
      while (rest !== undefined) {
        const page = await this.#page(rest, false, SCAN_PAGE_PAIRS, snapshot);
        for (const { key, value } of page.pairs) {
          checksum ^= new Crc64().update(key).update(value).digest();
          totalKvs++;
          totalBytes += key.length + value.length;
        }
        ({ rest } = page);
      }
    }
    return { checksum: String(checksum), totalKvs, totalBytes };
  }

  /** One bounded step through a range of user keys; `rest` is what is still to be read. Expired values are left out. */
  async #page(
    range: KeyRange,
    reverse: boolean,
    limit: number,
    snapshot: EngineSnapshot,
  ): Promise<{
    readonly pairs: readonly { key: Uint8Array; value: Uint8Array }[];
    readonly rest: KeyRange | undefined;
  }> {
    const page = await this.#engine.scan({
      range: dataRange(range),
      reverse,
      limit,
      maxBytes: SCAN_PAGE_BYTES,
      snapshot,
    });
    const nowSeconds = this.#nowSeconds();
    const pairs: { key: Uint8Array; value: Uint8Array }[] = [];
    let last: Uint8Array | undefined;
    for (const [storedKey, stored] of page.entries) {
      last = userKeyOf(storedKey);
      const value = decodeDataValue(stored);
      if (value === undefined) {
        throw unknownForm(stored);
      }
      if (!isExpired(value.expireAtSeconds, nowSeconds)) {
        pairs.push({ key: last, value: value.value });
      }
    }
    if (!page.more || last === undefined) {
      return { pairs, rest: undefined };
    }
    const rest = reverse ? { start: range.start, end: last } : { start: keyAfter(last), end: range.end };
    // A reverse scan that reached the empty key has nothing left, and an empty end would mean "no bound".
    return { pairs, rest: isEmptyRange(rest) || (reverse && last.length === 0) ? undefined : rest };
  }

  // ------------------------------------------------------------------------------------------------- writes

  rawPut(request: RawPutRequest, call: CallInfo, respond: Respond<RawPutResponse>): void {
    const { context, key, value, ttl } = request;
    const answer = (regionError: WireRegionError | undefined, error: string): void => respond({ regionError, error });
    if (
      this.#refuse(context, request.cf, answer) ||
      this.#refuseText(this.#keyProblem(key) ?? this.#ttlProblem(ttl), answer)
    ) {
      return;
    }
    this.#write(context, call, [{ type: 'put', key, value, expireAtSeconds: this.#expiry(ttl) }], answer);
  }

  rawBatchPut(request: RawBatchPutRequest, call: CallInfo, respond: Respond<RawBatchPutResponse>): void {
    const { context, pairs, ttls } = request;
    const answer = (regionError: WireRegionError | undefined, error: string): void => respond({ regionError, error });
    if (this.#refuse(context, request.cf, answer)) {
      return;
    }
    let problem: string | undefined;
    if (pairs.length === 0) {
      problem = 'the batch has no pairs';
    } else if (ttls.length > 1 && ttls.length !== pairs.length) {
      problem = `the batch has ${pairs.length} pairs, but ${ttls.length} ttls`;
    }
    const ops: WriteOp[] = [];
    for (const [i, { key, value }] of pairs.entries()) {
      const ttl = ttls[ttls.length === 1 ? 0 : i] ?? 0;
      problem ??= this.#keyProblem(key) ?? this.#ttlProblem(ttl);
      ops.push({ type: 'put', key, value, expireAtSeconds: this.#expiry(ttl) });
    }
    if (!this.#refuseText(problem, answer)) {
      this.#write(context, call, ops, answer);
    }
  }

  rawDelete(request: RawDeleteRequest, call: CallInfo, respond: Respond<RawDeleteResponse>): void {
    const { context, key } = request;
    const answer = (regionError: WireRegionError | undefined, error: string): void => respond({ regionError, error });
    if (!this.#refuse(context, request.cf, answer) && !this.#refuseText(this.#keyProblem(key), answer)) {
      this.#write(context, call, [{ type: 'delete', key }], answer);
    }
  }

  rawBatchDelete(request: RawBatchDeleteRequest, call: CallInfo, respond: Respond<RawBatchDeleteResponse>): void {
    const { context, keys } = request;
    const answer = (regionError: WireRegionError | undefined, error: string): void => respond({ regionError, error });
    if (this.#refuse(context, request.cf, answer)) {
      return;
    }
    let problem = keys.length === 0 ? 'the batch has no keys' : undefined;
    const ops: WriteOp[] = [];
    for (const key of keys) {
      problem ??= this.#keyProblem(key);
      ops.push({ type: 'delete', key });
    }
    if (!this.#refuseText(problem, answer)) {
      this.#write(context, call, ops, answer);
    }
  }

  rawDeleteRange(request: RawDeleteRangeRequest, call: CallInfo, respond: Respond<RawDeleteRangeResponse>): void {
    const { context, startKey, endKey } = request;
    const answer = (regionError: WireRegionError | undefined, error: string): void => respond({ regionError, error });
    if (this.#refuse(context, request.cf, answer)) {
      return;
    }
    const range = { start: startKey, end: endKey };
    const problem = isEmptyRange(range) ? 'the start of the range is not below its end' : undefined;
    if (!this.#refuseText(problem, answer)) {
      this.#write(context, call, [{ type: 'delete-range', range }], answer);
    }
  }

  rawCompareAndSwap(request: RawCASRequest, call: CallInfo, respond: Respond<RawCASResponse>): void {
    const { context, key, value, ttl } = request;
    const fail = (regionError: WireRegionError | undefined, error: string): void =>
      respond({ regionError, error, succeed: false, previousNotExist: false, previousValue: EMPTY_BYTES });
    if (
      this.#refuse(context, request.cf, fail) ||
      this.#refuseText(this.#keyProblem(key) ?? this.#ttlProblem(ttl), fail)
    ) {
      return;
    }
    const op: WriteOp = {
      type: 'compare-and-swap',
      key,
      expected: request.previousNotExist ? undefined : request.previousValue,
      value: request.delete ? EMPTY_BYTES : value,
      expireAtSeconds: request.delete ? 0 : this.#expiry(ttl),
      deletes: request.delete,
      nowSeconds: this.#nowSeconds(),
    };
    this.#write(context, call, [op], (regionError, error, results) => {
      const [result] = results ?? [];
      if (result?.type !== 'compared') {
        fail(regionError, error);
        return;
      }
      const { swapped, previous } = result;
      respond({
        error: '',
        succeed: swapped,
        previousNotExist: previous === undefined,
        previousValue: previous ?? EMPTY_BYTES,
      });
    });
  }

  #write(
    context: Context | undefined,
    call: CallInfo,
    ops: readonly WriteOp[],
    answer: (regionError: WireRegionError | undefined, error: string, results?: readonly OpResult[]) => void,
  ): void {
    this.#backend.write({
      header: headerOf(context ?? NO_CONTEXT, call.nowMs, call.timeoutMs),
      ops,
      respond: (outcome) => {
        if (outcome.type === 'ok') {
          answer(undefined, '', outcome.results);
        } else {
          answer(toWireRegionError(outcome.error), '');
        }
      },
    });
  }

  // ------------------------------------------------------------------------------------------------- the rest

  splitRegion(request: SplitRegionRequest, _call: CallInfo, respond: Respond<SplitRegionResponse>): void {
    const { context } = request;
    const fail = (regionError: WireRegionError | undefined, error: string): void =>
      respond({ regionError, regions: [], errors: error === '' ? [] : [{ retryable: '', abort: error }] });
    if (this.#refuse(context, '', fail)) {
      return;
    }
    const given = request.splitKeys.length > 0 ? request.splitKeys : [request.splitKey];
    const keys = [...given]
      .sort(compareBytes)
      .filter((key, i, all) => i === 0 || compareBytes(key, all[i - 1] as Uint8Array) !== 0);
    let problem: string | undefined;
    if (!request.isRawKv) {
      problem = 'only raw keys can be split keys (is_raw_kv): this store has no transactional keys';
    } else if (keys.some((key) => key.length === 0)) {
      problem = 'a split key is empty';
    }
    if (this.#refuseText(problem, fail)) {
      return;
    }
    const header = headerOf(context ?? NO_CONTEXT, 0, undefined);
    this.#backend.admin({
      regionId: header.regionId,
      epoch: header.epoch,
      body: { type: 'split', keys },
      respond: (outcome) => {
        switch (outcome.type) {
          case 'ok': {
            const regions = outcome.regions.map(toWireRegion);
            respond({ regions, left: regions[0], right: regions[regions.length - 1], errors: [] });
            return;
          }
          case 'refused':
            fail(toWireRegionError(outcome.error), '');
            return;
          case 'rejected':
            fail(undefined, `${outcome.refusal.code}: ${outcome.refusal.message}`);
        }
      },
    });
  }

  getHealthFeedback(
    _request: GetHealthFeedbackRequest,
    _call: CallInfo,
    respond: Respond<GetHealthFeedbackResponse>,
  ): void {
    const HEALTHY = 1;
    this.#feedbackSequence++;
    respond({
      healthFeedback: { storeId: this.#identity.storeId, feedbackSeqNo: this.#feedbackSequence, slowScore: HEALTHY },
    });
  }

  rawCoprocessor(_request: RawCoprocessorRequest, _call: CallInfo, respond: Respond<RawCoprocessorResponse>): void {
    respond({ error: 'Coprocessor plugin is disabled!', data: EMPTY_BYTES });
  }

  unsafeDestroyRange(
    _request: UnsafeDestroyRangeRequest,
    _call: CallInfo,
    respond: Respond<UnsafeDestroyRangeResponse>,
  ): void {
    respond({ error: 'UnsafeDestroyRange is not supported: use RawDeleteRange, which is replicated' });
  }

  // ------------------------------------------------------------------------------------------------- shared checks

  /** Answers a request that is not for this store or its mode; true if it did. */
  #refuse(
    context: Context | undefined,
    cf: string,
    fail: (regionError: WireRegionError | undefined, error: string) => void,
  ): boolean {
    const refusal = refuseContext(context, this.#identity);
    if (refusal !== undefined) {
      fail(toWireRegionError(refusal), '');
      return true;
    }
    return this.#refuseText(refuseMode(context, cf), fail);
  }

  #refuseText(
    problem: string | undefined,
    fail: (regionError: WireRegionError | undefined, error: string) => void,
  ): boolean {
    if (problem === undefined) {
      return false;
    }
    fail(undefined, problem);
    return true;
  }

  #read(
    context: Context | undefined,
    call: CallInfo,
    keys: readonly Uint8Array[],
    /** Nothing but the keys is read. */
    isPointRead: boolean,
    fail: (regionError: WireRegionError | undefined, error: string) => void,
    allowed: (region: Region) => void,
    scanEnd?: Uint8Array,
  ): void {
    this.#backend.read({
      header: headerOf(context ?? NO_CONTEXT, call.nowMs, call.timeoutMs),
      keys,
      isPointRead,
      ...(scanEnd === undefined ? {} : { scanEnd }),
      replicaRead: context?.replicaRead ?? false,
      respond: (outcome) => {
        if (outcome.type === 'ok') {
          allowed(outcome.region);
        } else {
          fail(toWireRegionError(outcome.error), '');
        }
      },
    });
  }

  /** The engine did not answer: either damage, which stops the process, or the process is stopping already. */
  #readFailure(failure: unknown): WireRegionError {
    if (failure instanceof CorruptionError) {
      this.#onDamage(failure);
    }
    const text = failure instanceof Error ? failure.message : String(failure);
    return toWireRegionError({ type: 'message', message: `store ${this.#identity.storeId} cannot read: ${text}` });
  }

  /** What a user may see of a stored value: undefined if it is missing or expired, an error if it is damaged. */
  #live(stored: Uint8Array | undefined): DataValue | CorruptionError | undefined {
    if (stored === undefined) {
      return undefined;
    }
    const value = decodeDataValue(stored);
    if (value === undefined) {
      return unknownForm(stored);
    }
    return value.expireAtSeconds !== 0 && isExpired(value.expireAtSeconds, this.#nowSeconds()) ? undefined : value;
  }

  #nowSeconds(): number {
    return Math.floor(this.#clock.wallMs() / 1000);
  }

  #expiry(ttl: number): number {
    return ttl === 0 ? 0 : this.#nowSeconds() + ttl;
  }

  #keyProblem(key: Uint8Array): string | undefined {
    return key.length > this.#keySizeMaxBytes
      ? `max key size exceeded, size: ${key.length}, limit: ${this.#keySizeMaxBytes}`
      : undefined;
  }

  #ttlProblem(ttl: number): string | undefined {
    if (ttl === 0) {
      return undefined;
    }
    if (!this.#enableTtl) {
      return 'ttl is not enabled, but get put request with ttl';
    }
    return ttl > EXPIRY_SECONDS_MAX - this.#nowSeconds() ? `the ttl ${ttl} is too large` : undefined;
  }
}

const unknownForm = (stored: Uint8Array): CorruptionError =>
  new CorruptionError('a stored value has no known form', { bytes: stored.length });

const keyNotInRegion = (key: Uint8Array, region: Region): RegionError => ({
  type: 'key-not-in-region',
  key,
  regionId: region.id,
  range: region.range,
});

/**
 * The range of a reverse scan, whose `upper` bound is exclusive and may be the region's end; an empty one is the end
 * of the key space. Undefined if the bound lies outside the region.
 */
function reverseRange(upper: Uint8Array, lower: Uint8Array, region: Region): KeyRange | undefined {
  const { start, end } = region.range;
  const isInside = compareEnds(upper, end) <= 0 && (upper.length === 0 || compareBytes(start, upper) <= 0);
  return isInside ? { start: later(lower, start), end: upper } : undefined;
}

/** Replies without an error field carry the text in a pair, as TiKV's do. */
function errorPairs(error: string): KvPair[] {
  return error === '' ? [] : [{ error: { retryable: '', abort: error }, key: EMPTY_BYTES, value: EMPTY_BYTES }];
}
