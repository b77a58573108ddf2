/** What the nemesis of the full world does to processes, disks, clocks, links and regions. */
import type { AdminClient } from '../../src/client/admin.ts';
import { isBeforeEnd } from '../../src/base/key-range.ts';
import { FAILPOINT_NAMES } from '../../src/env/failpoint-names.ts';
import type { Region } from '../../src/meta/region.ts';
import type { FullAction, FullKind } from './full-case.ts';
import { errorCode, splitPoints, toBytes } from './full-clients.ts';
import { type FullCluster, type Machine, PD_NODE } from './full-cluster.ts';

const HOLD_POINTS = [
  'apply::before-write',
  'apply::before-split',
  'apply::before-prepare-merge',
  'apply::before-commit-merge',
  'apply::before-rollback-merge',
  'apply::before-change-peer',
  'apply::before-compact-log',
] as const;
const SWITCHES = [
  'scheduling',
  'joint-state-checker',
  'learner-checker',
  'replica-checker',
  'merge-checker',
  'balance-leader',
  'balance-region',
] as const;
/** A lost store is declared dead this long after it was wiped, as an operator would do. */
const DECLARE_DEAD_MS = 500;

export interface NemesisHooks {
  /** An action took place, or how it was refused. */
  count(action: string): void;
  /** For the story: lane 0 is the cluster, then machines, then the placement service. */
  fault(text: string, lane: number, forMs: number): void;
}

/** The newest descriptors of regions that somebody leads, in key order. */
export function ledRegions(cluster: FullCluster): Region[] {
  const out = new Map<number, { readonly region: Region; readonly term: number }>();
  for (const { store } of cluster.machines.values()) {
    for (const s of store?.status() ?? []) {
      const known = out.get(s.region.id);
      if (s.role === 'leader' && s.region.peers.length > 0 && (known === undefined || known.term < s.term)) {
        out.set(s.region.id, { region: s.region, term: s.term });
      }
    }
  }
  return [...out.values()].map(({ region }) => region).sort((x, y) => Buffer.compare(x.range.start, y.range.start));
}

/** Which half of a cut network a host is in. */
function side(host: string, cut: number): boolean {
  let hash = cut;
  for (let i = 0; i < host.length; i++) {
    hash = Math.imul(hash ^ host.charCodeAt(i), 0x01000193);
  }
  return ((hash >>> 13) & 1) === 1;
}

const pick = <T>(items: readonly T[], number: number): T | undefined => items[number % Math.max(1, items.length)];
const hostOf = (machine: Machine): string => `store-${machine.id}`;
const isStore = (host: string): boolean => host.startsWith('store-');
const isClient = (host: string): boolean => host.startsWith('client-');

export class FullNemesis {
  readonly #cluster: FullCluster;
  readonly #admin: AdminClient;
  readonly #hooks: NemesisHooks;
  readonly #undo: Set<() => void> = new Set();
  /** Stores whose disk is gone and that must be declared dead until it succeeds. */
  readonly #dead: Set<number> = new Set();
  isOver = false;

  constructor(cluster: FullCluster, admin: AdminClient, hooks: NemesisHooks) {
    this.#cluster = cluster;
    this.#admin = admin;
    this.#hooks = hooks;
  }

  /** Ends all faults. */
  heal(): void {
    this.isOver = true;
    const { network, failpoints, machines, pdDisk } = this.#cluster;
    for (const undo of this.#undo) {
      undo();
    }
    this.#undo.clear();
    network.blocks.clear();
    network.lostReplies.clear();
    network.config = { delayMs: [0.2, 2], retransmitChance: 0, resetChance: 0 };
    failpoints.clear();
    this.#cluster.pdRate = 1;
    this.#cluster.pdHost?.clock.setRate(1);
    pdDisk.setBehavior({ writeDelayMs: [0.1, 1] });
    this.#cluster.bootPd();
    for (const machine of machines.values()) {
      machine.disk.setBehavior({ writeDelayMs: [0.1, 1] });
      machine.rate = 1;
      machine.clock.setRate(1);
      this.#cluster.bootStore(machine.id);
    }
  }

  #later(forMs: number, undo: () => void): void {
    const heal = (): void => {
      if (this.#undo.delete(heal)) {
        undo();
      }
    };
    this.#undo.add(heal);
    this.#cluster.scheduler.at(forMs, heal, { node: 0, kind: 'heal' });
  }

  #block(forMs: number, isBlocked: (from: string, to: string) => boolean): void {
    const { blocks } = this.#cluster.network;
    blocks.add(isBlocked);
    this.#later(forMs, () => blocks.delete(isBlocked));
  }

  #ask(action: FullKind, submitted: Promise<unknown>): void {
    submitted.then(
      () => this.#hooks.count(action),
      (error: unknown) => this.#hooks.count(`${action}:${errorCode(error)}`),
    );
  }

  act(action: FullAction): void {
    if (this.isOver) {
      return;
    }
    const wishes: readonly FullKind[] = [
      'split',
      'merge',
      'retarget',
      'transfer',
      'move',
      'add-learner',
      'remove-peer',
      'cancel',
      'switch',
    ];
    if (wishes.includes(action.kind)) {
      this.#wish(action);
    } else if (!this.#harmProcess(action) && !this.#harmDisk(action) && !this.#harmNetwork(action)) {
      this.#disturb(action);
    }
  }

  // ------------------------------------------------------------------------------------------ wishes

  #wish({ kind, a, b, c, forMs }: FullAction): void {
    const cluster = this.#cluster;
    const admin = this.#admin;
    const regions = ledRegions(cluster);
    const region = pick(regions, b);
    if (kind === 'cancel') {
      this.#cancel(a);
      return;
    }
    if (kind === 'switch') {
      const name = pick(SWITCHES, a) as (typeof SWITCHES)[number];
      this.#ask(kind, admin.setSwitch(name, false));
      this.#later(forMs, () => void admin.setSwitch(name, true).catch(() => undefined));
      return;
    }
    if (region === undefined) {
      return;
    }
    const peer = pick(region.peers, c);
    switch (kind) {
      case 'split': {
        if (regions.length >= cluster.config.regionsMax) {
          return;
        }
        const key = toBytes(pick(splitPoints(cluster.config), c) as string);
        const owner = regions.findLast(({ range }) => Buffer.compare(range.start, key) <= 0);
        if (owner !== undefined) {
          const further = splitPoints(cluster.config)
            .map(toBytes)
            .filter((other) => Buffer.compare(other, key) > 0 && isBeforeEnd(other, owner.range.end))
            .sort((x, y) => Buffer.compare(x, y))
            .slice(0, b % 3 === 0 ? 1 + (b % 2) : 0);
          this.#ask(kind, admin.splitRegion(owner.id, [key, ...further]));
        }
        return;
      }
      case 'merge': {
        const next = regions[regions.indexOf(region) + 1];
        if (next !== undefined) {
          const [source, target] = c % 2 === 0 ? [region, next] : [next, region];
          this.#ask(kind, admin.mergeRegions({ source: source.id, target: target.id }));
        }
        return;
      }
      case 'retarget':
        this.#retarget(regions, b, c);
        return;
      case 'transfer':
        if (peer !== undefined) {
          this.#ask(kind, admin.transferLeader(region.id, peer.storeId));
        }
        return;
      case 'move':
      case 'add-learner': {
        const stores = [...cluster.machines.values()].map((m) => m.storeId).filter((id) => id !== 0);
        const to = pick(
          stores.filter((id) => region.peers.every((p) => p.storeId !== id)),
          a,
        );
        if (to !== undefined && peer !== undefined) {
          this.#ask(
            kind,
            kind === 'move'
              ? admin.moveRegion(region.id, { fromStore: peer.storeId, toStore: to })
              : admin.addPeer(region.id, to, { learner: true }),
          );
        }
        return;
      }
      case 'remove-peer':
        // Only what is more than needed: an administrator's order is not the placement service's doing.
        if (region.peers.length > 3) {
          const surplus = region.peers.find(({ role }) => role === 'learner') ?? peer;
          if (surplus !== undefined) {
            this.#ask(kind, admin.removePeer(region.id, surplus.storeId));
          }
        }
        return;
      default:
    }
  }

  /** Changes a region that may be the target of a merge in flight. */
  #retarget(regions: readonly Region[], b: number, c: number): void {
    const merging = [...this.#cluster.machines.values()].flatMap(({ store }) =>
      (store?.status() ?? []).filter((s) => s.state === 'merging').map((s) => s.region.id),
    );
    const source = regions.findIndex(({ id }) => merging.includes(id));
    const target = source < 0 ? undefined : (regions[source + (b % 2 === 0 ? 1 : -1)] ?? regions[source + 1]);
    if (target === undefined) {
      return;
    }
    if (c % 2 === 0) {
      this.#ask('retarget', this.#admin.splitRegion(target.id, []));
      return;
    }
    const peer = pick(target.peers, c);
    if (peer !== undefined) {
      this.#ask('retarget', this.#admin.transferLeader(target.id, peer.storeId));
    }
  }

  #cancel(a: number): void {
    this.#ask(
      'cancel',
      this.#admin.operators().then(async (operators) => {
        const operator = pick(operators, a);
        if (operator !== undefined) {
          await this.#admin.cancelOperator(operator.id);
        }
      }),
    );
  }

  // ------------------------------------------------------------------------------------------ processes

  #harmProcess({ kind, a, b, c, forMs }: FullAction): boolean {
    const cluster = this.#cluster;
    const machine = pick([...cluster.machines.values()], a) as Machine;
    const { id } = machine;
    const loss = c % 2 === 0 ? 'kill' : 'power-loss';
    switch (kind) {
      case 'crash':
        this.#note(kind, `machine ${id} crashes (${loss})`, id, forMs);
        cluster.crashStore(id, loss);
        this.#later(forMs, () => cluster.bootStore(id));
        return true;
      case 'crash-all':
      case 'crash-everything':
        this.#note(kind, kind === 'crash-all' ? 'all stores lose power' : 'everything loses power', 0, forMs);
        for (const other of cluster.machines.keys()) {
          cluster.crashStore(other, 'power-loss');
          this.#later(forMs * (0.1 + ((other * 7919 + b) % 10) / 20), () => cluster.bootStore(other));
        }
        if (kind === 'crash-everything') {
          cluster.crashPd('power-loss');
          this.#later(forMs * ((b % 10) / 10), () => cluster.bootPd());
        }
        return true;
      case 'crash-point': {
        const name = pick(FAILPOINT_NAMES, c) as (typeof FAILPOINT_NAMES)[number];
        this.#note(kind, `machine ${id} will die at ${name}`, id, forMs + 500);
        const key = `${id}!${name}`;
        cluster.failpoints.set(key, { type: 'crash' });
        this.#later(forMs + 500, () => {
          cluster.failpoints.delete(key);
          cluster.bootStore(id);
        });
        return true;
      }
      case 'crash-pd':
        this.#note(kind, `the placement service crashes (${loss})`, this.#pdLane, forMs);
        cluster.crashPd(loss);
        this.#later(forMs, () => cluster.bootPd());
        return true;
      case 'crash-client': {
        const client = pick(
          [...cluster.clients].filter(({ name }) => isClient(name)),
          a,
        );
        if (client !== undefined) {
          this.#note(kind, `${client.name} dies`, 0, 0);
          client.kill();
        }
        return true;
      }
      case 'stall':
        this.#note(kind, `machine ${id} stalls`, id, forMs);
        machine.clock.stall(forMs);
        return true;
      case 'stall-pd':
        this.#note(kind, 'the placement service stalls', this.#pdLane, forMs);
        cluster.pdHost?.clock.stall(forMs);
        return true;
      case 'clock-rate': {
        const rate = 0.95 + (b % 1001) / 10_000;
        this.#note(kind, `clock of machine ${id} runs at ${rate}`, id, forMs);
        machine.rate = rate;
        machine.clock.setRate(rate);
        return true;
      }
      case 'pd-clock-rate': {
        const rate = 0.95 + (b % 1001) / 10_000;
        this.#note(kind, `clock of the placement service runs at ${rate}`, this.#pdLane, forMs);
        cluster.pdRate = rate;
        cluster.pdHost?.clock.setRate(rate);
        return true;
      }
      case 'wall-jump':
      case 'pd-wall-jump': {
        const node = kind === 'wall-jump' ? id : PD_NODE;
        const byMs = (b % 600_000) - 300_000;
        this.#note(kind, `wall clock jumps by ${byMs} ms`, kind === 'wall-jump' ? id : this.#pdLane, 0);
        cluster.jumpWall(node, byMs);
        return true;
      }
      default:
        return false;
    }
  }

  get #pdLane(): number {
    return this.#cluster.machines.size + 1;
  }

  #note(kind: FullKind, text: string, lane: number, forMs: number): void {
    this.#hooks.count(kind);
    this.#hooks.fault(text, lane, forMs);
  }

  // ------------------------------------------------------------------------------------------ disks

  #harmDisk({ kind, a, b, c, forMs }: FullAction): boolean {
    const cluster = this.#cluster;
    const machine = pick([...cluster.machines.values()], a) as Machine;
    const { id, disk } = machine;
    const { config, pdDisk } = cluster;
    const slow: readonly [number, number] = [20, 20 + (b % 400)];
    const error = c % 2 === 0 ? 'write-error' : 'sync-error';
    switch (kind) {
      case 'disk-slow':
        this.#note(kind, `disk of machine ${id} is slow`, id, forMs);
        disk.setBehavior({ writeDelayMs: slow });
        this.#later(forMs, () => disk.setBehavior({ writeDelayMs: config.writeDelayMs }));
        return true;
      case 'disk-slow-pd':
        this.#note(kind, 'disk of the placement service is slow', this.#pdLane, forMs);
        pdDisk.setBehavior({ writeDelayMs: slow });
        this.#later(forMs, () => pdDisk.setBehavior({ writeDelayMs: config.pdWriteDelayMs }));
        return true;
      case 'disk-error':
        if (machine.store !== undefined) {
          this.#note(kind, `a write of machine ${id} fails`, id, forMs + 300);
          machine.mayStop = true;
          disk.failNextWrite(error);
          this.#later(forMs + 300, () => cluster.bootStore(id));
        }
        return true;
      case 'disk-error-pd':
        if (cluster.isPdUp) {
          this.#note(kind, 'a write of the placement service fails', this.#pdLane, forMs + 300);
          cluster.pdMayStop = true;
          pdDisk.failNextWrite(error);
          this.#later(forMs + 300, () => cluster.bootPd());
        }
        return true;
      case 'wipe':
        this.#wipe(machine, forMs);
        return true;
      default:
        return false;
    }
  }

  /**
   * A disk is lost only while every region that has a replica there has all its voters up and equally far: what is
   * lost then is one copy of three, and no other is lost before the placement service has made it good.
   */
  #wipe(machine: Machine, forMs: number): void {
    const cluster = this.#cluster;
    const { storeId } = machine;
    if (storeId === 0 || this.#dead.size > 0 || !this.isFullyReplicated()) {
      this.#hooks.count('wipe:not-now');
      return;
    }
    this.#note('wipe', `machine ${machine.id} loses its disk`, machine.id, forMs);
    this.#dead.add(storeId);
    cluster.wipe(machine.id);
    this.#later(forMs, () => cluster.bootStore(machine.id));
    this.#declareDead(storeId);
  }

  #declareDead(storeId: number): void {
    this.#cluster.scheduler.at(
      DECLARE_DEAD_MS,
      () => {
        this.#admin.setStoreState(storeId, 'removing', { physicallyDestroyed: true }).then(
          () => this.#waitForRepair(storeId),
          () => this.#declareDead(storeId),
        );
      },
      { node: 0, kind: 'declare-dead' },
    );
  }

  /** The next disk may be lost once nobody lists the dead store any more. */
  #waitForRepair(storeId: number): void {
    const isListed = ledRegions(this.#cluster).some((region) => region.peers.some((p) => p.storeId === storeId));
    if (!isListed && this.isFullyReplicated()) {
      this.#dead.delete(storeId);
      return;
    }
    this.#cluster.scheduler.at(1_000, () => this.#waitForRepair(storeId), { node: 0, kind: 'wait-for-repair' });
  }

  /** Whether each region has three voters or more, all up, none of them behind its leader. */
  isFullyReplicated(): boolean {
    const positions = new Map<string, number>();
    for (const { store, storeId } of this.#cluster.machines.values()) {
      for (const s of store?.status() ?? []) {
        if (s.state === 'normal') {
          positions.set(`${s.region.id}@${storeId}`, s.appliedIndex);
        }
      }
    }
    const regions = ledRegions(this.#cluster);
    const isTiled =
      regions[0]?.range.start.length === 0 &&
      regions.every((region, n) => {
        const next = regions[n + 1];
        return next === undefined
          ? region.range.end.length === 0
          : Buffer.compare(region.range.end, next.range.start) === 0;
      });
    return (
      isTiled &&
      regions.every(({ id, peers }) => {
        const voters = peers.filter(({ role }) => role === 'voter');
        const applied = new Set(voters.map((voter) => positions.get(`${id}@${voter.storeId}`)));
        return voters.length >= 3 && voters.length === peers.length && applied.size === 1 && !applied.has(undefined);
      })
    );
  }

  // ------------------------------------------------------------------------------------------ network

  #harmNetwork(action: FullAction): boolean {
    const { kind, a, b, c, forMs } = action;
    const cluster = this.#cluster;
    const { network } = cluster;
    const machines = [...cluster.machines.values()];
    const machine = pick(machines, a) as Machine;
    const host = hostOf(machine);
    switch (kind) {
      case 'isolate':
        this.#note(kind, `machine ${machine.id} is cut off`, machine.id, forMs);
        this.#block(forMs, (from, to) => from === host || to === host);
        return true;
      case 'isolate-leader': {
        const leader = machines.find(({ store }) =>
          store?.status().some((s) => s.role === 'leader' && s.region.id === pick(ledRegions(cluster), b)?.id),
        );
        if (leader !== undefined) {
          // Its clients still reach it: what it may answer them is the question.
          const name = hostOf(leader);
          this.#note(kind, `machine ${leader.id}, a leader, is cut off from stores`, leader.id, forMs);
          this.#block(forMs, (from, to) => (from === name && isStore(to)) || (to === name && isStore(from)));
        }
        return true;
      }
      case 'one-way':
        this.#note(kind, `machine ${machine.id} is ${c % 2 === 0 ? 'mute' : 'deaf'}`, machine.id, forMs);
        this.#block(forMs, (from, to) => (c % 2 === 0 ? from : to) === host);
        return true;
      case 'bisect':
        this.#note(kind, 'the network falls in two', 0, forMs);
        this.#block(forMs, (from, to) => side(from, c) !== side(to, c));
        return true;
      case 'bridge':
        this.#note(kind, `the network falls in two, joined by machine ${machine.id}`, 0, forMs);
        this.#block(forMs, (from, to) => from !== host && to !== host && side(from, c) !== side(to, c));
        return true;
      case 'ring': {
        const n = machines.length;
        const at = (name: string): number => machines.findIndex((m) => hostOf(m) === name);
        this.#note(kind, 'every store sees another majority', 0, forMs);
        this.#block(
          forMs,
          (from, to) => isStore(from) && isStore(to) && ![0, 1, n - 1].includes((at(from) - at(to) + n) % n),
        );
        return true;
      }
      case 'cut-pd': {
        const isCut = (name: string): boolean => b % 2 === 0 || side(name, c);
        this.#note(kind, `the placement service is cut off${b % 2 === 0 ? '' : ' from some'}`, this.#pdLane, forMs);
        const isOneWay = b % 3 === 0;
        this.#block(forMs, (from, to) => (from === 'pd' && isCut(to)) || (!isOneWay && to === 'pd' && isCut(from)));
        return true;
      }
      case 'deaf-pd': {
        // It goes on to tell clients what it knew last, while they learn from stores that regions have split and merged.
        const deafMs = Math.max(forMs, 1_000);
        this.#note(kind, 'the placement service hears of no region', this.#pdLane, deafMs);
        const wishes = [b % 3 === 0 ? 'merge' : 'split', b % 2 === 0 ? 'split' : 'merge'] as const;
        for (const [n, wish] of wishes.entries()) {
          this.#wish({ ...action, kind: wish, b: b + n, c: c + n });
        }
        this.#later(30, () => {
          cluster.hidesRegions = true;
        });
        this.#later(deafMs, () => {
          cluster.hidesRegions = false;
        });
        for (let ms = 200; ms <= deafMs; ms += 400) {
          this.#later(ms, () => {
            for (const client of cluster.clients) {
              client.hearMap().catch(() => undefined);
            }
          });
        }
        return true;
      }
      case 'cut-clients':
        this.#note(kind, `clients do not reach machine ${machine.id}`, machine.id, forMs);
        this.#block(forMs, (from, to) => (isClient(from) && to === host) || (isClient(to) && from === host));
        return true;
      case 'swizzle':
        this.#note(kind, 'machines are cut off one after the other and come back in another order', 0, forMs);
        for (const [n, other] of machines.filter((m) => side(hostOf(m), b)).entries()) {
          const name = hostOf(other);
          this.#later(((c % 7) + n * 3) * 20, () =>
            this.#block((forMs * (1 + ((n * 5 + c) % 4))) / 4, (from, to) => from === name || to === name),
          );
        }
        return true;
      case 'clog': {
        this.#note(kind, 'messages take long', 0, forMs);
        const { config } = network;
        network.config = { ...config, delayMs: [10, 50 + (b % 600)] };
        this.#later(forMs, () => {
          network.config = { ...network.config, delayMs: cluster.config.delayMs };
        });
        return true;
      }
      case 'reset': {
        const name = b % 4 === 0 ? 'pd' : host;
        this.#note(kind, `connections of ${name} are reset`, name === 'pd' ? this.#pdLane : machine.id, 0);
        network.reset(name);
        return true;
      }
      case 'lose-replies': {
        const name = b % 4 === 0 ? 'pd' : host;
        this.#note(kind, `answers of ${name} are lost`, name === 'pd' ? this.#pdLane : machine.id, forMs);
        const isLost = (from: string, to: string): boolean => from === name && !isStore(to) && side(to, c);
        network.lostReplies.add(isLost);
        this.#later(Math.min(forMs, 1_500), () => network.lostReplies.delete(isLost));
        return true;
      }
      default:
        return false;
    }
  }

  // ------------------------------------------------------------------------------------------ order

  #disturb({ kind, a, b, c, forMs }: FullAction): void {
    const cluster = this.#cluster;
    const { id } = pick([...cluster.machines.values()], a) as Machine;
    const hold = (name: string, text: string): void => {
      this.#note(kind, `machine ${id} holds ${text} back`, id, forMs);
      const key = `${id}!${name}`;
      cluster.failpoints.set(key, { type: 'pause' });
      this.#later(forMs, () => cluster.failpoints.delete(key));
    };
    switch (kind) {
      case 'hold-apply': {
        const name = pick(HOLD_POINTS, c) as (typeof HOLD_POINTS)[number];
        hold(name, name);
        return;
      }
      case 'hold-merge':
        hold('merge::before-commit', 'CommitMerge');
        return;
      case 'hold-install':
        hold('snapshot::before-install', 'a snapshot');
        return;
      case 'old-mail':
        this.#note(kind, 'old mail arrives again', 0, 0);
        cluster.replayMail(1 + (b % 12));
        return;
      case 'old-commands':
        this.#note(kind, 'old commands of the placement service arrive again', 0, 0);
        cluster.replayCommands(1 + (b % 6));
        return;
      default:
    }
  }
}
