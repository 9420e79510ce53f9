"""Small looks into files that another process is writing, and JSON for the browser.

The contents of a file never raise an error: a file that is missing or refused is empty here.
Files are read as a whole by `aha.store.guarded_files`, which says what could not be read.
"""

import json
import os
from pathlib import Path
from typing import Any

from aha.store.guarded_files import MAX_DEPTH, GuardedFile, number, row_of

TAIL_BYTES = 65_536


def tail_of(file: Path | GuardedFile, tail: int) -> tuple[int, bytes]:
    """(offset, content) of the last `tail` bytes of a file. Raises OSError."""
    with GuardedFile.of(file).open() as source:
        start = source.seek(max(0, os.fstat(source.fileno()).st_size - tail))
        return start, source.read(tail)


def last_row(
    file: Path | GuardedFile, tail: int = TAIL_BYTES, **values: str
) -> dict[str, Any] | None:
    """The newest finished row with these `values`, from the last `tail` bytes of the file."""
    try:
        finished = tail_of(file, tail)[1].rpartition(b"\n")[0]
    except OSError:
        return None
    rows = (row_of(line) for line in reversed(finished.splitlines()))
    return next((row for row in rows if row is not None and values.items() <= row.items()), None)


def end_of(file: Path | GuardedFile, tail: int = TAIL_BYTES) -> int:
    """The offset after the last finished line, from the last `tail` bytes of the file."""
    try:
        start, content = tail_of(file, tail)
    except OSError:
        return 0
    end = content.rfind(b"\n") + 1
    return start + end if end or not start else start + len(content)


def spread_rows(file: Path | GuardedFile, count: int) -> list[dict[str, Any]]:
    """About `count` rows spread over a file, without reading the rest: enough for a small plot."""
    try:
        with GuardedFile.of(file).open() as source:
            size = os.fstat(source.fileno()).st_size
            rows: list[dict[str, Any]] = []
            for part in range(count):
                source.seek(size * part // count)
                if part:
                    source.readline(TAIL_BYTES)
                line = source.readline(TAIL_BYTES)
                row = row_of(line) if line.endswith(b"\n") else None
                if row is not None and (not rows or rows[-1] != row):
                    rows.append(row)
            return rows
    except OSError:
        return []


def dumps(content: object) -> bytes:
    """JSON for a browser. ASCII only: a lone surrogate from a broken file has no UTF-8."""
    try:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, OverflowError):
        return json.dumps(_finite(content), separators=(",", ":")).encode()


def _finite(content: object, depth: int = 2 * MAX_DEPTH) -> object:
    if depth == 0:
        return None
    if isinstance(content, dict):
        return {str(key): _finite(value, depth - 1) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value, depth - 1) for value in content]
    if isinstance(content, float):
        return number(content)
    return content
