"""The doctor's look at a recipe before its run: planted faults are found, a sound one passes."""

import json
import math
from dataclasses import replace
from itertools import islice

import pytest
import torch

from aha.core.config import RunConfig
from aha.core.errors import ConfigError, ModelError
from aha.core.findings import worst_level
from aha.core.records import Problem, Prompt
from aha.doctor.setup_checks import SetupFacts, check_recipe, checks
from aha.machine.host import Memory
from aha.model.tokenizer import END, PAD, Tokenizer
from aha.model.weights import LoadedModel, load_model
from aha.tasks.countdown import Countdown
from aha.training import preflight

from ..tiny import TOKENIZER, StartsWith, tiny_folder


def config(**sections) -> RunConfig:
    raw = {"rollout": {"prompts": 8, "max_new_tokens": 32}, "eval": {"every": 0}}
    for name, value in sections.items():
        raw[name] = raw.get(name, {}) | value if isinstance(value, dict) else value
    return RunConfig.model_validate(raw)


@pytest.fixture
def model(tmp_path) -> LoadedModel:
    return load_model(tiny_folder(tmp_path / "tiny"))


def start(model: LoadedModel, task=None, **sections) -> SetupFacts:
    return SetupFacts.of(config(**sections), model, task or StartsWith("0123456789"))


def found(start: SetupFacts) -> dict:
    return {finding.check: finding for finding in checks.run(start)}


def test_a_model_that_cannot_train_here_is_refused_as_a_run_refuses_it(tmp_path, monkeypatch):
    folder = tiny_folder(tmp_path / "tiny")
    monkeypatch.setattr(preflight, "memory_bytes", lambda: Memory(10**6, 10**6))
    with pytest.raises(ConfigError, match="GB planned for .*tiny"):
        next(check_recipe(config(model={"path": str(folder)})))


def test_a_sound_recipe_raises_no_alarm(model):
    findings = found(start(model, Countdown((3, 4))))
    assert worst_level(list(findings.values())) == "ok", findings
    assert set(findings) == set(checks)


class EndsWith(StartsWith):
    """Prompts that end with some token."""

    def __init__(self, ending: str):
        super().__init__("0")
        self.ending = ending

    def ask(self, problem: Problem) -> str:
        return super().ask(problem) + self.ending


def no_number(model: LoadedModel) -> SetupFacts:
    with torch.no_grad():
        model.policy.model.norm.weight[3] = math.nan
    return start(model)


def other_stop(model: LoadedModel) -> SetupFacts:
    """The model's own files end with another token than the tokenizer's."""
    for name in ("config.json", "generation_config.json"):
        path = model.path / name
        path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": 7}))
    return start(model)


def larger_tokenizer(model: LoadedModel) -> SetupFacts:
    model.tokenizer.fast.add_tokens(["a new word"])
    return start(model)


def pad_outside(model: LoadedModel) -> SetupFacts:
    model.tokenizer.pad_id = 5_000
    return start(model)


def other_tokens(model: LoadedModel) -> SetupFacts:
    """As a tokenizer that adds a token of its own in front."""
    made = start(model)
    prompts = [replace(p, tokens=(TOKENIZER.id_of("<think>"), *p.tokens)) for p in made.prompts]
    return replace(made, prompts=prompts)


FAULTS = {
    "a rate of 0": ("settings", "fail", lambda m: start(m, optim={"lr": 0.0})),
    "no steps": ("settings", "warn", lambda m: start(m, steps=0)),
    "no held-out look": ("settings", "warn", lambda m: start(m, eval={"final": 0})),
    "more than the positions": (
        "context_length",
        "fail",
        lambda m: start(m, rollout={"max_new_tokens": 500}),
    ),
    "a weight of NaN": ("base_weights", "fail", no_number),
    "ids beyond the table": ("vocabulary", "fail", larger_tokenizer),
    "another stop token": ("stop_token", "fail", other_stop),
    "a prompt that stops": ("stop_token", "fail", lambda m: start(m, EndsWith(END))),
    "a pad token beyond the table": ("pad_token", "fail", pad_outside),
    "a padded prompt": ("pad_token", "fail", lambda m: start(m, EndsWith(PAD))),
    "tokens of another text": ("prompt_tokens", "fail", other_tokens),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(model, fault):
    check, level, plant = FAULTS[fault]
    finding = found(plant(model))[check]
    assert finding.level == level and finding.fix, finding


def test_every_check_has_a_planted_fault():
    assert set(checks) == {check for check, _, _ in FAULTS.values()}


def test_a_pad_token_that_is_the_stop_token_is_sound(model):
    """A mask made from pad ids would hide the stop token; ours are made from lengths."""
    same = Tokenizer(model.tokenizer.fast, pad=END)
    finding = found(start(replace(model, tokenizer=same)))["pad_token"]
    assert finding.level == "ok" and "pads and stops" in finding.message


def test_the_prompts_are_those_of_the_first_step(model):
    made = start(model)
    wanted = islice(made.task.problems("train", 0), 8)
    assert [p.tokens for p in made.prompts] == [
        Prompt.of(problem, made.task, TOKENIZER).tokens for problem in wanted
    ]


def test_a_conversation_for_a_base_model_is_refused_before_any_check(model):
    with pytest.raises(ModelError, match="template r1"):
        SetupFacts.of(config(task={"template": "instruct"}), model, Countdown((3,), "instruct"))
