"""Fixes that work when they are obeyed word by word.

A clash of settings has several ways out, and many of them run into the next clash: with another
loss the updates no longer fit, with another engine its share of memory is not read. So the ways are
followed before one is named. What is named is the shortest set of changes with which the recipe
passes every check.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aha.core.config import RunConfig, validated
from aha.core.errors import ConfigError

Changes = Mapping[str, Any]  # dotted key of a recipe -> value
MAX_TRIED = 300  # recipes; a fix takes two or three changes


@dataclass(frozen=True)
class Clash:
    """Settings that cannot work together, in the words of a ConfigError, and the ways out of it:
    each one is a set of changes that may resolve it."""

    got: str
    wanted: str
    ways: tuple[Changes, ...]


Clashes = Callable[[RunConfig], Iterator[Clash]]


def changed_recipe(cfg: RunConfig, changes: Changes) -> RunConfig:
    """The recipe with these changes. Raises ConfigError where a value is out of its range, or where
    it cannot work whatever the algorithms."""
    raw = cfg.model_dump()
    for key, value in changes.items():
        *sections, name = key.split(".")
        place = raw
        for section in sections:
            place = place[section]
        place[name] = value
    return validated(raw)


def fix_of(cfg: RunConfig, clash: Clash, clashes: Clashes) -> str:
    """The fewest changes that make the recipe pass, as options of the command line.

    `clashes` are all checks of a recipe. Where no way out passes within `MAX_TRIED` recipes, the
    first one is named, though another clash follows it.
    """
    waiting = deque(dict(way) for way in clash.ways)
    tried: list[Changes] = []
    while waiting and len(tried) < MAX_TRIED:
        changes = waiting.popleft()
        if changes in tried:
            continue
        tried.append(changes)
        try:
            following = next(clashes(changed_recipe(cfg, changes)), None)
        except ConfigError:
            continue
        if following is None:
            return as_options(changes)
        waiting.extend(changes | dict(way) for way in following.ways)
    return as_options(clash.ways[0])


def as_options(changes: Changes) -> str:
    return " ".join(f"--{key} {as_typed(value)}" for key, value in changes.items())


def as_typed(value: Any) -> str:
    """A value as a user types it; `none` for a key that is not set."""
    return "none" if value is None else str(value)
