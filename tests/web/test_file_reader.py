import json

import pytest

from aha.web.file_reader import (
    JsonLines,
    all_rows,
    dumps,
    last_row,
    number,
    read_object,
    spread_rows,
)


def test_a_growing_file_is_read_on_from_where_the_last_look_ended(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"a": 1}\n')
    lines = JsonLines(path)
    assert lines.read_new() == ([{"a": 1}], False)
    with path.open("a") as out:
        out.write('{"a": 2}\n{"a": 3')
    assert lines.read_new() == ([{"a": 2}], False) and lines.unfinished
    with path.open("a") as out:
        out.write("}\n")
    assert lines.read_new() == ([{"a": 3}], False) and not lines.unfinished
    assert lines.read_new() == ([], False)


@pytest.mark.parametrize("how", ["shorter", "another file"])
def test_a_file_that_was_cut_back_begins_anew(tmp_path, how):
    path = tmp_path / "m.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n')
    lines = JsonLines(path)
    lines.read_new()
    if how == "shorter":
        path.write_text('{"a": 1}\n')
    else:
        (tmp_path / "other").write_text('{"a": 1}\n{"a": 9}\n{"a": 9}\n')
        (tmp_path / "other").replace(path)
    rows, rewritten = lines.read_new()
    assert rewritten and rows[0] == {"a": 1}


def test_strange_lines_are_counted_and_passed_over(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'nonsense\n[1]\n\xff\xfe\n{"a": 1}\n\n' + b"[" * 100_000 + b'\n{"a": 2}\n')
    lines = JsonLines(path)
    assert lines.read_all() == [{"a": 1}, {"a": 2}]
    assert lines.broken == 5


def test_a_missing_file_is_empty(tmp_path):
    gone = tmp_path / "gone"
    assert JsonLines(gone).read_new() == ([], False)
    assert all_rows(gone) == spread_rows(gone, 3) == []
    assert last_row(gone) is None and read_object(gone) is None


def test_last_row_leaves_out_a_half_line_and_a_broken_one(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\nnonsense\n{"a": 3')
    assert last_row(path) == {"a": 2}
    assert last_row(path, tail=4) is None


def test_spread_rows_begin_at_the_first_and_stay_in_order(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text("".join(f'{{"a": {i}}}\n' for i in range(1000)))
    found = [row["a"] for row in spread_rows(path, 10)]
    assert found[0] == 0 and found == sorted(found) and len(found) == 10 and found[-1] >= 890


def test_numbers_are_finite_or_none():
    assert [number(x) for x in (1, 2.5, True, "3", None, float("nan"), float("inf"))] == [
        *(1, 2.5),
        *[None] * 5,
    ]
    assert number(10**400) is None


def test_json_for_the_browser_survives_nan_and_lone_surrogates():
    content = json.loads(dumps({"a": [float("nan"), 1.0], "b": "\ud800"}))
    assert content == {"a": [None, 1.0], "b": "\ud800"}
