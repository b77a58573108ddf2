import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { BadMessageError } from '../../src/codec/bad-message-error.ts';
import type { PeerMessage } from '../../src/codec/peer-message.ts';
import { decodeFrame, decodeSnapshotPart, encodeFrame, encodeSnapshotPart } from '../../src/codec/peer-wire.ts';
import { RaftEnvelope, RaftFrame, SnapshotChunk } from '../../src/gen/braid/peer/v1/peer.ts';
import type * as metapb from '../../src/gen/metapb.ts';
import type { Peer, Region } from '../../src/meta/region.ts';
import { peerMessage } from './codec-arbitraries.ts';

const ROLES = ['voter', 'learner', 'incoming-voter', 'demoting-voter'] as const;

const wirePeer = (peer: Peer): metapb.Peer => ({
  id: peer.id,
  storeId: peer.storeId,
  role: ROLES.indexOf(peer.role) as metapb.PeerRole,
  isWitness: false,
});

const wireRegion = (region: Region): metapb.Region => ({
  id: region.id,
  startKey: region.range.start,
  endKey: region.range.end,
  regionEpoch: { ...region.epoch },
  peers: region.peers.map(wirePeer),
});

function wireBody({ body }: PeerMessage): NonNullable<RaftEnvelope['body']> {
  switch (body.type) {
    case 'raft': {
      const { snapshot, entries, responses: _local, ...rest } = body.message;
      return {
        $case: 'raft',
        value: {
          ...rest,
          entries: entries.map((e) => ({ ...e })),
          snapshot:
            snapshot === null
              ? undefined
              : {
                  data: snapshot.data,
                  index: snapshot.metadata.index,
                  term: snapshot.metadata.term,
                  confState: {
                    voters: [...snapshot.metadata.confState.voters],
                    votersOutgoing: [...snapshot.metadata.confState.votersOutgoing],
                    learners: [...snapshot.metadata.confState.learners],
                    learnersNext: [...snapshot.metadata.confState.learnersNext],
                    autoLeave: snapshot.metadata.confState.autoLeave,
                  },
                },
        },
      };
    }
    case 'gc':
      return {
        $case: 'gc',
        value: { mergeTarget: body.mergeTarget === undefined ? undefined : wireRegion(body.mergeTarget) },
      };
    case 'check-stale-peer':
      return { $case: 'checkStalePeer', value: {} };
    case 'check-stale-peer-response':
      return { $case: 'checkStalePeerResponse', value: { region: wireRegion(body.region) } };
    case 'want-rollback-merge':
      return { $case: 'wantRollbackMerge', value: { commit: body.commit } };
    case 'wake-up':
      return { $case: 'wakeUp', value: {} };
    case 'hash-report':
      return { $case: 'hashReport', value: { index: body.index, hash: body.hash } };
  }
}

const wireEnvelope = (message: PeerMessage): RaftEnvelope => ({
  regionId: message.regionId,
  from: wirePeer(message.from),
  to: wirePeer(message.to),
  epoch: { ...message.epoch },
  range: message.range === undefined ? undefined : { ...message.range },
  body: wireBody(message),
});

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

describe('frames between stores', () => {
  test('a frame decodes to the messages it was made of', () => {
    fc.assert(
      fc.property(fc.array(peerMessage, { maxLength: 5 }), (messages) => {
        expect(decodeFrame(encodeFrame(messages))).toEqual(messages);
      }),
    );
  });

  test('the hand-written bytes are those of the generated code', () => {
    fc.assert(
      fc.property(fc.array(peerMessage, { maxLength: 3 }), (messages) => {
        const generated = RaftFrame.encode({ envelopes: messages.map(wireEnvelope) }).finish();
        expect(hex(encodeFrame(messages))).toBe(hex(generated));
      }),
    );
  });

  test('decoded bytes do not share memory with the frame', () => {
    fc.assert(
      fc.property(peerMessage, (message) => {
        const frame = encodeFrame([message]);
        const decoded = decodeFrame(frame);
        frame.fill(0xee);
        expect(decoded).toEqual([message]);
      }),
    );
  });

  test('fields that are not known yet are skipped, at every depth', () => {
    fc.assert(
      fc.property(peerMessage, (message) => {
        const unknown = Uint8Array.of(0xc2, 0x3e, 3, 1, 2, 3, 0xc8, 0x3e, 0x96, 0x01, 0xcd, 0x3e, 9, 9, 9, 9);
        const envelope = Buffer.concat([RaftEnvelope.encode(wireEnvelope(message)).finish(), unknown]);
        const length = envelope.length;
        const prefix = length < 128 ? [0x0a, length] : [0x0a, (length & 0x7f) | 0x80, length >>> 7];
        fc.pre(length < 2 ** 14);
        expect(decodeFrame(Buffer.concat([Uint8Array.from(prefix), envelope, unknown]))).toEqual([message]);
      }),
    );
  });

  test('cut or damaged frames are refused with BadMessageError or decode to something, and nothing else happens', () => {
    fc.assert(
      fc.property(
        fc.array(peerMessage, { minLength: 1, maxLength: 2 }),
        fc.nat(),
        fc.nat(255),
        (messages, at, byte) => {
          const frame = encodeFrame(messages);
          const damaged = Uint8Array.from(frame);
          damaged[at % frame.length] = byte;
          for (const bytes of [frame.subarray(0, at % frame.length), damaged]) {
            try {
              decodeFrame(bytes);
            } catch (error) {
              expect(error).toBeInstanceOf(BadMessageError);
            }
          }
        },
      ),
      { numRuns: 500 },
    );
  });

  test('a body that only newer stores know is left out', () => {
    const known: PeerMessage = decodeFrame(
      RaftFrame.encode({
        envelopes: [
          RaftEnvelope.create({ regionId: 1, from: { id: 2 }, to: { id: 3 } }),
          RaftEnvelope.create({ regionId: 4, from: { id: 2 }, to: { id: 3 }, body: { $case: 'wakeUp', value: {} } }),
        ],
      }).finish(),
    )[0] as PeerMessage;
    expect(known).toMatchObject({ regionId: 4, body: { type: 'wake-up' } });
  });

  test('numbers above 2^53-1, unknown roles and message types that never travel are refused', () => {
    const envelope = (part: Parameters<typeof RaftEnvelope.create>[0]): Uint8Array =>
      RaftFrame.encode({ envelopes: [RaftEnvelope.create({ from: { id: 1 }, to: { id: 2 }, ...part })] }).finish();
    const raft = (type: number) => ({ $case: 'raft' as const, value: { type } });
    expect(() => decodeFrame(envelope({ body: raft(3) }))).not.toThrow();
    expect(() => decodeFrame(envelope({ body: raft(0) }))).toThrow(BadMessageError);
    expect(() => decodeFrame(envelope({ body: raft(19) }))).toThrow(BadMessageError);
    expect(() => decodeFrame(envelope({ body: raft(99) }))).toThrow(BadMessageError);
    expect(() => decodeFrame(envelope({ from: { id: 1, role: 9 as never }, body: raft(3) }))).toThrow(
      /unknown peer role/,
    );
    const tooLarge = Uint8Array.of(0x0a, 9, 0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10);
    expect(() => decodeFrame(tooLarge)).toThrow(/2\^53-1/);
  });

  test('parts of a snapshot transfer survive the wire', () => {
    fc.assert(
      fc.property(peerMessage, fc.uint8Array(), fc.nat(), (message, payload, sequence) => {
        const head = encodeSnapshotPart({ type: 'message', message });
        expect(decodeSnapshotPart(head)).toEqual({ type: 'message', message });
        expect(hex(head)).toBe(
          hex(SnapshotChunk.encode({ part: { $case: 'message', value: wireEnvelope(message) } }).finish()),
        );
        const chunk = { type: 'data', sequence, payload, digest: Uint8Array.of(1, 2, 3) } as const;
        const decoded = decodeSnapshotPart(encodeSnapshotPart({ type: 'chunk', chunk }));
        expect(decoded.type).toBe('chunk');
        expect(decoded.type === 'chunk' && hex((decoded.chunk as typeof chunk).payload)).toBe(hex(payload));
      }),
    );
    expect(() => decodeSnapshotPart(new Uint8Array(0))).toThrow(BadMessageError);
  });
});
