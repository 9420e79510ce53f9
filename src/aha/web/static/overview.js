// The overview of one run: what it noticed, a few tiles and its curves, kept up to date.

import {
  html, useState, useEffect, useRef, useMemo, api, load, useLoad, openPage, percent, fixed, short, progress, duration, money,
  stepFile, loading, Status, failure, visible, Notes,
} from "./shared.js";
import { Chart, useCurveSettings } from "./charts.js";

// Adds a row of the metrics to the curves, in place.
function addRow(curves, row, tokens) {
  const all = { ...row, total_tokens: tokens };
  for (const name of new Set([...Object.keys(curves), ...Object.keys(all)])) {
    const value = all[name] ?? null; // a number that was not measured is a gap
    if (value === null && !curves[name]) continue;
    const curve = curves[name] || (curves[name] = { step: [], total_tokens: [], elapsed_s: [], value: [] });
    const first = curve.step.findIndex((step) => step >= row.step);
    // A resumed run writes steps again: those from there on are void.
    if (first >= 0) for (const key of Object.keys(curve)) curve[key].length = first;
    if (curve.step) curve.step.push(row.step);
    if (curve.total_tokens) curve.total_tokens.push(tokens);
    if (curve.elapsed_s) curve.elapsed_s.push(row.elapsed_s ?? null);
    curve.value.push(value);
  }
}

// {content, error, status, disconnected}: the overview, kept up to date by the server's events.
function useLiveOverview(run) {
  const [state, setState] = useState({});
  useEffect(() => {
    let source = null;
    let unmounted = false;
    const start = async () => {
      try {
        const content = await load(api(run));
        if (unmounted) return;
        setState({ content });
        source = new EventSource(api(run, "events", { offsets: content.offsets }));
        source.addEventListener("rows", (event) => addRows(JSON.parse(event.data)));
        source.addEventListener("status", (event) => {
          const status = JSON.parse(event.data);
          // A run that has just ended has a summary and a test that this page has not loaded.
          if (status === "done" && content.card.status !== "done") { source.close(); start(); return; }
          setState((old) => ({ ...old, status }));
        });
        source.onerror = () => setState((old) => ({ ...old, disconnected: true }));
        source.onopen = () => setState((old) => ({ ...old, disconnected: false }));
      } catch (error) { if (!unmounted) setState({ error: error.message }); }
    };
    const addRows = (rows) => {
      if (rows.rewritten.length) { source.close(); start(); return; }
      setState((old) => {
        const content = { ...old.content };
        for (const row of rows.metrics) {
          const tokens = (content.last.total_tokens || 0) + (row.tokens || 0);
          addRow(content.curves, row, tokens);
          content.last = { ...row, total_tokens: tokens };
        }
        content.evals = [...content.evals, ...rows.evals.map((row) => ({ ...row, total_tokens: content.last.total_tokens }))];
        content.findings = [...content.findings, ...rows.findings];
        return { ...old, content };
      });
    };
    start();
    return () => { unmounted = true; source?.close(); };
  }, [run]);
  return state;
}

// After the overview; in parts, until no step is waiting.
function useBehaviors(run, step) {
  const [behaviors, setBehaviors] = useState(null);
  const nextTimer = useRef(0);
  useEffect(() => {
    if (step === null) return undefined;
    let unmounted = false;
    const request = async () => {
      const content = await load(api(run, "behaviors")).catch(() => null);
      if (unmounted || !content) return;
      setBehaviors(content);
      if (content.waiting) nextTimer.current = setTimeout(request, 60);
    };
    const firstTimer = setTimeout(request, behaviors ? 1500 : 50);
    return () => { unmounted = true; clearTimeout(nextTimer.current); clearTimeout(firstTimer); };
  }, [run, step]);
  return behaviors;
}

function Tile({ name, value, note }) {
  return html`<div class="tile"><span>${name}</span><b>${value}</b><small>${note || " "}</small></div>`;
}

function Tiles({ content, status }) {
  const { last, card, tuning, usd_per_hour: price } = content;
  const { steps, before, after } = card;
  const leftS = steps && last.step && status === "running" ? (last.elapsed_s / last.step) * (steps - last.step) : null;
  const rate = (report) => percent(report?.solve_rate);
  const cost = card.status !== "done" && price !== null && last.elapsed_s ? (last.elapsed_s / 3600) * price : card.cost_usd;
  return html`<div class="tiles">
    ${tuning ? html`<${Tile} name="loss, last update" value=${fixed(last.loss, 3)} note=${`epoch ${fixed(last.epoch)}`} />`
    : html`<${Tile} name="solved, last step" value=${percent(last.solve_rate)} note="fresh training puzzles" />`}
    ${(after || !tuning) && html`<${Tile} name="held-out test" value=${`${rate(before)} → ${rate(after)}`.replace(" % →", " →")} note="before → after training" />`}
    <${Tile} name="step" value=${progress(last.step, steps)} note=${leftS ? `about ${duration(leftS)} left` : duration(last.elapsed_s) + " of training"} />
    <${Tile} name="length" value=${fixed(last.mean_tokens, 0)} note=${tuning ? "tokens" : `tokens; ${percent(last.truncated)} truncated`} />
    <${Tile} name="speed" value=${short(last.tokens_per_s ?? null)} note="tokens a second" />
    <${Tile} name="cost so far" value=${money(cost)} note=${price !== null ? `at $${price} an hour` : ""} /></div>`;
}

export const Gain = ({ gain }) => gain && html`<p class=${"gain " + gain.verdict.replace(" ", "-")}><b>${gain.points}</b> ${gain.text}${" "}<strong>${gain.words}</strong></p><${Notes} notes=${gain.faults} />`;

// Held-out measurements as points of the solve rate; both tests in another colour.
const evaluationPoints = (evals, axis) => evals.map(({ interval, ...row }) => (
  { step: row.step, x: row[axis], y: row.solve_rate, low: interval[0], high: interval[1], colour: row.test ? 2 : 1 }));

// [[heading, charts], ...]: those of the server, with their curves.
function charts(content, behaviors, axis) {
  const counted = behaviors ? `counted in ${behaviors.per_step} completions of a step${behaviors.waiting ? "; still counting …" : ""}${behaviors.damaged ? `; ${behaviors.damaged} files are damaged` : ""}` : "counting …";
  const shown = ({ curve }) => curve?.value?.some((v) => v > 0);
  const uncountable = behaviors?.waiting === 0 && !behaviors.step.length; // completions without a puzzle
  const hasCurves = (chart) => chart.series.length && !(chart.counted && uncountable);
  // A run from before its metrics had a column of the search: as counted in its completions.
  const curveOf = (name, chart) => {
    const curve = (!chart.counted && content.curves[name]) || (behaviors?.[name] && { ...behaviors, value: behaviors[name] });
    return curve && chart.scale ? { ...curve, value: curve.value.map((v) => (v === null ? null : v * chart.scale)) } : curve;
  };
  const complete = (chart) => {
    const series = chart.series.map(([label, name, colour], n) => ({ label, colour, dash: n % 4, curve: curveOf(name, chart) }));
    return { ...chart, note: chart.counted ? counted : chart.note, format: chart.money && money, turn: chart.turn && behaviors?.turn.step && behaviors.turn,
      points: chart.points && evaluationPoints(content.evals, axis), series: chart.optional ? series.filter(shown) : series };
  };
  return content.charts.map(([heading, list]) => [heading, list.map(complete).filter(hasCurves)]).filter(([, list]) => list.length);
}

// What the run noticed of itself, the newest first.
function Findings({ findings }) {
  return html`<div class="findings">${[...findings].reverse().map(({ step, level, check, message, fix }, n) => html`<p key=${findings.length - n} class=${level === "fail" ? "failure" : "note"}>
    <b>${level === "fail" ? "✗ fault" : "! warning"}</b> <span class="dim">step ${step ?? "–"}, ${check}</span> ${message}${fix && ". Fix: " + fix}</p>`)}</div>`;
}

const Details = ({ details }) => html`<div class="run-details">${Object.entries(details).map(([title, rows]) => html`
  <details key=${title}><summary>${title}</summary><dl class="settings">${rows.map(([key, value]) => html`<div key=${key}><dt>${key}</dt><dd>${value}</dd></div>`)}</dl></details>`)}</div>`;

export function Overview({ run }) {
  const { content, error, status, disconnected } = useLiveOverview(run);
  const [curves, controls] = useCurveSettings(0);
  const gain = useLoad(content?.card.after ? api(run, "gain") : null).content;
  const behaviors = useBehaviors(run, content && content.last.step + content.card.status);
  const sections = useMemo(() => content && charts(content, behaviors, curves.axis), [content, behaviors, curves.axis]);
  if (error) return failure(error);
  if (!content) return loading();
  const currentStatus = status || content.card.status;
  return html`<section>
    <div class="bar"><h1>${visible(run)}</h1><${Status} status=${currentStatus} /><span class="dim">${content.card.task} · ${content.card.model}</span></div>
    ${disconnected && html`<p class="note">The connection was lost; trying again …</p>`}
    ${content.card.notes && html`<pre class="text gain">${content.card.notes}</pre>`}
    <${Notes} notes=${content.notes} />
    <${Findings} findings=${content.findings} />
    <${Tiles} content=${content} status=${currentStatus} />
    <${Gain} gain=${gain} />
    ${behaviors?.turn.words && html`<p class="gain"><b>Way of search</b> ${behaviors.turn.words}</p>`}
    <div class="bar">${controls}
      <span class="dim">A click on a curve opens the completions of that step.</span></div>
    ${sections.map(([heading, list]) => html`<h2 key=${heading}>${heading}</h2><div class="charts">
      ${list.map((chart) => html`<${Chart} key=${chart.title} ...${chart} ...${curves}
        open=${(step) => step !== undefined && openPage(["run", run, "rollouts"], { file: step ? stepFile(step) : "before" })} />`)}</div>`)}
    <${Details} details=${content.details} /></section>`;
}
