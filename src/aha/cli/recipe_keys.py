"""Recipes on the command line: their names, and every key as an option with its help.

Name, meaning, choices and default come from the fields of the config, so help, pages and checks
agree. A value is read as TOML and checked by `load_recipe`: `--optim.lr 3e-4` and `lr = 3e-4` under
`[optim]` mean the same and raise the same errors.
"""

import difflib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    TypedDict,
    get_args,
    get_origin,
)

from cyclopts import Group, Parameter, Token
from cyclopts.help import DefaultFormatter, HelpPanel
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rich.console import Console, ConsoleOptions

from aha.algo.algorithms import REGISTRIES
from aha.algo.recipe import load_recipe
from aha.core.config import RunConfig
from aha.core.errors import ConfigError, shown
from aha.core.recipe_layers import parse_toml
from aha.core.section import is_section
from aha.core.unknown_keys import LONGEST

# Short options for the keys that most often change.
SHORT_OPTIONS = {"task.name": "--task", "model.path": "--model"}
KINDS = {int: "INT", float: "FLOAT", str: "TEXT", bool: "true|false", tuple: "[INT, ...]"}
GROUP = "Recipe keys"
CHOICE = "CHOICE"
FREE_FORM = "TOML"  # a table with names that only the task knows
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}  # attributes of pydantic's limits

# The recipe in `aha train RECIPE --help`: its values are shown in place of the defaults.
recipe_in_help: ContextVar[RunConfig | None] = ContextVar("recipe_in_help", default=None)


@dataclass(frozen=True)
class RecipeKey:
    """One key. `name` is dotted; `section` is empty for keys of the run itself; `bounds` is a range
    such as "≥ 1"; `choices`, if any, are the only values; `readers`, if any, are the only
    algorithms that use the key."""

    name: str
    section: str
    section_meaning: str
    kind: str
    choices: tuple[str, ...]
    bounds: str
    readers: tuple[str, ...]
    default: Any
    meaning: str

    def value_in(self, cfg: RunConfig) -> Any:
        value: Any = cfg
        for part in self.name.split("."):
            value = getattr(value, part)
        return value


def recipe_keys() -> list[RecipeKey]:
    """All keys: those of the run itself, then each section."""
    keys = [key_of(name, "", "", field) for name, field in single_fields(RunConfig)]
    for section, field in RunConfig.model_fields.items():
        if is_section(model := field.annotation):
            meaning = (model.__doc__ or "").splitlines()[0]
            keys += [key_of(name, section, meaning, own) for name, own in single_fields(model)]
    return keys


def single_fields(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    return (
        (n, field) for n, field in model.model_fields.items() if not is_section(field.annotation)
    )


def key_of(name: str, section: str, section_meaning: str, field: FieldInfo) -> RecipeKey:
    kind, choices = kind_of(field.annotation)
    registries = REGISTRIES if section == "algo" else {}
    if name in registries:
        kind, choices = CHOICE, tuple(registries[name].choices)
    readers = [reader for registry in registries.values() for reader in registry.readers(name)]
    bounds = [
        f"{sign} {getattr(limit, attribute):g}"
        for limit in field.metadata
        for attribute, sign in BOUNDS.items()
        if hasattr(limit, attribute)
    ]
    return RecipeKey(
        name=f"{section}.{name}".lstrip("."),
        section=section,
        section_meaning=section_meaning,
        kind=kind,
        choices=choices,
        bounds=", ".join(bounds),
        readers=tuple(readers),
        default=field.default,
        meaning=field.description or "",
    )


def kind_of(annotation: Any) -> tuple[str, tuple[str, ...]]:
    """(word for the type of a value, choices)."""
    options = [part for part in get_args(annotation) if part is not type(None)]
    if get_origin(annotation) is Literal:
        return CHOICE, tuple(map(str, options))
    if type(None) in get_args(annotation):
        return kind_of(options[0])
    return KINDS.get(get_origin(annotation) or annotation, FREE_FORM), ()


def as_toml(value: Any) -> str:
    """A value as a user types it; `none` for a key that is not set."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(as_toml, value))}]"
    return str(value)


# -- options --------------------------------------------------------------------------------


def toml_value(text: str) -> Any:
    """The value of a TOML text (number, list, true, table); any other text as it is."""
    try:
        return parse_toml(f"value = {text}")["value"]
    except ValueError:
        return text


def read_value(hint: Any, tokens: Any) -> Any:
    """The value of an option from cyclopts' tokens; `{name: tokens}` is from
    --task.options.NAME."""
    if isinstance(tokens, dict):
        return {name: read_value(hint, inner) for name, inner in tokens.items()}
    token: Token = tokens[-1]
    return toml_value(token.value)


class KeysPanel(DefaultFormatter):
    """A section of the help. Adds the choices and the named recipe's value to each entry."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        cfg = recipe_in_help.get()
        keys = {f"--{key.name}": key for key in recipe_keys()}
        entries = []
        for entry in panel.entries:
            key = keys[entry.positive_names[0]]
            shown = as_toml(key.value_in(cfg) if cfg else key.default)
            entries.append(entry.copy(choices=key.choices or None, default=shown))
        super().__call__(console, options, panel.copy(entries=entries))


def option_of(key: RecipeKey, group: Group) -> Any:
    """The key's type as cyclopts reads it."""
    names = (f"--{key.name}", SHORT_OPTIONS.get(key.name))
    hint = dict[str, Any] if key.kind == FREE_FORM else Any
    return Annotated[
        hint,
        Parameter(
            name=tuple(filter(None, names)),
            group=group,
            help=key.meaning,
            metavar=key.kind,
            converter=read_value,
            validator=(),  # `load_recipe` checks values, in the same words for files and options
            json_dict=False,
            allow_repeating=True,  # the last value counts: a script may add options to a user's
        ),
    ]


def options_type(without: tuple[str, ...] = ()) -> Any:
    """A TypedDict {dotted key: value} for the keys that were typed, and no others."""
    groups: dict[str, Group] = {}
    options = {}
    for key in recipe_keys():
        if key.section not in groups:
            title = f"{GROUP}: {key.section}" if key.section else GROUP
            groups[key.section] = Group.create_ordered(
                title, key.section_meaning, help_formatter=KeysPanel(), sort_key=1
            )
        if key.name not in without:
            options[key.name] = option_of(key, groups[key.section])
    make_typed_dict: Any = TypedDict  # its fields are known when this runs, and not before
    return make_typed_dict("RecipeOptions", options, total=False)


if TYPE_CHECKING:
    RecipeOptions = dict[str, Any]
    LabOptions = dict[str, Any]
else:
    RecipeOptions = options_type()
    # The lab gives every run the same budget by its own options.
    LabOptions = options_type(without=("seed", "steps", "tokens"))

Overrides = Annotated[RecipeOptions | None, Parameter(name="*")]
LabOverrides = Annotated[LabOptions | None, Parameter(name="*")]


def overrides_of(options: RecipeOptions | None) -> dict[str, Any]:
    """{dotted key: value} for `load_recipe`. Each name of task.options has its own key, so that the
    recipe's other options stay."""
    overrides: dict[str, Any] = {}
    for key, value in (options or {}).items():
        if isinstance(value, dict):
            overrides |= {f"{key}.{name}": inner for name, inner in value.items()}
        else:
            overrides[key] = value
    return overrides


# -- recipes and runs by name --------------------------------------------------------------


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
        near = difflib.get_close_matches(name[:LONGEST], packaged_recipes(), 1, 0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(
            f"no recipe {shown(name)}",
            "a packaged recipe, or a TOML file",
            f"{hint}`aha recipes` lists them",
        )
    return packaged


def free_name(stem: str) -> str:
    """The first of `stem`, `stem-2`, `stem-3` ... that is not the name of a run."""
    number = 1
    while (Path("runs") / (name := stem if number == 1 else f"{stem}-{number}")).exists():
        number += 1
    return name


def recipe_for_help(words: list[str]) -> RunConfig | None:
    """The recipe in `aha train RECIPE --help`, whose values are shown; None without one. `words`
    begins with the command."""
    names = words if words[:1] == ["demo"] else words[1:]
    for name in names:
        try:
            return load_recipe(find_recipe(name))
        except ConfigError:
            continue
    return None
