/**
 * Certificates made on the spot: an authority, and what it signs. Keys are P-256 and live as long as the test. The
 * encoding is the DER of RFC 5280, only as much of it as TLS looks at.
 */
import { generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { join } from 'node:path';

const DAY_MS = 86_400_000;
const OID_COMMON_NAME = '2.5.4.3';
const OID_ECDSA_SHA256 = '1.2.840.10045.4.3.2';
const OID_BASIC_CONSTRAINTS = '2.5.29.19';
const OID_KEY_USAGE = '2.5.29.15';
const OID_EXTENDED_KEY_USAGE = '2.5.29.37';
const OID_SUBJECT_ALT_NAME = '2.5.29.17';
const OID_SERVER_AUTH = '1.3.6.1.5.5.7.3.1';
const OID_CLIENT_AUTH = '1.3.6.1.5.5.7.3.2';

function der(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const content = Buffer.concat(parts);
  const { length } = content;
  const head =
    length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, Math.floor(length / 0x100), length % 0x100];
  return Buffer.concat([Buffer.from([tag, ...head]), content]);
}

const sequence = (...parts: readonly Uint8Array[]): Buffer => der(0x30, ...parts);
const integer = (bytes: Uint8Array): Buffer => der(0x02, bytes);
const octets = (content: Uint8Array): Buffer => der(0x04, content);
const bits = (content: Uint8Array, unused = 0): Buffer => der(0x03, Buffer.from([unused]), content);
const TRUE: Buffer = der(0x01, Buffer.from([0xff]));

function oid(text: string): Buffer {
  const [first = 0, second = 0, ...rest] = text.split('.').map(Number);
  const bytes = [first * 40 + second];
  for (const part of rest) {
    const groups = [part % 0x80];
    for (let left = Math.floor(part / 0x80); left > 0; left = Math.floor(left / 0x80)) {
      groups.unshift((left % 0x80) + 0x80);
    }
    bytes.push(...groups);
  }
  return der(0x06, Buffer.from(bytes));
}

const nameOf = (commonName: string): Buffer =>
  sequence(der(0x31, sequence(oid(OID_COMMON_NAME), der(0x0c, Buffer.from(commonName)))));

const time = (unixMs: number): Buffer =>
  der(0x18, Buffer.from(`${new Date(unixMs).toISOString().replace(/[-:T]|\.\d+/g, '')}`));

const extension = (id: string, isCritical: boolean, value: Uint8Array): Buffer =>
  sequence(oid(id), ...(isCritical ? [TRUE] : []), octets(value));

const subjectNames = (hosts: readonly string[]): Buffer =>
  sequence(
    ...hosts.map((host) =>
      isIP(host) === 4 ? der(0x87, Buffer.from(host.split('.').map(Number))) : der(0x82, Buffer.from(host)),
    ),
  );

const pem = (label: string, bytes: Uint8Array): string =>
  `-----BEGIN ${label}-----\n${Buffer.from(bytes)
    .toString('base64')
    .replace(/(.{64})/g, '$1\n')
    .trimEnd()}\n-----END ${label}-----\n`;

interface Content {
  readonly subject: string;
  readonly issuer: string;
  readonly publicKey: KeyObject;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly extensions: readonly Buffer[];
}

function certificate(content: Content, issuerKey: KeyObject): string {
  const algorithm = sequence(oid(OID_ECDSA_SHA256));
  const serial = randomBytes(8);
  serial[0] = ((serial[0] as number) % 0x7f) + 1;
  const body = sequence(
    der(0xa0, integer(Buffer.from([2]))),
    integer(serial),
    algorithm,
    nameOf(content.issuer),
    sequence(time(content.notBeforeMs), time(content.notAfterMs)),
    nameOf(content.subject),
    content.publicKey.export({ type: 'spki', format: 'der' }),
    der(0xa3, sequence(...content.extensions)),
  );
  return pem('CERTIFICATE', sequence(body, algorithm, bits(sign('sha256', body, issuerKey))));
}

const keyPair = (): { readonly publicKey: KeyObject; readonly privateKey: KeyObject } =>
  generateKeyPairSync('ec', { namedCurve: 'P-256' });

const keyText = (key: KeyObject): string => String(key.export({ type: 'pkcs8', format: 'pem' }));

/** A certificate with its key, both PEM. */
export interface Issued {
  readonly cert: string;
  readonly key: string;
}

/** Files of one party. */
export interface CertificateFiles {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

export interface Authority {
  /** Its own certificate, PEM. */
  readonly ca: string;
  /** Signs one for `hosts` (default: this machine). Times are days from now; default: valid since yesterday. */
  issue(options?: {
    readonly name?: string;
    readonly hosts?: readonly string[];
    readonly fromDays?: number;
    readonly toDays?: number;
  }): Issued;
  /** Writes the authority's certificate and an issued pair into a directory. */
  write(directory: string, issued: Issued, prefix?: string): CertificateFiles;
}

export function createAuthority(name = 'test authority'): Authority {
  const own = keyPair();
  const nowMs = Date.now();
  const ca = certificate(
    {
      subject: name,
      issuer: name,
      publicKey: own.publicKey,
      notBeforeMs: nowMs - DAY_MS,
      notAfterMs: nowMs + 10 * DAY_MS,
      extensions: [
        extension(OID_BASIC_CONSTRAINTS, true, sequence(TRUE)),
        extension(OID_KEY_USAGE, true, bits(Buffer.from([0x06]), 1)),
      ],
    },
    own.privateKey,
  );
  return {
    ca,
    issue: (options = {}) => {
      const pair = keyPair();
      const cert = certificate(
        {
          subject: options.name ?? 'test party',
          issuer: name,
          publicKey: pair.publicKey,
          notBeforeMs: nowMs + (options.fromDays ?? -1) * DAY_MS,
          notAfterMs: nowMs + (options.toDays ?? 5) * DAY_MS,
          extensions: [
            extension(OID_KEY_USAGE, true, bits(Buffer.from([0x80]), 7)),
            extension(OID_EXTENDED_KEY_USAGE, false, sequence(oid(OID_SERVER_AUTH), oid(OID_CLIENT_AUTH))),
            extension(OID_SUBJECT_ALT_NAME, false, subjectNames(options.hosts ?? ['127.0.0.1', 'localhost'])),
          ],
        },
        own.privateKey,
      );
      return { cert, key: keyText(pair.privateKey) };
    },
    write: (directory, issued, prefix = 'party') => {
      const files: CertificateFiles = {
        ca: join(directory, `${prefix}-ca.pem`),
        cert: join(directory, `${prefix}-cert.pem`),
        key: join(directory, `${prefix}-key.pem`),
      };
      writeFileSync(files.ca, ca);
      writeFileSync(files.cert, issued.cert);
      writeFileSync(files.key, issued.key, { mode: 0o600 });
      return files;
    },
  };
}
