/** Commands about documents: files, differences, confirmation, watching; the placement service is a fixture. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { lineDiff } from '../../../src/cli/ctl/document-shapes.ts';
import { parseYaml, toPlainYaml, YamlError } from '../../../src/cli/output/document.ts';
import { FakeDocuments } from './fake-documents.ts';
import { runAlone } from './harness.ts';

const directory = mkdtempSync(join(tmpdir(), 'braid-documents-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const file = (name: string, text: string): string => {
  const path = join(directory, name);
  writeFileSync(path, text);
  return path;
};

describe('files of documents', () => {
  test('may hold several YAML documents, lists and JSON', async () => {
    const fake = new FakeDocuments();
    const yaml = file(
      'two.yaml',
      'kind: Partition\nmetadata: {name: x}\n---\n# nothing\n---\nkind: DocumentList\nitems:\n  - kind: A\n  - kind: B\n',
    );
    const json = file('one.json', '{"kind": "C", "status": null}');
    const ended = await fake.run(['ctl', 'apply', '-f', yaml, '-f', json, '-q']);
    expect(ended.code, ended.stderr).toBe(0);
    const { documents, dryRun } = fake.asked[0] as { documents: string[]; dryRun: boolean };
    expect(documents.map((text) => (JSON.parse(text) as { kind: string }).kind)).toEqual(['Partition', 'A', 'B', 'C']);
    expect(dryRun).toBe(false);
  });

  test.each([
    ['broken YAML', 'a: [1\n', 1, /:\d+: /],
    ['a key twice', 'kind: A\nkind: B\n', 1, /:2: .*unique/],
    ['nothing', '# empty\n', 1, /holds no document/],
  ])('with %s are refused before anything is sent', async (_, text, code, message) => {
    const ended = await runAlone(['ctl', 'apply', '-f', file('bad.yaml', text)]);
    expect(ended.code).toBe(code);
    expect(ended.stderr).toMatch(message);
    expect((await runAlone(['ctl', 'apply', '-f', '-'], { stdin: text })).code).toBe(code);
  });

  test('are limited', async () => {
    const ended = await runAlone(['ctl', 'diff', '-f', '-'], { stdin: `a: ${'x'.repeat(4 * 1024 * 1024)}` });
    expect(ended.code).toBe(1);
    expect(ended.stderr).toContain('larger than 4194304 bytes');
  });

  test('a null is printed as people write it, and read again', () => {
    const text = toPlainYaml({ kind: 'Assignment', status: null, spec: { start: 'a: b' } });
    expect(text).toContain('\nstatus:\n');
    expect(parseYaml(text)).toEqual([
      { apiVersion: 'braid/v1', kind: 'Assignment', status: null, spec: { start: 'a: b' } },
    ]);
    expect(() => parseYaml('x: "')).toThrow(YamlError);
  });
});

describe('commands about documents', () => {
  test('apply prints every result, warnings on stderr, and three lines with code 3 for a refusal', async () => {
    const fake = new FakeDocuments();
    const path = file('part1.yaml', 'kind: Partition\n');
    const done = await fake.run(['ctl', 'apply', '-f', path]);
    expect(done.stdout).toBe('KIND        NAME    RESULT      REASON\nPartition   part1   unchanged   -\n');
    expect(done.stderr).toBe('warning: partition/part1: status was ignored\n');
    fake.refusal = {
      code: 'UnknownPod',
      message: 'spec.primary names x, which is no pod',
      hint: 'name a pod',
      details: new Map(),
    };
    const refused = await fake.run(['ctl', 'apply', '-f', path, '-o', 'json']);
    expect(refused.code).toBe(3);
    expect(refused.stderr).toBe(
      'error: cannot apply the documents\nwhy:   Partition part1: spec.primary names x, which is no pod (Refused: UnknownPod)\nnext:  name a pod\n',
    );
    expect(JSON.parse(refused.stdout)).toMatchObject({
      items: [{ outcome: 'refused', problem: { code: 'UnknownPod' } }],
    });
  });

  test('diff shows lines that go and come, and ends with 5', async () => {
    const fake = new FakeDocuments();
    fake.outcome = 'changed';
    const ended = await fake.run(['ctl', 'diff', '-f', file('d.yaml', 'kind: Partition\n')]);
    expect(ended.code).toBe(5);
    expect(ended.stdout).toMatch(
      /^partition\/part1 would be changed\n(?: {2}.*\n)*- +primary: pod1\n\+ +primary: pod2\n$/,
    );
    expect((fake.asked[0] as { dryRun: boolean }).dryRun).toBe(true);
    expect(lineDiff('a\nb\nc\n', 'a\nc\nd\n')).toEqual(['  a', '- b', '  c', '+ d']);
    expect(lineDiff('', 'a\n')).toEqual(['+ a']);
  });

  test('the reason of a change is sent, limited, and shown with the document', async () => {
    const fake = new FakeDocuments();
    const path = file('reason.yaml', 'kind: Partition\n');
    await fake.run(['ctl', 'apply', '-f', path, '--reason', 'new shop']);
    await fake.run(['ctl', 'delete', 'partition', 'part1', '--yes', '--reason', 'shop closed']);
    await fake.run(['ctl', 'delete', 'partition', 'part1', '--yes']);
    const reasons = fake.asked.map((request) => (request as { header: { reason: string } }).header.reason);
    expect(reasons).toEqual(['new shop', 'shop closed', '']);
    const long = await fake.run(['ctl', 'apply', '-f', path, '--reason', 'x'.repeat(513)]);
    expect([long.code, long.stderr]).toEqual([1, expect.stringContaining('at most 512')]);
    expect(fake.asked).toHaveLength(3);
    const described = await fake.run(['ctl', 'describe', 'partition', 'part1', '-o', 'json']);
    expect(JSON.parse(described.stdout)).toMatchObject({ lastChange: { by: 'cli', reason: 'to try it' } });
    expect((await fake.run(['ctl', 'describe', 'partition', 'part1'])).stdout).toContain('by cli: to try it');
    // What users compare and apply again has the words of its author alone.
    expect((await fake.run(['ctl', 'get', 'partition', 'part1', '-o', 'yaml'])).stdout).not.toContain('to try it');
  });

  test('delete wants the name, or --yes where nobody can be asked', async () => {
    const fake = new FakeDocuments();
    fake.outcome = 'deleted';
    const silent = await fake.run(['ctl', 'delete', 'partition', 'part1']);
    expect(silent.code).toBe(3);
    expect(silent.stderr).toContain('repeat the command with --yes');
    expect(fake.asked).toEqual([]);
    expect((await fake.run(['ctl', 'delete', 'partition', 'part1', '--yes', '--expect-version', '7'])).code).toBe(0);
    expect(fake.asked[0]).toMatchObject({ kind: 'Partition', name: 'part1', expectVersion: 7, dryRun: false });
    expect((await fake.run(['ctl', 'delete', 'shard', 'part1', '--yes'])).code).toBe(1);
  });

  test('a watch prints what is there, then every change once, deletions too', async () => {
    const fake = new FakeDocuments();
    const ended = await fake.run(['ctl', 'get', 'partition', 'part1', '-w', '-o', 'jsonl', '--timeout', '1s', '-q']);
    expect(ended.code, ended.stderr).toBe(0);
    const rows = ended.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { status: unknown; deleted?: boolean; spec: { primary: string } });
    expect(rows.map(({ status, deleted, spec }) => [spec.primary, status, deleted ?? false])).toEqual([
      ['pod1', 'ready', false],
      ['pod2', null, false],
      ['pod2', 'ready', true],
    ]);
    const yaml = await fake.run(['ctl', 'get', 'partition', '-w', '-o', 'yaml', '--timeout', '500ms', '-q']);
    expect(yaml.stdout.split('---\n')).toHaveLength(3);
  });
});
