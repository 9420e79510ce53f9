"""The critic of PPO: a second model that predicts, before every token, the reward still to come.

It replaces the comparison within a group: advantages are computed token by token (GAE), at the
price of a second model to train. The pure functions are in `algo.values`, the
advantage itself among `algo.advantages`.

Shapes: P prompts, G completions, B rows, T tokens. In [P, G, T] and [N, T] column t is a
completion's own token t; in a batch's [B, T] column t is a position.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from aha.algo.advantages import ADVANTAGES, value_loss, whiten
from aha.algo.kl import kl_in_reward
from aha.batching.batch import (
    MicroBatch,
    PlacedRow,
    TrainingRow,
    gather_rows,
    num_completion_tokens,
    num_drawn_tokens,
    scatter_rows,
)
from aha.batching.layout import Layout
from aha.core.config import RunConfig
from aha.core.records import Graded
from aha.dist.world import World
from aha.machine.micro_batch import MicroBatchSize
from aha.model.hf_policy import refuse_hf_policy
from aha.model.lora import as_transformer, copy_sharing_frozen
from aha.model.optimizer import make_optimizer
from aha.model.policy import Policy
from aha.training.advantage_estimators import Estimate, counted_by
from aha.training.even_parts import even_parts
from aha.training.finite_checks import check_numbers
from aha.training.rollouts import Groups, Scores

CRITIC = "algo.advantage 'gae'"


class ValueModel(nn.Module):
    """The policy's architecture with one number in place of the logits.

    The head starts at 0, so that the first advantages are the rewards themselves: random values
    would act as a random baseline.
    """

    def __init__(self, policy: Policy):
        super().__init__()
        refuse_hf_policy(policy, CRITIC, "--algo.advantage dr_grpo")
        # Checkpoints name these weights `decoder.*`; with LoRA the copy has adapters of its own on
        # the same frozen weights.
        self.decoder = copy_sharing_frozen(as_transformer(policy))
        if not policy.config.tie_word_embeddings:
            del self.decoder.lm_head
        self.head = nn.Linear(policy.config.hidden_size, 1, device=policy.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def trainable(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def forward(
        self,
        tokens_BT: torch.Tensor,
        start: int,
        dtype: torch.dtype,
        layout: Layout | None = None,
    ) -> torch.Tensor:
        """[B, T - start] in float32: the value before each token from `start` on is sampled. With
        a layout, 0 for all but the completions' own tokens."""
        hidden = self.decoder.hidden_states_before(tokens_BT, start, dtype, layout)
        # The final norm's weight is folded into the head, as the policy folds it into its own.
        weight = self.head.weight * self.decoder.model.norm.weight
        values = F.linear(hidden.float(), weight.float(), self.head.bias.float()).squeeze(-1)
        return values if layout is None else layout.scatter(values)


class ValueRow(NamedTuple):
    """A completion with the values predicted at the rollout and the returns to learn."""

    graded: Graded
    old_values_T: torch.Tensor
    returns_T: torch.Tensor


@dataclass(frozen=True)
class CriticEstimate(Estimate):
    """Besides the advantages, what the critic predicted and what it should have predicted.

    All [P, G, T], 0 after a completion's end; whitened advantages.
    """

    mask_PGT: torch.Tensor
    values_PGT: torch.Tensor
    returns_PGT: torch.Tensor
    advantages_PGT: torch.Tensor

    def by_completion(self, values_PGT: torch.Tensor) -> list[torch.Tensor]:
        """One tensor for each completion, over its own tokens."""
        return gather_rows(values_PGT.flatten(0, 1), self.mask_PGT.flatten(0, 1))

    def token_advantages(self) -> tuple[tuple[tuple[float, ...], ...], ...]:
        return tuple(
            tuple(tuple(row.advantages_T.tolist()) for row in group) for group in self.rows
        )


class CriticEstimator:
    """The value model with its optimiser: estimates advantages, then learns from the returns."""

    phase = "judge"

    def __init__(
        self,
        policy: Policy,
        cfg: RunConfig,
        dtype: torch.dtype,
        reference: Any,
        pad_id: int,
        micro_batch: MicroBatchSize,
        world: World | None = None,
    ):
        self.cfg, self.dtype, self.pad_id = cfg, dtype, pad_id
        self.world = world or World()
        self.reference, self.micro_batch = reference, micro_batch
        self.first_version = cfg.critic.warmup
        self.model = ValueModel(policy)
        self.optimizer = make_optimizer(self.model.trainable(), cfg.optim, dtype)
        self.optimizers = [self.optimizer]

    def values(self, batch: MicroBatch) -> torch.Tensor:
        """[B, T]: one value for each column of a batch."""
        values_BT: torch.Tensor = self.model(batch.tokens_BT, batch.start, self.dtype, batch.layout)
        return values_BT

    @torch.no_grad()
    def estimate(self, groups: Groups, scores: Scores) -> CriticEstimate:
        """Values, returns and whitened advantages of all tokens of a step.

        The reward stands at a completion's last token; the KL, where it is part of the reward, at
        each token. Computed in float64: whitening divides by a deviation that may be nothing but
        rounding when all rewards are equal.
        """
        flat = [graded for group in groups for graded in group]
        sizes = torch.tensor(list(map(num_drawn_tokens, flat)))
        mask_NT = (torch.arange(int(sizes.max())) < sizes[:, None]).double()
        rewards_NT = torch.zeros_like(mask_NT)
        rewards_NT[torch.arange(len(flat)), sizes - 1] = scores.rewards_PG.flatten().double()
        values_NT = self._by_token(flat, mask_NT, self.values)
        if self.cfg.algo.kl == "reward":
            old_NT = self._by_token(flat, mask_NT, lambda batch: batch.old_logprobs_BT)
            ref_NT = self._by_token(flat, mask_NT, self.reference.logprobs)
            coef = self.cfg.algo.kl_coef
            rewards_NT = kl_in_reward(rewards_NT, old_NT, ref_NT, mask_NT, coef)
        advantage = ADVANTAGES[self.cfg.algo.advantage]
        settings = advantage.settings(self.cfg.critic)
        advantages_NT, returns_NT = advantage(rewards_NT, values_NT, mask_NT, **settings)
        whole = (mask_NT, values_NT, returns_NT, whiten(advantages_NT, mask_NT))
        shape = scores.rewards_PG.shape
        tensors = tuple(tensor.float().unflatten(0, shape) for tensor in whole)
        return self._estimate_from(groups, scores, *tensors)

    def _estimate_from(
        self,
        groups: Groups,
        scores: Scores,
        mask_PGT: torch.Tensor,
        values_PGT: torch.Tensor,
        returns_PGT: torch.Tensor,
        advantages_PGT: torch.Tensor,
    ) -> CriticEstimate:
        means_PG = advantages_PGT.sum(2) / mask_PGT.sum(2)
        own = iter(gather_rows(advantages_PGT.flatten(0, 1), mask_PGT.flatten(0, 1)))
        rows = [[TrainingRow(graded, next(own)) for graded in group] for group in groups]
        counted_PG = counted_by(self.cfg.algo, means_PG, scores)
        tensors = (mask_PGT, values_PGT, returns_PGT, advantages_PGT)
        return CriticEstimate(means_PG, counted_PG, rows, *tensors)

    def learn(
        self, share: CriticEstimate, learning_rate: Callable[[float], float]
    ) -> dict[str, float]:
        """One optimiser step towards the returns, in micro-batches.

        The denominator is that of the whole update: one for each micro-batch would make the
        gradient as many times too large as there are micro-batches. `explained` is the share of
        the returns' variance that the values predicted before this update; 0 is no knowledge. It is
        left out where all returns are equal.
        """
        flat = [row.graded for group in share.rows for row in group]
        values = share.by_completion(share.values_PGT)
        returns = share.by_completion(share.returns_PGT)
        rows = self.world.deal(list(map(ValueRow, flat, values, returns)), num_completion_tokens)
        gradient = partial(self.gradient, rows, share.mask_PGT.sum())
        sums = self.micro_batch.fit(gradient, self.optimizer.clear)
        loss = float(self.optimizer.add_up(self.world, sums, "an update of the critic"))
        check_numbers({"value_loss": loss}, "critic.lr")
        norm = self.optimizer.update(learning_rate(self.cfg.critic.lr))
        numbers = {"value_loss": loss, "value_grad_norm": norm}
        variance = torch.cat(returns).var(correction=0)
        if variance > 1e-12:
            errors = (torch.cat(returns) - torch.cat(values)).var(correction=0)
            numbers["explained"] = float(1 - errors / variance)
        return numbers

    def gradient(self, rows: Sequence[ValueRow], total: torch.Tensor, tokens: int) -> torch.Tensor:
        """Of these rows, in micro-batches of at most `tokens`; returns their part of the loss.
        `total` counts the tokens of the whole update."""
        loss_sum = 0.0
        for part, batch in self._parts(rows, tokens):
            old_BT = scatter_rows([row.old_values_T for row in part], batch.mask_BT)
            returns_BT = scatter_rows([row.returns_T for row in part], batch.mask_BT)
            values_BT = self.values(batch)
            losses_BT = value_loss(values_BT, old_BT, returns_BT, self.cfg.critic.clip)
            loss = (losses_BT * batch.mask_BT).sum() / total
            loss.backward()
            loss_sum += float(loss.detach())
        return torch.tensor(loss_sum, dtype=torch.float64)

    def _parts(self, rows: Sequence[Any], tokens: int) -> Iterator[tuple[list[Any], MicroBatch]]:
        """Rows of this rank in micro-batches of at most `tokens`, each with its rows."""
        return even_parts(self.world, rows, self.pad_id, tokens, self.model.decoder.device)

    def _by_token(
        self,
        flat: list[Graded],
        mask_NT: torch.Tensor,
        compute: Callable[[MicroBatch], torch.Tensor],
    ) -> torch.Tensor:
        """[N, T]: `compute(batch)` of all completions, in their own order; each rank computes its
        share."""
        all_rows = [PlacedRow(graded, place) for place, graded in enumerate(flat)]
        rows = self.world.deal(all_rows, num_completion_tokens)

        def fill(tokens: int) -> torch.Tensor:
            values_NT = torch.zeros_like(mask_NT)
            for part, batch in self._parts(rows, tokens):
                own = gather_rows(compute(batch).cpu(), batch.mask_BT.cpu())[: len(part)]
                for row, values_T in zip(part, own, strict=True):
                    values_NT[row.place, : len(values_T)] = values_T
            return values_NT

        with self.world.joint("the values of all tokens"):
            values_NT = self.micro_batch.fit(fill, clear=lambda: None)
        self.world.add_up(values_NT, "the values of all tokens")
        return values_NT

    def state_dict(self) -> dict[str, Any]:
        """Beside LoRA without the frozen weights, which are the base model's."""
        lora = self.model.decoder.adapter is not None
        kept = {
            name: tensor
            for name, tensor in self.model.state_dict().items()
            if not lora or ".lora." in name or name.startswith("head.")
        }
        return {"model": kept, "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        whole = self.model.decoder.adapter is None
        self.model.load_state_dict(state["model"], strict=whole)
        self.optimizer.load_state_dict(state["optimizer"])
