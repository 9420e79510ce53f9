// The frame around every page, and the page of an address.

import { html, render, useAddress, useLoad, address, api, visible } from "./shared.js";
import { Runs } from "./runs.js";
import { Overview } from "./overview.js";
import { Rollouts } from "./rollouts.js";
import { ProblemHistory } from "./problem_history.js";
import { Compare } from "./compare.js";
import { Chat } from "./chat.js";
import { setKinds } from "./completion.js";
import { usePins, clearPins } from "./pins.js";

const TABS = [
  ["", "Overview"], ["rollouts", "Rollouts"], ["history", "Held-out problems"], ["chat", "Chat"], ["report", "Report"],
];

function Report({ run, list }) {
  const pins = usePins(run);
  const url = api(run, "report", { pin: pins });
  const command = [`aha report '${list?.folder}/${run}'`, ...pins.map((pin) => "--pin " + pin)].join(" ");
  return html`<section>
    <p class="lead"><a class="button" href=${api(run, "report", { pin: pins, save: 1 })} download>Save as one file</a>${" "}
      ${pins.length > 0 && html`<button onClick=${() => clearPins(run)}>Remove ${pins.length} pinned</button>${" "}`}
      <span class="dim">Opens without a network. The same as <code>${command}</code>. Pin completions on the page Rollouts.</span></p>
    <iframe class="report" title=${"Report of " + run} src=${url} sandbox=""></iframe></section>`;
}

const PAGES = { rollouts: Rollouts, history: ProblemHistory, chat: Chat, report: Report };

function Page({ parts: [place, run, page], fields, list }) {
  if (place === "run" && run) return html`<${PAGES[page] || Overview} key=${run} run=${run} fields=${fields} list=${list} />`;
  return html`<${place === "compare" ? Compare : Runs} fields=${fields} list=${list} />`;
}

function App() {
  const { parts, fields } = useAddress();
  const { content: list, error } = useLoad(api(null, "runs"), 3000);
  const run = parts[0] === "run" ? parts[1] : null;
  if (list) setKinds(list.kinds);
  document.title = run ? `${run} · aha` : "aha";
  return html`<a class="skip" href="#main" onClick=${(e) => { e.preventDefault(); document.getElementById("main").focus(); }}>Skip to the content</a>
    <header class="top">
      <a class="brand" href="#/">aha</a>
      <nav aria-label="all runs"><a href="#/" aria-current=${!parts.length ? "page" : null}>Runs</a>
        <a href="#/compare" aria-current=${parts[0] === "compare" ? "page" : null}>Compare</a></nav>
      ${run && html`<span class="current-run">${visible(run)}</span>`}
      ${run && html`<nav class="tabs" aria-label=${"pages of " + run}>${TABS.map(([key, name]) => html`
        <a key=${name} href=${address(key ? ["run", run, key] : ["run", run])}
          aria-current=${(parts[2] || "") === key ? "page" : null}>${name}</a>`)}</nav>`}
    </header>
    <main id="main" tabindex="-1">
      ${error && html`<p class="failure" role="alert">No answer from the server: ${error}. Is <code>aha dash</code> still running?</p>`}
      <${Page} parts=${parts} fields=${fields} list=${list} />
    </main>`;
}

render(html`<${App} />`, document.getElementById("app"));
const loading = document.querySelector("#app > .loading");
if (loading) loading.remove();
