"""`aha chat`: puzzles typed in the terminal, answered by two models side by side; or a conversation
with an instruct model."""

import queue
import shlex
import sys
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, validators
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from aha.cli.own_options import message_here
from aha.cli.parameters import Count, ModelName, Whole
from aha.cli.terminal_text import console, say_line
from aha.core.control_characters import visible
from aha.core.errors import AhaError, ConfigError
from aha.core.records import Problem
from aha.tasks.protocol import Task

if TYPE_CHECKING:
    from aha.serve.open_models import ModelCache

HINT = "numbers and a target, as in 3 7 25 82 (an empty line ends)"
# speaker(model, task, problem, sampling) -> events, see aha.serve.problem_answers
EventStream = Generator[dict[str, Any], None, None]
Speak = Callable[[str, Task, Problem, dict[str, Any]], EventStream]


def chat(
    model: ModelName = "aha-tiny",
    *,
    base: str | None = None,
    seed: Whole = 0,
    temperature: Annotated[float, Parameter(validator=validators.Number(gte=0, lte=10))] = 1.0,
    max_new_tokens: Count = 1024,
) -> None:
    """Type puzzles; the base and the trained model answer side by side, with grades.

    With an instruct model that was not trained on puzzles it is a conversation, in the model's own
    chat template. An empty line ends the program. Ctrl-C ends only an answer.

    Parameters
    ----------
    base
        Model to compare with on puzzles; without it, the run's own base.
    seed
        Seed of the completions.
    temperature
        Sampling temperature; 0 takes the most likely token.
    max_new_tokens
        Token limit of a completion.
    """
    from aha.api.run_task import suited_form
    from aha.cli.talk import talk
    from aha.rollout.engine import Sampling
    from aha.serve.open_models import run_config
    from aha.serve.problem_answers import CompletionStreamer
    from aha.tasks.countdown import Countdown
    from aha.tasks.problem_lines import countdown_from_config, parse_puzzle

    config, speaker = run_config(model), CompletionStreamer()
    task = countdown_from_config(config.get("task"))
    if task is None:
        opened = speaker.models.get(model)
        if opened.tokenizer.template is not None:
            refuse_base(base)
            talk(opened, Sampling(max_new_tokens, 1, temperature, seed))
            return
        refuse_other_task(model, config)
        task = Countdown(**suited_form(model, "countdown"))
    if base is None:
        base = own_base(config, speaker.models)
    names = [("before", base), ("after", model)] if base else [("", model)]
    for _, name in names:
        speaker.models.get(name)  # now, so that a wrong name is an error before the first puzzle
    sampling = {"seed": seed, "temperature": temperature, "max_new_tokens": max_new_tokens}
    while line := read_line(console):
        try:
            problem = parse_puzzle(line)
        except AhaError as error:
            console.print(Text(message_here(error), style="red"), soft_wrap=True)
            continue
        sides = [Side(f"{label}: {name}".removeprefix(": "), name) for label, name in names]
        answer_side_by_side(console, speaker, sides, task, problem, sampling)


def own_base(config: dict[str, Any], models: "ModelCache") -> str | None:
    """The base of a run, opened; None where nothing says which, and, told, where it has gone."""
    section = config.get("model")
    name = section.get("path") if isinstance(section, dict) else None
    if not isinstance(name, str):
        return None
    try:
        models.get(name)
    except AhaError as error:
        say_line(f"aha: without the run's base: {error.got}", sys.stderr)
        return None
    return name


def refuse_base(base: str | None) -> None:
    """Raise `ConfigError` for a second model in a conversation, where nothing is compared."""
    if base is not None:
        raise ConfigError(
            f"--base {base} with an instruct model that was not trained on puzzles",
            "one model in a conversation",
            "leave --base out, or compare them: aha eval",
        )


def refuse_other_task(model: str, config: dict[str, Any]) -> None:
    """Raise `ConfigError` for a run on another task whose model takes no conversation."""
    section = config.get("task")
    name = section.get("name") if isinstance(section, dict) else None
    if name is not None:
        raise ConfigError(
            f"a chat with {model}, which was trained on the task {name!r}",
            "a run on countdown, or a model with a chat template",
            f"aha ask --model {shlex.quote(model)}",
        )


@dataclass
class Side:
    """One model's answer so far, and its grade at the end."""

    title: str
    model: str
    text: str = ""
    verdict: Text = field(default_factory=Text)

    def add(self, event: dict[str, Any] | Exception) -> None:
        if isinstance(event, Exception):
            words = message_here(event) if isinstance(event, AhaError) else str(event)
            self.verdict = Text(words, style="red")
        elif "origin" in event:
            if event["origin"] not in self.title:
                self.title += f", {event['origin']}"
        elif "text" in event:
            self.text += event["text"]
        else:
            row = event["row"]
            word, style = ("right", "bold green") if row["correct"] else ("wrong", "bold red")
            self.verdict = Text.assemble((f"{word}: ", style), f"{row['reason']}, {row['tokens']} ")
            self.verdict.append("tokens, truncated" if row["finish"] == "length" else "tokens")

    def panel(self, lines: int | None = None) -> Panel:
        """The answer; only its end if it is longer than the screen."""
        shown = visible(self.text).split("\n")
        body = Text("\n".join(shown if lines is None else shown[-lines:]))
        verdict = self.verdict or Text("...", style="dim")
        return Panel(Group(body, Text(), verdict), title=Text(self.title), title_align="left")


def read_line(console: Console, hint: str = HINT, prompt: str = "puzzle> ") -> str:
    """The typed line; empty at the end of the input."""
    try:
        if not sys.stdin.isatty():
            return console.input().strip()
        console.print(hint, style="dim")
        return console.input(prompt).strip()
    except EOFError:
        return ""


# An event of a side; None: it has ended.
Events = queue.SimpleQueue[tuple[Side, dict[str, Any] | Exception | None]]


def answer_side_by_side(
    console: Console,
    speaker: Speak,
    sides: list[Side],
    task: Task,
    problem: Problem,
    sampling: dict[str, Any],
) -> None:
    """Stream both answers at the same time; the complete answers stay on the screen."""
    events: Events = queue.SimpleQueue()
    stop = threading.Event()
    try:
        for side in sides:
            answer = speaker(side.model, task, problem, sampling)
            arguments = (answer, side, events, stop)
            threading.Thread(target=forward_events, args=arguments, daemon=True).start()
        with Live(console=console, transient=True, refresh_per_second=12) as live:
            running = len(sides)
            while running:
                side, event = events.get()
                if event is None:
                    running -= 1
                else:
                    side.add(event)
                    live.update(side_by_side(sides, max(4, console.height - 6)))
    except KeyboardInterrupt:
        stop.set()
    console.print(side_by_side(sides, None))


def forward_events(answer: EventStream, side: Side, events: Events, stop: threading.Event) -> None:
    """Put a model's events into the queue until it has ended or `stop` is set."""
    try:
        for event in answer:
            if stop.is_set():
                break
            events.put((side, event))
    except Exception as error:  # shown in place of the answer: the other one continues
        events.put((side, error))
    finally:
        answer.close()
        events.put((side, None))


def side_by_side(sides: list[Side], lines: int | None) -> Table:
    table = Table.grid(expand=True, padding=(0, 1))
    for _ in sides:
        table.add_column(ratio=1)
    table.add_row(*(side.panel(lines) for side in sides))
    return table
