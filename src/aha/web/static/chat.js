// Chat: a puzzle that you type, the base and the trained model side by side, streamed and judged.

import { html, useState, useEffect, api, load, fileLabel, Failure, useLoad } from "/static/lib.js";
import { Completion, Legend } from "/static/completion.js";

const SIDES = [["before", "before training"], ["after", "after training"]];
const MOST = { temperature: 10, seed: 999999999, max_new_tokens: 4096 };

// Calls `hear` with each line of JSON as it comes.
async function listen(url, signal, hear) {
  const answer = await fetch(url, { signal, headers: { "x-aha": "chat" } });
  if (!answer.ok) throw new Error((await answer.text()).slice(0, 300));
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) hear(JSON.parse(line));
  }
}

// One side's answer to a question; a new question or `stop` ends the one before.
function useAnswer(run, side, asked) {
  const [state, set] = useState({ text: "" });
  useEffect(() => {
    if (!asked || asked.stopped) { set((old) => ({ ...old, busy: false })); return undefined; }
    const gone = new AbortController();
    set({ text: "", busy: true });
    const add = (told) => !gone.signal.aborted && set((old) => ({ ...old, ...told, text: old.text + (told.text || "") }));
    listen(api(run, "chat", { ...asked.fields, side }), gone.signal, add)
      .catch((error) => add({ error: error.message }))
      .finally(() => add({ busy: false }));
    return () => gone.abort();
  }, [run, side, asked]);
  return state;
}

function Side({ run, title, answer, kinds }) {
  const { text, row, error, origin, busy } = answer;
  const label = origin ? `${title}: ${origin}` : title;
  if (row && !error) return html`<${Completion} run=${run} file="" row=${row} kinds=${kinds} label=${label} />`;
  return html`<article class="completion" aria-busy=${busy ? "true" : "false"}>
    <header><b>${label}</b>${busy && html`<span class="dim">${text ? "writing …" : origin ? "in line …" : "opening the model …"}</span>`}</header>
    <${Failure} error=${error} />
    <pre class="text">${text}</pre>${!busy && text && html`<footer><span class="reason">stopped</span></footer>`}</article>`;
}

// A held-out puzzle of the run, another one at each call.
async function heldOut(run) {
  const files = await load(api(run, "files"));
  const file = files.tests[0] || (files.eval.length && "eval_" + String(files.eval[0]).padStart(6, "0"));
  if (!file) throw new Error("this run has no held-out test yet");
  const { lines } = await load(api(run, "groups", { file }));
  const puzzles = lines.filter((line) => line.puzzle);
  if (!puzzles.length) throw new Error(`no puzzle in ${fileLabel(file)}`);
  const { numbers, target } = puzzles[Math.floor(Math.random() * puzzles.length)].puzzle;
  return [numbers.join(" "), String(target)];
}

export function Chat({ run, kinds, list }) {
  const [numbers, setNumbers] = useState("47 30 3");
  const [target, setTarget] = useState("37");
  const [how, setHow] = useState({ temperature: "1", seed: "0", max_new_tokens: null });
  const [asked, setAsked] = useState(null);
  const [error, setError] = useState("");
  const { content } = useLoad(api(run));
  const answers = SIDES.map(([side]) => useAnswer(run, side, asked));
  const busy = answers.some((answer) => answer.busy);
  useEffect(() => { setAsked(null); setError(""); }, [run]);
  // As long as in the run's training, until something else is typed.
  const usual = content && content.config && content.config.rollout && Number(content.config.rollout.max_new_tokens);
  const chosen = { ...how, max_new_tokens: how.max_new_tokens ?? String(usual || 1024) };
  if (list && !list.chat) return html`<section class="empty"><h1>Nobody to ask</h1><p>This server shows runs and has no model. <code>aha dash</code> has one.</p></section>`;
  const ask = (event) => { event.preventDefault(); setError(""); setAsked({ fields: { puzzle: `numbers ${numbers} target ${target}`, ...chosen } }); };
  const draw = () => heldOut(run).then(([some, one]) => { setError(""); setNumbers(some); setTarget(one); }).catch((fault) => setError(fault.message));
  const field = (key, title, step) => html`<label>${title} <input type="number" min=${key === "max_new_tokens" ? 1 : 0} max=${MOST[key]} step=${step} required
    value=${chosen[key]} onInput=${(e) => setHow({ ...how, [key]: e.target.value })} /></label>`;
  const card = list && list.runs.find((one) => one.name === run);
  const status = card && card.status;
  return html`<section>
    <div class="bar"><h1>Ask both</h1></div>
    <p class="lead dim">Make the target from the numbers, each used once. The same puzzle and seed go to the model before training and after it.</p>
    ${status && status !== "done" && html`<p class="note">${status === "running" ? "This run is still training" : "This run has not ended"}: the right side answers from its newest checkpoint.</p>`}
    <form class="ask" onSubmit=${ask}>
      <label>numbers <input type="text" inputmode="numeric" required pattern="[0-9]+([ ,]+[0-9]+)+" title="two to six whole numbers" value=${numbers} onInput=${(e) => setNumbers(e.target.value)} /></label>
      <label>target <input type="number" min="1" max="999999999" required value=${target} onInput=${(e) => setTarget(e.target.value)} /></label>
      ${field("temperature", "temperature", "any")}${field("seed", "seed", "1")}${field("max_new_tokens", "most tokens", "1")}
      <span><button class="strong" type="submit">Ask</button> <button type="button" disabled=${!busy} onClick=${() => setAsked({ stopped: true })}>Stop</button> <button type="button" onClick=${draw}>A held-out puzzle</button></span>
    </form>
    <${Failure} error=${error} />
    <${Legend} kinds=${kinds} />
    ${(asked || answers.some((answer) => answer.text)) && html`<div class="beside talk" aria-live="off">${SIDES.map(([side, title], n) => html`<${Side} key=${side} run=${run} title=${title} answer=${answers[n]} kinds=${kinds} />`)}</div>`}
    <p class="unseen" role="status">${busy ? "answering" : answers.every((answer) => answer.row) ? `before: ${answers[0].row.reason}; after: ${answers[1].row.reason}` : ""}</p></section>`;
}
