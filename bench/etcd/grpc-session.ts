/**
 * Unary gRPC calls straight over `node:http2`. Costs less CPU per call than the general client library, so the peer is
 * not held back by the language of the benchmark more than it must be.
 */
import { type ClientHttp2Session, connect } from 'node:http2';

const FRAME_HEAD_BYTES = 5;

export class GrpcStatusError extends Error {
  readonly code: string;

  constructor(path: string, status: string, text: string) {
    super(`${path}: gRPC status ${status}${text === '' ? '' : `: ${text}`}`);
    this.code = `Grpc${status}`;
  }
}

/** Calls spread over some connections to one endpoint. */
export class GrpcSession {
  readonly #sessions: readonly ClientHttp2Session[];
  #next = 0;

  constructor(endpoint: string, connections: number) {
    this.#sessions = Array.from({ length: connections }, () => {
      const session = connect(`http://${endpoint}`, {
        settings: { initialWindowSize: 4 * 1024 * 1024, enablePush: false },
      });
      // Failures reach the calls; without a listener they would end the process.
      session.on('error', () => {});
      return session;
    });
  }

  call(path: string, message: Uint8Array): Promise<Uint8Array> {
    const session = this.#sessions[this.#next++ % this.#sessions.length] as ClientHttp2Session;
    return new Promise((resolve, reject) => {
      const stream = session.request({
        ':method': 'POST',
        ':path': path,
        'content-type': 'application/grpc',
        te: 'trailers',
      });
      const parts: Buffer[] = [];
      let status: string | undefined;
      let text = '';
      const onHeaders = (headers: Record<string, string | string[] | undefined>): void => {
        if (headers['grpc-status'] !== undefined) {
          status = String(headers['grpc-status']);
          text = String(headers['grpc-message'] ?? '');
        }
      };
      stream.on('response', (headers) => onHeaders(headers));
      stream.on('trailers', (headers) => onHeaders(headers as Record<string, string | undefined>));
      stream.on('data', (part: Buffer) => parts.push(part));
      stream.on('error', reject);
      stream.on('end', () => {
        if (status !== '0') {
          reject(new GrpcStatusError(path, status ?? 'missing', text));
          return;
        }
        const whole = parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts);
        resolve(whole.subarray(FRAME_HEAD_BYTES));
      });
      const frame = Buffer.allocUnsafe(FRAME_HEAD_BYTES + message.length);
      frame[0] = 0;
      frame.writeUInt32BE(message.length, 1);
      frame.set(message, FRAME_HEAD_BYTES);
      stream.end(frame);
    });
  }

  async close(): Promise<void> {
    await Promise.all(
      this.#sessions.map(
        (session) =>
          new Promise<void>((resolve) => {
            if (session.closed || session.destroyed) {
              resolve();
            } else {
              session.close(resolve);
            }
          }),
      ),
    );
  }
}
