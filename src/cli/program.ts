/** The command tree, and how words that are not understood are answered. */
import { Command, type CommanderError } from 'commander';
import { AppError } from '../base/app-error.ts';
import { type App, addCommand } from './command.ts';
import { hoistLeadingFlags } from './common-options.ts';
import { type ExitCode, EXIT_DONE, EXIT_FAILURE, EXIT_INTERRUPTED } from './exit-code.ts';
import { formatFailure, formatUsageFailure } from './failure.ts';
import { type CliIo, ReaderGoneError } from './io.ts';
import { registerBenchCommands } from './bench/command.ts';
import { registerCtlCommands } from './ctl/commands.ts';
import { registerImportCommand } from './import/command.ts';
import { registerKvCommands } from './kv/commands.ts';
import { packageVersion } from './package-version.ts';
import { COMMON_MODES } from './output/mode.ts';
import type { Connector } from './session.ts';

/** A command that commander could not make sense of, with the command whose help explains it. */
class NotUnderstoodError extends Error {
  readonly error: CommanderError;
  readonly command: Command;

  constructor(error: CommanderError, command: Command) {
    super(error.message);
    this.error = error;
    this.command = command;
  }
}

export type RegisterCommands = (program: Command, app: App) => void;

/** Where commander's own output goes: help that was asked for, and help shown because a word is missing. */
interface HelpText {
  asked: string;
  missing: string;
}

/** The whole command tree. Nothing runs before it is told to parse. */
export function buildProgram(
  app: App,
  more: readonly RegisterCommands[],
  help: HelpText = { asked: '', missing: '' },
): Command {
  const { io } = app;
  const program = new Command('braid')
    .description('A Raft-replicated, range-partitioned key-value store.')
    .version(packageVersion(), '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print help')
    .helpCommand('help [command]', 'print help for a command')
    // Flags belong to the command they stand behind: "pd recover --data-dir" is not the one of "pd".
    .enablePositionalOptions()
    .showSuggestionAfterError(true)
    .configureHelp({ sortOptions: false })
    .configureOutput({
      writeOut: (text) => {
        help.asked += text;
      },
      writeErr: (text) => {
        help.missing += text;
      },
      outputError: () => {},
      getOutHelpWidth: () => io.stdout.columns || 100,
      getErrHelpWidth: () => io.stderr.columns || 100,
      getOutHasColors: () => false,
      getErrHasColors: () => false,
    });
  registerKvCommands(program, app);
  registerImportCommand(program, app);
  registerCtlCommands(program, app);
  registerBenchCommands(program, app);
  for (const register of more) {
    register(program, app);
  }
  addVersionCommand(program, app);
  catchExits(program);
  return program;
}

/** Runs one command line (without the program's own name) and returns the exit code. Never throws, never exits. */
export async function runCli(
  args: readonly string[],
  io: CliIo,
  connector: Connector,
  more: readonly RegisterCommands[],
): Promise<ExitCode> {
  const app: App = { io, connector, exitCode: EXIT_DONE };
  const help: HelpText = { asked: '', missing: '' };
  try {
    await buildProgram(app, more, help).parseAsync(hoistLeadingFlags(args), { from: 'user' });
    return app.exitCode;
  } catch (error) {
    try {
      return await explain(error, io, help);
    } catch (failure) {
      return failure instanceof ReaderGoneError ? EXIT_DONE : EXIT_FAILURE;
    }
  }
}

async function explain(error: unknown, io: CliIo, help: HelpText): Promise<ExitCode> {
  if (!(error instanceof NotUnderstoodError)) {
    await io.stderr.write(formatFailure('run the command', error, !(error instanceof AppError)));
    return io.signal.aborted ? EXIT_INTERRUPTED : EXIT_FAILURE;
  }
  if (error.error.exitCode === 0) {
    await io.stdout.write(help.asked);
    return EXIT_DONE;
  }
  if (error.error.code === 'commander.help') {
    await io.stderr.write(help.missing);
    return EXIT_FAILURE;
  }
  const [first = '', ...rest] = error.error.message.replace(/^error: /, '').split('\n');
  const suggestion = rest
    .join(' ')
    .replace(/^\(|\)$/g, '')
    .trim();
  const seeHelp = `see "${fullName(error.command)} --help"`;
  await io.stderr.write(formatUsageFailure(first, suggestion === '' ? seeHelp : `${suggestion} Otherwise ${seeHelp}`));
  return EXIT_FAILURE;
}

/** Commander ends the process unless every command is told otherwise. */
function catchExits(command: Command): void {
  command.exitOverride((error) => {
    throw new NotUnderstoodError(error, command);
  });
  for (const child of command.commands) {
    catchExits(child);
  }
}

function fullName(command: Command): string {
  return command.parent === null ? command.name() : `${fullName(command.parent)} ${command.name()}`;
}

function addVersionCommand(program: Command, app: App): void {
  addCommand<object>(program, app, {
    usage: 'version',
    summary: 'Print the version of this program',
    examples: ['braid version', 'braid version -o json'],
    modes: COMMON_MODES,
    mode: 'table',
    task: () => 'print the version',
    run: async (session) => {
      const version = packageVersion();
      const { node } = process.versions;
      await session.printer.single({
        document: { kind: 'Version', version, node, platform: `${process.platform}-${process.arch}` },
        fields: [
          { name: 'braid', value: version },
          { name: 'node', value: node },
          { name: 'platform', value: `${process.platform}-${process.arch}` },
        ],
      });
      return EXIT_DONE;
    },
  });
}
