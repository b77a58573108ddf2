/** `braid ctl explain region|store|scheduler`: what is, or is not, done, and why. */
import type { Command } from 'commander';
import type { AdminClient } from '../../client/admin.ts';
import type { Finding } from '../../client/admin-wire.ts';
import { type App, addCommand } from '../command.ts';
import { EXIT_DONE, EXIT_NO } from '../exit-code.ts';
import { COMMON_MODES } from '../output/mode.ts';
import type { ListShape } from '../output/printer.ts';
import { parseId } from '../text-form.ts';

const FINDING_SHAPE: ListShape<Finding> = {
  kind: 'FindingList',
  columns: [
    { head: 'what', cell: (finding) => finding.name },
    { head: 'outcome', cell: (finding) => (finding.passed ? 'ok' : 'refused') },
    { head: 'code', cell: (finding) => finding.refusal?.code ?? '' },
    { head: 'reason', cell: (finding) => finding.refusal?.message ?? finding.detail },
    { head: 'next step', cell: (finding) => finding.refusal?.hint ?? '' },
  ],
  toObject: (finding) => ({ ...finding }),
};

interface Subject {
  readonly word: 'region' | 'store' | 'scheduler';
  readonly argument: string;
  readonly summary: string;
  readonly details: string;
  readonly examples: readonly [string, string];
  readonly ask: (
    admin: AdminClient,
    name: string,
    limits: { readonly timeoutMs: number },
  ) => Promise<readonly Finding[]>;
}

const SUBJECTS: readonly Subject[] = [
  {
    word: 'region',
    argument: 'region id',
    summary: 'Say what every checker would do with a region, and why not',
    details: 'Health, the running operator, each checker, and merges with both neighbours.',
    examples: ['braid ctl explain region 2', 'braid ctl explain region 2 -o json'],
    ask: (admin, name, limits) => admin.explain({ regionId: parseId(name, 'region') }, limits),
  },
  {
    word: 'store',
    argument: 'store id',
    summary: 'Say what a store may be given and what keeps it from being removed',
    details: 'Whether it takes replicas and leaders, its limits and scores, and the regions that block its removal.',
    examples: ['braid ctl explain store 1', 'braid ctl explain store 1 -o yaml'],
    ask: (admin, name, limits) => admin.explain({ storeId: parseId(name, 'store') }, limits),
  },
  {
    word: 'scheduler',
    argument: 'name of a checker or scheduler',
    summary: 'Say whether a checker or scheduler runs and what it compares',
    details: 'Also the parameters in force. "braid ctl scheduler list" lists the names.',
    examples: ['braid ctl explain scheduler balance-region', 'braid ctl explain scheduler merge-checker -o json'],
    ask: (admin, name, limits) => admin.explain({ scheduler: name }, limits),
  },
];

export function explainObjectCommands(group: Command, app: App): void {
  for (const { word, argument, summary, details, examples, ask } of SUBJECTS) {
    addCommand<object>(group, app, {
      usage: `${word} <${word}>`,
      isList: true,
      summary,
      details: `${details} Changes nothing. The exit code is 5 if something is refused.`,
      arguments: { [word]: argument },
      examples,
      modes: COMMON_MODES,
      mode: 'table',
      isQuestion: true,
      task: ([name]) => `explain ${word} ${name}`,
      run: async (session, [name]) => {
        const admin = await session.admin();
        const findings = await ask(admin, name as string, session.limits());
        const isFine = findings.every((finding) => finding.passed);
        await session.printer.list(FINDING_SHAPE, findings, { [word]: name, allowed: isFine });
        return isFine ? EXIT_DONE : EXIT_NO;
      },
    });
  }
}
