/**
 * Runs the adversary of the consensus core over many seeds, or shows which seed finds each planted defect:
 *
 *   npx tsx bench/raft-adversary.ts [--from SEED] [--seeds COUNT] [--defect NAME | --defects]
 *
 * Without a defect every violation is printed with its seed, and the exit code tells whether there was one. With a
 * defect (or all of them) the search ends at the first seed that notices; not noticing is the failure then.
 */
import { performance } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import { DEFECTS, type Defect } from '../src/raft/defects.ts';
import { runSeed } from '../test/property/raft-adversary.ts';

const { values } = parseArgs({
  options: {
    from: { type: 'string', default: '1' },
    seeds: { type: 'string', default: '10000' },
    defect: { type: 'string' },
    defects: { type: 'boolean', default: false },
  },
});
const from = Number(values.from);
const count = Number(values.seeds);

const secondsSince = (start: number): string => ((performance.now() - start) / 1000).toFixed(1);

function hunt(): number {
  const start = performance.now();
  const sum = { committed: 0, elections: 0, reads: 0, changes: 0, snapshots: 0, crashes: 0 };
  let violations = 0;
  for (let seed = from; seed < from + count; seed++) {
    const report = runSeed(seed);
    for (const key of Object.keys(sum) as (keyof typeof sum)[]) {
      sum[key] += report[key];
    }
    if (report.violation !== undefined) {
      violations++;
      console.log(`seed ${seed} step ${report.steps}: ${report.violation}`);
    }
  }
  console.log(`${count} seeds in ${secondsSince(start)} s, ${violations} violations; ${JSON.stringify(sum)}`);
  return violations === 0 ? 0 : 1;
}

function search(defect: Defect): boolean {
  const start = performance.now();
  for (let seed = from; seed < from + count; seed++) {
    const report = runSeed(seed, { defects: [defect] });
    if (report.rule !== undefined) {
      console.log(`| ${defect} | ${report.rule} | ${seed - from + 1} | ${secondsSince(start)} |`);
      return true;
    }
  }
  console.log(`| ${defect} | not noticed | ${count} | ${secondsSince(start)} |`);
  return false;
}

function main(): number {
  const named = DEFECTS.find((d) => d === values.defect);
  if (values.defect !== undefined && named === undefined) {
    console.log(`unknown defect; there are ${DEFECTS.join(', ')}`);
    return 2;
  }
  if (!values.defects && named === undefined) {
    return hunt();
  }
  console.log('| planted defect | rule that noticed | seeds | seconds |\n|---|---|---|---|');
  const missed = (named === undefined ? DEFECTS : [named]).filter((defect) => !search(defect));
  return missed.length === 0 ? 0 : 1;
}

process.exitCode = main();
