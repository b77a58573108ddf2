/** `braid ctl region pause|resume` and `braid ctl scheduler …`: what the placement service is to leave alone. */
import type { Command } from 'commander';
import { type App, addCommand } from '../command.ts';
import { duration, flag } from '../common-options.ts';
import { EXIT_DONE } from '../exit-code.ts';
import { LIST_MODES } from '../output/mode.ts';
import type { Session } from '../session.ts';
import { parseId } from '../text-form.ts';
import { SWITCH_SHAPE, regionSingle } from './shapes.ts';

interface PauseFlags {
  readonly for?: number;
  readonly reason?: string;
}

const showRegion = async (session: Session, id: number): Promise<void> => {
  const admin = await session.admin();
  await session.printer.single(regionSingle(await admin.region(id, session.limits()), session.options.keyFormat));
};

export function regionPauseCommands(region: Command, app: App): void {
  addCommand<PauseFlags>(region, app, {
    usage: 'pause <id>',
    summary: 'Let nobody move, split or merge a region',
    details:
      'It serves its data as before. Running operators on it are stopped, all others refused as RegionPaused; only a joint state is still left. The pause belongs to the keys of the region, so parts of a later split are paused too, and it stays over restarts.',
    arguments: { id: 'region id' },
    examples: ['braid ctl region pause 2 --reason "disk check" --for 10m', 'braid ctl region list --filter paused'],
    modes: LIST_MODES,
    mode: 'table',
    options: [
      flag('--for <time>', 'resume by itself after this time; without it, when you say so').argParser(duration),
      flag('--reason <text>', 'shown to everybody whose request is refused'),
    ],
    task: ([id]) => `pause region ${id}`,
    run: async (session, [text], options) => {
      const id = parseId(text as string, 'region');
      const admin = await session.admin();
      const { stoppedOperatorIds, goingOperatorIds } = await admin.pauseRegion(id, {
        ...session.limits(),
        ...(options.reason === undefined ? {} : { reason: options.reason }),
        ...(options.for === undefined ? {} : { forMs: options.for }),
      });
      for (const operator of stoppedOperatorIds) {
        await session.printer.note(`operator ${operator} was stopped`);
      }
      for (const operator of goingOperatorIds) {
        await session.printer.note(`operator ${operator} goes on: its merge was sent and ends by itself`);
      }
      await showRegion(session, id);
      return EXIT_DONE;
    },
  });
  addCommand<object>(region, app, {
    usage: 'resume <id>',
    summary: 'End the pause of a region',
    details: 'All keys of the region are taken out of their pauses; neighbours stay as they are.',
    arguments: { id: 'region id' },
    examples: ['braid ctl region resume 2', 'braid ctl region resume 2 -o json'],
    modes: LIST_MODES,
    mode: 'table',
    task: ([id]) => `resume region ${id}`,
    run: async (session, [text]) => {
      const id = parseId(text as string, 'region');
      const admin = await session.admin();
      if (!(await admin.resumeRegion(id, session.limits())).changed) {
        await session.printer.note('nothing to do: it is not paused');
      }
      await showRegion(session, id);
      return EXIT_DONE;
    },
  });
}

export function schedulerCommands(scheduler: Command, app: App): void {
  addCommand<object>(scheduler, app, {
    usage: 'list',
    isList: true,
    summary: 'List checkers and schedulers with their state',
    examples: ['braid ctl scheduler list', 'braid ctl scheduler list -o json'],
    modes: LIST_MODES,
    mode: 'table',
    isWatchable: true,
    task: () => 'list schedulers',
    run: async (session) => {
      const admin = await session.admin();
      await session.printer.list(SWITCH_SHAPE, await admin.switches(session.limits()));
      return EXIT_DONE;
    },
  });
  addCommand<{ readonly for?: number }>(scheduler, app, {
    usage: 'pause <name>',
    summary: 'Switch a checker or scheduler off, for a time if wanted',
    details: 'It stays so over restarts; operators it has made already go on.',
    arguments: { name: 'its name, see the list' },
    examples: ['braid ctl scheduler pause balance-region --for 30m', 'braid ctl scheduler pause merge-checker'],
    modes: LIST_MODES,
    mode: 'table',
    options: [flag('--for <time>', 'switch it on again after this time').argParser(duration)],
    task: ([name]) => `pause ${name}`,
    run: async (session, [name], options) => {
      const admin = await session.admin();
      const changed = await admin.setSwitch(name as string, false, {
        ...session.limits(),
        ...(options.for === undefined ? {} : { offMs: options.for }),
      });
      await session.printer.list(SWITCH_SHAPE, [changed]);
      return EXIT_DONE;
    },
  });
  addCommand<object>(scheduler, app, {
    usage: 'resume <name>',
    summary: 'Switch a checker or scheduler on again',
    arguments: { name: 'its name, see the list' },
    examples: ['braid ctl scheduler resume balance-region', 'braid ctl scheduler resume balance-region -o json'],
    modes: LIST_MODES,
    mode: 'table',
    task: ([name]) => `resume ${name}`,
    run: async (session, [name]) => {
      const admin = await session.admin();
      await session.printer.list(SWITCH_SHAPE, [await admin.setSwitch(name as string, true, session.limits())]);
      return EXIT_DONE;
    },
  });
}
