/**
 * Finds out why a connection that should speak TLS, or should not, was not made. gRPC only says that it failed, so the
 * same address is dialed once more, and what the other side answers is put into words. Changes nothing.
 */
import { isIP } from 'node:net';
import { type TLSSocket, checkServerIdentity, connect, createSecureContext } from 'node:tls';
import { TlsFailure } from '../tls-failure.ts';
import { REFUSAL_MARK, type RefusalWord } from './tls-refusal.ts';
import type { TlsCredentials } from './tls-credentials.ts';

/** Longest time for finding out; the failed call waits for it. */
const DIAGNOSIS_LIMIT_MS = 1_000;
/** Bytes of an answer that are looked at. */
const ANSWER_BYTES_MAX = 512;

/** Failures of the network itself: TLS was never reached, and nobody has to be asked again. */
const BELOW_TLS = /ECONNREFUSED|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|ENOTFOUND|EAI_AGAIN|resolution failed/i;

/** Streams that fell to INADEQUATE_SECURITY, which nothing but our refusal uses. */
const INADEQUATE_TEXT = 'Protocol not secure enough';

/** Whether the text of a failed call may hide a question of TLS. Such a call was certainly not carried out. */
export const mayBeTls = (details: string): boolean =>
  details.startsWith(INADEQUATE_TEXT) ||
  (details.startsWith('No connection established') && !BELOW_TLS.test(details.replace(/Resolution note:.*$/s, '')));

const UNKNOWN_AUTHORITY: ReadonlySet<string> = new Set([
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'CERT_SIGNATURE_FAILURE',
  'CERT_UNTRUSTED',
]);

/** Host and port of `host:port`; brackets around an IPv6 address are taken off. */
export function splitAddress(address: string): { readonly host: string; readonly port: number } {
  const colon = address.lastIndexOf(':');
  return { host: address.substring(0, colon).replace(/^\[(.*)\]$/, '$1'), port: Number(address.substring(colon + 1)) };
}

/** What is wrong with the certificate of the server. `code` is OpenSSL's word. */
function aboutServer(address: string, code: string, socket: TLSSocket): TlsFailure {
  const certificate = socket.getPeerX509Certificate();
  if (code === 'CERT_HAS_EXPIRED') {
    return new TlsFailure(
      'expired',
      `the certificate of ${address} has expired${certificate === undefined ? '' : ` at ${new Date(certificate.validTo).toISOString()}`}`,
      'renew the certificate of the server, or check the clock of this machine',
    );
  }
  if (code === 'CERT_NOT_YET_VALID') {
    return new TlsFailure(
      'not-yet-valid',
      `the certificate of ${address} is not valid yet`,
      'check the clocks of both machines',
    );
  }
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') {
    return new TlsFailure(
      'wrong-name',
      `the certificate of ${address} is made out to other names: ${certificate?.subjectAltName ?? 'none'}`,
      'dial the server by a name of its certificate, or issue it for this name or address',
    );
  }
  if (UNKNOWN_AUTHORITY.has(code)) {
    return new TlsFailure(
      'unknown-authority',
      `the certificate of ${address} is signed by another authority: ${(certificate?.issuer ?? 'unknown').replaceAll('\n', ', ')}`,
      'give --tls-ca (tls.ca) the certificate of the authority of this cluster',
    );
  }
  return new TlsFailure(
    'unknown-authority',
    `the certificate of ${address} cannot be trusted: ${code}`,
    'check the certificate of the server and --tls-ca (tls.ca)',
  );
}

const REFUSED_BECAUSE: Readonly<Record<Exclude<RefusalWord, 'certificate-required'>, string>> = {
  expired: 'it has expired',
  'not-yet-valid': 'it is not valid yet by the clock of the server',
  'unknown-authority': 'it is signed by another authority than those the server trusts',
  untrusted: 'it cannot be verified',
};

/** What the server says about the certificate of this side. */
function aboutOwn(address: string, word: RefusalWord): TlsFailure {
  return word === 'certificate-required'
    ? new TlsFailure(
        'certificate-required',
        `${address} serves only clients with a certificate, and none was given`,
        'give a certificate and its key with --tls-cert and --tls-key (tls.cert, tls.key)',
      )
    : new TlsFailure(
        'certificate-refused',
        `${address} refuses the certificate of this side: ${REFUSED_BECAUSE[word]}`,
        'give --tls-cert and --tls-key (tls.cert, tls.key) a certificate of the authority of this cluster',
      );
}

const plainServer = (address: string, cause: unknown): TlsFailure =>
  new TlsFailure(
    'server-is-plain',
    `${address} speaks plain text, not TLS`,
    'leave --tls-ca, --tls-cert and --tls-key (tls) out, or start the server with them',
    cause,
  );

const tlsServer = (address: string): TlsFailure =>
  new TlsFailure(
    'server-is-tls',
    `${address} speaks TLS, and this side was told nothing of it`,
    'give --tls-ca, --tls-cert and --tls-key (tls)',
  );

const refusalIn = (text: string): RefusalWord | undefined => {
  const at = text.indexOf(REFUSAL_MARK);
  return at < 0 ? undefined : (/^[a-z-]+/.exec(text.substring(at + REFUSAL_MARK.length))?.[0] as RefusalWord);
};

const isAlert = (code: string): boolean => /^ERR_SSL_.*ALERT/.test(code);
/** OpenSSL read something that is no record of TLS. */
const isNoTls = (code: string): boolean => /WRONG_VERSION_NUMBER|PACKET_LENGTH_TOO_LONG|HTTP_REQUEST/.test(code);

/**
 * Dials `address` as the failed connection did and says what stood in its way; undefined if that is not TLS.
 * @param tls certificates of this side; undefined if it speaks plain text
 */
export function diagnose(address: string, tls: TlsCredentials | undefined): Promise<TlsFailure | undefined> {
  const { host, port } = splitAddress(address);
  return new Promise((resolve) => {
    let answer = '';
    let socket: TLSSocket | undefined;
    const timer = setTimeout(() => done(undefined), DIAGNOSIS_LIMIT_MS);
    const done = (found: TlsFailure | undefined): void => {
      clearTimeout(timer);
      socket?.destroy();
      resolve(found);
    };
    try {
      socket = connect({
        host,
        port,
        // Only names may be announced.
        ...(isIP(host) === 0 ? { servername: host } : {}),
        checkServerIdentity: (_name, certificate) => checkServerIdentity(host, certificate),
        secureContext: tls?.context ?? createSecureContext(),
        ALPNProtocols: ['h2'],
        // The reason is wanted, not the connection; nothing is sent on it.
        rejectUnauthorized: false,
      });
    } catch {
      done(undefined);
      return;
    }
    const dialed = socket;
    dialed.once('secureConnect', () => {
      if (tls === undefined) {
        done(tlsServer(address));
      } else if (!dialed.authorized) {
        done(aboutServer(address, codeOf(dialed.authorizationError), dialed));
      }
      // Otherwise the server has the next word: its first frames, or a refusal.
    });
    dialed.on('data', (bytes: Buffer) => {
      answer += bytes.toString('latin1', 0, ANSWER_BYTES_MAX);
      const word = refusalIn(answer);
      if (word !== undefined) {
        done(aboutOwn(address, word));
      } else if (answer.length >= ANSWER_BYTES_MAX) {
        done(undefined);
      }
    });
    dialed.on('error', (error: Error) => {
      const code = codeOf(error);
      if (isNoTls(code) || isNoTls(error.message)) {
        done(tls === undefined ? undefined : plainServer(address, error));
      } else if (isAlert(code)) {
        done(tls === undefined ? tlsServer(address) : alertFailure(address, code));
      } else {
        done(undefined);
      }
    });
    dialed.once('close', () => done(undefined));
  });
}

/** Servers that are not ours refuse within the handshake. */
function alertFailure(address: string, code: string): TlsFailure | undefined {
  if (/CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE/.test(code)) {
    return aboutOwn(address, 'certificate-required');
  }
  return /UNKNOWN_CA/.test(code)
    ? aboutOwn(address, 'unknown-authority')
    : /EXPIRED/.test(code)
      ? aboutOwn(address, 'expired')
      : /CERTIFICATE/.test(code)
        ? aboutOwn(address, 'untrusted')
        : undefined;
}

/** Declared as an error, `authorizationError` is a word in truth. */
function codeOf(error: unknown): string {
  if (typeof error === 'string') {
    return error;
  }
  const { code } = (error ?? {}) as { readonly code?: unknown };
  return typeof code === 'string' ? code : '';
}
