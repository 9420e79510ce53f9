"""`aha dash`: the dashboard of a folder of runs."""

import os
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aha.cli.parameters import Flag, Host, Port
from aha.core.records import Problem
from aha.tasks.protocol import Task

if TYPE_CHECKING:
    from aha.serve.problem_answers import CompletionStreamer


RUNS = Path("runs")


def dash(
    runs: Path = RUNS,
    *,
    host: Host = "127.0.0.1",
    port: Port = 8765,
    open: Flag = False,
) -> None:
    """Watch runs in a browser while they train: curves, completions, puzzles at every evaluation.

    Parameters
    ----------
    runs
        Folder of runs, or one run folder; runs/ is made where it does not exist.
    open
        Open the browser too.
    """
    from aha.web.server import serve

    if runs == RUNS and not os.path.lexists(runs):
        runs.mkdir()  # the page of a newcomer, on which the first run will appear
    serve(runs, host, port, open, answer_on_demand())


def answer_on_demand() -> Callable[..., Generator[dict[str, Any], None, None]]:
    """Answer a typed puzzle. Loads torch at the first one. Downloads no model, whatever a run's
    config names."""
    lock = threading.Lock()
    made: list[CompletionStreamer] = []

    def answer(
        model: str, task: Task, problem: Problem, options: dict[str, Any]
    ) -> Generator[dict[str, Any], None, None]:
        from aha.serve.problem_answers import CompletionStreamer

        with lock:
            if not made:
                made.append(CompletionStreamer(network=False))
        yield from made[0](model, task, problem, options)

    return answer
