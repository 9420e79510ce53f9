// A typed puzzle, answered by the base model and the trained model side by side.

import { html, useState, useEffect, api, load, useLoad, failure } from "./shared.js";
import { Completion, Legend } from "./completion.js";

const SIDES = [["before", "before training"], ["after", "after training"]];
const LIMITS = { temperature: 10, seed: 999999999, max_new_tokens: 4096 };

// Calls `onEvent` with each JSON line as it arrives.
async function readEvents(url, signal, onEvent) {
  const response = await fetch(url, { signal, headers: { "x-aha": "chat" } });
  if (!response.ok) throw new Error((await response.text()).slice(0, 300));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) onEvent(JSON.parse(line));
  }
}

// One side's answer to `request` ({fields} or {stopped: true}); a new request ends the answer before.
function useAnswer(run, side, request) {
  const [state, setState] = useState({ text: "" });
  useEffect(() => {
    if (!request || request.stopped) { setState((old) => ({ ...old, busy: false })); return undefined; }
    const controller = new AbortController();
    setState({ text: "", busy: true });
    const add = (event) => !controller.signal.aborted && setState((old) => ({ ...old, ...event, text: old.text + (event.text || "") }));
    readEvents(api(run, "chat", { ...request.fields, side }), controller.signal, add)
      .catch((error) => add({ error: error.message }))
      .finally(() => add({ busy: false }));
    return () => controller.abort();
  }, [run, side, request]);
  return state;
}

function Side({ run, title, answer }) {
  const { text, row, error, origin, busy } = answer;
  const label = origin ? `${title}: ${origin}` : title;
  if (row && !error) return html`<${Completion} run=${run} file="" row=${row} label=${label} />`;
  return html`<article class="completion" aria-busy=${busy ? "true" : "false"}>
    <header><b>${label}</b>${busy && html`<span class="dim">${text ? "writing …" : origin ? "waiting …" : "opening the model …"}</span>`}</header>
    ${failure(error)}
    <pre class="text">${text}</pre>${!busy && text && html`<footer><span class="reason">stopped</span></footer>`}</article>`;
}

export function Chat({ run, list }) {
  const [numbers, setNumbers] = useState("47 30 3");
  const [target, setTarget] = useState("37");
  const [options, setOptions] = useState({ temperature: "1", seed: "0", max_new_tokens: null });
  const [request, setRequest] = useState(null);
  const [error, setError] = useState("");
  const { content } = useLoad(api(run));
  const answers = SIDES.map(([side]) => useAnswer(run, side, request));
  const busy = answers.some((answer) => answer.busy);
  // The token limit of the run's training, until another one is typed.
  const limit = content?.max_new_tokens;
  const chosen = { ...options, max_new_tokens: options.max_new_tokens ?? String(limit || 1024) };
  if (list && !list.chat) return html`<section class="empty"><h1>No model to ask</h1><p>This server shows runs only. <code>aha dash</code> can also answer puzzles.</p></section>`;
  const submit = (event) => { event.preventDefault(); setError(""); setRequest({ fields: { puzzle: `numbers ${numbers} target ${target}`, ...chosen } }); };
  const drawPuzzle = () => load(api(run, "puzzle")).then((drawn) => { setError(""); setNumbers(drawn.numbers.join(" ")); setTarget(String(drawn.target)); }).catch((caught) => setError(caught.message));
  const field = (key, title, step) => html`<label>${title} <input type="number" min=${key === "max_new_tokens" ? 1 : 0} max=${LIMITS[key]} step=${step} required
    value=${chosen[key]} onInput=${(e) => setOptions({ ...options, [key]: e.target.value })} /></label>`;
  const status = list?.runs.find((other) => other.name === run)?.status;
  return html`<section>
    <div class="bar"><h1>Ask both models</h1></div>
    <p class="lead dim">Make the target from the numbers, each used once. The same puzzle and seed go to the model before training and after it.</p>
    ${status && status !== "done" && html`<p class="note">${status === "running" ? "This run is still training" : "This run has not ended"}: the right side answers from its newest checkpoint.</p>`}
    <form class="question" onSubmit=${submit}>
      <label>numbers <input type="text" inputmode="numeric" required pattern="[0-9]+([ ,]+[0-9]+)+" title="two to six whole numbers" value=${numbers} onInput=${(e) => setNumbers(e.target.value)} /></label>
      <label>target <input type="number" min="1" max="999999999" required value=${target} onInput=${(e) => setTarget(e.target.value)} /></label>
      ${field("temperature", "temperature", "any")}${field("seed", "seed", "1")}${field("max_new_tokens", "token limit", "1")}
      <span><button class="strong" type="submit">Ask</button> <button type="button" disabled=${!busy} onClick=${() => setRequest({ stopped: true })}>Stop</button> <button type="button" onClick=${drawPuzzle}>A held-out puzzle</button></span>
    </form>
    ${failure(error)}
    <${Legend} />
    ${(request || answers.some((answer) => answer.text)) && html`<div class="side-by-side answers" aria-live="off">${SIDES.map(([side, title], n) => html`<${Side} key=${side} run=${run} title=${title} answer=${answers[n]} />`)}</div>`}
    <p class="unseen" role="status">${busy ? "answering" : answers.every((answer) => answer.row) ? `before: ${answers[0].row.reason}; after: ${answers[1].row.reason}` : ""}</p></section>`;
}
