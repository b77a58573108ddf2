/**
 * What happens to a real cluster while clients use it: members are killed and paused, and the regions of the hot range
 * are split, merged, moved and led from elsewhere all the time. Everything done is one line of the nemesis log.
 */
import { compareBytes, utf8 } from '../../src/base/bytes.ts';
import type { AdminClient, Submission } from '../../src/client/admin.ts';
import type { OperatorInfo, RegionDetails } from '../../src/client/admin-wire.ts';
import type { Rng } from '../../src/env/rng.ts';
import { errorCode } from '../perform.ts';
import type { Member, Processes } from './processes.ts';
import { KEYS, plainKey } from './workload.ts';

export interface NemesisEvent {
  /** Since the start of the run, ms. */
  readonly atMs: number;
  readonly what: string;
  readonly target: string;
  readonly result: string;
  readonly tookMs: number;
}

/** A change of regions that ended. Times are of `performance.now`. */
export interface RegionChange {
  readonly kind: 'split' | 'merge' | 'move' | 'transfer';
  readonly startMs: number;
  readonly endMs: number;
  readonly isDone: boolean;
}

export interface NemesisPlan {
  /** Mean interval of kill -9, ms; 0 = never. */
  readonly killEveryMs: number;
  /** Mean interval of SIGSTOP, ms; 0 = never. */
  readonly pauseEveryMs: number;
  /** Whether the placement service is killed, too. */
  readonly killPd: boolean;
  /** Whether now and then everything is killed at once. */
  readonly killAll: boolean;
  /** Regions above this number are merged rather than split. */
  readonly regionsMax: number;
}

const DOWN_MS_MAX = 6000;
const PAUSE_MS: readonly [number, number] = [200, 4000];
const OPERATOR_LIMIT_MS = 20_000;
const OPERATOR_POLL_MS = 30;
const CALL_LIMIT_MS = 5000;

const wait = (ms: number): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, ms);
  });

export class Nemesis {
  readonly events: NemesisEvent[] = [];
  readonly changes: RegionChange[] = [];
  /** When a member was killed or paused, and when it was back. Times are of `performance.now`. */
  readonly outages: { readonly startMs: number; endMs: number }[] = [];
  readonly #processes: Processes;
  readonly #admin: AdminClient;
  readonly #plan: NemesisPlan;
  readonly #rng: Rng;
  readonly #generation: () => number;
  readonly #onEvent: (event: NemesisEvent) => void;
  readonly #startMs: number = performance.now();
  #isStopped = false;

  constructor(options: {
    readonly processes: Processes;
    readonly admin: AdminClient;
    readonly plan: NemesisPlan;
    readonly rng: Rng;
    /** The set of keys in use. */
    readonly generation: () => number;
    readonly onEvent: (event: NemesisEvent) => void;
  }) {
    this.#processes = options.processes;
    this.#admin = options.admin;
    this.#plan = options.plan;
    this.#rng = options.rng;
    this.#generation = options.generation;
    this.#onEvent = options.onEvent;
  }

  /** Until `stop`; resolves when every member runs again. */
  async run(): Promise<void> {
    await Promise.all([this.#regions(), this.#kills(), this.#pauses()]);
  }

  stop(): void {
    this.#isStopped = true;
  }

  #note(what: string, target: string, startMs: number, result: string): void {
    const event = {
      atMs: Math.round(startMs - this.#startMs),
      what,
      target,
      result,
      tookMs: Math.round(performance.now() - startMs),
    };
    this.events.push(event);
    this.#onEvent(event);
  }

  /** Waits in small steps, so that `stop` is heard. */
  async #rest(ms: number): Promise<void> {
    const end = performance.now() + ms;
    while (!this.#isStopped && performance.now() < end) {
      await wait(Math.min(100, end - performance.now()));
    }
  }

  async #outage(what: string, members: readonly Member[], act: () => Promise<void>): Promise<void> {
    const startMs = performance.now();
    const outage = { startMs, endMs: Infinity };
    this.outages.push(outage);
    await act();
    outage.endMs = performance.now();
    this.#note(what, members.map((member) => member.name).join(' '), startMs, 'back');
  }

  async #kills(): Promise<void> {
    const { killEveryMs, killPd, killAll } = this.#plan;
    if (killEveryMs === 0) {
      return;
    }
    const { stores, pd } = this.#processes;
    for (;;) {
      await this.#rest(killEveryMs * (0.7 + 0.6 * this.#rng.float()));
      if (this.#isStopped) {
        return;
      }
      const draw = this.#rng.float();
      const victims = killAll && draw < 0.08 ? [pd, ...stores] : killPd && draw < 0.2 ? [pd] : [this.#rng.pick(stores)];
      const downMs = this.#rng.chance(0.5) ? 0 : this.#rng.float() * DOWN_MS_MAX;
      await this.#outage('kill -9', victims, async () => {
        await Promise.all(victims.map((member) => member.kill()));
        await this.#rest(downMs);
        if (victims.includes(pd)) {
          await pd.start();
        }
        await Promise.all(victims.filter((member) => member !== pd).map((member) => member.start()));
      });
    }
  }

  async #pauses(): Promise<void> {
    const { pauseEveryMs } = this.#plan;
    if (pauseEveryMs === 0) {
      return;
    }
    for (;;) {
      await this.#rest(pauseEveryMs * (0.5 + this.#rng.float()));
      if (this.#isStopped) {
        return;
      }
      const victim = this.#rng.pick(this.#processes.stores);
      if (victim.isRunning) {
        await this.#outage('SIGSTOP', [victim], async () => {
          victim.pause();
          await this.#rest(PAUSE_MS[0] + this.#rng.float() * (PAUSE_MS[1] - PAUSE_MS[0]));
          victim.resume();
        });
      }
    }
  }

  async #regions(): Promise<void> {
    while (!this.#isStopped) {
      const regions = await this.#list();
      if (regions.length === 0) {
        await this.#rest(200);
        continue;
      }
      const draw = this.#rng.float();
      if (regions.length < 2 || (regions.length < this.#plan.regionsMax && draw < 0.4)) {
        await this.#split(regions);
      } else if (draw < 0.8) {
        await this.#merge(regions);
      } else if (draw < 0.92) {
        await this.#move(regions);
      } else {
        await this.#transfer(regions);
      }
      await this.#rest(this.#rng.float() * 400);
    }
  }

  async #list(): Promise<readonly RegionDetails[]> {
    try {
      const { regions } = await this.#admin.regions({ timeoutMs: CALL_LIMIT_MS });
      return regions.toSorted((a, b) => compareBytes(a.range.start, b.range.start));
    } catch {
      return [];
    }
  }

  async #change(kind: RegionChange['kind'], target: string, submit: () => Promise<Submission>): Promise<void> {
    const startMs = performance.now();
    let result: string;
    try {
      const submission = await submit();
      result = submission.type;
      if (submission.type === 'started') {
        const operator = await this.#ended(submission.operator.id);
        result =
          operator === undefined
            ? 'unknown'
            : `${operator.status}${operator.reasonCode === '' ? '' : ` (${operator.reasonCode})`}`;
      }
    } catch (error) {
      result = errorCode(error);
    }
    this.changes.push({ kind, startMs, endMs: performance.now(), isDone: result.startsWith('success') });
    this.#note(kind, target, startMs, result);
  }

  /** The operator once it ended; canceled when it takes too long. Undefined if the placement service has forgotten it. */
  async #ended(id: number): Promise<OperatorInfo | undefined> {
    const limit = performance.now() + OPERATOR_LIMIT_MS;
    while (!this.#isStopped && performance.now() < limit) {
      try {
        const operator = await this.#admin.operator(id, { timeoutMs: CALL_LIMIT_MS });
        if (operator.finishedUnixMs !== undefined) {
          return operator;
        }
      } catch (error) {
        if (errorCode(error) === 'OperatorNotFound') {
          return undefined;
        }
      }
      await wait(OPERATOR_POLL_MS);
    }
    return this.#admin.cancelOperator(id, { timeoutMs: CALL_LIMIT_MS }).catch(() => undefined);
  }

  async #split(regions: readonly RegionDetails[]): Promise<void> {
    // Mostly in the keys that are in use; the newest keys lie in the last region.
    const key = utf8(plainKey(this.#generation(), this.#rng.below(KEYS)));
    const region = regions.findLast((one) => compareBytes(one.range.start, key) <= 0);
    if (region !== undefined && compareBytes(region.range.start, key) !== 0) {
      await this.#change('split', `region ${region.id}`, () =>
        this.#admin.splitRegion(region.id, [key], { timeoutMs: CALL_LIMIT_MS }),
      );
    }
  }

  async #merge(regions: readonly RegionDetails[]): Promise<void> {
    const at = this.#rng.below(regions.length - 1);
    const pair = [regions[at], regions[at + 1]] as [RegionDetails, RegionDetails];
    const [source, target] = this.#rng.chance(0.5) ? pair : [pair[1], pair[0]];
    await this.#change('merge', `region ${source.id} into ${target.id}`, () =>
      this.#admin.mergeRegions({ source: source.id, target: target.id }, { timeoutMs: CALL_LIMIT_MS }),
    );
  }

  async #move(regions: readonly RegionDetails[]): Promise<void> {
    const region = this.#rng.pick(regions);
    const used = region.peers.map((peer) => peer.storeId);
    const free = this.#processes.stores.map((store) => store.storeId).filter((id) => !used.includes(id));
    if (free.length === 0 || used.length === 0) {
      return this.#transfer(regions);
    }
    const [fromStore, toStore] = [this.#rng.pick(used), this.#rng.pick(free)];
    await this.#change('move', `region ${region.id} from store ${fromStore} to ${toStore}`, () =>
      this.#admin.moveRegion(region.id, { fromStore, toStore }, { timeoutMs: CALL_LIMIT_MS }),
    );
  }

  async #transfer(regions: readonly RegionDetails[]): Promise<void> {
    const region = this.#rng.pick(regions);
    const others = region.peers.filter((peer) => peer.storeId !== region.leader?.storeId);
    if (others.length > 0) {
      const to = this.#rng.pick(others).storeId;
      await this.#change('transfer', `region ${region.id} to store ${to}`, () =>
        this.#admin.transferLeader(region.id, to, { timeoutMs: CALL_LIMIT_MS }),
      );
    }
  }
}
