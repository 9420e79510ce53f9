"""The chat in a real browser: real models behind `aha dash`, and a voice that speaks markup."""

import json
import shutil
import threading

import pytest
from playwright.sync_api import expect

from aha.rollout.engine import Sampling
from aha.rollout.native import NativeEngine
from aha.tasks.countdown import Countdown
from aha.web.dashboard import make_app
from aha.web.server import make_server, open_socket

from ..tiny import TOKENIZER, ask, tiny_folder, tiny_transformer
from .browser import CHROMIUM, NO_CHROMIUM, Served, Visit
from .conftest import RIGHT, make_run, own

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)
EVIL = "<img src=x onerror=window.hacked=1><script>window.hacked=1</script>\n"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of tiny random models, which differ in their seeds."""
    root = tmp_path_factory.mktemp("chat")
    run = make_run(root / "runs" / "demo")
    config = json.loads((run / "config.json").read_text())
    config["model"]["path"] = str(tiny_folder(root / "base"))
    (run / "config.json").write_text(json.dumps(config))
    tiny_folder(run / "model", seed=1)
    return root / "runs"


@pytest.fixture
def visiting(chromium, spoken):
    """Opens a page of a server in a window of its own; looks for faults at the end.

    It asks for `spoken` to be taken down before the servers are: a page whose server is gone
    complains that it cannot reconnect.
    """
    opened = []

    def open_page(url: str, path: str, width: int = 1200) -> Visit:
        context = chromium.new_context(viewport={"width": width, "height": 900})
        visit = Visit(context.new_page(), url)
        opened.append((context, visit))
        visit.go(path)
        return visit

    yield open_page
    for context, visit in opened:
        context.close()
        visit.check()


@pytest.fixture(scope="module")
def real(runs):
    served = Served(runs)
    yield served.url
    served.stop()


@pytest.fixture
def spoken():
    """Serves runs with a voice made here."""
    servers = []

    def serve(runs, stream_completion) -> str:
        listener = open_socket("127.0.0.1", 0)
        server = make_server(make_app(runs, stream_completion=stream_completion))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield serve
    for server, thread in servers:
        server.should_exit = True
        thread.join(20)


def type_puzzle(page, numbers: str, target: str, **more: str) -> None:
    page.get_by_label("numbers").fill(numbers)
    page.get_by_label("target").fill(target)
    for label, value in more.items():
        page.get_by_label(label.replace("_", " ")).fill(value)
    page.get_by_role("button", name="Ask", exact=True).click()


def text_of(side) -> str:
    """The completion without the signs of its events."""
    return side.locator(".text").evaluate(
        "(node) => [...node.children].filter((one) => !one.classList.contains('tag'))"
        ".map((one) => one.textContent).join('')"
    )


def test_base_and_trained_model_answer_what_their_engines_write(visiting, real):
    page = visiting(real, "#/run/demo/chat").page
    type_puzzle(page, "3 7 25", "82", token_limit="60", seed="4")
    sides = page.locator(".answers .completion")
    expect(page.locator(".answers .verdict")).to_have_count(2)
    for place, seed in enumerate((0, 1)):
        engine = NativeEngine(tiny_transformer(seed), TOKENIZER, loop="torch")
        ((want,),) = engine.generate([ask(3, 7, 25, target=82)], Sampling(60, 1, 1.0, 4))
        assert text_of(sides.nth(place)).strip() == want.text.strip()
        reason = Countdown().grade(want.prompt.problem, want.text).reason
        assert reason in sides.nth(place).inner_text()
    assert "after training: trained to the end" in sides.nth(1).inner_text()
    # And once more, by the keyboard.
    page.get_by_label("target").fill("83")
    page.get_by_label("target").press("Enter")
    expect(page.locator(".answers .verdict")).to_have_count(2)


def test_while_a_run_trains_its_newest_checkpoint_answers(visiting, real, runs):
    run = make_run(runs / "live")
    shutil.copy(runs / "demo" / "config.json", run / "config.json")
    (run / "summary.json").unlink()
    own(run)
    visit = visiting(real, "#/run/live/chat")
    page = visit.page
    page.get_by_text("This run is still training").wait_for()
    type_puzzle(page, "3 7 25", "82", token_limit="9")
    page.get_by_text("no checkpoint in").wait_for()
    for step in (2, 12):
        folder = tiny_folder(run / "checkpoints" / f"step_{step:06d}", seed=step)
        (folder / "trainer.pt").write_bytes(b"")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.get_by_text("after training: checkpoint of step 12").wait_for()
    expect(page.locator(".answers .verdict")).to_have_count(2)


def test_a_held_out_puzzle_and_a_puzzle_that_is_none(visiting, real):
    page = visiting(real, "#/run/demo/chat").page
    page.get_by_role("button", name="A held-out puzzle").click()
    expect(page.get_by_label("numbers")).to_have_value("3 7 25")
    expect(page.get_by_label("target")).to_have_value("82")
    type_puzzle(page, "1 2 3 4 5 6 7", "8")
    page.get_by_text("wanted a puzzle").first.wait_for()


def test_what_a_model_writes_stays_text_and_is_judged(visiting, spoken, runs):
    going_on = threading.Event()

    def stream_completion(model, task, problem, how):
        text = EVIL + RIGHT
        yield {"origin": EVIL}
        yield {"text": EVIL}
        assert going_on.wait(60)
        yield {"text": RIGHT}
        graded = task.grade(problem, text)
        row = {"id": EVIL, **problem.given, "completion": text, "prompt": EVIL, "tokens": 60}
        yield {"row": row | {"correct": graded.correct, "reason": EVIL + graded.reason}}

    page = visiting(spoken(runs, stream_completion), "#/run/demo/chat").page
    type_puzzle(page, "3 7 25", "82")
    streamed = page.locator(".answers .text", has_text="<img src=x onerror")
    expect(streamed).to_have_count(2)
    assert page.locator(".verdict").count() == 0, "told before it was whole"
    going_on.set()
    expect(page.locator(".answers .verdict", has_text="✓ right")).to_have_count(2)
    words = page.locator(".answers").inner_text()
    for part in ("makes 82 of every number once", "★ solution", "↺ back to the start", "<script>"):
        assert part in words
    assert page.evaluate("window.hacked") is None and page.locator("img").count() == 0


def test_stop_ends_the_work(visiting, spoken, runs):
    closed = threading.Semaphore(0)

    def stream_completion(model, task, problem, how):
        try:
            while True:
                yield {"text": "x"}
        finally:
            closed.release()

    page = visiting(spoken(runs, stream_completion), "#/run/demo/chat").page
    type_puzzle(page, "3 7 25", "82")
    expect(page.locator(".answers .text", has_text="xxx")).to_have_count(2)
    page.get_by_role("button", name="Stop").click()
    for _ in range(2):
        assert closed.acquire(timeout=30), "the model goes on writing for nobody"
    expect(page.get_by_text("stopped")).to_have_count(2)


def test_on_a_narrow_screen_and_without_a_voice(visiting, spoken, runs):
    def stream_completion(model, task, problem, how):
        yield {"text": "x" * 900}

    page = visiting(spoken(runs, stream_completion), "#/run/demo/chat", 380).page
    type_puzzle(page, "3 7 25", "82")
    page.locator(".answers .text", has_text="xxx").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    page = visiting(spoken(runs, None), "#/run/demo/chat").page
    page.get_by_text("No model to ask").wait_for()
