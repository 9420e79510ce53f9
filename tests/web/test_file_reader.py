import json

from aha.web.file_reader import dumps, end_of, last_row, spread_rows


def test_a_missing_file_is_empty(tmp_path):
    gone = tmp_path / "gone"
    assert spread_rows(gone, 3) == [] and last_row(gone) is None and end_of(gone) == 0


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


def test_json_for_the_browser_survives_nan_and_lone_surrogates():
    content = json.loads(dumps({"a": [float("nan"), 1.0], "b": "\ud800"}))
    assert content == {"a": [None, 1.0], "b": "\ud800"}
