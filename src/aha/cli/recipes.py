"""`aha recipes`: the packaged recipes, with a sentence each."""

import re
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from aha.api.recipe_names import find_recipe, packaged_recipes
from aha.cli.own_command import as_typed_here
from aha.cli.parameters import AsJson
from aha.cli.terminal_text import console, say_json

NOT_RUN = "NOT RUN HERE"  # in the header of a recipe that nobody has measured
METHODS = "on the demo's task"


def recipes(*, as_json: AsJson = False) -> None:
    """List the packaged recipes, with a sentence each: `aha train RECIPE` takes one."""
    rows = [recipe_row(find_recipe(name)) for name in packaged_recipes()]
    if as_json:
        for row in rows:
            say_json(row)
        return
    for title, method in (("whole tasks", False), ("methods, on the demo's task", True)):
        table = Table(box=None, padding=(0, 2, 0, 0), title=f"\n{title}", title_justify="left")
        table.add_column("recipe", no_wrap=True)
        table.add_column("what it is")
        for row in rows:
            if row["method"] == method:
                note = "" if row["measured"] else " (not run, nothing measured)"
                what = re.sub(f",? {METHODS}", "", row["what"])
                table.add_row(escape(row["recipe"]), escape(what) + note)
        console.print(table)
    last = "`aha plan RECIPE` says what one takes, `aha config show RECIPE` what it sets."
    console.print(f"\n{escape(as_typed_here(last))}", soft_wrap=True)


def recipe_row(path: Path) -> dict[str, Any]:
    """A recipe by the first sentence of its header."""
    header = header_of(path.read_text(encoding="utf-8"))
    return {
        "recipe": path.stem,
        "what": first_sentence(header),
        "measured": NOT_RUN not in header,
        "method": METHODS in header,
    }


def header_of(recipe: str) -> str:
    """The comment at the head of a recipe as one line."""
    lines = []
    for line in recipe.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return " ".join(lines)


def first_sentence(text: str) -> str:
    """Up to the first full stop that ends a word, without it; that of "Dr. GRPO" ends none."""
    return re.split(r"(?<!\bDr)\.(?=\s|$)", text)[0].strip()
