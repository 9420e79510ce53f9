"""Data of every form becomes the same file of rows."""

import datetime
import decimal
import json
import math

import numpy as np
import pytest

from aha.api.data_files import data_files, numbers_or_texts
from aha.core.errors import DataError

ROWS = [{"prompt": "1+1=", "answer": 2}, {"prompt": "2+2=", "answer": 4}]


def rows_of(source, tmp_path, **options):
    path = data_files(source, None, options.get("columns"), tmp_path / "made").data
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_same_rows_are_the_same_file(tmp_path):
    one, other = (data_files(rows, None, None, tmp_path).data for rows in (ROWS, tuple(ROWS)))
    assert one == other and rows_of(ROWS, tmp_path) == ROWS
    assert data_files(ROWS[:1], None, None, tmp_path).data != one
    assert len(list(tmp_path.glob("*.jsonl"))) == 2


def test_files_that_tasks_read_are_read_where_they_are(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("{}")
    assert data_files(str(path), path, None, tmp_path) == (path, path)
    assert data_files(None, None, None, tmp_path) == (None, None)


def test_a_table_of_text_has_numbers_where_a_column_is_of_numbers(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('prompt,answer,code,share\n"1+1=, yes",2,007,0.5\n2+2=,4,1e3,\n')
    assert rows_of(path, tmp_path) == [
        {"prompt": "1+1=, yes", "answer": 2, "code": "007", "share": 0.5},
        {"prompt": "2+2=", "answer": 4, "code": "1e3", "share": None},
    ]
    path.with_suffix(".tsv").write_text("prompt\tanswer\n1+1=\t2\n")
    assert rows_of(path.with_suffix(".tsv"), tmp_path) == ROWS[:1]
    assert numbers_or_texts(["1", "-2", ""]) == [1, -2, None]
    assert numbers_or_texts(["1", "2.50"]) == [1.0, 2.5]
    assert numbers_or_texts(["1", "x"]) == ["1", "x"] and numbers_or_texts(["", ""]) == [None] * 2


@pytest.mark.parametrize("text", ["", "a,a\n1,2\n", "a,b\n1\n", 'a,b\n"1,2\n', "a\n\xff\n"])
def test_a_broken_table_is_refused(text, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError):
        rows_of(path, tmp_path)


def test_columns_are_renamed_and_a_missing_one_has_the_nearest_name(tmp_path):
    rows = [{"Question": "1+1=", "answer": 2}]
    assert rows_of(rows, tmp_path, columns={"Question": "prompt"}) == ROWS[:1]
    with pytest.raises(DataError, match=r"no column 'question'.*fix: columns=\{'Question'"):
        rows_of(rows, tmp_path, columns={"question": "prompt"})
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(rows[0]))
    assert rows_of(path, tmp_path, columns={"Question": "prompt"}) == ROWS[:1]


def test_cells_become_json(tmp_path):
    row = {
        "a": np.int64(3),
        "b": np.array([1, 2]),
        "c": decimal.Decimal("0.10"),
        "d": datetime.date(2026, 1, 2),
        "e": math.nan,
        "f": ({"x": np.float32(0.5)},),
        1: "half \ud800",
    }
    assert rows_of([row], tmp_path) == [
        {"a": 3, "b": [1, 2], "c": "0.10", "d": "2026-01-02", "e": None, "f": [{"x": 0.5}]}
        | {"1": "half \ud800"}
    ]


class Image:
    pass


@pytest.mark.parametrize(
    "source",
    [
        [],
        "nothing.jsonl",
        "openai/gsm8k",
        5,
        {"prompt": "x"},
        [1],
        ["text"],
        [{"image": Image()}],
        [{"raw": b"x"}],
    ],
)
def test_what_is_no_data_is_refused(source, tmp_path):
    with pytest.raises(DataError) as caught:
        rows_of(source, tmp_path)
    assert "\n" not in str(caught.value) and caught.value.fix


def test_a_cell_that_is_no_json_is_named_with_its_column(tmp_path):
    with pytest.raises(DataError, match="row 2, column 'image': a cell of type Image"):
        rows_of([{"image": "a"}, {"image": Image()}], tmp_path)


def test_a_name_on_the_hub_is_answered_with_the_line_that_loads_it(tmp_path):
    with pytest.raises(DataError, match=r"data=datasets.load_dataset\('openai/gsm8k'\)"):
        rows_of("openai/gsm8k", tmp_path)


def test_a_data_frame_is_read(tmp_path):
    pandas = pytest.importorskip("pandas", reason="needs the extra [pandas]")
    assert rows_of(pandas.DataFrame(ROWS), tmp_path) == ROWS


def test_what_is_missing_in_a_data_frame_is_null(tmp_path):
    pandas = pytest.importorskip("pandas", reason="needs the extra [pandas]")
    days = pandas.to_datetime(["2026-01-02", None])
    frame = pandas.DataFrame({"day": days, "n": pandas.array([None, 3], dtype="Int64")})
    assert rows_of(frame, tmp_path) == [
        {"day": "2026-01-02T00:00:00", "n": None},
        {"day": None, "n": 3},
    ]


def test_a_table_of_pyarrow_is_read(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra [parquet]")
    assert rows_of(pyarrow.Table.from_pylist(ROWS), tmp_path) == ROWS


def test_data_sets_of_hugging_face_are_read(tmp_path):
    datasets = pytest.importorskip("datasets", reason="needs the extra [bench]")
    train, test = (datasets.Dataset.from_list(rows) for rows in (ROWS, ROWS[:1]))
    assert rows_of(train, tmp_path) == ROWS
    assert rows_of(train.to_iterable_dataset(), tmp_path) == ROWS
    splits = datasets.DatasetDict({"train": train, "test": test})
    files = data_files(splits, None, None, tmp_path)
    assert [len(file.read_text().splitlines()) for file in files] == [2, 1]
    with pytest.raises(DataError, match="the split 'train'"):
        data_files(datasets.DatasetDict({"test": test}), None, None, tmp_path)
