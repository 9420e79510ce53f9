// Completions that a visitor has pinned to a run's report. They are stored in this browser: the
// dashboard never writes to a run folder.

import { html, useState, useEffect } from "./shared.js";

const CHANGED = "aha-pins"; // the event that tells the other components of this page
const storageKey = (run) => "aha.pins." + run;

function read(run) {
  try {
    const pins = JSON.parse(localStorage.getItem(storageKey(run)) || "[]");
    return Array.isArray(pins) ? pins.filter((pin) => typeof pin === "string").slice(0, 50) : [];
  } catch { return []; }
}

function write(run, pins) {
  try { localStorage.setItem(storageKey(run), JSON.stringify(pins)); } catch { /* private window without storage */ }
  dispatchEvent(new Event(CHANGED));
}

export function usePins(run) {
  const [pins, setPins] = useState(() => read(run));
  useEffect(() => {
    const changed = () => setPins(read(run));
    addEventListener(CHANGED, changed);
    addEventListener("storage", changed);
    return () => { removeEventListener(CHANGED, changed); removeEventListener("storage", changed); };
  }, [run]);
  return pins;
}

export function togglePin(run, file, place) {
  const pin = `${file}:${place}`;
  const pins = read(run);
  write(run, pins.includes(pin) ? pins.filter((other) => other !== pin) : [...pins, pin]);
}

export const clearPins = (run) => write(run, []);

export function PinButton({ run, file, place }) {
  const pinned = usePins(run).includes(`${file}:${place}`);
  return html`<button class="pin" aria-pressed=${pinned} title="key p: show it in the report"
    onClick=${() => togglePin(run, file, place)}>${pinned ? "★ pinned" : "☆ pin"}</button>`;
}
