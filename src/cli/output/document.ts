/**
 * The machine-readable face: JSON and YAML documents. Field names are API: they may be added to, never change meaning.
 * Ids are numbers, 64-bit values decimal strings, durations end in `Ms`, sizes in `Bytes`.
 */
import { parseAllDocuments, stringify } from 'yaml';

export const API_VERSION = 'braid/v1';

/** A document's `kind` and fields; `apiVersion` is added on output. */
export interface Document {
  readonly kind: string;
  readonly [field: string]: unknown;
}

/** A plain copy without undefined fields, bigint as text. */
function plain(value: unknown): unknown {
  if (typeof value === 'bigint') {
    return value.toString();
  }
  if (Array.isArray(value)) {
    return value.map(plain);
  }
  if (typeof value === 'object' && value !== null) {
    return Object.fromEntries(
      Object.entries(value)
        .filter(([, field]) => field !== undefined)
        .map(([name, field]) => [name, plain(field)]),
    );
  }
  return value;
}

const headed = (document: Document): unknown => plain({ apiVersion: API_VERSION, ...document });

/** Indented, ending in a line feed. */
export const toJson = (document: Document): string => `${JSON.stringify(headed(document), undefined, 2)}\n`;

/** One line, ending in a line feed; without `apiVersion` and `kind`, for rows of a stream. */
export const toJsonLine = (row: object): string => `${JSON.stringify(plain(row))}\n`;

/** Ending in a line feed. */
export const toYaml = (document: Document): string => stringify(headed(document), { lineWidth: 0 });

/** Like {@link toYaml}, with nothing after the colon for null, as people write it. */
export const toPlainYaml = (document: Document): string =>
  stringify(headed(document), { lineWidth: 0, nullStr: '' }).replace(/:[ ]$/gm, ':');

/** A text that is not YAML. `line` counts from 1. */
export class YamlError extends Error {
  readonly line: number;

  constructor(message: string, line: number) {
    super(message);
    this.line = line;
  }
}

/** All documents of a YAML or JSON text that are not empty, as plain values. @throws YamlError */
export function parseYaml(text: string): unknown[] {
  const values: unknown[] = [];
  for (const document of parseAllDocuments(text)) {
    const [error] = document.errors;
    if (error !== undefined) {
      const [first = ''] = error.message.split('\n');
      throw new YamlError(first.replace(/ at line \d+, column \d+:?$/, ''), error.linePos?.[0].line ?? 1);
    }
    let value: unknown;
    try {
      value = document.toJS();
    } catch (cause) {
      throw new YamlError(cause instanceof Error ? cause.message : String(cause), 1);
    }
    if (value !== null && value !== undefined) {
      values.push(value);
    }
  }
  return values;
}

/** Writes one list document while its rows still come. Same text as {@link toJson} of the whole document. */
export class JsonListWriter {
  readonly #kind: string;
  #count = 0;

  constructor(kind: string) {
    this.#kind = kind;
  }

  head(): string {
    return `{\n  "apiVersion": "${API_VERSION}",\n  "kind": ${JSON.stringify(this.#kind)},\n  "items": [`;
  }

  row(row: object): string {
    const text = JSON.stringify(plain(row), undefined, 2).replaceAll('\n', '\n    ');
    return `${this.#count++ === 0 ? '' : ','}\n    ${text}`;
  }

  /** `tail` holds fields after the items, known only at the end. */
  end(tail: Readonly<Record<string, unknown>> = {}): string {
    const fields = Object.entries(tail).map(([name, value]) => {
      const text = JSON.stringify(plain(value), undefined, 2).replaceAll('\n', '\n  ');
      return `,\n  ${JSON.stringify(name)}: ${text}`;
    });
    return `${this.#count === 0 ? '' : '\n  '}]${fields.join('')}\n}\n`;
  }
}

/** The same for YAML. */
export class YamlListWriter {
  readonly #kind: string;
  #count = 0;

  constructor(kind: string) {
    this.#kind = kind;
  }

  head(): string {
    return `apiVersion: ${API_VERSION}\nkind: ${this.#kind}\nitems:`;
  }

  row(row: object): string {
    const text = stringify([plain(row)], { lineWidth: 0 })
      .trimEnd()
      .replaceAll('\n', '\n  ');
    return `${this.#count++ === 0 ? '\n' : ''}  ${text}\n`;
  }

  end(tail: Readonly<Record<string, unknown>> = {}): string {
    const fields = Object.keys(tail).length === 0 ? '' : stringify(plain(tail), { lineWidth: 0 });
    return `${this.#count === 0 ? ' []\n' : ''}${fields}`;
  }
}
