/** Public face of the real Env. */
export { createPinoLogger, LOG_LEVELS, type LogLevel, type RealLogger, type RealLoggerOptions } from './pino-logger.ts';
export { realClock } from './real-clock.ts';
export { abortOnUncaught, realEnv, type RealEnvOptions } from './real-env.ts';
export { createFailpoints, FailpointSyntaxError, parseFailpoints, type FailpointRule } from './real-failpoints.ts';
export { randomSeed, realRng } from './real-rng.ts';
