"""Problems that a run keeps in mind, asked again by how often they were solved.

A pool has the first problems of the task's train split, in an order of the run's seed. A finite
set (a file) may be smaller than the pool. A problem that is not asked any more makes room for the
next one of the split, so that a generator never runs out.
"""

import math
from collections.abc import Iterator
from random import Random

from aha.algo.filters import draw_weight
from aha.core.records import Graded, Problem


class Curriculum:
    """Draws the problems of each step by `draw_weight`, and remembers each one's solve rate.

    The rate is that of the last time a problem was asked: older ones are an older policy's.
    """

    def __init__(self, how: str, size: int, problems: Iterator[Problem]):
        self.how, self.size, self.waiting = how, size, problems
        self.problems: list[Problem] = []
        self.rates: list[float | None] = []  # None: not asked yet
        self.places: dict[str, int] = {}

    def admit(self) -> bool:
        """One more problem; False where the split has no more."""
        problem = next(self.waiting, None)
        if problem is None:
            return False
        self.places[problem.id] = len(self.problems)
        self.problems.append(problem)
        self.rates.append(None)
        return True

    def weights(self) -> list[float]:
        """Of all problems met so far; 0 is not asked again."""
        return [draw_weight(self.how, rate) for rate in self.rates]

    @property
    def open(self) -> int:
        """How many problems of the pool may be asked."""
        return sum(weight > 0 for weight in self.weights())

    def order(self, seed: int) -> list[Problem]:
        """All problems in the order in which a step takes them: drawn by weight, each once.

        Those with weight 0 stand at the end, the least solved first: where a finite set is used
        up, a step still gets as many as it wants.
        Source: Efraimidis and Spirakis 2006, weighted drawing without replacement by one key each.
        """
        for _ in range(self.size - self.open):
            if not self.admit():
                break
        rng, keys = Random(seed), []
        for rate, weight in zip(self.rates, self.weights(), strict=True):
            luck = math.log(1 - rng.random())  # not 0: random() is below 1
            keys.append((0, -luck / weight) if weight else (1, rate))
        return [self.problems[i] for i in sorted(range(len(keys)), key=keys.__getitem__)]

    def draw(self, wanted: int, seed: int, again: int = 0) -> list[Problem]:
        """The problems of a step; with `again` those that come next in the same order."""
        order = self.order(seed)
        first = again * wanted
        return [order[(first + i) % len(order)] for i in range(min(wanted, len(order)))]

    def note(self, groups: list[list[Graded]]) -> None:
        """Remember how often each problem of a rollout was solved."""
        for group in groups:
            place = self.places.get(group[0].completion.prompt.problem.id)
            if place is not None:  # else somebody else's problem, as in the doctor's trial
                self.rates[place] = sum(one.correct for one in group) / len(group)

    def state_dict(self) -> dict:
        return {"rates": self.rates}

    def load_state_dict(self, state: dict) -> None:
        """On a fresh one: the problems are the split's first, so their rates are enough."""
        while len(self.rates) < len(state["rates"]) and self.admit():
            pass
        self.rates = list(state["rates"])
