/** `braid ctl check`: what is not as it should be, for monitors: the exit code tells. */
import type { Command } from 'commander';
import type { AdminClient } from '../../client/admin.ts';
import type { PlacementMember, StoreInfo } from '../../client/admin-wire.ts';
import { ServerRefusedError, briefOf } from '../../client/errors.ts';
import { closestName } from '../../client/options.ts';
import { type App, addCommand } from '../command.ts';
import { duration, flag } from '../common-options.ts';
import { completeWith } from '../completion.ts';
import { EXIT_DONE, EXIT_NO, type ExitCode } from '../exit-code.ts';
import { UsageError } from '../failure.ts';
import { COMMON_MODES } from '../output/mode.ts';
import type { ListShape } from '../output/printer.ts';
import type { Session } from '../session.ts';
import { type KeyFormat, formatAge } from '../text-form.ts';
import { type ConfigFinding, type RegionFinding, type Told, configFindings, regionFindings } from './check-findings.ts';
import { consistencyShape, PROBLEM_SHAPE, rangeObject, rangeText } from './shapes.ts';

const WORDS = ['health', 'regions', 'consistency', 'config'] as const;
type What = (typeof WORDS)[number];

/** Six times the interval in which regions report by default. */
const STALE_AFTER_DEFAULT_MS = 60_000;
/** Processes asked at a time. */
const ASKED_AT_ONCE = 16;
/** One process that does not answer must not use up the deadline of the command. */
const ANSWER_LIMIT_MS = 3_000;

const TASKS: Readonly<Record<What, string>> = {
  health: 'check the cluster',
  regions: 'check the regions',
  consistency: 'check the replicas',
  config: 'compare the configuration',
};

interface CheckFlags {
  readonly staleAfter: number;
}

const whatOf = (word: string | undefined): What | undefined =>
  word === undefined ? 'health' : WORDS.find((one) => one === word);

export function checkCommand(ctl: Command, app: App): void {
  const command = addCommand<CheckFlags>(ctl, app, {
    usage: 'check [what]',
    isList: true,
    summary: 'List what is not as it should be, for monitors',
    details:
      'The exit code is 0 if there is nothing and 5 if there is something. "regions": holes, regions without leader, replicas that are down, catching up, missing or too many, regions that are too large or not heard from. "consistency": when the replicas of each region were compared, and those that differ. "config": settings and versions of all stores and placement members, labels, numbers of replicas and members.',
    arguments: { what: 'health (default), regions, consistency or config' },
    examples: ['braid ctl check', 'braid ctl check regions -o json', 'braid ctl check config', 'braid ctl check -q'],
    modes: COMMON_MODES,
    mode: 'table',
    isWatchable: true,
    options: [
      flag('--stale-after <duration>', 'of regions: silence of a leader that counts')
        .default(STALE_AFTER_DEFAULT_MS, formatAge(STALE_AFTER_DEFAULT_MS))
        .argParser(duration),
    ],
    task: ([what]) => TASKS[whatOf(what) ?? 'health'],
    run: async (session, [word], options) => {
      const what = whatOf(word);
      if (what === undefined) {
        const closest = closestName(word as string, WORDS);
        throw new UsageError(
          `${JSON.stringify(word)} cannot be checked`,
          closest === undefined ? `check ${WORDS.join(', ')}` : `did you mean ${closest}?`,
        );
      }
      const admin = await session.admin();
      switch (what) {
        case 'health':
          return checkHealth(session, admin);
        case 'regions':
          return checkRegions(session, admin, options.staleAfter);
        case 'consistency':
          return checkConsistency(session, admin);
        case 'config':
          return checkConfig(session, admin);
      }
    },
  });
  completeWith(command, WORDS);
}

async function checkHealth(session: Session, admin: AdminClient): Promise<ExitCode> {
  const { bootstrapped, problems } = await admin.status(session.limits());
  const isHealthy = bootstrapped && problems.length === 0;
  await session.printer.list(PROBLEM_SHAPE, problems, { healthy: isHealthy, bootstrapped });
  if (!bootstrapped) {
    await session.printer.note('the cluster is not bootstrapped: no store has joined yet');
  }
  return isHealthy ? EXIT_DONE : EXIT_NO;
}

async function checkConsistency(session: Session, admin: AdminClient): Promise<ExitCode> {
  const { regions } = await admin.regions(session.limits());
  const damaged = regions.filter((region) => region.damagedPeerIds.length > 0);
  const waiting = regions.filter((region) => region.consistency === undefined);
  await session.printer.list(consistencyShape(session.options.keyFormat), regions, {
    damagedRegions: damaged.length,
    notComparedYet: waiting.length,
  });
  await session.printer.note(
    damaged.length > 0
      ? `${damaged.length} regions have replicas that differ; they serve nothing: braid ctl check says what helps`
      : `no replica is known to differ; ${waiting.length} of ${regions.length} regions were not compared yet`,
  );
  return damaged.length > 0 ? EXIT_NO : EXIT_DONE;
}

// -------------------------------------------------------------------------------------------------------- regions

const regionFindingShape = (format: KeyFormat): ListShape<RegionFinding> => ({
  kind: 'RegionFindingList',
  columns: [
    { head: 'code', cell: (finding) => finding.code },
    { head: 'region', cell: (finding) => finding.regionId ?? '', align: 'right' },
    { head: 'store', cell: (finding) => finding.storeId ?? '', align: 'right' },
    { head: 'range', cell: (finding) => rangeText(finding.range, format) },
    { head: 'problem', cell: (finding) => finding.message },
    { head: 'next step', cell: (finding) => finding.hint },
  ],
  toObject: ({ range, regionId, storeId, ...rest }) => ({
    ...rest,
    regionId: regionId ?? null,
    storeId: storeId ?? null,
    ...rangeObject(range, format),
  }),
  name: (finding) => String(finding.regionId ?? '-'),
});

async function checkRegions(session: Session, admin: AdminClient, staleAfterMs: number): Promise<ExitCode> {
  const [{ regions, holes }, under, over, regionMaxSizeBytes] = await Promise.all([
    admin.regions(session.limits()),
    admin.regions({ ...session.limits(), filter: 'under-replicated' }),
    admin.regions({ ...session.limits(), filter: 'over-replicated' }),
    splitSizeOf(session, admin),
  ]);
  const idsOf = (list: typeof under): ReadonlySet<number> => new Set(list.regions.map(({ id }) => id));
  const findings = regionFindings({
    regions,
    holes,
    underReplicated: idsOf(under),
    overReplicated: idsOf(over),
    regionMaxSizeBytes,
    staleAfterMs,
  });
  await session.printer.list(regionFindingShape(session.options.keyFormat), findings, {
    healthy: findings.length === 0,
    regions: regions.length,
  });
  if (regionMaxSizeBytes === undefined) {
    await session.printer.note('sizes were not checked: the placement service does not tell its settings');
  }
  await session.printer.note(
    findings.length === 0 ? `all ${regions.length} regions are as they should be` : `${findings.length} findings`,
  );
  return findings.length === 0 ? EXIT_DONE : EXIT_NO;
}

async function splitSizeOf(session: Session, admin: AdminClient): Promise<number | undefined> {
  const { leader } = admin;
  if (leader === undefined) {
    return undefined;
  }
  const told = await ask(session, admin, 'leader', leader);
  const value = told.settings?.settings.get('placement.region-max-size')?.value;
  return typeof value === 'number' ? value : undefined;
}

// -------------------------------------------------------------------------------------------------- configuration

const CONFIG_FINDING_SHAPE: ListShape<ConfigFinding> = {
  kind: 'ConfigFindingList',
  columns: [
    { head: 'code', cell: (finding) => finding.code },
    { head: 'where', cell: (finding) => finding.subject },
    { head: 'problem', cell: (finding) => finding.message },
    { head: 'next step', cell: (finding) => finding.hint },
    { head: 'setting', cell: (finding) => finding.setting ?? '', isWide: true },
  ],
  toObject: (finding) => ({ ...finding, setting: finding.setting ?? null }),
  name: (finding) => finding.subject,
};

async function ask(session: Session, admin: AdminClient, subject: string, address: string): Promise<Told> {
  const { timeoutMs, signal } = session.limits();
  try {
    const settings = await admin.settings(address, { timeoutMs: Math.min(timeoutMs, ANSWER_LIMIT_MS), signal });
    return { subject, settings, failure: undefined };
  } catch (cause) {
    if (signal.aborted) {
      throw cause;
    }
    return { subject, settings: undefined, failure: briefOf(cause) };
  }
}

/** A process that cannot be asked is a finding, not an error. */
async function askAll(
  session: Session,
  admin: AdminClient,
  stores: readonly StoreInfo[],
  members: readonly PlacementMember[],
): Promise<readonly Told[]> {
  const asked = [
    ...members.map(({ name, clientUrls }) => ({ subject: `member ${name}`, address: clientUrls[0] ?? '' })),
    ...stores
      .filter(({ state }) => state !== 'removed')
      .map(({ id, address }) => ({ subject: `store ${id}`, address })),
  ];
  const told: Told[] = [];
  for (let at = 0; at < asked.length; at += ASKED_AT_ONCE) {
    const some = asked.slice(at, at + ASKED_AT_ONCE);
    told.push(...(await Promise.all(some.map(({ subject, address }) => ask(session, admin, subject, address)))));
  }
  return told;
}

/** What administrators set while the service runs; nothing on a service that does not know of it. */
async function runTimeSettings(session: Session, admin: AdminClient): Promise<Readonly<Record<string, unknown>>> {
  try {
    const { documents } = await admin.documents.list({ ...session.limits(), kind: 'Config' });
    return documents[0]?.spec ?? {};
  } catch (cause) {
    if (cause instanceof ServerRefusedError) {
      return {};
    }
    throw cause;
  }
}

async function checkConfig(session: Session, admin: AdminClient): Promise<ExitCode> {
  const [{ maxReplicas }, members, stores, runTime] = await Promise.all([
    admin.status(session.limits()),
    admin.placementMembers(session.limits()),
    admin.stores(session.limits()),
    runTimeSettings(session, admin),
  ]);
  const told = await askAll(session, admin, stores, members);
  const findings = configFindings({ stores, members, maxReplicas, told, runTime });
  await session.printer.list(CONFIG_FINDING_SHAPE, findings, {
    healthy: findings.length === 0,
    processes: told.length,
  });
  await session.printer.note(
    findings.length === 0
      ? `${told.length} processes agree`
      : `${findings.length} findings at ${told.length} processes`,
  );
  return findings.length === 0 ? EXIT_DONE : EXIT_NO;
}
