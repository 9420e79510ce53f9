"""Append-only JSON lines, which can be read while another process writes."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def append(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append rows in one write, so that a reader sees whole lines."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    with path.open("a", encoding="utf-8") as out:
        out.write(text)


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file; none where it does not exist. A last line that is still being written and
    lines that are no JSON are left out."""
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
    """Remove an unfinished last line: the next row would become part of it and be lost."""
    if not path.exists():
        return
    with path.open("rb+") as lines:
        content = lines.read()
        lines.truncate(content.rfind(b"\n") + 1)


def truncate_after(path: Path, key: str, last: int) -> None:
    """Remove the rows that a crashed run wrote after its checkpoint, whose `key` is larger than
    `last`, and an unfinished last line, which the next row would become part of."""
    if not path.exists():
        return
    kept = [row for row in read_rows(path) if row.get(key, 0) <= last]
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    os.replace(partial, path)
