"""`aha verify-resume`: whether a run that is killed and resumed is the run that nobody stopped."""

import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from aha.algo.recipe import load_recipe
from aha.api.recipe_names import find_recipe
from aha.cli.parameters import AT_LEAST_1, RecipeName, whole
from aha.cli.recipe_keys import Overrides, overrides_of
from aha.cli.terminal_text import say, say_line
from aha.core.errors import ConfigError

if TYPE_CHECKING:
    from aha.core.config import RunConfig

STEPS = 12  # of the short run
Kills = Annotated[
    int,
    Parameter(converter=whole, validator=AT_LEAST_1, help="How often the second run is killed."),
]
KillSeed = Annotated[
    int, Parameter(converter=whole, help="Seed of the moments at which it is killed.")
]


def verify_resume(
    recipe: RecipeName,
    *,
    kills: Kills = 4,
    kill_seed: KillSeed = 0,
    out: Path | None = None,
    overrides: Overrides = None,
) -> None:
    """Kill and resume a short run of a recipe on this machine, and compare all bits; minutes.

    The run has few completions and every part of the recipe, in 12 steps or --steps. It is done
    once without a stop and once with kills (SIGKILL) at random moments. Exit code 0: everything
    that the two have written is bit-equal, but for times. 1: there are differences, which are
    printed.

    Parameters
    ----------
    out
        New folder for the two runs; without it a temporary one, which is removed.
    """
    cfg = short_run_of(recipe, overrides)
    if out is not None:
        if out.exists():
            raise ConfigError(f"{out} exists already", "a new folder", f"--out {out}-2")
        out.mkdir(parents=True)
    from aha.studies.resume_trial import try_resume

    place = tempfile.TemporaryDirectory(prefix="aha-verify-") if out is None else nullcontext(out)
    with place as folder:
        report = try_resume(cfg, kills, kill_seed, Path(folder), say_line)
    if not report.differences:
        counts = ", ".join(f"{count} {name}" for name, count in report.compared.items())
        say_line(f"bit-equal after {kills} kills: {counts}")
        return
    say_line(f"{len(report.differences)} differences after {kills} kills:")
    say("\n".join(f"  {line}" for line in report.differences))
    if out is None:
        say_line("fix: run it again with --out FOLDER, and compare the two runs there")
    sys.exit(1)


def short_run_of(recipe: str, overrides: Overrides) -> "RunConfig":
    """The recipe's short run, with the user's overrides."""
    from aha.studies.resume_trial import short_run

    return short_run(load_recipe(find_recipe(recipe), {"steps": STEPS} | overrides_of(overrides)))
