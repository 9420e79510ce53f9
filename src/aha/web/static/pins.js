// Completions that a visitor has pinned to a run's report. They are kept in this browser: a run
// folder is never written to.

import { html, useState, useEffect } from "/static/lib.js";

const CHANGED = "aha-pins";
const keyOf = (run) => "aha.pins." + run;

function read(run) {
  try {
    const found = JSON.parse(localStorage.getItem(keyOf(run)) || "[]");
    return Array.isArray(found) ? found.filter((one) => typeof one === "string").slice(0, 50) : [];
  } catch { return []; }
}

function write(run, pins) {
  try { localStorage.setItem(keyOf(run), JSON.stringify(pins)); } catch { /* private window: lost with the page */ }
  dispatchEvent(new Event(CHANGED));
}

export function usePins(run) {
  const [pins, set] = useState(() => read(run));
  useEffect(() => {
    const changed = () => set(read(run));
    addEventListener(CHANGED, changed);
    addEventListener("storage", changed);
    return () => { removeEventListener(CHANGED, changed); removeEventListener("storage", changed); };
  }, [run]);
  return pins;
}

export function togglePin(run, file, place) {
  const pin = `${file}:${place}`;
  const pins = read(run);
  write(run, pins.includes(pin) ? pins.filter((one) => one !== pin) : [...pins, pin]);
}

export const clearPins = (run) => write(run, []);

export function Pin({ run, file, place }) {
  const on = usePins(run).includes(`${file}:${place}`);
  return html`<button type="button" class="pin" aria-pressed=${on} title="key p: show it in the report"
    onClick=${() => togglePin(run, file, place)}>${on ? "★ pinned" : "☆ pin"}</button>`;
}
