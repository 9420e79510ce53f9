"""What is no file of problems although it has the name of one."""

import json
from pathlib import Path

import pytest

from aha.core.errors import DataError
from aha.tasks.files import UnreadableRow, cell_text, read_rows

ROW = b'{"question": "a", "answer": "1"}'


def rows_of(path) -> list:
    return list(read_rows(path, "JSON lines"))


@pytest.mark.parametrize(
    ("content", "words", "fix"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "web page", "download"),
        (b"<HTML>", "web page", "download"),
        (b"<?xml version='1.0'?><Error/>", "XML", "again"),
        (b"\x1f\x8b\x08\x00", "gzip", "gunzip"),
        (b"PK\x03\x04", "zip", "unzip"),
        (ROW.decode().encode("utf-16"), "UTF-16", "UTF-8"),
    ],
)
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_an_impostor_is_named(tmp_path, content, words, fix, kind):
    path = tmp_path / f"rows.{kind}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        rows_of(path)
    assert fix in caught.value.fix and str(path) in caught.value.got


def test_a_table_of_text_is_named(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("question,answer\na,1\n")
    with pytest.raises(DataError, match="a table of text"):
        rows_of(path)


def test_parquet_under_another_name_is_read(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "rows.jsonl"
    parquet.write_table(pyarrow.Table.from_pylist([{"a": 1}]), path)
    assert rows_of(path) == [(1, {"a": 1})]


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf" + ROW, ROW + b"\xef\xbb\xbf\r\n", ROW])
def test_a_byte_order_mark_is_no_part_of_a_row(tmp_path, content):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    assert rows_of(path) == [(1, {"question": "a", "answer": "1"})]


def test_a_list_over_many_lines(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"a": 1}, {"a": 2}], indent=2), encoding="utf-8-sig")
    assert rows_of(path) == [(1, {"a": 1}), (2, {"a": 2})]


def test_the_last_row_of_a_file_that_was_cut(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(ROW + b"\n" + ROW[:-8])
    (_, first), (number, last) = rows_of(path)
    assert first == json.loads(ROW) and number == 2
    assert last == UnreadableRow("the file ends within this row: it was cut, copy it again")


@pytest.mark.parametrize(
    ("cell", "text"),
    [(3, "3"), (1e-05, "1e-05"), ("x", "x"), ([3], "3"), (b"x", "x"), (10**30, "1" + "0" * 30)]
    + [(None, None), (True, None), (float("nan"), None), ("", None), ([], None), ({}, None)]
    + [(float("inf"), None), ("\ud800", None), ([1, 2], None), ("NaN", "NaN")],
)
def test_cells(cell, text):
    assert cell_text(cell) == text


@pytest.mark.parametrize("cut", ['[\n {"a": 1},\n {"a"', "[", '{\n "a": 1'])
def test_a_value_over_many_lines_that_was_cut(tmp_path, cut):
    path = tmp_path / "rows.json"
    path.write_text(cut)
    with pytest.raises(DataError, match="is no JSON"):
        rows_of(path)


def test_an_object_with_one_list_in_it(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"version": 1, "data": [{"a": 1}, {"a": 2}]}, indent=1))
    assert rows_of(path) == [(1, {"a": 1}), (2, {"a": 2})]
    path.write_text(json.dumps({"question": "a", "answer": 1}, indent=1))
    assert rows_of(path) == [(1, {"question": "a", "answer": 1})]


def test_what_is_no_plain_file(tmp_path):
    with pytest.raises(DataError, match="is a folder"):
        rows_of(tmp_path)
    with pytest.raises(DataError, match="is no file"):
        rows_of(tmp_path / "nowhere")
    with pytest.raises(DataError, match="is no plain file"):
        rows_of(Path("/dev/zero"))
