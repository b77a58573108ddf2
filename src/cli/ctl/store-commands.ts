/** `braid ctl store …`: changing stores. Emptying one is long work: it shows progress, an estimate and what blocks it. */
import type { Command, Option } from 'commander';
import { formatBytes } from '../../base/units.ts';
import type { AdminClient } from '../../client/admin.ts';
import type { StoreInfo, StoreSettingsChange } from '../../client/admin-wire.ts';
import { DeadlineExceededError } from '../../client/errors.ts';
import { type App, addCommand } from '../command.ts';
import { type ExpectVersionFlag, expectedVersion, expectVersionFlag, flag, reasonFlag } from '../common-options.ts';
import { confirmByName } from '../confirm.ts';
import { EXIT_DONE, type ExitCode } from '../exit-code.ts';
import { UsageError } from '../failure.ts';
import { LIST_MODES } from '../output/mode.ts';
import type { Session } from '../session.ts';
import { formatAge, parseId } from '../text-form.ts';
import { storeSingle } from './shapes.ts';

const POLL_MS = 500;
const LIMIT_MAX = 1_000_000;

interface DrainFlags extends ExpectVersionFlag {
  readonly wait?: true;
  readonly detach?: true;
  readonly dryRun?: true;
  readonly yes?: true;
  readonly destroyed?: true;
}

const expectStore = (): Option => expectVersionFlag('the settings record of the store');

const planFlags = (): Option[] => [
  flag('--dry-run', 'only show what would happen'),
  flag('--yes', 'do not ask'),
  reasonFlag(),
  expectStore(),
];

export function storeChangeCommands(store: Command, app: App): void {
  addCommand<DrainFlags>(store, app, {
    usage: 'drain <id>',
    summary: 'Move everything away from a store and remove it',
    details:
      'All replicas move to other stores, then the store is marked as removed. Refused if too few stores would be left. Take it back with cancel-drain while it runs.',
    arguments: { id: 'store id' },
    examples: ['braid ctl store drain 3', 'braid ctl store drain 3 --yes --wait --timeout 30m'],
    modes: LIST_MODES,
    mode: 'table',
    options: [
      flag('--wait', 'wait until the store is removed and show progress; the default on a terminal'),
      flag('--detach', 'return at once; the default elsewhere'),
      flag('--destroyed', 'the machine and its disk are gone; cannot be taken back'),
      ...planFlags(),
    ],
    task: ([id]) => `drain store ${id}`,
    run: (session, [id], options) => drain(session, parseId(id as string, 'store'), options),
  });
  addCommand<ExpectVersionFlag>(store, app, {
    usage: 'cancel-drain <id>',
    summary: 'Stop emptying a store and use it again',
    arguments: { id: 'store id' },
    examples: ['braid ctl store cancel-drain 3', 'braid ctl store cancel-drain 3 -o json'],
    modes: LIST_MODES,
    mode: 'table',
    options: [reasonFlag(), expectStore()],
    task: ([id]) => `take the draining of store ${id} back`,
    run: async (session, [id], options) => {
      const admin = await session.admin();
      const limits = { ...session.limits(), ...expectedVersion(options) };
      return show(session, await admin.setStoreState(parseId(id as string, 'store'), 'up', limits));
    },
  });
  addCommand<DrainFlags>(store, app, {
    usage: 'remove <id>',
    summary: 'Mark a store that is down and empty as removed for good',
    details: 'Its id never comes back. A store that still runs is drained instead.',
    arguments: { id: 'store id' },
    examples: ['braid ctl store remove 3', 'braid ctl store remove 3 --yes'],
    modes: LIST_MODES,
    mode: 'table',
    options: planFlags(),
    task: ([id]) => `remove store ${id}`,
    run: async (session, [id], options) => {
      const storeId = parseId(id as string, 'store');
      const admin = await session.admin();
      const expected = expectedVersion(options);
      await admin.setStoreState(storeId, 'removed', { ...session.limits(), ...expected, dryRun: true });
      if (options.dryRun === true) {
        await session.printer.note(`dry run: store ${storeId} would be marked as removed`);
        return show(session, await admin.store(storeId, session.limits()));
      }
      await confirmByName(
        session,
        `Store ${storeId} will be marked as removed; its id never comes back.`,
        String(storeId),
        options.yes,
      );
      return show(session, await admin.setStoreState(storeId, 'removed', { ...session.limits(), ...expected }));
    },
  });
  settingCommand(store, app, {
    usage: 'label <id> [labels...]',
    summary: 'Add labels to a store, or replace them',
    details: 'Write labels as key=value; key= removes one. The location labels say which stores fail together.',
    arguments: { id: 'store id', labels: 'labels as key=value' },
    examples: ['braid ctl store label 1 zone=a host=h1', 'braid ctl store label 1 zone=b --replace'],
    options: [flag('--replace', 'these labels take the place of all others')],
    change: ([, ...labels], flags) => {
      const pairs = labels.map((label) => {
        const at = label.indexOf('=');
        if (at < 1) {
          throw new UsageError(`${JSON.stringify(label)} is not a label`, 'write key=value, for example zone=a');
        }
        return [label.slice(0, at), label.slice(at + 1)] as const;
      });
      if (pairs.length === 0 && flags['replace'] !== true) {
        throw new UsageError('no label was given', 'write key=value, for example zone=a');
      }
      return { labels: Object.fromEntries(pairs), replaceLabels: flags['replace'] === true };
    },
  });
  settingCommand(store, app, {
    usage: 'weight <id>',
    summary: 'Give a store a larger or smaller share of leaders or data',
    details: 'Weights are relative to other stores, 0.01 to 100; the default is 1.',
    arguments: { id: 'store id' },
    examples: ['braid ctl store weight 1 --leader 2', 'braid ctl store weight 1 --leader 1 --region 0.5'],
    options: [flag('--leader <weight>', 'share of leaders'), flag('--region <weight>', 'share of data')],
    change: (_, flags) => {
      const weight = (name: 'leader' | 'region'): number | undefined => {
        const text = flags[name];
        if (text === undefined) {
          return undefined;
        }
        const value = Number(text);
        if (typeof text !== 'string' || !(value > 0)) {
          throw new UsageError(`${JSON.stringify(text)} is not a weight`, 'give a number from 0.01 to 100');
        }
        return value;
      };
      const [leaderWeight, regionWeight] = [weight('leader'), weight('region')];
      if (leaderWeight === undefined && regionWeight === undefined) {
        throw new UsageError('no weight was given', 'give --leader or --region');
      }
      return {
        ...(leaderWeight === undefined ? {} : { leaderWeight }),
        ...(regionWeight === undefined ? {} : { regionWeight }),
      };
    },
  });
  settingCommand(store, app, {
    usage: 'limit <id> <count>',
    summary: 'Bound how many large replicas a store takes or gives up per minute',
    details: '0 = no limit; "default" returns to the setting of the cluster.',
    arguments: { id: 'store id', count: 'replicas per minute, 0, or default' },
    examples: ['braid ctl store limit 1 200', 'braid ctl store limit 1 default'],
    options: [],
    change: ([, count]) => {
      if (count === 'default') {
        return { limitPerMinute: null };
      }
      if (!/^\d{1,7}$/.test(count as string) || Number(count) > LIMIT_MAX) {
        throw new UsageError(`${JSON.stringify(count)} is not a limit`, `give 0 to ${LIMIT_MAX}, or default`);
      }
      return { limitPerMinute: Number(count) };
    },
  });
  settingCommand(store, app, {
    usage: 'evict-leaders <id>',
    summary: 'Move all leaders away from a store and keep them away',
    details: 'It stays so over restarts until you say --off.',
    arguments: { id: 'store id' },
    examples: ['braid ctl store evict-leaders 2', 'braid ctl store evict-leaders 2 --off'],
    options: [flag('--off', 'let the store lead again')],
    change: (_, flags) => ({ leadersEvicted: flags['off'] !== true }),
  });
}

interface SettingSpec {
  readonly usage: string;
  readonly summary: string;
  readonly details: string;
  readonly arguments: Readonly<Record<string, string>>;
  readonly examples: readonly [string, string];
  readonly options: readonly Option[];
  readonly change: (args: readonly string[], flags: Readonly<Record<string, unknown>>) => StoreSettingsChange;
}

function settingCommand(store: Command, app: App, spec: SettingSpec): void {
  addCommand<Readonly<Record<string, unknown>> & ExpectVersionFlag>(store, app, {
    usage: spec.usage,
    summary: spec.summary,
    details: spec.details,
    arguments: spec.arguments,
    examples: spec.examples,
    modes: LIST_MODES,
    mode: 'table',
    options: [...spec.options, reasonFlag(), expectStore()],
    task: ([id]) => `change store ${id}`,
    run: async (session, args, flags) => {
      const storeId = parseId(args[0] as string, 'store');
      const change = spec.change(args, flags);
      const admin = await session.admin();
      const limits = { ...session.limits(), ...expectedVersion(flags) };
      return show(session, await admin.setStoreSettings(storeId, change, limits));
    },
  });
}

async function show(session: Session, store: StoreInfo): Promise<ExitCode> {
  await session.printer.single(storeSingle(store));
  return EXIT_DONE;
}

async function drain(session: Session, storeId: number, flags: DrainFlags): Promise<ExitCode> {
  if (flags.wait === true && flags.detach === true) {
    throw new UsageError('--wait and --detach exclude each other', 'leave one of them out');
  }
  const admin = await session.admin();
  const physicallyDestroyed = flags.destroyed ?? false;
  // Says why it would be refused before anybody is asked.
  const before = await admin.setStoreState(storeId, 'removing', {
    ...session.limits(),
    ...expectedVersion(flags),
    physicallyDestroyed,
    dryRun: true,
  });
  const plan = `${before.regionCount} replicas (${formatBytes(before.regionSizeBytes)}) and ${before.leaderCount} leaders will move away from store ${storeId}; then it is removed.`;
  if (flags.dryRun === true) {
    await session.printer.note(`dry run: ${plan}`);
    return show(session, before);
  }
  await confirmByName(session, plan, String(storeId), flags.yes);
  const started = await admin.setStoreState(storeId, 'removing', {
    ...session.limits(),
    ...expectedVersion(flags),
    physicallyDestroyed,
  });
  const waits = flags.wait ?? (flags.detach === true ? false : session.io.stderr.isTerminal);
  if (!waits) {
    await session.printer.note(
      `follow it with: braid ctl store show ${storeId}, or braid ctl explain store ${storeId}`,
    );
    return show(session, started);
  }
  return show(session, await watchDrain(session, admin, storeId));
}

/** One line about how far it is: replicas left, share done, and when it will be over at the pace so far. */
export function drainLine(store: StoreInfo, nowUnixMs: number): string {
  const { removal } = store;
  if (store.state === 'removed') {
    return `store ${store.id} is empty and removed`;
  }
  if (removal === undefined || removal.peers === 0) {
    return `store ${store.id}: ${store.regionCount} replicas left`;
  }
  const done = Math.max(0, removal.peers - store.regionCount);
  const percent = Math.min(100, Math.floor((100 * done) / removal.peers));
  const elapsedMs = Math.max(1, nowUnixMs - removal.sinceUnixMs);
  const left = done === 0 ? 'no estimate yet' : `about ${formatAge((elapsedMs / done) * store.regionCount)} left`;
  return `store ${store.id}: ${store.regionCount} of ${removal.peers} replicas left, ${percent} % done in ${formatAge(elapsedMs)}, ${left}`;
}

async function watchDrain(session: Session, admin: AdminClient, storeId: number): Promise<StoreInfo> {
  const { stderr } = session.io;
  const limitMs = session.isTimeoutGiven ? performance.now() + session.leftMs : Infinity;
  let shown = '';
  let drawn = false;
  for (;;) {
    if (session.signal.aborted) {
      await stderr.write(`stopped watching; the draining goes on, look again with: braid ctl store show ${storeId}\n`);
      session.signal.throwIfAborted();
    }
    const store = await admin.store(storeId, { signal: session.signal });
    const line = drainLine(store, Date.now());
    const blocker = store.blockers.find((problem) => problem.code !== 'PeersLeft');
    const text =
      blocker === undefined ? line : `${line}; waiting: ${blocker.message} (${blocker.code}): ${blocker.hint}`;
    if (!session.options.quiet && text !== shown) {
      shown = text;
      await stderr.write(
        stderr.isTerminal
          ? `${drawn ? '\u001B[1A' : ''}\u001B[2K${text.substring(0, stderr.columns - 1)}\n`
          : `${text}\n`,
      );
      drawn = true;
    }
    if (store.state === 'removed') {
      return store;
    }
    if (performance.now() > limitMs) {
      throw new DeadlineExceededError(`store ${storeId} still holds ${store.regionCount} replicas`, {
        hint: `the draining goes on; look at it with: braid ctl explain store ${storeId}`,
      });
    }
    await new Promise((resolve) => {
      setTimeout(resolve, POLL_MS);
    });
  }
}
