/**
 * The state of single directed links: clogged for a while (everything waits and then comes in a burst), narrow (bytes
 * queue behind each other), short (what exceeds the limit of messages under way is dropped).
 */
export interface LinkLimits {
  /** Bytes a link carries per millisecond; undefined = no limit. */
  readonly bytesPerMs?: number;
  /** Messages under way on one link; more are dropped. */
  readonly inFlightMax?: number;
}

interface Link {
  cloggedUntilMs: number;
  /** When the last byte queued so far has left. */
  busyUntilMs: number;
  /** Times at which the messages under way leave the link. */
  leaving: number[];
}

export class LinkFaults {
  readonly #links: Map<string, Link> = new Map();
  #limits: LinkLimits = {};

  setLimits(limits: LinkLimits): void {
    this.#limits = limits;
  }

  /** Nothing leaves this link before `untilMs`. */
  clog(from: number, to: number, untilMs: number): void {
    this.#link(from, to).cloggedUntilMs = untilMs;
  }

  healAll(): void {
    this.#links.clear();
    this.#limits = {};
  }

  /** Milliseconds a message of so many bytes waits for the link; undefined if it is dropped. */
  admit(from: number, to: number, bytes: number, nowMs: number): number | undefined {
    const { bytesPerMs, inFlightMax } = this.#limits;
    if (this.#links.size === 0 && bytesPerMs === undefined && inFlightMax === undefined) {
      return 0;
    }
    const link = this.#link(from, to);
    link.leaving = link.leaving.filter((atMs) => atMs > nowMs);
    if (inFlightMax !== undefined && link.leaving.length >= inFlightMax) {
      return undefined;
    }
    let leavesMs = Math.max(nowMs, link.cloggedUntilMs);
    if (bytesPerMs !== undefined) {
      leavesMs = Math.max(leavesMs, link.busyUntilMs) + bytes / bytesPerMs;
      link.busyUntilMs = leavesMs;
    }
    if (leavesMs > nowMs) {
      link.leaving.push(leavesMs);
    }
    return leavesMs - nowMs;
  }

  #link(from: number, to: number): Link {
    const name = `${from}>${to}`;
    let link = this.#links.get(name);
    if (link === undefined) {
      link = { cloggedUntilMs: 0, busyUntilMs: 0, leaving: [] };
      this.#links.set(name, link);
    }
    return link;
  }
}
