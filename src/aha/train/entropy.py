"""Entropy control of a run: tokens chosen among all of an update, or a bonus that follows.

The choice is made once for each update, over all its tokens and before it is cut into parts, from
what was recorded when they were drawn. So it does not depend on the size of the parts.
"""

import torch

from aha.algo.entropy import CONTROLS
from aha.core.config import AlgoSection
from aha.core.errors import ConfigError
from aha.core.records import Graded


def entropies_of(graded: list[Graded]) -> torch.Tensor:
    """[N] of all tokens, in nats, of the distributions that they were drawn from.

    Raises ConfigError where the engine tells none.
    """
    if not all(one.completion.entropies for one in graded):
        raise ConfigError(
            "an engine that tells no entropies", "one that does", "--algo.entropy_control none"
        )
    return torch.tensor([entropy for one in graded for entropy in one.completion.entropies])


def with_choice(rows: list[tuple], algo: AlgoSection, done: int) -> list[tuple]:
    """`(graded, advantage, chosen)` of an update's `(graded, advantage)` rows: a number for each
    of a completion's own tokens. `done` updates of the same rollout came before.

    Differs from the papers, which look at the policy of each update: this looks at the one that
    drew. For the first update of a rollout both are the same.
    """
    # KL-Cov pulls back to where the tokens were drawn. The first update is there: its |logp - old|
    # is 0, and where engine and trainer round differently its slope would be noise.
    control = CONTROLS.pick(algo.entropy_control)
    if not rows or (control.facts.role == "hold" and not done):
        return rows
    graded = [one for one, _ in rows]
    sizes = [len(one.completion.tokens) for one in graded]
    offered = control.settings(algo)
    if "entropies_N" in control.parameters:
        offered["entropies_N"] = entropies_of(graded)
    else:
        logprobs = [logprob for one in graded for logprob in one.completion.logprobs]
        credits = [torch.as_tensor(c).expand(n) for (_, c), n in zip(rows, sizes, strict=True)]
        # In float64: a mean over a whole step is taken off numbers that may lie close together.
        offered["logprobs_N"] = torch.tensor(logprobs, dtype=torch.float64)
        offered["advantages_N"] = torch.cat(credits).double()
    chosen = control(**offered).split(sizes)
    return [(*row, own) for row, own in zip(rows, chosen, strict=True)]


class FollowingBonus:
    """The entropy bonus of "adaptive": its coefficient rises and falls from step to step."""

    def __init__(self, algo: AlgoSection):
        self.coef = algo.entropy_coef
        self.control = CONTROLS.pick(algo.entropy_control)
        self.settings = self.control.settings(algo)

    def next(self, groups: list[list[Graded]]) -> float:
        """The bonus of this step, from the mean entropy of the tokens of its rollout."""
        entropies_N = entropies_of([one for group in groups for one in group])
        mean = float(entropies_N.mean())
        bonus, self.coef = self.control(self.coef, mean, **self.settings)
        return bonus
