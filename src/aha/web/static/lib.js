// What every page shares: the framework, addresses, loading, numbers as words.

import {
  html, render, useState, useEffect, useRef, useMemo, useCallback,
} from "/static/vendor/htm-preact-standalone.module.js";

export { html, render, useState, useEffect, useRef, useMemo, useCallback };

// -- addresses: #/run/NAME/rollouts?file=step_000010 -----------------------------------------

export function readAddress() {
  const [path, fields] = location.hash.replace(/^#/, "").split("?");
  const parts = path.split("/").filter(Boolean).map(decode);
  return { parts, fields: new URLSearchParams(fields || "") };
}

function decode(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}

export function address(parts, fields = {}) {
  const kept = new URLSearchParams();
  for (const [key, value] of Object.entries(fields)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== "" && one !== null && one !== undefined) kept.append(key, one);
    }
  }
  const tail = kept.toString();
  return "#/" + parts.map(encodeURIComponent).join("/") + (tail ? "?" + tail : "");
}

export function go(parts, fields) { location.hash = address(parts, fields); }

// A filter that changes with every key must not fill the history.
export function replaceAddress(parts, fields) {
  history.replaceState(null, "", address(parts, fields));
  dispatchEvent(new HashChangeEvent("hashchange"));
}

export function useAddress() {
  const [now, set] = useState(readAddress);
  useEffect(() => {
    const changed = () => set(readAddress());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return now;
}

// -- loading ---------------------------------------------------------------------------------

export function api(run, what = "", fields = {}) {
  const path = run === null ? "/api" : "/api/runs/" + encodeURIComponent(run);
  const tail = new URLSearchParams();
  for (const [key, value] of Object.entries(fields)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== "" && one !== null && one !== undefined) tail.append(key, one);
    }
  }
  return path + (what ? "/" + what : "") + (tail.size ? "?" + tail : "");
}

export async function load(url) {
  const answer = await fetch(url);
  const type = answer.headers.get("content-type") || "";
  if (!type.includes("json")) throw new Error((await answer.text()).slice(0, 300));
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error || `the server said ${answer.status}`);
  return content;
}

// {content, error}; the old content stays on the screen until the new one is there. Asks again
// every so many milliseconds, and whenever `news` is another.
export function useLoad(url, every = 0, news = 0) {
  const [state, set] = useState({});
  useEffect(() => {
    if (!url) return undefined;
    let gone = false;
    let timer = 0;
    const once = async () => {
      try {
        const content = await load(url);
        if (!gone) set({ content, url });
      } catch (error) {
        if (!gone) set((old) => ({ content: every ? old.content : undefined, error: error.message, url }));
      }
      if (every && !gone) timer = setTimeout(once, every);
    };
    once();
    return () => { gone = true; clearTimeout(timer); };
  }, [url, every, news]);
  return state;
}

// Counts up with every row that the run writes from now on, so that whoever watches it asks anew.
export function useNews(run) {
  const [count, set] = useState(0);
  useEffect(() => {
    const source = new EventSource(api(run, "news", { place: "end" }));
    const more = () => set((n) => n + 1);
    source.addEventListener("rows", more);
    source.onopen = more; // what was written before it was open
    return () => source.close();
  }, [run]);
  return count;
}

// -- words -----------------------------------------------------------------------------------

export const percent = (x, digits = 1) => (x === null || x === undefined ? "–" : (100 * x).toFixed(digits) + " %");
export const fixed = (x, digits = 2) => (x === null || x === undefined ? "–" : x.toFixed(digits));
export const signed = (x, digits = 2) => (x === null || x === undefined ? "–" : (x > 0 ? "+" : x < 0 ? "−" : "±") + Math.abs(x).toFixed(digits));

export function short(x) {
  if (x === null || x === undefined) return "–";
  const size = Math.abs(x);
  if (size >= 1e6) return (x / 1e6).toFixed(1) + " M";
  if (size >= 1e4) return (x / 1e3).toFixed(0) + " k";
  if (size >= 100) return x.toFixed(0);
  if (size >= 1) return x.toFixed(2).replace(/\.?0+$/, "");
  if (size === 0) return "0";
  return size >= 0.001 ? String(Number(x.toPrecision(3))) : x.toExponential(1);
}

export function clock(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const s = Math.round(seconds);
  if (s >= 3600) return `${Math.floor(s / 3600)} h ${String(Math.floor(s / 60) % 60).padStart(2, "0")} min`;
  return `${Math.floor(s / 60)}:${String(s % 60).padStart(2, "0")}`;
}

export function money(usd) {
  if (usd === null || usd === undefined) return "–";
  return usd >= 0.995 ? "$" + usd.toFixed(2) : (100 * usd).toFixed(2) + " ¢";
}

export function ago(unix) {
  const s = Math.max(0, Date.now() / 1000 - unix);
  if (s < 90) return "just now";
  if (s < 5400) return Math.round(s / 60) + " min ago";
  if (s < 129600) return Math.round(s / 3600) + " h ago";
  return Math.round(s / 86400) + " days ago";
}

export const puzzleText = (p, otherwise = "") => (p ? `${p.numbers.join(" ")} → ${p.target}` : otherwise.split("\n")[0].slice(0, 60));

export function fileLabel(name) {
  if (name === "before" || name === "after") return name + " training";
  return name.replace(/^step_0*/, "step ").replace(/^eval_0*/, "evaluation at step ");
}

export const stepFile = (step) => "step_" + String(step).padStart(6, "0");

// -- small pieces ----------------------------------------------------------------------------

export const Failure = ({ error }) => error && html`<p class="failure" role="alert">${error}</p>`;

export const Status = ({ status }) => {
  const sign = { done: "✓", running: "●", quiet: "◌" }[status] || "?";
  return html`<span class=${"status " + status}>${sign} ${status}</span>`;
};

export function Choice({ label, value, options, set }) {
  return html`<fieldset class="choice"><legend>${label}</legend>
    ${options.map(([key, text]) => html`<button type="button" key=${key} aria-pressed=${key === value}
      onClick=${() => set(key)}>${text}</button>`)}</fieldset>`;
}

export function Pager({ start, page, total, move }) {
  if (total <= page) return null;
  const last = Math.min(start + page, total);
  return html`<nav class="pager" aria-label="pages">
    <button type="button" disabled=${start === 0} onClick=${() => move(Math.max(0, start - page))}>← earlier</button>
    <span>${start + 1}–${last} of ${total.toLocaleString("en")}</span>
    <button type="button" disabled=${last >= total} onClick=${() => move(start + page)}>later →</button></nav>`;
}

// Keys for a whole page, silent while someone types. What they do is that of the last drawing, at once:
// an effect would come a moment later, and of two quick presses the second would start where the first did.
export function useKeys(keys) {
  const now = useRef(keys);
  now.current = keys;
  useEffect(() => {
    const pressed = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (/^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) && event.target.type !== "range") return;
      const act = now.current[event.key];
      if (act) { event.preventDefault(); act(); }
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, []);
}
