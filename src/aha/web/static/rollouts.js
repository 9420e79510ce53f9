// The completions of a step or a held-out test, by group or as a filtered list.

import {
  html, useState, useEffect, api, useLoad, replaceAddress, fileLabel, stepFile, puzzleText, signed, loading, Choice, Pager, useKeys, useRunVersion, failure, evalFile, grouped, Notes,
} from "/static/shared.js";
import { Completion, Legend } from "/static/completion.js";
import { togglePin } from "/static/pins.js";

const VERDICTS = [["", "all"], ["right", "✓ right"], ["wrong", "✗ wrong"]];
const VIEWS = [["groups", "groups"], ["list", "list"]];

function Files({ files, file, open, follow, setFollow }) {
  const steps = files.step;
  const index = steps.indexOf(Number((file.match(/^step_(\d+)$/) || [])[1])); // -1 for a test
  const position = index < 0 ? steps.length - 1 : index;
  const move = (by) => { const step = steps[Math.min(steps.length - 1, Math.max(0, position + by))]; if (step !== undefined) open(stepFile(step)); };
  useKeys({ h: () => move(-1), l: () => move(1) });
  const tests = [...files.tests, ...files.eval.map((n) => evalFile(n))];
  return html`<div class="bar step-choice">
    <button onClick=${() => move(-1)} disabled=${index === 0} title="key h" aria-label="previous step">←</button>
    <label class="slider wide-slider"><span>${index >= 0 ? `step ${steps[index]}` : fileLabel(file)}</span>
      <input type="range" aria-label="step" min="0" max=${Math.max(0, steps.length - 1)} value=${position}
        onInput=${(e) => open(stepFile(steps[Number(e.target.value)]))} /></label>
    <button onClick=${() => move(1)} disabled=${index === steps.length - 1} title="key l" aria-label="next step">→</button>
    ${tests.length > 0 && html`<select aria-label="a test instead of a step" onChange=${(e) => e.target.value && open(e.target.value)}>
      <option value="" selected=${index >= 0}>held-out tests …</option>${tests.map((name) => html`<option key=${name} value=${name} selected=${name === file}>${fileLabel(name)}</option>`)}</select>`}
    <label><input type="checkbox" checked=${follow} onChange=${(e) => setFollow(e.target.checked)} /> newest</label></div>`;
}

function Cell({ cell, chosen, choose }) {
  const [place, correct, reward, advantage, tokens] = cell;
  const description = `${correct ? "right" : "wrong"}, reward ${reward ?? "?"}${advantage === null ? "" : `, advantage ${signed(advantage)}`}, ${tokens ?? "?"} tokens`;
  return html`<button class=${"cell " + (correct ? "right" : "wrong")} aria-pressed=${chosen} title=${description} aria-label=${description} onClick=${() => choose(place)}>
    ${correct ? "✓" : "✗"}${advantage !== null && advantage !== 0 && html`<small>${signed(advantage, 1)}</small>`}</button>`;
}

function Groups({ run, file, fields, setFields, kinds }) {
  const start = Number(fields.get("start") || 0);
  const group = fields.get("group");
  const { content, error } = useLoad(api(run, "groups", { file, start }), file === "" ? 0 : 5000);
  if (error && !content) return failure(error);
  if (!content) return loading();
  if (!content.groups) return html`<p class="nothing">No completion in this file yet.</p>`;
  const single = content.lines.every((line) => line.cells.length === 1);
  return html`<${Notes} notes=${content.faults} /><div class=${single ? "groups single" : "groups"}>${content.lines.map((line) => {
    const right = line.cells.filter((cell) => cell[1]).length;
    const isOpen = group !== null && Number(group) === line.group;
    const choose = (place) => setFields({ group: isOpen && String(place) === fields.get("place") ? "" : line.group, place });
    return html`<div class=${isOpen ? "group open" : "group"} key=${line.group}>
      <div class="line"><b>${puzzleText(line.puzzle, line.prompt)}</b>
        ${!single && html`<span class="dim num">${right} of ${line.cells.length}</span>`}
        ${line.recorded && html`<span class="dim recorded" title="its completions were recorded token by token">▤ tokens</span>`}
        <span class="cells">${line.cells.map((cell) => html`<${Cell} key=${cell[0]} cell=${cell} choose=${choose} chosen=${isOpen && fields.get("place") === String(cell[0])} />`)}</span></div>
      ${isOpen && html`<${GroupCompletion} run=${run} file=${file} place=${fields.get("place") || line.cells[0][0]} cells=${line.cells} kinds=${kinds} choose=${(place) => setFields({ place })} />`}
    </div>`;
  })}</div>
  <${Pager} start=${start} page=${content.page} total=${content.groups} move=${(first) => setFields({ start: first, group: "", place: "" })} />`;
}

// The chosen completion of an open group; the keys j and k choose the next and the previous one.
function GroupCompletion({ run, file, place, cells, kinds, choose }) {
  const index = cells.findIndex((cell) => String(cell[0]) === String(place));
  const move = (by) => { const next = cells[index + by]; if (next) choose(next[0]); };
  useKeys({ j: () => move(1), k: () => move(-1), p: () => togglePin(run, file, place) });
  const { content, error } = useLoad(api(run, "completion", { file, place }));
  if (error) return failure(error);
  return content && html`<${Completion} key=${content.place} run=${run} file=${file} row=${content} kinds=${kinds} />`;
}

function List({ run, file, fields, setFields, kinds }) {
  const [verdict, group, text, start] = ["verdict", "group", "text", "start"].map((key) => fields.get(key) || "");
  const [selected, setSelected] = useState(0);
  const { content, error } = useLoad(api(run, "completions", { file, verdict, group, text, start }));
  const move = (by) => {
    const rows = content ? content.rows : [];
    const next = Math.min(rows.length - 1, Math.max(0, selected + by));
    if (!rows[next]) return;
    setSelected(next);
    document.getElementById("c" + rows[next].place).scrollIntoView({ block: "start" });
  };
  const pin = () => { if (content && content.rows[selected]) togglePin(run, file, content.rows[selected].place); };
  useKeys({ j: () => move(1), k: () => move(-1), p: pin });
  useEffect(() => setSelected(0), [file, verdict, text, start]);
  if (error) return failure(error);
  if (!content) return loading();
  return html`<p class="dim count" role="status">${grouped(content.matching)} of ${grouped(content.total)} completions; ${grouped(content.right)} right</p>
    <${Notes} notes=${content.faults} />
    ${content.rows.map((row, n) => html`<${Completion} key=${file + row.place} run=${run} file=${file} row=${row} kinds=${kinds} selected=${n === selected} />`)}
    <${Pager} start=${content.start} page=${content.page} total=${content.matching} move=${(first) => { setFields({ start: first }); scrollTo(0, 0); }} />`;
}

export function Rollouts({ run, fields, kinds }) {
  const { content: files, error } = useLoad(api(run, "files"), 10_000, useRunVersion(run));
  const [follow, setFollow] = useState(false);
  const [typed, setTyped] = useState(fields.get("text") || "");
  const setFields = (changed) => replaceAddress(["run", run, "rollouts"], { ...Object.fromEntries(fields), ...changed });
  const newest = files && files.step.length ? stepFile(files.step[files.step.length - 1]) : files && (files.tests[0] || "");
  const file = (follow ? newest : fields.get("file") || newest) || "";
  const view = fields.get("view") || (fields.get("verdict") || fields.get("text") ? "list" : "groups");
  useKeys({ g: () => setFields({ view: view === "groups" ? "list" : "groups", start: "" }) });
  useEffect(() => {
    // The list is not loaded again for every key press.
    const timer = setTimeout(() => { if (typed !== (fields.get("text") || "")) setFields({ text: typed, view: "list", start: "" }); }, 200);
    return () => clearTimeout(timer);
  }, [typed]);
  if (error && !files) return failure(error);
  if (!files) return loading();
  if (!file) return html`<section class="empty"><h1>No completions yet</h1><p>They appear with the first step.</p></section>`;
  const open = (name) => { setFollow(false); setFields({ file: name, start: "", group: "", place: "" }); };
  return html`<section>
    <${Files} files=${files} file=${file} open=${open} follow=${follow} setFollow=${setFollow} />
    <div class="bar"><${Choice} label="view" value=${view} options=${VIEWS} choose=${(value) => setFields({ view: value, start: "", group: "" })} />
      <${Choice} label="verdict" value=${fields.get("verdict") || ""} options=${VERDICTS} choose=${(value) => setFields({ verdict: value, view: "list", start: "" })} />
      <input type="search" aria-label="text to find" placeholder="text to find" value=${typed} onInput=${(e) => setTyped(e.target.value)} />
      <span class="dim keys"><kbd>h</kbd> <kbd>l</kbd> step · <kbd>j</kbd> <kbd>k</kbd> completion · <kbd>p</kbd> pin · <kbd>g</kbd> view</span></div>
    <${Legend} kinds=${kinds} />
    ${view === "groups" ? html`<${Groups} key=${file} run=${run} file=${file} fields=${fields} setFields=${setFields} kinds=${kinds} />`
    : html`<${List} run=${run} file=${file} fields=${fields} setFields=${setFields} kinds=${kinds} />`}</section>`;
}
