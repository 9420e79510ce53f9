"""A few examples out of many: quality, difficulty, diversity, and the controls."""

import json
from collections import Counter
from datetime import datetime

import pytest

from aha.core.errors import DataError
from aha.distill.selection import (
    SAME_DOMAIN,
    check_column,
    domain_line,
    domain_of,
    good_ones,
    hard_ones,
    is_loop,
    problems_in,
    read_pool,
    select,
)
from aha.distill.stages import write_rows
from aha.tasks.countdown import Countdown

TASK = Countdown()


def example(name: str, text: str = "1+2=3\n</think>\n<answer>1+2</answer>", **more) -> dict:
    row = {"id": name, "numbers": [1, 2], "target": 3, "prompt": f"{name}\n<think>\n"}
    return row | {"completion": text, "tokens": len(text), "correct": True} | more


def test_rows_that_are_no_examples_and_bad_ones_are_counted(tmp_path):
    rows = [
        example("right"),
        example("right"),
        example("wrong", correct=False),
        example("formless", "1+2=3"),
        example("broken", "\ufffd</think><answer>1</answer>"),
        example("picture", "![a](b)</think><answer>1</answer>"),
        example("loop", "no\n" * 9 + "</think>\n<answer>1</answer>"),
        {"prompt": "free", "completion": "words"},
        {"prompt": "none"},
        example("cut", finish="length"),
    ]
    path = tmp_path / "pool.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pool = read_pool(path)
    assert len(pool.rows) == 8
    assert pool.dropped == {"without an answer": 1, "with a truncated completion": 1}
    good = good_ones(pool.rows)
    assert [row.get("id") for row in good.rows] == ["right", None]
    assert set(good.dropped) == {
        *("that repeat another", "wrong", "not in the form of the tags"),
        *("with broken characters", "with a picture", "with a loop"),
    }
    with pytest.raises(DataError, match="at the stage quality: 1 wrong"):
        good_ones([rows[2]])


def test_loops():
    assert is_loop("a\n" * 6) and not is_loop("a\n" * 5)
    assert is_loop("a\nb\na\nc\na\nd\n" * 2 + "a\na\na\na")
    assert not is_loop("\n".join(map(str, range(50))))


def test_what_a_solver_solves_is_too_easy():
    rows = [example(name) for name in "abc"]
    solved = {"one": {"a": 1, "b": 0, "c": None}, "two": {"a": 0, "b": 0, "c": None}}
    stage = hard_ones(rows, TASK, solved)
    assert [row["id"] for row in stage.rows] == ["b", "c"]
    assert stage.dropped == {"that a solver solves": 1} and "a by one" in stage.first.popitem()[1]
    assert list(problems_in(rows, TASK)) == ["a", "b", "c"]


def test_rows_of_somebody_else_have_no_problem_for_a_solver():
    """An `id` and other columns make none; nor does a problem of another task."""
    foreign = {"id": "x", "question": "why?", "prompt": "why?", "completion": "because"}
    other = example("y", task="multiply")
    rows = [example("a"), foreign, other, {"prompt": "p", "completion": "c"}]
    assert list(problems_in(rows, TASK)) == ["a"]
    stage = hard_ones(rows, TASK, {"one": {"a": 0}})
    assert [row["id"] for row in stage.rows] == ["a"]
    assert stage.dropped == {"without a problem of countdown": 3}
    with pytest.raises(DataError, match="none of 2 examples has a problem of countdown"):
        problems_in([foreign, other], TASK)
    with pytest.raises(DataError, match="example 2 has the id 'a' of another problem"):
        problems_in([example("a"), example("a", target=4)], TASK)
    assert len(problems_in([example("a", score=1), example("a", score=2)], TASK)) == 1


POOL = [example(f"{n}", "x" * n, domain="ab"[n < 90]) for n in range(1, 101)]


def pick(way: str, n: int = 10, seed: int = 0) -> list[dict]:
    return select(POOL, n, way, seed, lambda row: domain_of(row, "domain")).rows


def test_controls():
    assert [row["tokens"] for row in pick("longest")] == list(range(100, 90, -1))
    assert pick("all") == POOL and len({row["id"] for row in pick("random", 50)}) == 50
    for way in ("s1", "random", "diverse"):
        assert pick(way) == pick(way) != pick(way, seed=1)
        assert len({row["id"] for row in pick(way, 100)}) == 100


def test_domains_are_drawn_evenly_and_longer_ones_are_likelier():
    """89 of 100 are of one domain; half of what is drawn is of the other, until it is empty."""
    counts = Counter(row["domain"] for seed in range(40) for row in pick("s1", 10, seed))
    assert 150 < counts["b"] < 250
    means = {
        way: sum(row["tokens"] for seed in range(20) for row in pick(way, 5, seed)) / 100
        for way in ("s1", "diverse")
    }
    assert means["s1"] > means["diverse"] + 10


def test_domains_of_puzzles_follow_from_numbers_and_operations():
    assert domain_of(example("a"), None) == "2 +"
    assert domain_of({"prompt": "a", "completion": "b"}, None) == SAME_DOMAIN
    assert domain_line([{"prompt": "a", "completion": "b"}], lambda row: SAME_DOMAIN).startswith(
        "no domains"
    )
    assert domain_line(POOL, lambda row: row["domain"]) == "2 domains, the largest b (89), a (11)"


def test_a_column_that_no_row_has_is_an_error_and_a_row_without_it_a_domain():
    check_column(POOL, "domain")
    check_column(POOL, None)
    with pytest.raises(DataError, match="--domain subject.*one of completion, correct, domain"):
        check_column(POOL, "subject")
    assert domain_of({"topic": None}, "topic") == "no topic"


def test_lengths_are_in_one_unit():
    """30 tokens are more than 50 characters, but nobody knows how many tokens those are."""
    rows = [example("a", "x" * 90, tokens=30), {"prompt": "b", "completion": "y" * 50}]
    assert select(rows, 1, "longest", 0, str).rows == rows[:1]


def test_types_that_only_parquet_has_become_text(tmp_path):
    rows = [{"prompt": "a", "completion": "b", "made": datetime(2026, 1, 2), "raw": b"\xff1"}]
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "pool.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    (row,) = read_pool(path).rows
    assert row["made"] == "2026-01-02 00:00:00" and row["raw"] == "\ufffd1"
    write_rows(tmp_path / "rows.jsonl", [row])


def test_too_few_are_an_error_that_says_how_many():
    with pytest.raises(DataError, match="--n 100"):
        pick("random", 101)
