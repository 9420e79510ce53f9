"""The blind search hardly repeats an attempt, and its draws never change."""

from itertools import islice

from aha.eval.random_search import by_chance
from aha.tasks.countdown import puzzles

GOLDEN = ["94+46=140", "140-32=108", "46+32=78", "78+94=172"]
GOLDEN += ["94-46=48", "48-32=16", "94-32=62", "62+46=108"]
PUZZLES = [(n, t) for n, t, _ in islice(puzzles("train", 0, (3,)), 10)]


def attempts(numbers, target, seed, count):
    ends = (end for _, end in by_chance(numbers, target, seed) if end is not None)
    return list(islice(ends, count))


def test_attempts_are_different():
    for numbers, target in PUZZLES:
        keys = [end.key for end in attempts(numbers, target, 0, 27)]
        assert len(set(keys)) == 27  # of 27 to 31 that there are


def test_a_seed_decides():
    numbers, target = PUZZLES[0]
    first, again, other = (
        [end.text for end in attempts(numbers, target, seed, 20)] for seed in (1, 1, 2)
    )
    assert first == again != other


def test_the_draws_are_those_of_the_filed_results():
    """Golden: a change here moves every figure of blind search that is filed."""
    lines = [text for text, _ in islice(by_chance((46, 32, 94), 80, 0), 8)]
    assert lines == GOLDEN


def test_one_number_leaves_nothing_to_do():
    assert list(by_chance((7,), 7, 0)) == []
