/** What followers must not do while their leader may serve reads without asking them. */
import { describe, expect, test } from 'vitest';
import { utf8 } from '../../src/base/bytes.ts';
import { expectCalm, startCluster } from './support.ts';

describe('promises to the lease of a leader', () => {
  test('votes of a child do not make followers of its parent depose their leader', async () => {
    const cluster = await startCluster();
    await cluster.mustPut('a', '1');
    await cluster.mustTransferLeader(1, 1);
    await cluster.mustPut('b', '2');
    await cluster.settle();
    const before = cluster.store(1).status()[0];
    for (const store of [2, 3]) {
      cluster.failpoints.set(`${store}!apply::before-split`, { type: 'pause' });
    }
    cluster.admin(1, { type: 'split', keys: [utf8('k')] }).catch(() => undefined);
    await cluster.until('the leader has split', () => cluster.store(1).status().length === 2);
    await cluster.advance(600);
    const after = cluster
      .store(1)
      .status()
      .find((s) => s.region.id === 1);
    expect([after?.role, after?.term]).toEqual(['leader', before?.term]);
    cluster.failpoints.clear();
    await expectCalm(cluster, { a: '1' });
  });
});
