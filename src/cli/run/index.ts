/** Commands that run processes of a cluster. The only part of the command line that knows the server. */
import type { Command } from 'commander';
import type { App } from '../command.ts';
import { registerConfig } from './config.ts';
import { registerDev } from './dev.ts';
import { registerPd } from './pd.ts';
import { registerServer } from './server.ts';

/** Adds `dev`, `server`, `pd` and `config`. */
export function registerRunCommands(program: Command, app: App): void {
  registerDev(program, app);
  registerServer(program, app);
  registerPd(program, app);
  registerConfig(program, app);
}
