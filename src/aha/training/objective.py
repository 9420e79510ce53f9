"""The loss of an update, built once from the recipe as a list of terms.

    policy loss  ->  times correction  ->  selected tokens  ->  plus KL  ->  minus entropy bonus

Each term maps the per-token losses so far to new ones. Selected tokens are kept (all others times
0) or held (plus a penalty). A term that the recipe does not use is not in the list. The weights of
the tokens (`token_weights`) and the sum come last.

Shapes: B rows of a micro-batch, T token columns.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from aha.algo.aggregation import Totals, token_weights
from aha.algo.correction import CorrectionFacts, mismatch_of
from aha.algo.kl import EstimatorFacts
from aha.algo.losses import LossFacts
from aha.algo.registry import Algorithm
from aha.batching.batch import MicroBatch, TrainingRow, blank_batch, pack_parts
from aha.core.config import AlgoSection
from aha.core.records import Graded
from aha.dist.world import World
from aha.model.policy import Policy
from aha.training.reference import Reference


@dataclass
class ScoredMicroBatch:
    """A micro-batch with the policy's log-probs now, and its entropies where a term needs them.

    Both [B, T], in nats. `kl_sum` is set by the KL term: the sum over the own tokens. `clipped` is
    set by a loss with a bound: how many own tokens it acts on.
    """

    batch: MicroBatch
    logprobs_BT: torch.Tensor
    entropies_BT: torch.Tensor | None
    kl_sum: float = 0.0
    clipped: torch.Tensor | None = None


class Term:
    """One term of the loss. By default a term changes nothing."""

    name = ""  # key of its state in a checkpoint; empty if it has none

    @property
    def needs_entropy(self) -> bool:
        """Whether it reads the entropies, which cost a pass over the vocabulary."""
        return False

    def begin_step(self, graded: Sequence[Graded]) -> None:
        """Called with all completions of a step, before its first update."""

    def begin_update(self, rows: Sequence[TrainingRow], update: int) -> list[TrainingRow]:
        """Called with the rows of an update: returns them, perhaps with selected tokens. `update`
        counts the updates of a rollout from 0."""
        return list(rows)

    @property
    def entropy_coef(self) -> float:
        """Coefficient of the entropy bonus in the next update."""
        return 0.0

    def __call__(self, losses_BT: torch.Tensor, scored: ScoredMicroBatch) -> torch.Tensor:
        return losses_BT

    def numbers(self, sums: dict[str, float]) -> dict[str, float]:
        """For the step's report."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


class PolicyLoss(Term):
    """The registered function `algo.loss`. Always the first term: it ignores its input losses."""

    def __init__(self, loss: Algorithm[LossFacts], algo: AlgoSection):
        self.loss, self.settings = loss, loss.settings(algo)
        self.clipped = loss.facts.clipped
        names = ("clip_low", "clip_high") if self.clipped else ()
        self.bounds = tuple(loss.value_of(name, algo) for name in names)

    def __call__(self, losses_BT: torch.Tensor, scored: ScoredMicroBatch) -> torch.Tensor:
        batch = scored.batch
        inputs = (scored.logprobs_BT, batch.old_logprobs_BT, batch.advantages_BT)
        policy_BT: torch.Tensor = self.loss(*inputs, mask_BT=batch.mask_BT, **self.settings)
        if self.clipped:
            now_BT, *others = inputs
            beyond_BT = self.clipped(now_BT.detach(), *others, batch.mask_BT, *self.bounds)
            scored.clipped = (beyond_BT * batch.mask_BT).sum()
        return policy_BT

    def numbers(self, sums: dict[str, float]) -> dict[str, float]:
        measured = self.clipped and sums["tokens"]
        return {"clipped": sums["clipped"]} if measured else {}


class Correction(Term):
    """Weights for tokens that a different program (such as vLLM) sampled: `algo.correction`."""

    def __init__(self, correction: Algorithm[CorrectionFacts], algo: AlgoSection):
        self.correction, self.settings = correction, correction.settings(algo)

    def __call__(self, losses_BT: torch.Tensor, scored: ScoredMicroBatch) -> torch.Tensor:
        log_rho_BT = scored.logprobs_BT.detach() - scored.batch.old_logprobs_BT
        weights_BT: torch.Tensor = self.correction(
            log_rho_BT, scored.batch.mask_BT, **self.settings
        )
        return losses_BT * weights_BT


class KlLoss(Term):
    """`algo.kl_coef` times an estimate of the KL to the reference is added to the loss."""

    def __init__(
        self, estimator: Algorithm[EstimatorFacts], algo: AlgoSection, reference: Reference
    ):
        self.estimator, self.settings = estimator, estimator.settings(algo)
        self.coef, self.reference = algo.kl_coef, reference

    def __call__(self, losses_BT: torch.Tensor, scored: ScoredMicroBatch) -> torch.Tensor:
        ref_BT, old_BT = self.reference.logprobs(scored.batch), scored.batch.old_logprobs_BT
        kl_BT: torch.Tensor = self.estimator(
            scored.logprobs_BT, ref_BT, old_logprobs_BT=old_BT, **self.settings
        )
        scored.kl_sum = float((kl_BT.detach() * scored.batch.mask_BT).sum())
        return losses_BT + self.coef * kl_BT

    def numbers(self, sums: dict[str, float]) -> dict[str, float]:
        return {"kl": sums["kl"] / sums["tokens"]} if sums["tokens"] else {}


@dataclass
class MismatchLog:
    """The log-ratios between trainer and engine of all own tokens of an update; `log_rhos` has
    those of this rank's rows. They are only kept (`kept`) where a different program may have
    sampled the tokens, or a correction is on."""

    kept: bool
    world: World = field(default_factory=World)
    log_rhos: list[torch.Tensor] = field(default_factory=list)

    def add(self, scored: ScoredMicroBatch) -> None:
        if self.kept:
            log_rho_BT = scored.logprobs_BT.detach() - scored.batch.old_logprobs_BT
            self.log_rhos.append(log_rho_BT[scored.batch.mask_BT > 0].cpu())

    def numbers(self) -> dict[str, float]:
        if not self.kept:
            return {}
        shares = self.world.gather(self.log_rhos, "the log-ratios of an update")
        log_rhos = [ratios for share in shares for ratios in share]
        return mismatch_of(torch.cat(log_rhos)) if log_rhos else {}


class Objective:
    """Computes the gradient of an update, micro-batch by micro-batch."""

    # Over an update's computed tokens: the loss, |logp - old|, their count, the KL; and which share
    # of all tokens of the update the bound of the loss acts on.
    SUMS = ("loss", "logprob_difference", "tokens", "kl", "clipped")

    def __init__(
        self,
        policy: Policy,
        terms: Iterable[Term],
        aggregation: str,
        dtype: torch.dtype,
        temperature: float,
        mismatch: MismatchLog,
    ):
        self.policy, self.terms, self.aggregation = policy, list(terms), aggregation
        self.dtype, self.temperature, self.mismatch = dtype, temperature, mismatch

    def begin_step(self, graded: Sequence[Graded]) -> None:
        for term in self.terms:
            term.begin_step(graded)

    def begin_update(self, rows: Sequence[TrainingRow], update: int) -> list[TrainingRow]:
        """The rows of an update, marked by every term that selects tokens."""
        for term in self.terms:
            rows = term.begin_update(rows, update)
        return list(rows)

    @property
    def entropy_coef(self) -> float:
        """Coefficient of the entropy bonus in the next update."""
        return sum(term.entropy_coef for term in self.terms)

    def forward(self, batch: MicroBatch) -> ScoredMicroBatch:
        """The policy's log-probs, with gradient, at the rollout's temperature."""
        inputs = (batch.tokens_BT, batch.start, self.dtype, self.temperature)
        if any(term.needs_entropy for term in self.terms):
            scores = self.policy.logprobs_and_entropy(*inputs, entropy=True, layout=batch.layout)
            return ScoredMicroBatch(batch, *scores)
        return ScoredMicroBatch(
            batch, self.policy.token_logprobs(*inputs, layout=batch.layout), None
        )

    def token_losses(self, scored: ScoredMicroBatch) -> torch.Tensor:
        """[B, T]: all terms in their order."""
        losses_BT = torch.zeros_like(scored.logprobs_BT)
        for term in self.terms:
            losses_BT = term(losses_BT, scored)
        return losses_BT

    def backward(self, batch: MicroBatch, totals: Totals) -> torch.Tensor:
        """Add the gradient of one micro-batch to the policy's. Returns its `SUMS`."""
        scored, mask_BT = self.forward(batch), batch.mask_BT
        losses_BT = self.token_losses(scored)
        weights_BT = token_weights(mask_BT, self.aggregation, totals, batch.prompt_keys)
        loss = (losses_BT * weights_BT).sum()
        loss.backward()
        self.mismatch.add(scored)
        difference = ((scored.logprobs_BT.detach() - batch.old_logprobs_BT).abs() * mask_BT).sum()
        kl = loss.new_tensor(scored.kl_sum)
        count = loss.new_tensor(0.0) if scored.clipped is None else scored.clipped
        clipped = count / totals.tokens
        return torch.stack([loss.detach(), difference, mask_BT.sum(), kl, clipped]).cpu()

    def accumulate_gradient(
        self, rows: Sequence[TrainingRow], totals: Totals | None, pad_id: int, tokens: int
    ) -> torch.Tensor:
        """Add the gradient of these rows, in micro-batches of at most `tokens`; their size changes
        nothing but rounding.

        `totals` are the denominators of the whole update, more rows than these perhaps; None where
        there are no rows. Returns the `SUMS`.
        """
        sums = torch.zeros(len(self.SUMS))
        self.mismatch.log_rhos.clear()  # of the update before, or of an attempt that did not fit
        parts = pack_parts(rows, pad_id, tokens, self.policy.supports_layout)
        world = self.mismatch.world
        missing = world.rounds(len(parts), "the micro-batches of an update") - len(parts)
        for place in range(len(parts) + missing):
            assert totals is not None, "rows without their totals"
            own = place < len(parts)
            batch = parts[place] if own else blank_batch(pad_id, totals.any_prompt)
            sums += self.backward(batch.to(self.policy.device), totals)
            world.pulse()
        return sums

    def numbers(self, sums_of_update: torch.Tensor) -> dict[str, float]:
        """An update for the step's report, from its `SUMS`. Where no token was computed, what is a
        mean over tokens is left out: it was not measured."""
        sums = dict(zip(self.SUMS, sums_of_update.tolist(), strict=True))
        report = {"loss": sums["loss"]}
        if sums["tokens"]:
            report["mismatch"] = sums["logprob_difference"] / sums["tokens"]
        for numbers in (self.mismatch.numbers(), *(term.numbers(sums) for term in self.terms)):
            report |= numbers
        return report

    def state_dict(self) -> dict[str, Any]:
        states = {term.name: term.state_dict() for term in self.terms}
        return {name: state for name, state in states.items() if state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for term in self.terms:
            if term.name in state:
                term.load_state_dict(state[term.name])
