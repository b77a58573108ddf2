/** Clients that read and write keys of a cluster while documents come true, and the judgement of what they were told. */
import { checkHistory } from '../../jepsen-lite/checkers.ts';
import { HistoryRecorder, type Request } from '../../jepsen-lite/history.ts';
import { errorCode, outcomeOf, perform } from '../../jepsen-lite/perform.ts';
import type { Braid } from '../../src/index.ts';

const PAUSE_MS = 20;

export class DocumentLoad {
  readonly errors: string[] = [];
  operations = 0;
  readonly #history: HistoryRecorder = new HistoryRecorder(() => Math.round(performance.now() * 1e6));
  readonly #loops: Promise<void>[];
  #isStopped = false;
  #next = 0;

  /** Two clients per key: one writes what was never written before and compares, one reads. */
  constructor(client: Braid, keys: readonly string[]) {
    this.#loops = keys.flatMap((key) => {
      let last = '';
      const write = (n: number): Request => {
        const expected = last;
        last = `v${++this.#next}`;
        return n % 3 === 2 ? { f: 'cas', key, expected, value: last } : { f: 'put', key, value: last };
      };
      return [this.#run(client, write), this.#run(client, () => ({ f: 'get', key }))];
    });
  }

  async #run(client: Braid, draw: (n: number) => Request): Promise<void> {
    let process = this.#history.newProcess();
    for (let n = 0; !this.#isStopped; n++) {
      const request = draw(n);
      this.#history.invoke(process, request);
      try {
        this.#history.ok(process, await perform(client, request, { read: 'leader', pageSize: 100 }));
        this.operations++;
      } catch (error) {
        this.errors.push(`${request.f}: ${errorCode(error)}: ${String(error)}`);
        if (outcomeOf(request, error) === 'fail') {
          this.#history.fail(process, errorCode(error));
        } else {
          this.#history.info(process, errorCode(error));
          process = this.#history.newProcess();
        }
      }
      await new Promise((resolve) => {
        setTimeout(resolve, PAUSE_MS);
      });
    }
  }

  /** Ends the clients. @returns what no order of the operations explains */
  async stop(): Promise<readonly string[]> {
    this.#isStopped = true;
    await Promise.all(this.#loops);
    return checkHistory(this.#history.events).problems.map((problem) => JSON.stringify(problem));
  }
}
