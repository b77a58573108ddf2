/**
 * One static page that tells the story of a run: a lane per store with roles, faults and messages from sending to
 * arrival, the key space with the genealogy of its regions, the clients' requests, and all of it again as text. No
 * server, no scripts from elsewhere.
 */
import { operationsOf } from '../../jepsen-lite/history.ts';
import type { RunResult } from './run-result.ts';
import { escapeHtml, keySpaceChart, lanesChart, requestsChart } from './trace-charts.ts';

const STYLE = `
body{font:13px system-ui;margin:1em} svg{background:#fafafa;display:block} svg text{font-size:11px}
.lane{stroke:#bbb} .tick{stroke:#e4e4e4} text.tick{stroke:none;fill:#999;font-size:9px} text.small{font-size:8px}
.mail{stroke:#4a7;stroke-width:.6;opacity:.6} .lost{stroke:#d22;stroke-width:1} .mail:hover,.lost:hover{stroke:#000;stroke-width:2}
.fault{fill:#e66;opacity:.25} .role{fill:#36c} .region{fill:#93c} .note{fill:#333} .merging{fill:#b00}
rect.band{stroke:#555;stroke-width:.5} text.band{font-size:10px} rect.op{fill:#5a5} rect.op.fail{fill:#bbb} rect.op.info{fill:#e90}
td{padding:0 .6em;font-family:monospace;white-space:pre} tr.fault td{background:#fdd} tr.fail td{color:#999} tr.info td{color:#b60}
.scroll{overflow:auto;max-height:80vh;border:1px solid #ccc;margin-bottom:1em}
`;

export function tracePage(result: RunResult): string {
  const { case: simCase, failure, timeline, stats } = result;
  const endMs = stats.virtualMs;
  const names =
    result.lanes ?? Array.from({ length: simCase.config.stores + 1 }, (_, n) => (n === 0 ? 'cluster' : `store ${n}`));
  const operations = operationsOf(result.history);
  const requests = operations
    .map((op) => {
      const outcome = op.outcome.type === 'ok' ? JSON.stringify(op.outcome.response) : op.outcome.type;
      return `<tr class="${op.outcome.type}"><td>${op.i}</td><td>${op.process}</td><td>${(op.callNs / 1e6).toFixed(2)}</td><td>${op.returnNs === Infinity ? '…' : (op.returnNs / 1e6).toFixed(2)}</td><td>${escapeHtml(JSON.stringify(op.request))}</td><td>${escapeHtml(outcome)}</td></tr>`;
    })
    .join('\n');
  const story = timeline
    .filter((entry) => entry.kind !== 'message')
    .map(
      (entry) =>
        `<tr class="${entry.kind}"><td>${entry.atMs.toFixed(2)}</td><td>${entry.lane === 0 ? '' : entry.lane}</td><td>${escapeHtml(entry.text)}</td></tr>`,
    )
    .join('\n');
  return `<!doctype html><html lang="en"><meta charset="utf-8"><title>seed ${simCase.seed} ${simCase.profile}</title>
<style>${STYLE}</style>
<h1>Seed ${simCase.seed}, profile ${simCase.profile}</h1>
<p>${failure === undefined ? 'No promise was broken.' : `<b>${escapeHtml(failure.invariant)}</b> at ${failure.atMs.toFixed(2)} ms, event ${failure.event}: ${escapeHtml(failure.message)}`}</p>
<p>${stats.events} events, ${stats.ok} operations answered, ${stats.unknown} unknown; trace ${result.traceHash}.</p>
<h2>Regions over the key space</h2>
<p>A band is one version of a region: a split parts it, a merge joins two. Red dots: a replica prepares to merge.</p>
${keySpaceChart(timeline, endMs)}
<h2>Stores</h2>
<p>Green: a message from sending to arrival; red: one that never arrived; shaded: a fault; dots: roles, commands and notes.</p>
${lanesChart(names, timeline, endMs)}
<h2>Requests of clients</h2>
<p>Green: answered; grey: failed without effect; orange: outcome unknown.</p>
${requestsChart(operations, endMs)}
<h2>What happened</h2><div class="scroll"><table>${story}</table></div>
<h2>Requests as text</h2><div class="scroll"><table>${requests}</table></div>
<h2>Case</h2><pre>${escapeHtml(JSON.stringify(simCase, null, 1))}</pre></html>
`;
}
