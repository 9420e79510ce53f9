// Curves on uPlot: raw values stay visible under the smoothed line; a click or Enter opens a step.

import { html, useEffect, useRef, useState, short, percent } from "/static/lib.js";

export const COLOURS = ["--c1", "--c2", "--c3", "--c4", "--c5", "--c6"];
const DASHES = [[], [7, 4], [2, 3], [9, 3, 2, 3]];
const HEIGHT = 190;
const WHOLE = [1, 2, 5].flatMap((n) => [0, 1, 2, 3, 4, 5, 6].map((p) => n * 10 ** p)).sort((a, b) => a - b); // no half steps

export function smoothed(values, weight) {
  let mean = null;
  return values.map((v) => {
    if (v === null || v === undefined) return null;
    mean = mean === null ? v : weight * mean + (1 - weight) * v;
    return mean;
  });
}

function colours() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(name).trim();
  return { series: COLOURS.map(read), ink: read("--dim"), grid: read("--line"), paper: read("--card") };
}

// One column of x and, for every series, its values there; thinned series differ in their x.
// The points join with an empty column of their own, so that the axis reaches them.
function table(series, axis, smooth, points) {
  const tables = series.map((one) => [one.curve[axis], one.curve.value]);
  const at = [...new Set(points.map((p) => p.x))].sort((a, b) => a - b);
  if (at.length) tables.push([at, at.map(() => null)]);
  const joined = tables.length === 1 ? tables[0].slice() : uPlot.join(tables);
  if (at.length) joined.pop();
  const steps = new Map(points.map((p) => [p.x, p.step]));
  for (const one of series) one.curve[axis].forEach((x, i) => steps.set(x, one.curve.step[i]));
  if (!smooth) return { data: joined, steps };
  return { data: [joined[0], ...joined.slice(1), ...joined.slice(1).map((v) => smoothed(v, smooth))], steps };
}

function drawIntervals(plot, points, look) {
  const { ctx } = plot;
  ctx.save();
  ctx.lineWidth = 2 * devicePixelRatio;
  for (const point of points) {
    const x = Math.round(plot.valToPos(point.x, "x", true));
    const [low, middle, high] = [point.low, point.y, point.high].map((v) => plot.valToPos(v, "y", true));
    const size = 4.5 * devicePixelRatio;
    ctx.strokeStyle = ctx.fillStyle = look.series[point.colour ?? 1];
    ctx.beginPath(); ctx.moveTo(x, low); ctx.lineTo(x, high); ctx.stroke();
    // A diamond, so that a held-out test differs from a step by shape as well.
    ctx.beginPath();
    ctx.moveTo(x, middle - size); ctx.lineTo(x + size, middle); ctx.lineTo(x, middle + size); ctx.lineTo(x - size, middle);
    ctx.closePath(); ctx.fill();
  }
  ctx.restore();
}

function options(props, look, width, place) {
  const { series, smooth, rate, form, points, open, axisName } = props;
  const plain = (n, faint) => ({
    label: series[n].label, stroke: look.series[series[n].colour ?? n], width: faint ? 1 : 2, alpha: faint ? 0.35 : 1,
    dash: faint ? [] : DASHES[series[n].dash ?? n % DASHES.length], points: { show: false }, spanGaps: true,
  });
  const lines = series.map((_, n) => plain(n, Boolean(smooth)));
  const strong = smooth ? series.map((_, n) => plain(n, false)) : [];
  const axis = { stroke: look.ink, grid: { stroke: look.grid, width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  return {
    width, height: HEIGHT, legend: { show: false }, series: [{}, ...lines, ...strong],
    cursor: { sync: { key: axisName }, drag: { x: true, y: false }, points: { size: 6 } },
    scales: {
      x: { time: false },
      y: rate ? { range: [0, 1] } : { range: (_, low, high) => pad(low, high, points) },
    },
    axes: [{ ...axis, size: 26, ...(axisName === "step" ? { incrs: WHOLE } : {}), values: (_, ticks) => ticks.map(short) },
      { ...axis, size: 46, values: (_, ticks) => ticks.map(rate ? (v) => percent(v, 0) : form || short) }],
    hooks: {
      draw: [(plot) => drawIntervals(plot, points, look)],
      setCursor: [(plot) => place(plot.cursor.idx)],
      ready: [(plot) => plot.over.addEventListener("click", () => open && open(plot.cursor.idx))],
    },
  };
}

function pad(low, high, points) {
  const all = [low, high, ...points.flatMap((p) => [p.low, p.high])].filter((v) => v !== null && v !== undefined);
  if (!all.length) return [0, 1];
  const [least, most] = [Math.min(...all), Math.max(...all)];
  const room = (most - least || Math.abs(most) || 1) * 0.08;
  return [least >= 0 && least - room < 0.15 * most ? 0 : least - room, most + room];
}

function Readout({ series, data, idx, form, rate }) {
  const show = rate ? percent : form || short;
  return html`<ul class="readout">${series.map((one, n) => {
    const column = data[1 + n] || [];
    let at = idx ?? column.length - 1;
    while (at > 0 && (column[at] === null || column[at] === undefined)) at -= 1;
    return html`<li key=${one.label}><i class=${`key k${one.colour ?? n} d${one.dash ?? n}`}></i>${one.label} <b>${show(column[at] ?? null)}</b></li>`;
  })}</ul>`;
}

// series: [{label, curve: {step, total_tokens, elapsed_s, value}}]; open(step) is optional.
export function Chart(props) {
  const { title, note, series, axis = "step", smooth = 0, rate, form, open, scheme } = props;
  const points = (props.points || []).filter((p) => p.x !== null && p.x !== undefined);
  const box = useRef(null);
  const plot = useRef(null);
  const [idx, setIdx] = useState(null);
  const live = series.filter((one) => one.curve && one.curve[axis] && one.curve.value.length);
  const { data, steps } = live.length ? table(live, axis, smooth, points) : { data: [[]], steps: new Map() };
  const openAt = (at) => { if (open && at !== null && at !== undefined) open(steps.get(data[0][at])); };
  const newest = useRef({});
  newest.current = { openAt };
  const shape = [axis, smooth > 0, live.map((one) => one.label).join(), scheme].join("|");

  useEffect(() => {
    if (!live.length) return undefined;
    const look = colours();
    const made = new uPlot(options(
      { series: live, smooth, rate, form, points, axisName: axis, open: (at) => newest.current.openAt(at) },
      look, box.current.clientWidth, setIdx,
    ), data, box.current);
    plot.current = made;
    const watch = new ResizeObserver(([entry]) => made.setSize({ width: Math.floor(entry.contentRect.width), height: HEIGHT }));
    watch.observe(box.current);
    return () => { watch.disconnect(); made.destroy(); plot.current = null; };
  }, [shape, points.length]);
  useEffect(() => { if (plot.current) plot.current.setData(data); });

  const move = (by) => {
    const at = Math.min(data[0].length - 1, Math.max(0, (plot.current.cursor.idx ?? data[0].length - 1) + by));
    plot.current.setCursor({ left: plot.current.valToPos(data[0][at], "x"), top: 10 });
    setIdx(at);
  };
  const keys = (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[event.key];
    if (by && plot.current) { event.preventDefault(); move(by); }
    if (event.key === "Enter") openAt(idx ?? data[0].length - 1);
  };
  const x = idx !== null && idx !== undefined ? data[0][idx] : null;
  return html`<figure class="chart">
    <figcaption><b>${title}</b>${x !== null && x !== undefined && html`<span class="dim">step ${steps.get(x)}</span>`}
      ${note && html`<small>${note}</small>`}</figcaption>
    ${live.length ? html`<div ref=${box} class=${open ? "plot opens" : "plot"} tabindex="0" role="group" onKeyDown=${keys}
        aria-label=${`${title}: arrow keys move over the steps${open ? ", Enter opens the completions of a step" : ""}`}></div>
      <${Readout} series=${live} data=${data} idx=${idx} form=${form} rate=${rate} />`
    : html`<p class="nothing">no numbers yet</p>`}
  </figure>`;
}

export function useScheme() {
  const asked = useRef(matchMedia("(prefers-color-scheme: dark)"));
  const [dark, set] = useState(asked.current.matches);
  useEffect(() => {
    const changed = (event) => set(event.matches);
    asked.current.addEventListener("change", changed);
    return () => asked.current.removeEventListener("change", changed);
  }, []);
  return dark ? "dark" : "light";
}
