/**
 * What the placement logic costs in a large cluster: 100 pretend stores, 100,000 regions, one process.
 *
 *   npm run bench:placement
 *   npm run bench:placement -- --regions 20000 --stores 20
 *
 * It prints the time to take in all regions, reports per second with and without the bytes of the wire, the time of
 * rounds of the patrol, of the schedulers and of the push loop, the heap per region, and then lets the cluster live: a
 * store dies, five empty ones join, and stores carry out what they are told on virtual time.
 */
import { Command, Option } from 'commander';
import { MIB } from '../src/base/units.ts';
import { fromWireReport, toRequestHeader, toWireReport } from '../src/codec/pd-wire.ts';
import { count } from '../src/cli/common-options.ts';
import { formatTable } from '../src/cli/output/table.ts';
import { createRng, type Rng } from '../src/env/rng.ts';
import { RegionReport } from '../src/gen/braid/placement/v1/placement.ts';
import { type TrueRegion, World } from '../test/unit/pd/world.ts';

interface Flags {
  readonly regions: number;
  readonly stores: number;
  readonly minutes: number;
}

interface Line {
  readonly what: string;
  readonly value: string;
}

const REPLICAS = 3;
const ZONES = 5;
/** As stores report by default. */
const REGION_REPORT_MS = 10_000;
const STORE_REPORT_MS = 3_000;
const NEW_STORES = 5;
const PUSH_MS = 500;
const PATROL_MS = 50;

const heapBytes = (): number => {
  globalThis.gc?.();
  return process.memoryUsage().heapUsed;
};

function timed(act: () => void): number {
  const start = performance.now();
  act();
  return performance.now() - start;
}

const perSecond = (n: number, ms: number): string => Math.round((n * 1000) / ms).toLocaleString('en-US');
const milliseconds = (ms: number): string => `${ms < 10 ? ms.toFixed(2) : ms.toFixed(0)} ms`;
const labelsOf = (id: number): { key: string; value: string }[] => [
  { key: 'zone', value: `z${id % ZONES}` },
  { key: 'host', value: `h${id}` },
];

/** Three stores of different zones; the first leads. */
function drawStores(rng: Rng, stores: number): number[] {
  const chosen: number[] = [];
  const WEIGHT = 3;
  while (chosen.length < REPLICAS) {
    // A crowded first tenth gives the balancers something to do.
    const id = rng.chance(1 / WEIGHT) ? 1 + rng.below(Math.max(1, Math.floor(stores / 10))) : 1 + rng.below(stores);
    if (!chosen.some((other) => other % ZONES === id % ZONES)) {
      chosen.push(id);
    }
  }
  return chosen;
}

function build(world: World, flags: Flags): void {
  const rng = createRng(7);
  const keyOf = (i: number): string => `k${String(i).padStart(8, '0')}`;
  for (let i = 0; i < flags.regions; i++) {
    world.region({
      id: i + 1,
      start: i === 0 ? '' : keyOf(i),
      end: i === flags.regions - 1 ? '' : keyOf(i + 1),
      on: drawStores(rng, flags.stores).map(String),
      sizeBytes: (8 + rng.below(80)) * MIB,
      keys: 10_000,
    });
  }
}

/** Rounds until the patrol has seen every region once. */
function patrol(
  world: World,
  regions: number,
  batch: number,
): { readonly totalMs: number; readonly longestMs: number } {
  let totalMs = 0;
  let longestMs = 0;
  for (let seen = 0; seen < regions; seen += batch) {
    const ms = timed(() => world.placement.tickPatrol());
    totalMs += ms;
    longestMs = Math.max(longestMs, ms);
  }
  return { totalMs, longestMs };
}

/** Virtual minutes of a cluster whose stores do at once what they are told. */
function live(world: World, flags: Flags, lines: Line[]): void {
  const dead = flags.stores;
  const ids = Array.from({ length: flags.stores - 1 }, (_, i) => i + 1);
  for (let i = 1; i <= NEW_STORES; i++) {
    world.addStore(flags.stores + i, labelsOf(flags.stores + i));
    ids.push(flags.stores + i);
  }
  const hurt = [...world.regions.values()].filter((truth) => truth.region.peers.some((p) => p.storeId === dead));
  for (const truth of hurt) {
    truth.down.add(dead);
    if (truth.leader.storeId === dead) {
      truth.leader = truth.region.peers.find((peer) => peer.storeId !== dead) ?? truth.leader;
      truth.term++;
    }
  }
  const all = [...world.regions.values()];
  const STEP_MS = PATROL_MS;
  const perStep = Math.ceil((all.length * STEP_MS) / REGION_REPORT_MS);
  let cursor = 0;
  let cpuMs = 0;
  let longestMs = 0;
  let commands = 0;
  const { placement } = world;
  const steps = (flags.minutes * 60_000) / STEP_MS;
  let repairedAtMs: number | undefined;
  for (let step = 0; step < steps; step++) {
    world.advance(STEP_MS);
    const now = step * STEP_MS;
    const ms = timed(() => {
      if (now % STORE_REPORT_MS === 0) {
        for (const id of ids) {
          world.beat(id);
        }
      }
      placement.tickPatrol();
      if (now % PUSH_MS === 0) {
        placement.tickOperators();
        placement.tickSchedulers();
      }
    });
    const reports: TrueRegion[] = [];
    for (let i = 0; i < perStep; i++) {
      reports.push(all[cursor++ % all.length] as TrueRegion);
    }
    const reportMs = timed(() => {
      for (const { region } of reports) {
        if (world.regions.has(region.id)) {
          world.report(region.id);
        }
      }
    });
    cpuMs += ms + reportMs;
    longestMs = Math.max(longestMs, ms);
    for (const command of world.take()) {
      commands++;
      if (world.execute(command)) {
        const truth = world.regions.get(command.regionId);
        if (truth !== undefined && !truth.region.peers.some((peer) => peer.storeId === dead)) {
          truth.down.delete(dead);
        }
        world.report(command.regionId);
      }
    }
    world.sent.length = 0;
    if (
      repairedAtMs === undefined &&
      step % 20 === 0 &&
      world.placement.cluster.tree.ofStore(dead as never).peers.size === 0
    ) {
      repairedAtMs = now;
    }
  }
  const { tree } = placement.cluster;
  const counts = ids.map((id) => tree.ofStore(id as never).peers.size);
  lines.push(
    {
      what: `${flags.minutes} virtual minutes with a dead store and ${NEW_STORES} new ones: CPU`,
      value: `${(cpuMs / (flags.minutes * 600)).toFixed(1)} % of one core`,
    },
    { what: 'longest time without answering others (patrol, push loop, schedulers)', value: milliseconds(longestMs) },
    { what: 'commands sent', value: commands.toLocaleString('en-US') },
    {
      what: `replicas on the dead store: ${hurt.length} at first`,
      value:
        repairedAtMs === undefined
          ? `${tree.ofStore(dead as never).peers.size} left`
          : `none after ${(repairedAtMs / 60_000).toFixed(1)} virtual minutes`,
    },
    { what: 'replicas per store at the end, least and most', value: `${Math.min(...counts)} / ${Math.max(...counts)}` },
  );
}

function main(flags: Flags): void {
  const lines: Line[] = [];
  const empty = heapBytes();
  const world = new World({}, []);
  for (let id = 1; id <= flags.stores; id++) {
    world.addStore(id, labelsOf(id));
  }
  process.stderr.write('taking in all regions\n');
  const loadMs = timed(() => build(world, flags));
  world.take();
  lines.push({
    what: `first reports of ${flags.regions.toLocaleString('en-US')} regions`,
    value: `${perSecond(flags.regions, loadMs)}/s`,
  });
  const truthBytes = heapBytes();
  const { placement } = world;
  // The pretend stores' own copy is no part of the service: it is made again for the comparison.
  const copies = [...world.regions.values()].map((truth) =>
    structuredClone({ region: truth.region, leader: truth.leader }),
  );
  const copyBytes = heapBytes() - truthBytes;
  copies.length = 0;
  lines.push({
    what: 'heap per region (map, indexes, last report)',
    value: `${Math.round((truthBytes - empty - copyBytes) / flags.regions)} B of ${Math.round((truthBytes - empty) / flags.regions)} B with the pretend stores`,
  });

  const ids = [...world.regions.keys()];
  world.advance(REGION_REPORT_MS);
  const steadyMs = timed(() => ids.forEach((id) => world.report(id)));
  lines.push({ what: 'unchanged reports, logic only', value: `${perSecond(ids.length, steadyMs)}/s` });
  const header = toRequestHeader(1n, 1);
  const frames = ids.map((id) => RegionReport.encode(toWireReport(header, world.heartbeatOf(id))).finish());
  const wireMs = timed(() => {
    for (const frame of frames) {
      placement.onRegionHeartbeat(fromWireReport(RegionReport.decode(frame)));
    }
  });
  frames.length = 0;
  lines.push({ what: 'unchanged reports from bytes', value: `${perSecond(ids.length, wireMs)}/s` });
  lines.push({
    what: `share of one core for a report of each region every ${REGION_REPORT_MS / 1000} s, from bytes`,
    value: `${((wireMs / REGION_REPORT_MS) * 100).toFixed(1)} %`,
  });
  const storeMs = timed(() => {
    for (let round = 0; round < 100; round++) {
      world.beatAll();
    }
  });
  lines.push({ what: 'store heartbeats', value: `${perSecond(100 * flags.stores, storeMs)}/s` });

  const batch = placement.cluster.config.patrolBatchMax;
  patrol(world, flags.regions, batch);
  world.take();
  const pass = patrol(world, flags.regions, batch);
  const rounds = Math.ceil(flags.regions / batch);
  lines.push(
    {
      what: `patrol round of ${batch} regions, mean and longest`,
      value: `${milliseconds(pass.totalMs / rounds)} / ${milliseconds(pass.longestMs)}`,
    },
    {
      what: 'patrol of all regions: work, and time at its pace',
      value: `${milliseconds(pass.totalMs)} / ${((rounds * PATROL_MS) / 1000).toFixed(0)} s`,
    },
  );
  const ROUNDS = 20;
  const scheduler = timed(() => {
    for (let i = 0; i < ROUNDS; i++) {
      placement.tickSchedulers();
    }
  });
  lines.push({ what: 'scheduler round', value: milliseconds(scheduler / ROUNDS) });
  const push = timed(() => {
    for (let i = 0; i < ROUNDS; i++) {
      placement.tickOperators();
    }
  });
  lines.push({
    what: `push loop round (${placement.controller.running().length} operators running)`,
    value: milliseconds(push / ROUNDS),
  });
  world.settle(1000);
  process.stderr.write('living\n');
  live(world, flags, lines);
  process.stdout.write(
    formatTable(
      [
        { head: 'what', cell: (line: Line) => line.what },
        { head: 'value', cell: (line) => line.value, align: 'right' },
      ],
      lines,
      true,
    ),
  );
}

const program = new Command('placement')
  .description('Measures the placement logic with many pretend stores and regions.')
  .addOption(new Option('--regions <count>', 'regions').default(100_000).argParser(count(100, 1_000_000)))
  .addOption(new Option('--stores <count>', 'stores').default(100).argParser(count(10, 1000)))
  .addOption(new Option('--minutes <count>', 'virtual minutes to live').default(10).argParser(count(1, 600)))
  .action((_, command: Command) => main(command.opts<Flags>()));
program.parse();
