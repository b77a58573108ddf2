/** The placement node of a member that is a group of one, on any Env. */
import type { Engine } from '../../src/env/engine.ts';
import type { Env } from '../../src/env/env.ts';
import { DEFAULT_GROUP_CONFIG } from '../../src/pd/group/config.ts';
import { foundGroup } from '../../src/pd/group/group-disk.ts';
import { NO_TRANSPORT } from '../../src/pd/group/group-loop.ts';
import { openDirectory, PdMember } from '../../src/pd/pd-member.ts';
import type { PdNode, PdNodeConfig } from '../../src/pd/pd-node.ts';

/** Takes the engine over; `member.close` closes it. */
export async function openPdNode(
  env: Env,
  engine: Engine,
  config: PdNodeConfig,
): Promise<{ readonly node: PdNode; readonly member: PdMember }> {
  const content = await openDirectory(engine, config.clusterId);
  const address = 'pd:1';
  const ident =
    content.type === 'member'
      ? content.ident
      : await foundGroup(engine, { id: 1, name: 'pd', address }, content.type === 'ungrouped' ? content.clusterId : 0n);
  const member = await PdMember.open({
    env,
    engine,
    ident,
    address,
    transport: NO_TRANSPORT,
    restarted: content.type !== 'empty',
    config: { ...config, group: DEFAULT_GROUP_CONFIG },
  });
  const node = await member.whenServing();
  if (node === undefined) {
    throw new Error('the member was closed before it served');
  }
  return { node, member };
}
