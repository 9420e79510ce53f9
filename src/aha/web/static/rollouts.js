// The completions of a step or a held-out test, by group or as a filtered list.

import {
  html, useState, useEffect, short, api, useLoad, replaceAddress, fileLabel, stepFile, puzzleText, signed, loading, Choice, Pager, useKeys, useRunVersion, failure, evalFile, grouped, Notes,
} from "./shared.js";
import { Completion, CompletionAt, Legend } from "./completion.js";
import { togglePin } from "./pins.js";

const VERDICTS = [["", "all"], ["right", "✓ right"], ["wrong", "✗ wrong"]];
const VIEWS = [["groups", "groups"], ["list", "list"]];
const ORDERS = [["", "as written"], ["best", "▲ advantage"], ["worst", "▼ advantage"]];

// How many completions have which reward. A bar, or all over which the pointer is drawn, filters the list;
// with the keyboard Enter, and with Shift up to there.
function Rewards({ bins, range, choose }) {
  const [drawn, setDrawn] = useState(null); // [first, last] bar while the button is down
  if (!bins || bins.length < 2) return null;
  const most = Math.max(...bins.map(([, , count]) => count));
  const [from, to] = drawn ? [bins[Math.min(...drawn)][0], bins[Math.max(...drawn)][1]] : range;
  const end = () => { setDrawn(null); if (drawn) choose([from, to]); };
  return html`<fieldset class="choice rewards" onPointerUp=${end} onPointerLeave=${end}><legend>reward</legend>${bins.map(([low, high, count], n) => {
    const name = `${count} with reward ${short(low)}${high > low ? " to " + short(high) : ""}`;
    return html`<button key=${low} aria-pressed=${low >= from && high <= to} aria-label=${name} title=${name} onPointerDown=${({ target: t, pointerId: p }) => { if (t.hasPointerCapture(p)) t.releasePointerCapture(p); setDrawn([n, n]); }}
      onPointerEnter=${() => drawn && setDrawn([drawn[0], n])} onClick=${(e) => e.detail || choose(e.shiftKey && range.length ? [Math.min(from, low), Math.max(to, high)] : [low, high])}>
      <i style=${{ height: `${count && 2 + 30 * count / most}px` }}></i>${short(low)}</button>`;
  })}${range.length > 0 && html`<button onClick=${() => choose([])}>all</button>`}</fieldset>`;
}

function Files({ files, file, open, follow, setFollow }) {
  const steps = files.step;
  const index = steps.indexOf(Number(file.match(/^step_(\d+)$/)?.[1])); // -1 for a test
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

function Groups({ run, file, fields, setFields, rewards }) {
  const start = Number(fields.get("start") || 0);
  const group = fields.get("group");
  const { content, error } = useLoad(api(run, "groups", { file, start }), file === "" ? 0 : 5000);
  if (error && !content) return failure(error);
  if (!content) return loading();
  if (!content.groups) return html`<p class="nothing">No completion in this file yet.</p>`;
  const single = content.lines.every((line) => line.cells.length === 1);
  return html`${rewards(content.rewards)}<${Notes} notes=${content.faults} /><div class=${single ? "groups single" : "groups"}>${content.lines.map((line) => {
    const right = line.cells.filter((cell) => cell[1]).length;
    const isOpen = group !== null && Number(group) === line.group;
    const choose = (place) => setFields({ group: isOpen && String(place) === fields.get("place") ? "" : line.group, place });
    return html`<div class=${isOpen ? "group open" : "group"} key=${line.group}>
      <div class="line"><b>${puzzleText(line.puzzle, line.prompt)}</b>
        ${!single && html`<span class="dim num">${right} of ${line.cells.length}</span>`}
        ${line.recorded && html`<span class="dim recorded" title="its completions were recorded token by token">▤ tokens</span>`}
        ${isOpen && !single && html`<button aria-pressed=${fields.get("beside") === "1"} onClick=${() => setFields({ beside: fields.get("beside") ? "" : 1 })}>side by side</button>`}
        <span class="cells">${line.cells.map((cell) => html`<${Cell} key=${cell[0]} cell=${cell} choose=${choose} chosen=${isOpen && fields.get("place") === String(cell[0])} />`)}</span></div>
      ${isOpen && (fields.get("beside") ? html`<${WholeGroup} run=${run} file=${file} group=${line.group} place=${fields.get("place")} />` : html`<${GroupCompletion} run=${run} file=${file} place=${fields.get("place") || line.cells[0][0]} cells=${line.cells} choose=${(place) => setFields({ place })} />`)}
    </div>`;
  })}</div>
  <${Pager} start=${start} page=${content.page} total=${content.groups} move=${(first) => setFields({ start: first, group: "", place: "" })} />`;
}

// The chosen completion of an open group; the keys j and k choose the next and the previous one.
function GroupCompletion({ run, file, place, cells, choose }) {
  const index = cells.findIndex((cell) => String(cell[0]) === String(place));
  const move = (by) => { const next = cells[index + by]; if (next) choose(next[0]); };
  useKeys({ j: () => move(1), k: () => move(-1), p: () => togglePin(run, file, place) });
  return html`<${CompletionAt} run=${run} file=${file} place=${place} />`;
}

// All completions of a group beside each other, the best first.
function WholeGroup({ run, file, group, place }) {
  const { content, error } = useLoad(api(run, "completions", { file, group, order: "best" }));
  if (error) return failure(error);
  if (!content) return loading();
  return html`<div class="side-by-side">${content.rows.map((row) => html`<${Completion} key=${row.place} run=${run} file=${file} row=${row} selected=${String(row.place) === place} />`)}</div>
    ${content.matching > content.rows.length && html`<p class="dim line">The first ${content.rows.length} of ${content.matching}.</p>`}`;
}

function List({ run, file, fields, setFields, rewards }) {
  const [verdict, group, text, start, order, low, high] = ["verdict", "group", "text", "start", "order", "low", "high"].map((key) => fields.get(key) || "");
  const [selected, setSelected] = useState(0);
  const { content, error } = useLoad(api(run, "completions", { file, verdict, group, text, start, order, low, high }));
  const move = (by) => {
    const rows = content ? content.rows : [];
    const next = Math.min(rows.length - 1, Math.max(0, selected + by));
    if (!rows[next]) return;
    setSelected(next);
    document.getElementById("c" + rows[next].place).scrollIntoView({ block: "start" });
  };
  const pin = () => { if (content?.rows[selected]) togglePin(run, file, content.rows[selected].place); };
  useKeys({ j: () => move(1), k: () => move(-1), p: pin });
  useEffect(() => setSelected(0), [file, verdict, text, start, order, low, high]);
  if (error) return failure(error);
  if (!content) return loading();
  return html`${rewards(content.rewards)}<p class="dim count" role="status">${grouped(content.matching)} of ${grouped(content.total)} completions; ${grouped(content.right)} right</p>
    <${Notes} notes=${content.faults} />
    ${content.rows.map((row, n) => html`<${Completion} key=${file + row.place} run=${run} file=${file} row=${row} selected=${n === selected} />`)}
    <${Pager} start=${content.start} page=${content.page} total=${content.matching} move=${(first) => { setFields({ start: first }); scrollTo(0, 0); }} />`;
}

export function Rollouts({ run, fields }) {
  const { content: files, error } = useLoad(api(run, "files"), 10_000, useRunVersion(run));
  const [follow, setFollow] = useState(false);
  const [typed, setTyped] = useState(fields.get("text") || "");
  const setFields = (changed) => replaceAddress(["run", run, "rollouts"], { ...Object.fromEntries(fields), ...changed });
  const newest = files?.step.length ? stepFile(files.step.at(-1)) : files?.tests[0];
  const file = (follow ? newest : fields.get("file") || newest) || "";
  const view = fields.get("view") || (["verdict", "text", "order", "low"].some((key) => fields.get(key)) ? "list" : "groups");
  useKeys({ g: () => setFields({ view: view === "groups" ? "list" : "groups", start: "" }) });
  useEffect(() => {
    // The list is not loaded again for every key press.
    const timer = setTimeout(() => { if (typed !== (fields.get("text") || "")) setFields({ text: typed, view: "list", start: "" }); }, 200);
    return () => clearTimeout(timer);
  }, [typed]);
  if (error && !files) return failure(error);
  if (!files) return loading();
  if (!file) return html`<section class="empty"><h1>No completions yet</h1><p>They appear with the first step.</p></section>`;
  const range = fields.has("low") ? [Number(fields.get("low")), Number(fields.get("high"))] : [];
  const rewards = (bins) => html`<${Rewards} bins=${bins} range=${range} choose=${([low = "", high = ""]) => setFields({ low, high, view: "list", start: "" })} />`;
  const shared = { run, file, fields, setFields, rewards };
  const open = (name) => { setFollow(false); setFields({ file: name, start: "", group: "", place: "" }); };
  return html`<section>
    <${Files} files=${files} file=${file} open=${open} follow=${follow} setFollow=${setFollow} />
    <div class="bar"><${Choice} label="view" value=${view} options=${VIEWS} choose=${(value) => setFields({ view: value, start: "", group: "" })} />
      ${[["verdict", VERDICTS], ["order", ORDERS]].map(([key, options]) => html`<${Choice} key=${key} label=${key} value=${fields.get(key) || ""} options=${options}
        choose=${(value) => setFields({ [key]: value, view: "list", start: "" })} />`)}
      <input type="search" aria-label="text to find" placeholder="text to find" value=${typed} onInput=${(e) => setTyped(e.target.value)} />
      <span class="dim keys"><kbd>h</kbd> <kbd>l</kbd> step · <kbd>j</kbd> <kbd>k</kbd> completion · <kbd>p</kbd> pin · <kbd>g</kbd> view</span></div>
    <${Legend} />
    ${view === "groups" ? html`<${Groups} key=${file} ...${shared} />` : html`<${List} ...${shared} />`}</section>`;
}
