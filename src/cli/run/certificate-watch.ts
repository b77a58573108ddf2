/**
 * Certificates are renewed while a process runs: their files are looked at now and then, and when they have changed and
 * fit together, every new connection uses what they hold. Until they fit, and if they cannot be read, the process goes
 * on with what it has: files are often replaced one after the other.
 */
import { readFileSync } from 'node:fs';
import type { Logger } from '../../env/log.ts';
import type { GrpcNet } from '../../rpc/grpc/grpc-net.ts';
import { loadTls } from '../../rpc/grpc/tls-credentials.ts';
import type { TlsSettings } from '../../server/settings.ts';

/** Time between two looks at the files. */
export const CERTIFICATE_CHECK_MS = 5_000;

/** All three as one text, to compare; undefined while one of them cannot be read. */
function contentOf({ ca, cert, key }: TlsSettings): string | undefined {
  try {
    return [ca, cert, key].map((path) => readFileSync(path, 'latin1')).join('\n');
  } catch {
    return undefined;
  }
}

export interface CertificateWatchOptions {
  readonly tls: TlsSettings;
  readonly net: Pick<GrpcNet, 'renewTls'>;
  readonly log: Logger;
  /** Default: {@link CERTIFICATE_CHECK_MS}. */
  readonly intervalMs?: number;
}

/** Looks until the function that comes back is called. Does not keep the process alive. */
export function watchCertificates({ tls, net, log, intervalMs }: CertificateWatchOptions): () => void {
  let known = contentOf(tls);
  const look = (): void => {
    const content = contentOf(tls);
    if (content === known) {
      return;
    }
    known = content;
    if (content === undefined) {
      log.warn({ ...tls }, 'the files of the certificates cannot be read; the ones in use stay');
      return;
    }
    try {
      net.renewTls(loadTls(tls));
      log.info({ cert: tls.cert }, 'the certificates were renewed');
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause);
      log.warn({ why }, 'the files of the certificates have changed and do not fit; the ones in use stay');
    }
  };
  const timer = setInterval(look, intervalMs ?? CERTIFICATE_CHECK_MS);
  timer.unref();
  return () => clearInterval(timer);
}
