/** `braid ctl pd member …`: the members of the placement service itself. */
import type { Command, Option } from 'commander';
import type { AdminClient } from '../../client/admin.ts';
import type { PlacementMember } from '../../client/admin-wire.ts';
import { DeadlineExceededError } from '../../client/errors.ts';
import { type App, addCommand } from '../command.ts';
import { type ExpectVersionFlag, expectedVersion, expectVersionFlag, flag, reasonFlag } from '../common-options.ts';
import { confirmByName } from '../confirm.ts';
import { EXIT_DONE, type ExitCode } from '../exit-code.ts';
import { LIST_MODES } from '../output/mode.ts';
import type { ListShape } from '../output/printer.ts';
import type { Session } from '../session.ts';

const POLL_MS = 200;

const stateOf = (member: PlacementMember): string => {
  if (member.isLeader) {
    return 'leader';
  }
  if (!member.isAnswering) {
    return 'silent';
  }
  return member.isVoter ? 'follower' : 'joining';
};

const memberObject = (member: PlacementMember): Record<string, unknown> => ({ ...member, state: stateOf(member) });

const MEMBER_SHAPE: ListShape<PlacementMember> = {
  kind: 'PlacementMemberList',
  columns: [
    { head: 'name', cell: (member) => member.name },
    { head: 'id', cell: (member) => member.id, align: 'right' },
    { head: 'url', cell: (member) => member.clientUrls.join(',') },
    { head: 'state', cell: stateOf },
    { head: 'voter', cell: (member) => (member.isVoter ? 'yes' : 'no') },
    { head: 'lag', cell: (member) => member.lag, align: 'right' },
  ],
  toObject: memberObject,
  name: (member) => member.name,
};

const expectMembership = (): Option => expectVersionFlag('the membership, as "braid ctl pd member list" says it,');

interface RemoveFlags extends ExpectVersionFlag {
  readonly dryRun?: true;
  readonly yes?: true;
}

export function memberCommands(ctl: Command, app: App): void {
  const member = ctl
    .command('pd')
    .summary('the placement service itself')
    .description('The placement service itself.')
    .command('member')
    .summary('members of the placement service')
    .description('Members of the placement service, of which one leads.');
  addCommand<object>(member, app, {
    usage: 'list',
    isList: true,
    summary: 'List the members: who leads, who votes, who lags',
    examples: ['braid ctl pd member list', 'braid ctl pd member list -o json'],
    modes: LIST_MODES,
    mode: 'table',
    task: () => 'list the placement members',
    run: async (session) => {
      const admin = await session.admin();
      const { members, version } = await admin.placementMembership(session.limits());
      await session.printer.list(MEMBER_SHAPE, members, { version });
      await session.printer.note(`version ${version} of the membership`);
      return EXIT_DONE;
    },
  });
  addCommand<RemoveFlags>(member, app, {
    usage: 'remove <member>',
    summary: 'Take a member out of the placement service for good',
    details:
      'A member that lost its data is removed before it joins again. Refused for the leader, and if too few members that answer would be left.',
    arguments: { member: 'name or id' },
    examples: ['braid ctl pd member remove pd3', 'braid ctl pd member remove pd3 --yes'],
    modes: LIST_MODES,
    mode: 'table',
    options: [
      flag('--dry-run', 'only show what would happen'),
      flag('--yes', 'do not ask'),
      reasonFlag(),
      expectMembership(),
    ],
    task: ([which]) => `remove the placement member ${which}`,
    run: async (session, [which], options) => {
      const admin = await session.admin();
      const expected = expectedVersion(options);
      const planned = await admin.removePlacementMember(which as string, {
        ...session.limits(),
        ...expected,
        dryRun: true,
      });
      if (options.dryRun === true) {
        await session.printer.note(`dry run: ${planned.name} would be removed`);
        return show(session, planned);
      }
      await confirmByName(
        session,
        `The placement member ${planned.name} will be removed; it can only join again with an empty directory.`,
        planned.name,
        options.yes,
      );
      const limits = { ...session.limits(), ...expected };
      return show(session, await admin.removePlacementMember(String(planned.id), limits));
    },
  });
  addCommand<ExpectVersionFlag>(member, app, {
    usage: 'transfer-leader [member]',
    summary: 'Let another member lead',
    details: 'Without a name the service chooses the member that is furthest. Returns when that one leads.',
    arguments: { member: 'name or id' },
    examples: ['braid ctl pd member transfer-leader', 'braid ctl pd member transfer-leader pd2'],
    modes: LIST_MODES,
    mode: 'table',
    options: [reasonFlag(), expectMembership()],
    task: ([which]) => (which === undefined ? 'hand over the placement lead' : `let ${which} lead`),
    run: async (session, [which], options) => {
      const admin = await session.admin();
      const target = await admin.transferPlacementLeader(which, { ...session.limits(), ...expectedVersion(options) });
      return show(session, target.isLeader ? target : await untilLeader(session, admin, target));
    },
  });
}

async function show(session: Session, member: PlacementMember): Promise<ExitCode> {
  await session.printer.single({
    document: { kind: 'PlacementMember', ...memberObject(member) },
    name: member.name,
    fields: [
      { name: 'name', value: member.name },
      { name: 'id', value: String(member.id) },
      { name: 'url', value: member.clientUrls.join(', ') },
      { name: 'state', value: stateOf(member) },
    ],
  });
  return EXIT_DONE;
}

/** @throws DeadlineExceededError when the handover came to nothing in time; it may still happen */
async function untilLeader(session: Session, admin: AdminClient, target: PlacementMember): Promise<PlacementMember> {
  for (;;) {
    const members = await admin.placementMembers(session.limits());
    const now = members.find((member) => member.id === target.id);
    if (now?.isLeader === true) {
      return now;
    }
    if (session.leftMs <= POLL_MS) {
      throw new DeadlineExceededError(`${target.name} did not take over the lead in time`, {
        hint: 'look who leads: braid ctl pd member list',
      });
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
