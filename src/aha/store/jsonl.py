"""Append-only JSON lines: written whole, read while another process writes."""

import json
import os
from collections.abc import Iterator
from pathlib import Path


def append(path: Path, rows: list[dict]) -> None:
    """Append rows in one write, so that a reader meets whole lines."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    with path.open("a", encoding="utf-8") as out:
        out.write(text)


def read_rows(path: Path) -> Iterator[dict]:
    """The rows of a file; a last line that is still being written is left out."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.endswith("\n"):
                try:
                    yield json.loads(line)
                except ValueError:
                    continue


def drop_half_line(path: Path) -> None:
    """Cut off a last line that was not finished: what is appended would be lost in it."""
    if not path.exists():
        return
    with path.open("rb+") as lines:
        content = lines.read()
        lines.truncate(content.rfind(b"\n") + 1)


def truncate_after(path: Path, key: str, last: int) -> None:
    """Drop what a crashed run wrote after its checkpoint: rows whose `key` is beyond `last`, and
    a line that it did not finish, which would swallow the next row."""
    if not path.exists():
        return
    kept = [row for row in read_rows(path) if row.get(key, 0) <= last]
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    os.replace(partial, path)
