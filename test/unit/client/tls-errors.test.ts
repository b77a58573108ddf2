import { describe, expect, test } from 'vitest';
import { connectWith } from '../../../src/client/connect.ts';
import { TlsError } from '../../../src/client/errors.ts';
import type { ClientEnv } from '../../../src/client/store-conn.ts';
import { type Channel, RpcError, RpcStatus } from '../../../src/env/net.ts';
import { TlsFailure } from '../../../src/rpc/tls-failure.ts';
import { FakeCluster } from './fake-cluster.ts';

/** The network of a cluster where TLS fails at some addresses. */
function envWhereTlsFails(cluster: FakeCluster, failsAt: (address: string) => boolean): ClientEnv {
  const failing = (address: string): Channel => ({
    address,
    unary: () => {
      const cause = new TlsFailure('expired', `the certificate of ${address} has expired`, 'renew it');
      return Promise.reject(new RpcError(RpcStatus.UNAVAILABLE, cause.message, { sent: false, cause }));
    },
    stream: () => {
      throw new Error('no stream is opened before a probe');
    },
    close: () => undefined,
  });
  const { net } = cluster;
  return {
    ...cluster.env,
    net: {
      dial: (address) => (failsAt(address) ? failing(address) : net.dial(address)),
      listen: () => net.listen(),
    },
  };
}

describe('TlsError', () => {
  test('ends connect at once when every endpoint fails by TLS, not when one answers', async () => {
    const cluster = new FakeCluster();
    cluster.servePd('pd:2');
    const startMs = cluster.clock.monoMs();
    const all = connectWith(
      envWhereTlsFails(cluster, () => true),
      { pd: ['pd:1', 'pd:2'] },
    );
    const error: unknown = await cluster.clock.drive(all).catch((cause: unknown) => cause);
    expect(error).toBeInstanceOf(TlsError);
    expect(error).toMatchObject({ code: 'Tls', reason: 'expired', retryable: false, hint: 'renew it' });
    expect(cluster.clock.monoMs() - startMs).toBeLessThan(1000);
    const one = connectWith(
      envWhereTlsFails(cluster, (address) => address === 'pd:2'),
      { pd: ['pd:1', 'pd:2'] },
    );
    await expect(cluster.clock.drive(one)).resolves.toBeDefined();
  });

  test('ends a call at once when every store of its region fails by TLS, and nothing was applied', async () => {
    const cluster = new FakeCluster();
    const stores = new Set([1, 2, 3].map((id) => cluster.addressOf(id)));
    const db = await cluster.clock.drive(
      connectWith(
        envWhereTlsFails(cluster, (address) => stores.has(address)),
        { pd: 'pd:1' },
      ),
    );
    const startMs = cluster.clock.monoMs();
    const error: unknown = await cluster.clock.drive(db.put('k', 'v')).catch((cause: unknown) => cause);
    expect(error).toBeInstanceOf(TlsError);
    expect(error).toMatchObject({ reason: 'expired', outcome: 'not-applied' });
    expect(cluster.clock.monoMs() - startMs).toBeLessThan(1000);
  });

  test('at one store of three is survived', async () => {
    const cluster = new FakeCluster();
    const first = cluster.addressOf(1);
    const db = await cluster.clock.drive(
      connectWith(
        envWhereTlsFails(cluster, (address) => address === first),
        { pd: 'pd:1' },
      ),
    );
    cluster.setLeader('k', 2);
    await cluster.clock.drive(db.put('k', 'v'));
    expect(cluster.get('k')).toBe('v');
  });
});
