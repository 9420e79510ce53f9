// One completion: its text with the detector's events, its verdict and the reason.

import { html, useState, api, load, useLoad, puzzleText, signed, short, fileLabel, grouped, failure } from "./shared.js";
import { PinButton } from "./pins.js";
import { TokenValues } from "./token_values.js";

// The text itself says "yes" or "no" here, so the sign is enough.
const SIGN_ONLY = new Set(["true-check", "false-check"]);

let kinds = {}; // of the detector's events, {key: [sign, label]}; set when the list of runs has come
export const setKinds = (all) => { kinds = all; };

export function Legend() {
  return html`<details class="legend"><summary>What the signs mean</summary><ul>
    ${Object.entries(kinds).map(([key, [sign, label]]) => html`<li key=${key}><span class=${"tag " + key}>${sign}</span> ${label}</li>`)}</ul></details>`;
}

// pieces: [[text, keys of the events that cover it, keys of the events that end with it], ...]
function Pieces({ pieces }) {
  const tag = (key) => {
    const [sign, label] = kinds[key] || ["", key];
    return html`<span key=${key} class=${"tag " + key} title=${label}>${sign}${SIGN_ONLY.has(key) ? html`<span class="unseen">${" " + label}</span>` : " " + label}</span>`;
  };
  return html`<pre class="text">${pieces.map(([text, covering, ending], n) => html`<span key=${n}
    class=${covering.length ? "event " + covering.join(" ") : ""}>${text}</span>${ending.map(tag)}`)}</pre>`;
}

const Verdict = ({ correct }) => html`<span class=${correct ? "verdict right" : "verdict wrong"}>${correct ? "✓ right" : "✗ wrong"}</span>`;

function Advantage({ value }) {
  if (value == null) return null;
  const [sign, style] = value > 0 ? ["▲", "positive"] : value < 0 ? ["▼", "negative"] : ["·", ""];
  return html`<span class=${"advantage " + style}>${sign} advantage ${signed(value)}</span>`;
}

// One completion, loaded by its place in a file.
export function CompletionAt({ run, file, place, label }) {
  const { content, error } = useLoad(api(run, "completion", { file, place }));
  return failure(error) || (content && html`<${Completion} key=${content.place} run=${run} file=${file} row=${content} label=${label} />`);
}

export function Completion({ run, file, row, selected, label }) {
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
    <${Pieces} pieces=${shown.pieces} />
    ${shown.hidden > 0 && html`<button onClick=${loadWhole}>Show all ${grouped(shown.chars)} characters</button>`}
    <${TokenValues} run=${run} file=${file} place=${row.place} recorded=${shown.recorded} />
    <footer><span class="reason">${shown.reason}</span>
      <span class="dim">${[...counts.map(([name, n]) => `${name} ${n}`), shown.group !== null && `group ${shown.group}`, file && `${fileLabel(file)}, line ${row.place + 1}`].filter(Boolean).join(" · ")}</span></footer></article>`;
}
