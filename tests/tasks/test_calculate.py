"""Calculations of one operation, and the ladder that begins with them."""

from collections import Counter
from itertools import islice

import pytest

from aha.core.errors import ConfigError
from aha.core.records import Problem
from aha.model.own_words import CHATML, ONE_TURN
from aha.tasks import countdown, multiply
from aha.tasks.calculate import (
    EXAMPLES,
    WORDS,
    Calculate,
    as_problem,
    question,
    result_of,
    split_of,
)
from aha.tasks.held_out import problems_in
from aha.tasks.ladder import RUNGS, SHOWN, Ladder

SUM = as_problem(17, "+", 8)  # 25


@pytest.mark.parametrize(
    ("text", "reward", "reason"),
    [
        ("17 + 8 = 25</think><answer>25</answer>", 1.0, "is 25"),
        ("<answer> 25 </answer>", 1.0, "is 25"),
        ("<answer>24</answer>", 0.0, "is 24, not 25"),
        ("<answer>17 + 8</answer>", 0.0, "not a whole number"),
        ("25", 0.0, "no <answer>"),
        (None, 0.0, "not text"),
    ],
)
def test_the_verdict_is_exact_and_says_why(text, reward, reason):
    graded = Calculate().grade(SUM, text)
    assert graded.reward == reward and graded.correct is (reward == 1.0) and reason in graded.reason


def test_splits_share_no_pair_in_either_order():
    """All 400 ordered sums of 1 .. 20, each once; about a fifth of the pairs for the test."""
    task = Calculate()
    given = {
        split: [(p.given["a"], p.given["b"]) for p in task.problems(split, 3)]
        for split in ("train", "validation", "test")
    }
    assert sum(map(len, given.values())) == len(set().union(*given.values())) == 400
    pairs = {split: {tuple(sorted(pair)) for pair in listed} for split, listed in given.items()}
    assert sum(map(len, pairs.values())) == 210
    assert 50 < len(given["test"]) < 110 and 200 < len(given["train"]) < 300


def test_every_operation_has_its_word_and_its_result():
    task = Calculate(("+", "-", "*"), smallest=0, largest=5, template="r1")
    for problem in task.problems("train", 0):
        a, op, b = (problem.given[key] for key in ("a", "op", "b"))
        assert result_of(a, op, b) >= 0
        assert task.grade(problem, task.solve(problem)).reward == 1.0
        word = {"+": "plus", "-": "minus", "*": "times"}[op]
        assert f"What is {a} {word} {b}?" in task.ask(problem)
    assert Calculate().ask(SUM) == "17 plus 8\n<think>\n"


@pytest.mark.parametrize("op", list(WORDS))
def test_an_instruct_model_is_shown_answers_and_none_that_is_held_out(op):
    """By the pair's split here and in `multiply`; the task itself grades them as right, and as an
    answer to anything else as wrong."""
    task, asked = Calculate((op,), template="instruct"), as_problem(18, op, 7)
    *shown, last = ONE_TURN.findall(task.ask(asked))
    assert (
        last == ("user", question(18, op, 7)) and CHATML.fullmatch(task.ask(asked))["begun"] == ""
    )
    assert [role for role, _ in shown] == ["user", "assistant"] * len(EXAMPLES[op])
    for place, (a, b) in enumerate(EXAMPLES[op]):
        (_, request), (_, answer) = shown[2 * place : 2 * place + 2]
        assert split_of(a, op, b) == "train" and request == question(a, op, b)
        assert op != "*" or multiply.split_of(a, b) == "train"
        assert task.grade(as_problem(a, op, b), answer).correct
        assert not task.grade(asked, answer).correct


@pytest.mark.parametrize(
    "settings",
    [
        {"operations": []},
        {"operations": ["/"]},
        {"operations": [1]},
        {"largest": 1_000},
        {"smallest": 9, "largest": 8},
        {"smallest": -1},
        {"largest": True},
        {"largest": 2.5},
        {"template": "chat"},
    ],
)
def test_a_setting_out_of_its_range_is_refused(settings):
    with pytest.raises(ConfigError, match="wanted"):
        Calculate(**settings)


def test_a_ladder_mixes_its_rungs_and_grades_each_by_its_own_rule():
    task = Ladder(RUNGS)
    drawn = list(islice(task.problems("train", 0), 200))
    kinds = Counter(p.given.get("op") or len(p.given.get("numbers", ())) for p in drawn)
    assert set(kinds) == {"+", "*", 2, 3, 4, 0} and min(kinds.values()) > 15
    assert len({p.id for p in drawn}) == 200 and {p.task for p in drawn} == {"ladder"}
    assert all(task.grade(p, task.solve(p)).reward == 1.0 for p in drawn[:40])
    assert [p.id for p in islice(task.problems("train", 0), 9)] == [p.id for p in drawn[:9]]


@pytest.mark.parametrize("size", list(SHOWN))
def test_a_ladder_shows_puzzles_that_are_solved_and_not_held_out(size):
    task = Ladder([f"countdown{size}"], template="instruct")
    problem = next(task.problems("train", 0))
    *shown, (role, asked) = ONE_TURN.findall(task.ask(problem))
    assert role == "user" and len(shown) == 2 * len(SHOWN[size])
    for i, (numbers, target, _) in enumerate(SHOWN[size]):
        (_, text), (_, answer) = shown[2 * i : 2 * i + 2]
        assert task.grade(countdown.as_problem(numbers, target), answer).correct
        assert not task.grade(problem, answer).correct
        # What reads prompts for held-out problems finds this one, and that it may be trained on.
        assert [split for _, split in problems_in(text)] == ["train"]
    assert [split for _, split in problems_in(asked)] == ["train"]
    plain, own = Ladder([f"countdown{size}"]), countdown.Countdown((size,))
    assert plain.ask(problem) == own.ask(problem)


def test_a_ladder_of_finite_rungs_ends():
    task = Ladder(["sums", "products"], template="r1")
    one, other = ([p.id for p in task.problems("test", seed)] for seed in (0, 1))
    assert sorted(one) == sorted(other) and one != other and len(set(one)) == len(one)
    with pytest.raises(ConfigError, match="rungs"):
        Ladder(["sums", "stairs"])
    with pytest.raises(KeyError):
        Ladder(["sums"]).ask(Problem("x", "ladder", {"numbers": [1, 2], "target": 3}))
