// A completion token by token. The bar below a token says the same as its colour.

import { html, useState, useRef, load, api, fixed, signed, percent, Choice, grouped, failure } from "./shared.js";

const BARS = [" ", "▂", "▄", "▆", "█"];
// In nats: probabilities of 95 %, 75 %, 37 % and 10 %.
const LEVEL_EDGES = [0.05, 0.29, 1, 2.3];

const Fragment = ({ children }) => children;
const levelOf = (nats) => LEVEL_EDGES.filter((edge) => nats >= edge).length;

// [CSS class, bar] of one token.
function appearance(measure, value, largest) {
  if (value == null) return ["", "?"];
  if (measure !== "advantages") {
    const level = levelOf(measure === "logprobs" ? -value : value);
    return ["heat level-" + level, BARS[level]];
  }
  if (value === 0) return ["", "·"];
  const level = Math.max(1, Math.ceil(4 * Math.abs(value) / largest));
  return [(value > 0 ? "positive level-" : "negative level-") + level, (value > 0 ? "▲" : "▼") + BARS[level]];
}

// A line break or a space alone would be invisible.
const visiblePiece = (piece) => (piece === "" ? "…" : piece.replace(/\n/g, "⏎").replace(/^ | $/g, "␣"));

// The number, text and values of token n, as short texts.
function description(tokens, n) {
  const value = (name) => (tokens[name] ? tokens[name][n] : null);
  const logprob = value("logprobs");
  return [
    `token ${n + 1} of ${tokens.pieces.length}: ${visiblePiece(tokens.pieces[n])}`,
    `log-prob ${fixed(logprob, 3)}${logprob === null ? "" : ` (${percent(Math.exp(logprob))})`}`,
    `entropy ${fixed(value("entropies"), 3)}`,
    `advantage ${signed(value("advantages"), 3)}`,
  ];
}

// `tokens` is the answer of the endpoint; `name` makes the ids unique in the page.
function Tokens({ tokens, name }) {
  const recorded = tokens.measures; // [[key, label, explanation], ...]
  const [chosen, setMeasure] = useState("logprobs");
  const [selected, setSelected] = useState(0);
  const box = useRef(null);
  const measure = tokens[chosen] || !recorded.length ? chosen : recorded[0][0];
  const largest = measure === "advantages" && tokens.advantages ? Math.max(...tokens.advantages.map(Math.abs), 1e-9) : 1;
  const onKeyDown = (event) => {
    const last = tokens.pieces.length - 1;
    const target = { ArrowLeft: selected - 1, ArrowRight: selected + 1, ArrowUp: selected - 10, ArrowDown: selected + 10, Home: 0, End: last }[event.key];
    if (target === undefined) return;
    event.preventDefault();
    const next = Math.min(last, Math.max(0, target));
    setSelected(next);
    box.current.querySelectorAll(".token")[next].scrollIntoView({ block: "nearest" });
  };
  return html`<div class="bar"><${Choice} label="show" value=${measure} options=${recorded} choose=${setMeasure} />
      <span class="dim">${recorded.find(([key]) => key === measure)?.[2]}</span></div>
    ${tokens.missing.map((note) => html`<p class="dim" key=${note}>Missing: ${note}.</p>`)}
    <div class="token-list" ref=${box} role="listbox" tabindex="0" onKeyDown=${onKeyDown} aria-activedescendant=${`${name}t${selected}`}
      aria-label="the tokens; arrow keys select one">${tokens.pieces.map((piece, n) => {
        const [style, bar] = appearance(measure, tokens[measure] ? tokens[measure][n] : null, largest);
        return html`<${Fragment} key=${n}><span id=${`${name}t${n}`} role="option" aria-selected=${n === selected} class=${"token " + style}
          aria-label=${description(tokens, n).join(", ")} title=${description(tokens, n).slice(1).join(", ")} onClick=${() => setSelected(n)}><b>${visiblePiece(piece)}</b><i aria-hidden="true">${bar}</i></span>
          ${piece.includes("\n") && html`<span class="line-break" role="presentation"></span>`}<//>`;
      })}</div>
    ${tokens.hidden > 0 && html`<p class="dim">${grouped(tokens.hidden)} more tokens are left out.</p>`}
    <p class="token-description" role="status">${description(tokens, selected).map((part, n) => html`<span key=${n}>${part}</span>`)}</p>`;
}

// Loaded when it is opened: most readers want the text alone.
export function TokenValues({ run, file, place, recorded }) {
  const [state, setState] = useState({});
  const onToggle = (event) => {
    if (!event.target.open || state.tokens) return;
    load(api(run, "tokens", { file, place })).then((tokens) => setState({ tokens })).catch((error) => setState({ error: error.message }));
  };
  return html`<details class="tokens" onToggle=${onToggle}><summary>Token by token${recorded ? "" : " (not recorded)"}</summary>
    ${failure(state.error)}
    ${state.tokens && (state.tokens.pieces.length ? html`<${Tokens} tokens=${state.tokens} name=${`${file}-${place}-`} />`
    : state.tokens.missing.map((note) => html`<p class="dim" key=${note}>${note}</p>`))}</details>`;
}
