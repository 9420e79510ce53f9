"""Make the recipes' headers say what `aha plan` says today.

    python scripts/headers.py            # rewrites them
    python scripts/headers.py --check    # names those that differ; exit status 1

A header names a row of cards.toml, and whether the recipe fits there as it is.
"""

import re
import sys
from importlib.resources import files
from pathlib import Path

from aha.algo.algorithms import method_of
from aha.algo.recipe import load_recipe
from aha.core.sizes import GB
from aha.plan.estimate import advice, estimate
from aha.plan.machines import load_cards, money
from aha.plan.shapes import shape_of
from aha.plan.speed import Workload
from aha.training.task_sizes import sizes_before

RECIPES = Path(str(files("aha") / "recipes"))
SAID = re.compile(
    r"`aha plan (?P<name>\S+)`: [\d.]+ GB; \d+ steps take\n"
    r"# [\d.]+ hours and .+ on the row (?P<row>\S+), whose speeds are assumed\.\n"
    r"(# (It fits there with|It does not fit there) .*\n)?"
)


def planned(name: str, row: str) -> str:
    """The sentence for a recipe on a row of the table."""
    cfg = load_recipe(RECIPES / f"{name}.toml")
    load = Workload(cfg, method_of(cfg), shape_of(cfg.model.path), sizes_before(cfg, None))
    card = load_cards()[1][row]
    plan = estimate(load, card)
    text = f"`aha plan {name}`: {plan.peak / GB:.1f} GB; {cfg.steps} steps take\n"
    text += f"# {plan.cost.seconds / 3600:.1f} hours and {money(plan.cost.usd)} on the row {row}, "
    text += "whose speeds are assumed.\n"
    if plan.fits(card):
        return text
    flags = advice(load, card)
    fix = (
        f"It fits there with {flags}"
        if flags.startswith("--")
        else f"It does not fit there: {flags}"
    )
    return f"{text}# {fix}.\n"


def corrected(text: str) -> str:
    return SAID.sub(lambda found: planned(found["name"], found["row"]), text)


def stale() -> list[Path]:
    """Recipes whose header says something else."""
    return [
        path
        for path in sorted(RECIPES.glob("*.toml"))
        if corrected(path.read_text()) != path.read_text()
    ]


if __name__ == "__main__":
    odd = stale()
    for path in odd:
        print(path.name)
        if "--check" not in sys.argv:
            path.write_text(corrected(path.read_text()))
    sys.exit(bool(odd) and "--check" in sys.argv)
