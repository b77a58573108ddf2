import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { CERTIFICATE_CHECK_MS, watchCertificates } from '../../../src/cli/run/certificate-watch.ts';
import type { Logger } from '../../../src/env/log.ts';
import type { TlsCredentials } from '../../../src/rpc/grpc/tls-credentials.ts';
import { type CertificateFiles, createAuthority } from '../../support/certificates.ts';

const authority = createAuthority();
let directory: string;
let files: CertificateFiles;
let renewed: TlsCredentials[];
let lines: string[];
let stop: () => void;

const note =
  (level: string) =>
  (_fields: object, text: string): void =>
    void lines.push(`${level}: ${text}`);
const log: Logger = {
  debugEnabled: true,
  debug: note('debug'),
  info: note('info'),
  warn: note('warn'),
  error: note('error'),
  child: () => log,
};

beforeEach(() => {
  vi.useFakeTimers();
  directory = mkdtempSync(join(tmpdir(), 'braid-renew-'));
  files = authority.write(directory, authority.issue());
  renewed = [];
  lines = [];
  stop = watchCertificates({ tls: files, net: { renewTls: (tls) => void renewed.push(tls) }, log });
});

afterEach(() => {
  stop();
  vi.useRealTimers();
  rmSync(directory, { recursive: true, force: true });
});

const look = (): void => {
  vi.advanceTimersByTime(CERTIFICATE_CHECK_MS);
};

describe('certificates of a running process', () => {
  test('are renewed when their files have changed and fit together, once', () => {
    look();
    expect([renewed, lines]).toEqual([[], []]);
    const next = authority.issue();
    authority.write(directory, next);
    look();
    look();
    expect(renewed.map((tls) => tls.own?.cert.toString())).toEqual([next.cert]);
    expect(lines).toEqual(['info: the certificates were renewed']);
  });

  test('stay in use while the new files do not fit, and are renewed as soon as they do', () => {
    const next = authority.issue();
    writeFileSync(files.cert, next.cert);
    look();
    look();
    expect(renewed).toEqual([]);
    expect(lines).toEqual([expect.stringContaining('warn: the files of the certificates have changed and do not fit')]);
    writeFileSync(files.key, next.key);
    look();
    expect(renewed).toHaveLength(1);
  });

  test('stay in use while a file is missing', () => {
    rmSync(files.ca);
    look();
    look();
    expect(lines).toEqual([expect.stringContaining('warn: the files of the certificates cannot be read')]);
    writeFileSync(files.ca, authority.ca);
    look();
    expect(renewed).toHaveLength(1);
    stop();
    authority.write(directory, authority.issue());
    look();
    expect(renewed).toHaveLength(1);
  });
});
