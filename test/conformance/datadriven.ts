/**
 * The file format of datadriven tests: directives with arguments and input, each followed by its expected output.
 * Knows nothing of Raft.
 */

export interface DirectiveArg {
  readonly key: string;
  /** Empty for a bare key; `key=` has one empty value. */
  readonly values: readonly string[];
}

export interface Directive {
  /** Line number of the directive, from 1. */
  readonly line: number;
  readonly text: string;
  readonly command: string;
  readonly args: readonly DirectiveArg[];
  readonly input: string;
  /** Lines, each ended by a newline; empty if none was written. */
  readonly expected: string;
}

/** A file that is not in the format, or a directive that cannot be carried out as written. */
export class HarnessError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'HarnessError';
  }
}

function splitValues(inside: string): string[] {
  const values: string[] = [];
  let depth = 0;
  let value = '';
  for (let i = 0; i < inside.length; i++) {
    const c = inside[i] as string;
    if (c === ',' && depth === 0) {
      values.push(value);
      value = '';
      while (inside[i + 1] === ' ') {
        i++;
      }
      continue;
    }
    if (c === '(') {
      depth++;
    } else if (c === ')') {
      depth--;
    }
    value += c;
  }
  values.push(value);
  return values;
}

/** Parses `cmd arg key=value key=(a, b)`. */
export function parseDirectiveLine(text: string): { readonly command: string; readonly args: readonly DirectiveArg[] } {
  let at = 0;
  const skipSpaces = (): void => {
    while (text[at] === ' ') {
      at++;
    }
  };
  const until = (stop: RegExp): string => {
    const start = at;
    while (at < text.length && !stop.test(text[at] as string)) {
      at++;
    }
    return text.substring(start, at);
  };
  skipSpaces();
  const command = until(/ /);
  const args: DirectiveArg[] = [];
  for (skipSpaces(); at < text.length; skipSpaces()) {
    const key = until(/[ =]/);
    if (key === '') {
      throw new HarnessError(`an argument of "${text}" has no key`);
    }
    if (text[at] !== '=') {
      args.push({ key, values: [] });
      continue;
    }
    at++;
    if (text[at] !== '(') {
      args.push({ key, values: [until(/ /)] });
      continue;
    }
    const start = ++at;
    for (let depth = 1; depth > 0; at++) {
      if (at >= text.length) {
        throw new HarnessError(`a parenthesis of "${text}" is not closed`);
      }
      depth += text[at] === '(' ? 1 : text[at] === ')' ? -1 : 0;
    }
    args.push({ key, values: splitValues(text.substring(start, at - 1)) });
  }
  return { command, args };
}

/** Parses a whole file. */
export function parseFile(content: string): Directive[] {
  const lines = content.split('\n').map((line) => (line.endsWith('\r') ? line.substring(0, line.length - 1) : line));
  if (lines[lines.length - 1] === '') {
    lines.pop();
  }
  const directives: Directive[] = [];
  for (let at = 0; at < lines.length; at++) {
    let text = (lines[at] as string).trim();
    if (text === '' || text.startsWith('#')) {
      continue;
    }
    const line = at + 1;
    while (text.endsWith('\\') && at + 1 < lines.length) {
      at++;
      text = `${text.substring(0, text.length - 1)} ${(lines[at] as string).trim()}`;
    }
    const { command, args } = parseDirectiveLine(text);
    if (command === 'subtest') {
      directives.push({ line, text, command, args, input: '', expected: '' });
      continue;
    }
    const input: string[] = [];
    for (at++; at < lines.length && lines[at] !== '----'; at++) {
      input.push(lines[at] as string);
    }
    if (at >= lines.length) {
      throw new HarnessError(`the directive in line ${line} has no ---- separator`);
    }
    const expected: string[] = [];
    if (lines[at + 1] === '----') {
      for (at += 2; !(lines[at] === '----' && lines[at + 1] === '----'); at++) {
        if (at >= lines.length) {
          throw new HarnessError(`the expectation of line ${line} has no closing ---- lines`);
        }
        expected.push(lines[at] as string);
      }
      at += 2;
      if (at < lines.length && (lines[at] as string).trim() !== '') {
        throw new HarnessError(`the expectation of line ${line} is not followed by a blank line`);
      }
    } else {
      for (at++; at < lines.length && (lines[at] as string).trim() !== ''; at++) {
        expected.push(lines[at] as string);
      }
    }
    directives.push({
      line,
      text,
      command,
      args,
      input: input.join('\n').trim(),
      expected: expected.map((l) => `${l}\n`).join(''),
    });
  }
  return directives;
}

/** A decimal number. */
export function parseNumber(text: string): number {
  if (!/^\d+$/.test(text)) {
    throw new HarnessError(`"${text}" is not a decimal number`);
  }
  return Number(text);
}

const TRUE_WORDS: readonly string[] = ['1', 't', 'T', 'TRUE', 'true', 'True'];
const FALSE_WORDS: readonly string[] = ['0', 'f', 'F', 'FALSE', 'false', 'False'];

export function parseBoolean(text: string): boolean {
  if (TRUE_WORDS.includes(text)) {
    return true;
  }
  if (FALSE_WORDS.includes(text)) {
    return false;
  }
  throw new HarnessError(`"${text}" is not a boolean`);
}

/** The one value of an argument. */
export function onlyValue(arg: DirectiveArg): string {
  const [value] = arg.values;
  if (value === undefined || arg.values.length !== 1) {
    throw new HarnessError(`argument ${arg.key} needs exactly one value`);
  }
  return value;
}

/** Numbers of the bare arguments, in order. */
export const bareNumbers = (directive: Directive): number[] =>
  directive.args.filter((a) => a.values.length === 0).map((a) => parseNumber(a.key));

const LOG_LINE = /^\s*(DEBUG|INFO|WARN|ERROR|FATAL) /;

/** What remains of an expectation when the core writes no log lines. */
export function withoutLogLines(expected: string): string {
  const kept = expected
    .split('\n')
    .filter((line) => line !== '' && !LOG_LINE.test(line))
    .map((line) => `${line}\n`)
    .join('');
  return kept === '' ? 'ok\n' : kept;
}

/** Lines of the unified diff between two texts. */
export function unifiedDiff(expected: string, actual: string): string {
  const a = expected.split('\n');
  const b = actual.split('\n');
  // Longest common subsequence; outputs have a few hundred lines at most.
  const width = b.length + 1;
  const lengths = new Uint32Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      lengths[i * width + j] =
        a[i] === b[j]
          ? (lengths[(i + 1) * width + j + 1] as number) + 1
          : Math.max(lengths[(i + 1) * width + j] as number, lengths[i * width + j + 1] as number);
    }
  }
  const out: { readonly mark: string; readonly text: string }[] = [];
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      out.push({ mark: ' ', text: a[i++] as string });
      j++;
    } else if (
      j >= b.length ||
      (i < a.length && (lengths[(i + 1) * width + j] as number) >= (lengths[i * width + j + 1] as number))
    ) {
      out.push({ mark: '-', text: a[i++] as string });
    } else {
      out.push({ mark: '+', text: b[j++] as string });
    }
  }
  const CONTEXT_LINES = 3;
  const near = out.map((_, at) =>
    out.slice(Math.max(0, at - CONTEXT_LINES), at + CONTEXT_LINES + 1).some((line) => line.mark !== ' '),
  );
  const lines = ['--- expected', '+++ actual'];
  let oldLine = 1;
  let newLine = 1;
  out.forEach(({ mark, text }, at) => {
    if (near[at] === true) {
      if (at === 0 || near[at - 1] !== true) {
        lines.push(`@@ -${oldLine} +${newLine} @@`);
      }
      lines.push(mark + text);
    }
    oldLine += mark === '+' ? 0 : 1;
    newLine += mark === '-' ? 0 : 1;
  });
  return lines.join('\n');
}

export interface Mismatch {
  readonly line: number;
  readonly directive: string;
  readonly expected: string;
  readonly actual: string;
}

/** Runs the directives of one file up to the first difference; undefined if there is none. */
export function runDirectives(
  directives: readonly Directive[],
  handle: (directive: Directive) => string,
  expectation: (expected: string) => string = (expected) => expected,
): Mismatch | undefined {
  for (const directive of directives) {
    if (directive.command === 'subtest') {
      continue;
    }
    let actual: string;
    try {
      actual = handle(directive);
    } catch (error) {
      if (!(error instanceof Error)) {
        throw error;
      }
      actual = `${error.name}: ${error.message}`;
      return { line: directive.line, directive: directive.text, expected: directive.expected, actual: `${actual}\n` };
    }
    if (actual !== '' && !actual.endsWith('\n')) {
      actual += '\n';
    }
    const expected = expectation(directive.expected);
    if (actual !== expected) {
      return { line: directive.line, directive: directive.text, expected, actual };
    }
  }
  return undefined;
}
