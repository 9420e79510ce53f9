"""Puzzles from files: the columns, and the rows that are refused or dropped."""

import json
from itertools import islice

import pytest

from aha.core.errors import DataError
from aha.tasks.catalog import make_task
from aha.tasks.countdown import puzzles
from aha.tasks.problem_lines import problem_row
from aha.tasks.puzzle_rows import load_puzzles

ROWS = [{"nums": list(n), "target": t} for n, t, _ in islice(puzzles("train", 7, (3, 4)), 30)]
PUZZLES = [(tuple(row["nums"]), row["target"]) for row in ROWS]


def written(tmp_path, rows, name="puzzles.jsonl"):
    """The rows as JSON lines, or as Parquet where the name says so."""
    path = tmp_path / name
    if path.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


FORMS = {
    "TinyZero": lambda row: row,
    "ours": lambda row: {"id": "x", "numbers": row["nums"], "target": row["target"]},
    "veRL": lambda row: {
        "data_source": "countdown",
        "reward_model": {"ground_truth": {"target": row["target"], "numbers": row["nums"]}},
    },
    "veRL with JSON": lambda row: {
        "data_source": "aha/countdown",
        "prompt": [{"role": "user", "content": "x"}],
        "reward_model": {
            "style": "rule",
            "ground_truth": json.dumps({"numbers": row["nums"], "target": row["target"]}),
        },
    },
    "numpy": lambda row: {**row, "nums": f"[{' '.join(map(str, row['nums']))}]"},
    "a list as text": lambda row: {**row, "nums": str(tuple(row["nums"]))},
}


@pytest.mark.parametrize("name", ["puzzles.jsonl", "puzzles.parquet"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read(tmp_path, form, name):
    path = written(tmp_path, [FORMS[form](row) for row in ROWS], name)
    assert load_puzzles(path) == (PUZZLES, [])


@pytest.mark.parametrize("name", ["puzzles.jsonl", "puzzles.parquet"])
def test_what_the_task_writes_it_reads(tmp_path, name):
    drawn = list(islice(make_task("countdown", {"numbers": (3, 4)}).problems("test", 0), 40))
    path = written(tmp_path, list(map(problem_row, drawn)), name)
    again = make_task("countdown", {"data": str(path)}).problems("all", 0)
    assert {p.id for p in again} == {p.id for p in drawn}


def test_the_same_puzzle_twice_is_read_once_and_counted(tmp_path):
    path = tmp_path / "twice.jsonl"
    path.write_text('{"nums": [3, 7], "target": 21}\n\n{"nums": [7, 3], "target": 21, "x": 1}\n')
    rows, (note,) = load_puzzles(path)
    assert rows == [((3, 7), 21)] and "row 3" in note.message and note.level == "ok"


BAD_LINES = {
    "not json": "hello",
    "cut off": '{"nums": [3, 7], "tar',
    "nested": "[" * 100_000,
    "a number": "3",
    "a list": "[3, 7, 21]",
    "no target": '{"nums": [3, 7]}',
    "no numbers": '{"target": 21}',
    "null": '{"nums": null, "target": 21}',
    "text": '{"nums": "three", "target": 21}',
    "text with a sign": '{"nums": "[-3 7]", "target": 21}',
    "a float": '{"nums": [3, 7.5], "target": 21}',
    "a float target": '{"nums": [3, 7], "target": 21.0}',
    "a bool": '{"nums": [true, 7], "target": 21}',
    "negative": '{"nums": [-3, 7], "target": 21}',
    "a negative target": '{"nums": [3, 7], "target": -4}',
    "zero": '{"nums": [3, 7], "target": 0}',
    "a zero among them": '{"nums": [0, 3, 7], "target": 21}',
    "nan": '{"nums": [3, 7], "target": NaN}',
    "one number": '{"nums": [21], "target": 21}',
    "seven numbers": '{"nums": [1, 2, 3, 4, 5, 6, 7], "target": 21}',
    "endless digits": '{"nums": [3, 7], "target": ' + "1" * 5000 + "}",
    "no solution": '{"nums": [1, 1, 1], "target": 40}',
    "bytes": b"\xff\xfe\x00\x01",
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_row_is_named_or_dropped_and_counted(tmp_path, name):
    path, line = tmp_path / "bad.jsonl", BAD_LINES[name]
    line = line if isinstance(line, bytes) else line.encode()
    path.write_bytes(b'{"nums": [3, 7], "target": 21}\n' + line + b"\n")
    with pytest.raises(DataError) as caught:
        load_puzzles(path)
    assert f"{path}, row 2" in caught.value.got
    assert caught.value.wanted and "--task.bad_rows drop" in caught.value.fix
    assert len(str(caught.value)) < 500
    rows, (note,) = load_puzzles(path, "drop")
    assert rows == [((3, 7), 21)] and note.level == "warn"
    assert "1 rows" in note.message and "row 2: " in note.message


def test_a_file_of_puzzles_without_a_solution_is_refused_under_either_rule(tmp_path):
    rows = [{"nums": [1, 1, 1], "target": target} for target in range(40, 280)]
    path = written(tmp_path, rows)
    for rule in ("refuse", "drop"):
        with pytest.raises(DataError, match=r"row 1: .* cannot make 40 .*239 more of 240 rows"):
            load_puzzles(path, rule)


@pytest.mark.parametrize("name", ["empty.jsonl", "empty.parquet", "missing.jsonl", "folder.jsonl"])
def test_no_rows(tmp_path, name):
    path = tmp_path / name
    if name.startswith("empty"):
        path.touch()
    elif name.startswith("folder"):
        path.mkdir()
    if path.suffix == ".parquet":
        pytest.importorskip("pyarrow")
    with pytest.raises(DataError) as caught:
        load_puzzles(path)
    assert str(path) in caught.value.got
    assert caught.value.wanted and caught.value.fix


def test_damaged_parquet(tmp_path):
    path = written(
        tmp_path, [{"nums": [3, 7, n], "target": n} for n in range(1, 4000)], "p.parquet"
    )
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:100] + bytes(4000) + whole[4100:], b"PAR1"):
        path.write_bytes(damaged)
        with pytest.raises(DataError) as caught:
            load_puzzles(path)
        assert str(path) in caught.value.got
        assert caught.value.wanted and caught.value.fix


def test_parquet_with_other_columns(tmp_path):
    path = written(tmp_path, [{"question": "?"}], "other.parquet")
    with pytest.raises(DataError, match="the columns question; wanted .*'nums' and 'target'"):
        load_puzzles(path)


def test_a_number_that_the_grader_would_refuse_is_no_puzzle(tmp_path):
    """More than nine digits: no answer could be right."""
    rows = [*ROWS, {"nums": [1, 2, 10**9], "target": 10**9 + 3}]
    with pytest.raises(DataError, match="row 31: .* more than 9 digits"):
        load_puzzles(written(tmp_path, rows))
