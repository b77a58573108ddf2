/**
 * How a server turns a connection away whose certificate it does not accept. Node completes the handshake and leaves the
 * decision to us, so the answer can say why: an HTTP/2 GOAWAY with INADEQUATE_SECURITY (RFC 9113, 9.2) and a word in
 * its debug data, which our own clients put into a sentence and others at least log.
 */
import type { TLSSocket } from 'node:tls';

export type RefusalWord = 'certificate-required' | 'expired' | 'not-yet-valid' | 'unknown-authority' | 'untrusted';

/** Stands before the word. */
export const REFUSAL_MARK = 'braid-tls-refused: ';

const FRAME_HEAD_BYTES = 9;
const GOAWAY_FIXED_BYTES = 8;
const SETTINGS_TYPE = 0x04;
const GOAWAY_TYPE = 0x07;
const INADEQUATE_SECURITY = 0x0c;

/**
 * The word for a socket whose certificate was not accepted; undefined for one that may stay. A resumed session without
 * a certificate counts as authorized for Node, so the certificate is looked for first.
 */
export function refusalOf(socket: TLSSocket): RefusalWord | undefined {
  if (socket.getPeerX509Certificate() === undefined) {
    return 'certificate-required';
  }
  if (socket.authorized) {
    return undefined;
  }
  // Declared as an error, it is OpenSSL's word in truth.
  const code = String(socket.authorizationError);
  if (code === 'CERT_HAS_EXPIRED') {
    return 'expired';
  }
  if (code === 'CERT_NOT_YET_VALID') {
    return 'not-yet-valid';
  }
  return /ISSUER|SELF_SIGNED|LEAF_SIGNATURE|SIGNATURE_FAILURE/.test(code) ? 'unknown-authority' : 'untrusted';
}

/** An empty SETTINGS frame, as every server begins with, and the GOAWAY. */
export function refusalFrames(word: RefusalWord): Uint8Array {
  const text = Buffer.from(`${REFUSAL_MARK}${word}`);
  const frames = Buffer.alloc(2 * FRAME_HEAD_BYTES + GOAWAY_FIXED_BYTES + text.length);
  frames.writeUInt8(SETTINGS_TYPE, 3);
  frames.writeUIntBE(GOAWAY_FIXED_BYTES + text.length, FRAME_HEAD_BYTES, 3);
  frames.writeUInt8(GOAWAY_TYPE, FRAME_HEAD_BYTES + 3);
  // Flags, stream 0 and "last stream 0" are zero already.
  frames.writeUInt32BE(INADEQUATE_SECURITY, 2 * FRAME_HEAD_BYTES + 4);
  text.copy(frames, 2 * FRAME_HEAD_BYTES + GOAWAY_FIXED_BYTES);
  return frames;
}
