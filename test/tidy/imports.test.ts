/** Who may import whom: the rooms of `src/`, third-party packages, and files that nobody needs. */
import { describe, expect, test } from 'vitest';
import { isIn, listFiles, packageOf, readSources, readText, roomOf, type SourceFile } from './source-tree.ts';

const sources = readSources('src');
const others = ['test', 'bench', 'jepsen-lite', 'scripts'].flatMap((folder) => readSources(folder, /\.(ts|js)$/));

/** Rooms that a room may import besides itself. `raft/types.ts` alone is open to codec. */
const ALLOWED: Readonly<Record<string, readonly string[]>> = {
  base: [],
  meta: ['base'],
  env: ['base'],
  gen: [],
  raft: ['base'],
  engine: ['base', 'env'],
  codec: ['base', 'meta', 'gen', 'raft/types.ts'],
  rpc: ['base', 'env', 'gen', 'codec'],
  raftstore: ['base', 'meta', 'env', 'codec', 'raft', 'engine'],
  changestream: ['base', 'meta', 'env', 'codec', 'engine', 'raftstore/observer.ts'],
  pd: ['base', 'meta', 'env', 'codec', 'raft', 'engine'],
  client: ['base', 'meta', 'env', 'codec', 'rpc'],
  taskgroup: ['base', 'env', 'codec', 'client'],
  cli: ['base', 'client', 'taskgroup'],
  server: [
    'base',
    'meta',
    'env',
    'gen',
    'codec',
    'rpc',
    'raft',
    'engine',
    'raftstore',
    'changestream',
    'pd',
    'client',
    'dashboard',
  ],
  dashboard: ['base', 'client'],
  testing: ['base', 'meta', 'env', 'gen', 'codec', 'rpc', 'raft', 'engine', 'raftstore', 'pd', 'server', 'client'],
  'index.ts': ['base', 'client'],
};

/** Wider permissions of one folder. */
const FOLDER_ALLOWED: readonly (readonly [folder: string, rooms: readonly string[]])[] = [
  ['src/cli/run', ['server', 'env', 'engine', 'rpc']],
  ['src/cli/offline', ['meta', 'env', 'codec', 'raft', 'engine', 'raftstore', 'pd', 'server']],
];

/** The one folder that may import a package. Packages that are not listed must keep to one room. */
const PACKAGE_FOLDERS: Readonly<Record<string, string>> = {
  '@bufbuild/protobuf': 'src/gen',
  '@grpc/grpc-js': 'src/rpc/grpc',
  commander: 'src/cli',
  level: 'src/engine/level',
  msgpackr: 'src/codec',
  pino: 'src/env/real',
  'sorted-btree': 'src/base',
};

/** Files that are started or published rather than imported. */
const ENTRY_POINTS: ReadonlySet<string> = new Set(['src/index.ts', 'src/testing/index.ts', 'src/cli/main.ts']);

interface Manifest {
  readonly dependencies: Readonly<Record<string, string>>;
  readonly devDependencies: Readonly<Record<string, string>>;
}
const manifest = JSON.parse(readText('package.json')) as Manifest;

const isAllowed = (file: SourceFile, target: string): boolean => {
  const room = roomOf(file.path);
  const extra = FOLDER_ALLOWED.filter(([folder]) => isIn(file.path, folder)).flatMap(([, rooms]) => rooms);
  return [room, ...(ALLOWED[room] ?? []), ...extra].some((allowed) => isIn(target, `src/${allowed}`));
};

describe('rooms of src', () => {
  test('are all known to the import table', () => {
    expect([...new Set(sources.map(({ path }) => roomOf(path)))].filter((room) => !(room in ALLOWED))).toEqual([]);
  });

  test('import only the rooms they may', () => {
    const violations = sources.flatMap((file) =>
      file.imports
        .filter(({ target }) => target !== undefined && !isAllowed(file, target))
        .map(({ target }) => `${file.path} imports ${target}`),
    );
    expect(violations).toEqual([]);
  });

  test('form no cycle', () => {
    const edges = new Map<string, Set<string>>();
    for (const file of sources) {
      for (const { target } of file.imports) {
        if (target !== undefined && roomOf(target) !== roomOf(file.path)) {
          const from = roomOf(file.path);
          edges.set(from, (edges.get(from) ?? new Set()).add(roomOf(target)));
        }
      }
    }
    const cycles: string[] = [];
    const visit = (room: string, path: readonly string[]): void => {
      if (path.includes(room)) {
        cycles.push([...path.slice(path.indexOf(room)), room].join(' -> '));
        return;
      }
      for (const next of edges.get(room) ?? []) {
        visit(next, [...path, room]);
      }
    };
    for (const room of edges.keys()) {
      visit(room, []);
    }
    expect(cycles).toEqual([]);
  });

  test('import files that exist, with their extension', () => {
    const existing = new Set(listFiles());
    const missing = [...sources, ...others].flatMap((file) =>
      file.imports
        .filter(({ target }) => target !== undefined && !existing.has(target) && !target.startsWith('dist/'))
        .map(({ specifier }) => `${file.path} imports ${specifier}`),
    );
    expect(missing).toEqual([]);
  });

  test('hold no file that nobody imports', () => {
    const imported = new Set([...sources, ...others].flatMap(({ imports }) => imports.map(({ target }) => target)));
    const inSources = new Set(sources.flatMap(({ imports }) => imports.map(({ target }) => target)));
    const unused = sources
      .map(({ path }) => path)
      // A room's `index.ts` is its public face and may be waiting for its first user outside the tests.
      .filter((path) => !(path.endsWith('/index.ts') ? imported : inSources).has(path) && !ENTRY_POINTS.has(path));
    expect(unused).toEqual([]);
  });
});

describe('third-party packages', () => {
  const uses = sources.flatMap((file) =>
    file.imports
      .filter(({ target, specifier }) => target === undefined && !specifier.startsWith('node:'))
      .map(({ specifier }) => ({ file, name: packageOf(specifier) })),
  );

  test('are declared as dependencies', () => {
    const undeclared = uses.filter(({ name }) => !(name in manifest.dependencies));
    expect(undeclared.map(({ file, name }) => `${file.path} imports ${name}`)).toEqual([]);
  });

  test('are pinned to exact versions', () => {
    const all = Object.entries({ ...manifest.dependencies, ...manifest.devDependencies });
    expect(all.filter(([, version]) => !/^\d+\.\d+\.\d+$/.test(version))).toEqual([]);
  });

  test('are imported by one folder each', () => {
    const rooms = new Map<string, Set<string>>();
    const misplaced: string[] = [];
    for (const { file, name } of uses) {
      const folder = PACKAGE_FOLDERS[name];
      if (folder !== undefined && !isIn(file.path, folder)) {
        misplaced.push(`${file.path} imports ${name}, which belongs to ${folder}`);
      }
      rooms.set(name, (rooms.get(name) ?? new Set()).add(roomOf(file.path)));
    }
    expect(misplaced).toEqual([]);
    expect([...rooms].filter(([, in_]) => in_.size > 1).map(([name, in_]) => `${name}: ${[...in_].join()}`)).toEqual(
      [],
    );
  });

  test('are all used', () => {
    const generated = listFiles('src/gen').map(readText).join('\n');
    const unused = Object.keys(manifest.dependencies).filter(
      (name) => !uses.some((use) => use.name === name) && !generated.includes(`"${name}/`),
    );
    expect(unused).toEqual([]);
  });

  test('of Node are imported by their node: names', () => {
    const builtin = /^(assert|buffer|child_process|crypto|events|fs|http2?|net|os|path|stream|url|util|zlib)(\/|$)/;
    const bare = [...sources, ...others].flatMap((file) =>
      file.imports
        .filter(({ specifier }) => builtin.test(specifier))
        .map(({ specifier }) => `${file.path} imports ${specifier}`),
    );
    expect(bare).toEqual([]);
  });
});
