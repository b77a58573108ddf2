/** Calls of braid.admin.v1.Admin about Partition and Assignment documents, and about pinned and paused regions. */
import { isSafeId, regionId } from '../../base/ids.ts';
import { RpcError, RpcStatus } from '../../env/net.ts';
import type {
  ApplyDocumentsResponse,
  Document,
  DocumentResult as WireResult,
  RequestHeader,
} from '../../gen/braid/admin/v1/admin.ts';
import type { Author } from '../../pd/cluster/events.ts';
import type { PauseOutcome } from '../../pd/pause-keeper.ts';
import type { Placement } from '../../pd/placement.ts';
import { type Resource, isActive, isServed } from '../../pd/resource/resource.ts';
import type { DocumentPlan, DocumentResult } from '../../pd/resource/resources.ts';
import { specShown, statusShown } from '../../pd/resource/render.ts';
import { refuse, refused, regionNotFound } from '../../pd/schedule/verdict.ts';
import type { ServiceBuilder } from '../../rpc/service-builder.ts';
import { adminMethods } from '../../rpc/services.ts';
import { refusalToWire, regionToWire } from './admin-wire.ts';
import type { ServiceContext } from './context.ts';

/** Characters of all documents in one request. */
const REQUEST_CHARS_MAX = 4 * 1024 * 1024;
/** Longest time a watch is held back. */
const WATCH_WAIT_MAX_MS = 30_000;
/** Regions shown with one document. */
const REGIONS_MAX = 64;

const authorOf = (header: RequestHeader | undefined): Author => ({
  actor: header === undefined || header.actor === '' ? 'an administrator' : header.actor,
  reason: header?.reason ?? '',
});

/** A document that is not JSON becomes undefined, and is refused like any other that makes no sense. */
function fromText(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

export function addDocumentCalls(builder: ServiceBuilder, context: ServiceContext): void {
  const { node, clock } = context;
  const { placement } = node;
  const toWire = (resource: Resource): Document => documentToWire(resource, placement, clock.monoMs());
  const answer = (plan: DocumentPlan): ApplyDocumentsResponse => ({
    refusal: plan.refusal === undefined ? undefined : refusalToWire(plan.refusal),
    results: plan.results.map((result) => resultToWire(result, toWire)),
  });
  const change = async (
    plan: () => DocumentPlan,
    dryRun: boolean,
    header: RequestHeader | undefined,
  ): Promise<ApplyDocumentsResponse> => {
    if (!node.isBootstrapped) {
      const refusal = refuse('NotBootstrapped', 'the cluster has no store yet', 'start a store');
      return { refusal: refusalToWire(refusal), results: [] };
    }
    const done = await node.changeDocuments(plan, { dryRun });
    if (!dryRun && done.refusal === undefined) {
      for (const { kind, name, outcome } of done.results) {
        if (outcome !== 'unchanged') {
          const message = `${kind} ${name} was ${outcome === 'ending' ? 'told to end' : outcome}`;
          placement.event({ type: 'document', message, ...authorOf(header) });
        }
      }
    }
    return answer(done);
  };
  builder
    .unary(adminMethods.applyDocuments, (request, call) => {
      context.check(request.header, call);
      if (request.documents.reduce((sum, text) => sum + text.length, 0) > REQUEST_CHARS_MAX) {
        throw new RpcError(RpcStatus.INVALID_ARGUMENT, `documents of more than ${REQUEST_CHARS_MAX} characters`);
      }
      const documents = request.documents.map(fromText);
      return change(
        () => placement.resources.planApply(documents, authorOf(request.header)),
        request.dryRun,
        request.header,
      );
    })
    .unary(adminMethods.deleteDocument, (request, call) => {
      context.check(request.header, call);
      const { kind, name, expectVersion, dryRun } = request;
      const plan = (): DocumentPlan =>
        placement.resources.planDelete(kind, name, expectVersion, authorOf(request.header));
      return change(plan, dryRun, request.header);
    })
    .unary(adminMethods.retryAssignment, (request, call) => {
      context.check(request.header, call);
      return change(() => placement.resources.planRetry(request.name, authorOf(request.header)), false, request.header);
    })
    .unary(adminMethods.listDocuments, (request, call) => {
      context.check(request.header, call);
      const found = placement.resources.list(request.kind, request.name);
      const { version } = placement.resources.store;
      return 'code' in found
        ? { refusal: refusalToWire(found), documents: [], version }
        : { refusal: undefined, documents: found.map(toWire), version };
    })
    .unary(adminMethods.watchDocuments, async (request, call) => {
      context.check(request.header, call);
      const changes = await node.waitForDocuments(request.afterVersion, Math.min(request.waitMs, WATCH_WAIT_MAX_MS));
      const { store } = placement.resources;
      return changes === undefined
        ? {
            reset: true,
            version: store.version,
            changes: [...store.all()].map((resource) => ({
              version: resource.meta.resourceVersion,
              deleted: false,
              document: toWire(resource),
            })),
          }
        : {
            reset: false,
            version: Math.max(request.afterVersion, ...changes.map(({ version }) => version)),
            changes: changes.map(({ version, type, resource }) => ({
              version,
              deleted: type === 'deleted',
              document: toWire(resource),
            })),
          };
    })
    .unary(adminMethods.pinRegion, async (request, call) => {
      context.check(request.header, call);
      if (!isSafeId(request.regionId) || placement.cluster.tree.get(regionId(request.regionId)) === undefined) {
        return { refusal: refusalToWire(regionNotFound(request.regionId)), changed: false };
      }
      const changed = await node.pinRegion(regionId(request.regionId), request.pinned, authorOf(request.header));
      return { refusal: undefined, changed };
    })
    .unary(adminMethods.pauseRegion, async (request, call) => {
      context.check(request.header, call);
      const { actor } = authorOf(request.header);
      const paused = isSafeId(request.regionId)
        ? await node.pauses.pause(regionId(request.regionId), { reason: request.reason, forMs: request.forMs, actor })
        : refused<PauseOutcome>(regionNotFound(request.regionId));
      return paused.type === 'refused'
        ? { refusal: refusalToWire(paused.refusal), changed: false, stoppedOperatorIds: [], goingOperatorIds: [] }
        : {
            refusal: undefined,
            changed: true,
            stoppedOperatorIds: paused.value.stopped.map(({ id }) => id),
            goingOperatorIds: paused.value.going.map(({ id }) => id),
          };
    })
    .unary(adminMethods.resumeRegion, async (request, call) => {
      context.check(request.header, call);
      const resumed = isSafeId(request.regionId)
        ? await node.pauses.resume(regionId(request.regionId), authorOf(request.header).actor)
        : refused<boolean>(regionNotFound(request.regionId));
      return {
        refusal: resumed.type === 'refused' ? refusalToWire(resumed.refusal) : undefined,
        changed: resumed.type === 'ok' && resumed.value,
        stoppedOperatorIds: [],
        goingOperatorIds: [],
      };
    });
}

function resultToWire(result: DocumentResult, toWire: (resource: Resource) => Document): WireResult {
  return {
    kind: result.kind,
    name: result.name,
    outcome: result.outcome,
    refusal: result.refusal === undefined ? undefined : refusalToWire(result.refusal),
    warnings: [...result.warnings],
    before: result.before === undefined ? undefined : toWire(result.before),
    after: result.after === undefined ? undefined : toWire(result.after),
  };
}

function documentToWire(resource: Resource, placement: Placement, nowMs: number): Document {
  const { kind, meta, status } = resource;
  const regions = resource.kind === 'Partition' ? placement.cluster.tree.scan(resource.spec.range, REGIONS_MAX) : [];
  const facts = placement.resources.facts();
  const pods = new Map<number, string>();
  for (const { region } of regions) {
    for (const { storeId } of region.peers) {
      pods.set(storeId, facts.podOfStore(storeId) ?? '');
    }
  }
  return {
    kind,
    name: meta.name,
    uid: meta.uid,
    generation: meta.generation,
    resourceVersion: meta.resourceVersion,
    createdUnixMs: meta.createdWallMs,
    specJson: JSON.stringify(specShown(resource)),
    statusJson: JSON.stringify(statusShown(resource)),
    conditions: status.conditions.map(({ type, message }) => ({ type, message })),
    regions: regions.map((info) => regionToWire(info, placement, nowMs)),
    pods,
    remainingMs: resource.kind === 'Assignment' ? resource.status.remainingMs : 0,
    settled: resource.kind === 'Assignment' ? !isActive(resource) : isServed(resource),
    changedBy: meta.author?.actor ?? '',
    changeReason: meta.author?.reason ?? '',
  };
}
