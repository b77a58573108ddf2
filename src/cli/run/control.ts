/**
 * How a long-running command is told to stop: Ctrl-C, SIGTERM, a message of the process that started it, or that
 * process going away. The same channel tells the parent when the command is ready.
 */

/** From a parent to its child. */
export interface StopMessage {
  readonly type: 'stop';
  /** Move leaders to other stores first. */
  readonly graceful: boolean;
}

/** From a child to its parent. */
export interface ReadyMessage {
  readonly type: 'ready';
  readonly address: string;
  readonly statusAddress: string | undefined;
  /** 0 for the placement service. */
  readonly storeId: number;
}

export interface StopRequest {
  readonly graceful: boolean;
  /** For a log line. */
  readonly reason: string;
}

export function isReadyMessage(message: unknown): message is ReadyMessage {
  return typeof message === 'object' && message !== null && (message as { type?: unknown }).type === 'ready';
}

const isStopMessage = (message: unknown): message is StopMessage =>
  typeof message === 'object' && message !== null && (message as { type?: unknown }).type === 'stop';

/** Collects requests to stop; the second one asks for haste. */
export class StopRequests {
  readonly #waiters: ((request: StopRequest) => void)[] = [];
  readonly #arrived: StopRequest[] = [];
  readonly #removers: (() => void)[] = [];
  /** Requests handed out or waited for. */
  #taken = 0;

  /** @param interrupted aborts at Ctrl-C */
  constructor(interrupted: AbortSignal) {
    const onSignal = (name: string) => (): void => this.#arrive({ graceful: this.#arrived.length === 0, reason: name });
    const onInterrupt = onSignal('SIGINT');
    const onTerm = onSignal('SIGTERM');
    interrupted.addEventListener('abort', onInterrupt, { once: true });
    process.on('SIGTERM', onTerm);
    this.#removers.push(
      () => interrupted.removeEventListener('abort', onInterrupt),
      () => process.off('SIGTERM', onTerm),
    );
    if (process.send !== undefined) {
      const onMessage = (message: unknown): void => {
        if (isStopMessage(message)) {
          this.#arrive({ graceful: message.graceful, reason: 'the parent process' });
        }
      };
      const onDisconnect = (): void => this.#arrive({ graceful: false, reason: 'the parent process is gone' });
      process.on('message', onMessage);
      process.on('disconnect', onDisconnect);
      this.#removers.push(
        () => process.off('message', onMessage),
        () => process.off('disconnect', onDisconnect),
      );
    }
  }

  #arrive(request: StopRequest): void {
    this.#arrived.push(request);
    this.#waiters.shift()?.(request);
  }

  /** The first request that was not handed out yet. */
  next(): Promise<StopRequest> {
    const position = this.#taken++;
    const arrived = this.#arrived[position];
    return arrived === undefined ? new Promise((resolve) => this.#waiters.push(resolve)) : Promise.resolve(arrived);
  }

  /** Lets the process end: removes all handlers and the channel to the parent. */
  close(): void {
    for (const remove of this.#removers.splice(0)) {
      remove();
    }
    if (process.connected) {
      process.disconnect();
    }
  }
}

/** Tells the parent, if there is one that listens. */
export function announceReady(message: ReadyMessage): void {
  if (process.connected) {
    process.send?.(message);
  }
}
