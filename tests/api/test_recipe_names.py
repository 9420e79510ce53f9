"""Settings of a Python call as keys of a recipe."""

from pathlib import Path

import numpy as np
import pytest

from aha.api.recipe_names import find_recipe, overrides_from
from aha.core.errors import ConfigError


@pytest.mark.parametrize(
    ("settings", "overrides"),
    [
        ({"steps": 20, "seed": np.int64(3)}, {"steps": 20, "seed": 3}),
        ({"optim": {"lr": 3e-4, "warmup": 2}}, {"optim.lr": 3e-4, "optim.warmup": 2}),
        ({"model": "aha-tiny"}, {"model.path": "aha-tiny"}),
        (
            {"model": {"path": Path("a/b"), "lora_rank": 8}},
            {"model.path": "a/b"} | {"model.lora_rank": 8},
        ),
        ({"task": "multiply"}, {"task.name": "multiply"}),
        ({"task": {"numbers": (3, 4)}}, {"task.numbers": [3, 4]}),
        ({"task": {"options": {"digits": (2,)}}}, {"task.options.digits": [2]}),
        ({"optim.lr": 1e-4}, {"optim.lr": 1e-4}),
        ({"model": None, "task": None}, {}),
    ],
)
def test_settings_are_keys(settings, overrides):
    assert overrides_from(settings) == overrides


@pytest.mark.parametrize("settings", [{"optim": 3}, {"model": 3}, {"task": object()}])
def test_a_section_is_a_dict(settings):
    with pytest.raises(ConfigError) as caught:
        overrides_from(settings)
    assert caught.value.fix


@pytest.mark.parametrize("other", ["metrics.jsonl", "environment.json"])
def test_a_run_in_the_place_of_a_recipe_is_one_to_go_on_with(tmp_path, other):
    """One that was stopped in its first step has no metrics yet."""
    for name in ("config.json", other):
        (tmp_path / name).write_text("")
    with pytest.raises(ConfigError, match=f"aha train --resume {tmp_path}`"):
        find_recipe(str(tmp_path))


def test_a_model_in_the_place_of_a_recipe_is_one_word_of_the_shell(tmp_path):
    folder = tmp_path / "my model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=f"RECIPE --model '{folder}';"):
        find_recipe(str(folder))
