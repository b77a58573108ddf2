import { describe, expect, test } from 'vitest';
import { LatencyHistogram, Metrics } from '../../../src/server/metrics.ts';

describe('metrics', () => {
  test('are printed in the Prometheus text form', () => {
    const metrics = new Metrics();
    const counters = metrics.counters('braid_things_total', 'Things.', 'kind', ['a', 'b']);
    counters.a.add();
    counters.a.add(2);
    metrics.counter('braid_others_total', 'Others.').add();
    metrics.gauge('braid_size', 'Size.', () => [[{ path: 'a"b\\c' }, 4]]);
    const times = metrics.histograms('braid_time_seconds', 'Time.', 'kind', ['x', 'unused']);
    times.x.observe(0.05);
    times.x.observe(3);
    times.x.observe(1e9);
    const text = metrics.text();
    expect(text).toContain(
      '# HELP braid_things_total Things.\n# TYPE braid_things_total counter\nbraid_things_total{kind="a"} 3\nbraid_things_total{kind="b"} 0\n',
    );
    expect(text).toContain('braid_others_total 1\n');
    expect(text).toContain('braid_size{path="a\\"b\\\\c"} 4\n');
    expect(text).toContain('braid_time_seconds_bucket{kind="x",le="0.0001"} 1\n');
    expect(text).toContain('braid_time_seconds_bucket{kind="x",le="0.0032"} 2\n');
    expect(text).toContain('braid_time_seconds_bucket{kind="x",le="+Inf"} 3\n');
    expect(text).toContain('braid_time_seconds_count{kind="x"} 3\n');
    expect(text).not.toContain('unused');
    expect(text.endsWith('\n')).toBe(true);
  });

  test('a bucket includes its upper bound', () => {
    const histogram = new LatencyHistogram();
    histogram.observe(0.1);
    expect([...histogram.lines('t', {})][0]).toBe('t_bucket{le="0.0001"} 1');
  });

  test('a name is used once', () => {
    const metrics = new Metrics();
    metrics.counter('braid_x', '');
    expect(() => metrics.counter('braid_x', '')).toThrow('one owner');
    expect(() => metrics.counter('x', '')).toThrow('start with braid_');
  });
});
