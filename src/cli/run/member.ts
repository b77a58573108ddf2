/** One process of a local cluster: started as a child of this program, watched, stopped. */
import { type ChildProcess, spawn } from 'node:child_process';
import { isReadyMessage, type ReadyMessage, type StopMessage } from './control.ts';
import { storeEnvironment } from './real-process.ts';

export interface MemberExit {
  readonly code: number | undefined;
  readonly signal: string | undefined;
}

export interface MemberOptions {
  /** For messages, e.g. `store 2`. */
  readonly name: string;
  /** Command and flags behind the program's name. */
  readonly args: readonly string[];
  /** A line the child wrote to stderr (its log goes elsewhere). */
  readonly onErrorLine: (line: string) => void;
}

/** Lines kept to explain a failed start. */
const ERROR_LINES_MAX = 20;

export class Member {
  readonly name: string;
  readonly #child: ChildProcess;
  readonly #ready: Promise<ReadyMessage | MemberExit>;
  readonly #exited: Promise<MemberExit>;
  readonly #errorLines: string[] = [];
  #exit: MemberExit | undefined;

  constructor(options: MemberOptions) {
    this.name = options.name;
    this.#child = spawn(process.execPath, [...process.execArgv, process.argv[1] as string, ...options.args], {
      env: memberEnvironment(),
      // Its own process group: Ctrl-C must not reach it, this process stops it in order.
      detached: true,
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    let announce: (message: ReadyMessage) => void = () => undefined;
    const announced = new Promise<ReadyMessage>((resolve) => {
      announce = resolve;
    });
    this.#child.on('message', (message) => {
      if (isReadyMessage(message)) {
        announce(message);
      }
    });
    this.#exited = new Promise((resolve) => {
      const onExit = (exit: MemberExit): void => {
        this.#exit ??= exit;
        resolve(this.#exit);
      };
      this.#child.once('error', (error) => {
        this.#errorLines.push(error.message);
        onExit({ code: undefined, signal: undefined });
      });
      this.#child.once('close', (code, signal) => onExit({ code: code ?? undefined, signal: signal ?? undefined }));
    });
    this.#ready = Promise.race([announced, this.#exited]);
    let rest = '';
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      const lines = `${rest}${text}`.split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) {
        this.#errorLines.push(line);
        if (this.#errorLines.length > ERROR_LINES_MAX) {
          this.#errorLines.shift();
        }
        options.onErrorLine(line);
      }
    });
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Undefined while it runs. */
  get exit(): MemberExit | undefined {
    return this.#exit;
  }

  /** The latest lines of its stderr. */
  get errorLines(): readonly string[] {
    return this.#errorLines;
  }

  /** Resolves with what it announced, or with how it ended instead. */
  ready(): Promise<ReadyMessage | MemberExit> {
    return this.#ready;
  }

  exited(): Promise<MemberExit> {
    return this.#exited;
  }

  /** Asks it to stop; kills it if that takes longer than `limitMs`. */
  async stop(options: { readonly graceful: boolean; readonly limitMs: number }): Promise<void> {
    if (this.#exit !== undefined) {
      return;
    }
    const message: StopMessage = { type: 'stop', graceful: options.graceful };
    if (this.#child.connected) {
      // A child that has just gone is what was asked for.
      this.#child.send(message, () => undefined);
    }
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), options.limitMs);
    await this.#exited;
    clearTimeout(timer);
  }
}

/** Flags say everything; variables of the parent's own flags must not reach its children. */
function memberEnvironment(): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(([name]) => !/^BRAID_(?!FAILPOINTS$)[A-Z]/.test(name));
  return storeEnvironment(Object.fromEntries(kept));
}
