"""`aha doctor`: findings about a machine, a recipe or a run, as lines or as one JSON object."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.markup import escape

from aha.algo.recipe import load_recipe
from aha.api.recipe_names import find_recipe, packaged_recipes
from aha.cli.own_command import as_typed_here
from aha.cli.parameters import AsJson
from aha.cli.recipe_keys import Overrides, overrides_of
from aha.cli.terminal_text import console, say_json
from aha.core.config import RunConfig
from aha.core.errors import AhaError, ConfigError
from aha.core.findings import Finding, health_report, worst_level

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}
VERDICTS = {
    "ok": "no fault",
    "warn": "nothing is broken; see the lines with `warn`",
    "fail": "something is broken; see the lines with `fail`",
}


def doctor(
    what: str | None = None, *, as_json: AsJson = False, overrides: Overrides = None
) -> None:
    """Find faults that raise no error: in this machine, a recipe and its first step, or a run.

    Exit code 0: no check failed. 1: a check failed; its fix is printed. 2: wrong command.

    Parameters
    ----------
    what
        Nothing: this machine. Or a recipe (packaged name or TOML file), with `--section.key value`
        as for `aha train`. Or a run folder.
    """
    findings: list[Finding] = []
    for heading, part in examined_parts(what, overrides_of(overrides)):
        findings += part
        if not as_json:
            print_part(heading, part)
    if as_json:
        say_json({"subject": what or "machine", **health_report(findings)})
    else:
        print_verdict(findings)
    if worst_level(findings) == "fail":
        sys.exit(1)


def examined_parts(
    what: str | None, changes: dict[str, Any]
) -> Iterator[tuple[str, list[Finding]]]:
    """(heading, findings), each part as soon as it is examined."""
    if changes and (what is None or is_run_folder(Path(what))):
        options = ", ".join(f"--{key}" for key in changes)
        expected = "a recipe before it" if what is None else "the run as it was recorded"
        fix = f"aha doctor RECIPE with {options}, or leave that out"
        raise ConfigError(f"{what or 'this machine'} with {options}", expected, fix)
    if what is None:
        from aha.doctor.machine_checks import checks, inspect_machine

        yield "this machine", checks.run(inspect_machine())
    elif is_run_folder(Path(what)):
        from aha.doctor.run_checks import diagnose

        yield what, diagnose(Path(what))
    else:
        from aha.doctor.setup_checks import check_recipe

        cfg = load_recipe(find_recipe(what), changes)
        if notes := notes_on_rows(cfg):
            yield "the rows of task.data", notes
        yield from check_recipe(cfg)


def notes_on_rows(cfg: RunConfig) -> list[Finding]:
    """What the recipe's task says about its file; nothing where `check_recipe` will say why there
    is no task."""
    from aha.tasks.catalog import make_task, notes_of

    try:
        return notes_of(make_task(cfg.task.name, cfg.task.settings()))
    except AhaError:
        return []


def is_run_folder(path: Path) -> bool:
    """Whether it is a folder; one with the name of a packaged recipe has to hold a run."""
    return path.is_dir() and (
        str(path) not in packaged_recipes() or (path / "config.json").exists()
    )


def print_part(heading: str, findings: list[Finding]) -> None:
    """Print one line for each check, with the fix below it if there is a fault."""
    console.print(f"\n[bold]{escape(heading)}[/bold]")
    for finding in findings:
        colour = COLOURS[finding.level]
        level = f"[{colour}]{finding.level:<4}[/{colour}]"
        console.print(f"  {level}  {finding.check:<13} {escape(finding.message)}", soft_wrap=True)
        if finding.fix and (finding.level != "ok" or finding.check == "extras"):
            fix = escape(as_typed_here(finding.fix))
            console.print(f"        {'':<13} fix: {fix}", soft_wrap=True)


def print_verdict(findings: list[Finding]) -> None:
    levels: list[str] = [finding.level for finding in findings]
    counts = ", ".join(f"{levels.count(level)} {level}" for level in COLOURS)
    console.print(f"\n{VERDICTS[worst_level(findings)]} ({counts})")
