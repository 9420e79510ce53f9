// The same puzzles through time: one line a puzzle, one cell an evaluation, the texts side by side.

import { html, api, useLoad, replaceAddress, fileLabel, puzzleText, short, Failure, Choice, Pager } from "/static/lib.js";
import { Completion, Legend } from "/static/completion.js";

const CHANGES = [["learnt", "✗→✓ learnt"], ["lost", "✓→✗ lost"], ["always", "✓ always"], ["never", "✗ never"], ["", "all"]];
const NAMES = { test: "test: before, after", validation: "validation: every evaluation" };

function At({ run, file, place, kinds }) {
  const { content, error } = useLoad(api(run, "completion", { file, place }));
  if (error) return html`<${Failure} error=${error} />`;
  return content ? html`<${Completion} run=${run} file=${file} row=${content} kinds=${kinds} label=${fileLabel(file)} />` : html`<p class="wait">Loading …</p>`;
}

export function Through({ run, fields, kinds }) {
  const family = fields.get("family") || "test";
  const change = fields.get("change") ?? "learnt";
  const start = Number(fields.get("start") || 0);
  const open = fields.get("line");
  const { content, error } = useLoad(api(run, "through", { family, change: change === "all" ? "" : change, start }));
  const set = (more) => replaceAddress(["run", run, "through"], { ...Object.fromEntries(fields), ...more });
  if (error) return html`<${Failure} error=${error} />`;
  if (!content) return html`<p class="wait">Loading …</p>`;
  const families = content.families.length ? content.families : ["test"];
  return html`<section>
    <div class="bar"><h1>The same puzzles through time</h1></div>
    <p class="lead dim">The puzzles are the same at every evaluation, and none was ever trained on. Open a line to read what the model wrote each time.</p>
    <div class="bar"><${Choice} label="puzzles" value=${family} options=${families.map((name) => [name, NAMES[name]])} set=${(v) => set({ family: v, start: "", line: "" })} />
      <${Choice} label="change" value=${change === "all" ? "" : change} options=${CHANGES} set=${(v) => set({ change: v || "all", start: "", line: "" })} />
      <span class="dim" role="status">${content.matching} of ${content.problems} puzzles</span></div>
    <${Legend} kinds=${kinds} />
    ${content.files.length < 2 && html`<p class="nothing">${content.files.length ? "Only one evaluation so far: there is no change to see yet." : "No evaluation has been written yet."}</p>`}
    <div class="groups">${content.lines.map((line, n) => {
      const isOpen = open === String(n);
      const name = puzzleText(line.puzzle, line.prompt);
      return html`<div class=${isOpen ? "group open" : "group"} key=${start + n}>
        <button type="button" class="line" aria-expanded=${isOpen} onClick=${() => set({ line: isOpen ? "" : n })}><b>${name}</b>
          <span class="cells">${line.cells.map((cell, i) => html`<span key=${i} class=${"cell still " + (cell ? (cell[1] ? "right" : "wrong") : "")}
            title=${fileLabel(content.files[i])}>${cell ? (cell[1] ? "✓" : "✗") : "·"}<small>${cell ? short(cell[2]) : ""}</small></span>`)}</span></button>
        ${isOpen && html`<div class="beside">${line.cells.map((cell, i) => cell && html`<${At} key=${i} run=${run} file=${content.files[i]} place=${cell[0]} kinds=${kinds} />`)}</div>`}</div>`;
    })}</div>
    <${Pager} start=${start} page=${content.page} total=${content.matching} move=${(to) => set({ start: to, line: "" })} /></section>`;
}
