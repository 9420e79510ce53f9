"""Completions that a reader has pinned for the report: `step_000040:12` is the 13th line of a file.

A pin is an address and nothing else. The page keeps its pins in the browser and sends them with the
request for the report, so the dashboard never writes to a run folder.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from aha.core.errors import DataError
from aha.web.completions import IndexCache
from aha.web.event_spans import Row
from aha.web.runs import RunFolder

MAX_PINS = 50
_PIN = re.compile(r"([a-z_0-9]{1,40}):([0-9]{1,9})")


class PinnedRow(NamedTuple):
    """A completion that was pinned: its file, its place in it counted from 0, its row."""

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
        path = run.completion_file(match[1]) if match else None
        index = cache.index(path) if path else None
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
