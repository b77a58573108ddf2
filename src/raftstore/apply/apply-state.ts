/** Arithmetic on the record that says how far a region's log is applied. Values are immutable. */
import { assert, InvariantError } from '../../base/assert.ts';
import { INIT_LOG_INDEX, INIT_LOG_TERM, type ApplyState } from '../../codec/store-record.ts';

/** Apply state of a region that a split has just created: nothing applied but the fictional first entry. */
export const childApplyState = (): ApplyState => ({
  appliedIndex: INIT_LOG_INDEX,
  appliedTerm: INIT_LOG_TERM,
  commitIndex: INIT_LOG_INDEX,
  commitTerm: INIT_LOG_TERM,
  truncatedIndex: INIT_LOG_INDEX,
  truncatedTerm: INIT_LOG_TERM,
});

/** After executing the entry at (`index`, `term`), which must follow the last one without a gap. */
export function advance(state: ApplyState, index: number, term: number): ApplyState {
  if (index !== state.appliedIndex + 1 || term < state.appliedTerm) {
    // Once per entry: the details are built only when they are needed.
    throw new InvariantError('applied entries must follow each other', {
      index,
      term,
      appliedIndex: state.appliedIndex,
      appliedTerm: state.appliedTerm,
    });
  }
  return {
    appliedIndex: index,
    appliedTerm: term,
    commitIndex: state.commitIndex,
    commitTerm: state.commitTerm,
    truncatedIndex: state.truncatedIndex,
    truncatedTerm: state.truncatedTerm,
  };
}

/**
 * With the commit position a task of the peer FSM brought along. After a restart the log is handed over again in
 * smaller pieces, whose positions may lie below the one on disk; that one stays until they pass it.
 */
export const withCommit = (state: ApplyState, index: number, term: number): ApplyState =>
  index > state.commitIndex ? { ...state, commitIndex: index, commitTerm: term } : state;

/** After compacting the log up to and including `index`. */
export function truncate(state: ApplyState, index: number, term: number): ApplyState {
  assert(index > state.truncatedIndex && index <= state.appliedIndex, 'log compacted outside its applied part', {
    index,
    truncatedIndex: state.truncatedIndex,
    appliedIndex: state.appliedIndex,
  });
  return { ...state, truncatedIndex: index, truncatedTerm: term };
}
