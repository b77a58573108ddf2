/**
 * What a long enough run of a profile must have reached at least once ("sometimes" goals), and what every run of some
 * length must contain to prove anything. A goal names a count: a mark (a line the stores would log), a check, or a cell
 * of the matrix of faults against states of regions.
 */

/** From this number of histories on unmet goals fail a run; `--goals` demands them of any. */
export const GOAL_HISTORIES = 300;
/** From this number of histories on a run without these is vacuous. */
export const VACUITY_HISTORIES = 20;

const LITE = ['lite', 'merge-storm', 'move-storm', 'membership', 'disk', 'clock', 'overload', 'lossy'];

/** Every profile of the lite world must have answered, committed and compared; some have a subject of their own. */
export const VACUITY = [
  {
    profiles: LITE,
    checks: ['commits', 'answers to writes', 'values shown', 'served reads', 'model', 'durable quorums'],
  },
  { profiles: ['merge-storm'], checks: ['merges committed', 'merges rolled back', 'splits'] },
  { profiles: ['move-storm', 'membership'], checks: ['membership changes'] },
  { profiles: ['disk', 'lossy'], checks: ['promises'] },
  { profiles: ['clock', 'lite'], checks: ['leases', 'elections'] },
];

export const GOALS = [
  { name: 'a merge is rolled back', profiles: ['lite', 'merge-storm'], checks: 'merges rolled back' },
  { name: 'a command is refused at apply', profiles: ['merge-storm', 'membership'], checks: 'refused at apply' },
  {
    name: 'a snapshot meets a live region in its range',
    profiles: ['merge-storm', 'move-storm'],
    marks: 'snapshot dropped: region # occupies the range',
  },
  {
    name: 'a snapshot is installed',
    profiles: ['lite', 'merge-storm', 'move-storm', 'membership'],
    marks: 'snapshot installed',
  },
  {
    name: 'a replica asks whether it still counts',
    profiles: ['move-storm', 'membership'],
    marks: 'no leader for long, asking whether this replica still counts',
  },
  { name: 'a replica is created by a message', profiles: LITE, marks: 'created a replica for a message' },
  ...[
    'after seconds',
    'after a restart',
    'for a region that is gone',
    'of an older epoch',
    'for an earlier replica',
    'with entries before the log',
  ].map((change) => ({
    name: `old mail arrives ${change}`,
    profiles: ['lite', 'merge-storm', 'move-storm', 'membership'],
    marks: `old mail ${change}`,
  })),
  ...['crash', 'crash-point', 'isolate', 'drop-class'].flatMap((kind) =>
    ['merging', 'installing', 'uninitialized', 'leaving', 'no leader'].map((state) => ({
      name: `${kind} while a region is ${state}`,
      profiles: ['merge-storm', 'move-storm'],
      cells: `${kind} × ${state}`,
    })),
  ),
  ...['crash', 'isolate', 'one-way', 'drop-class'].map((kind) => ({
    name: `${kind} in a joint configuration`,
    profiles: ['membership'],
    cells: `${kind} × joint`,
  })),
  ...['crash-all', 'disk-slow'].map((kind) => ({
    name: `${kind} while entries are being applied`,
    profiles: ['disk'],
    cells: `${kind} × applying`,
  })),
];

/** Names of the goals of a profile that the totals of a run do not meet. A kind that never struck is no goal. */
export function unmetGoals(profile, totals) {
  return GOALS.filter(({ profiles }) => profiles.includes(profile))
    .filter((goal) =>
      ['checks', 'marks', 'cells'].every((group) => goal[group] === undefined || !(totals[group][goal[group]] > 0)),
    )
    .map(({ name }) => name);
}

/** Counts without which a run of the profile proves nothing and that are zero. */
export function vacuous(profile, totals) {
  return VACUITY.filter(({ profiles }) => profiles.includes(profile))
    .flatMap(({ checks }) => checks)
    .filter((name) => !(totals.checks[name] > 0));
}

/** The matrix as text: a line for each kind of fault, a column for each state. */
export function matrix(cells) {
  const pairs = Object.keys(cells).map((cell) => cell.split(' × '));
  const kinds = [...new Set(pairs.map(([kind]) => kind))].sort();
  const states = [...new Set(pairs.map(([, state]) => state))].sort();
  const width = Math.max(8, ...states.map((state) => state.length)) + 1;
  const line = (first, rest) => `${first.padEnd(20)}${rest.map((text) => String(text).padStart(width)).join('')}`;
  return [
    line('', states),
    ...kinds.map((kind) =>
      line(
        kind,
        states.map((state) => cells[`${kind} × ${state}`] ?? 0),
      ),
    ),
  ].join('\n');
}
