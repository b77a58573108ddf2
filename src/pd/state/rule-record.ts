/** Bytes of placement rules: one record holds all of them, because they change seldom and are read together. */
import { copyBytes, utf8 } from '../../base/bytes.ts';
import { RecordError, decodeRecord, encodeRecord, fieldArray, fieldBytes, fieldInt } from '../../codec/record.ts';
import { CONSTRAINT_OPS, type PlacementRule, RULE_ROLES, compareRules } from '../schedule/placement/rule.ts';
import type { SavedRules } from './pd-state.ts';

const VERSION = 1;

export const RULES_KEY: Uint8Array = utf8('pd/rules');

/** In an order that every member writes. */
export const encodeRules = ({ version, rules }: SavedRules): Uint8Array =>
  encodeRecord(VERSION, [version, [...rules].sort(compareRules).map(ruleFields)]);

export function decodeRules(bytes: Uint8Array): SavedRules {
  const { fields } = decodeRecord(bytes, 'placement rules', VERSION, 2);
  return {
    version: fieldInt(fields[0], 'version of the placement rules'),
    rules: fieldArray(fields[1], 'placement rules').map(ruleOfFields),
  };
}

export const ruleFields = (rule: PlacementRule): readonly unknown[] => [
  rule.group,
  rule.id,
  rule.index,
  rule.override,
  rule.range.start,
  rule.range.end,
  RULE_ROLES.indexOf(rule.role),
  rule.count,
  rule.constraints.map(({ key, op, values }) => [key, CONSTRAINT_OPS.indexOf(op), values]),
  rule.locationLabels,
  rule.isolationLevel,
  rule.version,
];

function text(value: unknown): string {
  if (typeof value !== 'string') {
    throw new RecordError('a field of a placement rule is not text');
  }
  return value;
}

/** @throws RecordError */
export function ruleOfFields(value: unknown): PlacementRule {
  const f = fieldArray(value, 'placement rule');
  const role = RULE_ROLES[fieldInt(f[6], 'role')];
  if (role === undefined) {
    throw new RecordError(`a placement rule has the unknown role ${String(f[6])}`);
  }
  return {
    group: text(f[0]),
    id: text(f[1]),
    index: fieldInt(f[2], 'index'),
    override: f[3] === true,
    // Copies: the record may be a view of a larger one.
    range: { start: copyBytes(fieldBytes(f[4], 'start')), end: copyBytes(fieldBytes(f[5], 'end')) },
    role,
    count: fieldInt(f[7], 'count'),
    constraints: fieldArray(f[8], 'constraints').map((item) => {
      const [key, number, values] = fieldArray(item, 'constraint');
      const op = CONSTRAINT_OPS[fieldInt(number, 'comparison')];
      if (op === undefined) {
        throw new RecordError(`a constraint has the unknown comparison ${String(number)}`);
      }
      return { key: text(key), op, values: fieldArray(values, 'values').map(text) };
    }),
    locationLabels: fieldArray(f[9], 'location labels').map(text),
    isolationLevel: text(f[10]),
    version: fieldInt(f[11], 'version'),
  };
}
