"""`aha config show`: prints every key with its value."""

from aha.algo.recipe import load_recipe
from aha.cli.parameters import RecipeName
from aha.cli.recipe_keys import Overrides, find_recipe, overrides_of


def show(recipe: RecipeName | None = None, *, overrides: Overrides = None) -> None:
    """Print every key with its value: the defaults, or a recipe with its overrides."""
    path = find_recipe(recipe) if recipe else None
    print(load_recipe(path, overrides_of(overrides)).model_dump_json(indent=2))
