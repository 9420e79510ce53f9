"""`aha train` without a recipe."""

import json

import pytest

from aha.api.recipe_names import packaged_recipes
from aha.cli.default_recipe import recipe_for


@pytest.mark.parametrize(
    ("memory_gb", "recipe"),
    [
        (None, "demo"),
        (0.0, "demo"),
        (6.0, "demo"),
        (8.0, "laptop-8gb"),
        (16.0, "laptop-8gb"),
        (23.6, "one-gpu-24gb"),
        (80.0, "one-gpu-24gb"),
    ],
)
def test_the_recipe_follows_the_memory_of_the_gpu(memory_gb, recipe):
    assert recipe_for(memory_gb) == recipe and recipe in packaged_recipes()


def test_train_alone_takes_it_and_says_so(aha, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)  # on any machine
    done = aha("train", "--dry-run", "--steps", "3")
    assert done.code == 0 and json.loads(done.out)["steps"] == 3
    assert "no recipe is named: demo" in done.err
