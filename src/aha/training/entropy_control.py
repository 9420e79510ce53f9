"""Entropy control of a run: tokens selected among all of an update, or an adaptive bonus.

Tokens are selected once for each update, over all its tokens and before it is cut into
micro-batches, from what was recorded when they were sampled. So the selection does not depend on
the size of the micro-batches.
"""

from collections.abc import Sequence
from typing import Any

import torch

from aha.algo.entropy import ControlFacts, entropy_bonus, held
from aha.algo.registry import Algorithm
from aha.batching.batch import TrainingRow, num_drawn_tokens
from aha.core.config import AlgoSection
from aha.core.errors import ConfigError
from aha.core.records import Graded
from aha.training.objective import ScoredMicroBatch, Term


def entropies_of(graded: Sequence[Graded]) -> torch.Tensor:
    """[N] of all drawn tokens, in nats, of the distributions that they were sampled from.

    Raises ConfigError where the engine records none.
    """
    if not all(row.completion.entropies for row in graded):
        raise ConfigError(
            "an engine that records no entropies", "one that does", "--rollout.engine native"
        )
    return torch.tensor([number for row in graded for number in drawn_of(row, "entropies")])


def drawn_of(graded: Graded, name: str) -> Sequence[float]:
    """The completion's log-probs or entropies of the tokens that were drawn."""
    return graded.completion.drawn(getattr(graded.completion, name))


def with_selection(
    rows: Sequence[TrainingRow], control: Algorithm[ControlFacts], algo: AlgoSection
) -> list[TrainingRow]:
    """The rows of an update with `selected_T`, by the registered function `algo.entropy_control`.

    Differs from the papers, which use the policy of each update: this uses the policy that sampled
    the tokens. For the first update of a rollout both are the same.
    """
    if not rows:
        return []
    graded = [row.graded for row in rows]
    inputs = control.settings(algo)
    if "entropies_N" in control.parameters:
        inputs["entropies_N"] = entropies_of(graded)
    else:
        logprobs = [logprob for row in graded for logprob in drawn_of(row, "logprobs")]
        # In float64: the mean over a whole step is subtracted from numbers that may be close to it.
        inputs["logprobs_N"] = torch.tensor(logprobs, dtype=torch.float64)
        inputs["advantages_N"] = torch.cat([row.advantages_T for row in rows]).double()
    selected_N = control(**inputs)
    selected = selected_N.split([num_drawn_tokens(row) for row in graded])
    return [row._replace(selected_T=own) for row, own in zip(rows, selected, strict=True)]


class KeptTokens(Term):
    """Only the selected tokens stay in the loss (top_entropy, clip_cov); all stay in the
    denominators."""

    def __init__(self, control: Algorithm[ControlFacts], algo: AlgoSection):
        self.control, self.algo = control, algo

    def begin_update(self, rows: Sequence[TrainingRow], update: int) -> list[TrainingRow]:
        return with_selection(rows, self.control, self.algo)

    def __call__(self, losses_BT: torch.Tensor, scored: ScoredMicroBatch) -> torch.Tensor:
        selected_BT = scored.batch.selected_BT
        return losses_BT if selected_BT is None else losses_BT * selected_BT


class HeldTokens(KeptTokens):
    """The selected tokens are held where they were sampled (kl_cov), from the second update on."""

    def begin_update(self, rows: Sequence[TrainingRow], update: int) -> list[TrainingRow]:
        # The first update starts at the policy that sampled the tokens: there the true gap
        # |logp - old| is 0, and where engine and trainer round differently, the gradient of the
        # measured gap would be noise.
        return super().begin_update(rows, update) if update else list(rows)

    def __call__(self, losses_BT: torch.Tensor, scored: ScoredMicroBatch) -> torch.Tensor:
        batch = scored.batch
        if batch.selected_BT is None:
            return losses_BT
        return losses_BT + held(scored.logprobs_BT, batch.old_logprobs_BT, batch.selected_BT)


class EntropyBonus(Term):
    """`algo.entropy_coef` times the entropy of the policy is subtracted from the loss."""

    def __init__(self, algo: AlgoSection):
        self.coef = algo.entropy_coef

    @property
    def entropy_coef(self) -> float:
        return self.coef

    @property
    def needs_entropy(self) -> bool:
        return self.coef > 0

    def __call__(self, losses_BT: torch.Tensor, scored: ScoredMicroBatch) -> torch.Tensor:
        if scored.entropies_BT is None:
            return losses_BT
        return losses_BT + entropy_bonus(scored.entropies_BT, self.coef)


class AdaptiveEntropyBonus(EntropyBonus):
    """The coefficient rises while the entropy is below its target and falls above it.

    `coef` is that of the step, `next_coef` that of the coming one.
    """

    name = "entropy"

    def __init__(self, control: Algorithm[ControlFacts], algo: AlgoSection):
        super().__init__(algo)
        self.next_coef = algo.entropy_coef
        self.control, self.settings = control, control.settings(algo)

    def begin_step(self, graded: Sequence[Graded]) -> None:
        mean = float(entropies_of(graded).mean())
        self.coef, self.next_coef = self.control(self.next_coef, mean, **self.settings)

    def numbers(self, sums: dict[str, float]) -> dict[str, float]:
        return {"entropy_bonus": self.coef}

    def state_dict(self) -> dict[str, Any]:
        return {"coef": self.next_coef}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Checkpoints of versions before this control have no coefficient: the recipe's stays."""
        if state["coef"] is not None:
            self.next_coef = state["coef"]
