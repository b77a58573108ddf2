import { describe, expect, test } from 'vitest';
import { connectWith } from '../../../src/client/connect.ts';
import type { Braid } from '../../../src/client/kv.ts';
import { all, from, prefix, range } from '../../../src/client/ranges.ts';
import { FakeCluster } from './fake-cluster.ts';

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1');
const name = (i: number): string => `k${String(i).padStart(4, '0')}`;

async function open(cluster: FakeCluster): Promise<Braid> {
  return cluster.clock.drive(connectWith(cluster.env, { pd: 'pd:1' }));
}

function filled(count: number, options: ConstructorParameters<typeof FakeCluster>[0] = {}): FakeCluster {
  const cluster = new FakeCluster(options);
  for (let i = 0; i < count; i++) {
    cluster.put(name(i), `v${i}`);
  }
  return cluster;
}

const names = (count: number): string[] => Array.from({ length: count }, (_, i) => name(i));

describe('forward scans', () => {
  test('every key comes once and in order, over regions and pages', async () => {
    const cluster = filled(1000, { splits: [name(100), name(101), name(500)] });
    const db = await open(cluster);
    const entries = await cluster.clock.drive(db.scan(all(), { pageSize: 64 }).toArray());
    expect(entries.map(({ key }) => text(key))).toEqual(names(1000));
    expect(text(entries[7]?.value as Uint8Array)).toBe('v7');
  });

  test('a page that ends exactly at a region border goes on in the next region', async () => {
    const cluster = filled(20, { splits: [name(10)] });
    const db = await open(cluster);
    const entries = await cluster.clock.drive(db.scan(all(), { pageSize: 10 }).toArray());
    expect(entries.map(({ key }) => text(key))).toEqual(names(20));
  });

  test('empty regions in the middle are passed over', async () => {
    const cluster = filled(3, { splits: ['a', 'b', 'c', 'z'] });
    cluster.put('zz', 'last');
    const db = await open(cluster);
    const entries = await cluster.clock.drive(db.scan(all()).toArray());
    expect(entries.map(({ key }) => text(key))).toEqual([...names(3), 'zz']);
  });

  test('bounds are half-open', async () => {
    const cluster = filled(10, { splits: [name(5)] });
    const db = await open(cluster);
    const entries = await cluster.clock.drive(db.scan(range(name(3), name(7))).toArray());
    expect(entries.map(({ key }) => text(key))).toEqual([3, 4, 5, 6].map(name));
    const tail = await cluster.clock.drive(db.scan(from(name(8))).toArray());
    expect(tail.map(({ key }) => text(key))).toEqual([8, 9].map(name));
  });

  test('limit cuts off in the middle of a region and asks for no more than needed', async () => {
    const cluster = filled(50);
    const db = await open(cluster);
    const entries = await cluster.clock.drive(db.scan(all(), { limit: 7, pageSize: 5 }).toArray());
    expect(entries.map(({ key }) => text(key))).toEqual(names(7));
    expect(cluster.receivedKinds('RawScan')).toHaveLength(2);
    expect(await cluster.clock.drive(db.scan(all(), { limit: 0 }).toArray())).toEqual([]);
  });

  test('keysOnly leaves values out', async () => {
    const cluster = filled(2);
    const db = await open(cluster);
    const entries = await cluster.clock.drive(db.scan(all(), { keysOnly: true }).toArray());
    expect(entries.map(({ value }) => value)).toEqual([undefined, undefined]);
  });

  test('pages carry a key to resume from, and the last one none', async () => {
    const cluster = filled(25, { splits: [name(10)] });
    const db = await open(cluster);
    const run = async (): Promise<void> => {
      const seen: string[] = [];
      let resume: Uint8Array | undefined;
      let rounds = 0;
      do {
        // Each round is a scan of its own, as after a restart of the reader.
        const pages = db.scan(all(), { pageSize: 10, ...(resume === undefined ? {} : { resume }) }).pages();
        const page = await pages.next();
        await pages.return();
        expect(page.done).toBe(false);
        if (page.done !== true) {
          seen.push(...page.value.entries.map(({ key }) => text(key)));
          resume = page.value.resume;
        }
        rounds++;
      } while (resume !== undefined && rounds < 10);
      expect(seen).toEqual(names(25));
    };
    await cluster.clock.drive(run());
  });

  test('toArray refuses to cut off silently', async () => {
    const cluster = filled(11);
    const db = await open(cluster);
    await expect(cluster.clock.drive(db.scan(all()).toArray({ max: 10 }))).rejects.toMatchObject({
      code: 'InvalidArgument',
    });
    await expect(cluster.clock.drive(db.scan(all()).toArray({ max: 11 }))).resolves.toHaveLength(11);
  });

  test('heavy values make pages smaller', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    for (let i = 0; i < 40; i++) {
      cluster.put(name(i), 'x'.repeat(512 * 1024));
    }
    const sizes: number[] = [];
    const run = async (): Promise<void> => {
      for await (const page of db.scan(all(), { pageSize: 16 }).pages()) {
        sizes.push(page.entries.length);
      }
    };
    await cluster.clock.drive(run());
    expect(sizes[0]).toBe(16);
    expect(Math.max(...sizes.slice(2))).toBeLessThanOrEqual(4);
    expect(sizes.reduce((a, b) => a + b)).toBe(40);
  });

  test('a scan that is left early leaves nothing behind', async () => {
    const cluster = filled(500);
    const db = await open(cluster);
    const run = async (): Promise<string | undefined> => {
      for await (const { key } of db.scan(all(), { pageSize: 10 })) {
        return text(key);
      }
      return undefined;
    };
    expect(await cluster.clock.drive(run())).toBe(name(0));
    expect(cluster.receivedKinds('RawScan').length).toBeLessThanOrEqual(2);
    await cluster.clock.drive(db.close());
  });

  test('a scan whose cluster goes away throws instead of ending', async () => {
    const cluster = filled(500);
    const db = await open(cluster);
    let count = 0;
    const run = async (): Promise<void> => {
      for await (const entry of db.scan(all(), { pageSize: 100, timeoutMs: 500 })) {
        expect(entry.key.length).toBeGreaterThan(0);
        count++;
        if (count === 150) {
          [1, 2, 3].forEach((store) => cluster.stopStore(store));
        }
      }
    };
    await expect(cluster.clock.drive(run())).rejects.toMatchObject({ code: 'Unavailable' });
    expect(count).toBeLessThan(500);
  });
});

describe('reverse scans', () => {
  test('every key comes once, descending, over regions and pages', async () => {
    const cluster = filled(300, { splits: [name(100), name(101), name(250)] });
    const db = await open(cluster);
    const entries = await cluster.clock.drive(db.scan(all(), { reverse: true, pageSize: 30 }).toArray());
    expect(entries.map(({ key }) => text(key))).toEqual(names(300).reverse());
  });

  test('bounds are those of the range, whatever the direction', async () => {
    const cluster = filled(10, { splits: [name(5), name(7)] });
    const db = await open(cluster);
    const entries = await cluster.clock.drive(db.scan(range(name(3), name(7)), { reverse: true }).toArray());
    expect(entries.map(({ key }) => text(key))).toEqual([6, 5, 4, 3].map(name));
  });

  test('the empty key is the last one of a descending scan', async () => {
    const cluster = filled(2);
    cluster.put('', 'empty');
    const db = await open(cluster);
    const entries = await cluster.clock.drive(db.scan(all(), { reverse: true, pageSize: 1 }).toArray());
    expect(entries.map(({ key }) => text(key))).toEqual([name(1), name(0), '']);
  });

  test('a key of the greatest length and value is found from an open end', async () => {
    const cluster = new FakeCluster();
    const greatest = '\xff'.repeat(8192);
    cluster.put(greatest, 'top');
    const db = await open(cluster);
    const entries = await cluster.clock.drive(db.scan(all(), { reverse: true }).toArray());
    expect(entries.map(({ key }) => text(key))).toEqual([greatest]);
  });

  test('resume goes on below the key', async () => {
    const cluster = filled(6, { splits: [name(3)] });
    const db = await open(cluster);
    const entries = await cluster.clock.drive(db.scan(all(), { reverse: true, resume: name(3) }).toArray());
    expect(entries.map(({ key }) => text(key))).toEqual([2, 1, 0].map(name));
    expect(await cluster.clock.drive(db.scan(all(), { reverse: true, resume: '' }).toArray())).toEqual([]);
  });

  test('inside a view the prefix bounds it', async () => {
    const cluster = filled(3);
    cluster.put('a', '1');
    cluster.put('z', '1');
    const db = (await open(cluster)).sub('k');
    const entries = await cluster.clock.drive(db.scan(all(), { reverse: true }).toArray());
    expect(entries.map(({ key }) => text(key))).toEqual(['0002', '0001', '0000']);
  });

  test('a descending prefix scan starts at the end of the prefix', async () => {
    const cluster = filled(30);
    const db = await open(cluster);
    const entries = await cluster.clock.drive(db.scan(prefix('k001'), { reverse: true, limit: 2 }).toArray());
    expect(entries.map(({ key }) => text(key))).toEqual([name(19), name(18)]);
  });
});

describe('scans while regions move', () => {
  const changes: readonly [string, (cluster: FakeCluster, n: number) => void][] = [
    ['splits', (cluster, n) => cluster.split(name((n * 37) % 400))],
    ['leader changes', (cluster, n) => cluster.setLeader(name((n * 53) % 400), 1 + (n % 3))],
    [
      'splits and merges in turn',
      (cluster, n) => {
        const border = cluster.regions[1]?.region.range.start;
        if (n % 2 === 0 || border === undefined) {
          cluster.split(name((n * 61) % 400));
        } else {
          cluster.mergeAt(text(border));
        }
      },
    ],
  ];

  for (const reverse of [false, true]) {
    test.each(changes)(
      `${reverse ? 'descending' : 'ascending'}, during %s each key comes exactly once and in order`,
      async (_, change) => {
        const cluster = filled(400, { splits: [name(200)] });
        const db = await open(cluster);
        let n = 0;
        const seenBorders = new Set<string>();
        cluster.interfere = ({ kind }) => {
          if (kind === 'RawScan') {
            n++;
            const before = cluster.regions.length;
            if (n % 3 === 0 && before < 40) {
              const at = name((n * 37) % 400);
              if (!seenBorders.has(at) || before > 1) {
                seenBorders.add(at);
                change(cluster, n);
              }
            }
          }
          return 'serve';
        };
        const entries = await cluster.clock.drive(db.scan(all(), { pageSize: 7, reverse }).toArray());
        const expected = reverse ? names(400).reverse() : names(400);
        expect(entries.map(({ key }) => text(key))).toEqual(expected);
      },
    );
  }
});
