/** A placement service with one Partition, for tests of the commands about documents. */
import { SILENT_LOGGER } from '../../../src/env/log.ts';
import { createRng } from '../../../src/env/rng.ts';
import { realClock } from '../../../src/env/real/index.ts';
import { ServiceBuilder } from '../../../src/rpc/service-builder.ts';
import { adminMethods, pdMethods } from '../../../src/rpc/services.ts';
import { FakeNet } from '../client/fake-net.ts';
import { connectorOf, runWith, type RunOptions, type RunOutcome } from './harness.ts';

const document = (name: string, primary: string, version: number, status: unknown = null) => ({
  kind: 'Partition',
  name,
  uid: 'u',
  generation: 1,
  resourceVersion: version,
  createdUnixMs: 1,
  specJson: JSON.stringify({ range: { start: 'a', end: 'c' }, primary }),
  statusJson: JSON.stringify(status),
  conditions: [],
  regions: [],
  pods: new Map<number, string>(),
  remainingMs: 0,
  changedBy: 'cli',
  changeReason: 'to try it',
  observedJson: '',
  settled: status !== null,
});

/** Remembers what it was asked; one Partition called part1. */
export class FakeDocuments {
  readonly net: FakeNet = new FakeNet(realClock());
  readonly asked: unknown[] = [];
  refusal: { code: string; message: string; hint: string; details: Map<string, string> } | undefined;
  outcome = 'unchanged';

  constructor() {
    const member = {
      name: 'pd',
      memberId: '1',
      peerUrls: [],
      clientUrls: ['http://adm:1'],
      leaderPriority: 0,
      deployPath: '',
      binaryVersion: '',
      gitHash: '',
    };
    const result = (): object => ({
      kind: 'Partition',
      name: 'part1',
      outcome: this.refusal === undefined ? this.outcome : 'refused',
      refusal: this.refusal,
      warnings: ['status was ignored'],
      before: document('part1', 'pod1', 3, 'ready'),
      after: document('part1', 'pod2', 3, 'ready'),
    });
    const answer = (request: unknown) => {
      this.asked.push(request);
      return { refusal: this.refusal, results: [result()] } as never;
    };
    const builder = new ServiceBuilder()
      .unary(pdMethods.getMembers, () => ({ header: { clusterId: '77' }, members: [member], leader: member }))
      .unary(adminMethods.applyDocuments, answer)
      .unary(adminMethods.deleteDocument, answer)
      .unary(adminMethods.retryAssignment, answer)
      .unary(adminMethods.listDocuments, () => ({ documents: [document('part1', 'pod1', 3, 'ready')], version: 3 }))
      .unary(adminMethods.watchDocuments, async ({ afterVersion }) => {
        if (afterVersion > 4) {
          await new Promise((resolve) => {
            setTimeout(resolve, 200);
          });
          return { changes: [], version: afterVersion, reset: false };
        }
        return {
          reset: false,
          version: afterVersion + 1,
          changes: [
            {
              version: afterVersion + 1,
              deleted: afterVersion === 4,
              document: document('part1', 'pod2', afterVersion + 1, afterVersion === 3 ? null : 'ready'),
            },
          ],
        };
      });
    this.net.serve('adm:1', builder.build());
  }

  run(args: readonly string[], options: RunOptions = {}): Promise<RunOutcome> {
    const env = { clock: realClock(), rng: createRng(1), net: this.net, log: SILENT_LOGGER };
    return runWith(connectorOf(env, 'adm:1'), args, options);
  }
}
