/** The methods of every service this project serves or calls. */
import {
  decodeBatchRequest,
  decodeBatchResponse,
  encodeBatchRequest,
  encodeBatchResponse,
} from '../codec/batch-commands.ts';
import type { PeerMessage } from '../codec/peer-message.ts';
import {
  type SnapshotPart,
  type GroupMessage,
  decodeFrame,
  decodeGroupFrame,
  decodeSnapshotPart,
  encodeFrame,
  encodeGroupFrame,
  encodeSnapshotPart,
} from '../codec/peer-wire.ts';
import { AdminDefinition } from '../gen/braid/admin/v1/admin.ts';
import { PeerDefinition, type RaftAck, type SnapshotReply } from '../gen/braid/peer/v1/peer.ts';
import { GroupDefinition, type GroupAck, type SnapshotReply as GroupSnapshotReply } from '../gen/braid/pd/v1/pd.ts';
import { PlacementDefinition } from '../gen/braid/placement/v1/placement.ts';
import { ProcessDefinition } from '../gen/braid/process/v1/process.ts';
import { HealthDefinition } from '../gen/grpc/health/v1/health.ts';
import { MetaStorageDefinition } from '../gen/meta_storagepb.ts';
import { PDDefinition } from '../gen/pdpb.ts';
import { TikvDefinition } from '../gen/tikvpb.ts';
import { type MessageCodec, type Method, type MethodsOf, methodsOf } from './method.ts';

const generatedTikvMethods: MethodsOf<typeof TikvDefinition> = methodsOf(TikvDefinition);

/** Store port, called by clients. The batch stream has hand-written codecs with the shapes of the generated code. */
export const tikvMethods: MethodsOf<typeof TikvDefinition> = {
  ...generatedTikvMethods,
  batchCommands: {
    ...generatedTikvMethods.batchCommands,
    request: { encode: encodeBatchRequest, decode: decodeBatchRequest },
    reply: { encode: encodeBatchResponse, decode: decodeBatchResponse },
  },
};

const generatedPeerMethods: MethodsOf<typeof PeerDefinition> = methodsOf(PeerDefinition);

/** Store port, called by other stores; domain messages with hand-written codecs. */
export const peerMethods: {
  readonly raftStream: Method<readonly PeerMessage[], RaftAck, 'bidi'>;
  readonly snapshot: Method<SnapshotPart, SnapshotReply, 'bidi'>;
} = {
  raftStream: { ...generatedPeerMethods.raftStream, request: { encode: encodeFrame, decode: decodeFrame } },
  snapshot: {
    ...generatedPeerMethods.snapshot,
    request: { encode: encodeSnapshotPart, decode: decodeSnapshotPart },
  },
};
/** Every port. */
export const healthMethods: MethodsOf<typeof HealthDefinition> = methodsOf(HealthDefinition);
/** Every port of braid. */
export const processMethods: MethodsOf<typeof ProcessDefinition> = methodsOf(ProcessDefinition);
/** Placement port. */
export const pdMethods: MethodsOf<typeof PDDefinition> = methodsOf(PDDefinition);
/** Placement port, called by stores. */
export const placementMethods: MethodsOf<typeof PlacementDefinition> = methodsOf(PlacementDefinition);
/** Placement port. */
export const metaStorageMethods: MethodsOf<typeof MetaStorageDefinition> = methodsOf(MetaStorageDefinition);
/** Placement port. */
export const adminMethods: MethodsOf<typeof AdminDefinition> = methodsOf(AdminDefinition);

const generatedGroupMethods: MethodsOf<typeof GroupDefinition> = methodsOf(GroupDefinition);
const groupFrame: MessageCodec<readonly GroupMessage[]> = { encode: encodeGroupFrame, decode: decodeGroupFrame };

/** Placement port, called by other members of the placement service; Raft messages with the hand-written codec. */
export const groupMethods: Omit<MethodsOf<typeof GroupDefinition>, 'raft' | 'installSnapshot'> & {
  readonly raft: Method<readonly GroupMessage[], GroupAck, 'bidi'>;
  readonly installSnapshot: Method<readonly GroupMessage[], GroupSnapshotReply, 'unary'>;
} = {
  ...generatedGroupMethods,
  raft: { ...generatedGroupMethods.raft, request: groupFrame },
  installSnapshot: { ...generatedGroupMethods.installSnapshot, request: groupFrame },
};
