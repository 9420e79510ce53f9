"""Fixes that work when they are obeyed word by word.

A clash of settings has several ways out, and many of them run into the next clash: with another
loss the updates no longer fit, with another engine its share of memory is not read. So the ways are
followed before one is named. What is named is the shortest set of changes with which the recipe
passes every check. What the user has typed is what the user wants, and then what the recipe's file
says: a set that leaves them comes before one that is a little shorter.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aha.core.config import RunConfig
from aha.core.errors import ConfigError

Changes = Mapping[str, Any]  # dotted key of a recipe -> value
MAX_TRIED = 200  # recipes; a fix takes two or three changes
MAX_FOLLOWED = 8  # errors, one after the other
# Clashes that it is better to follow than to change an option that was typed, or a key of the file.
TYPED, OF_FILE = 2, 1


@dataclass(frozen=True)
class Clash:
    """Settings that cannot work together, in the words of a ConfigError, and the ways out of it.

    Each way is a set of changes that may resolve it, the most likely first. The last one takes a
    setting back where there is one to take back. `unread` is the dotted key of a setting that
    nothing reads, if that is the clash.
    """

    got: str
    expected: str
    ways: tuple[Changes, ...]
    unread: str = ""


Clashes = Callable[[RunConfig], Iterator[Clash]]
# The recipe with these changes. Raises ConfigError where a value is out of its range, or where it
# cannot work whatever the algorithms.
Changed = Callable[[Changes], RunConfig]


def fix_of(
    clash: Clash, clashes: Clashes, changed: Changed, prices: Mapping[str, int] | None = None
) -> str:
    """The fewest changes that make the recipe pass, as options of the command line.

    `clashes` are all checks of a recipe, `changed` makes others of it. `prices`: how many further
    clashes may be followed rather than change the key. Where there are too many clashes to find the
    fewest changes, each is resolved by taking a setting back.
    """
    order = itertools.count()
    waiting: list[tuple[int, int, int, dict[str, Any]]] = []

    def wait(changes: dict[str, Any], depth: int) -> None:
        price = max((prices or {}).get(key, 0) for key in changes)
        heapq.heappush(waiting, (depth + price, next(order), depth, changes))

    for way in clash.ways:
        wait(dict(way), 1)
    tried: list[Changes] = []
    while waiting and len(tried) < MAX_TRIED:
        *_, depth, changes = heapq.heappop(waiting)
        if changes in tried:
            continue
        tried.append(changes)
        following = following_clash(changes, clashes, changed)
        if following is None:
            return as_options(changes)
        for way in following.ways:
            wait(changes | dict(way), depth + 1)
    return as_options(taken_back(clash, clashes, changed))


def following_clash(changes: Changes, clashes: Clashes, changed: Changed) -> Clash | None:
    """The first clash that is left with these changes. One without a way out stands for a recipe
    that is refused whatever the algorithms."""
    try:
        return next(clashes(changed(changes)), None)
    except ConfigError as error:
        return Clash(error.got, error.wanted, ())


def taken_back(clash: Clash, clashes: Clashes, changed: Changed) -> Changes:
    """The changes when each clash, one after the other, is resolved by its last way."""
    changes: dict[str, Any] = {}
    following: Clash | None = clash
    while following and following.ways and not following.ways[-1].items() <= changes.items():
        changes |= following.ways[-1]
        following = following_clash(changes, clashes, changed)
    return changes


def completed(error: ConfigError, check: Callable[[Changes], object]) -> ConfigError:
    """The error with a fix that is enough: where its options lead to further errors of `check`,
    those errors' options are added. A fix in words is left as it is."""
    changes = options_in(error.fix)
    for _ in range(MAX_FOLLOWED if changes else 0):
        try:
            check(changes)
        except ConfigError as further:
            following = options_in(further.fix)
            if not following:
                break
            changes |= following
        else:
            return ConfigError(error.got, error.wanted, as_options(changes))
    return error


def options_in(fix: str) -> dict[str, Any]:
    """{dotted key: text} of a fix such as `--algo.loss pg --algo.updates 1`; empty for words."""
    words = fix.split()
    keys, values = words[::2], words[1::2]
    if len(keys) != len(values) or not all(key.startswith("--") for key in keys):
        return {}
    return {key.removeprefix("--"): value for key, value in zip(keys, values, strict=True)}


def as_options(changes: Changes) -> str:
    return " ".join(f"--{key} {as_typed(value)}" for key, value in changes.items())


def as_typed(value: Any) -> str:
    """A value as a user types it; `none` for a key that is not set."""
    return "none" if value is None else str(value)
