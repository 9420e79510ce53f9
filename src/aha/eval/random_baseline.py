"""Random search on held-out Countdown, with the token budget of a model."""

from itertools import islice
from typing import Any

from aha.eval.random_search import random_search
from aha.eval.statistics import wilson
from aha.model.tokenizer import build_tokenizer
from aha.tasks.countdown import Countdown


def random_baseline(numbers: tuple[int, ...], budget: int, n: int, seed: int) -> dict[str, Any]:
    """Solve rate of n test puzzles with `budget` tokens each, and its 95 % interval."""
    tokenizer = build_tokenizer()

    def count(text: str) -> int:
        return len(tokenizer.fast.encode(text, add_special_tokens=False).ids)

    task, solved = Countdown(numbers), 0
    for problem in islice(task.problems("test", seed), n):
        given = problem.given
        solved += random_search(given["numbers"], given["target"], seed, count, budget)[1]
    low, high = wilson(solved, n)
    row = {"numbers": list(numbers), "tokens": budget, "n": n, "solve_rate": solved / n}
    return row | {"interval": [low, high]}
