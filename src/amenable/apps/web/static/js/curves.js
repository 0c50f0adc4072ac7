// Curves that draw themselves: one small picture a metric, the last value at the end of its line.
const NOT_DRAWN = new Set(["step", "seconds"]);
const NAMES = {
  loss: "loss",
  learning_rate: "learning rate",
  grad_norm: "gradient norm",
  tokens_per_second: "tokens per second",
};
// Metrics that say how it goes come first, and large; the machinery follows.
const LEADING = ["loss", "train/loss", "accuracy", "margin"];

// There is no step and a half.
const WHOLE_STEPS = [1, 10, 100, 1000, 10_000, 100_000].flatMap((size) => [size, 2 * size, 5 * size]);

function nameOf(metric) {
  const last = metric.split("/").at(-1);
  return NAMES[last] ?? last.replaceAll("_", " ");
}

function short(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  if (size >= 100) return value.toFixed(0);
  if (size >= 0.01) return String(Number(value.toPrecision(3)));
  return value.toExponential(1);
}

// light-dark() is resolved by letting an element wear it: a canvas does not know the word.
function worn(holder, name) {
  const probe = document.createElement("i");
  probe.style.color = `var(${name})`;
  holder.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

export class Curves {
  constructor(holder) {
    this.holder = holder;
    this.plots = new Map();
    this.points = [];
    new ResizeObserver(() => this.resize()).observe(holder);
    document.addEventListener("theme", () => this.again());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.again());
  }

  draw(points) {
    this.points = points;
    if (points.length < 2 || !window.uPlot) return;
    for (const metric of this.metrics()) {
      const data = [points.map((p) => p.step), points.map((p) => p[metric] ?? null)];
      const plot = this.plots.get(metric) ?? this.open(metric);
      plot.chart.setData(data);
      const last = data[1].findLast((value) => value !== null);
      plot.last.textContent = last === undefined ? "" : short(last);
    }
  }

  metrics() {
    const found = new Set();
    for (const point of this.points)
      for (const [name, value] of Object.entries(point))
        if (!NOT_DRAWN.has(name) && typeof value === "number") found.add(name);
    const rank = (name) => (LEADING.indexOf(name) + 1 || 99);
    return [...found].sort((a, b) => rank(a) - rank(b)).slice(0, 6);
  }

  open(metric) {
    const figure = document.createElement("figure");
    figure.className = this.plots.size === 0 ? "curve leading" : "curve";
    const caption = document.createElement("figcaption");
    const last = document.createElement("strong");
    caption.append(nameOf(metric), last);
    const canvas = document.createElement("div");
    figure.append(caption, canvas);
    this.holder.append(figure);
    const plot = { figure, canvas, last, chart: null };
    plot.chart = this.chart(plot);
    this.plots.set(metric, plot);
    return plot;
  }

  chart(plot) {
    const ink = worn(this.holder, "--ink");
    const soft = worn(this.holder, "--ink-soft");
    const line = worn(this.holder, "--hairline");
    const isLeading = plot.figure.classList.contains("leading");
    const axis = { stroke: soft, font: "12px Inter, system-ui", ticks: { show: false }, grid: { stroke: line, width: 1 } };
    return new window.uPlot(
      {
        width: plot.canvas.clientWidth || 300,
        height: isLeading ? 220 : 120,
        padding: [10, 14, 0, 0],
        legend: { show: false },
        cursor: { y: false, points: { size: 7, fill: ink } },
        scales: { x: { time: false } },
        axes: [
          { ...axis, grid: { show: false }, size: 26, space: 70, incrs: WHOLE_STEPS },
          { ...axis, size: 46, space: isLeading ? 44 : 36, values: (_, all) => all.map(short) },
        ],
        series: [{}, { stroke: ink, width: 2, spanGaps: true, points: { show: false } }],
        hooks: {
          draw: [(chart) => endMark(chart, ink)],
          setCursor: [(chart) => atCursor(chart, plot)],
        },
      },
      [[], []],
      plot.canvas,
    );
  }

  resize() {
    for (const { chart, canvas, figure } of this.plots.values()) {
      const height = figure.classList.contains("leading") ? 220 : 120;
      if (canvas.clientWidth && chart.width !== canvas.clientWidth) chart.setSize({ width: canvas.clientWidth, height });
    }
  }

  again() {
    this.holder.replaceChildren();
    this.plots.clear();
    this.draw(this.points);
  }
}

function endMark(chart, ink) {
  const [xs, ys] = chart.data;
  const at = ys.findLastIndex((value) => value !== null && value !== undefined);
  if (at < 0) return;
  const { ctx } = chart;
  ctx.beginPath();
  ctx.arc(chart.valToPos(xs[at], "x", true), chart.valToPos(ys[at], "y", true), 4 * devicePixelRatio, 0, 7);
  ctx.fillStyle = ink;
  ctx.fill();
}

function atCursor(chart, plot) {
  const { idx } = chart.cursor;
  const [xs, ys] = chart.data;
  const last = ys.findLast((value) => value !== null && value !== undefined);
  if (last === undefined) return;
  const isOver = idx !== null && idx !== undefined && ys[idx] !== null && ys[idx] !== undefined;
  plot.last.textContent = isOver ? `${short(ys[idx])} at step ${xs[idx]}` : short(last);
}
