"""The memory of one of several ranks whose models are in shards."""

import math

import pytest

from aha.algo.recipe import load_recipe
from aha.plan.cluster import Cluster
from aha.plan.estimate import ALWAYS, estimate
from aha.plan.prediction import predict, shortage
from aha.plan.shapes import shape_of
from aha.plan.shard_memory import plan_in_shards

from ..workload import workload
from .test_prediction import CARDS, RECIPES

GPU = CARDS["rtx-4090"]
LARGE = shape_of("Qwen2.5-7B")


def load(**changes):
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    recipe = {"optim.state": "device", "model.lora_rank": 0, "optim.recompute": True} | changes
    return workload(load_recipe(RECIPES / "tinyzero-1.5b-grpo.toml", recipe), LARGE)


def test_what_always_is_there_is_divided_and_what_computes_is_not():
    work = load()
    plan = estimate(work, GPU)
    cut = plan_in_shards(work, plan, 4)
    # 4 bytes each of weight and gradient, 8 of both moments
    assert sum(plan.memory[part] for part in ("weights", "optimiser")) == 12 * LARGE.parameters
    assert all(cut.memory[part] == plan.memory[part] / 4 for part in (*ALWAYS, "gradients"))
    for part in ("activations", "logits", "kv cache", "drawing"):
        assert cut.memory[part] == plan.memory[part]
    # Two layers, the embedding and the head (of its own in this model), in float32.
    ends = 2 * LARGE.V * LARGE.C
    gathered = 4 * (2 * (LARGE.parameters - ends) / LARGE.L + ends)
    assert cut.memory["folded weights"] == plan.memory["folded weights"] + gathered
    # The copy that generates is whole.
    assert cut.memory["generation weights"] > 2 * LARGE.parameters
    assert plan_in_shards(work, plan, 1) is plan
    peaks = [plan_in_shards(work, plan, ranks).peak for ranks in (1, 2, 4, 8)]
    assert peaks == sorted(peaks, reverse=True)


def test_adapters_are_whole_and_what_they_stand_on_is_cut():
    work = load(model__lora_rank=16)
    plan = estimate(work, GPU)
    cut = plan_in_shards(work, plan, 4)
    trained = plan.memory["gradients"] / 4
    # The policy's and the reference's shards of them, in bf16: what is cut is not shared.
    frozen = 2 * 2 * LARGE.parameters / 4
    assert cut.memory["weights"] == pytest.approx(4 * trained + frozen)
    for part in ("gradients", "optimiser"):
        assert cut.memory[part] == plan.memory[part]
    # Nothing is shared with the engine.
    assert plan.memory["generation weights"] < 1e9 < 2 * LARGE.parameters
    assert cut.memory["generation weights"] > 2 * LARGE.parameters


def test_what_a_rank_cannot_have_as_a_whole_fits_in_shards():
    work = load()
    assert shortage(work, 80e9, math.inf).hopeless
    assert shortage(work, 80e9, math.inf, shards=8) is None
    # What else would fit is said of the rank in shards.
    short = shortage(work, 50e9, math.inf, shards=8)
    assert short is None or short.fix


def test_a_prediction_in_shards_has_the_memory_of_one_rank():
    work = load(usd_per_hour=1.0, watts=100.0, rollout__prompts=8)
    alone, cut = (
        predict(work, GPU, "here", False, 0.0, cluster=Cluster(8, in_shards=in_shards))
        for in_shards in (False, True)
    )
    assert cut["peak_bytes"] < alone["peak_bytes"] / 2
    assert cut["seconds"] == alone["seconds"]
