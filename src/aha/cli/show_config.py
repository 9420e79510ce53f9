"""`aha config show`: prints every key with its value."""

from aha.algo.recipe import load_recipe
from aha.api.recipe_names import find_recipe
from aha.cli.parameters import RecipeName
from aha.cli.recipe_keys import Overrides, overrides_of
from aha.cli.terminal_text import say_json


def show(recipe: RecipeName | None = None, *, overrides: Overrides = None) -> None:
    """Print every key with its value: the defaults, or a recipe with its overrides."""
    path = find_recipe(recipe) if recipe else None
    say_json(load_recipe(path, overrides_of(overrides)).model_dump(mode="json"), indent=2)
