/** The story of a full history for its trace page: faults, roles, messages, commands of the placement service. */
import { escapeKey } from '../../src/base/bytes.ts';
import type { PeerMessage } from '../../src/codec/peer-message.ts';
import { formatRegion } from '../../src/meta/region.ts';
import { MsgType } from '../../src/raft/types.ts';
import type { FullCluster, Machine } from './full-cluster.ts';
import type { TimelineEntry } from './run-result.ts';

/** A minute of messages would make a page that no browser shows: only the last ones are kept. */
const MESSAGES_MAX = 8_000;
const ENTRIES_MAX = 30_000;

const MESSAGE_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(MsgType).map(([name, value]) => [value as number, name]),
);

export class Story {
  readonly #entries: TimelineEntry[] = [];
  /** A ring. */
  readonly #mail: TimelineEntry[] = [];
  /** Messages under way, oldest first, by what can be told of them at both ends. */
  readonly #inFlight: Map<string, TimelineEntry[]> = new Map();
  readonly #cluster: FullCluster;
  readonly #isKept: boolean;
  readonly #roles: Map<string, string> = new Map();
  #mailCount = 0;

  constructor(cluster: FullCluster, isKept: boolean) {
    this.#cluster = cluster;
    this.#isKept = isKept;
    if (isKept) {
      this.#watch();
    }
  }

  #watch(): void {
    const cluster = this.#cluster;
    const { scheduler, pdChecks, machines } = cluster;
    const check = scheduler.afterEvent;
    scheduler.afterEvent = (node, kind) => {
      check?.(node, kind);
      if (kind === 'store-round') {
        this.#noteRoles(node);
      }
    };
    cluster.observer = {
      onSend: (message, machine) => {
        const { body } = message;
        const isChatter =
          body.type === 'raft' &&
          (body.message.type === MsgType.Heartbeat || body.message.type === MsgType.HeartbeatResp);
        const to = cluster.machineOfStore(message.to.storeId);
        if (!isChatter && to !== undefined) {
          const what = body.type === 'raft' ? MESSAGE_NAMES.get(body.message.type) : body.type;
          const entry: TimelineEntry = {
            atMs: scheduler.nowMs,
            lane: machine.id,
            kind: 'message',
            text: `r${message.regionId} ${what}`,
            to: to.id,
          };
          this.#mail[this.#mailCount++ % MESSAGES_MAX] = entry;
          const key = identityOf(message);
          this.#inFlight.set(key, [...(this.#inFlight.get(key) ?? []), entry]);
        }
      },
      onArrive: (message) => {
        const key = identityOf(message);
        const [entry, ...rest] = this.#inFlight.get(key) ?? [];
        if (entry !== undefined) {
          entry.untilMs = scheduler.nowMs;
          if (rest.length === 0) {
            this.#inFlight.delete(key);
          } else {
            this.#inFlight.set(key, rest);
          }
        }
      },
      onStart: (machine: Machine | undefined) =>
        this.#add(
          machine?.id ?? machines.size + 1,
          'note',
          machine === undefined ? 'started' : `store ${machine.storeId} started`,
        ),
    };
    pdChecks.onCommand = (reply) =>
      this.#add(machines.size + 1, 'region', `r${reply.regionId} ${JSON.stringify(reply.step, jsonBytes)}`);
  }

  /** In the order of time. */
  get entries(): readonly TimelineEntry[] {
    return [...this.#entries, ...this.#mail].sort((a, b) => a.atMs - b.atMs);
  }

  note(text: string): void {
    this.#add(0, 'note', text);
  }

  /** @param forMs how long it lasts */
  fault(text: string, lane: number, forMs: number): void {
    this.#add(lane, 'fault', text, { untilMs: this.#cluster.scheduler.nowMs + forMs });
  }

  #add(lane: number, kind: TimelineEntry['kind'], text: string, more: Partial<TimelineEntry> = {}): void {
    if (this.#isKept && this.#entries.length < ENTRIES_MAX) {
      this.#entries.push({ atMs: this.#cluster.scheduler.nowMs, lane, kind, text, ...more });
    }
  }

  #noteRoles(node: number): void {
    for (const s of this.#cluster.machines.get(node)?.store?.status() ?? []) {
      const key = `${node}/${s.region.id}`;
      const { start, end } = s.region.range;
      const { version, confVer } = s.region.epoch;
      const text = `r${s.region.id} v${version}:${confVer} [${escapeKey(start)},${escapeKey(end)}) peer ${s.peerId} ${s.role} t${s.term} ${s.state} of ${formatRegion(s.region)}`;
      if (this.#roles.get(key) !== text) {
        this.#roles.set(key, text);
        const isMerging = s.state === 'merging';
        this.#add(node, 'role', text, {
          region: { id: s.region.id, version, confVer, range: s.region.range, isMerging },
        });
      }
    }
  }
}

function identityOf({ from, to, regionId, body }: PeerMessage): string {
  const what = body.type === 'raft' ? [body.message.type, body.message.term, body.message.index] : [body.type];
  return [regionId, from.id, to.id, ...what].join(' ');
}

const jsonBytes = (_: string, value: unknown): unknown => (value instanceof Uint8Array ? escapeKey(value) : value);
