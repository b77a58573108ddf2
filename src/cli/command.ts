/**
 * The frame of every command: flags, help with two examples, a session, the three lines of an error and the exit code.
 * Commands themselves only say what they do.
 */
import type { Command, Option } from 'commander';
import { type CommonOptions, addCommonOptions, flag, listFlags } from './common-options.ts';
import { type ExitCode, EXIT_DONE, EXIT_INTERRUPTED, EXIT_NO, EXIT_REFUSED, exitCodeOf } from './exit-code.ts';
import type { FlagSource } from './contexts.ts';
import { UsageError, formatFailure } from './failure.ts';
import { type CliIo, ReaderGoneError } from './io.ts';
import type { OutputMode } from './output/mode.ts';
import { type Connector, type OptionSources, Session } from './session.ts';
import { watch } from './watch.ts';

/** One run of the program. */
export interface App {
  readonly io: CliIo;
  readonly connector: Connector;
  /** What the process ends with; set by the command that ran. */
  exitCode: ExitCode;
}

export interface CommandSpec<Options> {
  /** Name and arguments in commander's notation, for example `get <key>`. */
  readonly usage: string;
  readonly summary: string;
  /** More about it, shown in its help. */
  readonly details?: string;
  readonly arguments?: Readonly<Record<string, string>>;
  readonly examples: readonly [string, string, ...string[]];
  readonly modes: readonly OutputMode[];
  /** Output mode unless told otherwise. */
  readonly mode: OutputMode;
  readonly options?: readonly Option[];
  /** Completes "cannot …" in the first line of an error. */
  readonly task: (args: readonly string[]) => string;
  /** The command only asks: when the cluster refuses because the object is not there, the answer is no. */
  readonly isQuestion?: boolean;
  /** The command prints rows: it gets `--where`, `--limit` and `--fields`. A flag of its own with such a name wins. */
  readonly isList?: boolean;
  /** The command only looks: it gets `--watch`, which looks again every second and prints what changed. */
  readonly isWatchable?: boolean;
  readonly run: (session: Session, args: readonly string[], options: Options) => Promise<ExitCode>;
}

/** Adds a leaf command. `Options` are the command's own flags under their camel-case names. */
export function addCommand<Options extends object>(parent: Command, app: App, spec: CommandSpec<Options>): Command {
  const command = parent.command(spec.usage).summary(spec.summary);
  command.description(spec.details === undefined ? `${spec.summary}.` : `${spec.summary}. ${spec.details}`);
  for (const argument of command.registeredArguments) {
    const text = spec.arguments?.[argument.name()];
    if (text !== undefined) {
      argument.description = text;
    }
  }
  for (const option of spec.options ?? []) {
    command.addOption(option);
  }
  if (spec.isWatchable === true) {
    command.addOption(flag('-w, --watch', 'look again every second and print what changed, until Ctrl-C or --timeout'));
  }
  if (spec.isList === true) {
    for (const option of listFlags().filter(({ long }) => !command.options.some((own) => own.long === long))) {
      command.addOption(option);
    }
  }
  addCommonOptions(command, spec.modes, spec.mode);
  command.addHelpText('after', `\nExamples:\n${spec.examples.map((example) => `  ${example}`).join('\n')}`);
  command.action(async (...given: unknown[]) => {
    // Commander hands over the arguments, then the options, then the command.
    const args = given
      .slice(0, command.registeredArguments.length)
      .flatMap((arg) => (arg === undefined ? [] : (arg as string | string[])));
    const options = command.opts<Options & CommonOptions>();
    const sources: OptionSources = {
      timeout: sourceOf(command, 'timeout'),
      pd: sourceOf(command, 'pd'),
      context: sourceOf(command, 'context'),
    };
    const isTimeoutGiven = sources.timeout !== 'default';
    const look = (looking: App): Promise<ExitCode> =>
      execute(looking, options, sources, spec.task(args), (session) => spec.run(session, args, options));
    const isWatched = spec.isWatchable === true && (options as { readonly watch?: true }).watch === true;
    const code = isWatched ? await watch(app, options, isTimeoutGiven, look) : await look(app);
    app.exitCode = spec.isQuestion === true && code === EXIT_REFUSED ? EXIT_NO : code;
  });
  return command;
}

function sourceOf(command: Command, option: string): FlagSource {
  switch (command.getOptionValueSource(option)) {
    case 'cli':
      return 'flag';
    case 'env':
      return 'variable';
    default:
      return 'default';
  }
}

async function execute(
  app: App,
  options: CommonOptions,
  sources: OptionSources,
  task: string,
  run: (session: Session) => Promise<ExitCode>,
): Promise<ExitCode> {
  const session = new Session(app.io, options, sources, app.connector);
  try {
    if (options.quiet && options.verbose) {
      throw new UsageError('--quiet and --verbose exclude each other', 'leave one of them out');
    }
    const code = await run(session);
    await session.trace?.finish();
    return code;
  } catch (error) {
    if (error instanceof ReaderGoneError) {
      // Nobody reads any more, and that is not our failure.
      return EXIT_DONE;
    }
    await app.io.stderr.write(formatFailure(task, error, options.debug));
    await session.trace?.finish();
    return app.io.signal.aborted ? EXIT_INTERRUPTED : exitCodeOf(error);
  } finally {
    await session[Symbol.asyncDispose]();
  }
}
