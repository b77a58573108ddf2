import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { utf8 } from '../../../src/base/bytes.ts';
import { peerId, regionId, storeId } from '../../../src/base/ids.ts';
import { NO_FAILPOINTS } from '../../../src/env/failpoints.ts';
import type { PeerMessage } from '../../../src/codec/peer-message.ts';
import { encodeDataValue } from '../../../src/codec/data-value.ts';
import { encodeSnapshotDescriptor } from '../../../src/codec/snapshot-record.ts';
import { createMemoryEngineFactory, MemoryDisk } from '../../../src/engine/index.ts';
import { dataKey } from '../../../src/engine/keyspace.ts';
import type { Engine } from '../../../src/env/engine.ts';
import { SILENT_LOGGER } from '../../../src/env/log.ts';
import { type Listener, RpcStatus } from '../../../src/env/net.ts';
import { realClock } from '../../../src/env/real/index.ts';
import { createRng } from '../../../src/env/rng.ts';
import type { Region } from '../../../src/meta/region.ts';
import { newMessage } from '../../../src/raft/message.ts';
import { EntryType, MsgType } from '../../../src/raft/types.ts';
import { DEFAULT_RAFTSTORE_CONFIG } from '../../../src/raftstore/config.ts';
import type { SnapshotSource } from '../../../src/raftstore/context.ts';
import type { StagedSnapshot } from '../../../src/raftstore/msg.ts';
import { SnapshotInbox, type SnapshotReceiver } from '../../../src/raftstore/snapshot/receive.ts';
import { openStream } from '../../../src/rpc/call.ts';
import { type GrpcNet, createGrpcNet } from '../../../src/rpc/grpc/grpc-net.ts';
import { ServiceBuilder } from '../../../src/rpc/service-builder.ts';
import { peerMethods } from '../../../src/rpc/services.ts';
import { callMetadata } from '../../../src/server/transport/identity.ts';
import { QUEUE_MESSAGES_MAX } from '../../../src/server/transport/link.ts';
import { addPeerService, type PeerTarget, StoreTransport } from '../../../src/server/transport/store-transport.ts';

const CLUSTER = '77';
const clock = realClock();
const WAIT = { timeout: 5_000, interval: 2 };

const REGION: Region = {
  id: regionId(7),
  range: { start: utf8('a'), end: utf8('z') },
  epoch: { confVer: 2, version: 1 },
  peers: [
    { id: peerId(11), storeId: storeId(1), role: 'voter' },
    { id: peerId(12), storeId: storeId(2), role: 'voter' },
  ],
};
const [FROM, TO] = REGION.peers as [Region['peers'][number], Region['peers'][number]];

const heartbeat = (commit: number, to = TO): PeerMessage => ({
  regionId: REGION.id,
  from: FROM,
  to,
  epoch: REGION.epoch,
  range: undefined,
  body: { type: 'raft', message: Object.assign(newMessage(MsgType.Heartbeat, to.id, FROM.id, 5), { commit }) },
});

const commitOf = (message: PeerMessage): number => (message.body.type === 'raft' ? message.body.message.commit : -1);

/** Store 2: takes messages and snapshots in. */
class Receiver implements PeerTarget {
  readonly received: PeerMessage[] = [];
  readonly snapshots: StagedSnapshot[] = [];
  readonly inbox: SnapshotInbox;
  readonly discarded: number[] = [];
  refusal: string | undefined;

  constructor(engine: Engine) {
    this.inbox = new SnapshotInbox(
      {
        config: DEFAULT_RAFTSTORE_CONFIG,
        engine,
        failpoints: NO_FAILPOINTS,
        write: (batch, done) => void engine.write(batch).then(done),
      },
      (stagingId) => this.discarded.push(stagingId),
    );
    this.inbox.open(1);
  }

  receive(message: PeerMessage): void {
    this.received.push(message);
  }

  receiveSnapshot(message: PeerMessage): SnapshotReceiver {
    const verdict = this.inbox.begin(message);
    if (this.refusal !== undefined || verdict.type === 'refused') {
      throw new Error(this.refusal ?? (verdict.type === 'refused' ? verdict.reason : ''));
    }
    return verdict.receiver;
  }

  snapshotReceived(_message: PeerMessage, staged: StagedSnapshot): void {
    this.snapshots.push(staged);
  }
}

let senderNet: GrpcNet;
let receiverNet: GrpcNet;
let engine: Engine;
let receiver: Receiver;
let listener: Listener | undefined;
let addresses: Map<number, string>;
let transport: StoreTransport;
let unreachable: number[];
let resolved: number;

async function listen(address = '127.0.0.1:0'): Promise<void> {
  const services = new ServiceBuilder();
  addPeerService(services, {
    env: { clock, log: SILENT_LOGGER },
    self: { clusterId: CLUSTER, storeId: 2 },
    target: receiver,
  });
  listener = await receiverNet.listen(address, services.build());
  addresses.set(2, listener.address);
}

beforeEach(async () => {
  senderNet = createGrpcNet();
  receiverNet = createGrpcNet();
  const disk = new MemoryDisk(createRng(1), { readDelayMs: [0, 0], writeDelayMs: [0, 0] });
  engine = await createMemoryEngineFactory(disk, clock).open({ path: 'db', createIfMissing: true });
  receiver = new Receiver(engine);
  addresses = new Map();
  unreachable = [];
  resolved = 0;
  transport = new StoreTransport({
    env: { net: senderNet, clock, rng: createRng(3), log: SILENT_LOGGER },
    self: { clusterId: CLUSTER, storeId: 1 },
    engine,
    resolve: async (id) => {
      resolved++;
      const address = addresses.get(id);
      if (address === undefined) {
        throw new Error(`no store ${id}`);
      }
      return address;
    },
    snapshotSendsMax: 2,
    snapshotChunkBytes: 64,
  });
  transport.onUnreachable = (id) => unreachable.push(id);
  await listen();
});

afterEach(async () => {
  await transport.close();
  await senderNet.close(0);
  await receiverNet.close(0);
  await engine.close();
});

describe('messages', () => {
  test('everything of a round arrives in order as one frame', async () => {
    for (let i = 0; i < 100; i++) {
      transport.send(heartbeat(i));
    }
    expect(transport.stats().sentFrames).toBe(0);
    transport.flush();
    await vi.waitFor(() => expect(receiver.received).toHaveLength(100), WAIT);
    expect(receiver.received.map(commitOf)).toEqual(Array.from({ length: 100 }, (_, i) => i));
    expect(transport.stats()).toMatchObject({ sentMessages: 100, sentFrames: 1, droppedMessages: 0, openLinks: 1 });
    transport.send(heartbeat(100));
    transport.flush();
    await vi.waitFor(() => expect(receiver.received).toHaveLength(101), WAIT);
    // The address is asked for once per connection.
    expect(resolved).toBe(1);
  });

  test('large appends are cut into several frames', async () => {
    const data = new Uint8Array(600 * 1024).fill(7);
    for (let index = 1; index <= 4; index++) {
      const message = Object.assign(newMessage(MsgType.App, TO.id, FROM.id, 5), {
        entries: [{ type: EntryType.Normal, term: 5, index, data }],
      });
      transport.send({ ...heartbeat(0), body: { type: 'raft', message } });
    }
    transport.flush();
    await vi.waitFor(() => expect(receiver.received).toHaveLength(4), WAIT);
    expect(transport.stats().sentFrames).toBe(2);
  });

  test('a queue takes no more than its limit', () => {
    for (let i = 0; i < QUEUE_MESSAGES_MAX + 10; i++) {
      transport.send(heartbeat(i));
    }
    expect(transport.stats().droppedMessages).toBe(10);
  });

  test('a broken connection is reported, looked up again and made again', async () => {
    transport.send(heartbeat(1));
    transport.flush();
    await vi.waitFor(() => expect(receiver.received).toHaveLength(1), WAIT);
    await listener?.close(0);
    await vi.waitFor(() => expect(unreachable).toEqual([2]), WAIT);
    // The store comes back under another address.
    await listen();
    await vi.waitFor(() => {
      transport.send(heartbeat(2));
      transport.flush();
      expect(receiver.received.length).toBeGreaterThan(1);
    }, WAIT);
    expect(resolved).toBeGreaterThan(1);
    expect(transport.stats().connects).toBeGreaterThan(1);
  });

  test('an unknown store is unreachable', async () => {
    transport.send(heartbeat(1, { ...TO, storeId: storeId(9) }));
    transport.flush();
    await vi.waitFor(() => expect(unreachable).toEqual([9]), WAIT);
    expect(transport.stats().droppedMessages).toBe(1);
  });

  test('a store at the address of another one refuses the stream', async () => {
    addresses.set(3, addresses.get(2) ?? '');
    transport.send(heartbeat(1, { ...TO, storeId: storeId(3) }));
    transport.flush();
    await vi.waitFor(() => expect(unreachable).toEqual([3]), WAIT);
    expect(receiver.received).toEqual([]);
  });

  test('a stream of another cluster is refused', async () => {
    const channel = senderNet.dial(addresses.get(2) ?? '');
    const stream = openStream(channel, peerMethods.raftStream, {
      metadata: callMetadata({ clusterId: '78', storeId: 1 }, 2),
    });
    const end = await new Promise<number>((resolve) => {
      stream.onEnd = ({ status }) => resolve(status);
      stream.send([heartbeat(1)]);
    });
    expect(end).toBe(RpcStatus.FAILED_PRECONDITION);
    expect(receiver.received).toEqual([]);
  });
});

describe('snapshots', () => {
  async function source(
    keys: number,
  ): Promise<{ source: SnapshotSource; message: PeerMessage; isClosed: () => boolean }> {
    const batch = engine.createBatch();
    for (let i = 0; i < keys; i++) {
      batch.put(dataKey(utf8(`k${String(i).padStart(4, '0')}`)), encodeDataValue(utf8(`value ${i}`), 0));
    }
    await engine.write(batch);
    const snapshot = engine.snapshot();
    let isClosed = false;
    const raft = Object.assign(newMessage(MsgType.Snap, TO.id, FROM.id, 5), {
      snapshot: {
        data: encodeSnapshotDescriptor({ snapshotId: 1, region: REGION }),
        metadata: {
          index: 9,
          term: 5,
          confState: { voters: [11, 12], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false },
        },
      },
    });
    return {
      source: {
        region: REGION,
        index: 9,
        term: 5,
        snapshot,
        close: () => {
          isClosed = true;
          snapshot.close();
        },
      },
      message: { ...heartbeat(0), body: { type: 'raft', message: raft } },
      isClosed: () => isClosed,
    };
  }

  const send = (from: { source: SnapshotSource; message: PeerMessage }): Promise<boolean> =>
    new Promise((resolve) => transport.sendSnapshot(from.message, from.source, resolve));

  test('arrive whole in many chunks, and the source is closed', async () => {
    const from = await source(200);
    expect(await send(from)).toBe(true);
    expect(from.isClosed()).toBe(true);
    expect(receiver.snapshots).toMatchObject([{ region: { id: 7 }, keys: 200 }]);
    expect(receiver.inbox.receiving).toBe(0);
    expect(receiver.discarded).toEqual([]);
    expect(transport.sendingSnapshots).toBe(0);
  });

  test('of empty regions arrive, too', async () => {
    expect(await send(await source(0))).toBe(true);
    expect(receiver.snapshots).toMatchObject([{ keys: 0 }]);
  });

  test('that the receiver does not want fail', async () => {
    receiver.refusal = 'busy';
    const from = await source(3);
    expect(await send(from)).toBe(false);
    expect(from.isClosed()).toBe(true);
  });

  test('fail when the receiver is away or unknown', async () => {
    await listener?.close(0);
    expect(await send(await source(3))).toBe(false);
    addresses.delete(2);
    expect(await send(await source(3))).toBe(false);
  });

  test('that break off are removed by the receiver', async () => {
    const channel = senderNet.dial(addresses.get(2) ?? '');
    const stream = openStream(channel, peerMethods.snapshot, {
      metadata: callMetadata({ clusterId: CLUSTER, storeId: 1 }, 2),
    });
    const { message, source: unused } = await source(1);
    unused.close();
    stream.send({ type: 'message', message });
    await vi.waitFor(() => expect(receiver.inbox.receiving).toBe(1), WAIT);
    channel.close();
    await vi.waitFor(() => expect(receiver.discarded).toEqual([1]), WAIT);
    expect(receiver.inbox.receiving).toBe(0);
  });

  test('whose chunks come too fast or before their head are refused', async () => {
    const chunk = { type: 'data', sequence: 0, payload: utf8('x'), digest: utf8('x') } as const;
    const ask = async (parts: readonly Parameters<ReturnType<typeof open>['send']>[0][]): Promise<unknown> => {
      const stream = open();
      const done = new Promise((resolve) => {
        stream.onMessage = ({ reply }) => (reply?.$case === 'done' ? resolve(reply.value) : undefined);
      });
      for (const part of parts) {
        stream.send(part);
      }
      return done;
    };
    const open = () =>
      openStream(senderNet.dial(addresses.get(2) ?? ''), peerMethods.snapshot, {
        metadata: callMetadata({ clusterId: CLUSTER, storeId: 1 }, 2),
      });
    expect(await ask([{ type: 'chunk', chunk }])).toEqual({
      accepted: false,
      reason: 'a chunk came before its snapshot',
    });
    const { message, source: unused } = await source(1);
    unused.close();
    expect(
      await ask([
        { type: 'message', message },
        { type: 'chunk', chunk },
      ]),
    ).toEqual({ accepted: false, reason: 'chunk 0 is damaged' });
    expect(
      await ask([
        { type: 'message', message },
        { type: 'message', message },
      ]),
    ).toEqual({
      accepted: false,
      reason: 'a transfer carries one snapshot',
    });
    expect(await ask([{ type: 'message', message: { ...message, to: { ...TO, storeId: storeId(5) } } }])).toEqual({
      accepted: false,
      reason: 'this is store 2, not 5',
    });
    expect(receiver.snapshots).toEqual([]);
  });

  test('wait for their turn, and a stop answers every one of them once', async () => {
    const answers: boolean[] = [];
    const all = await Promise.all(Array.from({ length: 5 }, () => source(50)));
    for (const { message, source: from } of all) {
      transport.sendSnapshot(message, from, (ok) => answers.push(ok));
    }
    expect(transport.sendingSnapshots).toBe(2);
    await transport.close();
    expect(answers).toHaveLength(5);
    expect(all.every(({ isClosed }) => isClosed())).toBe(true);
    const late = await source(1);
    expect(await send(late)).toBe(false);
    expect(late.isClosed()).toBe(true);
  });
});
