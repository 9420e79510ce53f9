// Held-out problems: one line for a problem, one cell for an evaluation.

import { html, api, useLoad, replaceAddress, fileLabel, puzzleText, short, loading, Choice, Pager, failure, Notes } from "./shared.js";
import { CompletionAt, Legend } from "./completion.js";

export function ProblemHistory({ run, fields }) {
  const family = fields.get("family") || "test";
  const change = fields.get("change") || "learnt";
  const start = Number(fields.get("start") || 0);
  const openLine = fields.get("line");
  const { content, error } = useLoad(api(run, "history", { family, change, start }));
  const setFields = (changed) => replaceAddress(["run", run, "history"], { ...Object.fromEntries(fields), ...changed });
  if (error) return failure(error);
  if (!content) return loading();
  return html`<section>
    <div class="bar"><h1>Held-out problems</h1></div>
    <p class="lead dim">The same problems at every evaluation; none of them is in the training. Open a line to read the completions.</p>
    <div class="bar"><${Choice} label="problems" value=${family} options=${content.families} choose=${(value) => setFields({ family: value, start: "", line: "" })} />
      <${Choice} label="change" value=${change} options=${content.changes} choose=${(value) => setFields({ change: value, start: "", line: "" })} />
      <span class="dim" role="status">${content.matching} of ${content.problems} problems</span></div>
    <${Legend} /><${Notes} notes=${content.faults} />
    ${content.files.length < 2 && html`<p class="nothing">${content.files.length ? "Only one evaluation so far: there is no change to show yet." : "No evaluation has been written yet."}</p>`}
    <div class="groups">${content.lines.map((line, n) => {
      const isOpen = openLine === String(n);
      const name = puzzleText(line.puzzle, line.prompt);
      return html`<div class=${isOpen ? "group open" : "group"} key=${start + n}>
        <button class="line" aria-expanded=${isOpen} onClick=${() => setFields({ line: isOpen ? "" : n })}><b>${name}</b>
          <span class="cells">${line.cells.map((cell, i) => html`<span key=${i} class=${"cell " + (cell ? (cell[1] ? "right" : "wrong") : "")}
            title=${fileLabel(content.files[i])}>${cell ? (cell[1] ? "✓" : "✗") : "·"}<small>${cell ? short(cell[2]) : ""}</small></span>`)}</span></button>
        ${isOpen && html`<div class="side-by-side">${line.cells.map((cell, i) => cell && html`<${CompletionAt} key=${i} run=${run} file=${content.files[i]} place=${cell[0]} label=${fileLabel(content.files[i])} />`)}</div>`}</div>`;
    })}</div>
    <${Pager} start=${start} page=${content.page} total=${content.matching} move=${(first) => setFields({ start: first, line: "" })} /></section>`;
}
