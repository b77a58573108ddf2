/** `braid config`: the settings of `braid server` and `braid pd`. */
import type { Command } from 'commander';
import { loadPdConfig, loadStoreConfig } from '../../server/config.ts';
import { configSample } from '../../server/config-sample.ts';
import type { App } from '../command.ts';
import { choice } from '../common-options.ts';
import { EXIT_DONE } from '../exit-code.ts';
import { addExamples, runReported } from './frame.ts';
import { credentialsOf } from './real-process.ts';

const ROLES = ['store', 'pd'] as const;
type RoleName = (typeof ROLES)[number];

export function registerConfig(program: Command, app: App): void {
  const config = program
    .command('config')
    .summary('Print or check configuration files')
    .description('Print or check configuration files.');
  const sample = config
    .command('default')
    .argument('<role>', `whose settings: ${ROLES.join(' or ')}`, choice(ROLES))
    .summary('Print every setting with its meaning and default')
    .description('Print every setting with its meaning and default, as a file that can be used.');
  addExamples(sample, ['braid config default store > store.toml', 'braid config default pd']);
  sample.action(async (role: RoleName) => {
    app.exitCode = await runReported(app, 'print the settings', async () => {
      await app.io.stdout.write(configSample(role));
      return EXIT_DONE;
    });
  });
  const check = config
    .command('check')
    .argument('<role>', `for which command: ${ROLES.join(' or ')}`, choice(ROLES))
    .argument('<file>', 'configuration file')
    .summary('Check a configuration file')
    .description('Check a configuration file together with the environment, certificates included. Starts nothing.');
  addExamples(check, ['braid config check store store.toml', 'braid config check pd pd.toml']);
  check.action(async (role: RoleName, file: string) => {
    app.exitCode = await runReported(app, `use ${file}`, async () => {
      const { config: checked, origins } = (role === 'store' ? loadStoreConfig : loadPdConfig)({
        file,
        env: app.io.env,
      });
      credentialsOf(checked.tls);
      const changed = [...origins].filter(([, origin]) => origin !== 'default').map(([name]) => name);
      await app.io.stdout.write(`${file} is fine; it sets ${changed.length === 0 ? 'nothing' : changed.join(', ')}\n`);
      return EXIT_DONE;
    });
  });
}
