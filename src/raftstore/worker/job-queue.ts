/** Runs asynchronous jobs of one kind strictly one after the other. */
import { EngineClosedError } from '../../env/engine.ts';
import type { StoreContext } from '../context.ts';
import { stopFromJob } from './engine-failure.ts';

export type Job = () => Promise<void>;

/** Thrown inside a job by {@link JobQueue.checkpoint} when the store is stopping. */
class Stopped extends Error {}

export class JobQueue {
  readonly #ctx: Pick<StoreContext, 'abort'>;
  readonly #name: string;
  #jobs: Job[] = [];
  #running: Promise<void> | undefined;
  #isStopping = false;

  constructor(ctx: Pick<StoreContext, 'abort'>, name: string) {
    this.#ctx = ctx;
    this.#name = name;
  }

  /** Jobs waiting or running. */
  get length(): number {
    return this.#jobs.length + (this.#running === undefined ? 0 : 1);
  }

  push(job: Job): void {
    if (this.#isStopping) {
      return;
    }
    this.#jobs.push(job);
    this.#running ??= this.#drain();
  }

  /** Ends the current job here if the store is stopping. Jobs call it between their steps. */
  checkpoint(): void {
    if (this.#isStopping) {
      throw new Stopped();
    }
  }

  /** Resolves when nothing is waiting or running. */
  async idle(): Promise<void> {
    while (this.#running !== undefined) {
      await this.#running;
    }
  }

  /** Forgets waiting jobs, ends the running one at its next step and waits for it. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    this.#jobs = [];
    await this.idle();
  }

  async #drain(): Promise<void> {
    for (let job = this.#jobs.shift(); job !== undefined; job = this.#jobs.shift()) {
      try {
        await job();
      } catch (cause) {
        if (!(cause instanceof Stopped) && !(cause instanceof EngineClosedError)) {
          this.#isStopping = true;
          this.#jobs = [];
          stopFromJob(this.#ctx, `a background job of the store failed: ${this.#name}`, cause);
        }
      }
    }
    this.#running = undefined;
  }
}
