"""A pool of problems that is kept over the run and drawn from by how often each was solved.

The pool holds the first problems of the task's train split, in an order given by the run's seed.
A finite set (a file) may be smaller than the pool. A problem that is not drawn any more makes room
for the next one of the split, so that a task that generates problems never runs out.
"""

import math
from collections.abc import Iterator
from random import Random
from typing import Any

from aha.algo.filters import draw_weight
from aha.core.records import Problem
from aha.training.rollouts import Groups, StepSeeds, skipped_number, take_skipped


class ProblemPool:
    """A `ProblemSource` with a memory: the solve rate of each problem when it was last drawn.

    Older rates belong to older versions of the policy and are forgotten. `curriculum` names the
    rule that turns a solve rate into a weight; `size` is the number of problems that may be drawn;
    `count` the number that a step takes.
    """

    def __init__(self, curriculum: str, size: int, split: Iterator[Problem], count: int = 0):
        self.curriculum, self.size, self.split, self.count = curriculum, size, split, count
        self.pool: list[Problem] = []
        self.rates: list[float | None] = []  # None: not drawn yet
        self.places: dict[str, int] = {}

    def problems(self, seeds: StepSeeds, rollout_round: int = 0) -> list[Problem]:
        return self.draw(self.count, seeds.seed("problems"), rollout_round)

    def admit(self) -> bool:
        """Take one more problem into the pool; False where the split has no more."""
        problem = next(self.split, None)
        if problem is None:
            return False
        self.places[problem.id] = len(self.pool)
        self.pool.append(problem)
        self.rates.append(None)
        return True

    def weights(self) -> list[float]:
        """Of all problems so far; 0 is not drawn again."""
        return [draw_weight(self.curriculum, rate) for rate in self.rates]

    @property
    def num_open(self) -> int:
        """Problems of the pool that may be drawn."""
        return sum(weight > 0 for weight in self.weights())

    def order(self, seed: int) -> list[Problem]:
        """All problems in the order in which a step takes them: drawn by weight, each once.

        Those with weight 0 stand at the end, the least solved first, so that a step is filled even
        where a finite set is used up.
        Source: Efraimidis and Spirakis 2006, weighted drawing without replacement with one key for
        each element.
        """
        for _ in range(self.size - self.num_open):
            if not self.admit():
                break
        rng, keys = Random(seed), []
        for rate, weight in zip(self.rates, self.weights(), strict=True):
            log_uniform = math.log(1 - rng.random())  # never log(0): random() is below 1
            keys.append((0, -log_uniform / weight) if weight else (1, rate))
        return [self.pool[i] for i in sorted(range(len(keys)), key=keys.__getitem__)]

    def draw(self, count: int, seed: int, rollout_round: int = 0) -> list[Problem]:
        """`count` problems; a further round takes those that come next in the same order."""
        order = self.order(seed)
        first = rollout_round * count
        return [order[(first + i) % len(order)] for i in range(min(count, len(order)))]

    def record(self, groups: Groups) -> None:
        """Remember the solve rate of each problem of a rollout."""
        for group in groups:
            completion = group[0].completion
            place = self.places.get(completion.prompt.problem.id)
            if place is not None:  # None: not of this pool, as in the doctor's trial step
                self.rates[place] = sum(graded.correct for graded in group) / len(group)

    def numbers(self) -> dict[str, float]:
        return {"pool_open": float(self.num_open)} | skipped_number(take_skipped(self.split))

    def state_dict(self) -> dict[str, Any]:
        return {"rates": self.rates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Into a new pool: its problems are the first of the split, so the rates are enough."""
        while len(self.rates) < len(state["rates"]) and self.admit():
            pass
        take_skipped(self.split)  # the steps before the checkpoint have counted them
        self.rates = list(state["rates"])
