"""`aha doctor`: what the doctor found, part by part, in plain lines or as one object."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from aha.cli.recipes import find_recipe, packaged_recipes, parse_overrides
from aha.core.errors import ConfigError
from aha.core.findings import Finding, health_report, worst_level

console = Console(highlight=False)

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}
VERDICTS = {
    "ok": "nothing is off",
    "warn": "nothing is broken; see the lines with `warn`",
    "fail": "something is broken; see the lines with `fail`",
}


def consult(what: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Exits with 1 where a check failed."""
    found = []
    for heading, part in parts_of(what, overrides):
        found += part
        if not as_json:
            show(heading, part)
    if as_json:
        print(json.dumps({"subject": what or "machine", **health_report(found)}))
    else:
        print_verdict(found)
    if worst_level(found) == "fail":
        sys.exit(1)


def parts_of(what: str | None, overrides: tuple[str, ...]) -> Iterator[tuple[str, list[Finding]]]:
    """(heading, findings), as they are found."""
    if what is None:
        from aha.doctor.machine_checks import checks, look

        yield "this machine", checks.run(look())
    elif is_run(Path(what)):
        from aha.doctor.run_checks import diagnose

        if overrides:
            raise ConfigError(f"{what} with {' '.join(overrides)}", "the run as it was recorded")
        yield what, diagnose(Path(what))
    else:
        from aha.algo.recipe import load_recipe
        from aha.doctor.recipe_checks import examine

        yield from examine(load_recipe(find_recipe(what), parse_overrides(overrides)))


def is_run(path: Path) -> bool:
    """A folder; a packaged recipe's name stands for the recipe unless a run lies right here."""
    return path.is_dir() and (
        str(path) not in packaged_recipes() or (path / "config.json").exists()
    )


def show(heading: str, findings: list[Finding]) -> None:
    """One line a check, and the fix below where there is something to mend."""
    console.print(f"\n[bold]{escape(heading)}[/bold]")
    for one in findings:
        console.print(f"  {mark(one)}  {one.check:<13} {escape(one.message)}", soft_wrap=True)
        if one.fix and (one.level != "ok" or one.check == "extras"):
            console.print(f"        {'':<13} fix: {escape(one.fix)}", soft_wrap=True)


def mark(one: Finding) -> str:
    return f"[{COLOURS[one.level]}]{one.level:<4}[/{COLOURS[one.level]}]"


def print_verdict(findings: list[Finding]) -> None:
    level = worst_level(findings)
    counts = ", ".join(
        f"{sum(one.level == level for one in findings)} {level}" for level in COLOURS
    )
    console.print(f"\n{VERDICTS[level]} ({counts})")
