"""A run of 10,000 steps and 200,000 completions: what its pages read and send, and their seconds.

What keeps a page quick on a long run is that it reads little and sends little. That is counted, so
it is the same on every machine. The second in which a page must be there depends on the machine:
those tests are `bench`, to be run alone (`pytest -m bench -n 0 -s tests/web/test_large.py`).
"""

import asyncio
import json
import math
import os
import sys
import time
from typing import NamedTuple

import pytest
from starlette.requests import Request

from aha.web.curves import BehaviorCurves
from aha.web.dashboard import BEHAVIOR_POINTS, Dashboard
from aha.web.file_reader import dumps
from aha.web.runs import RunsFolder
from aha.web.server_events import run_events

from .browser import CHROMIUM, NO_CHROMIUM, Served, Visit
from .conftest import bytes_read, make_run, metrics, row, write_rows

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)
STEPS, EACH = 10_000, 20
FEW_STEPS = 1_000  # more than a curve has points
PAGES = (
    ("#/", "table.runs tbody tr"),
    ("#/run/large", ".chart canvas"),
    ("#/run/large/rollouts", ".group .cell"),
    ("#/run/large/history", ".group .cell"),
)
FOLLOWED = (
    ("#/run/large", ".chart canvas", ".tiles", "{} / 20000"),
    ("#/run/large/rollouts", ".group .cell", ".step-choice", "step {}"),
)


def make_long_run(path, steps: int):
    run = make_run(path, steps=0)
    (run / "summary.json").unlink()
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"steps": 2 * STEPS}))
    write_rows(run / "metrics.jsonl", [measured(step) for step in range(1, steps + 1)])
    rows = [row(n // 4, n % 4 == 0, group=n // 4, advantage=0.5) for n in range(EACH)]
    content = "".join(json.dumps(one) + "\n" for one in rows)
    for step in range(1, steps + 1):
        (run / "completions" / f"step_{step:06d}.jsonl").write_text(content, encoding="utf-8")
    return run


def measured(step: int) -> dict:
    """A row with as many columns as a real one."""
    return metrics(step, **{f"number_{n}": step * 0.1234567 + n for n in range(20)})


def write_next_step(run) -> int:
    """As the training writes a step: completions first."""
    step = 1 + len((run / "metrics.jsonl").read_text().splitlines())
    write_rows(run / "completions" / f"step_{step:06d}.jsonl", [row(0, True, group=0)])
    write_rows(run / "metrics.jsonl", [measured(step)])
    return step


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    runs = tmp_path_factory.mktemp("large") / "runs"
    make_long_run(runs / "few", FEW_STEPS)
    return make_long_run(runs / "large", STEPS)


# -- what the server reads and sends ---------------------------------------------------------------


class Work(NamedTuple):
    """What an answer took."""

    read: int  # bytes of files
    opened: list[str]  # files
    answer: bytes

    @property
    def sent(self) -> int:
        return len(self.answer)


OPENED: list[str] = []
sys.addaudithook(lambda event, found: OPENED.append(str(found[0])) if event == "open" else None)


def work_of(do) -> Work:
    """The work of a call that returns the answer."""
    if not bytes_read():
        pytest.skip("this system does not count the bytes that a process reads")
    OPENED.clear()
    before = bytes_read()
    answer = do()
    read = bytes_read() - before
    opened = [path for path in OPENED if os.path.isabs(path) and not path.startswith("/proc")]
    return Work(read, opened, answer)


def ask(dashboard: Dashboard, endpoint: str, name: str = "large", query: str = "") -> Work:
    scope = {"type": "http", "path_params": {"run": name}, "query_string": query.encode()}
    return work_of(lambda: getattr(dashboard, endpoint)(Request(scope)).body)


@pytest.fixture
def dashboard(run) -> Dashboard:
    """A new one, which has read nothing; what it imports late is imported."""
    pages = Dashboard(RunsFolder(run.parent))
    for endpoint in ("list_runs", "overview", "gain", "files", "history"):
        ask(pages, endpoint, "few")
    ask(pages, "groups", "few", "file=step_000001")
    return pages


def test_the_list_of_runs_reads_the_ends_and_forty_places(dashboard, run):
    work = ask(dashboard, "list_runs")
    assert work.read < 1_500_000 < (run / "metrics.jsonl").stat().st_size / 4
    assert work.sent < 5_000 and not [path for path in work.opened if "completions" in path]


def test_the_overview_reads_the_metrics_once_and_sends_a_part(dashboard, run):
    size = (run / "metrics.jsonl").stat().st_size
    few, first = (
        ask(Dashboard(RunsFolder(run.parent)), "overview", "few"),
        ask(dashboard, "overview"),
    )
    assert size < first.read < size + 1_000_000
    assert first.sent < 150_000 and first.sent < 1.5 * few.sent
    assert len(set(first.opened)) < 20
    again = ask(dashboard, "overview")
    assert again.read < 1_000_000 and again.sent == first.sent
    write_next_step(run)
    more = ask(dashboard, "overview")
    assert more.read < again.read + 10_000 and more.sent < 1.01 * first.sent


def test_behaviours_are_counted_in_few_steps(run):
    counts = BehaviorCurves(RunsFolder(run.parent).find("large"))
    work = work_of(lambda: dumps(counts.count(BEHAVIOR_POINTS, math.inf)))
    assert json.loads(work.answer)["waiting"] == 0 and work.sent < 30_000
    assert len(set(work.opened)) == BEHAVIOR_POINTS


def test_a_page_of_completions_opens_its_own_files(dashboard, run):
    name = "step_010000"
    groups = ask(dashboard, "groups", query=f"file={name}")
    assert {os.path.basename(path) for path in groups.opened} == {f"{name}.jsonl"}
    assert groups.read < 100_000 and groups.sent < 10_000
    history = ask(dashboard, "history")
    assert len(set(history.opened)) < 10 and history.read < 500_000 and history.sent < 20_000
    files = ask(dashboard, "files")  # a number for each step
    assert files.opened == [] and files.sent < 10 * STEPS


def test_a_new_step_is_sent_alone(run):
    async def follow() -> bytes:
        stream = run_events(RunsFolder(run.parent).find("large"), "end")
        while b"event: status" not in await anext(stream):
            pass
        OPENED.clear()
        write_next_step(run)
        return await anext(stream)

    work = work_of(lambda: asyncio.run(follow()))
    # To find out where the files end, and which step is the next, all of one is read (by the test).
    size = (run / "metrics.jsonl").stat().st_size
    assert work.sent < 3_000 and work.read < size + 500_000


def test_the_first_look_takes_a_time_in_proportion(run):
    """Ten times the rows, ten times as long; what is quadratic would take a hundred times."""

    def seconds(name: str) -> float:
        pages = Dashboard(RunsFolder(run.parent))
        began = time.thread_time()
        ask(pages, "overview", name)
        return time.thread_time() - began

    # By turns, so that a busy moment meets both.
    pairs = [(seconds("few"), seconds("large")) for _ in range(4)]
    few, large = (min(column) for column in zip(*pairs, strict=True))
    assert large < 4 * STEPS / FEW_STEPS * few, f"{few:.3f} s and {large:.3f} s"


# -- what the page asks for ------------------------------------------------------------------------


class Traffic(Visit):
    """A visit that counts what arrives, event streams too."""

    def __init__(self, context, url: str):
        super().__init__(context.new_page(), url)
        self._received: dict[str, int] = {}  # bytes by request
        self._address: dict[str, str] = {}
        network = context.new_cdp_session(self.page)
        network.send("Network.enable")
        network.on("Network.requestWillBeSent", self._begin)
        network.on("Network.dataReceived", self._count)

    def _begin(self, event: dict) -> None:
        self._address[event["requestId"]] = event["request"]["url"]

    def _count(self, event: dict) -> None:
        known = self._received.get(event["requestId"], 0)
        self._received[event["requestId"]] = known + event["dataLength"]

    @property
    def bytes(self) -> int:
        """All, less the behaviours: in how many parts they come depends on the machine."""
        return sum(
            size
            for request, size in self._received.items()
            if not self._address.get(request, "").endswith("/behaviors")
        )

    def api(self) -> list[str]:
        """The endpoints that were asked, each once."""
        return sorted({one.split("/api/")[1].split("?")[0] for one in self.asked if "/api/" in one})


@pytest.fixture(scope="module")
def large_url(run):
    served = Served(run.parent)
    yield served.url
    served.stop()


@pytest.fixture
def traffic(chromium, large_url):
    context = chromium.new_context(viewport={"width": 1200, "height": 900})
    visit = Traffic(context, large_url)
    yield visit
    context.close()
    visit.check()


ASKED = {
    "#/": ["runs"],
    "#/run/large": [
        "runs",
        *(f"runs/large{one}" for one in ("", "/behaviors", "/events", "/gain")),
    ],
    "#/run/large/rollouts": [
        "runs",
        *(f"runs/large/{one}" for one in ("events", "files", "groups")),
    ],
    "#/run/large/history": ["runs", "runs/large/history"],
}


@needs_chromium
@pytest.mark.parametrize(("path", "wanted"), PAGES)
def test_a_page_asks_for_little_and_draws_little(traffic, path, wanted):
    page = traffic.go(path)
    page.locator(wanted).first.wait_for()
    for _ in range(600):
        page.wait_for_timeout(100)
        if set(traffic.api()) >= set(ASKED[path]):
            break
    page.wait_for_timeout(1_000)  # for what a page does that has it all
    assert traffic.api() == ASKED[path]
    assert traffic.bytes < 900_000, f"{traffic.bytes} bytes"
    nodes = page.evaluate("() => document.querySelectorAll('*').length")
    assert nodes < 2_000, f"{nodes} elements"


@needs_chromium
@pytest.mark.parametrize(("path", "ready", "where", "text"), FOLLOWED)
def test_a_page_takes_a_new_step_alone(traffic, run, path, ready, where, text):
    page = traffic.go(path)
    page.locator(ready).first.wait_for()
    before, asked = traffic.bytes, len(traffic.asked)
    step = write_next_step(run)
    page.locator(where, has_text=text.format(step)).first.wait_for()
    assert traffic.bytes - before < 250_000
    assert traffic.url + "/api/runs/large" not in traffic.asked[asked:]


# -- seconds, alone on a machine -------------------------------------------------------------------

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


def best_of_three(once) -> float:
    """Seconds, of the first one below a second or the best."""
    found: list[float] = []
    while len(found) < 3 and min(found, default=1.0) >= 1.0:
        found.append(once())
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f" {', '.join(f'{seconds:.2f}' for seconds in found)} s (load {load})")
    return min(found)


def visit(chromium, run, path: str, wanted: str) -> float:
    """One visit to a server that has just started; seconds until `wanted` is painted."""
    served = Served(run.parent)
    context = chromium.new_context(viewport={"width": 1200, "height": 900})
    try:
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.goto(f"{served.url}/{path}", wait_until="commit")
        return page.evaluate(PAINTED, wanted) / 1000
    finally:
        context.close()
        served.stop()


@needs_chromium
@pytest.mark.bench
@pytest.mark.parametrize(("path", "wanted"), PAGES)
def test_first_paint(chromium, run, path, wanted):
    print(f"\n{path}:", end="")
    seconds = best_of_three(lambda: visit(chromium, run, path, wanted))
    assert seconds < 1.0, f"{path}: painted after {seconds:.2f} s"


@needs_chromium
@pytest.mark.bench
@pytest.mark.parametrize(("path", "ready", "where", "text"), FOLLOWED)
def test_a_new_step_is_there_within_a_second(traffic, run, path, ready, where, text):
    page = traffic.go(path)
    page.locator(ready).first.wait_for()

    def once() -> float:
        page.wait_for_timeout(1_500)
        step = 1 + len((run / "metrics.jsonl").read_text().splitlines())
        page.evaluate(APPEARS, [where, text.format(step)])
        written = time.time()
        write_next_step(run)
        return page.evaluate("() => window.seen") / 1000 - written

    print(f"\n{path}:", end="")
    seconds = best_of_three(once)
    assert seconds < 1.0, f"{path}: seen after {seconds:.2f} s"
