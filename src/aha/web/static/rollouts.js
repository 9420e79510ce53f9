// The completions of a step or a test: groups with their rewards and advantages, or a filtered list.

import {
  html, useState, useEffect, api, useLoad, replaceAddress, fileLabel, stepFile, puzzleText, signed, Failure, Choice, Pager, useKeys, useNews,
} from "/static/lib.js";
import { Completion, Legend } from "/static/completion.js";
import { togglePin } from "/static/pins.js";

const VERDICTS = [["", "all"], ["right", "✓ right"], ["wrong", "✗ wrong"]];
const VIEWS = [["groups", "groups"], ["list", "one by one"]];

function Files({ files, file, open, follow, setFollow }) {
  const steps = files.step;
  const at = steps.indexOf(Number((file.match(/^step_(\d+)$/) || [])[1]));
  const move = (by) => { const to = steps[Math.min(steps.length - 1, Math.max(0, (at < 0 ? steps.length - 1 : at) + by))]; if (to !== undefined) open(stepFile(to)); };
  useKeys({ h: () => move(-1), l: () => move(1) });
  const others = [...files.tests, ...files.eval.map((n) => "eval_" + String(n).padStart(6, "0"))];
  return html`<div class="bar scrub">
    <button type="button" onClick=${() => move(-1)} disabled=${at === 0} title="key h" aria-label="the step before">←</button>
    <label class="slide grow"><span>${at >= 0 ? `step ${steps[at]}` : fileLabel(file)}</span>
      <input type="range" aria-label="step" min="0" max=${Math.max(0, steps.length - 1)} value=${at < 0 ? steps.length - 1 : at}
        onInput=${(e) => open(stepFile(steps[Number(e.target.value)]))} /></label>
    <button type="button" onClick=${() => move(1)} disabled=${at === steps.length - 1} title="key l" aria-label="the step after">→</button>
    ${others.length > 0 && html`<select aria-label="a test instead of a step" onChange=${(e) => e.target.value && open(e.target.value)}>
      <option value="" selected=${at >= 0}>held-out tests …</option>${others.map((name) => html`<option key=${name} value=${name} selected=${name === file}>${fileLabel(name)}</option>`)}</select>`}
    <label><input type="checkbox" checked=${follow} onChange=${(e) => setFollow(e.target.checked)} /> newest</label></div>`;
}

function Cell({ cell, chosen, choose }) {
  const [place, correct, reward, advantage, tokens] = cell;
  const words = `${correct ? "right" : "wrong"}, reward ${reward ?? "?"}${advantage === null ? "" : `, advantage ${signed(advantage)}`}, ${tokens ?? "?"} tokens`;
  return html`<button type="button" class=${"cell " + (correct ? "right" : "wrong")} aria-pressed=${chosen} title=${words} aria-label=${words} onClick=${() => choose(place)}>
    ${correct ? "✓" : "✗"}${advantage !== null && advantage !== 0 && html`<small>${signed(advantage, 1)}</small>`}</button>`;
}

function Groups({ run, file, fields, set, kinds }) {
  const start = Number(fields.get("start") || 0);
  const group = fields.get("group");
  const { content, error } = useLoad(api(run, "groups", { file, start }), file === "" ? 0 : 5000);
  if (error && !content) return html`<${Failure} error=${error} />`;
  if (!content) return html`<p class="wait">Loading …</p>`;
  if (!content.groups) return html`<p class="nothing">No completion in this file yet.</p>`;
  const single = content.lines.every((line) => line.cells.length === 1);
  return html`<div class=${single ? "groups single" : "groups"}>${content.lines.map((line) => {
    const right = line.cells.filter((cell) => cell[1]).length;
    const isOpen = group !== null && Number(group) === line.group;
    const choose = (place) => set({ group: isOpen && String(place) === fields.get("place") ? "" : line.group, place });
    return html`<div class=${isOpen ? "group open" : "group"} key=${line.group}>
      <div class="line"><b>${puzzleText(line.puzzle, line.prompt)}</b>
        ${!single && html`<span class="dim num">${right} of ${line.cells.length}</span>`}
        ${line.recorded && html`<span class="dim kept" title="its completions can be read token by token">▤ tokens</span>`}
        <span class="cells">${line.cells.map((cell) => html`<${Cell} key=${cell[0]} cell=${cell} choose=${choose} chosen=${isOpen && fields.get("place") === String(cell[0])} />`)}</span></div>
      ${isOpen && html`<${One} run=${run} file=${file} place=${fields.get("place") || line.cells[0][0]} cells=${line.cells} kinds=${kinds} set=${(place) => set({ place })} />`}
    </div>`;
  })}</div>
  <${Pager} start=${start} page=${content.page} total=${content.groups} move=${(to) => set({ start: to, group: "", place: "" })} />`;
}

// The chosen completion of an open group; j and k walk through its members.
function One({ run, file, place, cells, kinds, set }) {
  const at = cells.findIndex((cell) => String(cell[0]) === String(place));
  const move = (by) => { const next = cells[at + by]; if (next) set(next[0]); };
  useKeys({ j: () => move(1), k: () => move(-1), p: () => togglePin(run, file, place) });
  const { content, error } = useLoad(api(run, "completion", { file, place }));
  if (error) return html`<${Failure} error=${error} />`;
  return content && html`<${Completion} key=${content.place} run=${run} file=${file} row=${content} kinds=${kinds} />`;
}

function List({ run, file, fields, set, kinds }) {
  const [verdict, group, text, start] = ["verdict", "group", "text", "start"].map((key) => fields.get(key) || "");
  const [at, setAt] = useState(0);
  const { content, error } = useLoad(api(run, "completions", { file, verdict, group, text, start }));
  const walk = (by) => {
    const rows = content ? content.rows : [];
    const next = Math.min(rows.length - 1, Math.max(0, at + by));
    if (!rows[next]) return;
    setAt(next);
    document.getElementById("c" + rows[next].place).scrollIntoView({ block: "start" });
  };
  const pin = () => { if (content && content.rows[at]) togglePin(run, file, content.rows[at].place); };
  useKeys({ j: () => walk(1), k: () => walk(-1), p: pin });
  useEffect(() => setAt(0), [file, verdict, text, start]);
  if (error) return html`<${Failure} error=${error} />`;
  if (!content) return html`<p class="wait">Loading …</p>`;
  return html`<p class="dim count" role="status">${content.matching.toLocaleString("en")} of ${content.total.toLocaleString("en")} completions; ${content.right.toLocaleString("en")} right
      ${content.broken > 0 && `; ${content.broken} lines cannot be read`}</p>
    ${content.rows.map((row, n) => html`<${Completion} key=${file + row.place} run=${run} file=${file} row=${row} kinds=${kinds} chosen=${n === at} />`)}
    <${Pager} start=${content.start} page=${content.page} total=${content.matching} move=${(to) => { set({ start: to }); scrollTo(0, 0); }} />`;
}

export function Rollouts({ run, fields, kinds }) {
  const { content: files, error } = useLoad(api(run, "files"), 10_000, useNews(run));
  const [follow, setFollow] = useState(false);
  const [typed, setTyped] = useState(fields.get("text") || "");
  const set = (change) => {
    const all = { ...Object.fromEntries(fields), ...change };
    replaceAddress(["run", run, "rollouts"], all);
  };
  const newest = files && files.step.length ? stepFile(files.step[files.step.length - 1]) : files && (files.tests[0] || "");
  const file = (follow ? newest : fields.get("file") || newest) || "";
  const view = fields.get("view") || (fields.get("verdict") || fields.get("text") ? "list" : "groups");
  useKeys({ g: () => set({ view: view === "groups" ? "list" : "groups", start: "" }) });
  useEffect(() => {
    const wait = setTimeout(() => { if (typed !== (fields.get("text") || "")) set({ text: typed, view: "list", start: "" }); }, 200);
    return () => clearTimeout(wait);
  }, [typed]);
  if (error && !files) return html`<${Failure} error=${error} />`;
  if (!files) return html`<p class="wait">Loading …</p>`;
  if (!file) return html`<section class="empty"><h1>No completions yet</h1><p>They appear with the first step.</p></section>`;
  const open = (name) => { setFollow(false); set({ file: name, start: "", group: "", place: "" }); };
  return html`<section>
    <${Files} files=${files} file=${file} open=${open} follow=${follow} setFollow=${setFollow} />
    <div class="bar"><${Choice} label="view" value=${view} options=${VIEWS} set=${(v) => set({ view: v, start: "", group: "" })} />
      <${Choice} label="verdict" value=${fields.get("verdict") || ""} options=${VERDICTS} set=${(v) => set({ verdict: v, view: "list", start: "" })} />
      <input type="search" aria-label="text to find" placeholder="text to find" value=${typed} onInput=${(e) => setTyped(e.target.value)} />
      <span class="dim keys"><kbd>h</kbd> <kbd>l</kbd> step · <kbd>j</kbd> <kbd>k</kbd> completion · <kbd>p</kbd> pin · <kbd>g</kbd> view</span></div>
    <${Legend} kinds=${kinds} />
    ${view === "groups" ? html`<${Groups} key=${file} run=${run} file=${file} fields=${fields} set=${set} kinds=${kinds} />`
    : html`<${List} run=${run} file=${file} fields=${fields} set=${set} kinds=${kinds} />`}</section>`;
}
