// One completion: its text with what happens in it, its verdict and why. Text is only ever text.

import { html, useState, api, load, puzzleText, signed, short, fileLabel } from "/static/lib.js";
import { Pin } from "/static/pins.js";
import { Strip } from "/static/strip.js";

// These say their own name in the text ("yes", "no"): the sign is enough beside them.
const BRIEF = new Set(["true", "false"]);

export function Legend({ kinds }) {
  return html`<details class="legend"><summary>What the marks mean</summary><ul>
    ${Object.entries(kinds).map(([key, [sign, label]]) => html`<li key=${key}><span class=${"tag " + key}>${sign}</span> ${label}</li>`)}</ul></details>`;
}

export function Pieces({ pieces, kinds }) {
  return html`<pre class="text">${pieces.map(([text, inside, ending], n) => html`<span key=${n}
    class=${inside.length ? "event " + inside.join(" ") : ""}>${text}</span>${ending.map((key) => html`<span key=${key}
    class=${"tag " + key} title=${kinds[key] ? kinds[key][1] : key}>${kinds[key] ? kinds[key][0] : ""}${BRIEF.has(key)
    ? html`<span class="unseen">${" " + kinds[key][1]}</span>` : " " + (kinds[key] ? kinds[key][1] : key)}</span>`)}`)}</pre>`;
}

export const Verdict = ({ correct }) => html`<span class=${correct ? "verdict right" : "verdict wrong"}>${correct ? "✓ right" : "✗ wrong"}</span>`;

export function Advantage({ value }) {
  if (value === null || value === undefined) return null;
  const sign = value > 0 ? "▲" : value < 0 ? "▼" : "·";
  return html`<span class=${"advantage " + (value > 0 ? "up" : value < 0 ? "down" : "flat")}>${sign} advantage ${signed(value)}</span>`;
}

export function Completion({ run, file, row, kinds, chosen, label }) {
  const [whole, setWhole] = useState(null);
  const one = whole || row;
  const all = () => load(api(run, "completion", { file, place: row.place })).then(setWhole).catch(() => {});
  const counts = [["attempts", one.attempts], ["checks", one.checks], ["back", one.backtracks]].filter(([, n]) => n);
  return html`<article class=${chosen ? "completion chosen" : "completion"} id=${"c" + row.place} tabindex="-1">
    <header><b>${label || puzzleText(one.puzzle, one.prompt)}</b><${Verdict} correct=${one.correct} />
      <${Advantage} value=${one.advantage} />
      <span class="dim">${one.reward !== null && html`reward ${short(one.reward)} · `}${one.tokens !== null && html`${short(one.tokens)} tokens`}${one.finish === "length" && " · cut off"}</span>
      ${file && html`<${Pin} run=${run} file=${file} place=${row.place} />`}</header>
    <${Pieces} pieces=${one.pieces} kinds=${kinds} />
    ${one.hidden > 0 && html`<button type="button" onClick=${all}>Show all ${one.chars.toLocaleString("en")} characters</button>`}
    <${Strip} run=${run} file=${file} place=${row.place} recorded=${one.recorded} />
    <footer><span class="reason">${one.reason}</span>
      <span class="dim">${counts.map(([name, n]) => `${name} ${n}`).join(" · ")}${one.group !== null ? ` · group ${one.group}` : ""}${file && ` · ${fileLabel(file)}, line ${row.place + 1}`}</span></footer></article>`;
}
