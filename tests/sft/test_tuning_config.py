"""The settings of a fine-tuning: what is refused, and the usual learning rate."""

import pytest

from aha.core.errors import ConfigError
from aha.sft.tuning_config import default_lr, tuning_config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs = 0"),
        ({"examples": 0}, "examples = 0"),
        ({"optim": {"lr": -1.0}}, "optim.lr = -1.0"),
        ({"optim": {"grad_clip": 0}}, "optim.grad_clip = 0"),
        ({"model": {"lora_rank": -1}}, "model.lora_rank = -1"),
        ({"bad_rows": "keep"}, "bad_rows = 'keep'"),
        ({"epoch": 3}, "epoch"),
    ],
)
def test_a_value_that_cannot_be_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        tuning_config({"data": "a.jsonl"} | changes)


def test_model_and_optimiser_are_those_of_a_recipe():
    cfg = tuning_config({"data": "a", "seed": 3, "model": {"lora_rank": 4}, "optim": {"lr": 0.5}})
    recipe = cfg.recipe
    assert (recipe.seed, recipe.model, recipe.optim) == (3, cfg.model, cfg.optim)


def test_the_usual_rate_falls_with_the_size():
    assert default_lr(1_000_000, 0) > default_lr(500_000_000, 16) > default_lr(500_000_000, 0)
