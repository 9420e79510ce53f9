"""`aha fork`: a new run that begins with a checkpoint of another."""

import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from aha.api.recipe_names import free_name, new_run_path
from aha.cli.own_command import own_command
from aha.cli.parameters import run_words
from aha.cli.terminal_text import say, say_line

ForkedRun = Annotated[
    Path,
    Parameter(
        help="Run folder, or RUN@STEP for its checkpoint of that step; else the newest one.",
        completer=run_words,
    ),
]
ForkName = Annotated[
    str | None,
    Parameter(help="Name of the new run folder in runs/; without it, RUN-from-STEP."),
]


def fork(run: ForkedRun, *, name: ForkName = None) -> None:
    """Begin a new run with a checkpoint of another, which stays as it is: `aha fork runs/demo@20`.

    Everything up to that step is copied: settings, records, completions. `aha train --resume` goes
    on with it; changed keys need --accept-changes there.
    """
    from aha.training.run_fork import run_and_step

    made = forked(*run_and_step(run), name)
    say(f"{made} goes on with:\n  {own_command()} train --resume {shlex.quote(str(made))}")


def forked(source: Path, step: int | None, name: str | None) -> Path:
    """The new run's folder, beside all others in runs/."""
    from aha.store.checkpoint import step_of
    from aha.store.run_folder import Run
    from aha.training.run_fork import checkpoint_of, fork_run

    chosen = step_of(checkpoint_of(Run.open(source), step))
    path = new_run_path(name or free_name(f"{source.resolve().name}-from-{chosen}"), "fork")
    fork_run(source, chosen, path, partial(say_line, file=sys.stderr))
    return path


def at_step(resume: Path) -> Path:
    """The run that `--resume` goes on with: of RUN@STEP a new one that begins there, unless a
    resume of the run itself would. So no later step is lost."""
    from aha.store.run_folder import Run
    from aha.training.run_fork import is_newest, run_and_step

    source, step = run_and_step(resume)
    if step is None or is_newest(Run.open(source), step):
        return source
    made = forked(source, step, None)
    say_line(f"aha: {made} goes on from step {step}; {source} stays as it is", sys.stderr)
    return made
