/** Messages are bytes already: grpc-js gets identity functions instead of codecs. */

/** A Buffer over the same memory. */
export const toBuffer = (bytes: Uint8Array): Buffer =>
  Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);

export const fromBuffer = (bytes: Buffer): Uint8Array => bytes;
