// The overview of one run: what it noticed, a few tiles and twelve curves, kept up to date.

import {
  html, useState, useEffect, useRef, useMemo, api, load, useLoad, openPage, percent, fixed, signed, short, progress, duration, money,
  stepFile, loading, Status, failure, visible, Notes,
} from "/static/shared.js";
import { Chart, CurveSettings, useScheme } from "/static/charts.js";

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
        const content = { ...old.content, curves: old.content.curves };
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
    return () => { unmounted = true; if (source) source.close(); };
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
  const { last, card, usd_per_hour: price } = content;
  const { steps, before, after } = card;
  const leftS = steps && last.step && status === "running" ? (last.elapsed_s / last.step) * (steps - last.step) : null;
  const rate = (report) => percent(report && report.solve_rate);
  const costSoFar = price !== null && last.elapsed_s ? (last.elapsed_s / 3600) * price : card.cost_usd;
  return html`<div class="tiles">
    <${Tile} name="solved, last step" value=${percent(last.solve_rate)} note="fresh training puzzles" />
    <${Tile} name="held-out test" value=${`${rate(before)} → ${rate(after)}`.replace(" % →", " →")} note="before → after training" />
    <${Tile} name="step" value=${progress(last.step, steps)} note=${leftS ? `about ${duration(leftS)} left` : duration(last.elapsed_s) + " of training"} />
    <${Tile} name="length" value=${last.mean_tokens ? fixed(last.mean_tokens, 0) : "–"} note=${`tokens; ${percent(last.truncated)} truncated`} />
    <${Tile} name="speed" value=${short(last.tokens_per_s ?? null)} note="tokens a second" />
    <${Tile} name="cost so far" value=${money(card.status === "done" ? card.cost_usd : costSoFar)} note=${price !== null ? `at $${price} an hour` : ""} /></div>`;
}

export function Gain({ gain, names = ["before", "after"] }) {
  if (!gain) return null;
  const interval = ([low, high]) => `[${percent(low)}, ${percent(high)}]`;
  return html`<p class=${"gain " + gain.verdict.replace(" ", "-")}>
    <b>${signed(100 * gain.gain, 1)} points</b> [${signed(100 * gain.interval[0], 1)}, ${signed(100 * gain.interval[1], 1)}]
    from ${percent(gain.rates[0])} ${interval(gain.intervals[0])} ${names[0]} to ${percent(gain.rates[1])} ${interval(gain.intervals[1])} ${names[1]},
    on the same ${gain.problems} held-out problems: ${gain.won} won, ${gain.lost} lost. <strong>${gain.words}</strong></p><${Notes} notes=${gain.faults} />`;
}

// Held-out measurements as points of the solve rate; both tests in another colour.
const evaluationPoints = (evals, axis) => evals.map(({ interval, ...row }) => (
  { step: row.step, x: row[axis], y: row.solve_rate, low: interval[0], high: interval[1], colour: row.test ? 2 : 1 }));

// [[heading, charts], ...]
function charts(content, behaviors, axis) {
  const c = content.curves;
  const price = content.usd_per_hour;
  const cost = c.elapsed_s && price !== null ? { ...c.elapsed_s, value: c.elapsed_s.value.map((s) => (s === null ? null : (s / 3600) * price)) } : null;
  const line = (label, curve, colour) => ({ label, curve, colour });
  const behavior = (label, name, colour) => line(label, behaviors && { ...behaviors, value: behaviors[name] }, colour);
  // A run from before its metrics had these: as counted in its completions.
  const search = (label, name, colour) => (c[name] ? line(label, c[name], colour) : behavior(label, name, colour));
  const ways = content.ways.map(([name, label], n) => ({ ...search(label, name, n % 6), dash: n % 4 }));
  const turn = behaviors?.turn.step && behaviors.turn;
  const shown = ({ curve }) => curve?.value?.some((v) => v > 0);
  const searches = [
    { title: "Ways of search", note: "shares of a step's completions", rate: true, series: ways.filter(shown) },
    { title: "Right at the first attempt", rate: true, series: [search("of all completions", "first_attempt_rate")] },
    { title: "Attempts for each right answer", series: [search("attempts", "attempts_per_solve")] },
    { title: "Tokens for each right answer", series: [search("tokens", "tokens_per_solve")] },
  ].filter(({ series }) => series.some(shown)).map((chart) => ({ ...chart, turn }));
  const counted = behaviors ? `counted in ${behaviors.per_step} completions of a step${behaviors.waiting ? "; still counting …" : ""}${behaviors.damaged ? `; ${behaviors.damaged} files are damaged` : ""}` : "counting …";
  return [
    ["Learning", [
      { title: "Solve rate", note: "◆ held-out, with 95 % intervals", rate: true, turn, points: evaluationPoints(content.evals, axis), series: [line("training puzzles", c.solve_rate)] },
      { title: "Reward", series: [line("mean reward", c.reward)] },
      { title: "Groups without an advantage", note: "all right or all wrong: these groups teach nothing", rate: true,
        series: [line("none solved", c.groups_none_solved, 3), line("all solved", c.groups_all_solved, 2)] }]],
    ...(searches.length ? [["Search", searches]] : []),
    ["Behaviour", [
      { title: "Attempts and checks", note: counted, series: [behavior("attempts", "attempts"), behavior("checks", "checks", 2)] },
      { title: "Going back", note: counted, series: [behavior("to the start", "backtracks_root", 4), behavior("to an intermediate result", "backtracks_intermediate", 1)] },
      { title: "Truth", note: counted, rate: true, series: [behavior("lines with right arithmetic", "line_accuracy"), behavior("checks that are true", "verdict_truth", 2)] }]],
    ["Completions", [
      { title: "Length", turn, series: [line("tokens of a completion", c.mean_tokens)] },
      ...(c.grade_error_share && c.grade_error_share.value.some((v) => v > 0) ? [{ title: "Could not be graded", note: "the grader failed: a reward of 0 that says nothing", rate: true,
        series: [line("share of completions", c.grade_error_share, 3)] }] : []),
      { title: "Truncated at the limit", rate: true, series: [line("share of completions", c.truncated, 3)] },
      { title: "Entropy", note: "of the policy, nats a token", series: [line("entropy", c.entropy, 4)] }]],
    ["Training", [
      { title: "Gradient norm", series: [line("before clipping", c.grad_norm, 5)] },
      { title: "Tokens a second", series: [line("tokens a second", c.tokens_per_s)] },
      { title: "Cost", series: [line("dollars", cost, 1)], format: money }]],
  ];
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
  const [axis, setAxis] = useState("step");
  const [smooth, setSmooth] = useState(0);
  const scheme = useScheme();
  const gain = useLoad(content && content.card.after ? api(run, "gain") : null).content;
  const behaviors = useBehaviors(run, content && content.last.step + content.card.status);
  const sections = useMemo(() => content && charts(content, behaviors, axis), [content, behaviors, axis]);
  if (error) return failure(error);
  if (!content) return loading();
  const currentStatus = status || content.card.status;
  return html`<section>
    <div class="bar"><h1>${visible(run)}</h1><${Status} status=${currentStatus} /><span class="dim">${content.card.task} · ${content.card.model}</span></div>
    ${disconnected && html`<p class="note">The connection was lost; trying again …</p>`}
    <${Notes} notes=${content.notes} />
    <${Findings} findings=${content.findings} />
    <${Tiles} content=${content} status=${currentStatus} />
    <${Gain} gain=${gain} />
    ${behaviors?.turn.words && html`<p class="gain"><b>Way of search</b> ${behaviors.turn.words}</p>`}
    <div class="bar"><${CurveSettings} axis=${axis} setAxis=${setAxis} smooth=${smooth} setSmooth=${setSmooth} />
      <span class="dim">A click on a curve opens the completions of that step.</span></div>
    ${sections.map(([heading, list]) => html`<h2 key=${heading}>${heading}</h2><div class="charts">
      ${list.map((chart) => html`<${Chart} key=${chart.title} ...${chart} axis=${axis} smooth=${smooth} scheme=${scheme}
        open=${(step) => step !== undefined && openPage(["run", run, "rollouts"], { file: step ? stepFile(step) : "before" })} />`)}</div>`)}
    <${Details} details=${content.details} /></section>`;
}
