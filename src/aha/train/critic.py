"""The critic: a model of its own that says, at every token, what reward is still to come.

It is what PPO has in place of a group to compare with: advantages token by token (GAE), at the
price of a second model to train. Its pure functions are in `algo/critic.py`.

Shapes: P prompts, G completions, B rows, T tokens; in [P, G, T] column t is a completion's own
token t, where a batch's column is a position.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from aha.algo.advantages import ADVANTAGES
from aha.algo.kl import kl_in_reward
from aha.algo.values import value_loss, whiten
from aha.batching.batch import Batch, cut, gather, pack, spread
from aha.batching.layout import Layout
from aha.core.config import RunConfig
from aha.core.records import Graded
from aha.machine.micro_batch import Room
from aha.model.hf_policy import ours_alone
from aha.model.lora import copy_of
from aha.model.optimizer import make_optimizer
from aha.model.transformer import Decoder
from aha.train.reference import Reference


class ValueModel(nn.Module):
    """The policy's decoder with one number in place of its logits.

    The head starts at 0, so that the first advantages are the rewards themselves and no random
    value is taken for knowledge.
    """

    def __init__(self, decoder: Decoder):
        super().__init__()
        ours_alone(decoder, "algo.advantage 'gae'", "--algo.advantage dr_grpo")
        self.decoder = copy_of(decoder)  # with LoRA, adapters of its own on the same weights
        if not decoder.config.tie_word_embeddings:
            del self.decoder.lm_head
        self.head = nn.Linear(decoder.config.hidden_size, 1, device=decoder.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def trainable(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def forward(
        self, tokens_BT, start: int, dtype: torch.dtype, layout: Layout | None = None
    ) -> torch.Tensor:
        """[B, T - start] in float32: the value before each token from `start` on is drawn; with a
        layout 0 for any but the completions' own tokens."""
        hidden = self.decoder.deciding(tokens_BT, start, dtype, layout)
        # The final norm's weight is folded into the head, as the decoder folds it into its own.
        weight = self.head.weight * self.decoder.model.norm.weight
        values = F.linear(hidden.float(), weight.float(), self.head.bias.float()).squeeze(-1)
        return values if layout is None else layout.spread(values)


@dataclass(frozen=True)
class Judged:
    """What the critic said about a step's completions before it learnt from them: all [P, G, T],
    0 behind a completion's end."""

    mask_PGT: torch.Tensor
    values_PGT: torch.Tensor
    returns_PGT: torch.Tensor
    advantages_PGT: torch.Tensor

    @property
    def advantages_PG(self) -> torch.Tensor:
        """The mean over a completion's tokens, for people to look at."""
        return self.advantages_PGT.sum(2) / self.mask_PGT.sum(2)

    @property
    def credits(self) -> tuple:
        """The advantage of each token of each completion of each prompt, as plain numbers."""
        rows = [tuple(row.tolist()) for row in self.rows("advantages_PGT")]
        G = self.mask_PGT.shape[1]
        return tuple(tuple(rows[first : first + G]) for first in range(0, len(rows), G))

    def __getitem__(self, places: slice) -> "Judged":
        """The same of some of the prompts."""
        tensors = (self.mask_PGT, self.values_PGT, self.returns_PGT, self.advantages_PGT)
        return Judged(*(tensor[places] for tensor in tensors))

    def rows(self, name: str) -> list[torch.Tensor]:
        """One tensor a completion, over its own tokens."""
        return gather(getattr(self, name).flatten(0, 1), self.mask_PGT.flatten(0, 1))


class Critic:
    """The value model with its optimiser: judges completions, then learns from what they got."""

    def __init__(
        self, decoder: Decoder, cfg: RunConfig, dtype: torch.dtype, pad_id: int, room: Room
    ):
        self.cfg, self.dtype, self.pad_id, self.room = cfg, dtype, pad_id, room
        self.model = ValueModel(decoder)
        self.optimizer = make_optimizer(self.model.trainable(), cfg.optim, dtype)

    def cut(self, rows: list[tuple], tokens: int) -> Iterator[tuple[Batch, list]]:
        """Batches of at most `tokens`, each with what stood beside its graded completions."""
        for part in cut(rows, tokens):
            batch = pack([(graded, 0.0) for graded, _ in part], self.pad_id)
            yield batch.to(self.model.decoder.device), [beside for _, beside in part]

    def values(self, batch: Batch) -> torch.Tensor:
        """[B, T]: one value for each column of a batch."""
        return self.model(batch.tokens_BT, batch.start, self.dtype, batch.layout)

    def by_token(self, flat: list[Graded], mask_BT, read: Callable) -> torch.Tensor:
        """`read(batch)` of all completions, in their own order, column t their own token t."""
        placed = [(one, place) for place, one in enumerate(flat)]

        def fill(tokens: int) -> torch.Tensor:
            found_BT = torch.zeros_like(mask_BT)
            for batch, places in self.cut(placed, tokens):
                rows = gather(read(batch).cpu(), batch.mask_BT.cpu())
                for place, row in zip(places, rows, strict=True):
                    found_BT[place, : len(row)] = row
            return found_BT

        return self.room.fit(fill, clear=lambda: None)

    @torch.no_grad()
    def judge(
        self, graded: list[list[Graded]], rewards_PG: torch.Tensor, reference: Reference | None
    ) -> Judged:
        """Values, returns and whitened advantages of all tokens of a step.

        The reward stands at a completion's last token; the KL, where it is paid, at each token.
        In float64: whitening divides by a deviation that may be nothing but rounding (trap T3).
        """
        flat = [one for group in graded for one in group]
        sizes = torch.tensor([len(one.completion.tokens) for one in flat])
        mask_BT = (torch.arange(int(sizes.max())) < sizes[:, None]).double()
        rewards_BT = torch.zeros_like(mask_BT)
        rewards_BT[torch.arange(len(flat)), sizes - 1] = rewards_PG.flatten().double()
        values_BT = self.by_token(flat, mask_BT, self.values)
        if self.cfg.algo.kl == "reward":
            old_BT = self.by_token(flat, mask_BT, lambda batch: batch.old_logprobs_BT)
            ref_BT = self.by_token(flat, mask_BT, reference.logprobs)
            coef = self.cfg.algo.kl_coef
            rewards_BT = kl_in_reward(rewards_BT, old_BT, ref_BT, mask_BT, coef)
        advantage = ADVANTAGES[self.cfg.algo.advantage]
        settings = advantage.settings(self.cfg.critic)
        advantages_BT, returns_BT = advantage(rewards_BT, values_BT, mask_BT, **settings)
        found = (mask_BT, values_BT, returns_BT, whiten(advantages_BT, mask_BT))
        return Judged(*(tensor.float().unflatten(0, rewards_PG.shape) for tensor in found))

    def update(self, graded: list[list[Graded]], judged: Judged, lr: float) -> dict[str, float]:
        """One optimiser step towards the returns, in parts that fit memory.

        The denominator is that of the whole step (trap T12). `explained` is the share of the
        returns' variance that the values knew before this step: 0 knows nothing.
        """
        flat = [one for group in graded for one in group]
        values, returns = judged.rows("values_PGT"), judged.rows("returns_PGT")
        rows = list(zip(flat, zip(values, returns, strict=True), strict=True))
        gradient = partial(self.gradient, rows, judged.mask_PGT.sum())
        total = self.room.fit(gradient, self.optimizer.clear)
        norm = self.optimizer.update(lr)
        missed = (torch.cat(returns) - torch.cat(values)).var(correction=0)
        spread_out = torch.cat(returns).var(correction=0).clamp(min=1e-12)
        return {
            "value_loss": total,
            "value_grad_norm": norm,
            "explained": float(1 - missed / spread_out),
        }

    def gradient(self, rows: list[tuple], total: torch.Tensor, tokens: int) -> float:
        """Of the whole step, in parts of at most `tokens`; returns the loss."""
        found = 0.0
        for batch, beside in self.cut(rows, tokens):
            old_BT, returns_BT = (
                spread(list(some), batch.mask_BT) for some in zip(*beside, strict=True)
            )
            values_BT = self.values(batch)
            losses_BT = value_loss(values_BT, old_BT, returns_BT, self.cfg.critic.clip)
            loss = (losses_BT * batch.mask_BT).sum() / total
            loss.backward()
            found += float(loss.detach())
        return found

    def state_dict(self) -> dict:
        """Beside LoRA without the frozen weights, which are the base model's."""
        lora = self.model.decoder.adapter is not None
        kept = {
            name: tensor
            for name, tensor in self.model.state_dict().items()
            if not lora or ".lora." in name or name.startswith("head.")
        }
        return {"model": kept, "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        whole = self.model.decoder.adapter is None
        self.model.load_state_dict(state["model"], strict=whole)
        self.optimizer.load_state_dict(state["optimizer"])
