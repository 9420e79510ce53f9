"""Evaluation: the same problems every time, and numbers that follow from what was written."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from aha.core.errors import ConfigError, DataError, RunError
from aha.eval.statistics import wilson
from aha.eval.suite import (
    LONG_LIMIT,
    SHORT_LIMIT,
    EvalSettings,
    evaluate,
    evaluate_model,
    held_out,
    write_completions,
)
from aha.rollout.engine import Sampling
from aha.rollout.native import NativeEngine
from aha.tasks.countdown import Countdown, split_of

from ..tiny import TOKENIZER, StartsWith, tiny_folder, tiny_transformer

EASY = StartsWith("0123456789+-*/=<>")


@pytest.fixture(scope="module")
def engine() -> NativeEngine:
    return NativeEngine(tiny_transformer(), TOKENIZER, "float32")


@pytest.fixture(scope="module")
def prompts():
    return held_out(EASY, TOKENIZER, "test", 30, 0)


def test_the_same_seed_asks_the_same_problems():
    task = Countdown((3, 4))
    first, again = (held_out(task, TOKENIZER, "test", 25, 5) for _ in range(2))
    assert first == again and len({prompt.problem.id for prompt in first}) == 25
    other = held_out(task, TOKENIZER, "test", 25, 6)
    assert {p.problem.id for p in first} != {p.problem.id for p in other}


def test_fewer_problems_are_the_first_of_more():
    few, many = (held_out(Countdown((3,)), TOKENIZER, "test", n, 0) for n in (5, 20))
    assert many[:5] == few


@pytest.mark.parametrize("split", ["train", "validation", "test", "test_targets"])
def test_problems_belong_to_their_split(split):
    for prompt in held_out(Countdown((3,)), TOKENIZER, split, 10, 0):
        given = prompt.problem.given
        assert split_of(given["numbers"], given["target"]) == split


def test_a_split_without_problems_is_an_error(tmp_path):
    rows = tmp_path / "rows.jsonl"
    assert split_of((3, 7, 25), 82) == "train"
    rows.write_text('{"nums": [3, 7, 25], "target": 82}\n')
    task = Countdown((3,), data=rows)
    assert len(held_out(task, TOKENIZER, "train", 10, 0)) == 1
    with pytest.raises(DataError, match="no problems in the split 'test'"):
        held_out(task, TOKENIZER, "test", 10, 0)


@pytest.mark.parametrize("n", [0, -1])
def test_asking_for_no_problems_is_an_error(n):
    with pytest.raises(ConfigError, match=f"{n} problems"):
        held_out(Countdown((3,)), TOKENIZER, "test", n, 0)


def test_the_numbers_follow_from_the_completions(engine, prompts):
    report = evaluate(engine, EASY, prompts, Sampling(20, 1, 1.0, 3))
    flat = [group[0] for group in report.graded]
    right = sum(one.completion.text.startswith(EASY.characters) for one in flat)
    assert 0 < right < 30
    numbers = report.numbers
    assert numbers["solve_rate"] == right / 30 and numbers["interval"] == list(wilson(right, 30))
    assert numbers["mean_tokens"] == sum(len(one.completion.tokens) for one in flat) / 30
    assert numbers["truncated"] == sum(one.completion.finish == "length" for one in flat) / 30
    assert (numbers["problems"], numbers["completions"]) == (30, 30)
    assert numbers["seconds"] > 0 and "pass_at_k" not in numbers
    assert report.correct() == [one.correct for one in flat]
    json.dumps(numbers)


def test_groups_give_pass_at_k(engine, prompts):
    report = evaluate(engine, EASY, prompts, Sampling(8, 4, 1.0, 3))
    numbers = report.numbers
    assert numbers["completions"] == 120 and set(numbers["pass_at_k"]) == {"1", "2", "4"}
    assert numbers["pass_at_k"]["1"] == pytest.approx(numbers["solve_rate"])
    solved = sum(any(one.correct for one in group) for group in report.graded)
    assert numbers["pass_at_k"]["4"] == pytest.approx(solved / 30)


def test_the_size_of_the_parts_does_not_matter(engine, prompts):
    """And progress is told after each of them."""
    told = []
    whole = evaluate(engine, EASY, prompts, Sampling(20, 2, 1.0, 3))
    parts = evaluate(
        engine, EASY, prompts, Sampling(20, 2, 1.0, 3), lambda *where: told.append(where), 7
    )
    assert told == [(7, 30), (14, 30), (21, 30), (28, 30), (30, 30)]
    for ours, theirs in zip(whole.graded, parts.graded, strict=True):
        assert [a.completion.tokens for a in ours] == [b.completion.tokens for b in theirs]


def test_completions_are_written_one_a_line_in_order(engine, prompts, tmp_path):
    report = evaluate(engine, EASY, prompts, Sampling(20, 2, 1.0, 3))
    path = tmp_path / "out.jsonl"
    write_completions(path, report)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["id"] for row in rows] == [p.problem.id for p in prompts for _ in range(2)]
    flat = [one for group in report.graded for one in group]
    for row, one in zip(rows, flat, strict=True):
        assert row["completion"] == one.completion.text and row["reward"] == one.reward
        assert row["prompt"].startswith("numbers ") and row["finish"] in ("stop", "length")
        assert row["tokens"] == len(one.completion.tokens)
        assert {"numbers", "target", "correct", "reason"} <= row.keys()


def settings(n: int = 2, **task_settings) -> EvalSettings:
    return EvalSettings("countdown", task_settings, "all", n, 0, 1, 1.0, None)


@pytest.mark.parametrize(
    ("given", "limit"),
    [
        ({}, SHORT_LIMIT),
        ({"numbers": (2, 3)}, SHORT_LIMIT),
        ({"numbers": (3, 4)}, LONG_LIMIT),
        ({"data": "six.jsonl"}, LONG_LIMIT),
        ({"data": None}, SHORT_LIMIT),
    ],
)
def test_the_limit_is_short_for_small_puzzles_alone(given, limit):
    assert settings(**given).token_limit == limit


def test_a_file_of_puzzles_has_no_sizes_of_its_own(tmp_path):
    model = tiny_folder(tmp_path / "model", std=0.1)
    path = tmp_path / "six.jsonl"
    path.write_text('{"nums": [1, 2, 3, 4, 5, 6], "target": 21}\n')
    few = replace(settings(1, data=str(path)), max_new_tokens=4)
    row = evaluate_model(str(model), few, None)
    assert row["numbers"] is None and row["data"] == str(path) and row["problems"] == 1
    drawn = replace(settings(1), split="test", max_new_tokens=4)
    assert evaluate_model(str(model), drawn, None)["numbers"] == (3,)


def test_a_folder_that_cannot_be_written_to_is_an_error_before_a_model_is_read(
    tmp_path, monkeypatch
):
    """The answer of the system is replaced: root, as which tests may run, can write anywhere."""
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(RunError, match="cannot be written to"):
        evaluate_model("no such model", settings(), tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
