"""Multiplication: the verdict, the splits, the prompts."""

from itertools import islice

import pytest

from aha.core.errors import ConfigError
from aha.model.tokenizer import build_tokenizer
from aha.tasks.multiply import Multiply, as_problem, split_of

TASK = Multiply()
PROBLEM = as_problem(37, 48)  # 1776


@pytest.mark.parametrize(
    ("text", "reward", "reason"),
    [
        ("<answer>1776</answer>", 1.0, "is 1776"),
        ("<answer> 1776\n</answer> and then some", 1.0, "is 1776"),
        ("<answer>5</answer> no: <answer>1776</answer>", 1.0, "the last of 2 answers"),
        ("<answer>1776</answer><answer>1775</answer>", 0.0, "is 1775, not 1776"),
        ("1776", 0.0, "no <answer>"),
        ("<answer></answer>", 0.0, "not a whole number"),
        ("<answer>1,776</answer>", 0.0, "not a whole number"),
        ("<answer>1776.0</answer>", 0.0, "not a whole number"),
        ("<answer>37*48</answer>", 0.0, "not a whole number"),
        ("<answer>+1776</answer>", 0.0, "not a whole number"),
        ("<answer>-1776</answer>", 0.0, "not a whole number"),
        ("<answer>01776</answer>", 0.0, "begins with a zero"),
        ("<answer>١٧٧٦</answer>", 0.0, "not a whole number"),
        ("<answer>" + "9" * 100_000 + "</answer>", 0.0, "100000 digits"),
        (None, 0.0, "not text"),
    ],
)
def test_the_verdict_is_exact_and_says_why(text, reward, reason):
    found = TASK.grade(PROBLEM, text)
    assert found.reward == reward and found.correct is (reward == 1.0) and reason in found.reason


def test_splits_share_no_pair_in_either_order():
    """Of two digits all 4,095 unordered pairs come up, each in one split alone."""
    found = {split: list(TASK.problems(split, 0)) for split in ("train", "validation", "test")}
    pairs = {
        split: {tuple(sorted((p.given["a"], p.given["b"]))) for p in problems}
        for split, problems in found.items()
    }
    assert sum(map(len, found.values())) == sum(map(len, pairs.values())) == 90 * 91 // 2
    assert len(set.union(*pairs.values())) == 90 * 91 // 2
    assert 150 < len(pairs["test"]) < 260 and 150 < len(pairs["validation"]) < 260
    orders = {p.given["a"] < p.given["b"] for p in found["train"]}
    assert orders == {True, False}


def test_the_split_does_not_depend_on_the_order():
    assert all(split_of(a, b) == split_of(b, a) for a in range(10, 99) for b in range(10, 40))


def test_long_numbers_are_drawn_by_the_seed_alone():
    task = Multiply(digits=[3, 5])
    drawn = [p.given for p in islice(task.problems("test", 4), 50)]
    assert drawn == [p.given for p in islice(task.problems("test", 4), 50)]
    assert drawn != [p.given for p in islice(task.problems("test", 5), 50)]
    assert {len(str(given[key])) for given in drawn for key in "ab"} == {3, 5}
    assert all(split_of(**given) == "test" for given in drawn)


def test_a_small_space_ends():
    assert len(list(Multiply(digits=1).problems("train", 0))) <= 45


def test_aha_tiny_can_read_the_plain_prompt_and_the_answer():
    tokenizer = build_tokenizer()
    text = TASK.ask(PROBLEM)
    assert text == "multiply 37 times 48\n<think>\n"
    assert tokenizer.decode(tokenizer.encode(text)) == text and len(tokenizer.encode(text)) == 9


def test_templates_for_real_models_hold_the_request():
    for template, ending in (("r1", "<think>"), ("instruct", "<think>")):
        text = Multiply(template=template).ask(PROBLEM)
        assert "37 times 48" in text and text.endswith(ending)
    assert "<|im_start|>assistant" in text


@pytest.mark.parametrize("settings", [{"digits": 0}, {"digits": []}, {"digits": [2, 99]}])
def test_digits_that_make_no_numbers_are_refused(settings):
    with pytest.raises(ConfigError, match="lengths from 1 to 18"):
        Multiply(**settings)
    with pytest.raises(ConfigError, match="template"):
        Multiply(template="poem")
    with pytest.raises(ConfigError, match="split"):
        next(TASK.problems("test_targets", 0))


def test_its_own_completion_is_right():
    task = Multiply((1, 2, 5))
    for problem in islice(task.problems("train", 0), 50):
        assert task.grade(problem, task.solve(problem)).correct
