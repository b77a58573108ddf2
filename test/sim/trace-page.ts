/**
 * One static page that tells the story of a run: a lane per store with roles, faults and messages, the genealogy of
 * regions, and the clients' operations per key. No server, no scripts from elsewhere.
 */
import { operationsOf } from '../../jepsen-lite/history.ts';
import type { RunResult, TimelineEntry } from './run-result.ts';

const escape = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;');

const PX_PER_MS = 0.25;
const LANE_PX = 150;
const LEFT_PX = 130;

/** Regions by the moment they were first seen with an epoch, and where their range went. */
function genealogy(timeline: readonly TimelineEntry[]): string {
  const lines: string[] = [];
  const seen = new Set<string>();
  for (const { atMs, kind, text } of timeline) {
    if (kind !== 'role') {
      continue;
    }
    const match = /^(r\d+ v\d+:\d+ \[[^)]*\))/.exec(text);
    const line = match?.[1];
    if (line !== undefined && !seen.has(line)) {
      seen.add(line);
      lines.push(`<tr><td>${atMs.toFixed(1)}</td><td>${escape(line)}</td></tr>`);
    }
  }
  return lines.join('\n');
}

export function tracePage(result: RunResult): string {
  const { case: simCase, failure, timeline, stats } = result;
  const endMs = stats.virtualMs;
  const width = LEFT_PX + endMs * PX_PER_MS + 50;
  const x = (ms: number): string => (LEFT_PX + ms * PX_PER_MS).toFixed(1);
  const names =
    result.lanes ?? Array.from({ length: simCase.config.stores + 1 }, (_, n) => (n === 0 ? 'cluster' : `store ${n}`));
  const lanes = names.length;
  const shapes: string[] = [];
  for (let lane = 0; lane < lanes; lane++) {
    const y = lane * LANE_PX + 30;
    shapes.push(
      `<line x1="${LEFT_PX}" x2="${width}" y1="${y}" y2="${y}" class="lane"/><text x="4" y="${y}">${escape(names[lane] ?? '')}</text>`,
    );
  }
  let slot = 0;
  for (const entry of timeline) {
    const y = entry.lane * LANE_PX + 30;
    const title = `<title>${entry.atMs.toFixed(2)} ms: ${escape(entry.text)}</title>`;
    if (entry.kind === 'fault') {
      const until = Math.min(entry.untilMs ?? entry.atMs, endMs);
      shapes.push(
        `<rect class="fault" x="${x(entry.atMs)}" y="${y - 12}" width="${Math.max(2, (until - entry.atMs) * PX_PER_MS).toFixed(1)}" height="${LANE_PX - 30}">${title}</rect>`,
      );
    } else if (entry.kind === 'message') {
      const to = (entry.to ?? entry.lane) * LANE_PX + 30;
      shapes.push(
        `<line class="mail" x1="${x(entry.atMs)}" y1="${y}" x2="${x(entry.atMs + 2)}" y2="${to}">${title}</line>`,
      );
    } else {
      slot = (slot + 1) % 9;
      shapes.push(
        `<circle class="${entry.kind}" cx="${x(entry.atMs)}" cy="${y + 8 + slot * 11}" r="3">${title}</circle>`,
      );
    }
  }
  const operations = operationsOf(result.history)
    .map((op) => {
      const outcome = op.outcome.type === 'ok' ? JSON.stringify(op.outcome.response) : op.outcome.type;
      return `<tr class="${op.outcome.type}"><td>${op.i}</td><td>${op.process}</td><td>${(op.callNs / 1e6).toFixed(2)}</td><td>${op.returnNs === Infinity ? '…' : (op.returnNs / 1e6).toFixed(2)}</td><td>${escape(JSON.stringify(op.request))}</td><td>${escape(outcome)}</td></tr>`;
    })
    .join('\n');
  const story = timeline
    .filter((entry) => entry.kind !== 'message')
    .map(
      (entry) =>
        `<tr class="${entry.kind}"><td>${entry.atMs.toFixed(2)}</td><td>${entry.lane === 0 ? '' : entry.lane}</td><td>${escape(entry.text)}</td></tr>`,
    )
    .join('\n');
  return `<!doctype html><html lang="en"><meta charset="utf-8"><title>seed ${simCase.seed} ${simCase.profile}</title>
<style>
body{font:13px system-ui;margin:1em} svg{background:#fafafa} .lane{stroke:#999} .mail{stroke:#4a7;stroke-width:.6;opacity:.6}
.mail:hover{stroke:#000;stroke-width:2} .fault{fill:#e66;opacity:.25} .role{fill:#36c} .region{fill:#93c} .note{fill:#333}
td{padding:0 .6em;font-family:monospace;white-space:pre} tr.fault td{background:#fdd} tr.fail td{color:#999} tr.info td{color:#b60}
.scroll{overflow:auto;max-height:80vh;border:1px solid #ccc;margin-bottom:1em}
</style>
<h1>Seed ${simCase.seed}, profile ${simCase.profile}</h1>
<p>${failure === undefined ? 'No promise was broken.' : `<b>${escape(failure.invariant)}</b> at ${failure.atMs.toFixed(2)} ms, event ${failure.event}: ${escape(failure.message)}`}</p>
<p>${stats.events} events, ${stats.ok} operations answered, ${stats.unknown} unknown; trace ${result.traceHash}.</p>
<div class="scroll"><svg width="${width.toFixed(0)}" height="${lanes * LANE_PX + 20}">${shapes.join('\n')}</svg></div>
<h2>Regions</h2><div class="scroll"><table>${genealogy(timeline)}</table></div>
<h2>What happened</h2><div class="scroll"><table>${story}</table></div>
<h2>Operations of clients</h2><div class="scroll"><table>${operations}</table></div>
<h2>Case</h2><pre>${escape(JSON.stringify(simCase, null, 1))}</pre></html>
`;
}
