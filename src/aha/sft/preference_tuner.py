"""Fine-tuning on preference pairs: the trainer of next tokens with other weights of the tokens.

A preference loss depends on the sums of the log-probs of whole completions. Its gradient with
respect to a token's log-prob is therefore one number for each completion. An update computes these
numbers first, without a gradient, and then takes the step of `NextTokenTrainer` with them as the
tokens' weights: the same gradient, and the two completions of a pair need not be in one
micro-batch. The price is one more forward pass.

Shapes: P pairs, R = 2 P rows; row 2 i is the chosen completion of pair i, 2 i + 1 the rejected one.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from aha.algo.preferences import METHODS, preference_loss, preference_score
from aha.batching.batch import MicroBatch, PlacedRow, TrainingRow, pack, split_rows
from aha.core.errors import RunError
from aha.core.records import Completion, Graded, Problem, Prompt
from aha.core.seeds import seed_for
from aha.model.policy import Policy
from aha.model.tokenizer import Tokenizer
from aha.sft.examples import PreferencePair
from aha.sft.fine_tuner import FineTuner
from aha.sft.tuning_config import PreferenceSection, TuningConfig
from aha.training.next_tokens import NextTokenBatch, WeightedRows


@dataclass(frozen=True)
class PairBatch(NextTokenBatch):
    """The rows of one update of pairs. The weights are the gradient; `loss` is what it is of."""

    loss: torch.Tensor


@dataclass(frozen=True)
class PlacedPart:
    """A micro-batch, and the place of each of its rows."""

    batch: MicroBatch
    places: list[int]


def rows_of(pairs: Sequence[PreferencePair]) -> list[PlacedRow]:
    """Both completions of each pair. They share the prompt, which is computed once."""
    rows: list[PlacedRow] = []
    for pair in pairs:
        prompt = Prompt(Problem("", "prefer", {}), "", pair.prompt)
        for tokens in (pair.chosen, pair.rejected):
            completion = Completion(prompt, tokens, (0.0,) * len(tokens), "", "stop")
            rows.append(PlacedRow(Graded(0.0, False, "", {}, completion), len(rows)))
    return rows


class PreferenceTuner(FineTuner):
    """Fine-tuning of a policy on pairs, by SimPO or DPO."""

    examples: list[PreferencePair]  # type: ignore[assignment]

    def __init__(
        self, policy: Policy, tokenizer: Tokenizer, pairs: list[PreferencePair], cfg: TuningConfig
    ):
        super().__init__(policy, tokenizer, pairs, cfg)  # type: ignore[arg-type]
        self.section = cfg.preference or PreferenceSection()
        self.method = METHODS[self.section.method]
        beta, gamma = self.section.beta, self.section.gamma
        self.beta = self.method.beta if beta is None else beta
        self.gamma = self.method.gamma if gamma is None else gamma
        self.reference_R: torch.Tensor | None = None  # of all pairs, before the first update
        self.last: dict[str, float] = {}  # the numbers of the last update

    def learn(self) -> tuple[NextTokenBatch, torch.Tensor]:
        if self.method.reference and self.reference_R is None:
            assert self.version == 0, "the reference is the model before the first update"
            self.reference_R = self.micro_batch.fit(
                lambda tokens: self.sums_of(self.parts_of(rows_of(self.examples), tokens)),
                self.optimizer.clear,
            )
        return super().learn()

    def parts_of(self, rows: list[PlacedRow], tokens: int) -> Iterator[PlacedPart]:
        """The rows in micro-batches of at most `tokens`, on the model's device; each is made when
        it is taken, because those of a whole file would fill a GPU."""
        for part in split_rows(rows, tokens, self.policy.supports_layout):
            batch = pack([TrainingRow.of(row.graded, 0.0) for row in part], self.pad_id)
            yield PlacedPart(batch.to(self.policy.device), [row.place for row in part])

    @property
    def pad_id(self) -> int:
        return self.tokenizer.pad_id

    @torch.no_grad()
    def sums_of(self, parts: Iterable[PlacedPart]) -> torch.Tensor:
        """The log-prob of each completion, [R] in float64, in the order of the places."""
        places: list[int] = []
        sums: list[torch.Tensor] = []
        for part in parts:
            batch = part.batch
            logprobs_BT = self.policy.token_logprobs(
                batch.tokens_BT, batch.start, self.dtype, layout=batch.layout
            )
            # Outside of the mask a log-prob may be anything, infinite too. On the CPU, because an
            # Apple GPU has no float64.
            own_BT = logprobs_BT.cpu().double().masked_fill(batch.mask_BT.cpu() == 0, 0.0)
            places += part.places
            sums.append(own_BT.sum(1))
        sums_R = torch.zeros(len(places), dtype=torch.float64)
        sums_R[places] = torch.cat(sums)
        return sums_R

    def batch_of(self, examples: Sequence[Any], tokens: int) -> PairBatch:
        """These pairs as one update, in micro-batches of at most `tokens`."""
        rows = rows_of(examples)
        parts = list(self.parts_of(rows, tokens))
        lengths_R = torch.tensor(
            [len(row.graded.completion.tokens) for row in rows], dtype=torch.float64
        )
        sums_R = self.sums_of(parts).requires_grad_()
        loss = self.loss_of(sums_R, lengths_R, self.reference_of(examples))
        (slope_R,) = torch.autograd.grad(loss, sums_R)
        return PairBatch(
            [weighted_by(part, -slope_R) for part in parts],
            1.0,
            sum(pair.num_tokens for pair in examples),
            loss.detach().float(),
        )

    def reference_of(self, pairs: Sequence[PreferencePair]) -> torch.Tensor:
        """The log-probs of these pairs' completions before the first update, [R]; 0 for a method
        that takes none."""
        if self.reference_R is None:
            return torch.zeros(2 * len(pairs), dtype=torch.float64)
        place_of = {id(pair): place for place, pair in enumerate(self.examples)}
        places = [2 * place_of[id(pair)] + side for pair in pairs for side in (0, 1)]
        return self.reference_R[places]

    def loss_of(
        self, sums_R: torch.Tensor, lengths_R: torch.Tensor, reference_R: torch.Tensor
    ) -> torch.Tensor:
        """The mean loss of the pairs; with `nll` that of the chosen completions' tokens too."""
        score_R = preference_score(self.method, sums_R, reference_R, lengths_R)
        chosen_P, rejected_P = score_R[0::2], score_R[1::2]
        loss = preference_loss(chosen_P, rejected_P, self.beta, self.gamma).mean()
        margin_P = (chosen_P - rejected_P).detach()
        self.last = {
            "margin": margin_P.mean().item(),
            "ranked": (margin_P > 0).double().mean().item(),
        }
        if self.section.nll:
            loss = loss - self.section.nll * sums_R[0::2].sum() / lengths_R[0::2].sum()
        return loss

    def gradient(self, batch: NextTokenBatch) -> torch.Tensor:
        assert isinstance(batch, PairBatch), "a batch of `batch_of`"
        super().gradient(batch)
        return batch.loss.to(self.policy.device)

    def numbers(self) -> dict[str, float]:
        return self.last

    @property
    def pairs_key(self) -> int:
        """A digest of all pairs, in their order."""
        return seed_for("pairs", [(p.prompt, p.chosen, p.rejected) for p in self.examples])

    def state_dict(self) -> dict[str, Any]:
        reference = None if self.reference_R is None else self.reference_R.tolist()
        kept = {"reference": reference, "pairs": self.pairs_key}
        return super().state_dict() | (kept if self.method.reference else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As of a fine-tuning. Raises `RunError` for other pairs than the reference is of."""
        super().load_state_dict(state)
        if not self.method.reference or state["reference"] is None:
            return
        if state["pairs"] != self.pairs_key:
            raise RunError(
                "other pairs than DPO's reference was computed for",
                "the pairs that the run began with",
                "put them back, or begin a new run",
            )
        self.reference_R = torch.tensor(state["reference"], dtype=torch.float64)


def weighted_by(part: PlacedPart, weights_R: torch.Tensor) -> WeightedRows:
    """A micro-batch in which every token counts as its completion does."""
    batch = part.batch
    weights_B1 = weights_R[part.places].to(batch.mask_BT)[:, None]
    return WeightedRows(batch.tokens_BT, batch.start, batch.mask_BT * weights_B1, batch.layout)
