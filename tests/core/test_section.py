"""Bounds that every key of a recipe has, whatever the key."""

import math

import pytest

from aha.algo.recipe import load_recipe
from aha.core.config import RunConfig, known_keys
from aha.core.errors import ConfigError
from aha.core.section import MILLION, is_json

NUMBERS = [float("nan"), math.inf, -math.inf, 10**400, -(10**400), 2**63]


@pytest.mark.parametrize("key", known_keys())
def test_no_key_takes_a_number_that_is_none_or_that_overflows(key):
    if key == "task.options":
        return
    for value in NUMBERS:
        with pytest.raises(ConfigError) as error:
            load_recipe(None, {key: value})
        assert error.value.got.startswith(key) and len(str(error.value)) < 300


@pytest.mark.parametrize(
    "key",
    [
        "rollout.prompts",
        "rollout.group_size",
        "rollout.max_new_tokens",
        "rollout.max_rows",
        "model.lora_rank",
        "eval.problems",
        "eval.final",
        "token_groups",
    ],
)
def test_a_size_that_no_memory_holds_is_refused_by_its_key(key):
    with pytest.raises(ConfigError, match=f"{key} = 1000000000; wanted less than or equal"):
        load_recipe(None, {key: 1_000_000_000})


def test_sizes_that_are_too_much_together_name_both_keys_and_a_value_that_fits():
    with pytest.raises(ConfigError, match="rollout.prompts 32 times rollout.group_size") as error:
        load_recipe(None, {"rollout.group_size": MILLION})
    option, value = error.value.fix.split(" ")
    assert load_recipe(None, {option.lstrip("-"): int(value)}).rollout.group_size == int(value)


@pytest.mark.parametrize("key", ["model.path", "task.name", "task.data"])
def test_a_text_has_no_nul(key):
    with pytest.raises(ConfigError, match="text without a NUL"):
        load_recipe(None, {key: "a\0b"})


def deep(levels: int) -> list:
    value: list = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value", [math.nan, [math.inf], {"a": -math.inf}, deep(50), deep(50_000), "\udc80", 10**400]
)
def test_options_of_a_task_are_what_json_holds(value):
    with pytest.raises(ConfigError, match="task.options = "):
        load_recipe(None, {"task.options": {"x": value}})
    assert not is_json(value)


def test_ordinary_options_pass_and_come_back_from_json():
    options = {"digits": [2, 3], "name": "caf\u00e9", "deep": {"a": [1.5, True, "x"]}}
    cfg = load_recipe(None, {"task.options": options})
    again = RunConfig.model_validate_json(cfg.model_dump_json())
    assert again == cfg and again.task.options == options
