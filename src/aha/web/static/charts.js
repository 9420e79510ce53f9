// Curves by uPlot: raw values stay under the smoothed line; a click or Enter opens a step.

import { html, useEffect, useRef, useState, short, percent, Choice } from "./shared.js";

const DASHES = [[], [7, 4], [2, 3], [9, 3, 2, 3]];
const AXES = [["step", "step"], ["total_tokens", "tokens"], ["elapsed_s", "seconds"]];
const HEIGHT = 190;
const WHOLE_INCREMENTS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 1e6]; // no half steps

// Exponential moving average; gaps (null) and rows of other series (undefined) stay.
function smoothed(values, weight) {
  let mean = null;
  return values.map((v) => {
    if (v == null) return v;
    mean = mean === null ? v : weight * mean + (1 - weight) * v;
    return mean;
  });
}

function themeColours() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(name).trim();
  return { series: [1, 2, 3, 4, 5, 6].map((n) => read("--c" + n)), ink: read("--dim"), grid: read("--line"), paper: read("--card") };
}

// Sums from the last column on: drawn in this order, each area covers the lower part of the one before.
function stacked(columns) {
  const sums = columns[0].map(() => null);
  return columns.toReversed().map((column) => column.map((v, row) => {
    if (v != null) sums[row] += v;
    return v === undefined ? v : sums[row];
  })).reverse();
}

// {data: the columns to draw; shown: x and the values of each series; steps: the step of each x}. Thinned
// series have different x, so they are joined. The points' x get an empty column: the axis includes them.
// After the values come the bands, two columns each, then the smoothed values.
function joinSeries(series, axis, smooth, points, stack) {
  const table = (curve, columns) => [curve[axis], ...columns].map((column) => column.filter((_, i) => curve[axis][i] != null));
  const tables = series.map(({ curve }) => table(curve, [curve.value]));
  for (const { curve } of series) if (curve.low) tables.push(table(curve, [curve.low, curve.high]));
  const pointsX = [...new Set(points.map((p) => p.x))].sort((a, b) => a - b);
  if (pointsX.length) tables.push([pointsX, pointsX.map(() => null)]);
  const joined = tables.length === 1 ? tables[0].slice() : uPlot.join(tables);
  if (pointsX.length) joined.pop();
  const steps = new Map(points.map((p) => [p.x, p.step]));
  for (const line of series) line.curve[axis].forEach((x, i) => steps.set(x, line.curve.step[i]));
  const columns = joined.slice(1);
  const [values, bands] = [columns.slice(0, series.length), columns.slice(series.length)];
  const drawn = stack ? stacked(values) : values;
  return { steps, shown: joined, data: [joined[0], ...drawn, ...bands, ...(smooth ? drawn.map((v) => smoothed(v, smooth)) : [])] };
}

// A value between two gaps has no line to either side: it is drawn as a point.
function lonePoints(plot, n) {
  const column = plot.data[n];
  const rows = [...column.keys()].filter((row) => column[row] !== undefined);
  return rows.filter((row, i) => column[row] !== null && column[rows[i - 1]] == null && column[rows[i + 1]] == null);
}

function drawIntervals(plot, points, theme) {
  const { ctx } = plot;
  ctx.save();
  ctx.lineWidth = 2 * devicePixelRatio;
  for (const point of points) {
    const x = Math.round(plot.valToPos(point.x, "x", true));
    const [low, middle, high] = [point.low, point.y, point.high].map((v) => plot.valToPos(v, "y", true));
    const size = 4.5 * devicePixelRatio;
    ctx.strokeStyle = ctx.fillStyle = theme.series[point.colour ?? 1];
    ctx.beginPath(); ctx.moveTo(x, low); ctx.lineTo(x, high); ctx.stroke();
    // A diamond, so that a held-out test differs from a step by shape as well.
    ctx.beginPath();
    ctx.moveTo(x, middle - size); ctx.lineTo(x + size, middle); ctx.lineTo(x, middle + size); ctx.lineTo(x - size, middle);
    ctx.closePath(); ctx.fill();
  }
  ctx.restore();
}

// An upright line where the way of search turns, with its words above.
function drawTurn({ ctx, bbox, valToPos }, step, at, theme) {
  if (at == null) return;
  const pixel = devicePixelRatio;
  const x = valToPos(at, "x", true);
  const share = (x - bbox.left) / bbox.width;
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = theme.ink;
  ctx.lineWidth = pixel;
  ctx.font = `${11 * pixel}px system-ui, sans-serif`;
  ctx.textAlign = share < 0.2 ? "left" : share > 0.8 ? "right" : "center";
  ctx.textBaseline = "bottom";
  ctx.fillText("turn, step " + step, x, bbox.top);
  ctx.setLineDash([3 * pixel, 3 * pixel]);
  ctx.beginPath(); ctx.moveTo(x, bbox.top); ctx.lineTo(x, bbox.top + bbox.height); ctx.stroke();
  ctx.restore();
}

function plotOptions(props, theme, width, setIndex) {
  const { series, smooth, rate, format, points, turn, open, axisName, stack } = props;
  const lineOptions = (n, faint) => ({
    label: series[n].label, stroke: theme.series[series[n].colour ?? n], width: faint ? 1 : 2, alpha: faint ? 0.35 : 1,
    dash: faint || stack ? [] : DASHES[series[n].dash ?? n % DASHES.length], points: { show: false, filter: lonePoints },
    fill: stack && !faint ? theme.series[series[n].colour] : null,
  });
  const edges = series.flatMap((line, n) => (line.curve.low ? [n, n] : [])).map((n) => ({ label: "", stroke: theme.series[series[n].colour], width: 0, points: { show: false } }));
  const raw = series.map((_, n) => lineOptions(n, Boolean(smooth)));
  const smoothLines = smooth ? series.map((_, n) => lineOptions(n, false)) : [];
  const axis = { stroke: theme.ink, grid: { stroke: theme.grid, width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  return {
    width, height: HEIGHT, legend: { show: false }, series: [{}, ...raw, ...edges, ...smoothLines], padding: [null, 16, null, null],
    bands: edges.filter((_, i) => i % 2).map(({ stroke }, i) => ({ series: [series.length + 2 * i + 2, series.length + 2 * i + 1], fill: stroke + "30" })),
    cursor: { sync: { key: axisName }, drag: { x: true, y: false }, points: { size: 6 } },
    scales: {
      x: { time: false },
      y: rate ? { range: [0, 1] } : { range: (_, low, high) => paddedRange(low, high, points) },
    },
    axes: [{ ...axis, size: 26, ...(axisName === "step" ? { incrs: WHOLE_INCREMENTS } : {}), values: (_, ticks) => ticks.map(short) },
      { ...axis, size: 46, values: (_, ticks) => ticks.map(rate ? (v) => percent(v, 0) : format || short) }],
    hooks: {
      draw: [(plot) => { drawIntervals(plot, points, theme); if (turn) drawTurn(plot, turn.step, turn[axisName], theme); }],
      setCursor: [(plot) => setIndex(plot.cursor.idx)],
      ready: [(plot) => plot.over.addEventListener("click", () => open && open(plot.cursor.idx))],
    },
  };
}

function paddedRange(low, high, points) {
  const all = [low, high, ...points.flatMap((p) => [p.low, p.high])].filter((v) => v != null);
  if (!all.length) return [0, 1];
  const [min, max] = [Math.min(...all), Math.max(...all)];
  const padding = (max - min || Math.abs(max) || 1) * 0.08;
  return [min >= 0 && min - padding < 0.15 * max ? 0 : min - padding, max + padding];
}

// The values under the cursor, or the last ones; of a series without this row, those before it.
function Readout({ series, data, index, format, rate }) {
  const asText = rate ? percent : format || short;
  return html`<ul class="readout">${series.map((line, n) => {
    const column = data[1 + n] || [];
    let row = index ?? column.length - 1;
    while (row > 0 && column[row] === undefined) row -= 1;
    return html`<li key=${line.label}><i class=${`key k${line.colour ?? n} d${line.dash ?? n % DASHES.length}`}></i>${line.label} <b>${asText(column[row] ?? null)}</b></li>`;
  })}</ul>`;
}

// series: [{label, curve: {step, total_tokens, elapsed_s, value}, colour, dash}]; optional: turn ({step,
// total_tokens, elapsed_s}: where to draw it), open(step).
export function Chart(props) {
  const { title, note, series, axis = "step", rate, format, turn, open, stack } = props;
  const smooth = stack ? 0 : props.smooth || 0; // a sum of smoothed parts would not be that of the parts
  const points = (props.points || []).filter((p) => p.x != null);
  const scheme = useScheme();
  const box = useRef(null);
  const plot = useRef(null);
  const [index, setIndex] = useState(null);
  const drawn = series.filter((line) => line.curve?.[axis] && line.curve.value.length);
  const { data, steps, shown } = drawn.length ? joinSeries(drawn, axis, smooth, points, stack) : { data: [[]], steps: new Map() };
  const openRow = (row) => { if (open && row != null) open(steps.get(data[0][row])); };
  const latest = useRef({}); // the plot lives longer than this drawing's data
  latest.current = { openRow };
  const shape = [axis, smooth > 0, drawn.map((line) => line.label).join(), scheme, turn?.step].join("|");

  useEffect(() => {
    if (!drawn.length) return undefined;
    const created = new uPlot(plotOptions(
      { series: drawn, smooth, rate, format, points, turn, stack, axisName: axis, open: (row) => latest.current.openRow(row) },
      themeColours(), box.current.clientWidth, setIndex,
    ), data, box.current);
    plot.current = created;
    const observer = new ResizeObserver(([entry]) => created.setSize({ width: Math.floor(entry.contentRect.width), height: HEIGHT }));
    observer.observe(box.current);
    return () => { observer.disconnect(); created.destroy(); plot.current = null; };
  }, [shape, points.length]);
  useEffect(() => { if (plot.current) plot.current.setData(data); });

  const move = (by) => {
    const row = Math.min(data[0].length - 1, Math.max(0, (plot.current.cursor.idx ?? data[0].length - 1) + by));
    plot.current.setCursor({ left: plot.current.valToPos(data[0][row], "x"), top: 10 });
    setIndex(row);
  };
  const onKeyDown = (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[event.key];
    if (by && plot.current) { event.preventDefault(); move(by); }
    if (event.key === "Enter") openRow(index ?? data[0].length - 1);
  };
  const x = index != null ? data[0][index] : null;
  return html`<figure class="chart">
    <figcaption><b>${title}</b>${x != null && html`<span class="dim">step ${steps.get(x)}</span>`}
      ${note && html`<small>${note}</small>`}</figcaption>
    ${drawn.length ? html`<div ref=${box} class=${open ? "plot clickable" : "plot"} tabindex="0" role="group" onKeyDown=${onKeyDown}
        aria-label=${`${title}: arrow keys move over the steps${open ? ", Enter opens the completions of a step" : ""}`}></div>
      <${Readout} series=${drawn} data=${shown} index=${index} format=${format} rate=${rate} />`
    : html`<p class="nothing">no numbers yet</p>`}
  </figure>`;
}

// [{axis, smooth}, the controls]: the x axis and the smoothing of a page's charts.
export function useCurveSettings(initial) {
  const [axis, setAxis] = useState("step");
  const [smooth, setSmooth] = useState(initial);
  return [{ axis, smooth }, html`<${Choice} label="over" value=${axis} options=${AXES} choose=${setAxis} />
    <label class="slider">smooth <input type="range" min="0" max="0.95" step="0.05" value=${smooth} onInput=${(e) => setSmooth(Number(e.target.value))} /></label>`];
}

// "dark" or "light", as the browser prefers; a canvas does not follow the style sheet by itself.
function useScheme() {
  const query = useRef(matchMedia("(prefers-color-scheme: dark)"));
  const [dark, setDark] = useState(query.current.matches);
  useEffect(() => {
    const changed = (event) => setDark(event.matches);
    query.current.addEventListener("change", changed);
    return () => query.current.removeEventListener("change", changed);
  }, []);
  return dark ? "dark" : "light";
}
