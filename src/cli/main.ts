#!/usr/bin/env node
/** The program `braid`. */
import { processIo } from './io.ts';
import { runCli } from './program.ts';
import { registerOfflineCommands } from './offline/index.ts';
import { registerRunCommands } from './run/index.ts';
import { REAL_CONNECTOR } from './session.ts';

// Not process.exit: output still under way must arrive. Handles left open keep a server running and nothing else.
process.exitCode = await runCli(process.argv.slice(2), processIo(), REAL_CONNECTOR, [
  registerRunCommands,
  registerOfflineCommands,
]);
