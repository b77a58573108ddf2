/**
 * Whether an engine may still be used. Poisoning is final: a failed write leaves the log of LevelDB misaligned, so that
 * later writes would be acknowledged and lost, and a failed sync must not be tried again. Only a new process may open
 * the database again.
 */
import { EngineClosedError, EnginePoisonedError, type EngineHealth } from '../env/engine.ts';

type GateState =
  | { readonly type: 'open' }
  /** Closing: no further calls, but accepted writes may still fail. */
  | { readonly type: 'closing' }
  | { readonly type: 'poisoned'; readonly reason: string; readonly cause: unknown }
  | { readonly type: 'closed' };

export class EngineGate {
  #state: GateState = { type: 'open' };
  readonly #listeners: ((reason: string) => void)[] = [];

  /** The error that every call must end with now; undefined while the engine is usable. */
  refusal(): Error | undefined {
    const state = this.#state;
    switch (state.type) {
      case 'open':
        return undefined;
      case 'poisoned':
        return new EnginePoisonedError(state.reason, state.cause);
      case 'closing':
      case 'closed':
        return new EngineClosedError();
    }
  }

  /** @throws EnginePoisonedError or EngineClosedError unless the engine is usable. */
  check(): void {
    const refusal = this.refusal();
    if (refusal !== undefined) {
      throw refusal;
    }
  }

  /** Makes the engine unusable and tells every listener, synchronously and once. */
  poison(reason: string, cause?: unknown): void {
    if (this.#state.type !== 'open' && this.#state.type !== 'closing') {
      return;
    }
    this.#state = { type: 'poisoned', reason, cause };
    for (const listener of this.#listeners) {
      listener(reason);
    }
  }

  /** Refuses further calls from now on; a poisoned engine stays poisoned. */
  startClosing(): void {
    if (this.#state.type === 'open') {
      this.#state = { type: 'closing' };
    }
  }

  /** All accepted work is done. */
  finishClosing(): void {
    if (this.#state.type === 'closing') {
      this.#state = { type: 'closed' };
    }
  }

  health(): EngineHealth {
    return this.#state.type === 'poisoned' ? { type: 'poisoned', reason: this.#state.reason } : { type: 'ok' };
  }

  onPoisoned(listener: (reason: string) => void): void {
    this.#listeners.push(listener);
  }
}
