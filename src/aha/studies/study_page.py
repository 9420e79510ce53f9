"""The page of a study: figures, tables and verdicts in one HTML file without a script."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

import aha
from aha.core.control_characters import visible
from aha.web.svg_curves import Figure

# These six differ for readers who see few colours too; from the seventh line on, lines are dashed.
COLOURS = ("#22577a", "#c2410c", "#2b7044", "#6a47a3", "#8a5a00", "#0f8b8d")


def line_styles(lines: int) -> list[tuple[int, str, bool]]:
    """(number, colour, whether it is dashed) of each line of a figure, for the page's CSS."""
    count = len(COLOURS)
    return [(line, COLOURS[line % count], line >= count) for line in range(lines)]


@dataclass(frozen=True)
class StudyTable:
    """A table with a line above it and one below; `folded` shows the first of them until a reader
    opens it."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    folded: bool = False


@dataclass(frozen=True)
class StudyPage:
    """What a study has to show so far. `results` is the same for programs, in JSON's types."""

    title: str
    claim: str
    about: list[str]
    notes: list[str]  # why there is no verdict, and what a reader must know
    verdicts: list[str]
    figures: list[Figure]
    tables: list[StudyTable]
    results: dict[str, Any] = field(default_factory=dict)


def page_html(page: StudyPage, about: Sequence[str], failed: Sequence[str]) -> str:
    """The file's text; `about` are lines on settings, cost and machine."""
    figures = [figure for figure in page.figures if not figure.empty]
    most_lines = max((len(figure.lines) for figure in figures), default=0)
    content = {
        "version": aha.__version__,
        "title": visible(page.title),
        "claim": visible(page.claim),
        "about": list(map(visible, about)),
        "notes": list(map(visible, [*failed, *page.notes])),
        "verdicts": list(map(visible, page.verdicts)),
        "figures": figures,
        "tables": [
            {
                "title": visible(table.title),
                "header": list(map(visible, table.header)),
                "rows": [list(map(visible, row)) for row in table.rows],
                "note": visible(table.note),
                "folded": table.folded,
            }
            for table in page.tables
        ],
        "styles": line_styles(most_lines),
    }
    return page_template().render(content)


@cache
def page_template() -> Template:
    """The page's template; it escapes all text."""
    text = (files("aha.studies") / "study.html.j2").read_text(encoding="utf-8")
    made = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return made.from_string(text)
