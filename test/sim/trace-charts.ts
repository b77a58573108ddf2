/** The drawings of the trace page: lanes of stores with their messages, the key space over time, requests of clients. */
import { compareBytes, escapeKey } from '../../src/base/bytes.ts';
import { compareEnds, rangesOverlap } from '../../src/base/key-range.ts';
import type { Operation } from '../../jepsen-lite/history.ts';
import type { SeenRegion, TimelineEntry } from './run-result.ts';

const PX_PER_MS = 0.25;
const LANE_PX = 150;
const LEFT_PX = 130;
const BAND_PX = 26;
const ROW_PX = 9;
const TICK_MS = 1_000;
/** A message that never arrived is drawn this long. */
const LOST_MS = 6;

export const escapeHtml = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;');

const x = (ms: number): string => (LEFT_PX + ms * PX_PER_MS).toFixed(1);
const widthOf = (ms: number): string => Math.max(1.5, ms * PX_PER_MS).toFixed(1);
const hueOf = (n: number): number => (n * 67) % 360;

function drawing(endMs: number, heightPx: number, shapes: readonly string[]): string {
  const width = LEFT_PX + endMs * PX_PER_MS + 60;
  const ticks: string[] = [];
  for (let ms = 0; ms <= endMs; ms += TICK_MS) {
    ticks.push(
      `<line class="tick" x1="${x(ms)}" x2="${x(ms)}" y1="0" y2="${heightPx}"/><text class="tick" x="${x(ms)}" y="9">${ms / 1000} s</text>`,
    );
  }
  return `<div class="scroll"><svg width="${width.toFixed(0)}" height="${heightPx}">${ticks.join('')}\n${shapes.join('\n')}</svg></div>`;
}

/** One lane per store: roles and faults in it, messages between the lanes from sending to arrival. */
export function lanesChart(names: readonly string[], timeline: readonly TimelineEntry[], endMs: number): string {
  const y = (lane: number): number => lane * LANE_PX + 30;
  const shapes = names.map(
    (name, lane) =>
      `<line x1="${LEFT_PX}" x2="${x(endMs)}" y1="${y(lane)}" y2="${y(lane)}" class="lane"/><text x="4" y="${y(lane)}">${escapeHtml(name)}</text>`,
  );
  let slot = 0;
  for (const { atMs, kind, lane, text, to, untilMs } of timeline) {
    const arrival = kind === 'message' && untilMs === undefined ? ' (never arrived)' : '';
    const title = `<title>${atMs.toFixed(2)} ms: ${escapeHtml(text)}${arrival}</title>`;
    if (kind === 'fault') {
      const until = Math.min(untilMs ?? atMs, endMs);
      shapes.push(
        `<rect class="fault" x="${x(atMs)}" y="${y(lane) - 12}" width="${widthOf(until - atMs)}" height="${LANE_PX - 30}">${title}</rect>`,
      );
    } else if (kind === 'message') {
      const from = y(lane);
      const target = y(to ?? lane);
      const isLost = untilMs === undefined;
      const endY = isLost ? from + (target - from) * 0.3 : target;
      shapes.push(
        `<line class="${isLost ? 'lost' : 'mail'}" x1="${x(atMs)}" y1="${from}" x2="${x(isLost ? atMs + LOST_MS : untilMs)}" y2="${endY}">${title}</line>`,
      );
    } else {
      slot = (slot + 1) % 9;
      shapes.push(`<circle class="${kind}" cx="${x(atMs)}" cy="${y(lane) + 8 + slot * 11}" r="3">${title}</circle>`);
    }
  }
  return drawing(endMs, names.length * LANE_PX + 20, shapes);
}

/** A descriptor of a region, from when the first replica has it to when it is replaced. */
interface Life {
  readonly region: SeenRegion;
  readonly fromMs: number;
  toMs: number;
}

/** Versions of regions in the order they were first seen; the end of one is the first newer one over any of its keys. */
function livesOf(timeline: readonly TimelineEntry[], endMs: number): { lives: Life[]; merging: TimelineEntry[] } {
  const lives: Life[] = [];
  const merging: TimelineEntry[] = [];
  const seen = new Set<string>();
  for (const entry of timeline) {
    const { region, atMs } = entry;
    if (region === undefined || region.version === 0) {
      continue;
    }
    if (region.isMerging) {
      merging.push(entry);
    }
    const name = `${region.id} ${region.version}`;
    if (seen.has(name)) {
      continue;
    }
    seen.add(name);
    // A replica far behind shows what is long over.
    const isOver = lives.some((l) => l.region.version > region.version && rangesOverlap(l.region.range, region.range));
    for (const life of lives) {
      if (
        !isOver &&
        life.toMs === endMs &&
        life.region.version < region.version &&
        rangesOverlap(life.region.range, region.range)
      ) {
        life.toMs = atMs;
      }
    }
    if (!isOver) {
      lives.push({ region, fromMs: atMs, toMs: endMs });
    }
  }
  return { lives, merging };
}

const showKey = (key: Uint8Array, edge: string): string => escapeHtml(key.length === 0 ? edge : escapeKey(key));

/** The key space from top to bottom, time from left to right: splits part a band, merges join two. */
export function keySpaceChart(timeline: readonly TimelineEntry[], endMs: number): string {
  const { lives, merging } = livesOf(timeline, endMs);
  const starts = new Map<string, Uint8Array>();
  for (const { region } of lives) {
    for (const key of [region.range.start, region.range.end]) {
      if (key.length > 0) {
        starts.set(Buffer.from(key).toString('latin1'), key);
      }
    }
  }
  const borders = [new Uint8Array(0), ...[...starts.values()].sort(compareBytes)];
  const rowOf = (key: Uint8Array): number => borders.findIndex((border) => compareBytes(border, key) === 0);
  const endRowOf = (key: Uint8Array): number =>
    key.length === 0
      ? borders.length
      : borders.findIndex((border) => border.length > 0 && compareEnds(border, key) === 0);
  const y = (row: number): number => 16 + row * BAND_PX;
  const shapes = borders.map(
    (key, row) =>
      `<line class="lane" x1="${LEFT_PX - 6}" x2="${x(endMs)}" y1="${y(row)}" y2="${y(row)}"/><text x="4" y="${y(row) + 12}">${showKey(key, '−∞')}</text>`,
  );
  for (const { region, fromMs, toMs } of lives) {
    const top = y(rowOf(region.range.start));
    const height = y(endRowOf(region.range.end)) - top;
    const title = `<title>region ${region.id} version ${region.version} [${showKey(region.range.start, '')}, ${showKey(region.range.end, '')}) from ${fromMs.toFixed(1)} to ${toMs.toFixed(1)} ms</title>`;
    shapes.push(
      `<rect class="band" style="fill:hsl(${hueOf(region.id)} 65% 75%)" x="${x(fromMs)}" y="${top + 1}" width="${widthOf(toMs - fromMs)}" height="${height - 2}">${title}</rect>`,
    );
    if ((toMs - fromMs) * PX_PER_MS > 30) {
      shapes.push(
        `<text class="band" x="${(LEFT_PX + fromMs * PX_PER_MS + 3).toFixed(1)}" y="${top + 13}">r${region.id} v${region.version}</text>`,
      );
    }
  }
  for (const { atMs, region, lane } of merging) {
    if (region !== undefined) {
      const row = rowOf(region.range.start);
      if (row >= 0) {
        shapes.push(
          `<circle class="merging" cx="${x(atMs)}" cy="${y(row) + BAND_PX - 6}" r="3"><title>${atMs.toFixed(1)} ms: region ${region.id} is merging on ${lane}</title></circle>`,
        );
      }
    }
  }
  return drawing(endMs, y(borders.length) + 6, shapes);
}

/** One row per client process, one bar per request from call to answer. */
export function requestsChart(operations: readonly Operation[], endMs: number): string {
  const processes = [...new Set(operations.map(({ process }) => process))].sort((a, b) => a - b);
  const rows = new Map(processes.map((process, row) => [process, row]));
  const shapes = processes.map(
    (process, row) => `<text class="small" x="4" y="${24 + row * ROW_PX}">client ${process}</text>`,
  );
  for (const { process, callNs, returnNs, request, outcome, i } of operations) {
    const fromMs = callNs / 1e6;
    const toMs = Math.min(endMs, returnNs === Infinity ? endMs : returnNs / 1e6);
    const answer = outcome.type === 'ok' ? JSON.stringify(outcome.response) : outcome.type;
    shapes.push(
      `<rect class="op ${outcome.type}" x="${x(fromMs)}" y="${17 + (rows.get(process) ?? 0) * ROW_PX}" width="${widthOf(toMs - fromMs)}" height="${ROW_PX - 2}"><title>#${i} ${escapeHtml(JSON.stringify(request))} → ${escapeHtml(answer)}</title></rect>`,
    );
  }
  return drawing(endMs, 24 + processes.length * ROW_PX, shapes);
}
