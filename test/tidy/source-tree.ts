/** Reads the repository for the tidy tests: files, their imports, and their code without comments and texts. */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT: string = join(dirname(fileURLToPath(import.meta.url)), '..', '..');

const IGNORED_DIRECTORIES: ReadonlySet<string> = new Set(['.git', '.tmp', 'coverage', 'dist', 'node_modules']);

export interface ImportStatement {
  /** As written, e.g. `../base/bytes.ts`, `node:fs` or `pino`. */
  readonly specifier: string;
  /** For a relative import the path from the repository's root; otherwise undefined. */
  readonly target: string | undefined;
  readonly isTypeOnly: boolean;
}

export interface SourceFile {
  /** From the repository's root, with forward slashes. */
  readonly path: string;
  readonly text: string;
  /** The text with comments, string contents and regular expressions blanked; same length and lines. */
  readonly code: string;
  readonly imports: readonly ImportStatement[];
}

/** Every file below `directory` that belongs to the repository, as paths from the root. */
export function listFiles(directory = ''): string[] {
  return readdirSync(join(ROOT, directory), { withFileTypes: true }).flatMap((entry) => {
    const path = join(directory, entry.name).split(sep).join('/');
    if (entry.isDirectory()) {
      return IGNORED_DIRECTORIES.has(entry.name) ? [] : listFiles(path);
    }
    return entry.isFile() ? [path] : [];
  });
}

export const readText = (path: string): string => readFileSync(join(ROOT, path), 'utf8');

const REGEX_BEFORE = /(?:[(,=:[!&|?{};+\-*%<>~^]|\b(?:return|typeof|case|in|of|void|throw|new|await))\s*$/;

/**
 * Blanks comments, and also the contents of strings, templates and regular expressions unless `keepStrings`. Expressions
 * inside templates are blanked as well; the linter sees those.
 */
export function stripCode(text: string, keepStrings = false): string {
  let out = '';
  const blank = (from: number, to: number): void => {
    out += text.slice(from, to).replace(/[^\n]/g, ' ');
  };
  for (let i = 0; i < text.length; ) {
    const two = text.slice(i, i + 2);
    const c = text[i] as string;
    let end: number;
    if (two === '//' || (two === '#!' && i === 0)) {
      end = text.indexOf('\n', i);
      end = end < 0 ? text.length : end;
      blank(i, end);
    } else if (two === '/*') {
      end = text.indexOf('*/', i + 2);
      end = end < 0 ? text.length : end + 2;
      blank(i, end);
    } else if (c === "'" || c === '"' || c === '`' || (c === '/' && REGEX_BEFORE.test(out.slice(-40) || '('))) {
      end = endOfLiteral(text, i, c);
      if (keepStrings) {
        out += text.slice(i, end);
      } else {
        out += c;
        blank(i + 1, end - 1);
        out += text.slice(end - 1, end);
      }
    } else {
      out += c;
      end = i + 1;
    }
    i = end;
  }
  return out;
}

/** The position behind the literal that starts at `start`; stops at a line end where the literal cannot span lines. */
function endOfLiteral(text: string, start: number, quote: string): number {
  let isInClass = false;
  for (let i = start + 1; i < text.length; i++) {
    const c = text[i] as string;
    if (c === '\\') {
      i++;
    } else if (quote === '/' && c === '[') {
      isInClass = true;
    } else if (quote === '/' && c === ']') {
      isInClass = false;
    } else if (quote === '`' && c === '$' && text[i + 1] === '{') {
      i = endOfSubstitution(text, i + 2);
    } else if (c === quote && !isInClass) {
      return i + 1;
    } else if (c === '\n' && quote !== '`') {
      return i;
    }
  }
  return text.length;
}

/** The position of the brace that closes a template's substitution. */
function endOfSubstitution(text: string, start: number): number {
  let depth = 1;
  for (let i = start; i < text.length; i++) {
    const c = text[i] as string;
    if (c === '`' || c === "'" || c === '"') {
      i = endOfLiteral(text, i, c) - 1;
    } else if (c === '{') {
      depth++;
    } else if (c === '}' && --depth === 0) {
      return i;
    }
  }
  return text.length;
}

const FROM = /^[ \t]*(import|export)\b([^'";]*?)\bfrom\s*['"]([^'"]+)['"]/gm;
const BARE = /^[ \t]*import\s*['"]([^'"]+)['"]/gm;
const DYNAMIC = /\bimport\s*\(\s*['"]([^'"]+)['"]\s*\)/g;
const WORKER_URL = /new URL\(\s*['"](\.[^'"]+\.[jt]s)['"]\s*,\s*import\.meta\.url/g;

function isTypeOnlyClause(clause: string): boolean {
  if (/^\s+type\b(?!\s*,)/.test(clause)) {
    return true;
  }
  const braces = /^\s*\{([^}]*)\}\s*$/.exec(clause)?.[1];
  const names = braces?.split(',').filter((name) => name.trim() !== '') ?? [];
  return names.length > 0 && names.every((name) => /^\s*type\s/.test(name));
}

function importsOf(path: string, text: string): ImportStatement[] {
  const code = stripCode(text, true);
  const found: ImportStatement[] = [];
  const add = (specifier: string, isTypeOnly: boolean): void => {
    const target = specifier.startsWith('.')
      ? relative(ROOT, join(ROOT, dirname(path), specifier))
          .split(sep)
          .join('/')
      : undefined;
    found.push({ specifier, target, isTypeOnly });
  };
  for (const match of code.matchAll(FROM)) {
    add(match[3] as string, isTypeOnlyClause(match[2] as string));
  }
  for (const pattern of [BARE, DYNAMIC, WORKER_URL]) {
    for (const match of code.matchAll(pattern)) {
      add(match[1] as string, false);
    }
  }
  return found;
}

export function readSource(path: string): SourceFile {
  const text = readText(path);
  return { path, text, code: stripCode(text), imports: importsOf(path, text) };
}

/** All sources written by hand below `directory`, in order of path. */
export function readSources(directory: string, extension: RegExp = /\.ts$/): SourceFile[] {
  return listFiles(directory)
    .filter((path) => extension.test(path) && !path.startsWith('src/gen/'))
    .toSorted()
    .map(readSource);
}

/** The room of a path: the folder below `src/`, or the file itself for `src/index.ts`. */
export const roomOf = (path: string): string => path.split('/')[1] as string;

/** Whether the path lies in one of the folders (or is the file itself). */
export const isIn = (path: string, ...folders: readonly string[]): boolean =>
  folders.some((folder) => path === folder || path.startsWith(`${folder}/`));

/** `path:line` of every match in the blanked code (or the text) of the files. */
export function findAll(
  files: readonly SourceFile[],
  pattern: RegExp,
  from: 'code' | 'text' = 'code',
): { readonly place: string; readonly path: string; readonly match: string }[] {
  const global = new RegExp(pattern.source, `${pattern.flags.replace('g', '')}g`);
  return files.flatMap((file) =>
    [...file[from].matchAll(global)].map((match) => {
      const line = file[from].slice(0, match.index).split('\n').length;
      return { place: `${file.path}:${line}: ${match[0].trim()}`, path: file.path, match: match[0] };
    }),
  );
}

/** The package a bare specifier belongs to. */
export function packageOf(specifier: string): string {
  const parts = specifier.split('/');
  return specifier.startsWith('@') ? parts.slice(0, 2).join('/') : (parts[0] as string);
}
