"""Reading what another process is writing: JSON lines by byte offset, JSON files with a limit.

Nothing here raises for what a file holds. A missing file is empty, a half-written last line is left
for the next look, a line that is no JSON object is counted and passed over.
"""

import json
import math
import os
from pathlib import Path
from typing import BinaryIO

MAX_JSON_BYTES = 8_000_000
PART_BYTES = 32_000_000  # of one look: a huge file is read over several
TAIL_BYTES = 128


class Tail:
    """The last bytes that were read, to know a file that was written anew by.

    Its size may have grown since, and its inode may be the old one: a freed number is given out
    again at once.
    """

    def __init__(self):
        self.seen = b""

    def fits(self, source: BinaryIO, offset: int) -> bool:
        """Whether the bytes in front of `offset` are those that were read there."""
        source.seek(offset - len(self.seen))
        return source.read(len(self.seen)) == self.seen

    def read(self, data: bytes) -> None:
        self.seen = (self.seen + data[-TAIL_BYTES:])[-TAIL_BYTES:]


class Lines:
    """A growing file of JSON lines, read on from where the last look ended."""

    def __init__(self, path: Path, offset: int = 0):
        self.path, self.offset = path, offset
        self.broken = 0
        self.half = False  # the last look met a line without an end
        self._tail = Tail()

    def more(self) -> tuple[list[dict], bool]:
        """(new rows, whether the file was rewritten, so that all before is void).

        A resumed run cuts its files back, and may have written beyond the old end by now.
        """
        try:
            with self.path.open("rb") as source:
                size = os.fstat(source.fileno()).st_size
                anew = size < self.offset or not self._tail.fits(source, self.offset)
                if anew:
                    self.offset, self.broken, self._tail = 0, 0, Tail()
                source.seek(self.offset)
                data = source.read(PART_BYTES)
        except OSError:
            anew = self.offset > 0
            self.offset, self._tail, self.half = 0, Tail(), False
            return [], anew
        end = data.rfind(b"\n") + 1
        self.half = end < len(data)
        if not end and len(data) == PART_BYTES:
            end = len(data)  # a line longer than a whole part is no line of ours
        self.offset += end
        self._tail.read(data[:end])
        rows = [row_of(line) for line in data[:end].splitlines()]
        kept = [row for row in rows if row is not None]
        self.broken += len(rows) - len(kept)
        return kept, anew

    def rest(self) -> list[dict]:
        """Every row that is left."""
        found: list[dict] = []
        while rows := self.more()[0]:
            found += rows
        return found


def row_of(line: bytes) -> dict | None:
    """One line as an object; None where it is none."""
    try:
        row = json.loads(line.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def all_rows(path: Path) -> list[dict]:
    """Every whole row of a file."""
    return Lines(path).rest()


def last_row(path: Path, tail: int = 65_536) -> dict | None:
    """The newest whole row, without reading the file."""
    try:
        with path.open("rb") as source:
            size = os.fstat(source.fileno()).st_size
            source.seek(max(0, size - tail))
            whole = source.read().rpartition(b"\n")[0]
    except OSError:
        return None
    rows = (row_of(line) for line in reversed(whole.splitlines()))
    return next((row for row in rows if row is not None), None)


def end_of(path: Path, tail: int = 65_536) -> int:
    """The offset behind the last whole line, without reading the file."""
    try:
        with path.open("rb") as source:
            size = os.fstat(source.fileno()).st_size
            start = source.seek(max(0, size - tail))
            end = source.read().rfind(b"\n") + 1
    except OSError:
        return 0
    return start + end if end or not start else size


def spread_rows(path: Path, count: int) -> list[dict]:
    """About `count` rows spread over a file, found by jumping: enough for a small picture of it."""
    try:
        with path.open("rb") as source:
            size = os.fstat(source.fileno()).st_size
            found = []
            for place in range(count):
                source.seek(size * place // count)
                if place:
                    source.readline()
                line = source.readline()
                row = row_of(line) if line.endswith(b"\n") else None
                if row is not None and (not found or found[-1] != row):
                    found.append(row)
            return found
    except OSError:
        return []


def read_object(path: Path) -> dict | None:
    """A JSON file as an object; None where it is missing, too large, unreadable or no object."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            return None
        return row_of(path.read_bytes())
    except OSError:
        return None


def number(value: object) -> float | None:
    """A finite number, or None: NaN is no JSON, and a curve has a gap there."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # an integer beyond the range of floats
        return None


def dumps(content: object) -> bytes:
    """JSON for a browser. ASCII alone: a lone surrogate out of a broken file has no UTF-8."""
    try:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, OverflowError):
        return json.dumps(_finite(content), separators=(",", ":")).encode()


def _finite(content: object) -> object:
    if isinstance(content, dict):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    if isinstance(content, float):
        return number(content)
    return content
