/** A running etcd cluster as a benchmark target. Calls go to the leader, which is the fastest way for puts and reads. */
import type { BenchTarget } from '../../src/cli/bench/workload.ts';
import { GrpcSession } from './grpc-session.ts';
import { type StatusReply, putRequest, rangeRequest, readRangeReply, readStatusReply } from './messages.ts';

const PUT = '/etcdserverpb.KV/Put';
const RANGE = '/etcdserverpb.KV/Range';
const STATUS = '/etcdserverpb.Maintenance/Status';

/** Of one member; rejects while it does not answer. */
export async function etcdStatus(endpoint: string): Promise<StatusReply> {
  const session = new GrpcSession(endpoint, 1);
  try {
    return readStatusReply(await session.call(STATUS, new Uint8Array(0)));
  } finally {
    await session.close();
  }
}

export class EtcdTarget implements BenchTarget {
  readonly name = 'etcd';
  readonly #session: GrpcSession;

  constructor(leaderEndpoint: string, connections: number) {
    this.#session = new GrpcSession(leaderEndpoint, connections);
  }

  async put(key: Uint8Array, value: Uint8Array): Promise<void> {
    await this.#session.call(PUT, putRequest(key, value));
  }

  async get(key: Uint8Array): Promise<Uint8Array | undefined> {
    return readRangeReply(await this.#session.call(RANGE, rangeRequest(key, undefined, 0))).value;
  }

  async scan(start: Uint8Array, end: Uint8Array, limit: number): Promise<number> {
    return readRangeReply(await this.#session.call(RANGE, rangeRequest(start, end, limit))).count;
  }

  close(): Promise<void> {
    return this.#session.close();
  }
}
