"""Countdown with chosen training problems and with wrong grades: for studies of data.

The tests are those of Countdown: only what the model is trained on differs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import count as count_from
from itertools import islice
from random import Random
from typing import Any

from aha.core.errors import ConfigError
from aha.core.records import Graded, Problem
from aha.core.seeds import seed_for
from aha.tasks.countdown import Countdown, split_of

TRAIN = "train"


class CuratedCountdown(Countdown):
    """Countdown whose training problems are chosen.

    `ways`: the least and the most solutions that a training problem has. `count`: how many training
    problems there are, the same in every run, again and again in another order; 0: endless new
    ones. `noise`: the
    share of training completions whose reward is the wrong one: what is right gets 0, what is wrong
    gets 1. Whether an answer is right (`correct`) stays true. Raises `ConfigError` for a setting
    out of its range.
    """

    name = "curated"
    max_misses = 3_000

    def __init__(
        self,
        numbers: tuple[int, ...] = (3,),
        ways: Sequence[int] = (1, 10_000),
        count: int = 0,
        noise: float = 0.0,
        **others: Any,
    ):
        super().__init__(numbers, **others)
        whole = len(ways) == 2 and all(type(n) is int for n in ways) and type(count) is int
        if not whole or not 1 <= ways[0] <= ways[1] or count < 0:
            raise ConfigError(f"ways {list(ways)}, count {count}", "1 <= least <= most, count >= 0")
        if not isinstance(noise, int | float) or not 0.0 <= noise <= 0.5:
            raise ConfigError(f"noise {noise}", "a share from 0 to 0.5")
        self.ways, self.count, self.noise = range(ways[0], ways[1] + 1), count, float(noise)

    def problems(self, split: str, seed: int) -> Iterator[Problem]:
        """As in Countdown; of the training split the chosen ones, endlessly."""
        if split != TRAIN:
            yield from (as_curated(problem) for problem in super().problems(split, seed))
            return
        if not self.count:
            yield from self.chosen(seed)
            return
        # A step asks with a seed of its own: the problems must not depend on it, their order does.
        for number in count_from(0) if self.kept else ():
            rng = Random(seed_for("curated", seed, number))
            yield from rng.sample(self.kept, len(self.kept))

    def chosen(self, seed: int) -> Iterator[Problem]:
        """Training problems with the chosen number of solutions. Raises `ConfigError` after
        `max_misses` problems in a row with another one."""
        missed: list[int] = []
        for problem in super().problems(TRAIN, seed):
            ways = problem.given.get("ways", 1)
            if ways in self.ways:
                missed = []
                yield as_curated(problem)
                continue
            missed.append(ways)
            if len(missed) == self.max_misses:
                raise ConfigError(
                    f"ways {self.ways.start} to {self.ways.stop - 1}: none of "
                    f"{len(missed):,} puzzles",
                    "a number of solutions that puzzles have",
                    f"--task.options.ways '[{min(missed)}, {max(missed)}]'",
                )

    @cached_property
    def kept(self) -> list[Problem]:
        """The `count` training problems; the same ones in every run."""
        return list(islice(self.chosen(0), self.count))

    def grade(self, problem: Problem, text: str) -> Graded:
        """The grade of Countdown; of a training problem with the wrong reward now and then."""
        graded = super().grade(problem, text)
        given = problem.given
        if not self.noise or split_of(tuple(given["numbers"]), given["target"]) != TRAIN:
            return graded
        if seed_for("noise", problem.id, text) / 2**63 >= self.noise:
            return graded
        reason = f"{graded.reason} (the reward is the wrong one, on purpose)"
        return replace(graded, reward=1.0 - float(graded.correct), reason=reason)


def as_curated(problem: Problem) -> Problem:
    """The problem under this task's name."""
    return replace(problem, task=CuratedCountdown.name)
