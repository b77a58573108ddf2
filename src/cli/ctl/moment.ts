/** Moments as people write them. */
import { duration } from '../common-options.ts';
import { UsageError } from '../failure.ts';

/** `10m` ago, or a moment as ISO 8601. @returns ms since 1970 */
export function moment(text: string): number {
  const unixMs = /^\d{4}-\d\d-\d\d/.test(text) ? Date.parse(text) : Date.now() - duration(text);
  if (Number.isNaN(unixMs)) {
    throw new UsageError(
      `${JSON.stringify(text)} is not a moment`,
      'write a duration such as 10m, or a time such as 2030-01-31T12:00:00Z',
    );
  }
  return unixMs;
}
