"""From what was typed to a recipe: names, overrides, and a free name for the run."""

import tomllib
from importlib.resources import files
from pathlib import Path

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


# Short for the keys that most often change.
SHORT = {"task": "task.name", "model": "model.path"}


def parse_overrides(tokens: tuple[str, ...]) -> dict:
    """`--optim.lr 3e-4 --task.numbers "[3, 4]"` as {dotted key: value}; values read as TOML."""
    found, rest = {}, list(tokens)
    while rest:
        key = rest.pop(0)
        if not key.startswith("--"):
            raise ConfigError(f"{key!r} stands alone", "--section.key value")
        key, equals, text = key[2:].partition("=")
        key = SHORT.get(key, key).replace("-", "_")
        if not equals:
            if not rest:
                raise ConfigError(f"--{key} has no value", "--section.key value")
            text = rest.pop(0)
        try:
            found[key] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            found[key] = text
    return found
