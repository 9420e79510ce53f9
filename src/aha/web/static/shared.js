// Shared by all pages: the framework, addresses, loading, numbers as text, small components.

import { html, useState, useEffect, useRef } from "./vendor/htm-preact-standalone.module.js";

export * from "./vendor/htm-preact-standalone.module.js";

// -- addresses: #/run/NAME/rollouts?file=step_000010 --

function readAddress() {
  const [path, fields] = location.hash.replace(/^#/, "").split("?");
  const parts = path.split("/").filter(Boolean).map(decode);
  return { parts, fields: new URLSearchParams(fields || "") };
}

function decode(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}

export function address(parts, fields = {}) {
  return "#/" + parts.map(encodeURIComponent).join("/") + queryOf(fields);
}

// "?key=value&..." of all fields that have a value; a list becomes a key for each item.
function queryOf(fields) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(fields)) {
    for (const item of Array.isArray(value) ? value : [value]) {
      if (item !== "" && item != null) query.append(key, item);
    }
  }
  return query.size ? "?" + query : "";
}

export function openPage(parts, fields) { location.hash = address(parts, fields); }

// Without an entry in the browser's history: a filter changes with every key press.
export function replaceAddress(parts, fields) {
  history.replaceState(null, "", address(parts, fields));
  dispatchEvent(new HashChangeEvent("hashchange"));
}

export function useAddress() {
  const [current, setCurrent] = useState(readAddress);
  useEffect(() => {
    const changed = () => setCurrent(readAddress());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return current;
}

// -- loading --

// The address of an endpoint; run null stands for those of all runs.
export function api(run, endpoint = "", fields = {}) {
  const path = run === null ? "/api" : "/api/runs/" + encodeURIComponent(run);
  return path + (endpoint ? "/" + endpoint : "") + queryOf(fields);
}

// The JSON of an address; throws an Error with the server's message.
export async function load(url) {
  const response = await fetch(url);
  const type = response.headers.get("content-type") || "";
  if (!type.includes("json")) throw new Error((await response.text()).slice(0, 300));
  const content = await response.json();
  if (!response.ok) throw new Error(content.error || `the server answered ${response.status}`);
  return content;
}

// {content, error, url}; the old content stays on the screen until the new one has arrived. Loads
// again every `intervalMs` milliseconds (0: once), and whenever `version` changes.
export function useLoad(url, intervalMs = 0, version = 0) {
  const [state, setState] = useState({});
  useEffect(() => {
    if (!url) return undefined;
    let unmounted = false;
    let timer = 0;
    const loadOnce = async () => {
      try {
        const content = await load(url);
        if (!unmounted) setState({ content, url });
      } catch (error) {
        if (!unmounted) setState((old) => ({ content: intervalMs ? old.content : undefined, error: error.message, url }));
      }
      if (intervalMs && !unmounted) timer = setTimeout(loadOnce, intervalMs);
    };
    loadOnce();
    return () => { unmounted = true; clearTimeout(timer); };
  }, [url, intervalMs, version]);
  return state;
}

// A number that grows whenever the run writes a row: the `version` of a `useLoad`.
export function useRunVersion(run) {
  const [version, setVersion] = useState(0);
  useEffect(() => {
    const source = new EventSource(api(run, "events", { offsets: "end" }));
    const increase = () => setVersion((n) => n + 1);
    source.addEventListener("rows", increase);
    source.onopen = increase; // rows that were written before the stream was open
    return () => source.close();
  }, [run]);
  return version;
}

// -- numbers as text --

// A damaged run may hold any number.
const decimal = (x, digits) => (Math.abs(x) < 1e9 ? x.toFixed(digits) : x.toExponential(1));
export const percent = (x, digits = 1) => (x == null ? "–" : decimal(100 * x, digits) + " %");
export const grouped = (n) => n.toLocaleString("en"); // 12,345
export const fixed = (x, digits = 2) => (x == null ? "–" : decimal(x, digits));
export const signed = (x, digits = 2) => (x == null ? "–" : (x > 0 ? "+" : x < 0 ? "−" : "±") + decimal(Math.abs(x), digits));
export const progress = (step, steps) => fixed(step, 0) + (steps ? " / " + fixed(steps, 0) : "");

export function short(x) {
  if (x == null) return "–";
  const size = Math.abs(x);
  if (size >= 1e6) return fixed(x / 1e6, 1) + " M";
  if (size >= 1e4) return (x / 1e3).toFixed(0) + " k";
  if (size >= 100) return x.toFixed(0);
  if (size >= 1) return x.toFixed(2).replace(/\.?0+$/, "");
  if (size === 0) return "0";
  return size >= 0.001 ? String(Number(x.toPrecision(3))) : x.toExponential(1);
}

export function duration(seconds) {
  if (seconds == null) return "–";
  const s = Math.round(seconds);
  if (s >= 3600) return `${fixed(Math.floor(s / 3600), 0)} h ${String(Math.floor(s / 60) % 60).padStart(2, "0")} min`;
  return `${Math.floor(s / 60)}:${String(s % 60).padStart(2, "0")}`;
}

export function money(usd) {
  if (usd == null) return "–";
  return usd >= 0.995 ? "$" + fixed(usd) : fixed(100 * usd) + " ¢";
}

export function timeAgo(unix) {
  const s = Math.max(0, Date.now() / 1000 - unix);
  if (s < 90) return "just now";
  if (s < 5400) return Math.round(s / 60) + " min ago";
  if (s < 129600) return Math.round(s / 3600) + " h ago";
  return Math.round(s / 86400) + " days ago";
}

export const puzzleText = (puzzle, prompt = "") => (puzzle ? `${puzzle.numbers.join(" ")} → ${puzzle.target}` : prompt.split("\n")[0].slice(0, 60));

export function fileLabel(name) {
  if (name === "before" || name === "after") return name + " training";
  return name.replace(/^step_0*/, "step ").replace(/^eval_0*/, "evaluation at step ");
}

export const stepFile = (step) => "step_" + String(step).padStart(6, "0");
export const evalFile = (step) => "eval_" + String(step).padStart(6, "0");

// A name of a folder may hold characters that cannot be seen, or that turn a line around.
export const visible = (text) => text.replace(/[\p{Cc}\p{Cf}\p{Cs}]/gu, "\ufffd");

// -- components --

export const loading = () => html`<p class="loading">Loading …</p>`;

export const Notes = ({ notes }) => notes.map((note) => html`<p class="note" key=${note}>${note}</p>`);

export const failure = (error) => error && html`<p class="failure" role="alert">${error}</p>`;

export const Status = ({ status }) => {
  const sign = { done: "✓", running: "●", quiet: "◌", stopped: "✗", interrupted: "‖" }[status] || "?";
  return html`<span class=${"status " + status}>${sign} ${status}</span>`;
};

// One of a few options, as buttons; options: [[key, text], ...].
export function Choice({ label, value, options, choose }) {
  return html`<fieldset class="choice"><legend>${label}</legend>
    ${options.map(([key, text]) => html`<button key=${key} aria-pressed=${key === value}
      onClick=${() => choose(key)}>${text}</button>`)}</fieldset>`;
}

export function Pager({ start, page, total, move }) {
  if (total <= page) return null;
  const last = Math.min(start + page, total);
  return html`<nav class="pager" aria-label="pages">
    <button disabled=${start === 0} onClick=${() => move(Math.max(0, start - page))}>← earlier</button>
    <span>${start + 1}–${last} of ${grouped(total)}</span>
    <button disabled=${last >= total} onClick=${() => move(start + page)}>later →</button></nav>`;
}

// Keyboard shortcuts of a page, {key: action}; ignored while someone types in a field. The actions are
// replaced while drawing, not in an effect: an effect runs later, and the second of two quick presses
// would act on the state before the first.
export function useKeys(actions) {
  const latest = useRef(actions);
  latest.current = actions;
  useEffect(() => {
    const pressed = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (/^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) && event.target.type !== "range") return;
      const action = latest.current[event.key];
      if (action) { event.preventDefault(); action(); }
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, []);
}
