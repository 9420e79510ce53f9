"""The completions of one file for the dashboard: pages, groups, and the pinned ones of a report.

A file may have 200,000 completions. So an index keeps a few numbers of each line instead of its
text, and reads only the new lines when the file has grown.
"""

import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, NamedTuple

from aha.core.control_characters import visible
from aha.core.errors import DataError
from aha.store.guarded_files import GuardedFile, JsonLines, number, row_of
from aha.web.event_spans import Row, has_tokens, mean_behaviours, puzzle_of, text_of, text_pieces
from aha.web.runs import RunFolder

SHOWN_CHARS = 12_000
WHOLE_CHARS = 2_000_000
PAGE_SIZE = 24
KEPT_INDEXES = 24
MAX_ENTRIES = 1_000_000  # of an index


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_number(value: object) -> bool:
    return number(value) is not None


# Of what the pages read; a task of one's own may add other keys.
ROW_TYPES: dict[str, Callable[[object], bool]] = {
    **dict.fromkeys(("prompt", "completion", "finish", "reason"), _is_text),
    **dict.fromkeys(("group", "reward", "advantage", "tokens"), _is_number),
    "correct": lambda value: isinstance(value, bool),
    "pieces": lambda value: isinstance(value, list),
}
VERDICTS = {"": None, "right": True, "wrong": False}  # the filter in an address


ORDERS = {"best": -1.0, "worst": 1.0}  # by the advantage; else as the file has them
REWARD_BARS, SINGLE_REWARDS = 12, 8  # of the histogram; so many different rewards get a bar each


@dataclass(frozen=True)
class CompletionFilter:
    """What a list of completions shows; None and "" filter nothing.

    `text` is searched in prompt, completion and reason; `low` and `high` are rewards, both
    included; `order` is a key of ORDERS.
    """

    verdict: bool | None = None
    group: int | None = None
    text: str = ""
    low: float | None = None
    high: float | None = None
    order: str = ""

    def passes(self, entry: "IndexEntry") -> bool:
        """Whether an entry passes all filters but that of the text."""
        return (
            (self.verdict is None or entry.correct == self.verdict)
            and (self.group is None or entry.group == self.group)
            and (self.low is None or (entry.reward is not None and entry.reward >= self.low))
            and (self.high is None or (entry.reward is not None and entry.reward <= self.high))
        )


# -- the index -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One line of the file: its position, and what the filters and the group view need."""

    place: int  # number of the completion in its file, from 0
    offset: int  # bytes before its line
    size: int  # bytes of its line
    problem: str  # digest of the problem's id, which may be long; "" for a row without one
    group: int | None
    reward: float | None
    advantage: float | None
    correct: bool
    tokens: float | None
    finish: str
    has_tokens: bool  # its tokens were recorded one by one
    damaged: bool  # some value has a type that no run writes


class CompletionIndex:
    """All lines of one file of completions."""

    def __init__(self, file: Path | GuardedFile):
        self.file = GuardedFile.of(file)
        self.entries: list[IndexEntry] = []
        self._lines = JsonLines(self.file)

    def refresh(self) -> None:
        """Index the new lines. Starts again if the file was rewritten.

        Raises OSError where the file cannot be read.
        """
        self.file.open().close()
        while len(self.entries) < MAX_ENTRIES:
            before = self._lines.offset
            rows, rewritten = self._lines.read_placed()
            if rewritten:
                self.entries = []
            for offset, size, row in rows:
                self.entries.append(entry_of(row, len(self.entries), offset, size))
            if self._lines.offset == before:
                return

    def faults(self) -> list[str]:
        """What could not be read or is of a wrong type, as sentences."""
        faults = [*self._lines.faults]
        odd = sum(entry.damaged for entry in self.entries)
        if odd:
            faults.append(f"{self.file.name}: {odd} rows with values of a wrong type")
        if len(self.entries) >= MAX_ENTRIES:
            faults.append(f"{self.file.name}: only the first {MAX_ENTRIES} rows are shown")
        return faults

    def rows(self, entries: list[IndexEntry]) -> list[Row]:
        """The whole rows of some entries, read from the file."""
        with self.file.open() as source:
            return [self._row(source, entry) for entry in entries]

    def _row(self, source: BinaryIO, entry: IndexEntry) -> Row:
        source.seek(entry.offset)
        return row_of(source.read(entry.size)) or {}  # {}: the file was rewritten a moment ago

    def matching(self, chosen: "CompletionFilter") -> list[IndexEntry]:
        """The entries that pass every filter, in its order."""
        matches = [entry for entry in self.entries if chosen.passes(entry)]
        if chosen.order:
            matches.sort(key=lambda entry: ORDERS[chosen.order] * (entry.advantage or 0.0))
        text = chosen.text
        if not text:
            return matches
        folded = text.casefold()
        with self.file.open() as source:
            return [e for e in matches if folded in _searchable_text(self._row(source, e))]


def _searchable_text(row: Row) -> str:
    return "\n".join((str(row.get("prompt", "")), text_of(row), str(row.get("reason")))).casefold()


def entry_of(row: Row, place: int, offset: int, size: int) -> IndexEntry:
    """The index entry of a row; fields that are missing or of another type become None or empty."""
    group = number(row.get("group"))
    return IndexEntry(
        place,
        offset,
        size,
        problem_of(row),
        None if group is None else int(group),
        number(row.get("reward")),
        number(row.get("advantage")),
        row.get("correct") is True,
        number(row.get("tokens")),
        str(row.get("finish", ""))[:20],
        has_tokens(row),
        bool(wrong_types(row)),
    )


def problem_of(row: Row) -> str:
    """A digest of the problem's id, equal for equal ids alone; empty where there is no id."""
    name = row.get("id")
    if not isinstance(name, str):
        return ""
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def wrong_types(row: Row) -> list[str]:
    """The keys of a completion whose values have a type that no run writes."""
    return [
        key for key, fits in ROW_TYPES.items() if row.get(key) is not None and not fits(row[key])
    ]


class IndexCache:
    """The most recently used indexes, shared by all requests."""

    def __init__(self) -> None:
        self._indexes: OrderedDict[GuardedFile, CompletionIndex] = OrderedDict()
        self._lock = threading.Lock()

    def index(self, path: Path | GuardedFile) -> CompletionIndex:
        """The index of a file, up to date. Raises OSError where it is gone or refused."""
        file = GuardedFile.of(path)
        with self._lock:
            index = self._indexes.pop(file, None) or CompletionIndex(file)
            index.refresh()
            self._indexes[file] = index
            while len(self._indexes) > KEPT_INDEXES:
                self._indexes.popitem(last=False)
            return index


# -- pages ---------------------------------------------------------------------------------------


def completions_page(index: CompletionIndex, chosen: CompletionFilter, start: int) -> Row:
    """One page of the completions that pass a filter."""
    entries = index.matching(chosen)
    on_page = entries[start : start + PAGE_SIZE]
    rows = index.rows(on_page)
    return {
        "total": len(index.entries),
        "right": sum(entry.correct for entry in index.entries),
        "matching": len(entries),
        "start": start,
        "page": PAGE_SIZE,
        "rewards": reward_bars(index.entries),
        "faults": index.faults(),
        "rows": [
            completion_view(row, entry.place, SHOWN_CHARS)
            for row, entry in zip(rows, on_page, strict=True)
        ],
    }


def reward_bars(entries: Sequence[IndexEntry]) -> list[list[float]]:
    """[lowest reward, highest reward, completions] of each bar of the histogram, lowest first.

    A bar for each reward where there are few, else bars of equal width. The ends are rewards that
    occur, so that a filter between them has exactly the bar. Empty bars between others are 0 high.
    """
    rewards = sorted(entry.reward for entry in entries if entry.reward is not None)
    if not rewards:
        return []
    counts = Counter(rewards)
    if len(counts) <= SINGLE_REWARDS:
        return [[reward, reward, count] for reward, count in counts.items()]
    low, width = rewards[0], (rewards[-1] - rewards[0]) / REWARD_BARS
    bars: dict[int, list[float]] = {}
    for reward, count in counts.items():
        place = min(REWARD_BARS - 1, int((reward - low) / width)) if width > 0 else 0
        bar = bars.setdefault(place, [reward, reward, 0])
        bar[1], bar[2] = reward, bar[2] + count
    return [bars.get(n, [low + n * width, low + n * width, 0]) for n in range(REWARD_BARS)]


def completion_view(row: Row, place: int, limit: int) -> Row:
    """One completion for the page: at most `limit` characters in pieces, verdict, group, counts."""
    puzzle, text = puzzle_of(row), text_of(row)
    behaviours = mean_behaviours([row])
    return {
        "place": place,
        "id": visible(str(row.get("id", ""))[:200]),
        "group": number(row.get("group")),
        "puzzle": puzzle and {"numbers": puzzle[0], "target": puzzle[1]},
        "prompt": visible(str(row.get("prompt", ""))[:4000]),
        "pieces": text_pieces(row, limit),
        "chars": len(text),
        "hidden": max(0, len(text) - limit),
        "tokens": number(row.get("tokens")),
        "finish": visible(str(row.get("finish", ""))[:20]),
        "reward": number(row.get("reward")),
        "advantage": number(row.get("advantage")),
        "correct": row.get("correct") is True,
        "recorded": has_tokens(row),
        "reason": visible(str(row.get("reason", ""))[:2000]),
        "damaged": wrong_types(row),
        "attempts": behaviours.get("attempts"),
        "checks": behaviours.get("checks"),
        "backtracks": behaviours.get("backtracks"),
    }


def groups_page(index: CompletionIndex, start: int, count: int = 64) -> Row:
    """One page of a step's groups: one line for each, with a cell for every completion.

    A completion without a group, as in a held-out test, is a group of its own.
    """
    groups: dict[int, list[IndexEntry]] = {}
    for entry in index.entries:
        groups.setdefault(entry.place if entry.group is None else entry.group, []).append(entry)
    on_page = list(groups.items())[start : start + count]
    first_rows = index.rows([entries[0] for _, entries in on_page])
    lines = []
    for (group, entries), row in zip(on_page, first_rows, strict=True):
        puzzle = puzzle_of(row)
        cells = [[e.place, e.correct, e.reward, e.advantage, e.tokens] for e in entries]
        lines.append(
            {
                "group": group,
                "puzzle": puzzle and {"numbers": puzzle[0], "target": puzzle[1]},
                "prompt": visible(str(row.get("prompt", ""))[:200]),
                "cells": cells,
                "recorded": any(entry.has_tokens for entry in entries),
            }
        )
    page = {"groups": len(groups), "start": start, "page": count, "lines": lines}
    page["rewards"] = reward_bars(index.entries)
    return page | {"faults": index.faults()}


# -- pins ----------------------------------------------------------------------------------------

MAX_PINS = 50
_PIN = re.compile(r"([a-z_0-9]{1,40}):([0-9]{1,9})")


class PinnedRow(NamedTuple):
    """A pinned completion: its file, its place in the file counted from 0, its row."""

    file: str
    place: int
    row: Row


def pinned_rows(run: RunFolder, pins: Sequence[str]) -> list[PinnedRow]:
    """The completion of each pin, in order and each once.

    Raises DataError for more than MAX_PINS pins, and for a pin that names no completion.
    """
    if len(pins) > MAX_PINS:
        raise DataError(f"{len(pins)} pins", f"at most {MAX_PINS}")
    cache, rows = IndexCache(), []
    for pin in dict.fromkeys(pins):
        match = _PIN.fullmatch(pin)
        file = run.completion_file(match[1]) if match else None
        index = cache.index(file) if file else None
        place = int(match[2]) if match else 0
        if match is None or index is None or place >= len(index.entries):
            raise DataError(
                f"the pin {pin[:60]!r}, which leads nowhere in {run.name}",
                "FILE:PLACE of a completion, counted from 0, such as after:12",
                f"FILE is one of {', '.join(abbreviated(run.completion_files()))}",
            )
        rows.append(PinnedRow(match[1], place, index.rows([index.entries[place]])[0]))
    return rows


def abbreviated(names: list[str]) -> list[str]:
    """The names, or the first three, "..." and the last."""
    return names if len(names) <= 4 else [*names[:3], "...", names[-1]]
