/** Stops in the way its argument says: `bug`, `storage`, `uncaught`, `unhandled` or `failpoint`. */
import { createLevelEngineFactory } from '../../src/engine/index.ts';
import { abortOnUncaught, createPinoLogger, parseFailpoints, realEnv } from '../../src/env/real/index.ts';
import type { Net } from '../../src/env/net.ts';

const unused = (): never => {
  throw new Error('not used');
};
const net: Net = { dial: unused, listen: unused };
const [, , way, logFile] = process.argv as [string, string, string, string];
const env = realEnv({
  net,
  engines: createLevelEngineFactory(),
  log: createPinoLogger({ destination: logFile, fields: { store: 1 } }),
  failpoints: parseFailpoints('test::point=crash'),
});
abortOnUncaught(env);
env.log.info({ big: 2n ** 60n, nested: { list: [1] } }, 'started');
process.on('exit', (code) => process.stdout.write(`exit ${code}\n`));

switch (way) {
  case 'bug':
    env.abort('bug', 'two leaders', new Error('the cause'));
    break;
  case 'storage':
    env.abort('storage', 'disk');
    break;
  case 'uncaught':
    env.clock.setTimer(
      1,
      () => {
        throw new Error('nobody catches this');
      },
      'test',
    );
    break;
  case 'unhandled':
    void Promise.reject(new Error('nobody handles this'));
    break;
  default:
    env.failpoints.hit('test::point');
}
