/** What the commands of this folder share: flags, the form of errors, examples in help. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import { EXIT_CODE_STORAGE } from '../../base/assert.ts';
import { CorruptionError } from '../../env/engine.ts';
import { LOG_LEVELS } from '../../env/real/index.ts';
import type { App } from '../command.ts';
import { flag } from '../common-options.ts';
import { type ExitCode, EXIT_INTERRUPTED, exitCodeOf } from '../exit-code.ts';
import { formatFailure } from '../failure.ts';

export const TLS_FLAGS = (): Option[] => [
  flag('--tls-ca <file>', 'certificates (PEM) of the authorities of this cluster; with it everything is encrypted'),
  flag('--tls-cert <file>', 'certificate (PEM) of this process'),
  flag('--tls-key <file>', 'private key (PEM) of --tls-cert'),
];

export const tlsFlags = (flags: {
  readonly tlsCa?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
}): Readonly<Record<string, string | undefined>> => ({
  'tls.ca': flags.tlsCa,
  'tls.cert': flags.tlsCert,
  'tls.key': flags.tlsKey,
});

export const LOG_FLAGS = (): Option[] => [
  flag('--log-level <level>', `least severe lines that are logged: ${LOG_LEVELS.join(', ')}`),
  flag('--log-file <file>', 'file for the log instead of stderr'),
  setFlag(),
];

/** Has no environment twin: there is a variable for every setting. */
function setFlag(): Option {
  const option = new Option(
    '--set <setting=value>',
    'any other setting, for example raftstore.split-check=1s; may be repeated',
  );
  return option.default([], 'none').argParser((text: string, before: readonly string[]) => {
    if (!/^[a-z]+\.[a-z-]+=/.test(text)) {
      throw new InvalidArgumentError('Write section.key=value, for example raftstore.split-check=1s.');
    }
    return [...before, text];
  });
}

export const logFlags = (flags: {
  readonly logLevel?: string;
  readonly logFile?: string;
}): Readonly<Record<string, string | undefined>> => ({ 'log.level': flags.logLevel, 'log.file': flags.logFile });

/** `a.b=c` texts as a record. */
export const assignments = (texts: readonly string[]): Readonly<Record<string, string>> =>
  Object.fromEntries(texts.map((text) => [text.slice(0, text.indexOf('=')), text.slice(text.indexOf('=') + 1)]));

export function addExamples(command: Command, examples: readonly string[]): void {
  command.addHelpText('after', `\nExamples:\n${examples.map((example) => `  ${example}`).join('\n')}`);
}

/** Runs a command and turns an error into its three lines and an exit code. */
export async function runReported(app: App, task: string, run: () => Promise<ExitCode>): Promise<ExitCode> {
  try {
    return await run();
  } catch (error) {
    await app.io.stderr.write(formatFailure(task, error, false));
    if (error instanceof CorruptionError) {
      // The same code as for damage found later: whoever restarts processes must not restart this one.
      return EXIT_CODE_STORAGE as ExitCode;
    }
    return app.io.signal.aborted ? EXIT_INTERRUPTED : exitCodeOf(error);
  }
}
