"""A part of a recipe: the rules for the values of every key, and the words for a wrong one."""

import difflib
import math
import re
from typing import Annotated, Any, TypeGuard, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from aha.core.errors import ConfigError, shown
from aha.core.unknown_keys import unknown_key

# Far above any use, and below what makes a table, a loop or a price overflow.
MILLION, BILLION = 1_000_000, 1_000_000_000
LARGEST_SEED = 2**63 - 1
DEEPEST = 32  # levels of tables and lists within task.options


class Section(BaseModel):
    """A part of a recipe. A number of any key is finite and, if whole, fits 64 bits; a text has no
    NUL."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def none_is_not_set(cls, raw: Any) -> Any:
        """`none` for a key that may be left out, as help and `aha config show` print it: so that an
        option can take back what a recipe sets."""
        if not isinstance(raw, dict):
            return raw
        optional = {k for k, f in cls.model_fields.items() if type(None) in get_args(f.annotation)}
        return {k: None if v == "none" and k in optional else v for k, v in raw.items()}

    @field_validator("*", mode="before")
    @classmethod
    def usable(cls, value: Any) -> Any:
        """Refuse what no key can use and what later arithmetic, or a file system, trips over."""
        if type(value) is int and abs(value) > LARGEST_SEED:
            raise PydanticCustomError("too_large", "a number of at most 64 bits")
        if isinstance(value, str) and "\0" in value:
            raise PydanticCustomError("nul", "text without a NUL")
        return value


def as_list(value: Any) -> Any:
    """One number as a list of it."""
    return value if isinstance(value, list | tuple) else [value]


# N, or [N, M]. Runs of before have the number alone in their config.json.
KeptCheckpoints = Annotated[
    tuple[Annotated[int, Field(ge=1, le=BILLION)], ...],
    Field(min_length=1, max_length=2),
    BeforeValidator(as_list),
]


def is_section(annotation: Any) -> TypeGuard[type[BaseModel]]:
    """Whether a key of this type is a section of its own, not a value."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def is_json(value: object, depth: int = 0) -> bool:
    """Whether JSON can hold a value, in at most DEEPEST levels."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):  # a bool is one too
        return abs(value) <= LARGEST_SEED
    if isinstance(value, list | tuple):
        return depth < DEEPEST and all(is_json(item, depth + 1) for item in value)
    if isinstance(value, dict):
        return depth < DEEPEST and all(
            isinstance(key, str) and is_json(item, depth + 1) for key, item in value.items()
        )
    if isinstance(value, str):  # a file name of other bytes comes as text that has no UTF-8
        return value == value.encode(errors="ignore").decode()
    return value is None


def key_of(error: ValidationError) -> str:
    """The dotted key of pydantic's first complaint. A wrong element of a list is reported as
    key.0: the key is what the user wrote."""
    return ".".join(str(part) for part in error.errors()[0]["loc"] if not isinstance(part, int))


def explain(error: ValidationError, where: str, known: list[str]) -> ConfigError:
    """Pydantic's first complaint in our words: got / wanted / fix. `known` are all keys."""
    first, key = error.errors()[0], key_of(error)
    if first["type"] == "extra_forbidden":
        return unknown_key(key, first["input"], known, where)
    expected = first["msg"].removeprefix("Input should be ")
    expected = expected[0].lower() + expected[1:].replace("valid tuple", "list such as [3, 4]")
    expected = expected.replace("valid dictionary", "table such as {largest = 20}")
    if first["type"] == "model_type":
        expected = f"a section, as in [{key}]"
    choices = re.findall("'([^']*)'", str(first.get("ctx", {}).get("expected", "")))
    value = first["input"]
    near = difflib.get_close_matches(value[:80], choices, 1, 0.7) if isinstance(value, str) else []
    hint = f"did you mean {near[0]!r}?" if near else ""
    return ConfigError(f"{where}{key[:80]} = {shown(value)}", expected, hint)
