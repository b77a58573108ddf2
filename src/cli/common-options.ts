/**
 * Flags that every command has, their environment twins and defaults. A flag wins over its twin, the twin over the
 * default. Flags are part of every leaf command rather than of the program, so that `braid server --pd` may mean its own.
 */
import { type Command, InvalidArgumentError, Option } from 'commander';
import { parseDurationMs, parseSizeBytes } from '../base/units.ts';
import { closestName } from '../client/options.ts';
import { UsageError } from './failure.ts';
import type { OutputMode } from './output/mode.ts';
import { type Condition, parseCondition } from './output/select.ts';
import { KEY_FORMATS, type KeyFormat, VALUE_FORMATS, type ValueFormat } from './text-form.ts';

/** Where `braid dev` and `braid pd` listen unless told otherwise. */
export const PD_DEFAULT = '127.0.0.1:2379';
export const TIMEOUT_MS_DEFAULT = 10_000;
const TIMEOUT_MS_MAX = 2 ** 31 - 1;

export interface CommonOptions {
  readonly pd: string;
  readonly context?: string;
  readonly tlsCa?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly output: OutputMode;
  readonly timeout: number;
  readonly keyFormat: KeyFormat;
  readonly valueFormat: ValueFormat;
  readonly headers: boolean;
  readonly columns: readonly string[] | undefined;
  readonly sortBy: string | undefined;
  /** Flags of lists alone; without them in every other command. */
  readonly where?: readonly Condition[];
  readonly limit?: number;
  readonly fields?: readonly string[];
  /** Of commands that change something; see {@link reasonFlag}. */
  readonly reason?: string;
  readonly quiet: boolean;
  readonly verbose: boolean;
  readonly debug: boolean;
}

/** The environment twin of a long flag: `--key-format` is `BRAID_KEY_FORMAT`. */
export const envTwin = (flag: string): string =>
  `BRAID_${flag
    .replace(/^--(?:no-)?/, '')
    .replaceAll('-', '_')
    .toUpperCase()}`;

/** An option with its environment twin. `--no-x` has the twin `BRAID_NO_X`. */
export function flag(flags: string, description: string): Option {
  const long = /--[a-z-]+/.exec(flags)?.[0] ?? '';
  const option = new Option(flags, description);
  return option.env(
    long.startsWith('--no-') ? `BRAID_${long.slice(2).replaceAll('-', '_').toUpperCase()}` : envTwin(long),
  );
}

/** A parser that accepts the given words and suggests the nearest one otherwise. */
export function choice<T extends string>(words: readonly T[]): (text: string) => T {
  return (text) => {
    const found = words.find((word) => word === text.toLowerCase());
    if (found === undefined) {
      const closest = closestName(text, words);
      throw new InvalidArgumentError(
        `${closest === undefined ? '' : `Did you mean ${closest}? `}Allowed words are ${words.join(', ')}.`,
      );
    }
    return found;
  };
}

/** `10s`, `500ms`, `2m`; a bare number is refused because its unit is anybody's guess. */
export function duration(text: string): number {
  const ms = parseDurationMs(text);
  if (ms === undefined || ms < 1 || ms > TIMEOUT_MS_MAX) {
    throw new InvalidArgumentError('Write a duration with its unit, for example 500ms, 10s or 2m, up to 24 days.');
  }
  return ms;
}

export function sizeBytes(text: string): number {
  const bytes = /^\d+$/.test(text) ? Number(text) : parseSizeBytes(text);
  if (bytes === undefined || !Number.isSafeInteger(bytes)) {
    throw new InvalidArgumentError('Write a size in bytes or with a unit, for example 256, 4KiB or 1MiB.');
  }
  return bytes;
}

/** A whole number within bounds. */
export function count(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
    if (!(value >= min && value <= max)) {
      throw new InvalidArgumentError(`Write a whole number from ${min} to ${max}.`);
    }
    return value;
  };
}

/** Words separated by commas. */
export const words = (text: string): readonly string[] => text.split(',').map((word) => word.trim());

export const positive: (text: string) => number = count(1, Number.MAX_SAFE_INTEGER);

/** Conditions of several `--where` add up. */
function conditions(text: string, before: readonly Condition[] | undefined): readonly Condition[] {
  const condition = parseCondition(text);
  if (condition === undefined) {
    throw new InvalidArgumentError('Write a name, one of = != < <= > >= ~ and a value, for example size<1MiB.');
  }
  return [...(before ?? []), condition];
}

/** Why something is changed: kept in the list of events and with what is changed. */
export const reasonFlag = (): Option =>
  flag('--reason <text>', 'why; kept in the list of events and with what is changed');

/** Refuses a change that was made for another version than the present one. @param what whose version */
export const expectVersionFlag = (what: string): Option =>
  flag('--expect-version <n>', `refuse unless ${what} has this version`).argParser(count(0, Number.MAX_SAFE_INTEGER));

export interface ExpectVersionFlag {
  readonly expectVersion?: number;
}

export const expectedVersion = ({ expectVersion }: ExpectVersionFlag): ExpectVersionFlag =>
  expectVersion === undefined ? {} : { expectVersion };

/** An epoch as `5.12`, or as lists show it: `5:12`. */
export function epoch(text: string): Epoch {
  const parts = /^(\d{1,15})[.:](\d{1,15})$/.exec(text);
  if (parts === null) {
    throw new UsageError(
      `${JSON.stringify(text)} is not an epoch`,
      'write conf-version.version, as the column EPOCH of "braid ctl region list" shows it, for example 5.12',
    );
  }
  return { confVer: Number(parts[1]), version: Number(parts[2]) };
}

export interface Epoch {
  readonly confVer: number;
  readonly version: number;
}

/** A region has no version but its epoch. */
export const expectEpochFlag = (): Option =>
  flag(
    '--expect-version <conf-version.version>',
    'refuse unless the region has this epoch, for example 5.12',
  ).argParser(epoch);

export interface ExpectEpochFlag {
  readonly expectVersion?: Epoch;
}

export const expectedEpoch = ({ expectVersion }: ExpectEpochFlag): { readonly expectEpoch?: Epoch } =>
  expectVersion === undefined ? {} : { expectEpoch: expectVersion };

/** Flags of commands that list things: which rows, how many, what of each. */
export const listFlags = (): Option[] => [
  flag(
    '--where <condition>',
    'only rows for which it holds, for example size<1MiB; may be given several times',
  ).argParser(conditions),
  flag('--limit <count>', 'at most so many').argParser(positive),
  flag(
    '--fields <names>',
    'only these fields of each row, separated by commas, for example id,leader.storeId',
  ).argParser(words),
];

const GROUP = 'Common options:';

/** Adds the flags for reaching a cluster and for output. */
export function addCommonOptions(command: Command, modes: readonly OutputMode[], mode: OutputMode): void {
  const common = [
    flag('--pd <endpoints>', 'placement endpoints as host:port, separated by commas').default(PD_DEFAULT),
    flag('--context <name>', 'cluster to talk to, by the name "braid ctl context add" gave it'),
    flag('--tls-ca <file>', 'certificate (PEM) of the authority of an encrypted cluster'),
    flag('--tls-cert <file>', 'your certificate (PEM) for an encrypted cluster'),
    flag('--tls-key <file>', 'private key (PEM) of --tls-cert'),
    flag('-o, --output <mode>', `how data is printed: ${modes.join(', ')}`)
      .default(mode)
      .argParser(choice(modes)),
    flag('--timeout <duration>', 'deadline of the command').default(TIMEOUT_MS_DEFAULT, '10s').argParser(duration),
    flag('--key-format <format>', `how keys are read and printed: ${KEY_FORMATS.join(', ')}`)
      .default('escaped')
      .argParser(choice(KEY_FORMATS)),
    flag('--value-format <format>', `how values are printed: ${VALUE_FORMATS.join(', ')}`)
      .default('auto')
      .argParser(choice(VALUE_FORMATS)),
    flag('--no-headers', 'tables without heads'),
    flag('--columns <heads>', 'columns of a table, separated by commas').argParser(words),
    flag('--sort-by <head>', 'column or field to sort a list by; -HEAD reverses'),
    flag('-q, --quiet', 'no remarks on stderr').default(false),
    flag('-v, --verbose', 'say on stderr what the command does: where it asks, who leads, what is retried').default(
      false,
    ),
    flag('--debug', 'the same, and every call it made and the stack of an error').default(false),
  ];
  for (const option of common) {
    // A command may give a flag a meaning of its own.
    if (!command.options.some((own) => own.long === option.long)) {
      command.addOption(option.helpGroup(GROUP));
    }
  }
}

/** Common flags typed before the command word, with whether they take a value. */
const LEADING_FLAGS: Readonly<Record<string, boolean>> = {
  '--pd': true,
  '--context': true,
  '--tls-ca': true,
  '--tls-cert': true,
  '--tls-key': true,
  '-o': true,
  '--output': true,
  '--timeout': true,
  '--key-format': true,
  '--value-format': true,
  '--no-headers': false,
  '--columns': true,
  '--sort-by': true,
  '-q': false,
  '--quiet': false,
  '-v': false,
  '--verbose': false,
  '--debug': false,
};

/** Moves common flags typed before the command (`braid --pd X get k`) behind it, where the command reads them. */
export function hoistLeadingFlags(args: readonly string[]): string[] {
  let at = 0;
  while (at < args.length) {
    const word = args[at] as string;
    const takesValue = LEADING_FLAGS[word.split('=', 1)[0] as string];
    if (takesValue === undefined) {
      break;
    }
    at += takesValue && !word.includes('=') ? 2 : 1;
  }
  if (at === 0 || at >= args.length) {
    return [...args];
  }
  const rest = args.slice(at);
  const stop = rest.indexOf('--');
  const end = stop < 0 ? rest.length : stop;
  return [...rest.slice(0, end), ...args.slice(0, at), ...rest.slice(end)];
}
