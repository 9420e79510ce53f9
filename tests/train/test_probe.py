"""A probe measures with the real engine and trainer, in time, and leaves the run alone."""

import time

import pytest
import torch

from aha.core.config import RunConfig
from aha.plan.estimate import estimate
from aha.plan.shapes import Shape, shape_of
from aha.train import probe as module
from aha.train.probe import LIMIT_S, Probe, probe

TINY = Shape(V=112, C=32, I=48, L=2, H=4, K=2, D=8, tied=True, bias=True)


def config(**sections) -> RunConfig:
    raw = {"rollout": {"prompts": 2, "group_size": 4, "max_new_tokens": 64}, **sections}
    return RunConfig.model_validate(raw)


@pytest.mark.parametrize(
    ("shape", "sections"),
    [
        (TINY, {}),
        (Shape(112, 32, 48, 2, 4, 2, 8, tied=False, norms=True), {"optim": {"recompute": True}}),
        (TINY, {"model": {"lora_rank": 2}, "algo": {"advantage": "gae", "loss": "ppo_clip"}}),
    ],
)
def test_a_probe_is_a_machine_on_which_a_plan_can_be_made(shape, sections):
    state = torch.get_rng_state()
    cfg = config(**sections)
    found = probe(cfg, shape, "a tiny model")
    assert torch.equal(state, torch.get_rng_state())
    assert found.whole and found.device == "cpu" and found.layer_us == 0
    (short, _), (long, _) = found.writings
    assert short.context < long.context and found.training.tokens > 0
    plan = estimate(cfg, shape, found.card(0.08, 30.0))
    assert plan.fits(found.card(0.08, 30.0)) and 0 < plan.cost.seconds < 1e6


def test_completions_are_as_long_as_the_plan_assumes():
    cfg = config(rollout={"prompts": 8, "group_size": 16, "max_new_tokens": 64})
    found = probe(cfg, TINY, "a tiny model")
    (short, _), (long, _) = found.writings
    for work, limit in ((short, 16), (long, 64)):
        rows = work.prompt_tokens / 24 * 16
        assert 0.35 * limit < work.tokens / rows < 0.6 * limit


def test_of_what_does_not_fit_fewer_layers_and_words_are_measured(monkeypatch):
    large = shape_of("Qwen2.5-7B")
    one = Probe(config(), large)
    monkeypatch.setattr(module, "memory_bytes", lambda: (24e9, 32e9))
    assert one.fitting(1e30).L < large.L and one.fitting(1e30).V == module.FEW_WORDS
    assert one.fitting(1e9).L == 1
    assert (one.fitting(1e30).C, one.fitting(1e30).I) == (large.C, large.I)
    assert Probe(config(), TINY).fitting(1e30) == TINY


def test_a_slow_machine_is_not_measured_for_long(monkeypatch):
    """Each piece says how long the next would take: on a clock that runs a thousand times as
    fast, all pieces stay as small as they begin."""
    clock = time.perf_counter
    monkeypatch.setattr(time, "perf_counter", lambda: 1000 * clock())
    began = clock()
    found = probe(config(rollout={"prompts": 64, "max_new_tokens": 64}), TINY, "a tiny model")
    rows = found.writings[1][0].prompt_tokens / 24 * 16
    assert rows < 64 * 16 and clock() - began < LIMIT_S
