/** Documents as they are shown: the words of the founding documents, nothing more. Details go beside the status. */
import { fromUtf8, toHex } from '../../base/bytes.ts';
import type { KeyRange } from '../../base/key-range.ts';
import type { Assignment, AssignmentSpec, KeyEncoding, Partition, PartitionSpec, Resource } from './resource.ts';

type Shown = Readonly<Record<string, unknown>>;

const keyText = (key: Uint8Array, encoding: KeyEncoding): string => (encoding === 'hex' ? toHex(key) : fromUtf8(key));

/** Open ends are left out. */
function rangeShown(range: KeyRange, encoding: KeyEncoding): Shown {
  return {
    ...(range.start.length === 0 ? {} : { start: keyText(range.start, encoding) }),
    ...(range.end.length === 0 ? {} : { end: keyText(range.end, encoding) }),
    ...(encoding === 'text' ? {} : { encoding }),
  };
}

function partitionSpecShown(spec: PartitionSpec): Shown {
  const range = rangeShown(spec.range, spec.encoding);
  if (spec.form === 'pods') {
    return { range, assignedPods: spec.pods.map((pod) => ({ name: pod.name, type: pod.type })) };
  }
  const named = spec.pods.filter((pod) => pod.type !== 'follower').map((pod) => [pod.type, pod.name]);
  return { range, ...(Object.fromEntries(named) as Shown) };
}

const thresholdShown = (ms: number | undefined): Shown =>
  ms === undefined ? {} : { proxyThreshold: ms % 1000 === 0 ? `${ms / 1000}s` : `${ms}ms` };

function assignmentSpecShown(spec: AssignmentSpec): Shown {
  switch (spec.type) {
    case 'New':
      return { type: spec.type, newParams: { partition: spec.partition, primary: spec.primary } };
    case 'InWorkerSplit':
      return {
        type: spec.type,
        splitParams: {
          partition: spec.partition,
          splitKey: keyText(spec.splitKey, spec.encoding),
          ...(spec.encoding === 'text' ? {} : { encoding: spec.encoding }),
          ...(spec.names === undefined ? {} : { names: spec.names }),
        },
      };
    case 'InWorkerMerge':
      return {
        type: spec.type,
        mergeParams: {
          partitions: spec.partitions,
          ...(spec.mergedName === undefined ? {} : { mergedName: spec.mergedName }),
          ...(spec.gapPolicy === undefined ? {} : { gapPolicy: spec.gapPolicy }),
          ...(spec.strict ? { strict: true } : {}),
          ...(spec.force ? { force: true } : {}),
          ...thresholdShown(spec.proxyThresholdMs),
        },
      };
    case 'InterWorkerMove':
      return {
        type: spec.type,
        moveParams: {
          partition: spec.partition,
          from: spec.from,
          to: spec.to,
          ...thresholdShown(spec.proxyThresholdMs),
        },
      };
  }
}

export const specShown = (resource: Resource): Shown =>
  resource.kind === 'Partition' ? partitionSpecShown(resource.spec) : assignmentSpecShown(resource.spec);

/** Null while there is nothing to say. */
export function statusShown(resource: Resource): unknown {
  return resource.kind === 'Partition' ? partitionStatusShown(resource) : assignmentStatusShown(resource);
}

function partitionStatusShown({ spec, status }: Partition): unknown {
  if (spec.form === 'primary') {
    return status.ready ? 'ready' : null;
  }
  return status.pods.length === 0 ? null : Object.fromEntries(status.pods);
}

function assignmentStatusShown({ spec, status }: Assignment): unknown {
  if (status.phase === '') {
    return null;
  }
  const parts = Object.fromEntries(status.parts);
  switch (spec.type) {
    case 'New':
      return { new: { status: status.phase } };
    case 'InWorkerSplit':
      return { split: { status: status.phase, fromPart: status.main, splits: parts } };
    case 'InWorkerMerge':
      return { merge: { status: status.phase, mergedPart: status.main, subParts: parts } };
    case 'InterWorkerMove':
      return { move: { status: status.phase, ...parts } };
  }
}
