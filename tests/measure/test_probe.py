"""A probe measures with the real engine and trainer, in time, and leaves the run alone."""

import time
from dataclasses import replace

import pytest
import torch

from aha.core.config import RunConfig
from aha.core.errors import ConfigError
from aha.machine.host import Memory
from aha.measure import probe as module
from aha.measure.probe import MachineProbe, StubTokenizer, probe
from aha.measure.rates import LIMIT_S, SLOW
from aha.plan.calibration import read_calibration
from aha.plan.estimate import estimate
from aha.plan.shapes import Shape, shape_of
from aha.rollout.cuda_graphs import STEPS_PER_SYNC
from aha.rollout.native import NativeEngine

from ..tiny import tiny_folder
from ..workload import workload

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
    plan = estimate(workload(cfg, shape), found.card(0.08, 30.0))
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
    one = MachineProbe(config(), large)
    monkeypatch.setattr(
        module, "device_memory", lambda device: Memory(24_000_000_000, 32_000_000_000)
    )
    assert (
        one.fitting_shape(1e30).L < large.L and one.fitting_shape(1e30).V == module.SMALL_VOCABULARY
    )
    assert one.fitting_shape(1e9).L == 1
    assert (one.fitting_shape(1e30).C, one.fitting_shape(1e30).I) == (large.C, large.I)
    assert MachineProbe(config(), TINY).fitting_shape(1e30) == TINY


@pytest.mark.parametrize("limit", [3, 8, 12])
def test_completions_shorter_than_the_probes_own_are_measured_too(limit):
    found = probe(config(rollout={"max_new_tokens": limit}), TINY, "a tiny model")
    assert not found.assumed and [work.passes for work, _ in found.writings][-1] == limit
    assert min(seconds for _, seconds in found.writings) > 0


def test_a_token_on_a_gpu_is_timed_without_the_recording_of_graphs(monkeypatch):
    """On a clock on which a call takes a second, for its graphs, and a step of decoding 4 ms."""
    steps, step = [], NativeEngine.decode_step
    monkeypatch.setattr(
        NativeEngine, "decode_step", lambda one, *args: steps.append(1) or step(one, *args)
    )

    def counted(probe, work) -> float:
        steps.clear()
        work()
        return 1.0 + 0.004 * len(steps)

    monkeypatch.setattr(MachineProbe, "seconds", counted)
    found = []
    for limit in (200, 20):
        one = MachineProbe(config(rollout={"max_new_tokens": limit}), TINY)
        stub = StubTokenizer(1)
        found.append(one.pass_seconds(NativeEngine(one.policy(TINY), stub, "float32", 8, "graphs")))
    # In 20 tokens there is one block, and so no difference to take.
    assert found == [pytest.approx(0.004), pytest.approx((1 + 0.004 * STEPS_PER_SYNC) / 8)]


def test_a_slow_machine_is_not_measured_for_long(monkeypatch):
    """Each piece says how long the next would take: on a clock that runs a hundred times as fast,
    pieces stay small."""
    clock = time.perf_counter
    monkeypatch.setattr(time, "perf_counter", lambda: 100 * clock())
    began = clock()
    found = probe(config(rollout={"prompts": 64, "max_new_tokens": 64}), TINY, "a tiny model")
    rows = found.writings[1][0].prompt_tokens / 24 * 16
    assert rows < 64 * 16 and clock() - began < 5 * LIMIT_S  # its own clock is a hundred times that


class Jump:
    """A clock that jumps by twice the limit in the middle of one piece: the `at`-th. The limit is
    long enough for a busy machine."""

    LIMIT_S = 300.0

    def __init__(self, monkeypatch, at: int):
        self.clock, self.late, self.pieces, self.at = time.perf_counter, 0.0, 0, at
        self.after = 0  # pieces begun since
        monkeypatch.setattr(MachineProbe, "limit_s", self.LIMIT_S)
        monkeypatch.setattr(time, "perf_counter", self)
        timed = MachineProbe.seconds
        monkeypatch.setattr(
            MachineProbe, "seconds", lambda one, work: timed(one, self.counted(work))
        )

    def __call__(self) -> float:
        return self.clock() + self.late

    def counted(self, work):
        self.pieces += 1
        self.after += self.late > 0

        def again():
            done = work()
            self.late += 2 * self.LIMIT_S if self.pieces == self.at else 0.0
            return done

        return again


SKIPPED = {
    "attention_rate": ["attention 4", "memory 10", "generation and"],
    "time_model": ["generation and"],
    "time_generations": ["short", "long", "training"],
    "time_training": ["training"],
}


@pytest.mark.parametrize("method", SKIPPED)
def test_after_a_piece_that_took_too_long_nothing_more_is_begun(monkeypatch, method):
    """The piece in which the clock jumped tells nothing either. All of it is named, and a plan can
    still be made, with figures that are near what was measured or assumed."""
    jump = Jump(monkeypatch, 0)
    begin = getattr(MachineProbe, method)

    def begun(one, *args):
        jump.at = jump.pieces + 1
        return begin(one, *args)

    monkeypatch.setattr(MachineProbe, method, begun)
    cfg = config()
    found = probe(cfg, TINY, "a tiny model")
    assert jump.after == 0 and found.seconds > 2 * jump.LIMIT_S
    assert len(found.assumed) == len(SKIPPED[method])
    for said, wanted in zip(found.assumed, SKIPPED[method], strict=True):
        assert said.startswith(wanted) and said in found.label
        assert said in "\n".join(found.lines())
    assert 0 < estimate(workload(cfg, TINY), found.card(0.08, 30.0)).cost.seconds < 1e6


def test_a_machine_that_stands_still_from_the_start_is_not_measured(monkeypatch):
    Jump(monkeypatch, 1)
    with pytest.raises(ConfigError, match=r"60\d s for one product"):
        probe(config(), TINY, "a tiny model")


def test_what_was_not_measured_is_as_fast_as_the_products_say(monkeypatch):
    """The shares that are assumed come back out of the card."""
    monkeypatch.setattr(module, "RATES_BY", 0.0)
    # Wide and short: in much attention the rate of products would be lost.
    wide = Shape(V=112, C=512, I=2048, L=1, H=4, K=2, D=8, tied=True, bias=True)
    found = probe(config(rollout={"max_new_tokens": 8}), wide, "a wide model")
    card = found.card(0.08, 30.0)
    assert found.assumed == ("generation and training",)
    assert card.train == pytest.approx(SLOW.train, rel=0.01)


# -- how long the base writes -----------------------------------------------------------------


def test_a_base_on_the_disk_is_asked_how_long_it_writes(tmp_path):
    """Of random weights, so nearly all its completions are as long as they may be."""
    folder = tiny_folder(tmp_path / "base")
    cfg = config(
        model={"path": str(folder)}, rollout={"prompts": 2, "group_size": 4, "max_new_tokens": 24}
    )
    shape = shape_of(str(folder))
    found = probe(cfg, shape, str(folder))
    assert found.base.completions == 64 and 12 < found.base.tokens <= 24
    assert found.base_tokens_of(cfg) == found.base.tokens
    assert "64 completions of the base" in "\n".join(found.lines())
    other = cfg.model_copy(update={"rollout": cfg.rollout.model_copy(update={"temperature": 0.5})})
    assert found.base_tokens_of(other) == 0
    found.write(tmp_path / "kept.json")
    assert read_calibration(tmp_path / "kept.json") == found


def test_a_base_is_not_asked_where_its_length_is_known_or_time_is_short(tmp_path, monkeypatch):
    folder = tiny_folder(tmp_path / "base")
    rollout = {"prompts": 2, "group_size": 4, "max_new_tokens": 24}
    known = config(model={"path": str(folder)}, rollout=rollout | {"expected_tokens": 9})
    shape = shape_of(str(folder))
    assert probe(known, shape, str(folder)).base is None
    cfg = config(model={"path": str(folder)}, rollout=rollout)
    monkeypatch.setattr(module, "DISK", 1.0)  # bytes a second
    found = probe(cfg, shape, str(folder))
    assert found.base is None and found.assumed == ("the length of the base's completions",)


class SlowFirst:
    """The gradient of a probe, whose first calls take a thousand seconds longer, as on a machine
    that loads a library or does something else meanwhile. Counts the calls."""

    def __init__(self, monkeypatch, slow_calls: int):
        self.calls, self.slow_calls = 0, slow_calls
        self.measured = MachineProbe.time_gradient
        monkeypatch.setattr(MachineProbe, "time_gradient", self.timed())

    def timed(self):
        def time_gradient(probe, trainer, batch) -> float:
            self.calls += 1
            late = 1000.0 if self.calls <= self.slow_calls else 0.0
            return self.measured(probe, trainer, batch) + late

        return time_gradient


def test_the_first_gradient_is_not_counted(monkeypatch):
    slow = SlowFirst(monkeypatch, slow_calls=1)
    found = probe(config(), TINY, "a tiny model")
    assert slow.calls > 1 and found.training_s < 100


def test_a_training_far_from_the_table_is_measured_again_and_said(monkeypatch):
    slow = SlowFirst(monkeypatch, slow_calls=2)
    found = probe(config(), TINY, "a tiny model")
    assert slow.calls == 3 and found.training_s < 100
    assert any("far from the table" in note for note in found.notes)
    assert any("measured again" in line for line in found.lines())


def test_notes_are_kept_in_the_file(tmp_path):
    found = probe(config(), TINY, "a tiny model")
    odd = replace(found, notes=("odd",))
    odd.write(tmp_path / "file.json")
    assert read_calibration(tmp_path / "file.json") == odd
