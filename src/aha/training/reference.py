"""The reference: a frozen copy of the policy that a KL divergence is measured against."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from aha.batching.batch import MicroBatch, PlacedRow, num_completion_tokens
from aha.core.records import Graded
from aha.dist.world import World
from aha.model.lora import frozen_copy
from aha.model.policy import Policy
from aha.training.even_parts import even_parts


class NoReference:
    """Of a recipe without a KL: nothing is kept, nothing is computed."""

    def numbers(self) -> dict[str, float]:
        return {}

    def follow(self, policy: Policy, version: int) -> None:
        """Nothing to reset."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


class Reference:
    """Weights that do not move, except for a reset to the policy's every `reset_every` steps
    (0: never).

    Log-probs are taken at the rollout's temperature, as the policy's are: at another temperature
    the KL of two equal models would not be 0.
    """

    def __init__(
        self,
        policy: Policy,
        dtype: torch.dtype,
        temperature: float,
        reset_every: int = 0,
        world: World | None = None,
    ):
        self.policy, self.world = frozen_copy(policy), world or World()
        self.dtype, self.temperature, self.reset_every = dtype, temperature, reset_every
        # Since the last `numbers`: sums of (old - reference) log-probs and of the mask.
        self.sums: list[torch.Tensor] = []

    @torch.no_grad()
    def logprobs(self, part: MicroBatch) -> torch.Tensor:
        """[B, T], in nats."""
        inputs = (part.tokens_BT, part.start, self.dtype, self.temperature)
        logprobs_BT = self.policy.token_logprobs(*inputs, layout=part.layout)
        gap = ((part.old_logprobs_BT - logprobs_BT) * part.mask_BT).sum()
        self.sums.append(torch.stack([gap, part.mask_BT.sum()]))
        return logprobs_BT

    def numbers(self) -> dict[str, float]:
        """For the step's report: the k1 estimate of the KL, in nats a token, over all tokens whose
        log-probs were computed. A KL in the loss has a number of its own in its place."""
        zeros = torch.zeros(2, device=self.policy.device)
        total = torch.stack(self.sums or [zeros]).sum(0)
        self.sums.clear()
        self.world.add_up(total, "the KL of the step")
        gap, tokens = total.tolist()
        return {"kl": gap / tokens} if tokens else {}

    def distances(self, groups: list[list[Graded]], pad_id: int, tokens: int) -> torch.Tensor:
        """[P, G]: the sum of old - ref log-probs over a completion's tokens, in nats: the k1
        estimate of the KL of the whole completion. Of the rows of other ranks 0.

        Computed in micro-batches of at most `tokens`. One group at a time, which may be one
        completion, would leave the processor idle.
        """
        rows = [PlacedRow(graded, i) for i, graded in enumerate(g for gs in groups for g in gs)]
        distances_N = torch.zeros(len(rows))
        own = self.world.deal(rows, num_completion_tokens)
        for dealt, part in self.parts(own, pad_id, tokens):
            gaps_BT = (part.old_logprobs_BT - self.logprobs(part)) * part.mask_BT
            if dealt:
                distances_N[[row.place for row in dealt]] = gaps_BT.sum(1).cpu()
        return distances_N.view(len(groups), -1)

    def parts(
        self, rows: Sequence[PlacedRow], pad_id: int, tokens: int
    ) -> Iterator[tuple[list[PlacedRow], MicroBatch]]:
        """Rows of this rank in micro-batches of at most `tokens`, each with its rows."""
        shared = self.policy.supports_layout
        return even_parts(self.world, rows, pad_id, tokens, self.policy.device, shared)

    def follow(self, policy: Policy, version: int) -> None:
        """Reset to the policy where `version` asks for it.

        Source: every 400 steps in DeepSeek-R1-Zero (arXiv 2501.12948); ProRL (arXiv 2505.24864).
        Differs from ProRL: the optimiser keeps its state.
        """
        if self.reset_every and version % self.reset_every == 0:
            self.policy.load_state_dict(policy.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """The weights that may differ from the base model: with LoRA only the adapters."""
        whole = self.policy.state_dict()
        lora = self.policy.adapter is not None
        return {name: tensor for name, tensor in whole.items() if ".lora." in name or not lora}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.policy.load_state_dict(state, strict=self.policy.adapter is None)
