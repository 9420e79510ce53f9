"""`aha plan`."""

from pathlib import Path

from aha.cli.app import Overrides, app


@app.command
def plan(
    recipe: str,
    *overrides: Overrides,
    cards: Path | None = None,
    mean_tokens: float | None = None,
    json: bool = False,
    probe: bool = False,
    calibration: Path | None = None,
) -> None:
    """Memory, time, energy and money of a recipe on a table of machines, from shapes alone.

    Parameters
    ----------
    recipe
        packaged recipe or TOML file; `--model Qwen2.5-0.5B` plans it for another model.
    cards
        a table of machines of your own, like aha/plan/cards.toml.
    mean_tokens
        of a completion; rollout.expected_tokens unless given, or a guess where that is 0.
    json
        print one JSON object.
    probe
        measure this machine with the model's shape, in half a minute at most, and plan for it.
    calibration
        file that keeps what --probe measures; without --probe, such a file to plan with.
    """
    from aha.cli.planning import print_plan

    print_plan(recipe, overrides, cards, mean_tokens, json, probe, calibration)
