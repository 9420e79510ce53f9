"""`aha tasks`: what a model can be trained on, packaged and installed."""

from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Any

from rich.markup import escape
from rich.table import Table

import aha
from aha.cli.own_command import as_typed_here
from aha.cli.parameters import AsJson
from aha.cli.terminal_text import console, say_json

GYM = ("gym:NAME", "one of the data sets of reasoning-gym", "reasoning-gym")


def tasks(*, as_json: AsJson = False) -> None:
    """List the tasks, packaged and installed, with a sentence, version and licence each."""
    rows = task_rows()
    if as_json:
        for row in rows:
            say_json(row)
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("task", "what it is", "from"):
        table.add_column(column, no_wrap=column == "task")
    for row in rows:
        origin = " ".join(filter(None, (row["package"], row["version"], row["licence"])))
        table.add_row(*(escape(text) for text in (row["task"], row["what"], origin)))
    console.print(table)
    last = (
        "`aha train RECIPE --task TASK` trains on one, `aha problems --task TASK` shows its "
        "problems.\nmy_task.py is a task too, and `aha new-task NAME` writes one to begin with."
    )
    if not find_spec("reasoning_gym"):
        last += "\nThe extra [gym]: pip install 'aha[gym]'"
    console.print(f"\n{escape(as_typed_here(last))}", soft_wrap=True)


def task_rows() -> list[dict[str, Any]]:
    """The packaged tasks, reasoning-gym's, and those of other packages by their metadata."""
    from aha.tasks.catalog import PACKAGED, installed

    rows = [
        row(name, first_sentence_of(place), "aha", aha.__version__, "Apache-2.0")
        for name, place in PACKAGED.items()
    ]
    name, what, package = GYM
    if find_spec("reasoning_gym"):
        rows.append(row(name, what, package, *facts_of(package)[1:]))
    else:
        rows.append(row(name, f"{what}, with the extra [gym]", package, None, None))
    for name, entry in sorted(installed().items()):
        package = entry.dist.name if entry.dist else entry.value
        what, version, licence = facts_of(package) if entry.dist else ("", None, None)
        rows.append(row(name, what, package, version, licence))
    return rows


def row(
    task: str, what: str, package: str, version: str | None, licence: str | None
) -> dict[str, Any]:
    return {
        "task": task,
        "what": what,
        "package": package,
        "version": version,
        "licence": licence,
    }


def first_sentence_of(place: str) -> str:
    """Of the docstring of the module of a packaged task."""
    text = " ".join((import_module(place.partition(":")[0]).__doc__ or "").split("\n\n")[0].split())
    return text.partition(". ")[0].rstrip(".")


def facts_of(package: str) -> tuple[str, str | None, str | None]:
    """(summary, version, licence) as a package states them; an author may leave out any."""
    message = metadata.metadata(package)
    facts = {key: message[key] for key in message}  # the first one of several
    licence = facts.get("License-Expression") or facts.get("License")
    # Old packages put the whole text of the licence there.
    short = licence.splitlines()[0][:40] if licence else None
    return facts.get("Summary") or "", facts.get("Version"), short
