"""Pre-training: it learns, resumes exactly, whoever writes its documents, and waits for nothing."""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from aha.corpus.bases import PretrainConfig
from aha.corpus.shards import CorpusTokenizer, write_shard
from aha.model.transformer import Transformer
from aha.pretrain.trainer import Pretrainer, lr_factor, to_device

from ..tiny import TOKENIZER, tiny_config

SMALL = PretrainConfig(
    tokens=9_000, batch_tokens=600, shard_documents=40, warmup_steps=3, dtype="float32"
)
LONGEST = 160


def make(cfg: PretrainConfig = SMALL, writers: int = 0, device: str = "cpu") -> Pretrainer:
    model = Transformer(tiny_config(max_position_embeddings=LONGEST))
    model.initialise(torch.Generator().manual_seed(0))
    return Pretrainer(model.to(device), TOKENIZER, cfg, writers)


def test_the_schedule_by_hand():
    # warm-up over 4 steps, then flat, then linear over the last two fifths of 1000 tokens
    cfg = replace(SMALL, tokens=1_000, warmup_steps=4, decay=0.4)
    assert [lr_factor(cfg, step, 0) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert lr_factor(cfg, 50, 600) == 1.0
    assert lr_factor(cfg, 50, 800) == pytest.approx(0.5)
    assert lr_factor(cfg, 50, 1_000) == 0.0 and lr_factor(cfg, 50, 2_000) == 0.0


@pytest.fixture(scope="module")
def straight() -> tuple[Pretrainer, list]:
    """Trained to the end without a pause; more than one shard is read."""
    trainer = make()
    return trainer, list(trainer.steps())


def test_it_reads_all_tokens_once_and_learns(straight):
    trainer, reports = straight
    assert trainer.done and trainer.shard_number >= 1
    assert [report.step for report in reports] == list(range(1, len(reports) + 1))
    assert reports[-1].tokens_seen >= SMALL.tokens > reports[-2].tokens_seen
    assert reports[0].loss.item() == pytest.approx(4.7, abs=0.2)  # ln 112: it knows nothing
    assert sum(r.loss for r in reports[-3:]) / 3 < 3.6


@pytest.mark.parametrize("pause", [1, 4, 9])
def test_a_resumed_run_is_bit_equal(straight, pause, tmp_path):
    whole, wanted = straight
    first = make()
    reports = [first.step() for _ in range(pause)]
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = make()
    second.model.load_state_dict(first.model.state_dict())
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    reports += list(second.steps())
    assert [r.loss for r in reports] == [r.loss for r in wanted]
    assert [r.tokens_seen for r in reports] == [r.tokens_seen for r in wanted]
    for ours, theirs in zip(second.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_bf16_learns_as_well():
    trainer = make(replace(SMALL, tokens=3_000, dtype="bfloat16"))
    reports = list(trainer.steps())
    assert reports[-1].loss < reports[0].loss


def test_the_optimisers_share_the_parameters_without_overlap():
    trainer = make()
    shares = [
        {id(p) for group in optimizer.param_groups for p in group["params"]}
        for optimizer in trainer.optimizers
    ]
    assert not shares[0] & shares[1]
    assert shares[0] | shares[1] == {id(p) for p in trainer.model.parameters()}
    matrices = {id(p) for p in trainer.model.model.layers.parameters() if p.ndim == 2}
    assert shares[0] == matrices


@pytest.mark.parametrize("pause", [0, 5])
def test_the_weights_do_not_know_who_wrote_the_documents(straight, pause):
    """Two processes, and a pause in the middle of what one of them wrote."""
    whole, wanted = straight
    first = make(writers=2)
    try:
        reports = [first.step() for _ in range(pause)]
        second = make(writers=2)
        second.model.load_state_dict(first.model.state_dict())
        second.load_state_dict(first.state_dict())
    finally:
        first.close()
    try:
        reports += list(second.steps())
    finally:
        second.close()
    assert [r.loss for r in reports] == [r.loss for r in wanted]
    for ours, theirs in zip(second.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


class Waits(TorchDispatchMode):
    """Counts the operations that hand a number to Python, which on a GPU wait for it."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def test_an_update_reads_no_number_back():
    trainer = make()
    trainer.step()  # the optimisers make their moments
    with Waits() as waits:
        report = trainer.step()
        assert waits.count == 0
        report.loss.item()
    assert waits.count == 1  # so it is this that is counted


def test_a_batch_keeps_its_numbers_on_the_way():
    batch = write_shard(CorpusTokenizer.of(TOKENIZER), SMALL, 0, LONGEST)[0]
    tokens_BT, weights_BT = to_device(batch, torch.device("cpu"))
    assert tokens_BT.dtype == torch.int64 and weights_BT.dtype == torch.float32
    assert tokens_BT.tolist() == batch.tokens_BT.tolist()
    assert weights_BT.tolist() == batch.weights_BT.tolist()


@pytest.mark.gpu
def test_a_gpu_learns_as_a_cpu_does_and_is_never_waited_for(straight):
    _, wanted = straight
    trainer = make(device="cuda")
    reports = [trainer.step()]
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        reports += [trainer.step() for _ in range(4)]
    finally:
        torch.cuda.set_sync_debug_mode(before)
    for ours, theirs in zip(reports, wanted[:5], strict=True):
        assert ours.loss.item() == pytest.approx(theirs.loss.item(), abs=1e-4)
