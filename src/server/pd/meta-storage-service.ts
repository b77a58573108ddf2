/**
 * meta_storagepb.MetaStorage: clients look here for separate router and timestamp services. There are none, so every
 * range is empty.
 */
import { metaStorageMethods } from '../../rpc/services.ts';
import type { ServiceBuilder } from '../../rpc/service-builder.ts';
import type { ServiceContext } from './context.ts';

export function addMetaStorageService(builder: ServiceBuilder, context: ServiceContext): void {
  builder.unary(metaStorageMethods.get, (request, call) => {
    context.check(request.header, call);
    return {
      header: { clusterId: context.header().clusterId, error: undefined, revision: 1 },
      kvs: [],
      more: false,
      count: 0,
    };
  });
}
