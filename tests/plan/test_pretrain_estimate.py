"""The plan of a base against what its optimisers hold and do, and against what aha-tiny took."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import aha
from aha.core.sizes import GB
from aha.corpus.bases import BASES, PretrainConfig
from aha.model.architecture import ModelConfig
from aha.model.transformer import Transformer
from aha.plan.estimate import RESERVE, activation_bytes, folded_bytes
from aha.plan.machines import load_cards
from aha.plan.pretrain_estimate import (
    PADDING,
    WRITTEN,
    BasePlan,
    PretrainTokens,
    base_memory,
    compute_seconds,
    estimate_base,
    muon_flop,
    process_memory,
)
from aha.plan.shapes import Shape, known_shapes
from aha.plan.speed import Card
from aha.pretrain.trainer import make_optimizers

CARDS = load_cards()[1]
SHAPE = Shape(V=112, C=48, I=80, L=3, H=4, K=2, D=12, tied=True, bias=True)
CARD = Card(1, 1, 1, 100, 2, train=0.5, decode=0.5, layer_us=0)


@pytest.fixture(scope="module")
def stepped() -> tuple[list[torch.optim.Optimizer], list[int]]:
    """Both optimisers after an update of SHAPE, and the FLOP that each was counted to do."""
    policy = Transformer(ModelConfig(112, 48, 80, 3, 4, 2))
    for parameter in policy.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizers, flop = make_optimizers(policy, PretrainConfig(), torch.float32), []
    for optimizer in optimizers:
        with FlopCounterMode(display=False) as counter:
            optimizer.step()
        flop.append(counter.get_total_flops())
    return optimizers, flop


def test_muon_does_what_the_plan_counts(stepped):
    assert stepped[1] == [muon_flop(SHAPE), 0]


def test_the_optimisers_hold_what_the_plan_counts(stepped):
    held = sum(
        value.nbytes
        for optimizer in stepped[0]
        for state in optimizer.state.values()
        for value in state.values()
        if value.ndim
    )
    assert base_memory(SHAPE, PretrainTokens(1e6, 512))["optimiser"] == held


def test_memory_by_part():
    reading = PretrainTokens(1e6, 512, positions=128)
    memory = base_memory(SHAPE, reading)
    assert memory["weights"] == memory["gradients"] == 4 * SHAPE.parameters
    assert memory["logits"] == 512 * 112 * 12 and memory["folded weights"] == folded_bytes(SHAPE)
    assert memory["activations"] == activation_bytes(SHAPE, 512)
    plan = estimate_base(SHAPE, reading, CARD)
    assert plan.peak == sum(memory.values())
    room = plan.peak / GB / (1 - RESERVE)
    for share, fits in ((1.01, True), (0.99, False)):
        assert plan.fits(Card(room * share, 1, 1, 0, 0, 1, 1, 0)) is fits


def test_a_rank_on_a_cpu_is_a_process_of_its_own():
    """100 documents of 65 tokens; 206 updates, of which 100 sizes are kept; on a GPU none of it."""
    reading = PretrainTokens(100_000, 500, positions=128, shard_documents=100)
    assert process_memory(reading, CARDS["cpu-2-cores"], 2) == {
        "processes": 2 * 320e6,
        "writing shards": 2 * 130 * 6_500,
        "compiled products": 2 * 100 * 20e6,
    }
    few = PretrainTokens(5_000, 500, positions=128)
    assert process_memory(few, CARDS["cpu-2-cores"], 1)["compiled products"] == 10.3 * 20e6
    assert process_memory(reading, CARDS["cpu-2-cores-avx2"], 1)["compiled products"] == 0
    assert process_memory(reading, CARDS["h100-80gb"], 1) == {}
    one, two = (base_memory(SHAPE, reading, ranks) for ranks in (1, 2))
    twice = {part for part in one if two[part] == 2 * one[part]}
    assert twice == {"weights", "gradients", "optimiser", "folded weights"}
    assert two["activations"] == one["activations"] and two["logits"] == one["logits"]


def test_time_and_money_by_hand():
    reading = PretrainTokens(tokens=1e6, batch_tokens=1000)
    plan = estimate_base(SHAPE, reading, replace(CARD, cpu=True))  # which starts no kernels
    # 310 positions are seen from a token, a half of them as keys and once more as values; attention
    # takes four times as long as a product; 28 bytes of each weight pass through 1 GB/s.
    flop = 6 * 1000 * (SHAPE.parameters + 4 * 310 * 48 * 3) + muon_flop(SHAPE)
    compute = flop / 0.5e12 + 28 * SHAPE.parameters / 1e9
    write = 1000 / PADDING / WRITTEN
    assert plan.compute_s == pytest.approx(compute) and plan.write_s == pytest.approx(write)
    assert plan.updates == pytest.approx(1000 * PADDING)
    seconds = 1000 * PADDING * (compute + write)
    assert plan.cost.seconds == pytest.approx(seconds)
    assert plan.cost.usd == pytest.approx(2 * seconds / 3600)
    assert plan.cost.kwh == pytest.approx(0.1 * seconds / 3600)
    assert plan.tokens_per_s == pytest.approx(1e6 / seconds)


def test_writers_work_while_a_gpu_does_and_share_the_cores_of_a_cpu():
    gpu, cpu = CARDS["h100-80gb"], CARDS["cpu-2-cores"]
    shape, reading = known_shapes()["base-10m"], PretrainTokens(1e9, 32_768)
    one, two, many = (estimate_base(shape, reading, gpu, n) for n in (1, 2, 16))
    assert two.tokens_per_s == pytest.approx(2 * one.tokens_per_s)  # both wait for documents
    assert one.tokens_per_s == pytest.approx(WRITTEN)
    assert many.write_s < many.compute_s
    assert many.tokens_per_s == pytest.approx(32_768 / PADDING / many.compute_s)
    alone, helped = (estimate_base(shape, reading, cpu, n) for n in (0, 1))
    assert alone.tokens_per_s == helped.tokens_per_s


def test_a_gpu_needs_time_to_start_each_operation():
    """However fast it computes: layers and attention there and back; Muon's 7 matrices, whose
    products are started once for each of three shapes: 48 x 48, 24 x 48 and 48 x 80."""
    fast = Card(1, 1e9, 1e9, 0, 0, train=1, decode=1, layer_us=10)
    reading = PretrainTokens(1e6, 1000)
    floor = (3 * 3 * 10 + (3 * (50 + 7 * 4) + 3 * 20) * 5) * 1e-6
    assert compute_seconds(SHAPE, reading, fast) == pytest.approx(floor, rel=1e-3)


def tiny_as_planned() -> tuple[dict, BasePlan]:
    """The facts of the packaged base, and the plan of it with the ranks that it had."""
    path = Path(aha.__file__).parent / "models" / "aha-tiny" / "pretraining.json"
    facts, cfg = json.loads(path.read_text()), PretrainConfig()
    reading = PretrainTokens(facts["tokens"], cfg.batch_tokens, shard_documents=cfg.shard_documents)
    shape, (ranks,) = known_shapes()["aha-tiny"], facts["ranks"]
    return facts, estimate_base(shape, reading, CARDS["cpu-2-cores"], ranks=ranks)


def test_aha_tiny_took_about_the_memory_that_is_planned():
    """It took 5.3 GB where .1 was planned: nothing but tensors was counted."""
    facts, plan = tiny_as_planned()
    assert plan.peak / facts["peak_bytes"] == pytest.approx(1.0, abs=0.15)


def test_aha_tiny_took_about_as_long_as_is_planned():
    """On two ranks, where the plan has one process."""
    facts, plan = tiny_as_planned()
    assert plan.updates == pytest.approx(facts["steps"], rel=0.05)
    assert facts["hours"] * 3600 / plan.cost.seconds == pytest.approx(1.0, abs=0.3)
    assert facts["cost_usd"] / plan.cost.usd == pytest.approx(1.0, abs=0.3)


@pytest.mark.parametrize("card", ["rtx-3090", "rtx-4090", "a100-80gb", "h100-80gb"])
def test_the_base_of_ten_million_leaves_rl_a_share_of_a_dollar(card):
    base = BASES["10m"]
    reading = PretrainTokens(base.cfg.tokens, base.cfg.batch_tokens)
    plan = estimate_base(base.shape, reading, CARDS[card], 8)
    assert plan.cost.usd < 0.7 and plan.fits(CARDS["rtx-4060-laptop"])
