/** Asks before something is done that cannot simply be undone. */
import { createInterface } from 'node:readline/promises';
import { Readable } from 'node:stream';
import { AppError } from '../base/app-error.ts';
import { UsageError } from './failure.ts';
import type { Session } from './session.ts';

/**
 * Shows the plan and asks the user to type the object's name. `--yes` answers for scripts.
 * @throws UsageError without a terminal and without `--yes`; AppError `Refused` when the answer is another one
 */
export async function confirmByName(
  session: Session,
  plan: string,
  name: string,
  isYes: true | undefined,
): Promise<void> {
  if (isYes === true) {
    return;
  }
  if (!session.io.isStdinTerminal) {
    throw new UsageError(`${plan} Nobody can be asked here`, 'add --yes if you mean it, or --dry-run to see the plan');
  }
  await session.io.stderr.write(`${plan}\nType ${name} to go on: `);
  const lines = createInterface({ input: Readable.from(session.io.stdin) });
  try {
    for await (const line of lines) {
      if (line.trim() === name) {
        return;
      }
      break;
    }
  } finally {
    lines.close();
  }
  throw new AppError('Refused', 'you did not confirm it', { hint: 'nothing was changed' });
}
