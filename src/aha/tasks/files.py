"""Rows of problems from JSON lines or Parquet, each error with the file and the row."""

import json
from collections.abc import Iterator
from pathlib import Path

from aha.core.errors import DataError, MissingExtra


def read_rows(
    path: Path, wanted: str, columns: tuple[str, ...] | None = None
) -> Iterator[tuple[int, object]]:
    """(row number from 1, row) of a file. `wanted` says in errors what the file should hold;
    `columns` are all that is read of a Parquet file, None for every one."""
    if not path.is_file():
        raise DataError(f"no file {path}", wanted, "check task.data, or leave it out")
    if path.suffix == ".parquet":
        return read_parquet(path, wanted, columns)
    return read_json_lines(path, wanted)


def read_json_lines(path: Path, wanted: str) -> Iterator[tuple[int, object]]:
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for place, text in enumerate(lines, 1):
                if text.strip():
                    yield place, read_json(text, f"{path}, row {place}", wanted)
    except OSError as error:
        raise unreadable(path, error, wanted) from error


def read_json(text: str, where: str, wanted: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        fix = "write one JSON object on each line"
        raise DataError(f"{where}: {error}", wanted, fix) from error


def read_parquet(
    path: Path, wanted: str, columns: tuple[str, ...] | None
) -> Iterator[tuple[int, object]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise MissingExtra("pyarrow", "parquet") from error
    try:
        table = parquet.read_table(path, columns=list(columns) if columns else None)
        rows = table.to_pylist()
    except (ArrowException, KeyError, OSError) as error:
        raise unreadable(path, error, wanted) from error
    yield from enumerate(rows, 1)


def unreadable(path: Path, error: Exception, wanted: str) -> DataError:
    """A file that is there and cannot be read, in one line."""
    reason = str(error).split("\n")[0]
    return DataError(f"{path}: {reason}", wanted, "write the file again, or choose another")
