"""The plan against what tensors hold and what the demo took; what it says of too small a card."""

import inspect
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from aha.algo.algorithms import method_of
from aha.algo.recipe import load_recipe
from aha.core.config import RunConfig
from aha.core.errors import ConfigError
from aha.core.sizes import GB, LOGITS_CHUNK
from aha.model import logprobs
from aha.model.architecture import ModelConfig
from aha.model.transformer import Transformer
from aha.plan.estimate import (
    RESERVE,
    activation_bytes,
    advice,
    changed,
    estimate,
    folded_bytes,
)
from aha.plan.machines import load_cards
from aha.plan.prediction import predict
from aha.plan.shapes import Shape, shape_of
from aha.plan.speed import TaskSizes, Workload
from aha.plan.tuning_estimate import TuningTokens, tuning_memory

from ..tiny import needs_bf16, needs_compiler
from ..workload import share_of_ranks, workload

ROOT = Path(__file__).resolve().parents[2]
CARDS = load_cards()[1]
HELD = 3e8  # bytes of a process with torch before it opens a model


def held_bytes(config: ModelConfig, rows: int, length: int, policy=None) -> int:
    """What autograd keeps of one forward pass in bf16, each storage once, parameters left out."""
    policy = policy or Transformer(config)
    ours = {parameter.untyped_storage().data_ptr() for parameter in policy.parameters()}
    kept, sizes = [], {}

    def keep(tensor):
        kept.append(tensor)  # alive, so that no address is used twice
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in ours:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    tokens_BT = torch.randint(5, 100, (rows, length))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        policy(tokens_BT, dtype=torch.bfloat16)
    return sum(sizes.values())


@pytest.mark.parametrize(
    ("C", "mlp", "L", "T"), [(128, 384, 4, 64), (128, 384, 2, 256), (256, 1024, 2, 128)]
)
@needs_compiler
@needs_bf16
def test_activations_are_what_the_backward_pass_keeps(C, mlp, L, T):
    config = ModelConfig(112, C, mlp, L, 4, 2)
    shape = Shape(112, C, mlp, L, 4, 2, C // 4, tied=True, bias=True)
    found = activation_bytes(shape, 8 * T) + folded_bytes(shape)
    assert found == pytest.approx(held_bytes(config, 8, T), rel=0.03)
    chunk = inspect.signature(logprobs.logprobs_and_entropy).parameters["chunk"]
    assert chunk.default == LOGITS_CHUNK


def test_what_is_computed_again_is_not_held():
    """Of eight layers, less than half: what enters each, and the matrices of none."""
    shape = Shape(112, 128, 384, 8, 4, 2, 32, tied=True, bias=True)
    config = ModelConfig(112, 128, 384, 8, 4, 2)
    whole, again = (activation_bytes(shape, 512, recompute) for recompute in (False, True))
    policy = Transformer(config)
    policy.recompute = True
    # Forward alone holds what enters each layer, and the end; one layer comes back at a time.
    entering = 2 * 512 * (8 * 128 + 128) + 2 * 112 * 128
    assert held_bytes(config, 8, 64, policy) == pytest.approx(entering, rel=0.15)
    assert entering < again < whole / 2


def test_memory_by_part_by_hand():
    shape = Shape(V=100, C=8, I=16, L=2, H=2, K=1, D=4, tied=True)
    raw = {"rollout": {"prompts": 8, "group_size": 4, "max_rows": 8, "max_new_tokens": 76}}
    raw |= {"optim": {"micro_batch_tokens": 1000}}
    memory = estimate(workload(RunConfig.model_validate(raw), shape), CARDS["rtx-4090"]).memory
    N = 100 * 8 + 2 * (8 * (8 + 4 + 4 + 8) + 3 * 8 * 16 + 2 * 8) + 8
    assert (memory["weights"], memory["gradients"], memory["optimiser"]) == (4 * N, 4 * N, 8 * N)
    # 8 rows of 24 + 76 positions, keys and values of 2 layers, 4 numbers of 2 bytes each
    assert memory["kv cache"] == 8 * 100 * 2 * 2 * 4 * 2
    assert memory["logits"] == 1000 * 100 * 12 and memory["reference"] == 0
    # A batch of 2 prompts of 24 tokens with 4 completions of 1.25 times half of 76 is smaller.
    few = raw | {"rollout": raw["rollout"] | {"prompts": 2}}
    logits = estimate(workload(RunConfig.model_validate(few), shape), CARDS["rtx-4090"]).memory
    assert logits["logits"] == 2 * (24 + 4 * 47.5) * 100 * 12
    raw["model"] = {"lora_rank": 4}
    memory = estimate(workload(RunConfig.model_validate(raw), shape), CARDS["rtx-4090"]).memory
    R = 4 * 2 * (2 * (8 + 8) + 2 * (8 + 4) + 3 * (8 + 16))
    assert (memory["weights"], memory["optimiser"]) == (2 * N + 4 * R, 8 * R)
    del raw["model"]
    raw["algo"] = {"kl": "loss"}
    assert estimate(workload(RunConfig.model_validate(raw), shape), CARDS["rtx-4090"]).memory[
        "reference"
    ]


@pytest.mark.parametrize(
    ("card", "dtype", "width"),
    [
        ("cpu-2-cores", "auto", 2),
        ("cpu-2-cores-avx2", "auto", 4),  # which has no bf16
        ("cpu-2-cores-avx2", "bfloat16", 2),
        ("rtx-4090", "float32", 4),
    ],
)
def test_what_computes_is_as_wide_as_the_arithmetic(card, dtype, width):
    """Frozen weights, and those whose float32 copy is in the host's memory; activations too."""
    shape = Shape(V=100, C=8, I=16, L=2, H=2, K=1, D=4, tied=True)
    N, read = shape.parameters, TuningTokens(1000, 100, 100.0, 1, 1)
    R = 4 * 2 * (2 * (8 + 8) + 2 * (8 + 4) + 3 * (8 + 16))

    def planned(**more) -> list[dict[str, float]]:
        raw = {part: {"dtype": dtype} | more.pop(part, {}) for part in ("optim", "rollout")}
        cfg = RunConfig.model_validate(raw | more)
        both = estimate(workload(cfg, shape), CARDS[card]).memory
        return [both, tuning_memory(cfg, shape, read, CARDS[card])]

    for memory in planned(model={"lora_rank": 4}):
        assert memory["weights"] == width * N + 4 * R
    for memory in planned(optim={"state": "cpu"}):
        assert memory["weights"] == width * N
    narrow = {"optim": {"dtype": "bfloat16"}, "rollout": {"dtype": "bfloat16"}}
    for memory, least in zip(planned(), planned(**narrow), strict=True):
        for part in memory.keys() & {"activations", "kv cache", "generation weights"}:
            assert memory[part] == width / 2 * least[part], part


def test_what_the_optimisers_state_takes_and_where():
    """Bytes of a weight: 4 + 4 + 8 on the device; with moments of 8 bits 4 + 4 + 2 and a scale for
    every 256; in the machine's memory 16 there, and on the device 2 and the largest gradient."""
    shape = Shape(V=100, C=8, I=16, L=2, H=2, K=1, D=4, tied=True)
    N, card = shape.parameters, CARDS["rtx-4090"]

    def planned(state: str, card=card, **algo):
        raw = {"optim": {"state": state}, "algo": algo}
        plan = estimate(workload(RunConfig.model_validate(raw), shape), card)
        return [plan.memory[part] for part in ("weights", "gradients", "optimiser")], plan.host

    assert planned("device") == ([4 * N, 4 * N, 8 * N], 0)
    assert planned("8bit") == ([4 * N, 4 * N, 2.03125 * N], 0)
    assert planned("cpu") == ([2 * N, 2 * 100 * 8, 0], 16 * N)
    # A critic has a state of its own; on a CPU both memories are one.
    assert planned("cpu", advantage="gae", loss="ppo_clip") == ([4 * N, 1600, 0], 32 * N)
    assert planned("cpu", CARDS["cpu-2-cores"]) == ([2 * N, 1600, 16 * N], 0)


def test_weights_for_generation_are_there_while_it_generates_and_shared_beside_adapters():
    shape = shape_of("Qwen2.5-1.5B")
    V, C = shape.V, shape.C
    cfg = load_recipe(ROOT / "src" / "aha" / "recipes" / "laptop-8gb.toml")
    gpu, cpu = (
        estimate(workload(cfg, shape), CARDS[name]) for name in ("rtx-4060-laptop", "cpu-2-cores")
    )
    assert gpu.memory["generation weights"] == gpu.memory["gradients"] < 0.1 * GB
    # A copy in bf16, whose head is apart from the embedding because a norm is folded into it.
    assert cpu.memory["generation weights"] == 2 * (shape.parameters + V * C)
    generation = ("generation weights", "kv cache", "drawing")
    training = ("gradients", "folded weights", "activations", "logits")
    for plan in (gpu, cpu):
        parts = [sum(plan.memory[key] for key in keys) for keys in (generation, training)]
        assert plan.peak == pytest.approx(sum(plan.memory.values()) - min(parts))


def test_the_demo_takes_as_long_as_it_took():
    """The middle one of three seeds: on a shared machine one run may take a third longer. The plan
    is of one process, the runs were made by a rank on each core."""
    cfg = load_recipe(ROOT / "src" / "aha" / "recipes" / "demo.toml")
    ratios = []
    for seed in (0, 1, 2):
        text = (ROOT / "results" / "demo" / f"seed_{seed}.json").read_text()
        curve = json.loads(text)["curve"]
        mean = sum(row["mean_tokens"] for row in curve) / len(curve)
        plan = estimate(workload(cfg, shape_of("aha-tiny")), CARDS["cpu-2-cores"], mean)
        ratios.append(share_of_ranks() * plan.cost.seconds / curve[-1]["elapsed_s"])
        assert plan.cost.usd == pytest.approx(plan.cost.seconds / 3600 * 0.08)
    assert sorted(ratios)[1] == pytest.approx(1.0, abs=0.15), ratios


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_public_model_takes_about_as_long_as_it_took(seed):
    """135 million parameters on two cores: time within 40 %, memory within 25 % of the plan of a
    run, which counts its held-out problems and the tokens of its prompts."""
    filed = json.loads((ROOT / "results" / "sums-cpu" / f"seed_{seed}.json").read_text())
    cfg, summary = RunConfig.model_validate(filed["config"]), filed["summary"]
    counted = TaskSizes(74, (min(cfg.eval.problems, 87), min(cfg.eval.final, 71)))
    load = Workload(cfg, method_of(cfg), shape_of("SmolLM2-135M"), counted)
    lengths = summary["plan"]["mean_tokens"]["measured"]
    told = predict(load, CARDS["cpu-2-cores"], "here", False, HELD)
    seconds = estimate(load, CARDS["cpu-2-cores"], lengths).cost.seconds
    assert 1 / 1.4 < summary["wall_s"] / seconds < 1.4
    peak = summary["plan"]["figures"]["peak_bytes"]["measured"]
    assert 1 / 1.25 < peak / told["peak_bytes"] < 1.25


@pytest.mark.parametrize(
    ("model", "card", "flags"),
    [
        ("Qwen2.5-0.5B", "rtx-3090", ("optim.micro_batch_tokens", "rollout.max_rows")),
        ("Qwen2.5-1.5B", "rtx-4060-ti-16gb", ("optim.recompute true", "optim.state cpu")),
        ("Qwen2.5-7B", "rtx-4090", ("optim.recompute true", "model.lora_rank 16")),
    ],
)
def test_what_does_not_fit_is_told_what_would(model, card, flags):
    cfg = load_recipe(
        ROOT / "src" / "aha" / "recipes" / "laptop-3to4.toml",
        {"optim.micro_batch_tokens": 16_384, "task.template": "r1"},
    )
    shape, card = shape_of(model), CARDS[card]
    assert not estimate(workload(cfg, shape), card).fits(card)
    told = advice(workload(cfg, shape), card)
    assert all(f"--{flag}" in told for flag in flags), told
    words = told.split()
    pairs = zip(words[::2], words[1::2], strict=True)
    values = {
        key[2:]: value if key == "--optim.state" else json.loads(value) for key, value in pairs
    }
    smaller = estimate(workload(changed(cfg, values), shape), card)
    assert smaller.fits(card) and smaller.peak <= card.memory * GB * (1 - RESERVE)
    assert "smaller model" in advice(workload(cfg, shape_of("Qwen2.5-32B")), card)


def test_what_is_small_already_is_told_what_else_would():
    """The sizes at their smallest: all that is left is to keep less, and only that is told."""
    own = {"optim.micro_batch_tokens": 300, "rollout.max_rows": 8, "task.template": "r1"}
    cfg = load_recipe(ROOT / "src" / "aha" / "recipes" / "laptop-3to4.toml", own)
    load = workload(cfg, shape_of("Qwen2.5-1.5B"))
    as_it_is = estimate(load, CARDS["rtx-3090"]).peak
    for flags in ({"optim.recompute": True}, {"optim.recompute": True, "optim.state": "cpu"}):
        peak = estimate(replace(load, cfg=changed(cfg, flags)), CARDS["rtx-3090"]).peak
        assert peak < as_it_is
        card = replace(CARDS["rtx-3090"], memory=1.001 * peak / GB / (1 - RESERVE))
        words = (f"--{key} {str(value).lower()}" for key, value in flags.items())
        assert advice(load, card) == " ".join(words)


def test_more_work_takes_longer_and_a_better_card_less():
    cfg, shape = RunConfig(), shape_of("Qwen2.5-0.5B")
    slow, fast = (estimate(workload(cfg, shape), CARDS[name]) for name in ("rtx-3090", "h100-80gb"))
    assert fast.cost.seconds < slow.cost.seconds and fast.peak == slow.peak
    longer = estimate(workload(cfg, shape), CARDS["rtx-3090"], mean_tokens=300)
    assert longer.cost.seconds > slow.cost.seconds
    assert math.isclose(slow.tokens_per_s * (slow.rollout_s + slow.train_s), slow.tokens)


@pytest.mark.parametrize(
    "text",
    ["", "as_of = 1\n", "cards = 3", "as_of = '1'\n[cards]\na = {memory = 1}", "[", "\0"]
    + [
        "as_of = '1'\n[cards]\na = {memory = 8, tflops = 0, bandwidth = 1, watts = 1,"
        " usd_per_hour = 1, train = 1, decode = 1, layer_us = 0}"
    ],
)
def test_a_table_that_holds_no_cards_is_refused(tmp_path, text):
    path = tmp_path / "cards.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"cards\.toml"):
        load_cards(path)


def test_a_tiny_model_gains_little_from_a_large_card():
    """Starting the work of a layer takes a GPU as long for 128 features as for 4,096."""
    cfg, tiny, large = RunConfig(), shape_of("aha-tiny"), shape_of("Qwen2.5-7B")

    def gain(shape: Shape) -> float:
        slow, fast = (
            estimate(workload(cfg, shape), CARDS[name]) for name in ("rtx-3090", "h200-141gb")
        )
        return slow.cost.seconds / fast.cost.seconds

    assert gain(tiny) < 1.7 and gain(large) > 4


def test_a_cpu_holds_the_caches_of_a_call_and_of_the_rows_that_are_under_way():
    """In the loop in C: what 48 rows of two threads add to their prompts, which begins with a block
    of 16 positions, and the prompts of the call; where the sizes do not suit it, all rows."""
    raw = {"rollout": {"prompts": 32, "group_size": 16, "max_rows": 256, "max_new_tokens": 100}}
    tiny = shape_of("aha-tiny")
    assert tiny.kv_numbers == 2 * 4 * 2 * 32

    def cache(shape, **rollout) -> float:
        changed = RunConfig.model_validate({"rollout": raw["rollout"] | rollout})
        return estimate(workload(changed, shape), CARDS["cpu-2-cores"]).memory["kv cache"]

    positions = 48 * (16 + 100) + 16 * 24
    assert cache(tiny) == 2 * positions * tiny.kv_numbers
    assert cache(tiny, loop="torch") == 2 * 256 * 124 * tiny.kv_numbers
    assert cache(replace(tiny, D=24)) == 2 * 256 * 124 * 2 * 4 * 2 * 24
