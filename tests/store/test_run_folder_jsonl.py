"""Append-only JSON lines: what a reader sees while, and after, a writer dies half-way."""

import json

from aha.store.run_folder import append, drop_half_line, read_rows, truncate_after


def steps(path) -> list[int]:
    return [row["step"] for row in read_rows(path)]


def test_rows_come_back_in_order_and_unchanged(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"step": 1, "text": 'a\n"b" \u2028 é \ud800'}, {"step": 2, "rate": 0.1 + 0.2}]
    append(path, rows[:1])
    append(path, rows[1:])
    append(path, [])
    assert list(read_rows(path)) == rows
    assert len(path.read_text().splitlines()) == 2


def test_a_file_that_is_not_there_has_no_rows(tmp_path):
    assert list(read_rows(tmp_path / "none.jsonl")) == []


def test_a_line_still_being_written_is_left_out(tmp_path):
    path = tmp_path / "rows.jsonl"
    append(path, [{"step": 1}, {"step": 2}])
    whole = path.read_bytes()
    for cut in range(1, len('{"step": 2}\n')):
        path.write_bytes(whole[:-cut])
        assert steps(path) == [1], whole[:-cut]


def test_a_file_beyond_the_limit_of_pages_is_read_to_its_end(tmp_path, monkeypatch):
    """Rows that are left out of a file of our own would be made, and paid for, again."""
    monkeypatch.setattr("aha.store.guarded_files.MAX_READ_BYTES", 100)
    monkeypatch.setattr("aha.store.guarded_files.PART_BYTES", 64)
    append(tmp_path / "rows.jsonl", [{"step": i} for i in range(40)])
    assert steps(tmp_path / "rows.jsonl") == list(range(40))


def test_a_damaged_line_does_not_hide_the_others(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"step": 1}\n{"st\xff\xfe\n\n{"step": 3}\n')
    assert steps(path) == [1, 3]


def test_truncate_drops_what_came_after(tmp_path):
    path = tmp_path / "rows.jsonl"
    append(path, [{"step": n} for n in range(1, 8)])
    truncate_after(path, "step", 4)
    assert steps(path) == [1, 2, 3, 4]
    truncate_after(path, "step", 9)
    assert steps(path) == [1, 2, 3, 4]


def test_truncate_of_a_missing_file_makes_none(tmp_path):
    truncate_after(tmp_path / "none.jsonl", "step", 4)
    assert list(tmp_path.iterdir()) == []


def test_after_truncate_a_half_written_line_does_not_swallow_the_next_row(tmp_path):
    """The crash came in the middle of a write, and the run is resumed."""
    path = tmp_path / "rows.jsonl"
    append(path, [{"step": 1}, {"step": 2}])
    with path.open("a") as out:
        out.write('{"step": 3, "rew')
    truncate_after(path, "step", 2)
    append(path, [{"step": 3}])
    assert steps(path) == [1, 2, 3]
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]


def test_a_half_line_is_cut_off(tmp_path):
    path = tmp_path / "rows.jsonl"
    drop_half_line(path)
    assert not path.exists()
    path.write_text('{"a": 1}\n{"a": ')
    drop_half_line(path)
    append(path, [{"a": 2}])
    assert list(read_rows(path)) == [{"a": 1}, {"a": 2}]
    drop_half_line(path)
    assert list(read_rows(path)) == [{"a": 1}, {"a": 2}]
