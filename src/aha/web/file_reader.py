"""Reads files that another process is writing: JSON lines by byte offset, JSON files up to a size.

The contents of a file never raise an error. A missing file is empty, an unfinished last line is
left for the next read, a line that is no JSON object is counted and skipped.
"""

import json
import math
import os
from pathlib import Path
from typing import Any, BinaryIO

MAX_JSON_BYTES = 8_000_000
PART_BYTES = 32_000_000  # of one read: a huge file takes several
KEPT_BYTES = 128


class LastBytes:
    """The last bytes that were read, to distinguish a rewritten file from one that has grown.

    Size and inode are not enough: a rewritten file may be longer than before, and the system may
    give it the same inode number.
    """

    def __init__(self) -> None:
        self.data = b""

    def precede(self, source: BinaryIO, offset: int) -> bool:
        """Whether the bytes before `offset` are still those that were read there."""
        source.seek(offset - len(self.data))
        return source.read(len(self.data)) == self.data

    def append(self, data: bytes) -> None:
        """Note that `data` was read."""
        self.data = (self.data + data[-KEPT_BYTES:])[-KEPT_BYTES:]


class JsonLines:
    """A growing file of JSON lines; each read continues where the last one ended."""

    def __init__(self, path: Path, offset: int = 0):
        self.path, self.offset = path, offset
        self.broken = 0  # lines that are no JSON object
        self.unfinished = False  # the last read met a line without an end
        self._last_bytes = LastBytes()

    def read_new(self) -> tuple[list[dict[str, Any]], bool]:
        """(new rows, whether the file was rewritten, so that all earlier rows are void).

        A resumed run truncates its files, and may have written beyond the old end by now.
        """
        try:
            with self.path.open("rb") as source:
                size = os.fstat(source.fileno()).st_size
                rewritten = size < self.offset or not self._last_bytes.precede(source, self.offset)
                if rewritten:
                    self.offset, self.broken, self._last_bytes = 0, 0, LastBytes()
                source.seek(self.offset)
                data = source.read(PART_BYTES)
        except OSError:
            rewritten = self.offset > 0
            self.offset, self._last_bytes, self.unfinished = 0, LastBytes(), False
            return [], rewritten
        end = data.rfind(b"\n") + 1
        self.unfinished = end < len(data)
        if not end and len(data) == PART_BYTES:
            end = len(data)  # skip a line longer than a whole part: no run writes one
        self.offset += end
        self._last_bytes.append(data[:end])
        parsed = [row_of(line) for line in data[:end].splitlines()]
        rows = [row for row in parsed if row is not None]
        self.broken += len(parsed) - len(rows)
        return rows, rewritten

    def read_all(self) -> list[dict[str, Any]]:
        """Every row that has not been read yet."""
        rows: list[dict[str, Any]] = []
        while new := self.read_new()[0]:
            rows += new
        return rows


def row_of(line: bytes) -> dict[str, Any] | None:
    """One line as an object; None where it is none."""
    try:
        row = json.loads(line.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def all_rows(path: Path) -> list[dict[str, Any]]:
    """Every finished row of a file."""
    return JsonLines(path).read_all()


def last_row(path: Path, tail: int = 65_536) -> dict[str, Any] | None:
    """The newest finished row, from the last `tail` bytes of the file."""
    try:
        with path.open("rb") as source:
            size = os.fstat(source.fileno()).st_size
            source.seek(max(0, size - tail))
            finished = source.read().rpartition(b"\n")[0]
    except OSError:
        return None
    rows = (row_of(line) for line in reversed(finished.splitlines()))
    return next((row for row in rows if row is not None), None)


def end_of(path: Path, tail: int = 65_536) -> int:
    """The offset after the last finished line, from the last `tail` bytes of the file."""
    try:
        with path.open("rb") as source:
            size = os.fstat(source.fileno()).st_size
            start = source.seek(max(0, size - tail))
            end = source.read().rfind(b"\n") + 1
    except OSError:
        return 0
    return start + end if end or not start else size


def spread_rows(path: Path, count: int) -> list[dict[str, Any]]:
    """About `count` rows spread over a file, without reading the rest: enough for a small plot."""
    try:
        with path.open("rb") as source:
            size = os.fstat(source.fileno()).st_size
            rows: list[dict[str, Any]] = []
            for part in range(count):
                source.seek(size * part // count)
                if part:
                    source.readline()
                line = source.readline()
                row = row_of(line) if line.endswith(b"\n") else None
                if row is not None and (not rows or rows[-1] != row):
                    rows.append(row)
            return rows
    except OSError:
        return []


def read_object(path: Path) -> dict[str, Any] | None:
    """A JSON file as an object; None where it is missing, too large, unreadable or no object."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            return None
        return row_of(path.read_bytes())
    except OSError:
        return None


def number(value: object) -> float | None:
    """A finite number, or None: JSON has no NaN, and a curve has a gap there."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # an integer beyond the range of floats
        return None


def dumps(content: object) -> bytes:
    """JSON for a browser. ASCII only: a lone surrogate from a broken file has no UTF-8."""
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
