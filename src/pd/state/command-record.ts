/** Bytes of the commands of the placement service, as they stand in its replicated log. */
import { unreachable } from '../../base/assert.ts';
import { decodeRegion, encodeRegion } from '../../codec/raft-records.ts';
import { RecordError, decodeRecord, encodeRecord, fieldArray, fieldBytes, fieldInt } from '../../codec/record.ts';
import { regionId } from '../../base/ids.ts';
import { RESOURCE_KINDS, type ResourceKind } from '../resource/resource.ts';
import type { ResourceChange } from '../resource/resource-store.ts';
import type { RuleChange } from '../schedule/placement/rule-plan.ts';
import type { SettingsChange } from '../settings.ts';
import { packAudit, unpackAudit } from './audit-log.ts';
import type { DocumentChanges, PdCommand, PlainCommand, SchedulerWrite } from './pd-state.ts';
import { ruleFields, ruleOfFields } from './rule-record.ts';
import { schedulerFields, schedulerOfFields } from './scheduler-record.ts';
import { settingsFields, settingsOfFields } from './settings-record.ts';
import { decodePause, decodeResource, decodeStore, encodePause, encodeResource, encodeStore } from './record.ts';

const VERSION = 1;

/** Numbers of commands; never given another meaning. */
const KIND = {
  'init-cluster': 1,
  bootstrap: 2,
  'put-store': 3,
  'set-max-replicas': 4,
  'extend-ids': 5,
  'extend-tso': 6,
  'set-switch': 7,
  'advance-gc-safe-point': 8,
  'put-service-safe-point': 9,
  'drop-service-safe-point': 10,
  'change-resources': 11,
  'pin-region': 12,
  'pause-range': 13,
  'resume-range': 14,
  'forget-pauses': 15,
  'change-rules': 16,
  'change-scheduler': 17,
  'change-documents': 18,
  audited: 32,
} as const satisfies Record<PdCommand['type'], number>;

function fieldsOf(command: PdCommand): unknown[] {
  switch (command.type) {
    case 'init-cluster':
      return [command.clusterId, command.maxReplicas];
    case 'bootstrap':
      return [encodeStore(command.store), encodeRegion(command.region), command.wallMs];
    case 'put-store':
      return [encodeStore(command.record)];
    case 'set-max-replicas':
      return [command.maxReplicas];
    case 'extend-ids':
      return [command.expected, command.limit];
    case 'extend-tso':
      return [command.savedMs];
    case 'set-switch':
      return [
        command.name,
        command.enabled,
        ...(command.untilWallMs === undefined && command.expectVersion === undefined
          ? []
          : [command.untilWallMs ?? null]),
        ...(command.expectVersion === undefined ? [] : [command.expectVersion]),
      ];
    case 'advance-gc-safe-point':
      return [command.safePoint];
    case 'put-service-safe-point':
      return [command.point.serviceId, command.point.safePoint, command.point.expiresAtSeconds];
    case 'drop-service-safe-point':
      return [command.serviceId];
    case 'change-resources':
      return resourceChangeFields(command.change);
    case 'pin-region':
      return [command.id, command.pinned];
    case 'pause-range':
      return [encodePause(command.pause)];
    case 'resume-range':
      return [command.range.start, command.range.end];
    case 'forget-pauses':
      return [command.wallMs];
    case 'change-rules':
      return ruleChangeFields(command.change);
    case 'change-documents': {
      const { resources, rules, settings, schedulers = [], switches = [] } = command;
      return [
        resources === undefined ? null : resourceChangeFields(resources),
        rules === undefined ? null : ruleChangeFields(rules),
        settings === undefined ? null : [settings.baseVersion, settingsFields(settings.settings)],
        schedulers.map(({ record, baseVersion }) => [baseVersion, schedulerFields(record)]),
        switches.map(({ name, enabled }) => [name, enabled]),
      ];
    }
    case 'change-scheduler':
      return [command.baseVersion, schedulerFields(command.record)];
    case 'audited':
      return [command.command === undefined ? null : encodeCommand(command.command), command.audits.map(packAudit)];
    default:
      return unreachable(command);
  }
}

const resourceChangeFields = ({ baseVersion, version, puts, deletes }: ResourceChange): unknown[] => [
  baseVersion,
  version,
  puts.map(encodeResource),
  deletes.map(({ kind, name }) => [kind, name]),
];

const ruleChangeFields = ({ baseVersion, version, puts, deletes }: RuleChange): unknown[] => [
  baseVersion,
  version,
  puts.map(ruleFields),
  deletes.map(({ group, id }) => [group, id]),
];

export function encodeCommand(command: PdCommand): Uint8Array {
  return encodeRecord(VERSION, [KIND[command.type], ...fieldsOf(command)]);
}

function text(value: unknown): string {
  if (typeof value !== 'string') {
    throw new RecordError('a field of a command is not text');
  }
  return value;
}

const big = (value: unknown): bigint => (typeof value === 'bigint' ? value : BigInt(fieldInt(value, 'safe point')));
const int = (value: unknown): number => fieldInt(value, 'a field of a command');
const bytesOf = (value: unknown): Uint8Array => fieldBytes(value, 'a field of a command');

function resourceName(value: unknown): { readonly kind: ResourceKind; readonly name: string } {
  const [kind, name] = fieldArray(value, 'deleted document');
  const known = RESOURCE_KINDS.find((each) => each === kind);
  if (known === undefined) {
    throw new RecordError(`a deleted document has the unknown kind ${String(kind)}`);
  }
  return { kind: known, name: text(name) };
}

const resourceChangeOf = (f: readonly unknown[]): ResourceChange => ({
  baseVersion: int(f[0]),
  version: int(f[1]),
  puts: fieldArray(f[2], 'documents').map((document) => decodeResource(bytesOf(document))),
  deletes: fieldArray(f[3], 'deleted documents').map(resourceName),
});

const ruleChangeOf = (f: readonly unknown[]): RuleChange => ({
  baseVersion: int(f[0]),
  version: int(f[1]),
  puts: fieldArray(f[2], 'placement rules').map(ruleOfFields),
  deletes: fieldArray(f[3], 'deleted placement rules').map((name) => {
    const [group, id] = fieldArray(name, 'deleted placement rule');
    return { group: text(group), id: text(id) };
  }),
});

const settingsChangeOf = (f: readonly unknown[]): SettingsChange => ({
  baseVersion: int(f[0]),
  settings: settingsOfFields(f[1]),
});

/** Empty lists are left out, as in the command they come from. */
function schedulersOf(schedulers: unknown, switches: unknown): Pick<DocumentChanges, 'schedulers' | 'switches'> {
  const writes = fieldArray(schedulers, 'schedulers').map((item): SchedulerWrite => {
    const [baseVersion, record] = fieldArray(item, 'scheduler');
    return { baseVersion: int(baseVersion), record: schedulerOfFields(record) };
  });
  const settings = fieldArray(switches, 'switches').map((item) => {
    const [name, enabled] = fieldArray(item, 'switch');
    return { name: text(name), enabled: enabled === true };
  });
  return {
    ...(writes.length === 0 ? {} : { schedulers: writes }),
    ...(settings.length === 0 ? {} : { switches: settings }),
  };
}

/** A number that may be negative or broken: the state machine refuses it, in the same way everywhere. */
function anyNumber(value: unknown): number {
  const number = typeof value === 'bigint' ? Number(value) : value;
  if (typeof number !== 'number') {
    throw new RecordError('a field of a command is not a number');
  }
  return number;
}

/** @throws RecordError for commands that only a newer program knows: skipping one would make members differ. */
export function decodeCommand(bytes: Uint8Array): PdCommand {
  const { fields: f } = decodeRecord(bytes, 'command', VERSION, 2);
  return f[0] === KIND.audited
    ? {
        type: 'audited',
        command: f[1] === null ? undefined : decodePlain(decodeRecord(bytesOf(f[1]), 'command', VERSION, 2).fields),
        audits: fieldArray(f[2], 'audit entries').map(unpackAudit),
      }
    : decodePlain(f);
}

function decodePlain(f: readonly unknown[]): PlainCommand {
  switch (f[0]) {
    case KIND['init-cluster']:
      return { type: 'init-cluster', clusterId: big(f[1]), maxReplicas: anyNumber(f[2]) };
    case KIND.bootstrap:
      return {
        type: 'bootstrap',
        store: decodeStore(bytesOf(f[1])),
        region: decodeRegion(bytesOf(f[2])),
        wallMs: int(f[3]),
      };
    case KIND['put-store']:
      return { type: 'put-store', record: decodeStore(bytesOf(f[1])) };
    case KIND['set-max-replicas']:
      return { type: 'set-max-replicas', maxReplicas: anyNumber(f[1]) };
    case KIND['extend-ids']:
      return { type: 'extend-ids', expected: int(f[1]), limit: int(f[2]) };
    case KIND['extend-tso']:
      return { type: 'extend-tso', savedMs: int(f[1]) };
    case KIND['set-switch']:
      return {
        type: 'set-switch',
        name: text(f[1]),
        enabled: f[2] === true,
        ...(f[3] === undefined || f[3] === null ? {} : { untilWallMs: int(f[3]) }),
        ...(f[4] === undefined ? {} : { expectVersion: int(f[4]) }),
      };
    case KIND['advance-gc-safe-point']:
      return { type: 'advance-gc-safe-point', safePoint: big(f[1]) };
    case KIND['put-service-safe-point']:
      return {
        type: 'put-service-safe-point',
        point: { serviceId: text(f[1]), safePoint: big(f[2]), expiresAtSeconds: int(f[3]) },
      };
    case KIND['drop-service-safe-point']:
      return { type: 'drop-service-safe-point', serviceId: text(f[1]) };
    case KIND['change-resources']:
      return { type: 'change-resources', change: resourceChangeOf(f.slice(1)) };
    case KIND['pin-region']:
      return { type: 'pin-region', id: regionId(int(f[1])), pinned: f[2] === true };
    case KIND['pause-range']:
      return { type: 'pause-range', pause: decodePause(bytesOf(f[1])) };
    case KIND['resume-range']:
      return { type: 'resume-range', range: { start: bytesOf(f[1]), end: bytesOf(f[2]) } };
    case KIND['forget-pauses']:
      return { type: 'forget-pauses', wallMs: int(f[1]) };
    case KIND['change-rules']:
      return { type: 'change-rules', change: ruleChangeOf(f.slice(1)) };
    case KIND['change-documents']:
      return {
        type: 'change-documents',
        ...(f[1] === null ? {} : { resources: resourceChangeOf(fieldArray(f[1], 'documents')) }),
        ...(f[2] === null ? {} : { rules: ruleChangeOf(fieldArray(f[2], 'placement rules')) }),
        ...(f[3] === null ? {} : { settings: settingsChangeOf(fieldArray(f[3], 'settings')) }),
        ...schedulersOf(f[4] ?? [], f[5] ?? []),
      };
    case KIND['change-scheduler']:
      return { type: 'change-scheduler', baseVersion: int(f[1]), record: schedulerOfFields(f[2]) };
    default:
      throw new RecordError(`the log holds a command of the unknown kind ${String(f[0])}`);
  }
}
