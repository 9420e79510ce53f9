"""Recipes by their names, and a free name for the run."""

from importlib.resources import files
from pathlib import Path

from aha.algo.recipe import load_recipe
from aha.core.config import RunConfig
from aha.core.errors import ConfigError


def packaged_recipes() -> list[str]:
    folder = Path(str(files("aha"))) / "recipes"
    return sorted(path.stem for path in folder.glob("*.toml"))


def find_recipe(name: str) -> Path:
    """A packaged recipe by name, or a file by path."""
    path = Path(name)
    if path.suffix == ".toml" or path.is_file():
        return path
    packaged = Path(str(files("aha"))) / "recipes" / f"{name}.toml"
    if not packaged.is_file():
        raise ConfigError(
            f"no recipe {name!r}", f"one of {', '.join(packaged_recipes())}, or a TOML file"
        )
    return packaged


def free_name(stem: str) -> str:
    """`stem`, or `stem-2`, `stem-3` ... : the first that no run has taken."""
    number = 1
    while (Path("runs") / (name := stem if number == 1 else f"{stem}-{number}")).exists():
        number += 1
    return name


def recipe_for_help(words: list[str]) -> RunConfig | None:
    """The recipe of `aha train RECIPE --help`, whose values are shown; None where no word names
    one. `words` begin with the command."""
    names = words if words[:1] == ["demo"] else words[1:]
    for name in names:
        try:
            return load_recipe(find_recipe(name))
        except ConfigError:
            continue
    return None
