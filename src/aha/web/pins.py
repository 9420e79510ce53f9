"""Completions that a reader has picked for the report: `step_000040:12` is the 13th line of a file.

A pin is an address and nothing else. The page keeps its own in the browser and names them to the
report, so that no run folder is ever written to.
"""

import re
from collections.abc import Sequence

from aha.core.errors import DataError
from aha.web.completions import IndexCache
from aha.web.runs import RunFolder

MOST_PINS = 50
_PIN = re.compile(r"([a-z_0-9]{1,40}):([0-9]{1,9})")


def pinned(run: RunFolder, pins: Sequence[str]) -> list[tuple[str, int, dict]]:
    """(file, place, row) of each pin in order. Raises DataError where one leads nowhere."""
    if len(pins) > MOST_PINS:
        raise DataError(f"{len(pins)} pins", f"at most {MOST_PINS}")
    shelf, found = IndexCache(), []
    for pin in dict.fromkeys(pins):
        match = _PIN.fullmatch(pin)
        path = match and run.completion_file(match[1])
        index = path and shelf.index(path)
        place = int(match[2]) if match else 0
        if not index or place >= len(index.entries):
            raise DataError(
                f"the pin {pin[:60]!r}, which leads nowhere in {run.name}",
                "FILE:PLACE of a completion, counted from 0, such as after:12",
                f"FILE is one of {', '.join(some(run.completion_files()))}",
            )
        found.append((match[1], place, index.rows([index.entries[place]])[0]))
    return found


def some(names: list[str]) -> list[str]:
    return names if len(names) <= 4 else [*names[:3], "...", names[-1]]
