/** Runs the simulator's front end as its users do: a process of its own. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const script = fileURLToPath(new URL('../../scripts/sim.js', import.meta.url));

export interface FrontEndResult {
  readonly code: number;
  readonly output: string;
}

export function runFrontEnd(args: readonly string[], limitMs = 240_000): Promise<FrontEndResult> {
  return new Promise((resolve, reject) => {
    execFile(
      process.execPath,
      [script, ...args],
      { timeout: limitMs, maxBuffer: 64 * 1024 * 1024 },
      (error, stdout, stderr) => {
        if (error !== null && typeof error.code !== 'number') {
          reject(new Error(`the front end was ended: ${stderr}`, { cause: error }));
          return;
        }
        resolve({ code: typeof error?.code === 'number' ? error.code : 0, output: stdout + stderr });
      },
    );
  });
}
