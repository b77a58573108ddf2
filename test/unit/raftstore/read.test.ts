/** Reads of a peer whose Raft core knows more than the peer does. */
import { describe, expect, test } from 'vitest';
import { utf8 } from '../../../src/base/bytes.ts';
import { peerId, regionId } from '../../../src/base/ids.ts';
import { dropped, OK, type StepResult } from '../../../src/raft/ready.ts';
import type { ReadRequest, ReadOutcome } from '../../../src/raftstore/msg.ts';
import type { PendingRead, RaftPeer } from '../../../src/raftstore/peer/raft-peer.ts';
import { onReadState, repeatReadIndex, sendReadIndex, serveReads } from '../../../src/raftstore/peer/read.ts';

const REGION = regionId(2);

/** A peer that takes itself for the leader, with one read that the lease could not serve. */
function peerWithRead(answer: StepResult): { peer: RaftPeer; answers: ReadOutcome[]; pending: PendingRead[] } {
  const answers: ReadOutcome[] = [];
  const pending: PendingRead[] = [];
  const request: ReadRequest = {
    header: { regionId: REGION, epoch: { confVer: 1, version: 1 }, peerId: peerId(3), term: 0, deadlineMonoMs: 60_000 },
    keys: [utf8('k')],
    replicaRead: false,
    respond: (result) => answers.push(result),
  };
  const peer = {
    regionId: REGION,
    isLeader: true,
    lead: 3,
    newReads: [request],
    pendingReads: pending,
    nextReadId: 7,
    node: { term: 5, readIndex: () => answer },
    ctx: { clock: { monoMs: () => 100 }, leaseClock: { nowMs: () => 100 } },
  } as unknown as RaftPeer;
  return { peer, answers, pending };
}

describe('a read that needs a read index', () => {
  test('waits for the confirmation when the core took the question', () => {
    const { peer, answers, pending } = peerWithRead(OK);
    sendReadIndex(peer);
    expect(answers).toEqual([]);
    expect(pending).toMatchObject([{ id: 7, term: 5, sentAtMs: 100, index: 0 }]);
  });

  test('is refused at once when the core has just lost the leadership', () => {
    const { peer, answers, pending } = peerWithRead(dropped('no-leader'));
    sendReadIndex(peer);
    expect(answers).toMatchObject([{ type: 'refused', error: { type: 'not-leader', regionId: REGION } }]);
    expect(pending).toEqual([]);
  });

  test('is refused at once when too many reads wait in the core', () => {
    const { peer, answers, pending } = peerWithRead(dropped('too-many-reads'));
    sendReadIndex(peer);
    expect(answers).toMatchObject([{ type: 'refused', error: { type: 'read-index-not-ready' } }]);
    expect(pending).toEqual([]);
  });
});

describe('a follower whose question or answer was lost', () => {
  function follower(): { peer: RaftPeer; asked: number[]; clock: { nowMs: number }; pending: PendingRead[] } {
    const clock = { nowMs: 100 };
    const asked: number[] = [];
    const { peer, pending } = peerWithRead(OK);
    Object.assign(peer, {
      isLeader: false,
      node: {
        term: 5,
        readIndex: (context: Uint8Array) => {
          asked.push(new DataView(context.buffer, context.byteOffset, context.byteLength).getFloat64(0));
          return OK;
        },
      },
      ctx: {
        clock: { monoMs: () => clock.nowMs },
        leaseClock: { nowMs: () => clock.nowMs },
        config: { heartbeatTicks: 2, tickMs: 100 },
      },
    });
    return { peer, asked, clock, pending };
  }

  test('asks again with the same id, not too often, until it is answered', () => {
    const { peer, asked, clock, pending } = follower();
    sendReadIndex(peer);
    clock.nowMs += 399;
    repeatReadIndex(peer);
    expect(asked).toEqual([7]);
    clock.nowMs += 1;
    repeatReadIndex(peer);
    repeatReadIndex(peer);
    expect(asked).toEqual([7, 7]);
    clock.nowMs += 400;
    repeatReadIndex(peer);
    expect(asked).toEqual([7, 7, 7]);
    const context = new Uint8Array(8);
    new DataView(context.buffer).setFloat64(0, 7);
    onReadState(peer, context, 40);
    onReadState(peer, context, 50);
    expect(pending).toMatchObject([{ id: 7, index: 40 }]);
    clock.nowMs += 4000;
    repeatReadIndex(peer);
    expect(asked).toHaveLength(3);
  });

  test('asks nobody without a leader or in another term', () => {
    const { peer, asked, clock } = follower();
    sendReadIndex(peer);
    clock.nowMs += 1000;
    Object.assign(peer, { lead: 0 });
    repeatReadIndex(peer);
    Object.assign(peer, { lead: 3, node: { ...peer.node, term: 6 } });
    repeatReadIndex(peer);
    expect(asked).toEqual([7]);
  });
});

describe('a confirmed read', () => {
  const served = (isActive: boolean): ReadOutcome[] => {
    const { peer, answers, pending } = peerWithRead(OK);
    sendReadIndex(peer);
    (pending[0] as PendingRead).index = 40;
    Object.assign(peer, {
      isActive,
      isMerging: false,
      installing: { type: 'none' },
      appliedIndex: 41,
      region: { id: REGION, epoch: { confVer: 1, version: 1 } },
      flowKeysRead: 0,
      load: { noteKey: () => undefined },
    });
    serveReads(peer);
    return answers;
  };

  test('is served when its index is applied', () => {
    expect(served(true)).toMatchObject([{ type: 'ok' }]);
  });

  test('is not served by a replica that was removed: its range is being given up', () => {
    expect(served(false)).toEqual([]);
  });
});
