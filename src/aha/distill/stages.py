"""The stages of a collection of examples: a file of rows each, and counts of what was dropped."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aha.core.errors import shorter
from aha.store.durable import to_json, write_text

Row = dict[str, Any]
STAGES = "stages.json"
LONGEST_REASON = 120  # characters of the first example of a reason


@dataclass
class Stage:
    """One stage: the rows that it keeps, and how many it drops for which reason.

    `first` has the details of the first row of each reason. `added` rows come from elsewhere.
    """

    name: str
    rows: list[Row] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    added: int = 0

    def keep(self, row: Row) -> None:
        """A row that goes on to the next stage."""
        self.rows.append(row)

    def drop(self, reason: str, details: str = "") -> None:
        """A row that ends here."""
        self.dropped[reason] += 1
        if details:
            self.first.setdefault(reason, shorter(details, LONGEST_REASON))

    def reasons(self) -> str:
        """What was dropped, the most frequent reason first."""
        texts = []
        for reason, count in self.dropped.most_common():
            details = f" (first: {self.first[reason]})" if reason in self.first else ""
            texts.append(f"{count:,} {reason}{details}")
        return "; ".join(texts)

    def line(self) -> str:
        """The stage for people."""
        text = f"{self.name:<10} {len(self.rows):>8,} kept"
        if self.added:
            text += f", {self.added:,} of them added"
        lost = self.dropped.total()
        return text + (f", {lost:,} dropped: {self.reasons()}" if lost else "")

    def as_row(self, file: str) -> Row:
        """The counts as JSON."""
        counts = {"stage": self.name, "file": file, "kept": len(self.rows), "added": self.added}
        return counts | {"dropped": dict(self.dropped), "first": dict(self.first)}


class StageFolder:
    """A folder with a file for each stage, and the counts of all of them in stages.json."""

    def __init__(self, path: Path):
        self.path = path
        self.stages: list[Stage] = []
        self.files: list[str] = []

    def write(self, stage: Stage) -> Path:
        """Write the rows of a stage, and the counts so far."""
        file = self.path / f"{stage.name}.jsonl"
        write_rows(file, stage.rows)
        self.note(stage)
        return file

    def note(self, stage: Stage, file: str | None = None) -> None:
        """The counts of a stage whose rows are written already, in `file` where they are not in one
        of the stage's name."""
        self.stages.append(stage)
        self.files.append(file or f"{stage.name}.jsonl")
        pairs = zip(self.stages, self.files, strict=True)
        rows = [one.as_row(name) for one, name in pairs]
        write_text(self.path / STAGES, to_json(rows, indent=2) + "\n")

    def lines(self) -> list[str]:
        """All stages for people."""
        return [stage.line() for stage in self.stages]


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Replace a file of JSON lines as a whole."""
    write_text(path, "".join(to_json(row) + "\n" for row in rows))


def read_object(path: Path) -> Row | None:
    """A JSON object that this room has written; None where there is no such file, or where a
    process died before it was one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
