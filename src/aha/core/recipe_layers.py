"""A recipe's settings layer by layer: its TOML file, and overrides by dotted keys over it.

Imports no algorithm and checks nothing: `aha.algo.recipe.load_recipe` is the way to load a recipe.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aha.core.config import TaskSection
from aha.core.errors import ConfigError, shown

LARGEST_RECIPE = 1_000_000  # bytes


def layered(recipe: Path | None, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """The settings of a recipe file with dotted overrides `{"optim.lr": "3e-4"}` over them.

    Nothing is checked yet: `aha.algo.recipe.load_recipe` does it.
    """
    raw = read_toml(recipe) if recipe else {}
    drop_settings_of_other_task(raw, (overrides or {}).get("task.name"))
    drop_measured_length(raw, overrides or {})
    for key, value in (overrides or {}).items():
        set_dotted(raw, key, value)
    return raw


def drop_settings_of_other_task(raw: dict[str, Any], name: str | None) -> None:
    """Where an override names another task, the recipe's settings of its own task do not apply."""
    section = raw.get("task", {})
    if name is None or not isinstance(section, dict):
        return
    if name != section.get("name", TaskSection.model_fields["name"].default):
        shared = ("template", "grade_seconds", "bad_rows")
        raw["task"] = {key: section[key] for key in shared if key in section}


def drop_measured_length(raw: dict[str, Any], overrides: dict[str, Any]) -> None:
    """rollout.expected_tokens was measured with the recipe's own base, task and limit: with another
    one it is not known."""
    section = raw.get("rollout", {})
    keys = [key.replace("-", "_") for key in overrides]
    other = any(k.startswith(("task.", "model.path", "rollout.max_new_tokens")) for k in keys)
    if other and isinstance(section, dict):
        raw["rollout"] = {k: v for k, v in section.items() if k != "expected_tokens"}


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises `ConfigError` for one that cannot be read."""
    try:
        # A pipe or a device may never end.
        if path.exists() and not path.is_file():
            raise ConfigError(f"{path} is no file", "a recipe file")
        with path.open("rb") as file:
            content = file.read(LARGEST_RECIPE + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"cannot read {path}: {reason}",
            "a recipe file",
            "check the path; `aha recipes` lists the packaged ones",
        ) from None
    if len(content) > LARGEST_RECIPE:
        raise ConfigError(f"{path} has more than {LARGEST_RECIPE:,} bytes", "a recipe file")
    try:
        return parse_toml(content.decode("utf-8-sig"))  # Notepad begins a file with a BOM
    except ValueError as error:
        raise ConfigError(f"{path}: {error}", "a TOML file") from None


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text. Raises `ValueError` with one line for every text that is none."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("lists or tables nested too deeply") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except ValueError:  # of Python's int
        raise ValueError("a whole number of thousands of digits") from None


def set_dotted(raw: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = key.replace("-", "_").split(".")
    for section in sections:
        raw = raw.setdefault(section, {})
        if not isinstance(raw, dict):
            raise ConfigError(f"--{key[:80]}: {shown(section)} is a value", "a section")
    raw[name] = value


def without_dotted(raw: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A copy of the settings without the key."""
    name, _, rest = key.partition(".")
    if not rest:
        return {k: v for k, v in raw.items() if k != name}
    return dict(raw) | {name: without_dotted(raw.get(name, {}), rest)}


def flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by dotted keys: {"mix": {"search": 0.3}} as {"mix.search": 0.3}."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        flat |= flattened(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat
