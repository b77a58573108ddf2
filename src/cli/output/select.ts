/**
 * Which rows of a list are shown, in which order and with which fields: `--where`, `--sort-by`, `--limit`, `--fields`.
 * Names are heads of columns, or fields of the row's document with dots between them, so that whatever `-o json` shows
 * can be asked for. Rows are compared by their exact values and not by the text in the table.
 */
import { compareBytes, utf8 } from '../../base/bytes.ts';
import { parseDurationMs, parseSizeBytes } from '../../base/units.ts';
import { closestName } from '../../client/options.ts';
import { UsageError } from '../failure.ts';
import type { Column } from './table.ts';

/** Longest match first. */
const OPERATORS = ['!=', '<=', '>=', '=', '<', '>', '~'] as const;
type Operator = (typeof OPERATORS)[number];

/** One `--where`. */
export interface Condition {
  readonly name: string;
  readonly operator: Operator;
  readonly literal: string;
}

/** What the rows of one list have. */
export interface RowShape<R> {
  readonly columns: readonly Column<R>[];
  readonly toObject: (row: R) => object;
}

/** `size<1MiB`, `state=up`, `address~10.0.`; undefined when it is none. */
export function parseCondition(text: string): Condition | undefined {
  const match = /^\s*([^!<>=~]+?)\s*(!=|<=|>=|=|<|>|~)\s*(.*?)\s*$/s.exec(text);
  return match === null
    ? undefined
    : { name: match[1] as string, operator: match[2] as Operator, literal: match[3] as string };
}

type Getter<R> = (row: R) => unknown;

/**
 * The rows for which every condition holds.
 * @param isPart these are some rows of a list that goes on: a field that they all lack may be there in later ones
 * @throws UsageError for a name or a literal that makes no sense
 */
export function filterRows<R>(
  shape: RowShape<R>,
  rows: readonly R[],
  conditions: readonly Condition[],
  isPart: boolean,
): readonly R[] {
  let left = rows;
  for (const condition of conditions) {
    const get = getter(shape, rows, condition.name, '--where', { isPart });
    left = left.filter((row) => holds(get(row), condition));
  }
  return left;
}

/** @param by a name; a leading minus reverses. Rows that compare equal keep their order. */
export function sortRows<R>(shape: RowShape<R>, rows: readonly R[], by: string): readonly R[] {
  const get = getter(shape, rows, by.replace(/^-/, ''), '--sort-by');
  const sign = by.startsWith('-') ? -1 : 1;
  return rows.toSorted((a, b) => sign * compareValues(scalar(get(a)), scalar(get(b))));
}

/** The same rows with these fields alone: in documents under their names, in tables as columns. */
export function withFields<R>(shape: RowShape<R>, rows: readonly R[], fields: readonly string[]): RowShape<R> {
  const getters = fields.map((name) => [name, getter(shape, rows, name, '--fields', { isFieldFirst: true })] as const);
  return {
    columns: getters.map(([name, get]) => ({
      head: name,
      cell: (row) => cellText(get(row)),
      value: (row) => scalar(get(row)),
    })),
    toObject: (row) => Object.fromEntries(getters.map(([name, get]) => [name, get(row) ?? null])),
  };
}

function getter<R>(
  shape: RowShape<R>,
  rows: readonly R[],
  name: string,
  flag: string,
  { isFieldFirst = false, isPart = false } = {},
): Getter<R> {
  const column = findColumn(shape.columns, name);
  const path = name.split('.');
  const ofField: Getter<R> = (row) => valueAt(shape.toObject(row), path);
  // Not every row has every field, but a field that no row has is mistyped.
  const isField = rows.some((row) => hasField(shape.toObject(row), path));
  if (column !== undefined && !(isFieldFirst && isField)) {
    return column.value ?? column.cell;
  }
  if (isField || isPart || rows.length === 0) {
    return ofField;
  }
  const heads = shape.columns.map(({ head }) => head);
  const fields = Object.keys(shape.toObject(rows[0] as R));
  const closest = closestName(name, [...heads, ...fields]);
  throw new UsageError(
    `${flag} names no column and no field ${JSON.stringify(name)}`,
    `${closest === undefined ? '' : `did you mean ${closest}? `}columns: ${heads.join(', ')}; fields: ${fields.join(', ')}`,
  );
}

export const findColumn = <R>(columns: readonly Column<R>[], head: string): Column<R> | undefined =>
  columns.find((column) => column.head.toLowerCase() === head.toLowerCase());

const asObject = (value: unknown): Readonly<Record<string, unknown>> | undefined =>
  typeof value === 'object' && value !== null && !(value instanceof Uint8Array)
    ? (value as Readonly<Record<string, unknown>>)
    : undefined;

/** Of a list the values of all its members: `peers.storeId` is every store of a region. */
function valueAt(value: unknown, path: readonly string[]): unknown {
  const [first, ...rest] = path;
  if (first === undefined) {
    return value;
  }
  if (Array.isArray(value)) {
    return (value as readonly unknown[]).map((member) => valueAt(member, path)).filter((one) => one !== undefined);
  }
  const object = asObject(value);
  return object !== undefined && Object.hasOwn(object, first) ? valueAt(object[first], rest) : undefined;
}

function hasField(value: unknown, path: readonly string[]): boolean {
  const [first, ...rest] = path;
  if (first === undefined) {
    return true;
  }
  if (Array.isArray(value)) {
    return (value as readonly unknown[]).some((member) => hasField(member, path));
  }
  const object = asObject(value);
  return object !== undefined && Object.hasOwn(object, first) && hasField(object[first], rest);
}

// ---------------------------------------------------------------------------------------------------------- comparing

type Scalar = string | number | bigint | boolean | undefined;

function scalar(value: unknown): Scalar {
  switch (typeof value) {
    case 'string':
    case 'number':
    case 'bigint':
    case 'boolean':
      return value;
    default:
      return value === null || value === undefined ? undefined : JSON.stringify(value);
  }
}

const cellText = (value: unknown): string | number => {
  const one = Array.isArray(value) ? value.map((member) => String(scalar(member) ?? '')).join(',') : scalar(value);
  return typeof one === 'number' ? one : one === undefined ? '' : String(one);
};

/** Of a list one member is enough; nothing at all equals only the empty literal. */
function holds(value: unknown, condition: Condition): boolean {
  if (Array.isArray(value)) {
    const members = value as readonly unknown[];
    if (members.length === 0) {
      return holds(undefined, condition);
    }
    return condition.operator === '!='
      ? members.every((member) => holds(member, condition))
      : members.some((member) => holds(member, condition));
  }
  const actual = scalar(value);
  const { operator, literal } = condition;
  if (actual === undefined || actual === '') {
    return operator === '=' ? literal === '' : operator === '!=' && literal !== '';
  }
  if (operator === '~') {
    return String(actual).toLowerCase().includes(literal.toLowerCase());
  }
  if (literal === '') {
    return operator === '!=';
  }
  const order = compareValues(actual, literalLike(actual, condition));
  switch (operator) {
    case '=':
      return order === 0;
    case '!=':
      return order !== 0;
    case '<':
      return order < 0;
    case '<=':
      return order <= 0;
    case '>':
      return order > 0;
    case '>=':
      return order >= 0;
  }
}

const WORDS_OF_TRUTH: Readonly<Record<string, boolean>> = { true: true, yes: true, false: false, no: false };

/** The literal as the kind of value it is compared with: sizes in bytes, durations in milliseconds. */
function literalLike(actual: Exclude<Scalar, undefined>, { name, literal }: Condition): Scalar {
  if (typeof actual === 'string') {
    return literal;
  }
  if (typeof actual === 'boolean') {
    const truth = WORDS_OF_TRUTH[literal.toLowerCase()];
    if (truth === undefined) {
      throw new UsageError(
        `--where compares ${name}, which is true or false, with ${JSON.stringify(literal)}`,
        'write true or false',
      );
    }
    return truth;
  }
  const number = numeric(literal) ?? parseSizeBytes(literal) ?? parseDurationMs(literal);
  if (number === undefined) {
    throw new UsageError(
      `--where compares ${name}, which is a number, with ${JSON.stringify(literal)}`,
      'write a number, a size such as 1MiB or a duration such as 10s',
    );
  }
  return number;
}

/** Numbers by size, also when they are text; everything else by its bytes; nothing at all comes first. */
export function compareValues(a: Scalar, b: Scalar): number {
  if (a === undefined || b === undefined) {
    return Number(a !== undefined) - Number(b !== undefined);
  }
  const [x, y] = [numeric(a), numeric(b)];
  if (x !== undefined && y !== undefined) {
    return x < y ? -1 : x > y ? 1 : 0;
  }
  return compareBytes(utf8(String(a)), utf8(String(b)));
}

function numeric(value: Exclude<Scalar, undefined>): number | bigint | undefined {
  if (typeof value === 'bigint') {
    return value;
  }
  const number = value === '' ? Number.NaN : Number(value);
  if (typeof value === 'string' && !Number.isSafeInteger(number) && /^-?\d+$/.test(value)) {
    // Texts of 64-bit values differ beyond what a double holds.
    return BigInt(value);
  }
  return Number.isFinite(number) ? number : undefined;
}
