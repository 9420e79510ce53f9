"""The blind baseline plays by the rules it is compared under."""

from itertools import islice

from aha.eval.random_search import random_search
from aha.tasks.countdown import grade_countdown, puzzles

PUZZLES = [(n, t) for n, t, _ in islice(puzzles("train", 0, (3, 4)), 60)]


def tokens(text: str) -> int:
    """About what aha-tiny's tokenizer makes: a token a character. Any counter will do here."""
    return len(text)


def test_solved_means_a_right_answer_within_the_budget():
    solved = 0
    for numbers, target in PUZZLES:
        text, right = random_search(numbers, target, 0, tokens, 400)
        graded = grade_countdown(text, numbers, target)
        assert right == (graded.correct and tokens(text) + 1 <= 400)
        assert text.count(" yes\n") == graded.correct
        solved += right
    assert 0 < solved < len(PUZZLES)


def test_a_larger_budget_solves_no_fewer():
    for numbers, target in PUZZLES:
        small, large = (random_search(numbers, target, 1, tokens, budget) for budget in (150, 600))
        assert large[1] >= small[1]


def test_a_seed_decides():
    numbers, target = PUZZLES[0]
    first = [random_search(numbers, target, seed, tokens, 300) for seed in range(4)]
    assert first == [random_search(numbers, target, seed, tokens, 300) for seed in range(4)]
    assert len(set(first)) == 4
