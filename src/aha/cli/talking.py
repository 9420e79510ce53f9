"""`aha serve`, `aha chat`, and the voice of the dashboard's chat."""

import json
import queue
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from aha.core.errors import AhaError
from aha.core.records import Problem
from aha.tasks.countdown import Countdown
from aha.tasks.protocol import Task
from aha.tasks.puzzle_input import countdown_from_config, parse_puzzle
from aha.web.event_spans import visible

HINT = "numbers and a target, as in 3 7 25 82 (an empty line ends)"


def run_config(name: str) -> dict:
    """config.json of a run; empty for a model that is no run."""
    folder = Path(name)
    if not (folder / "metrics.jsonl").is_file() and not (folder / "checkpoints").is_dir():
        return {}
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def serve_model(model: str, host: str, port: int, name: str | None) -> None:
    import time

    from aha.serve.api import Api, make_api
    from aha.serve.open_models import OpenModels
    from aha.serve.prompts import TrainedOn
    from aha.web.access import is_loopback, new_token
    from aha.web.server import address, keep, listen

    opened = OpenModels().get(model)
    task = run_config(model).get("task")
    task_name = task.get("name") if isinstance(task, dict) else None
    trained = TrainedOn(task_name, countdown_from_config(task))
    name = name or Path(model).resolve().name
    listener = listen(host, port)
    token = None if is_loopback(host) else new_token()
    where = address(host, listener.getsockname()[1], None) + "v1"
    key = "any text" if token is None else token
    print(f"aha serve: {where}  model {name!r} ({opened.origin}), API key: {key}", flush=True)
    api = Api(opened, name, trained, int(time.time()))
    keep(make_api(api, host, token), listener)


def lazy_speaker():
    """The dashboard's voice. torch is loaded when somebody asks for the first time, and no model
    is fetched from the network because a run's config names it."""
    lock, made = threading.Lock(), []

    def speak(model: str, task: Task, problem: Problem, how: dict) -> Iterator[dict]:
        from aha.serve.problem_answers import Speaker

        with lock:
            if not made:
                made.append(Speaker(network=False))
        yield from made[0](model, task, problem, how)

    return speak


# -- the terminal ---------------------------------------------------------------------------


@dataclass
class Side:
    """One model's answer in the making."""

    title: str
    model: str
    text: str = ""
    verdict: Text = field(default_factory=Text)

    def hear(self, told: dict | Exception) -> None:
        if isinstance(told, Exception):
            self.verdict = Text(f"{told}", style="red")
        elif "origin" in told:
            if told["origin"] not in self.title:
                self.title += f", {told['origin']}"
        elif "text" in told:
            self.text += told["text"]
        else:
            row = told["row"]
            word, style = ("right", "bold green") if row["correct"] else ("wrong", "bold red")
            self.verdict = Text.assemble((f"{word}: ", style), f"{row['reason']}, {row['tokens']} ")
            self.verdict.append("tokens, cut off" if row["finish"] == "length" else "tokens")

    def panel(self, lines: int | None = None) -> Panel:
        """The answer; of one that is longer than the screen, the end."""
        shown = visible(self.text).split("\n")
        body = Text("\n".join(shown if lines is None else shown[-lines:]))
        verdict = self.verdict or Text("...", style="dim")
        return Panel(Group(body, Text(), verdict), title=Text(self.title), title_align="left")


def chat_with(model: str, base: str | None, how: dict) -> None:
    """Ask for puzzles until an empty line; Ctrl-C ends an answer, not the program."""
    from aha.serve.problem_answers import Speaker

    config = run_config(model)
    if base is None and isinstance(config.get("model"), dict):
        base = config["model"].get("path")
    task = countdown_from_config(config.get("task")) or Countdown()
    names = [("before", base), ("after", model)] if base else [("", model)]
    speaker, console = Speaker(), Console(highlight=False)
    for _, name in names:
        speaker.models.get(name)  # now: a name that is wrong must not wait for the first puzzle
    while line := read_line(console):
        try:
            problem = parse_puzzle(line)
        except AhaError as error:
            console.print(Text(str(error), style="red"), soft_wrap=True)
            continue
        sides = [Side(f"{word}: {name}".removeprefix(": "), name) for word, name in names]
        answer_beside(console, speaker, sides, task, problem, how)


def read_line(console: Console) -> str:
    """What was typed; empty at the end of the input."""
    try:
        if not sys.stdin.isatty():
            return console.input().strip()
        console.print(HINT, style="dim")
        return console.input("puzzle> ").strip()
    except EOFError:
        return ""


def answer_beside(
    console: Console, speaker, sides: list[Side], task: Task, problem: Problem, how: dict
) -> None:
    """All sides at once, streamed; the whole of them stays on the screen."""
    news: queue.SimpleQueue = queue.SimpleQueue()
    gone = threading.Event()
    try:
        for side in sides:
            answer = speaker(side.model, task, problem, how)
            given = (answer, side, news, gone)
            threading.Thread(target=tell_all, args=given, daemon=True).start()
        with Live(console=console, transient=True, refresh_per_second=12) as live:
            left = len(sides)
            while left:
                side, told = news.get()
                if told is None:
                    left -= 1
                else:
                    side.hear(told)
                    live.update(beside(sides, max(4, console.height - 6)))
    except KeyboardInterrupt:
        gone.set()
    console.print(beside(sides, None))


def tell_all(answer: Iterator[dict], side: Side, news: queue.SimpleQueue, gone) -> None:
    """Hand on what a model says, until it has ended or nobody listens."""
    try:
        for told in answer:
            if gone.is_set():
                break
            news.put((side, told))
    except Exception as error:  # shown in the side's place: the other one goes on
        news.put((side, error))
    finally:
        answer.close()
        news.put((side, None))


def beside(sides: list[Side], lines: int | None) -> Table:
    table = Table.grid(expand=True, padding=(0, 1))
    for _ in sides:
        table.add_column(ratio=1)
    table.add_row(*(side.panel(lines) for side in sides))
    return table
