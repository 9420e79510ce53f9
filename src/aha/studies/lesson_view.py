"""A study in a lesson: all of its cells in this process, then its tables as text and its figures.

A script of cells is read again by every process that it starts, so that a lesson starts none.
"""

from pathlib import Path
from shlex import quote

from aha.core.errors import RunError
from aha.studies.study_frame import Machine, Study, StudyFolder
from aha.studies.study_page import StudyPage, StudyTable

# Characters of a table's cell in a terminal. No claim of a study is longer; nor is the name of a
# point of `thinking`, the last words of which tell it from the others.
LONGEST_CELL = 48


class LessonView:
    """The results of a study: text in a terminal, the page in a notebook."""

    def __init__(self, page: StudyPage, html: str, failed: dict[str, str]):
        self.page, self.html, self.failed = page, html, failed

    def __str__(self) -> str:
        failed = [f"the cell {name} failed: {text}" for name, text in self.failed.items()]
        tables = [table_text(table) for table in self.page.tables if table.title != "Settings"]
        curves = [figure.description() for figure in self.page.figures if not figure.empty]
        return "\n\n".join([*tables, "\n".join(curves), "\n".join([*failed, *self.page.notes])])

    def _repr_html_(self) -> str:
        return self.html


def run_lesson(study: Study, out: str) -> LessonView:
    """Do all cells of a study that are not done, and show what came out; after a stop, so far."""
    folder = lesson_folder(study, Path(out))
    machine = Machine.here(None, None)
    if folder.run_cells(machine, print) is not None:
        print("stopped: run it again to go on")
    page = folder.study.page(folder.done)
    html = (folder.out / "study.html").read_text(encoding="utf-8")
    return LessonView(page, html, folder.failed)


def lesson_folder(study: Study, out: Path) -> StudyFolder:
    """The study in its folder. Raises `RunError` where that has cells of other settings, of another
    version or model perhaps: a lesson has no option for another folder."""
    try:
        return StudyFolder(study, out, f"a lesson on {study.name}")
    except RunError as error:
        if "--out" not in error.fix:
            raise
        away = f"mv {quote(str(out))} {quote(f'{out}-old')}"
        raise RunError(error.got, error.wanted, away) from None


def table_text(table: StudyTable) -> str:
    """A table in columns."""
    rows = [[cut(cell) for cell in row] for row in (table.header, *table.rows)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(table.header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([table.title, *lines])


def cut(cell: str) -> str:
    """A cell of at most LONGEST_CELL characters, with dots where some are left out."""
    return cell if len(cell) <= LONGEST_CELL else f"{cell[: LONGEST_CELL - 3]}..."
