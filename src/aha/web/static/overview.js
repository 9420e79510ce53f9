// One run: how it goes, in a few tiles and twelve curves, live.

import {
  html, useState, useEffect, useRef, useMemo, api, load, useLoad, go, percent, fixed, signed, short, clock, money,
  stepFile, Failure, Status, Choice,
} from "/static/lib.js";
import { Chart, useScheme } from "/static/charts.js";

const MOST_POINTS = 2400; // grown live beyond this, a curve is fetched anew, thinned
const AXES = [["step", "step"], ["total_tokens", "tokens"], ["elapsed_s", "seconds"]];

function grow(curves, row, tokens) {
  const all = { ...row, total_tokens: tokens };
  for (const [name, value] of Object.entries(all)) {
    if (typeof value !== "number" || !Number.isFinite(value)) continue;
    const curve = curves[name] || (curves[name] = { step: [], total_tokens: [], elapsed_s: [], value: [] });
    const before = curve.step.findIndex((step) => step >= row.step);
    // A resumed run writes steps again: what it had written beyond is void.
    if (before >= 0) for (const key of Object.keys(curve)) curve[key].length = before;
    if (curve.step) curve.step.push(row.step);
    if (curve.total_tokens) curve.total_tokens.push(tokens);
    if (curve.elapsed_s) curve.elapsed_s.push(row.elapsed_s ?? null);
    curve.value.push(value);
  }
}

// The overview, kept up to date by the server's events.
function useLive(run) {
  const [state, set] = useState({});
  useEffect(() => {
    let source = null;
    let gone = false;
    let place = null;
    const start = async () => {
      try {
        const content = await load(api(run));
        if (gone) return;
        place = content.place;
        set({ content });
        source = new EventSource(api(run, "news", { place }));
        source.addEventListener("rows", (event) => take(JSON.parse(event.data)));
        source.addEventListener("status", (event) => {
          const status = JSON.parse(event.data);
          // A run that is done has a summary and an after that this page has not seen.
          if (status === "done" && content.card.status !== "done") { source.close(); start(); return; }
          set((old) => ({ ...old, status }));
        });
        source.onerror = () => set((old) => ({ ...old, lost: true }));
        source.onopen = () => set((old) => ({ ...old, lost: false }));
      } catch (error) { if (!gone) set({ error: error.message }); }
    };
    const take = (news) => {
      if (news.anew.length) { source.close(); start(); return; }
      set((old) => {
        const content = { ...old.content, curves: old.content.curves };
        for (const row of news.metrics) {
          if (typeof row.step !== "number") continue;
          const tokens = (content.last.total_tokens || 0) + (row.tokens || 0);
          grow(content.curves, row, tokens);
          content.last = { ...row, total_tokens: tokens };
          content.steps += 1;
        }
        content.evals = [...content.evals, ...news.evals];
        return { ...old, content };
      });
    };
    start();
    return () => { gone = true; if (source) source.close(); };
  }, [run]);
  const points = state.content && state.content.curves.solve_rate ? state.content.curves.solve_rate.value.length : 0;
  useEffect(() => {
    if (points < MOST_POINTS) return;
    load(api(run, "curves")).then(({ curves }) => set((old) => ({ ...old, content: { ...old.content, curves } }))).catch(() => {});
  }, [points >= MOST_POINTS]);
  return state;
}

// Behaviours are counted by the server in parts; ask until none is waiting, and again as steps come.
function useHabits(run, steps) {
  const [found, set] = useState(null);
  const due = useRef(0);
  useEffect(() => {
    let gone = false;
    const ask = async () => {
      const content = await load(api(run, "habits")).catch(() => null);
      if (gone || !content) return;
      set(content);
      if (content.waiting) due.current = setTimeout(ask, 60);
    };
    const wait = setTimeout(ask, found ? 1500 : 50);
    return () => { gone = true; clearTimeout(due.current); clearTimeout(wait); };
  }, [run, steps]);
  return found;
}

function Tile({ name, value, more }) {
  return html`<div class="tile"><span>${name}</span><b>${value}</b><small>${more || " "}</small></div>`;
}

function Tiles({ content, status }) {
  const { last, card, before, after, config } = content;
  const steps = config.steps || null;
  const left = steps && last.step && status === "running" ? (last.elapsed_s / last.step) * (steps - last.step) : null;
  const rate = (report) => (report && report.solve_rate !== undefined ? percent(report.solve_rate) : "–");
  const priced = typeof config.usd_per_hour === "number" && last.elapsed_s ? (last.elapsed_s / 3600) * config.usd_per_hour : card.cost_usd;
  return html`<div class="tiles">
    <${Tile} name="solved, last step" value=${percent(last.solve_rate)} more="fresh training puzzles" />
    <${Tile} name="held-out test" value=${`${rate(before)} → ${rate(after)}`.replace(" % →", " →")} more="before → after training" />
    <${Tile} name="step" value=${steps ? `${last.step ?? 0} / ${steps}` : String(last.step ?? "–")} more=${left ? `about ${clock(left)} left` : clock(last.elapsed_s) + " of training"} />
    <${Tile} name="length" value=${last.mean_tokens ? fixed(last.mean_tokens, 0) : "–"} more=${`tokens; ${percent(last.truncated)} cut off`} />
    <${Tile} name="speed" value=${short(last.tokens_per_s ?? null)} more="tokens a second" />
    <${Tile} name="cost so far" value=${money(card.status === "done" ? card.cost_usd : priced)} more=${config.usd_per_hour !== undefined ? `at $${config.usd_per_hour} an hour` : ""} /></div>`;
}

const WORDS = { better: "better: the interval lies above 0", worse: "worse: the interval lies below 0", "no evidence": "no evidence of a change: the interval holds 0" };

export function Gain({ gain, names = ["before", "after"] }) {
  if (!gain) return null;
  const span = ([low, high]) => `[${percent(low)}, ${percent(high)}]`;
  return html`<p class=${"gain " + gain.verdict.replace(" ", "-")}>
    <b>${signed(100 * gain.gain, 1)} points</b> [${signed(100 * gain.interval[0], 1)}, ${signed(100 * gain.interval[1], 1)}]
    from ${percent(gain.rates[0])} ${span(gain.intervals[0])} ${names[0]} to ${percent(gain.rates[1])} ${span(gain.intervals[1])} ${names[1]},
    on the same ${gain.problems} held-out problems: ${gain.won} won, ${gain.lost} lost. <strong>${WORDS[gain.verdict]}.</strong></p>`;
}

function tests(content, axis) {
  const at = (step) => {
    const curve = content.curves.solve_rate;
    if (axis === "step" || !curve) return step;
    if (step === 0) return 0;
    const place = curve.step.findIndex((one) => one >= step);
    return place < 0 ? null : curve[axis][place];
  };
  const point = (step, report, colour) => report && report.interval && typeof report.solve_rate === "number"
    ? { step, x: at(step), y: report.solve_rate, low: report.interval[0], high: report.interval[1], colour } : null;
  const last = content.last.step ?? 0;
  return [
    point(0, content.before, 2),
    ...content.evals.map((row) => point(row.step, row, 1)),
    point(last, content.after, 2),
  ].filter(Boolean);
}

function habitCurve(habits, name, solve, axis) {
  if (!habits) return null;
  const place = new Map((solve ? solve.step : []).map((step, i) => [step, i]));
  const kept = habits.step.map((step, i) => [step, i]).filter(([step]) => axis === "step" || place.has(step));
  const curve = { step: kept.map(([step]) => step), value: kept.map(([, i]) => habits[name][i]) };
  for (const other of ["total_tokens", "elapsed_s"]) curve[other] = kept.map(([step]) => (place.has(step) ? solve[other][place.get(step)] : null));
  return curve;
}

function charts(content, habits, axis) {
  const c = content.curves;
  const cost = c.elapsed_s && typeof content.config.usd_per_hour === "number"
    ? { ...c.elapsed_s, value: c.elapsed_s.value.map((s) => (s === null ? null : (s / 3600) * content.config.usd_per_hour)) } : null;
  const line = (label, curve, more) => ({ label, curve, ...more });
  const habit = (label, name, more) => line(label, habitCurve(habits, name, c.solve_rate, axis), more);
  const counted = habits ? `counted in ${habits.per_step} completions of a step${habits.waiting ? "; still counting …" : ""}` : "counting …";
  return [
    ["Learning", [
      { title: "Solve rate", note: "◆ held-out, with 95 % intervals", rate: true, points: tests(content, axis), series: [line("training puzzles", c.solve_rate)] },
      { title: "Reward", series: [line("mean reward", c.reward)] },
      { title: "Groups without a lesson", note: "all right or all wrong: no advantage, nothing learnt", rate: true,
        series: [line("none solved", c.groups_none_solved, { colour: 3 }), line("all solved", c.groups_all_solved, { colour: 2 })] }]],
    ["Behaviour", [
      { title: "Attempts and checks", note: counted, series: [habit("attempts", "attempts"), habit("checks", "checks", { colour: 2 })] },
      { title: "Going back", note: counted, series: [habit("to the start", "backtracks_root", { colour: 4 }), habit("to an intermediate result", "backtracks_intermediate", { colour: 1 })] },
      { title: "Truth", note: counted, rate: true, series: [habit("lines with right arithmetic", "line_accuracy"), habit("checks that are true", "verdict_truth", { colour: 2 })] }]],
    ["The text", [
      { title: "Length", series: [line("tokens of a completion", c.mean_tokens)] },
      { title: "Cut off at the limit", rate: true, series: [line("share of completions", c.truncated, { colour: 3 })] },
      { title: "Entropy", note: "nats a token, of the policy", series: [line("entropy", c.entropy, { colour: 4 })] }]],
    ["The machine", [
      { title: "Gradient norm", series: [line("before clipping", c.grad_norm, { colour: 5 })] },
      { title: "Tokens a second", series: [line("tokens a second", c.tokens_per_s)] },
      { title: "Cost", series: [line("dollars", cost, { colour: 1 })], form: (v) => (v === null ? "–" : money(v)) }]],
  ];
}

function Facts({ content }) {
  const rows = (object, prefix = "") => Object.entries(object || {}).flatMap(([key, value]) => (
    value && typeof value === "object" && !Array.isArray(value) ? rows(value, `${prefix}${key}.`) : [[prefix + key, value]]));
  const part = (title, object) => html`<details><summary>${title}</summary><dl class="facts">
    ${rows(object).map(([key, value]) => html`<div key=${key}><dt>${key}</dt><dd>${JSON.stringify(value)}</dd></div>`)}</dl></details>`;
  return html`<div class="parts">${part("Config", content.config)}${part("Environment", content.environment)}${part("Summary", content.summary)}</div>`;
}

export function Overview({ run }) {
  const { content, error, status, lost } = useLive(run);
  const [axis, setAxis] = useState("step");
  const [smooth, setSmooth] = useState(0);
  const scheme = useScheme();
  const gain = useLoad(content && content.after && content.after.solve_rate !== undefined ? api(run, "gain") : null).content;
  const habits = useHabits(run, content ? content.last.step : null);
  const sections = useMemo(() => content && charts(content, habits, axis), [content, habits, axis]);
  if (error) return html`<${Failure} error=${error} />`;
  if (!content) return html`<p class="wait">Loading …</p>`;
  const now = status || content.card.status;
  return html`<section>
    <div class="bar"><h1>${run}</h1><${Status} status=${now} /><span class="dim">${content.card.task} · ${content.card.model}</span></div>
    ${lost && html`<p class="note">The connection was lost; trying again …</p>`}
    ${content.notes.map((note) => html`<p class="note" key=${note}>${note}</p>`)}
    <${Tiles} content=${content} status=${now} />
    <${Gain} gain=${gain} />
    <div class="bar"><${Choice} label="over" value=${axis} options=${AXES} set=${setAxis} />
      <label class="slide">smooth <input type="range" min="0" max="0.95" step="0.05" value=${smooth} onInput=${(e) => setSmooth(Number(e.target.value))} /></label>
      <span class="dim">A click on a curve opens the completions of that step.</span></div>
    ${sections.map(([name, all]) => html`<h2 key=${name}>${name}</h2><div class="charts">
      ${all.map((one) => html`<${Chart} key=${one.title} ...${one} axis=${axis} smooth=${smooth} scheme=${scheme}
        open=${(step) => step !== undefined && go(["run", run, "rollouts"], { file: step ? stepFile(step) : "before" })} />`)}</div>`)}
    <${Facts} content=${content} /></section>`;
}
