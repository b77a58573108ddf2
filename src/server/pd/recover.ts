/** Recovery of a placement service on the directory of one member that is left, while nothing runs on it. */
import type { Env } from '../../env/env.ts';
import { type Recovery, type RecoveryOptions, recoverGroup } from '../../pd/group/recover.ts';

export type { Recovery };
export {
  RECOVERY_IDS_AHEAD_DEFAULT,
  RECOVERY_IDS_AHEAD_MAX,
  RECOVERY_IDS_AHEAD_MIN,
  RECOVERY_TIME_AHEAD_MS_DEFAULT,
  RECOVERY_TIME_AHEAD_MS_MAX,
  RECOVERY_TIME_AHEAD_MS_MIN,
} from '../../pd/group/recover.ts';

/**
 * Makes the member in `dataDir` the only one of its cluster; see `recoverGroup`.
 * @throws RecoveryRefusedError, EngineOpenError (in use, missing, damaged, of another program), RecordError
 */
export async function recoverPd(
  env: Pick<Env, 'engines' | 'clock'>,
  dataDir: string,
  options: Omit<RecoveryOptions, 'wallMs'>,
): Promise<Recovery> {
  const engine = await env.engines.open({ path: dataDir, createIfMissing: false });
  try {
    return await recoverGroup(engine, { ...options, wallMs: env.clock.wallMs() });
  } finally {
    await engine.close();
  }
}
