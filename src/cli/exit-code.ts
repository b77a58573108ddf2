/** Exit codes of the command line. Scripts rely on the numbers; they never change their meaning. */
import { AppError } from '../base/app-error.ts';

export type ExitCode = 0 | 1 | 2 | 3 | 4 | 5 | 130;

/** Done as asked. */
export const EXIT_DONE: ExitCode = 0;
/** Usage, connection or server failure; nothing is known to have changed. */
export const EXIT_FAILURE: ExitCode = 1;
/** Some parts were done and some were not; the output says which. */
export const EXIT_PARTLY: ExitCode = 2;
/** The cluster or the user refused; nothing was changed. */
export const EXIT_REFUSED: ExitCode = 3;
/** The deadline passed or the outcome is unknown; a change may still apply. */
export const EXIT_DEADLINE: ExitCode = 4;
/** The question was answered, and the answer is no: absent, not swapped, not healthy, slower. */
export const EXIT_NO: ExitCode = 5;
/** Ended by Ctrl-C. */
export const EXIT_INTERRUPTED: ExitCode = 130;

const REFUSED_CODES: ReadonlySet<string> = new Set(['Refused', 'OperatorFailed', 'RegionDraining', 'RegionPaused']);
const DEADLINE_CODES: ReadonlySet<string> = new Set(['DeadlineExceeded', 'UndeterminedResult']);

/** The exit code that an error ends the command with. */
export function exitCodeOf(error: unknown): ExitCode {
  if (!(error instanceof AppError)) {
    return EXIT_FAILURE;
  }
  if (error.code === 'OperatorFailed' && error.details['status'] === 'timeout') {
    return EXIT_DEADLINE;
  }
  if (REFUSED_CODES.has(error.code)) {
    return EXIT_REFUSED;
  }
  if (DEADLINE_CODES.has(error.code)) {
    return EXIT_DEADLINE;
  }
  return error.code === 'Aborted' ? EXIT_INTERRUPTED : EXIT_FAILURE;
}
