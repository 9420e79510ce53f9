"""`aha lab`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from aha.cli.app import Overrides, app

Limit = Annotated[int, Parameter(validator=validators.Number(gte=0))]


@app.command
def lab(
    *overrides: Overrides,
    recipes: str = "reinforce,rloo,grpo,dr_grpo,dapo,gspo,cispo,max_rl,ppo",
    seeds: str = "0,1,2",
    tokens: Limit = 3_000_000,
    steps: Limit = 0,
    out: Path = Path("runs/lab"),
    dry_run: bool = False,
) -> None:
    """Compare recipes: same base, problems, token budget and seeds; verdicts where intervals part.

    Runs one after the other; the same command goes on where it was stopped. Writes OUT/lab.html
    and OUT/lab.json after every run. `--section.key value` goes to every recipe.

    Parameters
    ----------
    recipes
        Packaged names or TOML files, with commas.
    seeds
        With commas; a verdict needs three.
    tokens
        Completion tokens of each run, those of thrown-away rollouts too; 0 = steps alone.
    steps
        Of each run at most; 0 = until the tokens are spent.
    out
        Folder of the lab.
    dry_run
        Say what would be run, and leave.
    """
    from aha.cli.comparing_recipes import run_lab

    run_lab(recipes, seeds, (tokens, steps), overrides, out, dry_run)
