/**
 * A cluster whose every connection is encrypted: three placement members, three stores, mutual TLS. What works without
 * it works with it, and whoever lacks the right certificate is told what is wrong.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { connect, connectAdmin, prefix, TlsError } from '../../src/index.ts';
import { type Authority, type CertificateFiles, createAuthority } from '../support/certificates.ts';
import { braid, type Ended, freePort, Program, TestCluster, waitFor } from './cluster.ts';

const ours: Authority = createAuthority('braid test cluster');
const theirs: Authority = createAuthority('another cluster');
let cluster: TestCluster;
let client: CertificateFiles;

beforeAll(async () => {
  cluster = await TestCluster.start({
    pdMembers: 3,
    storeSettings: ['raftstore.split-check=500ms'],
    tls: (directory) => ours.write(directory, ours.issue({ name: 'a server' })),
  });
  client = ours.write(cluster.directory.path, ours.issue({ name: 'a client', hosts: ['nobody.example'] }), 'client');
});

afterAll(() => cluster[Symbol.asyncDispose]());

const flags = (files: Partial<CertificateFiles>): readonly string[] =>
  Object.entries(files).flatMap(([name, path]) => [`--tls-${name}`, path]);
const run = (args: readonly string[], files: Partial<CertificateFiles> = client): Promise<Ended> =>
  braid([...args, '--pd', cluster.pdAddress, ...flags(files)]);

describe('an encrypted cluster', () => {
  test('serves data, splits, moves leaders and merges', async () => {
    const db = await cluster.client();
    await using admin = await connectAdmin({ pd: cluster.pdAddress, tls: client });
    for (let i = 0; i < 40; i++) {
      await db.put(`k${String(i).padStart(2, '0')}`, new Uint8Array(4096).fill(i));
    }
    expect((await db.scan(prefix('k')).toArray({ max: 100 })).length).toBe(40);
    const { region } = await admin.region({ key: Buffer.from('k20') });
    const split = await run(['ctl', 'region', 'split', String(region.id), '--key', 'k20', '--wait']);
    expect(split.code, split.stderr).toBe(0);
    const right = await waitFor('the right half', async () => {
      const { region: found } = await admin.region({ key: Buffer.from('k20') });
      return Buffer.from(found.range.start).toString() === 'k20' ? found : undefined;
    });
    const left = (await admin.region({ key: Buffer.from('k19') })).region;
    const to = right.peers.find((peer) => peer.id !== right.leader?.id)?.storeId as number;
    const moved = await run(['ctl', 'region', 'transfer-leader', String(right.id), '--to', String(to), '--wait']);
    expect(moved.code, moved.stderr).toBe(0);
    const merged = await run(['ctl', 'region', 'merge', String(right.id), String(left.id), '--wait']);
    expect(merged.code, merged.stderr).toBe(0);
    expect(Buffer.from((await db.get('k33')) as Uint8Array)).toEqual(Buffer.alloc(4096, 33));
  });

  test('announces its members with https, and takes endpoints written so', async () => {
    const listed = await braid([
      ...['ctl', 'pd', 'member', 'list', '-o', 'json'],
      ...['--pd', cluster.pdAddress.replace(/^/, 'https://'), ...flags(client)],
    ]);
    expect(listed.code, listed.stderr).toBe(0);
    expect(listed.stdout.match(/https:\/\/127\.0\.0\.1/g)).toHaveLength(3);
    expect(listed.stdout).not.toContain('http://');
  });

  test('its processes agree on their settings, and its regions are as they should be', async () => {
    const config = await run(['ctl', 'check', 'config', '-o', 'json']);
    expect(config.code, config.stdout).toBe(0);
    expect(JSON.parse(config.stdout)).toMatchObject({ healthy: true, processes: 6, items: [] });
    await waitFor('regions without findings', async () => (await run(['ctl', 'check', 'regions'])).code === 0);
    const heat = await run(['ctl', 'heat', '-v']);
    expect(heat.stderr).toMatch(/encrypted by .*client-ca\.pem/);
    expect(heat.stdout).toContain('START');
  });

  test('a new replica is filled by a snapshot', async () => {
    const store = await cluster.addStore();
    await using admin = await connectAdmin({ pd: cluster.pdAddress, tls: client });
    const { region } = await admin.region({ key: Buffer.from('k20') });
    const from = region.peers.find((peer) => peer.id !== region.leader?.id)?.storeId as number;
    const ids = [String(from), String(store.id)] as const;
    const moved = await run(['ctl', 'region', 'move', String(region.id), '--from', ids[0], '--to', ids[1], '--wait']);
    expect(moved.code, moved.stderr).toBe(0);
    expect((await admin.region(region.id)).region.peers.map((peer) => peer.storeId)).toContain(store.id);
  });

  test.each([
    ['without certificates', () => ({}), 'Tls: server-is-tls', /--tls-ca/],
    ['without a certificate of its own', () => ({ ca: client.ca }), 'Tls: certificate-required', /--tls-cert/],
    [
      'with a certificate of another authority',
      () => ({ ...theirs.write(cluster.directory.path, theirs.issue(), 'stranger'), ca: client.ca }),
      'Tls: certificate-refused',
      /certificate of the authority of this cluster/,
    ],
    [
      'with another authority',
      () => ({ ...client, ca: theirs.write(cluster.directory.path, theirs.issue(), 'stranger').ca }),
      'Tls: unknown-authority',
      /--tls-ca/,
    ],
    ['with a missing file', () => ({ ...client, key: '/nowhere/key.pem' }), 'Tls: file-missing', /--tls-key/],
    ['with the key of another', () => ({ ...client, key: cluster.tls?.key ?? '' }), 'Tls: key-mismatch', /--tls-key/],
  ] as const)('a client %s is refused in three lines, at once', async (_, files, code, next) => {
    const startMs = performance.now();
    const refused = await run(['get', 'k20'], files());
    expect(performance.now() - startMs).toBeLessThan(8_000);
    expect(refused.code).toBe(1);
    expect(refused.stdout).toBe('');
    const match = /^error: cannot (.*)\nwhy: {3}(.*)\nnext: {2}(.*)\n$/.exec(refused.stderr);
    expect(match?.[2], refused.stderr).toContain(code);
    expect(match?.[3]).toMatch(next);
  });

  test('the SDK throws TlsError with the same word', async () => {
    const refused = await connect({ pd: cluster.pdAddress, tls: { ca: Buffer.from(ours.ca) } }).catch(
      (error: unknown) => error,
    );
    expect(refused).toBeInstanceOf(TlsError);
    expect(refused).toMatchObject({ code: 'Tls', reason: 'certificate-required', retryable: false });
  });

  test('renewed files are used by running processes without a restart', async () => {
    const { ca: oldCa } = ours;
    const later = createAuthority('the next authority');
    const files = cluster.tls as CertificateFiles;
    // First everybody trusts both, then everybody shows the new one.
    writeFileSync(files.ca, `${oldCa}${later.ca}`);
    const renewals = (): number =>
      readdirSync(cluster.directory.join('log')).filter((name) =>
        readFileSync(cluster.directory.join('log', name), 'utf8').includes('the certificates were renewed'),
      ).length;
    const processes = cluster.stores.length + 3;
    await waitFor('every process to trust both authorities', () => renewals() === processes);
    const next = later.issue({ name: 'a renewed server' });
    writeFileSync(files.key, next.key);
    writeFileSync(files.cert, next.cert);
    const newcomer = later.write(cluster.directory.path, later.issue({ name: 'a newcomer' }), 'newcomer');
    await waitFor('a newcomer to be served by renewed servers', async () => {
      const { code, stderr } = await run(['ctl', 'check', 'config'], newcomer);
      return code === 0 ? true : Promise.reject(new Error(stderr));
    });
  });

  test('a store of another cluster does not start', async () => {
    const files = theirs.write(cluster.directory.path, theirs.issue(), 'stranger');
    const store = new Program([
      ...['server', '--pd', cluster.pdAddress, '--data-dir', cluster.directory.join('stranger')],
      ...['--addr', `127.0.0.1:${await freePort()}`, '--status-addr', '', ...flags(files)],
      ...['--log-file', cluster.directory.join('stranger.log')],
    ]);
    const { code, stderr } = await store.ended;
    expect(code).toBe(1);
    expect(stderr).toMatch(/^error: cannot run the store\nwhy: {3}.*\(Tls: unknown-authority\)\nnext: {2}.*\n$/);
  });
});
