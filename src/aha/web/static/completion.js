// One completion: its text with the detector's events, its verdict and the reason.

import { html, useState, api, load, puzzleText, signed, short, fileLabel, grouped } from "/static/shared.js";
import { PinButton } from "/static/pins.js";
import { TokenValues } from "/static/token_values.js";

// The text itself says "yes" or "no" here, so the sign is enough.
const SIGN_ONLY = new Set(["true-check", "false-check"]);

export function Legend({ kinds }) {
  return html`<details class="legend"><summary>What the signs mean</summary><ul>
    ${Object.entries(kinds).map(([key, [sign, label]]) => html`<li key=${key}><span class=${"tag " + key}>${sign}</span> ${label}</li>`)}</ul></details>`;
}

// pieces: [[text, keys of the events that cover it, keys of the events that end with it], ...]
export function Pieces({ pieces, kinds }) {
  const tag = (key) => {
    const [sign, label] = kinds[key] || ["", key]; // the list of kinds may come after the text
    return html`<span key=${key} class=${"tag " + key} title=${label}>${sign}${SIGN_ONLY.has(key) ? html`<span class="unseen">${" " + label}</span>` : " " + label}</span>`;
  };
  return html`<pre class="text">${pieces.map(([text, covering, ending], n) => html`<span key=${n}
    class=${covering.length ? "event " + covering.join(" ") : ""}>${text}</span>${ending.map(tag)}`)}</pre>`;
}

export const Verdict = ({ correct }) => html`<span class=${correct ? "verdict right" : "verdict wrong"}>${correct ? "✓ right" : "✗ wrong"}</span>`;

export function Advantage({ value }) {
  if (value == null) return null;
  const sign = value > 0 ? "▲" : value < 0 ? "▼" : "·";
  return html`<span class=${"advantage " + (value > 0 ? "positive" : value < 0 ? "negative" : "zero")}>${sign} advantage ${signed(value)}</span>`;
}

export function Completion({ run, file, row, kinds, selected, label }) {
  const [whole, setWhole] = useState(null);
  const shown = whole || row;
  const loadWhole = () => load(api(run, "completion", { file, place: row.place })).then(setWhole).catch(() => {});
  const counts = [["attempts", shown.attempts], ["checks", shown.checks], ["backtracks", shown.backtracks]].filter(([, n]) => n);
  return html`<article class=${selected ? "completion selected" : "completion"} id=${"c" + row.place} tabindex="-1">
    <header><b>${label || puzzleText(shown.puzzle, shown.prompt)}</b><${Verdict} correct=${shown.correct} />
      <${Advantage} value=${shown.advantage} />
      <span class="dim">${shown.reward !== null && html`reward ${short(shown.reward)} · `}${shown.tokens !== null && html`${short(shown.tokens)} tokens`}${shown.finish === "length" && " · truncated"}</span>
      ${file && html`<${PinButton} run=${run} file=${file} place=${row.place} />`}</header>
    ${shown.damaged.length > 0 && html`<p class="note">damaged row: ${shown.damaged.join(", ")} of a wrong type</p>`}
    <${Pieces} pieces=${shown.pieces} kinds=${kinds} />
    ${shown.hidden > 0 && html`<button onClick=${loadWhole}>Show all ${grouped(shown.chars)} characters</button>`}
    <${TokenValues} run=${run} file=${file} place=${row.place} recorded=${shown.recorded} />
    <footer><span class="reason">${shown.reason}</span>
      <span class="dim">${[...counts.map(([name, n]) => `${name} ${n}`), shown.group !== null && `group ${shown.group}`, file && `${fileLabel(file)}, line ${row.place + 1}`].filter(Boolean).join(" · ")}</span></footer></article>`;
}
