"""What a run noticed, what is damaged and what was not measured, in a real browser."""

import json

import pytest

from aha.core.findings import fail, warn
from aha.store.run_folder import Run

from .browser import CHROMIUM, NO_CHROMIUM
from .conftest import make_run, metrics, row, write_rows

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)
EVIL = "<img src=x onerror=window.hacked=1>\u202eabc\x1b[31m"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("findings") / "runs"
    run = make_run(root / "faulty")
    (run / "summary.json").unlink()
    Run(run).tell(2, warn(EVIL, "mend `grade`"))
    make_run(root / "good")
    return root


def test_a_finding_appears_by_itself_as_text_alone(visit, runs):
    page = visit.go("#/run/faulty")
    page.locator(".findings .note", has_text="Fix: mend `grade`").wait_for()
    Run(runs / "faulty").tell(9, fail("the gradient is no number", "--optim.lr 1e-4"))
    page.locator(".findings .failure", has_text="step 9").wait_for()
    page.locator(".status", has_text="stopped").wait_for()
    text = page.locator(".findings").inner_text()
    assert text.index("✗ fault") < text.index("! warning"), "the newest comes first"
    assert "<img src=x" in text and "\u202e" not in text and "\x1b" not in text
    assert page.evaluate("() => window.hacked") is None
    visit.go("#/")
    page.locator("tr", has_text="faulty").locator("small", has_text="1 fault").wait_for()


def test_what_was_not_measured_is_a_gap_and_a_dash(visit, runs):
    rows = [metrics(step, entropy=None if step % 2 else 0.5) for step in range(6, 10)]
    write_rows(runs / "good" / "metrics.jsonl", rows)
    page = visit.go("#/run/good")
    readout = page.locator(".chart", has_text="Entropy").locator(".readout b")
    readout.wait_for()
    assert readout.inner_text() == "–"
    for path in ("#/compare?run=good&run=faulty", "#/compare?run=faulty&run=good"):
        visit.go(path)
        page.locator(".chart", has_text="Entropy").locator("canvas").wait_for()


def test_a_damaged_run_is_shown_with_its_reasons(visit, runs):
    run = make_run(runs / "damaged")
    (run / "config.json").write_text("{half")
    with (run / "metrics.jsonl").open("a") as out:
        out.write("nonsense\n")
    odd = {key: [{}] for key in row(0, True)} | {"id": "x", "tokens": "many", "correct": "yes"}
    with (run / "completions" / "after.jsonl").open("a") as out:
        out.write("nonsense\n" + json.dumps(odd) + "\n")
    page = visit.go("#/")
    page.locator("tr", has_text="damaged: config.json is damaged").wait_for()
    visit.go("#/run/damaged")
    page.locator(".note", has_text="metrics.jsonl: damaged lines: 1 no JSON").wait_for()
    page.locator(".gain").wait_for()
    visit.go("#/run/damaged/rollouts?file=after&view=list&verdict=wrong")
    page.locator(".note", has_text="damaged lines: 1 no JSON").wait_for()
    page.locator(".completion .note", has_text="damaged row").wait_for()
    visit.go("#/run/damaged/rollouts?file=after")
    page.locator(".note", has_text="1 rows with values of a wrong type").wait_for()
    visit.go("#/run/damaged/history")
    page.locator(".note", has_text="damaged lines: 1 no JSON").wait_for()


def test_numbers_of_any_size_leave_the_list_readable(visit, runs):
    run = make_run(runs / "wild")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"steps": 10**18, "usd_per_hour": 1e90}))
    (run / "summary.json").unlink()
    wild = metrics(10**17) | dict.fromkeys(("solve_rate", "elapsed_s", "tokens_per_s"), 1e99)
    write_rows(run / "metrics.jsonl", [metrics(1), wild])
    page = visit.go("#/")
    page.locator("tr", has_text="wild").locator("td", has_text="1.0e+17 / 1.0e+18").wait_for()
    assert page.evaluate("() => document.querySelector('table').scrollWidth <= innerWidth")
    visit.go("#/run/wild").locator(".tile", has_text="speed").wait_for()
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
