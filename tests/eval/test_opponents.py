"""The opponents play by the rules: true lines, every token counted, graded as they claim."""

from itertools import combinations, islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aha.behaviors.detector import count_behaviours
from aha.corpus.orderly import all_four
from aha.corpus.terms import TableNumber
from aha.eval.opponents import (
    OPPONENTS,
    OpponentSearch,
    counter_of,
    counts_by_line,
    operations,
)
from aha.tasks.countdown import grade_countdown, puzzles

from .vocabularies import TOKENIZERS, begins_with_a_space, first_edition

SMALL = [(n, t) for n, t, _ in islice(puzzles("train", 0, (2, 3)), 40)]
PUZZLES = [*SMALL, *((n, t) for n, t, _ in islice(puzzles("train", 1, (4,)), 15))]
IN_ORDER = ("in-order", "glance", "clairvoyant")


def search(name, numbers, target, limit, seed=0, tokenizer=TOKENIZERS["pairs"]):
    one = OpponentSearch(name, numbers, target, seed, counter_of(tokenizer))
    one.continue_to(limit)
    return one


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "in-order",
            [
                "3+2=5",
                "7+5=12 no",
                "7-5=2 no",
                "7*5=35 no",
                "3-2=1",
                "7+1=8 no",
                "7-1=6 no",
                "7*1=7 no",
                "3*2=6",
                "7+6=13 yes",
            ],
        ),
        ("glance", ["3+2=5", "7+5=12 no", "3-2=1", "7+1=8 no", "3*2=6", "7+6=13 yes"]),
        ("clairvoyant", ["3+2=5", "3-2=1", "3*2=6", "7+6=13 yes"]),
    ],
)
def test_a_small_case_by_hand(name, lines):
    """3 2 7 -> 13: pair by pair, so 3 and 2 first; 7/5 and 3/2 are not whole."""
    one = search(name, (3, 2, 7), 13, 1_000)
    assert one.lines == lines and one.solved
    assert one.completion().endswith("</think>\n<answer>7+(3*2)</answer>")


def test_a_search_that_has_tried_everything_answers_with_its_nearest_attempt():
    one = search("in-order", (2, 3), 50, 1_000)
    assert one.lines == ["3+2=5 no", "3-2=1 no", "3*2=6 no"] and not one.solved
    assert one.completion().endswith("<answer>3*2</answer>") and one.end is not None
    # The clairvoyant one has nothing to write, and cannot but say something.
    one = search("clairvoyant", (2, 3), 50, 1_000)
    assert one.lines == [] and not one.solved
    assert one.completion() == "</think>\n<answer>2+3</answer>"


def test_the_last_two_may_be_multiplied_by_one():
    """1 30 40 -> 70 has no other way than (30+40)*1 and its like."""
    assert all(search(name, (1, 30, 40), 70, 10_000).solved for name in IN_ORDER)


@pytest.mark.parametrize("name", OPPONENTS)
def test_a_completion_is_graded_as_it_claims_and_all_its_lines_are_true(name):
    solved = 0
    for numbers, target in PUZZLES:
        one = search(name, numbers, target, 900)
        text = one.completion()
        assert grade_countdown(text, numbers, target).correct == one.solved
        assert text.count(" yes\n") == one.solved
        counts = count_behaviours(text, numbers, target)
        assert counts.line_errors == 0 and counts.true_checks == counts.checks
        solved += one.solved
    assert solved > len(SMALL) * 0.8


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
@pytest.mark.parametrize("name", OPPONENTS)
def test_tokens_are_those_of_the_model_that_it_is_compared_with(name, tokenizer):
    assert counts_by_line(tokenizer)
    for numbers, target in PUZZLES:
        one = search(name, numbers, target, 900, tokenizer=tokenizer)
        tokens = len(tokenizer.encode(one.completion()))
        assert (one.tokens if one.end is None else one.end - 1) == tokens


def test_a_number_below_100_costs_what_it_costs_the_model():
    """46+32=78 and a line break: 6 tokens where such a number is one, 9 where a digit is."""
    counts = {name: counter_of(tokenizer)("46+32=78\n") for name, tokenizer in TOKENIZERS.items()}
    assert counts == {"pairs": 6, "digits": 9}


def test_a_tokenizer_that_cannot_count_lines_one_by_one_is_known():
    assert not counts_by_line(begins_with_a_space())
    assert not counts_by_line(first_edition("0123456789"))  # has no letters: text would be lost


@pytest.mark.parametrize("name", OPPONENTS)
def test_a_search_continues_as_if_it_had_never_stopped(name):
    for numbers, target in PUZZLES[-10:]:
        parts = OpponentSearch(name, numbers, target, 3, counter_of(TOKENIZERS["pairs"]))
        for limit in (0, 17, 40, 300, 700):
            parts.continue_to(limit)
            assert parts.end is not None or parts.tokens > limit
        whole = search(name, numbers, target, 700, seed=3)
        assert (parts.lines, parts.end) == (whole.lines, whole.end)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 99), min_size=2, max_size=4), st.integers(10, 100))
def test_better_eyes_never_need_more_tokens(numbers, target):
    """At every limit the clairvoyant search has solved what the others have."""
    every, glance, look = (search(name, tuple(numbers), target, 20_000) for name in IN_ORDER)
    assert every.solved == glance.solved == look.solved
    if look.solved:
        assert look.end <= glance.end <= every.end
        assert look.answer == glance.answer == every.answer


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 120), min_size=2, max_size=5))
def test_the_order_is_that_of_the_corpus(numbers):
    terms = tuple(map(TableNumber.given, numbers))
    corpus = [
        ({a.value, b.value}, op, result.value)
        for pair in combinations(terms, 2)
        for a, op, b, result in all_four(*pair)
        if result is not None and 0 < result.value <= 1_000
        if op not in "*/" or 1 not in (a.value, b.value) or (op == "*" and len(terms) == 2)
    ]
    ours = [({a.value, b.value}, op, result.value) for a, op, b, result in operations(terms, 1_000)]
    assert ours == corpus and all(a.value >= b.value for a, _, b, _ in operations(terms, 1_000))
