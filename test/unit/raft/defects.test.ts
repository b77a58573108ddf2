/** Planted defects that the adversary does not notice: these scenarios do. */
import { describe, expect, test } from 'vitest';
import { type Message, MsgType } from '../../../src/raft/index.ts';
import { addLearner, change, LabNode, message, type NodeOptions } from './lab.ts';

const TRIO: NodeOptions = { voters: [1, 2, 3] };

describe('planted defects', () => {
  test('committing beyond the message would commit a divergent tail', () => {
    const commit = (options: NodeOptions): number => {
      const node = new LabNode(1, { ...TRIO, terms: [1, 1, 1], ...options });
      node.step(MsgType.App, { from: 2, term: 2, index: 1, logTerm: 1, commit: 3 });
      return node.raw.committed;
    };
    expect(commit({})).toBe(1);
    expect(commit({ defects: new Set(['commit-beyond-message'] as const) })).toBe(3);
  });

  test('the own acknowledgement is stepped before the durability report', () => {
    const order = (options: NodeOptions): number[] => {
      const node = new LabNode(1, { voters: [1], ...options });
      node.becomeLeader();
      node.raw.propose(new Uint8Array(1));
      const seen: number[] = [];
      const { step } = node.raft;
      node.raft.step = (m: Message) => {
        seen.push(m.type);
        return step.call(node.raft, m);
      };
      node.handleReady();
      return seen;
    };
    expect(order({})).toEqual([MsgType.AppResp, MsgType.StorageAppendResp]);
    expect(order({ defects: new Set(['advance-order-reversed'] as const) })).toEqual([
      MsgType.StorageAppendResp,
      MsgType.AppResp,
    ]);
  });

  test('without them nothing is planted', () => {
    const node = new LabNode(1, TRIO);
    expect(node.raft.planted('double-vote')).toBe(false);
    expect(node.raw.proposeConfChange(change([addLearner(4)])).type).toBe('dropped');
    expect(message(MsgType.Hup, {}).type).toBe(0);
  });
});
