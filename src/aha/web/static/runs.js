// The list of runs: task and model, progress, results.

import { html, useState, address, openPage, visible, percent, progress, money, timeAgo, duration, loading, Status } from "./shared.js";
import { MAX_COMPARED } from "./compare.js";

function Sparkline({ values }) {
  const known = values.map((v, i) => [i, v]).filter(([, v]) => v !== null);
  if (known.length < 2) return html`<span class="dim">–</span>`;
  const last = Math.max(1, values.length - 1);
  const path = known.map(([i, v], n) => `${n ? "L" : "M"}${(100 * i / last).toFixed(1)} ${(22 - 20 * Math.min(1, Math.max(0, v))).toFixed(1)}`).join("");
  const from = percent(known[0][1], 0);
  const to = percent(known.at(-1)[1], 0);
  return html`<svg class="sparkline" viewBox="0 0 100 24" preserveAspectRatio="none" role="img" aria-label=${`solve rate from ${from} to ${to}`}>
    <path d=${path} /></svg>`;
}

const rateText = (rate) => (rate ? percent(rate.solve_rate) : "–");

function RunRow({ run, chosen, choose }) {
  return html`<tr>
    <td><input type="checkbox" checked=${chosen} aria-label=${"compare " + run.name} onChange=${choose} /></td>
    <th scope="row"><a href=${address(["run", run.name])}>${visible(run.name)}</a><small>${run.task} · ${run.model}</small>${run.notes && html`<small class="amber" title=${run.notes}>${run.notes.split("\n")[0].slice(0, 80)}</small>`}</th>
    <td data-name="status"><${Status} status=${run.status} />${run.marks.map((mark) => html`<small class="amber" key=${mark}>${mark}</small>`)}</td>
    <td data-name="step" class="num">${progress(run.step, run.steps)}</td>
    <td data-name="solve rate"><${Sparkline} values=${run.sparkline} /></td>
    <td data-name="last step" class="num">${percent(run.solve_rate)}</td>
    <td data-name="held-out" class="num">${rateText(run.before)} → ${rateText(run.after)}</td>
    <td data-name="training" class="num">${duration(run.elapsed_s)}</td>
    <td data-name="cost" class="num">${money(run.cost_usd)}</td>
    <td data-name="changed" class="dim">${timeAgo(run.modified)}</td></tr>`;
}

function LeftOut({ names }) {
  if (!names?.length) return null;
  return html`<p class="dim">Left out, because a link leads out of the folder: ${names.map(visible).join(", ")}.
    Give <code>aha dash</code> the folder that contains the runs.</p>`;
}

export function Runs({ list }) {
  const [chosen, setChosen] = useState([]);
  const [text, setText] = useState("");
  if (!list) return loading();
  if (!list.runs.length) {
    return html`<section class="empty"><h1>No runs yet</h1>
      <p>There is no run in the folder <code>${list.folder}</code>. Start one, and it appears here by itself:</p>
      <pre>aha demo</pre><${LeftOut} names=${list.left_out} /></section>`;
  }
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const shown = list.runs.filter((run) => words.every((word) => `${run.name} ${run.task} ${run.model} ${run.status} ${run.marks} ${run.notes}`.toLowerCase().includes(word)));
  const toggle = (name) => setChosen(chosen.includes(name) ? chosen.filter((n) => n !== name) : [...chosen, name].slice(-MAX_COMPARED));
  return html`<section>
    <div class="bar"><h1>Runs</h1>
      <input type="search" placeholder="running, countdown, name …" aria-label="search runs" value=${text} onInput=${(e) => setText(e.target.value)} />
      <button class="strong" disabled=${chosen.length < 2} onClick=${() => openPage(["compare"], { run: chosen })}>
        Compare ${chosen.length || ""}</button>
      <span class="dim">${chosen.length < 2 ? "tick two to twelve" : ""}</span></div>
    <div class="wide"><table class="runs">
      <thead><tr><td></td><th>run</th><th>status</th><th class="num">step</th><th>solve rate</th><th class="num">last step</th>
        <th class="num">held-out</th><th class="num">training</th><th class="num">cost</th><th>changed</th></tr></thead>
      <tbody>${shown.map((run) => html`<${RunRow} key=${run.name} run=${run} chosen=${chosen.includes(run.name)} choose=${() => toggle(run.name)} />`)}</tbody>
    </table></div>
    ${list.total > list.runs.length && html`<p class="dim">The newest ${list.runs.length} of ${list.total} runs.</p>`}
    <${LeftOut} names=${list.left_out} /></section>`;
}
