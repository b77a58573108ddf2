/** A static page about one run: operations and slowest answers per second, with outages and changes of regions as bands. */
import { writeFileSync } from 'node:fs';
import type { Nemesis } from './nemesis.ts';
import type { RunSummary } from './run.ts';
import type { Latency } from './workload.ts';

const WIDTH = 1200;
const HEIGHT = 160;
const BANDS = { outage: '#f3b0a8', merge: '#b9d7f5', split: '#d3efc4', move: '#f2e2a5', transfer: '#e3d3f0' } as const;

const escape = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');

function chart(title: string, values: readonly number[], bands: string): string {
  const top = Math.max(1, ...values);
  const points = values
    .map(
      (value, i) =>
        `${((i * WIDTH) / Math.max(1, values.length - 1)).toFixed(1)},${(HEIGHT - (value / top) * HEIGHT).toFixed(1)}`,
    )
    .join(' ');
  return `<h2>${escape(title)} (highest ${top.toFixed(1)})</h2><svg viewBox="0 0 ${WIDTH} ${HEIGHT}" width="100%" height="${HEIGHT}" preserveAspectRatio="none">${bands}<polyline fill="none" stroke="#223" stroke-width="1.2" points="${points}"/></svg>`;
}

export function writeReport(path: string, summary: RunSummary, latencies: readonly Latency[], nemesis: Nemesis): void {
  const first = latencies.reduce((low, one) => Math.min(low, one.startMs), Infinity);
  const last = latencies.reduce((high, one) => Math.max(high, one.endMs), 0);
  const seconds = Math.max(1, Math.ceil((last - first) / 1000));
  const perSecond = new Array<number>(seconds).fill(0);
  const slowest = new Array<number>(seconds).fill(0);
  for (const { startMs, endMs, isOk } of latencies) {
    const at = Math.min(seconds - 1, Math.floor((endMs - first) / 1000));
    perSecond[at] = (perSecond[at] as number) + (isOk ? 1 : 0);
    slowest[at] = Math.max(slowest[at] as number, endMs - startMs);
  }
  const band = (kind: keyof typeof BANDS, startMs: number, endMs: number): string => {
    const x = ((startMs - first) / 1000 / seconds) * WIDTH;
    const width = Math.max(1, ((Math.min(endMs, last) - startMs) / 1000 / seconds) * WIDTH);
    return `<rect x="${x.toFixed(1)}" y="0" width="${width.toFixed(1)}" height="${HEIGHT}" fill="${BANDS[kind]}"><title>${kind}</title></rect>`;
  };
  const bands = [
    ...nemesis.outages.map(({ startMs, endMs }) => band('outage', startMs, endMs)),
    ...nemesis.changes.filter(({ isDone }) => isDone).map(({ kind, startMs, endMs }) => band(kind, startMs, endMs)),
  ].join('');
  const legend = Object.entries(BANDS)
    .map(([kind, color]) => `<span style="background:${color};padding:0 .6em">${kind}</span>`)
    .join(' ');
  const rows = nemesis.events
    .map(
      ({ atMs, what, target, result, tookMs }) =>
        `<tr><td>${(atMs / 1000).toFixed(1)}</td><td>${escape(what)}</td><td>${escape(target)}</td><td>${escape(result)}</td><td>${tookMs}</td></tr>`,
    )
    .join('');
  writeFileSync(
    path,
    `<!doctype html><meta charset="utf-8"><title>braid: ${summary.verdict}</title><style>body{font:14px system-ui;margin:2em}td,th{padding:0 1em 0 0;text-align:left}pre{white-space:pre-wrap}</style>
<h1>${summary.verdict}: ${summary.operations} operations in ${summary.seconds} s, seed ${summary.seed}</h1><p>${legend}</p>
${chart('answers per second', perSecond, bands)}${chart('slowest answer per second, ms', slowest, bands)}
<pre>${escape(JSON.stringify(summary, undefined, 2))}</pre>
<table><tr><th>second</th><th>what</th><th>target</th><th>result</th><th>ms</th></tr>${rows}</table>\n`,
  );
}
