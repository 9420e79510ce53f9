"""What the checks of a recipe let pass runs: nothing fails only after its first rollout."""

import itertools
import math
import random
import sys
from dataclasses import replace

import pytest
import torch

from aha.algo.algorithms import REGISTRIES
from aha.algo.recipe import checked
from aha.core.config import RolloutSection, RunConfig
from aha.core.engines import ENGINES
from aha.core.errors import ConfigError
from aha.core.recipe_layers import set_dotted
from aha.model.lora import add_lora
from aha.rollout.native import NativeEngine
from aha.rollout.vllm import VllmEngine
from aha.training.rl import RLTrainer, means_of

from ..fuzz import tries
from ..rollout import fake_vllm
from ..tiny import TOKENIZER, StartsWith, tiny_folder, tiny_transformer

VALUES = {f"algo.{setting}": registry.choices for setting, registry in REGISTRIES.items()} | {
    "algo.kl": ["none", "reward", "loss"],
    "algo.updates": [1, 2, 4],
    "algo.entropy_coef": [0.0, 0.01],
    "algo.reference_reset": [0, 1],
    "algo.overlong_buffer": [0, 2],
    "rollout.engine": list(ENGINES),
    "rollout.group_size": [1, 4],
    "critic.warmup": [0, 1],
    "model.lora_rank": [0, 2],
    "optim.state": ["device", "cpu"],
    "optim.recompute": [False, True],
}


class WithoutEntropies(NativeEngine):
    """Stands for an engine such as vLLM."""

    def generate(self, prompts, sampling):
        groups = super().generate(prompts, sampling)
        return [[replace(row, entropies=()) for row in group] for group in groups]


def config(changes: dict) -> RunConfig | None:
    """None where the settings are refused."""
    raw = {
        "steps": 3,
        "rollout": {"prompts": 4, "group_size": 4, "max_new_tokens": 5, "dtype": "float32"},
        "optim": {"lr": 1e-3, "warmup": 0, "dtype": "float32"},
    }
    for key, value in changes.items():
        set_dotted(raw, key, value)
    try:
        return checked(raw)
    except ConfigError:
        return None


def trainer_of(cfg: RunConfig, task=None) -> RLTrainer:
    policy = tiny_transformer()
    if cfg.model.lora_rank:
        add_lora(policy, cfg.model.lora_rank, 4.0, 0)
    kind = NativeEngine if ENGINES[cfg.rollout.engine].entropies else WithoutEntropies
    engine = kind(policy, TOKENIZER, "float32", cfg.rollout.max_rows)
    return RLTrainer(policy, TOKENIZER, task or StartsWith("0123456789"), engine, cfg)


def check_runs(changes: dict) -> bool:
    """Whether the settings pass; they then have to take two steps."""
    cfg = config(changes)
    if cfg is None:
        return False
    trainer = trainer_of(cfg)
    for _ in range(2):
        report = trainer.step(trainer.problems())
        assert all(map(math.isfinite, report.numbers.values())), (changes, report.numbers)
    assert all(torch.isfinite(weight).all() for weight in trainer.policy.parameters()), changes
    return True


def pairs() -> list[dict]:
    return [
        {one: first, other: second}
        for (one, firsts), (other, seconds) in itertools.combinations(VALUES.items(), 2)
        for first in firsts
        for second in seconds
    ]


def test_two_settings_are_refused_at_once_or_run():
    assert 10 < sum(map(check_runs, random.Random(0).sample(pairs(), 40))) < 40


@pytest.mark.slow
def test_every_two_settings_are_refused_at_once_or_run():
    assert sum(map(check_runs, pairs())) > 1000


@pytest.mark.fuzz
def test_any_settings_are_refused_at_once_or_run():
    draw = random.Random(1)
    for _ in range(tries(10_000)):
        keys = draw.sample(list(VALUES), draw.randint(3, 7))
        check_runs({key: draw.choice(VALUES[key]) for key in keys})


# -- updates without a group that teaches ------------------------------------------------------


class OneTeaches(StartsWith):
    """The first problem that it is asked for has right and wrong answers, every other has none."""

    first = ""

    def grade(self, problem, text):
        self.first = self.first or problem.id
        graded = super().grade(problem, text)
        return graded if problem.id == self.first else replace(graded, reward=0.0, correct=False)


def test_an_update_without_a_teaching_group_reports_no_mismatch_and_hides_none():
    """A share of the groups may have nothing to compute: its numbers are fewer, and the step has
    those of the shares that have them, whichever comes first."""
    cfg = config({"rollout.engine": "vllm", "algo.loss": "ppo_clip", "algo.updates": 4})
    trainer = trainer_of(cfg, OneTeaches("0123456789"))
    reports, update = [], trainer.update

    def kept(*share):
        reports.append(update(*share))
        return reports[-1]

    trainer.update = kept
    numbers = trainer.step(trainer.problems()).numbers
    measured = [report["mismatch_kl"] for report in reports if "mismatch_kl" in report]
    assert len(reports) == 4 and 0 < len(measured) < 4
    assert numbers["mismatch_kl"] == pytest.approx(sum(measured) / len(measured))


def test_means_are_over_the_updates_that_report_a_number():
    assert means_of([{"a": 1.0}, {"a": 3.0, "b": 5.0}]) == {"a": 2.0, "b": 5.0}
    assert means_of([{"b": 5.0}, {"a": 3.0}, {}]) == {"b": 5.0, "a": 3.0}


# -- the facts of the engines -------------------------------------------------------------------


def test_every_engine_states_its_facts():
    assert set(RolloutSection.model_fields["engine"].annotation.__args__) == set(ENGINES)


def test_the_facts_are_those_of_the_engines(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", fake_vllm.module())
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    cfg = config({"rollout.max_new_tokens": 4})
    policy, folder = tiny_transformer(), tiny_folder(tmp_path / "model")
    engines = {
        "native": NativeEngine(policy, TOKENIZER, "float32", 8),
        "vllm": VllmEngine(policy, TOKENIZER, folder, cfg.rollout),
    }
    trainer = trainer_of(cfg)
    for name, engine in engines.items():
        trainer.rollout.engine = engine
        groups = trainer.rollout.collect(trainer.problems(), trainer.seeds, FakeClock()).groups
        recorded = [bool(graded.completion.entropies) for group in groups for graded in group]
        assert recorded == [ENGINES[name].entropies] * len(recorded), name


class FakeClock:
    def lap(self, phase: str) -> None:
        """Nothing is measured."""
