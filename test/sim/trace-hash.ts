/**
 * A rolling 64-bit hash of what happened in a run, with a checkpoint every thousand events. Two runs of one seed must
 * agree; when they do not, the first differing checkpoint says where to look.
 */
const CHECKPOINT_EVENTS = 1_000;

export class TraceHash {
  #a = 0x811c9dc5;
  #b = 0x9e3779b9;
  #events = 0;
  readonly #labels: Map<string, number> = new Map();
  readonly checkpoints: string[] = [];

  #mix(value: number): void {
    this.#a = Math.imul(this.#a ^ value, 0x01000193);
    this.#b = Math.imul((this.#b << 5) ^ (this.#b >>> 27) ^ value, 0x85ebca6b);
  }

  #label(text: string): number {
    let hash = this.#labels.get(text);
    if (hash === undefined) {
      hash = 0x811c9dc5;
      for (let i = 0; i < text.length; i++) {
        hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
      }
      // Labels that carry data must not make the cache grow without bound.
      if (this.#labels.size < 10_000) {
        this.#labels.set(text, hash);
      }
    }
    return hash;
  }

  event(atUs: number, node: number, kind: string): void {
    this.#mix(atUs | 0);
    this.#mix((atUs / 2 ** 32) | 0);
    this.#mix(node);
    this.#mix(this.#label(kind));
    if (++this.#events % CHECKPOINT_EVENTS === 0) {
      this.checkpoints.push(this.text);
    }
  }

  /** Adds key fields of an event. */
  add(kind: string, ...fields: readonly number[]): void {
    this.#mix(this.#label(kind));
    for (const field of fields) {
      this.#mix(field | 0);
    }
  }

  addText(text: string): void {
    this.#mix(this.#label(text));
  }

  get text(): string {
    const hex = (n: number): string => (n >>> 0).toString(16).padStart(8, '0');
    return hex(this.#a) + hex(this.#b);
  }
}
