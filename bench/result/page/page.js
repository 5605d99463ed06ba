(() => {
  'use strict';

  const result = JSON.parse(document.getElementById('result').textContent);
  const timeline = result.timeline || [];
  const root = document.documentElement;
  const color = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();

  // Figures with their units.

  const digits = (most) => new Intl.NumberFormat('en', { maximumFractionDigits: most });
  const byDigits = [digits(0), digits(1), digits(2), digits(3)];

  // number keeps three digits that say something.
  const number = (v) => {
    const size = Math.abs(v);
    return byDigits[size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3].format(v);
  };

  // short is for an axis, where there is little room.
  const short = (v) => (Math.abs(v) >= 1e6 ? `${number(v / 1e6)} M` : number(v));

  const latency = (us) => {
    if (us < 1000) return `${number(us)} µs`;
    return us < 1e6 ? `${number(us / 1000)} ms` : `${number(us / 1e6)} s`;
  };

  const unit = (name) => (v) => `${number(v)} ${name}`;
  const seconds = unit('s');

  // value is how a curve's value stands in its legend: nothing as long as nobody points at the chart.
  const value = (format) => (_, v, __, index) => {
    if (index == null) return '';
    return v == null ? '–' : format(v);
  };

  // Curves over time. An interval counts from its start to its end: so it is drawn as a level, and the last has an end.

  const times = timeline.map((one) => one.at);
  if (timeline.length > 0) {
    const last = timeline[timeline.length - 1];
    times.push(last.at + last.seconds);
  }
  const over = (figure) => {
    const values = timeline.map(figure);
    return values.concat(values.slice(-1));
  };
  const perSecond = (name) => (one) => (one.seconds > 0 ? one[name] / one.seconds : 0);
  const positive = (v) => (v > 0 ? v : null); // 0 stands for "not known", and has no place on a log scale

  const curve = (label, stroke, format, more) => ({
    label,
    stroke: color(stroke),
    width: 1.75,
    value: value(format),
    points: { show: false },
    ...more,
  });

  // levels draws one for each interval that has a value, down to the next where that has one too.
  const levels = (u, index) => {
    const starts = u.data[0];
    const values = u.data[index];
    const x = (i) => Math.round(u.valToPos(starts[i], 'x', true));
    const y = (v) => Math.round(u.valToPos(v, 'y', true));
    const floor = y(u.scales.y.min);
    const stroke = new Path2D();
    const fill = new Path2D();
    for (let i = 0; i < starts.length - 1; i += 1) {
      if (values[i] == null) continue;
      const [left, right, top] = [x(i), x(i + 1), y(values[i])];
      if (i === 0 || values[i - 1] == null) stroke.moveTo(left, top);
      stroke.lineTo(left, top);
      stroke.lineTo(right, top);
      fill.rect(left, top, right - left, floor - top);
    }
    return { stroke, fill: u.series[index].fill ? fill : null };
  };
  const steps = (label, stroke, format, more) => curve(label, stroke, format, { paths: levels, ...more });

  const axis = (format, more) => ({
    stroke: color('soft'),
    font: '12px system-ui, sans-serif',
    grid: { stroke: color('line'), width: 1 },
    ticks: { show: false },
    values: (_, splits) => splits.map((v) => (v == null ? '' : format(v))),
    ...more,
  });
  const side = (format, more) => axis(format, { size: 66, ...more }); // the same everywhere, so that charts stand below each other
  const bottom = (format, more) => axis(format, { size: 36, gap: 9, ...more });

  const fromZero = (least) => ({ range: (_, __, most) => [0, Math.max(most * 1.06, least)] });
  const log = { distr: 3, log: 10 };
  // On a log scale only powers of ten have a line.
  const isPower = (v) => Math.abs(Math.log10(v) - Math.round(Math.log10(v))) < 1e-9;
  const powers = (_, splits) => splits.map((v) => (isPower(v) ? v : null));
  const logGrid = () => ({ grid: { stroke: color('line'), width: 1, filter: powers } });

  // overTime is a chart whose cursor and zoom are those of all others over time.
  const overTime = (format, scale, curves, values, more) => ({
    data: [times, ...values],
    scales: { x: { time: false }, y: scale },
    axes: [bottom(seconds), side(format, more)],
    series: [{ label: 'at', value: value(seconds) }, ...curves],
    cursor: {
      y: false,
      sync: { key: 'time', scales: ['x', null] },
      drag: { x: true, y: false },
      // The interval below the cursor, not the one that starts closest to it.
      dataIdx: (u, _, near, at) => (near > 0 && u.data[0][near] > at ? near - 1 : near),
    },
  });

  const charts = {
    requests() {
      const format = unit('/s');
      return overTime(short, fromZero(1), [
        steps('due', 'due', format, { dash: [4, 3] }),
        steps('accepted', 'accepted', format, { fill: `${color('accepted')}24` }),
        steps('refused', 'refused', format),
        steps('failed', 'failed', format),
        steps('not sent', 'unsent', format),
      ], ['due', 'accepted', 'refused', 'failed', 'not_sent'].map((name) => over(perSecond(name))));
    },

    latency() {
      return overTime(latency, log, [
        steps('max', 'most', latency, { width: 1 }),
        steps('p99.9', 'p999', latency),
        steps('p99', 'p99', latency),
        steps('p50', 'p50', latency),
      ], ['max_us', 'p999_us', 'p99_us', 'p50_us'].map((name) => over((one) => positive(one[name]))), logGrid());
    },

    percentiles() {
      const kinds = result.kinds && result.kinds.length > 1 ? result.kinds : [];
      const sets = [{ name: 'all', counts: result.total, latency: result.latency }, ...kinds].filter((set) => set.latency);
      // The x of a percentile is "one in how many was slower". For the slowest of n that is n.
      const place = (q, n) => (q.percent < 100 ? 1 / (1 - q.percent / 100) : n);
      const tables = sets.map((set) => {
        const known = set.latency.filter((q) => q.us > 0);
        const last = Math.max(1, ...known.filter((q) => q.percent < 100).map((q) => place(q)));
        const n = Math.max(set.counts.accepted, last * 1.01);
        return [known.map((q) => place(q, n)), known.map((q) => q.us)];
      });
      const data = uPlot.join(tables);
      const end = Math.max(10, ...data[0]);
      const percent = (x) => (100 - 100 / x).toFixed(Math.max(0, Math.ceil(Math.log10(x) - 1e-9) - 2));
      const roomy = (u, splits) => {
        const each = Math.ceil(56 / (u.valToPos(10, 'x') - u.valToPos(1, 'x')));
        return splits.map((v) => (isPower(v) && Math.round(Math.log10(v)) % each === 0 ? v : null));
      };
      const colors = ['accepted', 'refused', 'p50', 'unsent', 'failed', 'extra', 'due'];
      return {
        data,
        scales: { x: { time: false, ...log, range: () => [1, end] }, y: log },
        axes: [bottom((x) => `${percent(x)} %`, { ...logGrid(), filter: roomy }), side(latency, logGrid())],
        series: [
          { label: 'of requests', value: value((x) => `${percent(x)} %`) },
          ...sets.map((set, i) => curve(set.name, colors[i % colors.length], latency, { spanGaps: true, dash: i < colors.length ? [] : [6, 3] })),
        ],
        cursor: { y: false, drag: { x: false, y: false } },
        padding: [8, 32, 0, 0],
      };
    },

    batch() {
      return overTime(short, fromZero(1), [
        steps('mean', 'accepted', unit('a call'), { fill: `${color('accepted')}24` }),
      ], [over((one) => positive(one.batch))]);
    },

    sizes() {
      const bars = result.batches;
      const from = (i) => (i > 0 ? bars[i - 1].up_to : 0);
      const name = (i) => (bars[i].up_to > 0 ? number(bars[i].up_to) : `> ${number(from(i))}`);
      const full = (i) => {
        if (!(bars[i].up_to > 0)) return `more than ${number(from(i))}`;
        return bars[i].up_to === from(i) + 1 ? name(i) : `${number(from(i) + 1)} to ${name(i)}`;
      };
      const places = bars.map((_, i) => i);
      return {
        data: [places, bars.map((bar) => bar.calls)],
        scales: { x: { time: false, range: () => [-0.6, bars.length - 0.4] }, y: fromZero(1) },
        axes: [
          bottom(name, {
            grid: { show: false },
            splits: () => places,
            filter: (u, splits) => {
              const each = Math.ceil((44 * bars.length) / u.bbox.width * devicePixelRatio);
              return splits.map((i) => (i % each === 0 ? i : null));
            },
          }),
          side(short),
        ],
        series: [
          { label: 'operations', value: value(full) },
          curve('script calls', 'accepted', number, { width: 0, fill: color('accepted'), paths: uPlot.paths.bars({ size: [0.75, 72] }) }),
        ],
        cursor: { x: false, y: false, points: { show: false }, drag: { x: false, y: false } },
      };
    },

    cores() {
      const programs = [...new Set(timeline.flatMap((one) => Object.keys(one.cores || {})))].sort();
      const colors = ['due', 'unsent', 'accepted', 'failed', 'p50', 'refused', 'extra'];
      return overTime(number, fromZero(0.1), programs.map((program, i) => steps(
        program.replaceAll('_', ' '), colors[i % colors.length], unit('cores'), { dash: i < colors.length ? [] : [6, 3] },
      )), programs.map((program) => over((one) => (one.cores ? one.cores[program] ?? 0 : null))));
    },

    lag() {
      return overTime(short, fromZero(1), [
        steps('lag', 'p999', unit('changes'), { fill: `${color('p999')}24` }),
      ], [over((one) => (one.lag_events >= 0 ? one.lag_events : null))]);
    },

    search() {
      const tried = [...result.search].sort((a, b) => a.rate - b.rate);
      const only = (held) => tried.map((step) => (step.held === held ? positive(step.p99_us) : null));
      const dots = (label, stroke, fill) => curve(label, stroke, latency, {
        paths: () => null,
        points: { show: true, size: 11, width: 2.5, stroke: color(stroke), fill: color(fill) },
      });
      return {
        data: [tried.map((step) => step.rate), only(true), only(false)],
        scales: {
          x: { time: false, range: (_, least, most) => [least - ((most - least) || most) * 0.06, most + ((most - least) || most) * 0.06] },
          y: { ...log, range: (_, least, most) => uPlot.rangeLog(least / 1.3, most * 1.3, 10, false) }, // no dot on the edge
        },
        axes: [bottom(short), side(latency, logGrid())],
        series: [{ label: 'tried', value: value(unit('/s')) }, dots('held', 'accepted', 'accepted'), dots('did not hold', 'failed', 'ground')],
        cursor: { y: false, drag: { x: false, y: false } },
      };
    },
  };

  // Drawing them, and again when the page changes its width or its colours.

  const paperWidth = 660; // px, of a sheet of A4 within its margins
  const size = (width) => ({ width, height: Math.round(Math.min(300, Math.max(210, width * 0.4))) });
  const legend = { markers: { width: 0, fill: (u, i) => u.series[i].stroke(u, i) } };
  const drawn = new Map();

  const draw = (place, width) => {
    drawn.get(place)?.destroy();
    const { data, ...options } = charts[place.dataset.chart]();
    drawn.set(place, new uPlot({ ...size(width), padding: [8, 20, 0, 0], legend, ...options }, data, place));
  };
  const drawAll = (width) => {
    for (const place of document.querySelectorAll('.plot')) draw(place, width ?? place.clientWidth);
  };

  drawAll();

  const resized = new ResizeObserver((changes) => {
    for (const { target } of changes) {
      const chart = drawn.get(target);
      if (target.clientWidth > 0 && target.clientWidth !== chart.width) chart.setSize(size(target.clientWidth));
    }
  });
  for (const place of drawn.keys()) resized.observe(place);

  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => drawAll());
  addEventListener('beforeprint', () => {
    root.classList.add('paper');
    drawAll(paperWidth);
  });
  addEventListener('afterprint', () => {
    root.classList.remove('paper');
    drawAll();
  });
})();
