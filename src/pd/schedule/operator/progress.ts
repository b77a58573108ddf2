/** An operator as people see it: every step with its state, and coarser phases. Computed when asked. */
import { unreachable } from '../../../base/assert.ts';
import type { PlacementConfig } from '../../defaults.ts';
import type { Operator } from './operator.ts';
import { describeStep, phaseOf, timeoutMsOf } from './step.ts';

export type ProgressState = 'waiting' | 'running' | 'done' | 'failed' | 'skipped';

export interface StepProgress {
  readonly type: string;
  readonly text: string;
  readonly state: ProgressState;
  readonly startedWallMs: number;
  readonly finishedWallMs: number;
  readonly detail: string;
  readonly current: boolean;
  readonly sends: number;
  readonly phase: string;
  readonly timeoutMs: number;
}

export interface PhaseProgress {
  readonly name: string;
  readonly state: ProgressState;
  readonly startedWallMs: number;
  readonly finishedWallMs: number;
  readonly detail: string;
}

export function stepProgress(operator: Operator, config: PlacementConfig): StepProgress[] {
  return operator.steps.map((step, i) => {
    const times = operator.stepTimes[i];
    return {
      type: step.type,
      text: describeStep(step),
      state: stateOfStep(operator, i),
      startedWallMs: times?.startedWallMs ?? 0,
      finishedWallMs: times?.finishedWallMs ?? 0,
      detail: times?.detail ?? '',
      current: i === operator.currentIndex && operator.status === 'started',
      sends: times?.sends ?? 0,
      phase: operator.isMergeSource && step.type !== 'merge-region' ? 'align' : phaseOf(step),
      timeoutMs: timeoutMsOf(step, operator.sizeBytes, config),
    };
  });
}

function stateOfStep(operator: Operator, index: number): ProgressState {
  if (index < operator.currentIndex) {
    return 'done';
  }
  if (operator.hasEnded) {
    return index === operator.currentIndex && operator.startedWallMs > 0 ? 'failed' : 'skipped';
  }
  return index === operator.currentIndex && operator.status === 'started' ? 'running' : 'waiting';
}

/** For merges align, prepare, catch-up and commit or rollback; for the others the distinct phases of their steps. */
export function phaseProgress(operator: Operator, config: PlacementConfig): PhaseProgress[] {
  return operator.isMergeSource ? mergePhases(operator, config) : plainPhases(stepProgress(operator, config));
}

function plainPhases(steps: readonly StepProgress[]): PhaseProgress[] {
  const names = [...new Set(steps.map((step) => step.phase))];
  return names.map((name) =>
    summarize(
      name,
      steps.filter((step) => step.phase === name),
    ),
  );
}

function summarize(name: string, steps: readonly StepProgress[]): PhaseProgress {
  const states = steps.map((step) => step.state);
  const worst =
    (['failed', 'running', 'waiting', 'skipped'] as const).find((state) => states.includes(state)) ?? 'done';
  // A phase that has begun and whose next step waits for another phase's step is still running.
  const state = worst === 'waiting' && states.includes('done') ? 'running' : worst;
  const finished = steps.map((step) => step.finishedWallMs);
  return {
    name,
    state,
    startedWallMs: steps.find((step) => step.startedWallMs > 0)?.startedWallMs ?? 0,
    finishedWallMs: state === 'done' ? Math.max(0, ...finished) : 0,
    detail: steps.find((step) => step.current)?.detail ?? '',
  };
}

function mergePhases(operator: Operator, config: PlacementConfig): PhaseProgress[] {
  const steps = stepProgress(operator, config);
  const merge = steps.at(-1);
  const aligning = steps.slice(0, -1);
  const progress = operator.mergeProgress;
  const align: PhaseProgress =
    aligning.length > 0
      ? summarize('align', aligning)
      : {
          name: 'align',
          state: 'done',
          startedWallMs: operator.startedWallMs,
          finishedWallMs: operator.startedWallMs,
          detail: '',
        };
  const started = merge?.startedWallMs ?? 0;
  const ended = operator.hasEnded;
  const detail = merge?.detail ?? '';
  const phase = (name: string, state: ProgressState, from: number, to: number, text = ''): PhaseProgress => ({
    name,
    state,
    startedWallMs: from,
    finishedWallMs: to,
    detail: text,
  });
  const open: ProgressState = ended ? 'failed' : 'running';
  const later: ProgressState = ended ? 'skipped' : 'waiting';
  switch (progress.type) {
    case 'aligning': {
      const prepare = align.state === 'done' ? open : later;
      return [
        align,
        phase('prepare', prepare, prepare === later ? 0 : started, 0, detail),
        phase('catch-up', later, 0, 0),
        phase('commit', later, 0, 0),
      ];
    }
    case 'sent':
      return [
        align,
        phase('prepare', open, started, 0, detail),
        phase('catch-up', later, 0, 0),
        phase('commit', later, 0, 0),
      ];
    case 'prepared':
      return [
        align,
        phase('prepare', 'done', started, progress.wallMs),
        phase('catch-up', open, progress.wallMs, 0, detail),
        phase('commit', later, 0, 0),
      ];
    case 'committed':
      return [
        align,
        phase('prepare', 'done', started, progress.preparedWallMs),
        phase('catch-up', 'done', progress.preparedWallMs, progress.wallMs),
        phase('commit', 'done', progress.wallMs, progress.wallMs),
      ];
    case 'rolled-back':
      return [
        align,
        phase('prepare', 'done', started, progress.preparedWallMs),
        phase('catch-up', 'failed', progress.preparedWallMs, progress.wallMs),
        phase('rollback', 'done', progress.wallMs, progress.wallMs),
      ];
    default:
      return unreachable(progress);
  }
}
