// Two to twelve runs: curves, several seeds as one, config differences, paired results.

import { html, useState, api, useLoad, openPage, address, loading, Status, failure, visible, Choice } from "./shared.js";
import { Chart, useCurveSettings } from "./charts.js";
import { Gain } from "./overview.js";

export const MAX_COMPARED = 12;

// Of six colours and four ways to dash a line, no pair twice.
const style = (n) => ({ colour: n % 6, dash: (n + Math.floor(n / 6)) % 4 });

function RunChoice({ list, names }) {
  const toggle = (name) => openPage(["compare"], { run: names.includes(name) ? names.filter((n) => n !== name) : [...names, name].slice(-MAX_COMPARED) });
  return html`<fieldset class="choice many"><legend>runs</legend>${list.runs.slice(0, 24).map((run) => html`<button type="button" key=${run.name}
    aria-pressed=${names.includes(run.name)} onClick=${() => toggle(run.name)}>${visible(run.name)}</button>`)}</fieldset>`;
}

// differences: [[key, the value in each run], ...]
function Differences({ names, differences }) {
  if (!differences.length) return html`<p class="nothing">Their configs are the same.</p>`;
  return html`<div class="wide"><table><thead><tr><th>key</th>${names.map((name) => html`<th key=${name}>${visible(name)}</th>`)}</tr></thead>
    <tbody>${differences.map(([key, ...values]) => html`<tr key=${key}><th scope="row"><code>${key}</code></th>${values.map((value, n) => html`<td key=${n}>${value}</td>`)}</tr>`)}</tbody></table></div>`;
}

// A curve for each run; with `together` one for the seeds of the same settings, in the colour of the first.
function seriesOf({ runs, bands }, column, together) {
  const groups = together ? bands : [];
  const own = runs.map((run, n) => ({ label: visible(run.card.name), curve: run.curves[column], ...style(n) }));
  const single = own.filter((_, n) => !groups.some((group) => group.runs.includes(n)));
  return [...groups.map((group) => ({ ...own[group.runs[0]], label: group.runs.map((n) => own[n].label).join(" + "), curve: group.curves[column] })), ...single];
}

export function Compare({ fields, list }) {
  const names = fields.getAll("run");
  const [curves, controls] = useCurveSettings(0.6);
  const [together, setTogether] = useState(true);
  const { content, error } = useLoad(names.length > 1 ? api(null, "compare", { run: names }) : null, 5000);
  if (!list) return loading();
  const ready = content?.runs.length === names.length && content.runs.every((run, n) => run.card.name === names[n]);
  return html`<section><div class="bar"><h1>Compare</h1></div>
    <${RunChoice} list=${list} names=${names} />
    ${failure(error)}
    ${names.length < 2 && html`<p class="nothing">Choose two to twelve runs.</p>`}
    ${ready && html`
      <ul class="cards">${content.runs.map(({ card }, n) => html`<li key=${card.name}><i class=${`key k${style(n).colour} d${style(n).dash}`}></i><a href=${address(["run", card.name])}>${visible(card.name)}</a> <${Status} status=${card.status} /> <small class="amber">${card.marks.join("; ")}</small></li>`)}</ul>
      ${content.paired.map((gain, n) => (gain ? html`<${Gain} key=${n} gain=${gain} />`
      : html`<p class="note" key=${n}>${visible(names[0])} and ${visible(names[n + 1])} share no held-out problem: no comparison.</p>`))}
      <div class="bar">${controls}
        ${content.bands.length > 0 && html`<${Choice} label="seeds" value=${together} options=${[[true, "mean, lowest to highest"], [false, "one by one"]]} choose=${setTogether} />`}</div>
      <div class="charts">${content.charts.map(({ title, column, rate }) => html`<${Chart} key=${title} title=${title} rate=${rate} ...${curves}
        series=${seriesOf(content, column, together)} />`)}</div>
      <h2>What differs in their configs</h2><${Differences} names=${names} differences=${content.differences} />`}</section>`;
}
