/**
 * The certificates of one process: read from files, checked against each other before anything is dialed or served, and
 * then owned by its network. Nobody else in the process looks at them.
 */
import { type KeyObject, X509Certificate, createPrivateKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { type SecureContext, createSecureContext } from 'node:tls';
import { TlsFailure } from '../tls-failure.ts';

/** Where certificates come from: each a path of a PEM file, or its content. */
export interface TlsSources {
  /** Certificates of the authorities that may have signed those of the others. */
  readonly ca: string | Uint8Array;
  /** Certificate of this process, with those between it and the authority, if there are any. */
  readonly cert?: string | Uint8Array;
  /** Private key of `cert`. */
  readonly key?: string | Uint8Array;
}

/** Checked and ready to use. */
export interface TlsCredentials {
  readonly ca: Buffer;
  /** Undefined for a client that has no certificate. */
  readonly own: { readonly cert: Buffer; readonly key: Buffer } | undefined;
  readonly context: SecureContext;
}

type Part = 'ca' | 'cert' | 'key';

const WORDS: Readonly<Record<Part, string>> = {
  ca: 'certificate of the authority',
  cert: 'certificate',
  key: 'private key',
};
const flagOf = (part: Part): string => `--tls-${part} (tls.${part})`;

interface Loaded {
  readonly bytes: Buffer;
  /** For messages. */
  readonly where: string;
}

function load(part: Part, source: string | Uint8Array): Loaded {
  if (typeof source !== 'string') {
    return { bytes: Buffer.from(source), where: `the given ${WORDS[part]}` };
  }
  try {
    return { bytes: readFileSync(source), where: source };
  } catch (cause) {
    const { code } = cause as { readonly code?: unknown };
    const why = code === 'ENOENT' ? 'does not exist' : `cannot be read (${String(code)})`;
    throw new TlsFailure(
      'file-missing',
      `the file of the ${WORDS[part]}, ${source}, ${why}`,
      `name a file that can be read with ${flagOf(part)}`,
      cause,
    );
  }
}

function readCertificates(part: 'ca' | 'cert', { bytes, where }: Loaded): readonly X509Certificate[] {
  const blocks = bytes.toString('latin1').match(/-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g) ?? [];
  try {
    if (blocks.length === 0) {
      throw new Error('no block "BEGIN CERTIFICATE" in it');
    }
    return blocks.map((block) => new X509Certificate(block));
  } catch (cause) {
    throw new TlsFailure(
      'not-a-certificate',
      `${where} holds no certificate: ${cause instanceof Error ? cause.message : String(cause)}`,
      `give ${flagOf(part)} a certificate in PEM form`,
      cause,
    );
  }
}

function readKey({ bytes, where }: Loaded): KeyObject {
  try {
    return createPrivateKey(bytes);
  } catch (cause) {
    throw new TlsFailure(
      'not-a-key',
      `${where} holds no private key that can be read without a password`,
      `give ${flagOf('key')} the key of the certificate in PEM form`,
      cause,
    );
  }
}

function requireInTime(certificate: X509Certificate, where: string, nowMs: number): void {
  const fromMs = Date.parse(certificate.validFrom);
  const toMs = Date.parse(certificate.validTo);
  if (nowMs > toMs) {
    throw new TlsFailure(
      'own-expired',
      `the certificate in ${where} has expired at ${new Date(toMs).toISOString()}`,
      'renew the certificate',
    );
  }
  if (nowMs < fromMs) {
    throw new TlsFailure(
      'own-not-yet-valid',
      `the certificate in ${where} is valid from ${new Date(fromMs).toISOString()} on`,
      'check the clock of this machine, or wait',
    );
  }
}

/**
 * Reads and checks. Files are read once: a renewed certificate is used after the next start.
 * @throws TlsFailure that names the file and the flag
 */
export function loadTls(sources: TlsSources, nowMs: number = Date.now()): TlsCredentials {
  const ca = load('ca', sources.ca);
  readCertificates('ca', ca);
  if (sources.cert === undefined && sources.key === undefined) {
    return { ca: ca.bytes, own: undefined, context: createSecureContext({ ca: ca.bytes }) };
  }
  if (sources.cert === undefined || sources.key === undefined) {
    const [given, missing]: [Part, Part] = sources.key === undefined ? ['cert', 'key'] : ['key', 'cert'];
    throw new TlsFailure(
      'incomplete',
      `there is a ${WORDS[given]}, but no ${WORDS[missing]}`,
      `give ${flagOf(missing)}, too: a certificate and its key belong together`,
    );
  }
  const cert = load('cert', sources.cert);
  const key = load('key', sources.key);
  const [own] = readCertificates('cert', cert) as readonly [X509Certificate, ...X509Certificate[]];
  if (!own.checkPrivateKey(readKey(key))) {
    throw new TlsFailure(
      'key-mismatch',
      `the private key in ${key.where} does not belong to the certificate in ${cert.where}`,
      `give ${flagOf('key')} the key that the certificate was made for`,
    );
  }
  requireInTime(own, cert.where, nowMs);
  return {
    ca: ca.bytes,
    own: { cert: cert.bytes, key: key.bytes },
    context: createSecureContext({ ca: ca.bytes, cert: cert.bytes, key: key.bytes }),
  };
}
