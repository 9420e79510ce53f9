"""Rows of problems from JSON lines, a JSON list or Parquet; each error names the file and the row.

What is no such file although it has the name of one (a pointer of Git LFS, a web page, an archive)
is refused as what it is.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from aha.core.errors import DataError, MissingExtra

MEDIA = ("images", "videos", "audios")
PARQUET, BOM = b"PAR1", b"\xef\xbb\xbf"  # editors write a BOM at either end, or twice
# (first bytes in lower case, what the file is, the fix)
IMPOSTORS = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the data itself", "git lfs pull"),
    (b"<!doctype", "a web page", "download the file itself, not the page that shows it"),
    (b"<html", "a web page", "download the file itself, not the page that shows it"),
    (b"<?xml", "an XML document, such as a server's error", "download the file again"),
    (b"\x1f\x8b", "compressed with gzip", "gunzip it"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unzstd it"),
    (b"bzh", "compressed with bzip2", "bunzip2 it"),
    (b"pk\x03\x04", "a zip archive", "unzip it"),
    (b"arrow1", "an Arrow file", "write it as Parquet"),
    (b"\xff\xfe", "UTF-16 text", "write it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "write it as UTF-8"),
)


@dataclass(frozen=True, slots=True)
class UnreadableRow:
    """A row that is no JSON, with the reason."""

    reason: str


def read_rows(
    path: Path, expected: str, columns: tuple[str, ...] | None = None
) -> Iterator[tuple[int, object]]:
    """(row number from 1, row) of a file; `UnreadableRow` in place of a line that is no JSON.

    `expected` says in errors what the file should hold; `columns` are all that is read of a Parquet
    file, as far as it has them, None for every one. Raises `DataError` for a file that cannot be
    read.
    """
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "no file" if not path.exists() else "no plain file"
        raise DataError(f"{path} is {kind}", expected, "check the path")
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise unreadable(path, error, expected) from error
    refuse_impostor(path, head, expected)
    if head.startswith(PARQUET) or path.suffix == ".parquet":
        return read_parquet(path, expected, columns)
    if head.removeprefix(BOM).lstrip()[:1] in (b"[", b"{"):
        rows = read_one_value(path, expected)
        if rows is not None:
            return iter(enumerate(rows, 1))
    return read_json_lines(path, expected)


def refuse_impostor(path: Path, head: bytes, expected: str) -> None:
    """Raises `DataError` for a file that begins like something else."""
    start = head.removeprefix(BOM).lstrip().lower()
    for signature, kind, fix in IMPOSTORS:
        if start.startswith(signature):
            raise DataError(f"{path} is {kind}", expected, fix)
    if path.suffix.lower() in (".csv", ".tsv") and start[:1] not in (b"{", b"["):
        raise DataError(f"{path} is a table of text", expected, "write its rows as JSON lines")


def read_one_value(path: Path, expected: str) -> list[object] | None:
    """The items of a file that is one JSON list, or one object with one list in it; None for JSON
    lines. Raises `DataError` for a value over many lines that is neither, or that is cut."""
    try:
        with path.open("rb") as file:
            first = read_json(file.readline().removeprefix(BOM).strip(), True)
        if not isinstance(first, list | UnreadableRow):
            return None
        value = json.loads(path.read_bytes().removeprefix(BOM).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        if not isinstance(first, UnreadableRow) or begins_a_row(path):
            return None
        raise DataError(
            f"{path} is no JSON: {error}",
            expected,
            "copy it again, if it was cut, or mend it there",
        ) from None
    except OSError as error:
        raise unreadable(path, error, expected) from error
    if isinstance(value, dict):
        lists = [member for member in value.values() if isinstance(member, list)]
        value = lists[0] if len(lists) == 1 else [value]
    return value if isinstance(value, list) else None


def begins_a_row(path: Path) -> bool:
    """Whether the first line is a row by its looks, {...}, and not the beginning of a value."""
    with path.open("rb") as file:
        line = file.readline().removeprefix(BOM).strip()
        return line[:1] == b"{" and (len(line) > 1 or not file.read(1))


def read_json_lines(path: Path, expected: str) -> Iterator[tuple[int, object]]:
    """(line number from 1, object) of every line that is not blank."""
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                text = line.removeprefix(BOM).strip().removesuffix(BOM)
                if text:
                    yield number, read_json(text, line.endswith(b"\n"))
    except OSError as error:
        raise unreadable(path, error, expected) from error


def read_json(line: bytes, ended: bool) -> object:
    """One line as a JSON value, or why it is none; `ended` says whether a line break followed."""
    try:
        value: object = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return UnreadableRow(f"byte {error.start} is no UTF-8")
    except RecursionError:
        return UnreadableRow("nested too deep")
    except ValueError as error:
        if not ended and line.startswith(b"{") and not line.endswith(b"}"):
            return UnreadableRow("the file ends within this row: it was cut, copy it again")
        return UnreadableRow(f"no JSON object: {error}")
    return value


def read_parquet(
    path: Path, expected: str, columns: tuple[str, ...] | None
) -> Iterator[tuple[int, object]]:
    """(row number from 1, row as a dict). Raises `MissingExtra` without pyarrow."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtra("pyarrow", "parquet") from error
    try:
        file = parquet.ParquetFile(path)
        names = [n for n in file.schema_arrow.names if columns is None or n in columns]
        if not names:
            has = f"the columns {', '.join(file.schema_arrow.names)[:80]}"
            raise DataError(f"{path} with {has}", expected, "rename the columns")
        table = file.read(columns=names)
        for place, field in enumerate(table.schema):
            # As text a float32 has the digits that were meant: 0.1, not 0.10000000149011612.
            if field.type in (pyarrow.float16(), pyarrow.float32()):
                column = table.column(place).cast(pyarrow.float32()).cast(pyarrow.string())
                table = table.set_column(place, field.name, column)
        rows = table.to_pylist()
    except (pyarrow.ArrowException, KeyError, OSError) as error:
        raise unreadable(path, error, expected) from error
    yield from enumerate(rows, 1)


def unreadable(path: Path, error: Exception, expected: str) -> DataError:
    """The error for a file that exists and cannot be read, in one line."""
    reason = (str(error) or type(error).__name__).split("\n")[0]
    return DataError(f"{path}: {reason}", expected, "write the file again, or choose another")


# -- cells ----------------------------------------------------------------------------------


def cell_text(cell: Any) -> str | None:
    """A cell as text, numbers exactly as they are written; None for one that holds nothing (null,
    NaN, an empty text) or no text (a bool, a table)."""
    if isinstance(cell, list | tuple) and len(cell) == 1:
        cell = cell[0]
    if isinstance(cell, bytes):
        cell = cell.decode("utf-8", errors="replace")
    if isinstance(cell, str):
        return cell if cell.strip() and is_utf8(cell) else None
    if isinstance(cell, bool) or not isinstance(cell, int | float | Decimal):
        return None
    return str(cell) if math.isfinite(cell) else None


def is_utf8(text: str) -> bool:
    """Whether no half of a surrogate pair stands alone in the text: it could not be written."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def verl_truth(row: Mapping[str, Any]) -> Any:
    """veRL's `reward_model.ground_truth` of a row, None without one. A table that is written as
    JSON, so that files of several tasks have one type, is that table."""
    model = row.get("reward_model")
    truth = model.get("ground_truth") if isinstance(model, dict) else None
    if isinstance(truth, str) and truth.lstrip().startswith("{"):
        try:
            table = json.loads(truth)
        except (ValueError, RecursionError):
            return truth
        return table if isinstance(table, dict) else truth
    return truth


def media_of(row: Mapping[str, Any]) -> str | None:
    """The column of a row that holds pictures, films or sounds, by veRL's and TRL's names."""
    return next((name for name in MEDIA if row.get(name)), None)


def last_message(cell: Any) -> Any:
    """The content of the user's last message where a cell is a chat; any other cell as it is."""
    if not isinstance(cell, list) or not all(isinstance(message, dict) for message in cell):
        return cell
    users = [message.get("content") for message in cell if message.get("role") == "user"]
    content = users[-1] if users else None
    if isinstance(content, list):  # parts of a message
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "\n".join(text for text in texts if isinstance(text, str))
    return content


def plain_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with JSON's types alone. Parquet has more: times, decimals and bytes become text."""
    return {str(name): plain_cell(cell) for name, cell in row.items()}


def plain_cell(cell: Any) -> Any:
    if cell is None or isinstance(cell, str | int | float):
        return cell
    if isinstance(cell, Mapping):
        return plain_row(cell)
    if isinstance(cell, list | tuple):
        return [plain_cell(inner) for inner in cell]
    return cell.decode("utf-8", "replace") if isinstance(cell, bytes) else str(cell)
