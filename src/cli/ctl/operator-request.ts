/** Requests that become operators: their flags, and what is shown of them and of their end. */
import type { AdminClient, OperatorRequestOptions, Submission } from '../../client/admin.ts';
import type { OperatorInfo } from '../../client/admin-wire.ts';
import { type Epoch, epoch, expectedEpoch, expectEpochFlag, flag } from '../common-options.ts';
import { EXIT_DONE, type ExitCode } from '../exit-code.ts';
import { UsageError } from '../failure.ts';
import { isMachineMode } from '../output/mode.ts';
import type { Session } from '../session.ts';
import { watchOperator } from './operator-watch.ts';
import { operatorShape, operatorSingle } from './shapes.ts';

/** What every request that becomes an operator takes. */
export interface OperatorFlags {
  readonly wait?: true;
  readonly detach?: true;
  readonly dryRun?: true;
  readonly reason?: string;
  readonly expectEpoch?: Epoch;
  readonly expectVersion?: Epoch;
}

export const operatorFlags = (): ReturnType<typeof flag>[] => [
  flag('--wait', 'wait until it is done and show its phases; the default on a terminal'),
  flag('--detach', 'print the operator and return; the default elsewhere'),
  flag('--dry-run', 'only show the steps it would take'),
  flag('--reason <text>', 'kept with the operator'),
  expectEpochFlag(),
  flag(
    '--expect-epoch <conf_ver:version>',
    "the same under its older name; of a merge, both are the source's",
  ).argParser(epoch),
];

/** @throws UsageError for flags that exclude each other */
export function requestOptions(session: Session, flags: OperatorFlags): OperatorRequestOptions {
  if (flags.wait === true && flags.detach === true) {
    throw new UsageError('--wait and --detach exclude each other', 'leave one of them out');
  }
  if (flags.expectEpoch !== undefined && flags.expectVersion !== undefined) {
    throw new UsageError('--expect-version and --expect-epoch are the same', 'leave one of them out');
  }
  return {
    ...session.limits(),
    dryRun: flags.dryRun ?? false,
    ...expectedEpoch({ ...(flags.expectEpoch === undefined ? {} : { expectVersion: flags.expectEpoch }), ...flags }),
    ...(flags.reason === undefined ? {} : { reason: flags.reason }),
  };
}

/** Reports what became of a change, waiting for its end if that is wanted. */
export async function finishOperator(
  session: Session,
  admin: AdminClient,
  submission: Submission,
  flags: OperatorFlags,
): Promise<ExitCode> {
  if (submission.type === 'nothing-to-do') {
    await session.printer.note('nothing to do: it is as you want it already');
    if (isMachineMode(session.printer.mode)) {
      await session.printer.single({ document: { kind: 'NothingToDo' }, fields: [] });
    }
    return EXIT_DONE;
  }
  if (submission.type === 'planned') {
    await session.printer.note('dry run: nothing was started');
    await session.printer.single(operatorSingle(submission.operator, Date.now()));
    return EXIT_DONE;
  }
  const { operator } = submission;
  const waits = flags.wait ?? (flags.detach === true ? false : session.io.stderr.isTerminal);
  if (!waits) {
    await showOperator(session, operator);
    await session.printer.note(`follow it with: braid ctl operator show ${operator.id} --watch`);
    return EXIT_DONE;
  }
  await showOperator(session, await watchOperator(session, admin, operator.id));
  return EXIT_DONE;
}

/** One line for people, the whole object for machines. */
export async function showOperator(session: Session, operator: OperatorInfo): Promise<void> {
  if (isMachineMode(session.printer.mode) || session.printer.mode === 'name') {
    await session.printer.single(operatorSingle(operator, Date.now()));
  } else {
    await session.printer.list(operatorShape(Date.now()), [operator]);
  }
}
