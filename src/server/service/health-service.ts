/** grpc.health.v1.Health of a store: clients do not come back to a store after a broken connection before it says SERVING. */
import { HealthCheckResponse_ServingStatus as Status } from '../../gen/grpc/health/v1/health.ts';
import type { HealthCheckResponse } from '../../gen/grpc/health/v1/health.ts';
import type { HealthCheckRequest } from '../../gen/grpc/health/v1/health.ts';
import type { TypedStream } from '../../rpc/call.ts';
import type { ServiceBuilder } from '../../rpc/service-builder.ts';
import { healthMethods } from '../../rpc/services.ts';

type Watcher = TypedStream<HealthCheckResponse, HealthCheckRequest>;

export class HealthService {
  readonly #watchers = new Set<Watcher>();
  #isServing = false;

  get isServing(): boolean {
    return this.#isServing;
  }

  /** Changes the answer and tells everyone who watches. */
  set isServing(isServing: boolean) {
    if (isServing !== this.#isServing) {
      this.#isServing = isServing;
      for (const watcher of this.#watchers) {
        watcher.send(this.#status());
      }
    }
  }

  addTo(builder: ServiceBuilder): void {
    builder.unary(healthMethods.check, () => this.#status());
    builder.stream(healthMethods.watch, (stream) => {
      stream.onMessage = () => {
        this.#watchers.add(stream);
        stream.send(this.#status());
      };
      stream.onEnd = () => this.#watchers.delete(stream);
    });
  }

  /** Ends every watch, so that the listener can close. */
  endWatches(): void {
    for (const watcher of this.#watchers) {
      watcher.end();
    }
    this.#watchers.clear();
  }

  #status(): HealthCheckResponse {
    return { status: this.#isServing ? Status.SERVING : Status.NOT_SERVING };
  }
}
