/** grpc.health.v1.Health of a placement process. */
import type { ServiceBuilder } from '../../rpc/service-builder.ts';
import { healthMethods } from '../../rpc/services.ts';
import { HealthCheckResponse_ServingStatus as Status } from '../../gen/grpc/health/v1/health.ts';
import type { ServiceContext } from './context.ts';

export function addHealthService(builder: ServiceBuilder, context: ServiceContext): void {
  const status = (): { status: Status } => ({ status: context.node.isClosed ? Status.NOT_SERVING : Status.SERVING });
  builder.unary(healthMethods.check, () => status());
  builder.stream(healthMethods.watch, (stream) => {
    // The status changes only when the process stops, which ends the stream.
    stream.onMessage = () => {
      stream.send(status());
    };
  });
}
