"""The one trainer of next tokens, with batches that are given and plain gradient descent."""

import pytest
import torch

from aha.dist.world import World
from aha.training.loop import drive
from aha.training.next_tokens import NextTokenBatch, NextTokenTrainer, WeightedRows

from ..tiny import tiny_transformer

TOKENS_BT = torch.randint(6, 100, (4, 12), generator=torch.Generator().manual_seed(3))
WEIGHTS_BT = torch.tensor([[0.0] * 3 + [1.0] * 5 + [2.0] * 3] * 3 + [[0.0] * 11])


class Descent(NextTokenTrainer):
    """Three updates on the same rows, cut into `parts`."""

    def __init__(self, parts: int = 1, world: World | None = None):
        super().__init__(tiny_transformer(std=0.1), torch.float32, world)
        self.cuts = parts

    @property
    def done(self):
        return self.step_count == 3

    def rate(self):
        return 0.5 / (self.step_count + 1)

    def learn(self):
        rows = (self.world.share(tensor) for tensor in (TOKENS_BT, WEIGHTS_BT))
        pairs = zip(*(tensor.chunk(self.cuts) for tensor in rows), strict=True)
        parts = [WeightedRows(tokens, 1, weights) for tokens, weights in pairs if len(tokens)]
        batch = NextTokenBatch(parts, WEIGHTS_BT.sum(), TOKENS_BT.numel())
        return batch, self.gradient(batch)

    def update(self, rate):
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters])
        with torch.no_grad():
            for parameter in self.parameters:
                parameter -= rate * parameter.grad
                parameter.grad = None
        return norm


class OneOfTwo(World):
    def __init__(self, rank: int):
        super().__init__()
        self.rank, self.size = rank, 2


def test_the_loss_is_the_weighted_mean_of_all_rows():
    trainer = Descent()
    with torch.no_grad():
        logprobs_BT = trainer.policy.token_logprobs(TOKENS_BT).double()
    expected = -(logprobs_BT * WEIGHTS_BT).sum() / WEIGHTS_BT.sum()
    assert trainer.step().loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_it_counts_its_steps_and_its_tokens_and_ends():
    trainer, reports = Descent(), []
    drive(trainer.steps(), [reports.append])
    assert [report.version for report in reports] == [1, 2, 3] and trainer.done
    assert [report.tokens_seen for report in reports] == [48, 96, 144]
    assert [report.lr for report in reports] == [0.5, 0.25, 0.5 / 3]
    assert reports[-1].loss < reports[0].loss and reports[0].grad_norm > 0


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_change_nothing_but_rounding(parts):
    whole, cut = list(Descent().steps()), list(Descent(parts).steps())
    for ours, theirs in zip(cut, whole, strict=True):
        assert ours.loss.item() == pytest.approx(theirs.loss.item(), rel=1e-5)
        assert ours.grad_norm.item() == pytest.approx(theirs.grad_norm.item(), rel=1e-4)


def test_the_losses_of_ranks_add_up():
    whole = Descent().learn()[1]
    shares = [Descent(world=OneOfTwo(rank)).learn()[1] for rank in range(2)]
    assert sum(shares).item() == pytest.approx(whole.item(), rel=1e-5)


def test_a_rank_without_rows_has_a_gradient_of_zeros():
    trainer = Descent()
    loss = trainer.gradient(NextTokenBatch([], WEIGHTS_BT.sum(), 0))
    assert loss.item() == 0.0 and all(not p.grad.any() for p in trainer.parameters)
