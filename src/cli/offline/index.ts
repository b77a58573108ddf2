/** Commands that work on the directory of a process that does not run. They read records with the store's own decoders. */
import type { Command } from 'commander';
import type { App } from '../command.ts';
import { dumpCommand } from './dump.ts';
import { inspectCommand } from './inspect.ts';
import { unsafeRecoverCommand } from './unsafe-recover.ts';
import { verifyCommand } from './verify.ts';

/** Adds `offline` with its commands. */
export function registerOfflineCommands(program: Command, app: App): void {
  const offline = program
    .command('offline')
    .summary('Look into the data directory of a stopped store, verify, dump or recover it')
    .description('Works on directories of processes that do not run. The cluster is not asked and need not run.');
  inspectCommand(offline, app);
  verifyCommand(offline, app);
  dumpCommand(offline, app);
  unsafeRecoverCommand(offline, app);
}
