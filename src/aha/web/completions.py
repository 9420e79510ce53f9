"""The completions of one file, page by page: an index of where each line stands, never all text.

A step's file is small; one of 200,000 completions is not. The index keeps a few numbers of each
line, and reads on where it stopped when the file has grown.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from aha.web.event_spans import means_of, pieces_of, puzzle_of, text_of, visible
from aha.web.file_reader import Tail, number, row_of
from aha.web.token_strip import has_strip

SHOWN_CHARS = 12_000
WHOLE_CHARS = 2_000_000
PAGE = 24
KEPT_INDEXES = 24
VERDICTS = {"": None, "right": True, "wrong": False}


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: where it stands, and what filters and the group view need of it."""

    place: int
    offset: int
    size: int
    id: str
    group: int | None
    reward: float | None
    advantage: float | None
    correct: bool
    tokens: float | None
    finish: str
    strip: bool  # its tokens were recorded one by one


class Index:
    """All lines of one file of completions."""

    def __init__(self, path: Path):
        self.path = path
        self.entries: list[Entry] = []
        self.broken = 0
        self._end, self._tail = 0, Tail()

    def refresh(self) -> None:
        with self.path.open("rb") as source:
            if not self._tail.fits(source, self._end):
                self.entries, self.broken, self._end, self._tail = [], 0, 0, Tail()
            source.seek(self._end)
            for line in source:
                if not line.endswith(b"\n"):
                    break
                row = row_of(line)
                if row is None:
                    self.broken += 1
                else:
                    self.entries.append(entry_of(row, len(self.entries), self._end, len(line)))
                self._end += len(line)
                self._tail.read(line)

    def rows(self, entries: list[Entry]) -> list[dict]:
        with self.path.open("rb") as source:
            return [self._row(source, entry) for entry in entries]

    def _row(self, source, entry: Entry) -> dict:
        source.seek(entry.offset)
        return row_of(source.read(entry.size)) or {}

    def matching(self, verdict: bool | None, group: int | None, text: str) -> list[Entry]:
        """The entries that pass every filter; text is looked for in prompt and completion."""
        found = [
            entry
            for entry in self.entries
            if (verdict is None or entry.correct == verdict)
            and (group is None or entry.group == group)
        ]
        if not text:
            return found
        wanted = text.casefold()
        with self.path.open("rb") as source:
            return [entry for entry in found if wanted in _searched(self._row(source, entry))]


def _searched(row: dict) -> str:
    return "\n".join((str(row.get("prompt", "")), text_of(row), str(row.get("reason")))).casefold()


def entry_of(row: dict, place: int, offset: int, size: int) -> Entry:
    group = number(row.get("group"))
    return Entry(
        place,
        offset,
        size,
        str(row.get("id", "")),
        None if group is None else int(group),
        number(row.get("reward")),
        number(row.get("advantage")),
        row.get("correct") is True,
        number(row.get("tokens")),
        str(row.get("finish", "")),
        has_strip(row),
    )


class IndexCache:
    """The indexes that were used last, shared by all visitors."""

    def __init__(self):
        self._indexes: OrderedDict[Path, Index] = OrderedDict()
        self._lock = threading.Lock()

    def index(self, path: Path) -> Index:
        """The index of a file, read on to its end. Raises OSError where the file is gone."""
        with self._lock:
            index = self._indexes.pop(path, None) or Index(path)
            index.refresh()
            self._indexes[path] = index
            while len(self._indexes) > KEPT_INDEXES:
                self._indexes.popitem(last=False)
            return index


def page_of(index: Index, verdict: bool | None, group: int | None, text: str, start: int) -> dict:
    """One page of completions with their events."""
    entries = index.matching(verdict, group, text)
    part = entries[start : start + PAGE]
    rows = index.rows(part)
    return {
        "total": len(index.entries),
        "right": sum(entry.correct for entry in index.entries),
        "matching": len(entries),
        "start": start,
        "page": PAGE,
        "broken": index.broken,
        "rows": [
            shown(row, entry.place, SHOWN_CHARS) for row, entry in zip(rows, part, strict=True)
        ],
    }


def shown(row: dict, place: int, limit: int) -> dict:
    """One completion for the page: text in pieces, verdict, group, what it does."""
    puzzle, text = puzzle_of(row), text_of(row)
    means = means_of([row])
    return {
        "place": place,
        "id": visible(str(row.get("id", ""))),
        "group": number(row.get("group")),
        "puzzle": puzzle and {"numbers": puzzle[0], "target": puzzle[1]},
        "prompt": visible(str(row.get("prompt", ""))[:4000]),
        "pieces": pieces_of(row, limit),
        "chars": len(text),
        "hidden": max(0, len(text) - limit),
        "tokens": number(row.get("tokens")),
        "finish": visible(str(row.get("finish", ""))),
        "reward": number(row.get("reward")),
        "advantage": number(row.get("advantage")),
        "correct": row.get("correct") is True,
        "recorded": has_strip(row),
        "reason": visible(str(row.get("reason", ""))[:2000]),
        "attempts": means.get("attempts"),
        "checks": means.get("checks"),
        "backtracks": means.get("backtracks"),
    }


def groups_of(index: Index, start: int, count: int = 64) -> dict:
    """The groups of a step: one line each, with a cell for every completion."""
    groups: dict[int, list[Entry]] = {}
    for entry in index.entries:
        groups.setdefault(entry.place if entry.group is None else entry.group, []).append(entry)
    part = list(groups.items())[start : start + count]
    firsts = index.rows([entries[0] for _, entries in part])
    lines = []
    for (name, entries), row in zip(part, firsts, strict=True):
        puzzle = puzzle_of(row)
        cells = [[e.place, e.correct, e.reward, e.advantage, e.tokens] for e in entries]
        lines.append(
            {
                "group": name,
                "puzzle": puzzle and {"numbers": puzzle[0], "target": puzzle[1]},
                "prompt": visible(str(row.get("prompt", ""))[:200]),
                "cells": cells,
                "recorded": any(entry.strip for entry in entries),
            }
        )
    return {"groups": len(groups), "start": start, "page": count, "lines": lines}
