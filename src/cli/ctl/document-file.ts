/** Reads files of documents: several YAML or JSON documents, from a file or from stdin. What they mean is not decided here. */
import { readFile, stat } from 'node:fs/promises';
import { fromUtf8 } from '../../base/bytes.ts';
import { InputFileError, UsageError } from '../failure.ts';
import { type CliIo, readAll } from '../io.ts';
import { YamlError, parseYaml } from '../output/document.ts';

/** Largest file that is read. */
export const DOCUMENT_FILE_BYTES_MAX: number = 4 * 1024 * 1024;

const tooLarge = (name: string): InputFileError =>
  new InputFileError(
    `${name} is larger than ${DOCUMENT_FILE_BYTES_MAX} bytes`,
    'divide it into several files and apply them one after the other',
  );

async function readText(io: CliIo, path: string): Promise<string> {
  if (path === '-') {
    const bytes = await readAll(io.stdin, DOCUMENT_FILE_BYTES_MAX);
    if (bytes === undefined) {
      throw tooLarge('stdin');
    }
    return fromUtf8(bytes);
  }
  try {
    if ((await stat(path)).size > DOCUMENT_FILE_BYTES_MAX) {
      throw tooLarge(path);
    }
    return await readFile(path, 'utf8');
  } catch (cause) {
    if (cause instanceof InputFileError) {
      throw cause;
    }
    throw new InputFileError(
      `${path} cannot be read: ${cause instanceof Error ? cause.message : String(cause)}`,
      'check the path given with -f',
      { cause },
    );
  }
}

/** All documents of all files in their order; the items of a list, as "ctl get -o json" prints it, count one by one. */
export async function readDocuments(io: CliIo, paths: readonly string[]): Promise<unknown[]> {
  const documents: unknown[] = [];
  for (const path of paths) {
    const text = await readText(io, path);
    try {
      documents.push(...parseYaml(text).flatMap(itemsOf));
    } catch (cause) {
      if (cause instanceof YamlError) {
        const name = path === '-' ? 'stdin' : path;
        throw new InputFileError(`${name}:${cause.line}: ${cause.message}`, 'documents are YAML or JSON', { cause });
      }
      throw cause;
    }
  }
  if (documents.length === 0) {
    throw new UsageError(`${paths.join(', ')} holds no document`, 'write at least one, for example those in examples/');
  }
  return documents;
}

function itemsOf(document: unknown): readonly unknown[] {
  if (typeof document === 'object' && document !== null) {
    const { kind, items } = document as { readonly kind?: unknown; readonly items?: unknown };
    if (typeof kind === 'string' && kind.endsWith('List') && Array.isArray(items)) {
      return items as unknown[];
    }
  }
  return [document];
}
