"""`aha chat` and `aha serve`: what they print and refuse."""

import io
import json
import queue
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest
from rich.console import Console

from aha.cli import terminal_text
from aha.cli.chat import Side, answer_side_by_side
from aha.rollout.engine import Sampling
from aha.rollout.native import NativeEngine
from aha.serve.open_models import run_config
from aha.store.guarded_files import GuardedFile
from aha.tasks.countdown import Countdown
from aha.tasks.problem_lines import parse_puzzle

from ..tiny import TOKENIZER, ask, tiny_folder, tiny_transformer
from ..web.conftest import make_run

PUZZLE = parse_puzzle("3 7 25 82")
HOW = {"seed": 0, "temperature": 1.0, "max_new_tokens": 9}


@pytest.fixture
def run(tmp_path, model):
    """A run of tiny models in the folder where commands are called."""
    run = make_run(tmp_path / "runs" / "demo")
    config = GuardedFile(run, "config.json").read_object()
    config["model"]["path"] = str(model)
    (run / "config.json").write_text(json.dumps(config))
    tiny_folder(run / "model", seed=1)
    return run


def written(seed: int, most: int) -> str:
    """The first words that a tiny model writes for the puzzle."""
    engine = NativeEngine(tiny_transformer(seed), TOKENIZER, loop="torch")
    ((one,),) = engine.generate([ask(3, 7, 25, target=82)], Sampling(most, 1, 1.0, 0))
    return one.text.strip().splitlines()[0]


def test_chat_puts_the_runs_base_beside_it(aha, run, monkeypatch):
    monkeypatch.setattr(terminal_text.console, "width", 160)
    done = aha("chat", "runs/demo", "--max-new-tokens", 8, stdin=b"3 7 25 -> 82\n\n3 7 25 83\n")
    assert done.code == 0 and not done.err
    assert "before: " in done.out and "after: runs/demo, trained to the end" in done.out
    assert written(0, 8) in done.out and written(1, 8) in done.out
    assert done.out.count("wrong: no <answer>...</answer> block, 8 tokens, truncated") == 2, (
        "an empty line ends it"
    )


def test_the_model_of_a_run_is_known_as_the_run_and_a_base_that_has_gone_is_told(aha, run):
    words = ("--max-new-tokens", 4)
    both = aha("chat", "runs/demo/model", *words, stdin=b"3 7 25 82")
    assert both.code == 0 and both.out.count("wrong: ") == 2
    config = GuardedFile(run, "config.json").read_object()
    config["model"]["path"] = "gone"
    (run / "config.json").write_text(json.dumps(config))
    alone = aha("chat", "runs/demo", *words, stdin=b"3 7 25 82")
    assert alone.code == 0 and alone.out.count("wrong: ") == 1
    assert "without the run's base: no model called 'gone'" in alone.err
    named = aha("chat", "runs/demo", "--base", "gone", *words, stdin=b"3 7 25 82")
    assert named.code == 2, "that one was asked for"


def test_chat_alone_and_with_a_base_of_ones_own(aha, run, model):
    alone = aha("chat", model, "--max-new-tokens", 4, stdin=b"3 7 25 82").out
    assert alone.count("wrong: ") == 1
    both = aha("chat", model, "--base", run, "--max-new-tokens", 4, stdin=b"3 7 25 82").out
    assert both.count("wrong: ") == 2


def test_a_line_that_is_no_puzzle_costs_a_line_and_no_more(aha, model):
    done = aha("chat", model, "--max-new-tokens", 4, stdin=b"hello\n3 7 25 82\n")
    assert "'hello'; wanted a puzzle" in done.out and "wrong: " in done.out and done.code == 0


@pytest.mark.parametrize(
    "words",
    [
        ("chat", "none"),
        ("chat", "MODEL", "--base", "none"),
        ("chat", "MODEL", "--temperature", "11"),
        ("chat", "MODEL", "--max-new-tokens", "0"),
        ("serve", "none"),
        ("serve", "MODEL", "--port", "99999"),
        ("serve", "MODEL", "--host", "no.such.host.invalid"),
    ],
)
def test_what_cannot_be_is_one_line_and_code_2(aha, model, words):
    done = aha(*(model if word == "MODEL" else word for word in words), stdin=b"3 7 25 82\n")
    assert done.code == 2 and done.err.startswith("aha: ") and len(done.err.splitlines()) == 1
    assert "wrong: " not in done.out


def console() -> Console:
    return Console(file=io.StringIO(), width=80, color_system=None)


@pytest.fixture
def heard():
    """Ctrl-C is heard: a shell that starts the tests in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_the_answer_and_not_the_program(heard):
    closed = threading.Event()

    def speaker(model, task, problem, how):
        try:
            yield {"text": "3+7=10"}
            while not side.text:
                time.sleep(0.01)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            while not closed.wait(0.01):
                yield {"text": "\n"}
        finally:
            closed.set()

    screen, side = console(), Side("", "x")
    answer_side_by_side(screen, speaker, [side], Countdown(), PUZZLE, HOW)
    assert "3+7=10" in screen.file.getvalue() and "right" not in screen.file.getvalue()
    assert closed.wait(30), "it goes on for nobody"


def test_both_sides_speak_at_once_and_markup_is_text():
    meeting = threading.Barrier(2, timeout=30)

    def speaker(model, task, problem, how):
        meeting.wait()  # neither gets past this alone
        yield {"text": f"[bold]{model}[/bold] \x1b[31m"}
        if model == "second":
            raise RuntimeError("out of [red]memory[/red]")
        yield {"row": {"correct": True, "reason": "[b]so[/b]", "tokens": 3, "finish": "stop"}}

    screen = console()
    sides = [Side("", "first"), Side("", "second")]
    answer_side_by_side(screen, speaker, sides, Countdown(), PUZZLE, HOW)
    out = screen.file.getvalue()
    for words in ("[bold]first[/bold] ␛[31m", "right: [b]so[/b]", "out of [red]memory[/red]"):
        assert words in out


def test_a_damaged_config_is_none(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "config.json").write_text("[")
    assert run_config(str(run)) == {}
    assert run_config("aha-tiny") == {}


# -- aha serve, in a process of its own -------------------------------------------------------


@pytest.fixture
def served():
    """Starts `aha serve` and reads its line."""
    started = []

    def start(*words: object) -> str:
        command = [sys.executable, "-m", "aha", "serve", *map(str, words), "--port", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        lines: queue.SimpleQueue = queue.SimpleQueue()
        threading.Thread(target=lambda: lines.put(process.stdout.readline()), daemon=True).start()
        return lines.get(timeout=240)

    yield start
    for process in started:
        process.terminate()
        process.wait(60)


def models_at(url: str, key: str | None) -> list[str]:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    request = urllib.request.Request(f"{url}/models", headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return [model["id"] for model in json.load(answer)["data"]]


def test_serve_on_this_machine_needs_no_key(served, run):
    line = served(run)
    assert "model 'demo' (trained to the end), API key: any text" in line
    assert models_at(line.split()[2], None) == ["demo"]


def test_serve_elsewhere_wants_the_key_that_it_prints(served, model):
    line = served(model, "--host", "0.0.0.0", "--name", "mine")
    key, port = line.split()[-1], line.split()[2].split(":")[2].split("/")[0]
    url = f"http://127.0.0.1:{port}/v1"
    assert len(key) >= 32 and models_at(url, key) == ["mine"]
    with pytest.raises(urllib.error.HTTPError, match="403"):
        models_at(url, None)
