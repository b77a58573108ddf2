/** `braid ctl region pause|resume`: regions that the placement service is to leave alone. */
import type { Command } from 'commander';
import { type App, addCommand } from '../command.ts';
import { duration, type ExpectEpochFlag, expectedEpoch, expectEpochFlag, flag, reasonFlag } from '../common-options.ts';
import { EXIT_DONE } from '../exit-code.ts';
import { LIST_MODES } from '../output/mode.ts';
import type { Session } from '../session.ts';
import { parseId } from '../text-form.ts';
import { regionSingle } from './shapes.ts';

interface PauseFlags extends ExpectEpochFlag {
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
      flag('--reason <text>', 'kept in the audit log, and shown to everybody whose request is refused'),
      expectEpochFlag(),
    ],
    task: ([id]) => `pause region ${id}`,
    run: async (session, [text], options) => {
      const id = parseId(text as string, 'region');
      const admin = await session.admin();
      const { stoppedOperatorIds, goingOperatorIds } = await admin.pauseRegion(id, {
        ...session.limits(),
        ...(options.reason === undefined ? {} : { reason: options.reason }),
        ...(options.for === undefined ? {} : { forMs: options.for }),
        ...expectedEpoch(options),
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
  addCommand<ExpectEpochFlag>(region, app, {
    usage: 'resume <id>',
    summary: 'End the pause of a region',
    details: 'All keys of the region are taken out of their pauses; neighbours stay as they are.',
    arguments: { id: 'region id' },
    examples: ['braid ctl region resume 2', 'braid ctl region resume 2 -o json'],
    modes: LIST_MODES,
    mode: 'table',
    options: [reasonFlag(), expectEpochFlag()],
    task: ([id]) => `resume region ${id}`,
    run: async (session, [text], options) => {
      const id = parseId(text as string, 'region');
      const admin = await session.admin();
      if (!(await admin.resumeRegion(id, { ...session.limits(), ...expectedEpoch(options) })).changed) {
        await session.printer.note('nothing to do: it is not paused');
      }
      await showRegion(session, id);
      return EXIT_DONE;
    },
  });
}
