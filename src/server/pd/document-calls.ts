/** Calls of braid.admin.v1.Admin about documents of all kinds, and about pinned and paused regions. */
import { isSafeId, regionId } from '../../base/ids.ts';
import { RpcError, RpcStatus } from '../../env/net.ts';
import type {
  ApplyDocumentsResponse,
  Document,
  DocumentResult as WireResult,
  RequestHeader,
} from '../../gen/braid/admin/v1/admin.ts';
import type { RegionEpoch } from '../../meta/region.ts';
import type { Author } from '../../pd/cluster/events.ts';
import type { PauseOutcome } from '../../pd/pause-keeper.ts';
import type { PdNode } from '../../pd/pd-node.ts';
import type { Placement } from '../../pd/placement.ts';
import { configSpecShown } from '../../pd/resource/config-document.ts';
import {
  type AnyDocument,
  type AnyResult,
  type ConfigDocument,
  type DocumentsPlan,
  type RuleDocument,
  nameOf,
} from '../../pd/resource/document-plan.ts';
import { type Resource, isActive, isServed } from '../../pd/resource/resource.ts';
import { ruleSpecShown } from '../../pd/resource/rule-document.ts';
import {
  type SchedulerDocument,
  isUnchanged,
  parameterShown,
  schedulerSpecShown,
} from '../../pd/resource/scheduler-document.ts';
import { parametersOf } from '../../pd/schedule/parameters.ts';
import { switchInfo } from '../../pd/schedule/switches.ts';
import type { DocumentPlan } from '../../pd/resource/resources.ts';
import { effectiveSettings, formatValue, settingOf, showSettings } from '../../pd/settings.ts';
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

const expectedEpoch = (epoch: RegionEpoch | undefined): { readonly expectEpoch?: RegionEpoch } =>
  epoch === undefined ? {} : { expectEpoch: epoch };

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
  const toWire = (document: AnyDocument, isAlone = false): Document =>
    anyToWire(document, node, clock.monoMs(), isAlone);
  const answer = (plan: Answered): ApplyDocumentsResponse => ({
    refusal: plan.refusal === undefined ? undefined : refusalToWire(plan.refusal),
    results: plan.results.map((result) => resultToWire(result, toWire)),
  });
  const change = async (run: () => Promise<Answered>): Promise<ApplyDocumentsResponse> => {
    if (!node.isBootstrapped) {
      const refusal = refuse('NotBootstrapped', 'the cluster has no store yet', 'start a store');
      return { refusal: refusalToWire(refusal), results: [] };
    }
    return answer(await run());
  };
  builder
    .unary(adminMethods.applyDocuments, (request, call) => {
      context.check(request.header, call);
      if (request.documents.reduce((sum, text) => sum + text.length, 0) > REQUEST_CHARS_MAX) {
        throw new RpcError(RpcStatus.INVALID_ARGUMENT, `documents of more than ${REQUEST_CHARS_MAX} characters`);
      }
      const documents = request.documents.map(fromText);
      const { dryRun, header } = request;
      return change(() => node.documents.apply(documents, { dryRun, author: authorOf(header) }));
    })
    .unary(adminMethods.deleteDocument, (request, call) => {
      context.check(request.header, call);
      const { kind, name, expectVersion, dryRun, header } = request;
      const author = authorOf(header);
      return change(() => node.documents.delete(kind, name, { expectVersion, dryRun, author }));
    })
    .unary(adminMethods.retryAssignment, (request, call) => {
      context.check(request.header, call);
      const { name, header, expectVersion } = request;
      const author = authorOf(header);
      const plan = (): DocumentPlan => placement.resources.planRetry(name, author, expectVersion);
      return change(() => node.changeDocuments(plan, { dryRun: false, author }));
    })
    .unary(adminMethods.listDocuments, (request, call) => {
      context.check(request.header, call);
      const found = node.documents.list(request.kind, request.name);
      const { version } = placement.resources.store;
      return 'code' in found
        ? { refusal: refusalToWire(found), documents: [], version }
        : { refusal: undefined, documents: found.map((document) => toWire(document, request.name !== '')), version };
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
      const author = authorOf(request.header);
      const pinned = await node.pinRegion(regionId(request.regionId), request.pinned, author, request.expectEpoch);
      return pinned.type === 'refused'
        ? { refusal: refusalToWire(pinned.refusal), changed: false }
        : { refusal: undefined, changed: pinned.value };
    })
    .unary(adminMethods.pauseRegion, async (request, call) => {
      context.check(request.header, call);
      const { actor, reason } = authorOf(request.header);
      const paused = isSafeId(request.regionId)
        ? await node.pauses.pause(regionId(request.regionId), {
            reason: request.reason === '' ? reason : request.reason,
            forMs: request.forMs,
            actor,
            ...expectedEpoch(request.expectEpoch),
          })
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
        ? await node.pauses.resume(regionId(request.regionId), {
            ...authorOf(request.header),
            ...expectedEpoch(request.expectEpoch),
          })
        : refused<boolean>(regionNotFound(request.regionId));
      return {
        refusal: resumed.type === 'refused' ? refusalToWire(resumed.refusal) : undefined,
        changed: resumed.type === 'ok' && resumed.value,
        stoppedOperatorIds: [],
        goingOperatorIds: [],
      };
    });
}

/** What of a plan is told. */
type Answered = Pick<DocumentsPlan, 'refusal' | 'results'>;

function resultToWire(result: AnyResult, toWire: (document: AnyDocument) => Document): WireResult {
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

/** @param isAlone it was asked for by its name: all regions of a rule are looked at only then */
function anyToWire(document: AnyDocument, node: PdNode, nowMs: number, isAlone: boolean): Document {
  switch (document.kind) {
    case 'PlacementRule':
      return ruleToWire(document, node.placement, isAlone);
    case 'Scheduler':
      return schedulerToWire(document, node.placement);
    case 'Config':
      return configToWire(document, node);
    default:
      return documentToWire(document, node.placement, nowMs);
  }
}

/** Kinds that have neither a status nor regions of their own. */
const plainToWire = (
  document: RuleDocument | SchedulerDocument | ConfigDocument,
  resourceVersion: number,
  spec: unknown,
): Document => ({
  kind: document.kind,
  name: nameOf(document),
  uid: '',
  generation: 0,
  resourceVersion,
  createdUnixMs: 0,
  specJson: JSON.stringify(spec),
  statusJson: 'null',
  conditions: [],
  regions: [],
  pods: new Map(),
  remainingMs: 0,
  settled: true,
  changedBy: '',
  changeReason: '',
  observedJson: '',
});

function ruleToWire(document: RuleDocument, { cluster }: Placement, isAlone: boolean): Document {
  const { rule } = document;
  const wire = plainToWire(document, rule.version, ruleSpecShown(rule));
  if (!isAlone) {
    return wire;
  }
  const regions = cluster.tree.overlaps(rule.range);
  const observed = {
    regions: regions.length,
    regionsToSplit: regions.filter(({ region }) => cluster.rules.bordersIn(region.range).length > 0).length,
    regionsToChange: regions.filter((info) => !cluster.isFullyReplicated(info)).length,
  };
  return { ...wire, observedJson: JSON.stringify(observed) };
}

function schedulerToWire(document: SchedulerDocument, { cluster, switches }: Placement): Document {
  const { name, record } = document;
  const { schedulers } = cluster;
  const observed = {
    description: switchInfo(name).description,
    changed: !isUnchanged(document),
    on: switches.isOn(name),
    pausedUntilUnixMs: switches.offUntilWallMs(name) ?? null,
    added: schedulers.isPresent(name),
    stores: record.stores,
    parameters: parametersOf(name).map((spec) => ({
      name: spec.name,
      value: parameterShown(spec, schedulers.valueOf(name, spec)),
      default: parameterShown(spec, spec.defaultOf(schedulers.configured)),
      min: parameterShown(spec, spec.minOf(schedulers.configured)),
      max: parameterShown(spec, spec.maxOf(schedulers.configured)),
      description: spec.description,
    })),
  };
  return {
    ...plainToWire(document, document.version, schedulerSpecShown(document)),
    observedJson: JSON.stringify(observed),
  };
}

function configToWire(document: ConfigDocument, { fileConfig, placement }: PdNode): Document {
  const { settings } = document;
  const { baseConfig, schedulers } = placement.cluster;
  const { problem } = effectiveSettings(baseConfig, settings.values);
  return {
    ...plainToWire(document, settings.version, configSpecShown(settings)),
    createdUnixMs: settings.changedWallMs,
    conditions: problem === undefined ? [] : [{ type: 'NotInEffect', message: problem }],
    changedBy: settings.author?.actor ?? '',
    changeReason: settings.author?.reason ?? '',
    observedJson: JSON.stringify({
      settings: showSettings(fileConfig, baseConfig, settings.values, schedulers.overrides()).map((shown) => {
        const setting = settingOf(shown.name);
        // Of switches and lists the limits say nothing.
        return setting === undefined || setting.kind === 'boolean' || setting.kind === 'labels'
          ? shown
          : { ...shown, min: formatValue(setting, setting.min), max: formatValue(setting, setting.max) };
      }),
    }),
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
    observedJson: '',
  };
}
