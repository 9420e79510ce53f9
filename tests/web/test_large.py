"""A run of 10,000 steps and 200,000 completions in a real browser: first paint, and live.

Each time is the best of three. A slow or busy machine is not a slow page: limits are stretched by
as much as a loop of Python takes longer just then than it usually does.
"""

import json
import time
from itertools import count

import pytest

from .browser import CHROMIUM, NO_CHROMIUM, Served
from .conftest import make_run, metrics, row, write_rows

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)
STEPS, EACH = 10_000, 20
# Milliseconds from the start of the visit until what people came for has been painted.
PAINTED = """(wanted) => new Promise((done) => {
  const look = () => (document.querySelector(wanted)
    ? requestAnimationFrame(() => setTimeout(() => done(performance.now())))
    : requestAnimationFrame(look));
  look(); })"""
# The time at which a text appears in the page.
APPEARS = """([where, text]) => { window.seen = new Promise((done) => {
  const look = () => (document.querySelector(where)?.innerText.includes(text)
    ? done(Date.now()) : requestAnimationFrame(look));
  look(); }); }"""


# Seconds of `sum(range(1_000))` on the processors that the limits are meant for: an assumption, not
# a measurement. One that takes twice as long, because it is slow or because others use it, has
# twice the time, so on such a machine this does not show that a page is there within a second.
USUAL = 12e-6


def slowdown() -> float:
    """How many times slower than usual this machine is for a process, from 1 up."""
    began = time.perf_counter()
    for rounds in count(1):
        sum(range(1_000))
        if (took := time.perf_counter() - began) > 0.05:
            return max(1.0, took / rounds / USUAL)


def best_of_three(once) -> float:
    """Seconds by the limit's measure, until one is below it."""
    found = []
    while len(found) < 3 and min(found, default=1.0) >= 1.0:
        before = slowdown()
        seconds = once()
        found.append(seconds / max(before, slowdown()))
        print(f" {seconds:.2f} s, as usual {found[-1]:.2f} s", end=";")
    return min(found)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("large") / "runs" / "large", steps=0)
    (run / "summary.json").unlink()
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"steps": 2 * STEPS}))
    write_rows(run / "metrics.jsonl", [measured(step) for step in range(1, STEPS + 1)])
    rows = [row(n // 4, n % 4 == 0, group=n // 4, advantage=0.5) for n in range(EACH)]
    content = "".join(json.dumps(one) + "\n" for one in rows)
    for step in range(1, STEPS + 1):
        (run / "completions" / f"step_{step:06d}.jsonl").write_text(content, encoding="utf-8")
    return run


def measured(step: int) -> dict:
    """A row with as many columns as a real one."""
    return metrics(step, **{f"number_{n}": step * 0.1234567 + n for n in range(20)})


def visit(chromium, run, path: str, wanted: str) -> float:
    """One visit to a server that has just started; seconds until `wanted` is painted."""
    served = Served(run.parent)
    context = chromium.new_context(viewport={"width": 1200, "height": 900})
    try:
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.goto(f"{served.url}/{path}", wait_until="commit")
        return page.evaluate(PAINTED, wanted) / 1000
    finally:
        context.close()
        served.stop()


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("#/", "table.runs tbody tr"),
        ("#/run/large", ".chart canvas"),
        ("#/run/large/rollouts", ".group .cell"),
        ("#/run/large/history", ".group .cell"),
    ],
)
def test_first_paint(chromium, run, path, wanted):
    print(f"\n{path}:", end="")
    seconds = best_of_three(lambda: visit(chromium, run, path, wanted))
    assert seconds < 1.0, f"{path}: painted after {seconds:.2f} s"


@pytest.mark.parametrize(
    ("path", "ready", "where", "text"),
    [
        ("#/run/large", ".chart canvas", ".tiles", "{} / 20000"),
        ("#/run/large/rollouts", ".group .cell", ".step-choice", "step {}"),
    ],
)
def test_a_new_step_is_there_within_a_second(chromium, run, path, ready, where, text):
    served = Served(run.parent)
    context = chromium.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    page.set_default_timeout(30_000)
    page.goto(f"{served.url}/{path}")
    page.locator(ready).first.wait_for()

    def once() -> float:
        page.wait_for_timeout(1_500)
        step = 1 + len((run / "metrics.jsonl").read_text().splitlines())
        page.evaluate(APPEARS, [where, text.format(step)])
        # As the training writes them: completions first.
        write_rows(run / "completions" / f"step_{step:06d}.jsonl", [row(0, True, group=0)])
        written = time.time()
        write_rows(run / "metrics.jsonl", [measured(step)])
        return page.evaluate("() => window.seen") / 1000 - written

    print(f"\n{path}:", end="")
    seconds = best_of_three(once)
    context.close()
    served.stop()
    assert seconds < 1.0, f"{path}: seen after {seconds:.2f} s"
