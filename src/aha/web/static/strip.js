// A completion token by token. A bar under each token says what its colour says; arrow keys walk.

import { html, useState, useRef, load, api, fixed, signed, percent, Choice, Failure } from "/static/lib.js";

const MEASURES = [["logprobs", "log-prob"], ["entropies", "entropy"], ["advantages", "advantage"]];
const BARS = [" ", "▂", "▄", "▆", "█"];
// In nats: likelier than 95 %, 75 %, 37 %, 10 %, or not even that.
const EDGES = [0.05, 0.29, 1, 2.3];
const SAYS = {
  logprobs: "The taller and darker, the less likely the token was (nats below certainty).",
  entropies: "The taller and darker, the more open the choice was (nats).",
  advantages: "▲ made likelier, ▼ made less likely; the taller and darker, the more.",
};

const Fragment = ({ children }) => children;
const level = (nats) => EDGES.filter((edge) => nats >= edge).length;

// [class, sign] of one token.
function look(measure, value, most) {
  if (value === null || value === undefined) return ["unknown", "?"];
  if (measure !== "advantages") {
    const at = level(measure === "logprobs" ? -value : value);
    return ["heat h" + at, BARS[at]];
  }
  if (value === 0) return ["heat h0", "·"];
  const at = Math.max(1, Math.ceil(4 * Math.abs(value) / most));
  return [(value > 0 ? "up u" : "down u") + at, (value > 0 ? "▲" : "▼") + BARS[at]];
}

// A line break and a space must be seen to be chosen.
const shownPiece = (piece) => (piece === "" ? "…" : piece.replace(/\n/g, "⏎").replace(/^ | $/g, "␣"));

function sentence(strip, n) {
  const value = (name) => (strip[name] ? strip[name][n] : null);
  const logprob = value("logprobs");
  return [
    `token ${n + 1} of ${strip.pieces.length}: ${shownPiece(strip.pieces[n])}`,
    `log-prob ${fixed(logprob, 3)}${logprob === null ? "" : ` (${percent(Math.exp(logprob))})`}`,
    `entropy ${fixed(value("entropies"), 3)}`,
    `advantage ${signed(value("advantages"), 3)}`,
  ];
}

function Tokens({ strip, name }) {
  const known = MEASURES.filter(([key]) => strip[key]);
  const [wanted, setMeasure] = useState("logprobs");
  const [at, setAt] = useState(0);
  const box = useRef(null);
  const measure = strip[wanted] || !known.length ? wanted : known[0][0];
  const most = measure === "advantages" && strip.advantages ? Math.max(...strip.advantages.map(Math.abs), 1e-9) : 1;
  const walk = (event) => {
    const last = strip.pieces.length - 1;
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, ArrowUp: at - 10, ArrowDown: at + 10, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const next = Math.min(last, Math.max(0, to));
    setAt(next);
    box.current.querySelectorAll(".token")[next].scrollIntoView({ block: "nearest" });
  };
  return html`<div class="bar"><${Choice} label="show" value=${measure} options=${known} set=${setMeasure} />
      <span class="dim">${SAYS[measure]}</span></div>
    ${strip.missing.map((note) => html`<p class="dim" key=${note}>Missing: ${note}.</p>`)}
    <div class="strip" ref=${box} role="listbox" tabindex="0" onKeyDown=${walk} aria-activedescendant=${`${name}t${at}`}
      aria-label="the tokens; arrow keys walk through them">${strip.pieces.map((piece, n) => {
        const [colour, sign] = look(measure, strip[measure] ? strip[measure][n] : null, most);
        return html`<${Fragment} key=${n}><span id=${`${name}t${n}`} role="option" aria-selected=${n === at} class=${"token " + colour}
          aria-label=${sentence(strip, n).join(", ")} title=${sentence(strip, n).slice(1).join(", ")} onClick=${() => setAt(n)}><b>${shownPiece(piece)}</b><i aria-hidden="true">${sign}</i></span>
          ${piece.includes("\n") && html`<span class="break" role="presentation"></span>`}<//>`;
      })}</div>
    ${strip.hidden > 0 && html`<p class="dim">${strip.hidden.toLocaleString("en")} more tokens are left out.</p>`}
    <p class="said" role="status">${sentence(strip, at).map((part, n) => html`<span key=${n}>${part}</span>`)}</p>`;
}

// Loaded when it is opened: most readers want the text alone.
export function Strip({ run, file, place, recorded }) {
  const [state, set] = useState({});
  const opened = (event) => {
    if (!event.target.open || state.strip) return;
    load(api(run, "strip", { file, place })).then((strip) => set({ strip })).catch((error) => set({ error: error.message }));
  };
  return html`<details class="tokens" onToggle=${opened}><summary>Token by token${recorded ? "" : " (not recorded)"}</summary>
    <${Failure} error=${state.error} />
    ${state.strip && (state.strip.pieces.length ? html`<${Tokens} strip=${state.strip} name=${`${file}-${place}-`} />`
    : state.strip.missing.map((note) => html`<p class="dim" key=${note}>${note}</p>`))}</details>`;
}
