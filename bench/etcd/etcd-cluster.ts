/** Three etcd members on loopback with their own data directories, started and stopped by the benchmark. */
import { execFileSync } from 'node:child_process';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { BenchChild, waitFor } from '../child-process.ts';
import { etcdStatus } from './etcd-target.ts';

const MEMBERS = 3;
const READY_LIMIT_MS = 30_000;
/** Enough for every run; etcd refuses writes beyond its quota of 2 GiB otherwise. */
const QUOTA_BYTES: number = 8 * 1024 ** 3;

export interface EtcdCluster {
  readonly version: string;
  readonly leaderEndpoint: string;
  stop(): Promise<void>;
}

/** The version of the etcd on the PATH; undefined when there is none. */
export function findEtcd(): string | undefined {
  try {
    return /etcd Version: (\S+)/.exec(
      execFileSync('etcd', ['--version'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }),
    )?.[1];
  } catch {
    return undefined;
  }
}

async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer());
  const ports = await Promise.all(
    servers.map(
      (server) =>
        new Promise<number>((resolve, reject) => {
          server.once('error', reject);
          server.listen(0, '127.0.0.1', () => {
            const address = server.address();
            resolve(typeof address === 'object' && address !== null ? address.port : 0);
          });
        }),
    ),
  );
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

export async function startEtcd(directory: string): Promise<EtcdCluster> {
  const ports = await freePorts(MEMBERS * 2);
  const members = Array.from({ length: MEMBERS }, (_, i) => ({
    name: `etcd${i + 1}`,
    client: `127.0.0.1:${ports[i * 2]}`,
    peer: `http://127.0.0.1:${ports[i * 2 + 1]}`,
  }));
  const initial = members.map((member) => `${member.name}=${member.peer}`).join(',');
  const children = members.map(
    (member) =>
      new BenchChild(
        member.name,
        'etcd',
        [
          ...['--name', member.name],
          ...['--data-dir', join(directory, member.name)],
          ...['--listen-client-urls', `http://${member.client}`],
          ...['--advertise-client-urls', `http://${member.client}`],
          ...['--listen-peer-urls', member.peer],
          ...['--initial-advertise-peer-urls', member.peer],
          ...['--initial-cluster', initial],
          ...['--initial-cluster-token', `bench-${ports.join('-')}`],
          ...['--quota-backend-bytes', String(QUOTA_BYTES)],
          ...['--logger', 'zap', '--log-level', 'error'],
        ],
        { ipc: false },
      ),
  );
  const stop = async (): Promise<void> => {
    await Promise.all(children.map((child) => child.stop()));
  };
  try {
    const { version, leaderEndpoint } = await waitFor('a leader of etcd', READY_LIMIT_MS, async () => {
      const dead = children.find((child) => child.isOver);
      if (dead !== undefined) {
        throw new Error(`${dead.name} has ended: ${dead.output}`);
      }
      const found = await Promise.all(
        members.map(async (member) => ({ member, status: await etcdStatus(member.client) })),
      );
      const leader = found.find(({ status }) => status.leaderId !== 0n && status.leaderId === status.memberId);
      return leader === undefined
        ? undefined
        : { version: leader.status.version, leaderEndpoint: leader.member.client };
    });
    return { version, leaderEndpoint, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}
