/**
 * Counters, gauges and histograms of a process, and their Prometheus text form (exposition format 0.0.4). Updating one
 * costs an addition; everything else happens when somebody asks. Labels are small fixed sets, never ids, keys or
 * addresses of clients.
 */
import { assert } from '../base/assert.ts';

export type Labels = Readonly<Record<string, string>>;

interface Family {
  readonly name: string;
  readonly help: string;
  readonly type: 'counter' | 'gauge' | 'histogram';
  lines(): Iterable<string>;
}

function labelText(labels: Labels): string {
  const parts = Object.entries(labels).map(
    ([name, value]) => `${name}="${value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')}"`,
  );
  return parts.length === 0 ? '' : `{${parts.join(',')}}`;
}

export class Counter {
  value = 0;

  add(amount = 1): void {
    this.value += amount;
  }
}

/** Upper bounds in milliseconds; doubling from a tenth of a millisecond to about 13 s. */
const LATENCY_BOUNDS_MS: readonly number[] = Array.from({ length: 18 }, (_, i) => 0.1 * 2 ** i);

/** Distribution of durations. Observed in milliseconds, printed in seconds. */
export class LatencyHistogram {
  readonly #buckets: Float64Array = new Float64Array(LATENCY_BOUNDS_MS.length + 1);
  #sumMs = 0;
  #count = 0;

  observe(ms: number): void {
    let bucket = 0;
    while (bucket < LATENCY_BOUNDS_MS.length && ms > (LATENCY_BOUNDS_MS[bucket] as number)) {
      bucket++;
    }
    this.#buckets[bucket] = (this.#buckets[bucket] as number) + 1;
    this.#sumMs += ms;
    this.#count++;
  }

  get count(): number {
    return this.#count;
  }

  *lines(name: string, labels: Labels): Iterable<string> {
    let cumulative = 0;
    for (const [i, bound] of LATENCY_BOUNDS_MS.entries()) {
      cumulative += this.#buckets[i] as number;
      yield `${name}_bucket${labelText({ ...labels, le: String(Number((bound / 1000).toPrecision(6))) })} ${cumulative}`;
    }
    yield `${name}_bucket${labelText({ ...labels, le: '+Inf' })} ${this.#count}`;
    yield `${name}_sum${labelText(labels)} ${this.#sumMs / 1000}`;
    yield `${name}_count${labelText(labels)} ${this.#count}`;
  }
}

export class Metrics {
  readonly #families = new Map<string, Family>();

  #add(family: Family): void {
    assert(/^braid_[a-z0-9_]+$/.test(family.name), 'metric names start with braid_', { name: family.name });
    assert(!this.#families.has(family.name), 'a metric has one owner', { name: family.name });
    this.#families.set(family.name, family);
  }

  /** Counters that differ in one label. */
  counters<L extends string>(
    name: string,
    help: string,
    label: string,
    values: readonly L[],
  ): Readonly<Record<L, Counter>> {
    const counters = Object.fromEntries(values.map((value) => [value, new Counter()])) as Record<L, Counter>;
    this.#add({
      name,
      help,
      type: 'counter',
      lines: () => values.map((value) => `${name}${labelText({ [label]: value })} ${counters[value].value}`),
    });
    return counters;
  }

  counter(name: string, help: string): Counter {
    const counter = new Counter();
    this.#add({ name, help, type: 'counter', lines: () => [`${name} ${counter.value}`] });
    return counter;
  }

  /** Values read when somebody asks. */
  gauge(name: string, help: string, read: () => readonly (readonly [Labels, number])[]): void {
    this.#add({
      name,
      help,
      type: 'gauge',
      lines: () => read().map(([labels, value]) => `${name}${labelText(labels)} ${value}`),
    });
  }

  histograms<L extends string>(
    name: string,
    help: string,
    label: string,
    values: readonly L[],
  ): Readonly<Record<L, LatencyHistogram>> {
    const histograms = Object.fromEntries(values.map((value) => [value, new LatencyHistogram()])) as Record<
      L,
      LatencyHistogram
    >;
    this.#add({
      name,
      help,
      type: 'histogram',
      // Labels nobody used yet would only lengthen the text.
      lines: () =>
        values.flatMap((value) =>
          histograms[value].count === 0 ? [] : [...histograms[value].lines(name, { [label]: value })],
        ),
    });
    return histograms;
  }

  text(): string {
    const out: string[] = [];
    for (const family of this.#families.values()) {
      out.push(`# HELP ${family.name} ${family.help}`, `# TYPE ${family.name} ${family.type}`, ...family.lines());
    }
    return `${out.join('\n')}\n`;
  }
}
