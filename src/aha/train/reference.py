"""The reference: a frozen copy of the policy, and how far the policy has gone from it."""

import torch

from aha.batching.batch import Batch, cut, pack
from aha.core.records import Graded
from aha.model.lora import frozen_copy
from aha.model.policy import Policy


class Reference:
    """Weights that do not move, but for a reset to the policy's now and then."""

    def __init__(self, policy: Policy, dtype: torch.dtype, temperature: float):
        self.policy = frozen_copy(policy)
        self.dtype, self.temperature = dtype, temperature

    @torch.no_grad()
    def logprobs(self, part: Batch) -> torch.Tensor:
        """[B, T], at the temperature of the rollout as the policy's own (trap T15)."""
        at = (part.tokens_BT, part.start, self.dtype, self.temperature)
        return self.policy.token_logprobs(*at, layout=part.layout)

    def distances(self, groups: list[list[Graded]], pad_id: int, tokens: int) -> torch.Tensor:
        """[P, G]: the sum of old - ref over a completion's tokens, k1 of the whole completion.

        Read in parts of at most `tokens`: a group at a time, which may be one completion, leaves
        the processor waiting.
        """
        flat = [one for group in groups for one in group]
        found = torch.zeros(len(flat))
        placed = [(one, place) for place, one in enumerate(flat)]
        for rows in cut(placed, tokens, self.policy.supports_layout):
            part = pack([(one, 0.0) for one, _ in rows], pad_id).to(self.policy.device)
            gaps_BT = (part.old_logprobs_BT - self.logprobs(part)) * part.mask_BT
            found[[place for _, place in rows]] = gaps_BT.sum(1).cpu()
        return found.view(len(groups), -1)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """What may differ from the base model: beside LoRA the adapters alone."""
        whole = self.policy.state_dict()
        lora = self.policy.adapter is not None
        return {name: t for name, t in whole.items() if ".lora." in name or not lora}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self.policy.load_state_dict(state, strict=self.policy.adapter is None)

    def reset(self, policy: Policy) -> None:
        """Become the policy of this moment.  Source: every 400 steps in R1-Zero; ProRL (arXiv
        2505.24864). Differs from ProRL: the optimiser keeps its state."""
        self.policy.load_state_dict(policy.state_dict())
