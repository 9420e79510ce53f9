"""Data of any form as a file of rows: files, lists of dicts, tables of pandas, pyarrow, `datasets`.

A run reads its data from a file, so that it can be resumed, and a change of the data is noticed.
JSON lines and Parquet are read where they are; everything else is written as JSON lines, into a
file that has the name of its content, so that the same rows are the same file.
"""

import csv
import difflib
import hashlib
import json
import math
import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from aha.core.errors import DataError, shown
from aha.store.durable import disk_errors, write_text

EXPECTED = "a file (JSON lines, Parquet, CSV), a list of dicts, or a table of pandas or datasets"
TABLES = {".csv": ",", ".tsv": "\t"}
MAX_ROWS = 1_000_000
TEST_NAMES = ("test", "validation")  # of a DatasetDict, the better one first
WHOLE = re.compile(r"-?(?:0|[1-9]\d{0,17})")
DECIMAL = re.compile(r"-?(?:0|[1-9]\d{0,14})(?:\.\d{1,15})?")
Row = dict[str, Any]


class DataFiles(NamedTuple):
    """The file to train on, and one of tests where there is one."""

    data: Path | None
    test_data: Path | None


def data_files(
    data: object, test_data: object, columns: Mapping[str, str] | None, folder: Path
) -> DataFiles:
    """The files of the data; what is none is written into `folder`.

    Of a dict of splits, as `datasets.load_dataset` returns it, "train" is the data, and "test" or
    else "validation" are the tests. `columns` renames: {name in the data: new name}. Raises
    `DataError` for data that has no rows, and for a value that JSON cannot hold.
    """
    if is_splits(data):
        assert isinstance(data, Mapping), "`is_splits` says so"
        data, tests = chosen_splits(data)
        test_data = tests if test_data is None else test_data
    files = [
        None if source is None else file_of(source, columns or {}, folder, name)
        for name, source in (("data", data), ("test_data", test_data))
    ]
    return DataFiles(*files)


def is_splits(data: object) -> bool:
    """Whether it is a dict of tables."""
    return isinstance(data, Mapping) and any(hasattr(v, "column_names") for v in data.values())


def chosen_splits(data: Mapping[str, Any]) -> tuple[Any, Any]:
    """(the split to train on, that of tests or None)."""
    if "train" not in data:
        raise DataError(
            f"a dict with the splits {', '.join(map(str, data))}",
            "the split 'train'",
            f"data=splits[{next(iter(data))!r}]",
        )
    return data["train"], next((data[name] for name in TEST_NAMES if name in data), None)


def file_of(source: object, columns: Mapping[str, str], folder: Path, name: str) -> Path:
    """The file of a source of rows; `name` is its argument, for errors."""
    if isinstance(source, str | Path):
        path = Path(source)
        if path.suffix.lower() not in TABLES and not columns:
            check_there(path, name)
            return path
        rows = rows_of_file(path, name)
    else:
        rows = rows_of_object(source, name)
    texts = []
    for number, row in enumerate(renamed(rows, columns, name), 1):
        if number > MAX_ROWS:
            raise DataError(
                f"{name} with more than {MAX_ROWS:,} rows", "at most so many", "a part of them"
            )
        texts.append(json.dumps(json_row(row, number, name), allow_nan=False))
    if not texts:
        raise DataError(f"{name} without a row", EXPECTED, "add at least one row")
    content = "\n".join(texts) + "\n"
    digest = hashlib.sha256(content.encode()).hexdigest()
    path = folder / f"{digest[:16]}.jsonl"
    if not path.exists():
        with disk_errors(f"write {path}"):
            folder.mkdir(parents=True, exist_ok=True)
        own = folder / f"{digest[:16]}.{os.getpid()}-{threading.get_ident()}"  # others may write it
        write_text(own, content)
        os.replace(own, path)
    return path


def check_there(path: Path, name: str) -> None:
    """Raises `DataError` for a file that is missing."""
    if path.is_file():
        return
    hub = len(path.parts) == 2 and not path.suffix and not path.is_absolute()
    fix = f"{name}=datasets.load_dataset({str(path)!r})" if hub else f"check the path in {name}="
    raise DataError(f"{name}={str(path)!r}: no such file", EXPECTED, fix)


# -- rows ------------------------------------------------------------------------------------


def rows_of_object(source: Any, name: str) -> Iterator[Row]:
    """The rows of a list of dicts, a DataFrame, a table of pyarrow or a data set of `datasets`.

    Raises `DataError` for anything else.
    """
    rows: Any = source
    if hasattr(source, "to_pylist"):
        rows = source.to_pylist()
    elif hasattr(source, "to_dict") and hasattr(source, "iterrows"):
        rows = source.to_dict(orient="records")
    if isinstance(rows, Mapping | str | bytes) or not isinstance(rows, Iterable):
        raise DataError(f"{name}={shown(source)}", EXPECTED, f"{name}=[{{'prompt': ...}}, ...]")
    for number, row in enumerate(islice(rows, MAX_ROWS + 1), 1):
        if not isinstance(row, Mapping):
            raise DataError(
                f"{name}, row {number}: {shown(row)}",
                "a dict with columns",
                f"{name}=[{{'prompt': ...}}, ...]",
            )
        yield dict(row)


def rows_of_file(path: Path, name: str) -> Iterator[Row]:
    """The rows of a CSV file, or of one that the tasks read themselves."""
    from aha.tasks.files import UnreadableRow, read_rows

    check_there(path, name)
    if path.suffix.lower() in TABLES:
        yield from read_table(path, TABLES[path.suffix.lower()])
        return
    for number, row in read_rows(path, EXPECTED):
        if isinstance(row, UnreadableRow) or not isinstance(row, dict):
            reason = row.reason if isinstance(row, UnreadableRow) else "no object with columns"
            raise DataError(f"{path}, row {number}: {reason}", EXPECTED, f"mend row {number}")
        yield row


def read_table(path: Path, delimiter: str) -> list[Row]:
    """The rows of a CSV file with a header.

    An empty cell is None. A column is of numbers where all of its cells are, as they are usually
    written (no leading zero, no exponent); else of texts.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = [line for line in csv.reader(file, delimiter=delimiter, strict=True) if line]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}", "a CSV file in UTF-8", "write it again") from error
    if not lines:
        raise DataError(f"{path} is empty", "a CSV file with a header", "add at least one row")
    header, *body = lines
    if len(set(header)) < len(header):
        raise DataError(f"{path}: two columns of one name: {header}", "one name each", "rename one")
    for number, line in enumerate(body, 1):
        if len(line) != len(header):
            raise DataError(
                f"{path}, row {number}: {len(line)} cells under {len(header)} names",
                "a cell for each name",
                "put cells with a comma between quotes",
            )
    columns = {name: numbers_or_texts([line[i] for line in body]) for i, name in enumerate(header)}
    return [{name: column[i] for name, column in columns.items()} for i in range(len(body))]


def numbers_or_texts(cells: list[str]) -> list[Any]:
    """A column of texts as `read_table` reads it."""
    filled = [cell for cell in cells if cell]
    kind: Any = str
    if filled and all(map(WHOLE.fullmatch, filled)):
        kind = int
    elif filled and all(map(DECIMAL.fullmatch, filled)):
        kind = float
    return [kind(cell) if cell else None for cell in cells]


def renamed(rows: Iterable[Row], columns: Mapping[str, str], name: str) -> Iterator[Row]:
    """The rows with other names for some columns. Raises `DataError` for a column that the first
    row does not have, with the nearest name."""
    for number, row in enumerate(rows, 1):
        for old in columns if number == 1 else ():
            if old not in row:
                near = difflib.get_close_matches(str(old), [str(key) for key in row], 1, 0.4)
                raise DataError(
                    f"columns={dict(columns)!r}, and {name} has no column {old!r}",
                    f"one of its columns: {', '.join(map(str, row))}",
                    f"columns={{{near[0]!r}: {columns[old]!r}}}" if near else "name one of them",
                )
        yield {columns.get(key, key): cell for key, cell in row.items()}


# -- cells -----------------------------------------------------------------------------------


def json_row(row: Row, number: int, name: str) -> Row:
    """The row in types that JSON has. Raises `DataError` for a cell that has no such form."""
    cells = {}
    for column, cell in row.items():
        try:
            cells[str(column)] = json_cell(cell)
        except (TypeError, ValueError, RecursionError) as error:
            raise DataError(
                f"{name}, row {number}, column {str(column)!r}: {error or 'nested too deep'}",
                "texts, numbers, lists and dicts",
                f"drop the column, or make {str(column)!r} a text",
            ) from None
    return cells


def json_cell(cell: Any) -> Any:
    """A cell as JSON can hold it: what NumPy has as Python's own, a date as text, NaN as null.

    Raises `TypeError` for anything else, such as an image.
    """
    if hasattr(cell, "tolist") and hasattr(cell, "dtype"):
        cell = cell.tolist()
    if cell is None or isinstance(cell, str | bool | int):
        return cell
    if isinstance(cell, float):
        return cell if math.isfinite(cell) else None
    # Of pandas, for what is missing. First: NaT is a datetime as well, one whose text is "NaT".
    if type(cell).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(cell, Decimal | date | datetime | time):
        return cell.isoformat() if not isinstance(cell, Decimal) else str(cell)
    if isinstance(cell, Mapping):
        return {str(key): json_cell(inner) for key, inner in cell.items()}
    if isinstance(cell, list | tuple):
        return [json_cell(inner) for inner in cell]
    raise TypeError(f"a cell of type {type(cell).__name__}")
