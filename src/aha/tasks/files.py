"""Rows of problems from JSON lines or Parquet; each error names the file and the row."""

import json
from collections.abc import Iterator
from pathlib import Path

from aha.core.errors import DataError, MissingExtra


def read_rows(
    path: Path, expected: str, columns: tuple[str, ...] | None = None
) -> Iterator[tuple[int, object]]:
    """(row number from 1, row) of a file.

    `expected` says in errors what the file should hold; `columns` are all that is read of a Parquet
    file, None for every one. Raises `DataError` for a file that cannot be read.
    """
    if not path.is_file():
        raise DataError(f"no file {path}", expected, "check task.data, or leave it out")
    if path.suffix == ".parquet":
        return read_parquet(path, expected, columns)
    return read_json_lines(path, expected)


def read_json_lines(path: Path, expected: str) -> Iterator[tuple[int, object]]:
    """(line number from 1, object) of every line that is not blank."""
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for number, text in enumerate(lines, 1):
                if text.strip():
                    yield number, read_json(text, f"{path}, row {number}", expected)
    except OSError as error:
        raise unreadable(path, error, expected) from error


def read_json(text: str, where: str, expected: str) -> object:
    """One JSON value; `where` names its place in errors."""
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        fix = "write one JSON object on each line"
        raise DataError(f"{where}: {error}", expected, fix) from error
    return value


def read_parquet(
    path: Path, expected: str, columns: tuple[str, ...] | None
) -> Iterator[tuple[int, object]]:
    """(row number from 1, row as a dict). Raises `MissingExtra` without pyarrow."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise MissingExtra("pyarrow", "parquet") from error
    try:
        table = parquet.read_table(path, columns=list(columns) if columns else None)
        rows = table.to_pylist()
    except (ArrowException, KeyError, OSError) as error:
        raise unreadable(path, error, expected) from error
    yield from enumerate(rows, 1)


def unreadable(path: Path, error: Exception, expected: str) -> DataError:
    """The error for a file that exists and cannot be read, in one line."""
    reason = str(error).split("\n")[0]
    return DataError(f"{path}: {reason}", expected, "write the file again, or choose another")
