/** HTTP for people and monitoring: read-only, answers at once, never holds up the store. */
import { createServer, type Server, type ServerResponse } from 'node:http';
import { AppError } from '../base/app-error.ts';

export interface StatusPage {
  readonly contentType: 'application/json' | 'text/plain; version=0.0.4; charset=utf-8' | 'text/plain; charset=utf-8';
  readonly status?: number;
  readonly body: string;
}

/** Pages by path; a path ending in `/` also gets everything below it as its argument. */
export type StatusRoutes = Readonly<Record<string, (rest: string) => StatusPage | undefined>>;

export const jsonPage = (value: unknown, status = 200): StatusPage => ({
  contentType: 'application/json',
  status,
  // 64-bit numbers travel as decimal text.
  body: `${JSON.stringify(value, (_key, part: unknown) => (typeof part === 'bigint' ? String(part) : part), 2)}\n`,
});

/** Time for the head of a request; slow senders must not collect connections. */
const HEADERS_TIMEOUT_MS = 5_000;
const CONNECTIONS_MAX = 64;

export interface StatusServer {
  /** `host:port` as bound. */
  readonly address: string;
  close(): Promise<void>;
}

export class StatusListenError extends AppError {
  constructor(address: string, cause: unknown) {
    super(
      'Listen',
      `cannot listen on the status address ${address}: ${cause instanceof Error ? cause.message : String(cause)}`,
      {
        hint: 'stop the process that uses it, or choose another --status-addr (an empty one switches the status port off)',
        cause,
      },
    );
  }
}

function answer(response: ServerResponse, page: StatusPage): void {
  response.writeHead(page.status ?? 200, { 'content-type': page.contentType, 'cache-control': 'no-store' });
  response.end(page.body);
}

function find(routes: StatusRoutes, path: string): StatusPage | undefined {
  const exact = routes[path];
  if (exact !== undefined) {
    return exact('');
  }
  const slash = path.lastIndexOf('/');
  return routes[path.slice(0, slash + 1)]?.(path.slice(slash + 1));
}

/** @throws StatusListenError */
export async function startStatusServer(address: string, routes: StatusRoutes): Promise<StatusServer> {
  const colon = address.lastIndexOf(':');
  const host = address.slice(0, colon).replace(/^\[(.*)\]$/, '$1');
  const server = createServer((request, response) => {
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      answer(response, jsonPage({ error: 'only GET is served here' }, 405));
      return;
    }
    const [path = '/'] = (request.url ?? '/').split('?');
    const page = find(routes, path);
    answer(response, page ?? jsonPage({ error: `no page ${path}`, pages: Object.keys(routes) }, 404));
  });
  server.headersTimeout = HEADERS_TIMEOUT_MS;
  server.maxConnections = CONNECTIONS_MAX;
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) => reject(new StatusListenError(address, cause)));
    server.listen(Number(address.slice(colon + 1)), host, resolve);
  });
  return { address: `${address.slice(0, colon)}:${boundPort(server)}`, close: () => closeServer(server) };
}

function boundPort(server: Server): number {
  const bound = server.address();
  return bound !== null && typeof bound === 'object' ? bound.port : 0;
}

function closeServer(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}
