// Two to four runs: curves, config differences, paired results.

import { html, useState, api, useLoad, openPage, address, loading, Status, failure, visible } from "/static/shared.js";
import { Chart, CurveSettings, useScheme } from "/static/charts.js";
import { Gain } from "/static/overview.js";

const CURVES = [["solve_rate", "Solve rate", true], ["reward", "Reward"], ["mean_tokens", "Length in tokens"], ["entropy", "Entropy"], ["truncated", "Truncated at the limit", true]];

function RunChoice({ list, names }) {
  const toggle = (name) => openPage(["compare"], { run: names.includes(name) ? names.filter((n) => n !== name) : [...names, name].slice(-4) });
  return html`<fieldset class="choice many"><legend>runs</legend>${list.runs.slice(0, 24).map((run) => html`<button type="button" key=${run.name}
    aria-pressed=${names.includes(run.name)} onClick=${() => toggle(run.name)}>${visible(run.name)}</button>`)}</fieldset>`;
}

function Differences({ names, differences }) {
  const keys = [...new Set(differences.flatMap((entries) => entries.map(([key]) => key)))];
  if (!keys.length) return html`<p class="nothing">Their configs are the same.</p>`;
  // Each entry is [key, value in the first run, value in the other run], only where the two differ.
  const entryOf = (key, entries) => entries.find(([k]) => k === key);
  const value = (key, n) => (n && entryOf(key, differences[n - 1])?.[2]) || entryOf(key, differences.flat())[1];
  return html`<div class="wide"><table><thead><tr><th>key</th>${names.map((name) => html`<th key=${name}>${visible(name)}</th>`)}</tr></thead>
    <tbody>${keys.map((key) => html`<tr key=${key}><th scope="row"><code>${key}</code></th>${names.map((name, n) => html`<td key=${name}>${value(key, n)}</td>`)}</tr>`)}</tbody></table></div>`;
}

export function Compare({ fields, list }) {
  const names = fields.getAll("run");
  const [axis, setAxis] = useState("step");
  const [smooth, setSmooth] = useState(0.6);
  const scheme = useScheme();
  const { content, error } = useLoad(names.length > 1 ? api(null, "compare", { run: names }) : null, 5000);
  if (!list) return loading();
  const ready = content && content.runs.length === names.length && content.runs.every((run, n) => run.card.name === names[n]);
  return html`<section><div class="bar"><h1>Compare</h1></div>
    <${RunChoice} list=${list} names=${names} />
    ${failure(error)}
    ${names.length < 2 && html`<p class="nothing">Choose two to four runs.</p>`}
    ${ready && html`
      <ul class="cards">${content.runs.map(({ card }, n) => html`<li key=${card.name}><i class=${`key k${n} d${n}`}></i><a href=${address(["run", card.name])}>${visible(card.name)}</a> <${Status} status=${card.status} /> <small class="amber">${card.marks.join("; ")}</small></li>`)}</ul>
      ${content.paired.map((gain, n) => (gain ? html`<${Gain} key=${n} gain=${gain} names=${[names[0], names[n + 1]].map((name) => "in " + visible(name))} />`
      : html`<p class="note" key=${n}>${visible(names[0])} and ${visible(names[n + 1])} share no held-out problem: no comparison.</p>`))}
      <div class="bar"><${CurveSettings} axis=${axis} setAxis=${setAxis} smooth=${smooth} setSmooth=${setSmooth} /></div>
      <div class="charts">${CURVES.map(([key, title, rate]) => html`<${Chart} key=${key} title=${title} rate=${rate} axis=${axis} smooth=${smooth} scheme=${scheme}
        series=${content.runs.map((run, n) => ({ label: visible(run.card.name), curve: run.curves[key], colour: n, dash: n }))} />`)}</div>
      <h2>What differs in their configs</h2><${Differences} names=${names} differences=${content.differences} />`}</section>`;
}
