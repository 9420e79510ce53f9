"""Recipes that do not suit their model are stopped, or told, before they cost anything."""

from dataclasses import replace

import pytest
import torch

from aha.core.config import RunConfig
from aha.core.errors import ConfigError
from aha.model.weights import LoadedModel
from aha.tasks.countdown import Countdown
from aha.tasks.reward_function import WeightedRewards
from aha.tasks.reward_task import RewardTask
from aha.training.recipe_fit import (
    LARGE,
    Fit,
    learning_rate,
    misfits,
    nothing_solved,
    prompt_form,
    refuse_misfits,
)

from ..tiny import TOKENIZER, foreign_tokenizer, tiny_transformer


class LargePolicy(torch.nn.Module):
    """Of a model nothing but its size."""

    def num_parameters(self) -> int:
        return LARGE


def fit_of(lr: float = 3e-4, policy=None, tokenizer=TOKENIZER, template="plain", rank=0) -> Fit:
    raw = {"optim": {"lr": lr}, "task": {"template": template}, "model": {"lora_rank": rank}}
    model = LoadedModel(policy or tiny_transformer(), tokenizer, None)
    return Fit(RunConfig.model_validate(raw), model, Countdown(template=template))


@pytest.mark.parametrize(
    ("lr", "policy", "rank", "level"),
    [
        (4e-4, LargePolicy(), 0, "fail"),
        (1e-4, LargePolicy(), 0, "ok"),
        (4e-4, LargePolicy(), 16, "ok"),
        (4e-3, LargePolicy(), 16, "fail"),
        (4e-3, None, 0, "ok"),  # our own small bases
    ],
)
def test_a_rate_that_destroys_a_large_model_is_a_failure(lr, policy, rank, level):
    finding = learning_rate(fit_of(lr, policy, rank=rank))
    assert finding.level == level and f"{lr:g}" in finding.message
    assert level == "ok" or finding.fix in ("--optim.lr 2e-05", "--optim.lr 0.0002")


@pytest.mark.parametrize(
    ("tokenizer", "template", "level", "fix"),
    [
        (TOKENIZER, "plain", "ok", ""),
        (foreign_tokenizer(), "plain", "fail", "--task.template instruct"),
        (foreign_tokenizer(), "r1", "ok", ""),
        (foreign_tokenizer(), "instruct", "ok", ""),
        (foreign_tokenizer(None), "plain", "warn", "--task.template r1"),
        (foreign_tokenizer(None), "r1", "ok", ""),
    ],
)
def test_a_form_that_the_model_has_not_read_is_told(tokenizer, template, level, fix):
    finding = prompt_form(fit_of(tokenizer=tokenizer, template=template))
    assert (finding.level, finding.fix) == (level, fix)


@pytest.mark.parametrize(("tokenizer", "level"), [(foreign_tokenizer(), "warn"), (TOKENIZER, "ok")])
def test_texts_of_a_file_as_they_stand_are_told_of_with_an_instruct_model(
    tokenizer, level, tmp_path
):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f'{{"prompt": "Say {n}."}}\n' for n in range(40)))
    rewards = WeightedRewards.of(lambda completion: 1.0, None)

    def finding(template: str):
        fit = fit_of(tokenizer=tokenizer, template=template)
        return prompt_form(replace(fit, task=RewardTask(rewards, str(path), template)))

    assert finding("plain").level == level
    assert finding("plain").fix == ("--task.template instruct" if level == "warn" else "")
    assert finding("instruct").level == finding("r1").level == "ok"


def test_only_a_failure_is_refused_and_the_fix_names_the_way_through():
    suited = fit_of()
    assert misfits(suited.cfg, suited.model, suited.task) == []
    fit = fit_of(4e-4, LargePolicy(), foreign_tokenizer(None))
    findings = misfits(fit.cfg, fit.model, fit.task)
    assert [finding.level for finding in findings] == ["fail", "warn"]
    with pytest.raises(ConfigError, match="optim.lr 0.0004.*--optim.lr 2e-05; or --anyway"):
        refuse_misfits(findings)
    refuse_misfits([replace(finding, level="warn") for finding in findings])


def test_a_base_that_solves_none_of_its_tries_is_told_with_what_to_change():
    same = nothing_solved([0.0] * 32, 0, 0.5)
    assert same.level == "fail" and "none of 32 tries, 50% of them truncated" in same.message
    assert "--rollout.temperature" in same.fix and "--task.template" in same.fix
    assert nothing_solved([0.0] * 31 + [0.1], 0, 0.0).level == "warn"
    assert nothing_solved([0.0] * 31, 0, 0.0) is None
    assert nothing_solved([0.0] * 31 + [1.0], 1, 0.0) is None
