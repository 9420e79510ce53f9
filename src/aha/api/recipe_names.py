"""Recipes and runs by name, and the settings that a caller gives over a recipe."""

import os
import shlex
from collections.abc import Mapping
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

from aha.core.config import RunConfig
from aha.core.errors import ConfigError, shown
from aha.core.section import is_section
from aha.core.unknown_keys import LONGEST
from aha.plan.shapes import known_shapes

MAX_NAME_BYTES = 200  # file systems take 255, and a new run has a longer name while it is made


def packaged_recipes() -> list[str]:
    """The names of the packaged recipes."""
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
            f"no recipe {shown(name)}", "a packaged recipe, or a TOML file", instead_of(name)
        )
    return packaged


def instead_of(name: str) -> str:
    """What a word that is no recipe was meant to be: a run to go on with, a model, a recipe."""
    from aha.store.run_folder import resume_command

    folder = Path(name)
    # A run that was stopped in its first step has no metrics yet; a model has neither file.
    of_a_run = any((folder / f).is_file() for f in ("metrics.jsonl", "environment.json"))
    if (folder / "config.json").is_file() and of_a_run:
        return f"a run goes on with `{resume_command(folder)}`"
    base = name.rpartition("/")[2].removesuffix("-Instruct")
    if base in known_shapes() or (folder / "config.json").is_file():
        typed = f"RECIPE --model {shlex.quote(name)}"
        return f"a model comes after a recipe: {typed}; `aha recipes` lists recipes"
    near = get_close_matches(name[:LONGEST], packaged_recipes(), 1, 0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}`aha recipes` lists them"


def free_name(stem: str) -> str:
    """The first of `stem`, `stem-2`, `stem-3` ... that is not the name of a run."""
    number = 1
    while (Path("runs") / (name := stem if number == 1 else f"{stem}-{number}")).exists():
        number += 1
    return name


def new_run_path(name: str | None, stem: str) -> Path:
    """runs/NAME; without a name that of the recipe, numbered. Raises `ConfigError` for a name that
    is none of a single folder."""
    if name is None:
        name = free_name(stem)
    separators = {"/", os.sep, os.altsep or os.sep, "\0"}
    if not name.strip() or name.startswith((".", "-")) or separators & {*name}:
        raise ConfigError(
            f"--name {name!r}", "the name of one folder in runs/", f"--name {plain_name(name)}"
        )
    if len(name.encode(errors="surrogateescape")) > MAX_NAME_BYTES or not name.isprintable():
        raise ConfigError(
            f"--name {name[:40]!r} ..." if len(name) > 40 else f"--name {name!r}",
            f"at most {MAX_NAME_BYTES} bytes of printable text",
            f"--name {plain_name(name)}",
        )
    return Path("runs") / name


def plain_name(name: str) -> str:
    """A name that is allowed and looks like this one."""
    kept = "".join(c if c.isalnum() and c.isascii() or c in "-_." else "-" for c in name)
    return kept.strip("-.")[:40] or "mine"


# -- settings of a Python call ---------------------------------------------------------------

MAIN_KEYS = {"model": "path", "task": "name"}  # what a text means where a section is expected


def overrides_from(settings: Mapping[str, Any]) -> dict[str, Any]:
    """{dotted key: value} of settings as a Python call has them.

    `steps=20` is a key of the run, `optim={"lr": 3e-4}` those of a section, `model="aha-tiny"` and
    `task="multiply"` the path and the name; None leaves a setting out. Names and values are checked
    where the recipe is.
    """
    overrides: dict[str, Any] = {}
    for key, value in settings.items():
        field = RunConfig.model_fields.get(key)
        if value is None:
            continue
        if isinstance(value, Mapping):
            overrides |= dotted(key, value)
        elif key in MAIN_KEYS:
            overrides[f"{key}.{MAIN_KEYS[key]}"] = text_of_name(key, value)
        elif field is not None and is_section(field.annotation):
            names = ", ".join(list(field.annotation.model_fields)[:4])
            raise ConfigError(
                f"{key}={shown(value)}",
                f"a dict with keys of the section: {names} ...",
                f"{key}={{...}}",
            )
        else:
            overrides[key] = plain(value)
    return overrides


def dotted(key: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a table under dotted keys, those of tables in it too: what the recipe has
    beside them stays."""
    flat: dict[str, Any] = {}
    for name, inner in table.items():
        path = f"{key}.{name}"
        flat |= dotted(path, inner) if isinstance(inner, Mapping) else {path: plain(inner)}
    return flat


def text_of_name(key: str, value: object) -> str:
    """The name or path of a model or task. Raises `ConfigError` for what is neither."""
    if isinstance(value, str | Path):
        return str(value)
    raise ConfigError(
        f"{key}={shown(value)}",
        f"a name, a path, or a dict with keys of the section [{key}]",
        "reward=your_function with data=your_rows, or a task in a file: task='my_task.py'"
        if key == "task"
        else "the folder of the model, or its name",
    )


def plain(value: Any) -> Any:
    """A value as TOML would have it: a path as text, the number in a NumPy scalar."""
    if isinstance(value, Path):
        return str(value)
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value
