/**
 * Completion of the shell: scripts for bash, zsh and fish that ask the program itself, and the hidden command that
 * answers. Words come from the command tree; ids of stores and regions and names of switches come from the cluster, if
 * it answers within a third of a second.
 */
import { Argument, type Command, type Option } from 'commander';
import { type App, addCommand } from './command.ts';
import { PD_DEFAULT } from './common-options.ts';
import { type FlagSource, type Target, type TlsFiles, loadContexts, targetOf } from './contexts.ts';
import { EXIT_DONE } from './exit-code.ts';
import { UsageError } from './failure.ts';

const LIVE_LIMIT_MS = 300;
const REGIONS_MAX = 200;

const SCRIPTS: Readonly<Record<string, string>> = {
  bash: `# source <(braid ctl completion bash)
_braid() {
  local IFS=$'\\n'
  COMPREPLY=($(compgen -W "$(braid __complete -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)" -- "\${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _braid braid
`,
  zsh: `#compdef braid
# source <(braid ctl completion zsh)
_braid() {
  local -a found
  found=("\${(@f)$(braid __complete -- "\${(@)words[2,$CURRENT]}" 2>/dev/null)}")
  compadd -a found
}
compdef _braid braid
`,
  fish: `# braid ctl completion fish | source
function __braid_complete
  set -l words (commandline -opc) (commandline -ct)
  braid __complete -- $words[2..-1] 2>/dev/null
end
complete -c braid -f -a '(__braid_complete)'
`,
};

/** Which kind of object an argument or the value of a flag names. */
type Live = 'store' | 'region' | 'switch' | 'checker' | 'parameter' | 'operator' | 'context';

const ARGUMENTS: Readonly<Record<string, Live>> = {
  settings: 'parameter',
  store: 'store',
  source: 'region',
  target: 'region',
  region: 'region',
};
const FLAGS: Readonly<Record<string, Live>> = {
  '--store': 'store',
  '--from': 'store',
  '--to': 'store',
  '--region': 'region',
  '--context': 'context',
};
const SWITCH_COMMANDS: readonly string[] = ['on', 'off', 'scheduler'];

/** `id` means what the group is about, `name` a switch in the commands about switches. */
function liveOf(command: Command, argument: string | undefined): Live | undefined {
  const group = command.parent?.name() ?? '';
  if (argument === 'id') {
    return group === 'store' || group === 'region' || group === 'operator' ? group : undefined;
  }
  if (argument === 'name' && group === 'context') {
    return command.name() === 'add' ? undefined : 'context';
  }
  if (argument === 'name' || argument === 'scheduler') {
    if (group === 'checker') {
      return 'checker';
    }
    return SWITCH_COMMANDS.includes(command.name()) || group === 'scheduler' ? 'switch' : undefined;
  }
  return argument === undefined ? undefined : ARGUMENTS[argument];
}

interface Wanted {
  readonly words: readonly string[];
  readonly live: Live | undefined;
}

const takesValue = (option: Option): boolean => option.required || option.optional;

/** The values that a flag's description lists after its colon. */
const listed = (option: Option): readonly string[] =>
  option.argChoices ?? /: ([a-z, -]+)$/.exec(option.description)?.[1]?.split(', ') ?? [];

/** What may stand at the place of the last word. */
export function candidates(program: Command, words: readonly string[]): Wanted {
  let command = program;
  let taken = 0;
  let awaited: Option | undefined;
  for (const word of words.slice(0, -1)) {
    if (awaited !== undefined) {
      awaited = undefined;
    } else if (word.startsWith('-')) {
      const option = command.options.find((one) => one.long === word || one.short === word);
      awaited = option !== undefined && takesValue(option) ? option : undefined;
    } else {
      const child = command.commands.find((one) => one.name() === word || one.aliases().includes(word));
      if (child === undefined) {
        taken++;
      } else {
        command = child;
        taken = 0;
      }
    }
  }
  if (awaited !== undefined) {
    return { words: listed(awaited), live: FLAGS[awaited.long ?? ''] };
  }
  const last = words.at(-1) ?? '';
  if (last.startsWith('-')) {
    return { words: command.options.flatMap((option) => (option.hidden ? [] : [option.long ?? ''])), live: undefined };
  }
  const names = taken > 0 ? [] : command.commands.map((one) => one.name()).filter((name) => !name.startsWith('_'));
  const known = command.registeredArguments;
  const lastKnown = known.at(-1);
  const argument = known[taken] ?? (lastKnown?.variadic === true ? lastKnown : undefined);
  return { words: [...names, ...(argument?.argChoices ?? [])], live: liveOf(command, argument?.name()) };
}

/** Lets the shell complete the first argument with these words. */
export function completeWith(command: Command, words: readonly string[]): void {
  const [argument] = command.registeredArguments;
  if (argument instanceof Argument) {
    argument.argChoices = [...words];
  }
}

async function liveWords({ connector, io }: App, typed: readonly string[], live: Live): Promise<string[]> {
  if (live === 'context') {
    return [...(await loadContexts(io.env)).byName.keys()];
  }
  const { pd, tls } = await targetOfWords(typed, io.env);
  const limits = { timeoutMs: LIVE_LIMIT_MS };
  const admin = await connector.admin({ pd, tls, timeoutMs: LIVE_LIMIT_MS, onTrace: undefined });
  try {
    switch (live) {
      case 'store':
        return (await admin.stores(limits)).map((store) => String(store.id));
      case 'region':
        return (await admin.regions({ ...limits, limit: REGIONS_MAX })).regions.map((region) => String(region.id));
      case 'operator':
        return (await admin.operators(limits)).map((operator) => String(operator.id));
      case 'switch':
        return (await admin.switches(limits)).map((one) => one.name);
      case 'checker':
        return (await admin.schedulers.list(limits)).filter(({ kind }) => kind === 'checker').map((one) => one.name);
      case 'parameter': {
        const name = typed[typed.indexOf('config') + 1];
        const found = (await admin.schedulers.list(limits)).find((one) => one.name === name);
        return found?.parameters.map((one) => `${one.name}=`) ?? [];
      }
    }
  } finally {
    await admin.close();
  }
}

/** The cluster that the typed command line, the environment or the current context names. */
function targetOfWords(words: readonly string[], env: App['io']['env']): Promise<Target> {
  const valueOf = (flag: string): string | undefined => {
    const at = words.indexOf(flag);
    return at >= 0 ? words[at + 1] : undefined;
  };
  const source = (flag: string, variable: string): FlagSource =>
    valueOf(flag) !== undefined ? 'flag' : env[variable] !== undefined ? 'variable' : 'default';
  const file = (name: keyof TlsFiles): Partial<TlsFiles> => {
    const path = valueOf(`--tls-${name}`) ?? env[`BRAID_TLS_${name.toUpperCase()}`];
    return path === undefined ? {} : { [name]: path };
  };
  return targetOf(
    {
      pd: valueOf('--pd') ?? env['BRAID_PD'] ?? PD_DEFAULT,
      pdSource: source('--pd', 'BRAID_PD'),
      context: valueOf('--context') ?? env['BRAID_CONTEXT'],
      contextSource: source('--context', 'BRAID_CONTEXT'),
      tls: { ...file('ca'), ...file('cert'), ...file('key') },
    },
    env,
  );
}

export function registerCompletion(program: Command, ctl: Command, app: App): void {
  addCommand<object>(ctl, app, {
    usage: 'completion <shell>',
    summary: 'Print a completion script for bash, zsh or fish',
    details: 'It completes commands, flags, values, and ids of the running cluster.',
    arguments: { shell: 'bash, zsh or fish' },
    examples: ['source <(braid ctl completion bash)', 'braid ctl completion fish | source'],
    modes: ['raw'],
    mode: 'raw',
    task: () => 'print the completion script',
    run: async (session, [shell]) => {
      const script = SCRIPTS[shell as string];
      if (script === undefined) {
        throw new UsageError(`there is no script for ${JSON.stringify(shell)}`, 'give bash, zsh or fish');
      }
      await session.io.stdout.write(script);
      return EXIT_DONE;
    },
  });
  program
    .command('__complete', { hidden: true })
    .argument('[words...]')
    .allowUnknownOption()
    .action(async (words: readonly string[]) => {
      const wanted = candidates(program, words);
      const live =
        wanted.live === undefined
          ? []
          : // Completion never complains: without an answer there is nothing to offer.
            await liveWords(app, words, wanted.live).catch(() => []);
      const last = words.at(-1) ?? '';
      const found = [...wanted.words, ...live].filter((word) => word.startsWith(last));
      await app.io.stdout.write(found.map((word) => `${word}\n`).join(''));
    });
}
