"""Registries: a decorated function gets a name that a recipe can use.

    @advantage("mine", group=False)
    def mine(rewards_PG): ...

The decorator states facts: what the algorithm is, as far as other packages have to know it. Which
settings of a recipe it reads follows from the names of its parameters. The checks of a recipe, the
plan, the trainer, the doctor and docs/papers.md read both; none of them has a list of names.

A package registers its own by naming its module under the entry point group `aha.algorithms`, in
its pyproject.toml:

    [project.entry-points."aha.algorithms"]
    mine = "my_losses"
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from aha.algo.lazy_torch import torch
from aha.core.config import AlgoSection, CriticSection
from aha.core.errors import ConfigError

Facts = TypeVar("Facts")
Function = TypeVar("Function", bound=Callable[..., Any])
WORDS_FOR_NONE = ("none", "off", "no", "false")  # of a key whose word for it is another one


@dataclass(frozen=True)
class Algorithm(Generic[Facts]):
    """A registered function with what is known of it.

    Called, it passes on those keywords that the function names and that are not None: None stands
    for the default of the function, which is that of the method's paper.
    """

    name: str
    function: Callable[..., Any]
    facts: Facts
    # Recipe setting -> the parameter that it goes to, for the settings that the function reads.
    reads: Mapping[str, str]
    parameters: frozenset[str] = field(default=frozenset(), repr=False)

    def __call__(self, *tensors: Any, **offered: Any) -> Any:
        named = {
            key: value
            for key, value in offered.items()
            if value is not None and key in self.parameters
        }
        return self.function(*tensors, **named)

    def value_of(self, setting: str, section: AlgoSection | CriticSection) -> Any:
        """What a setting that it reads comes to: the recipe's value, or else its own default."""
        value = getattr(section, setting)
        if value is None:
            value = inspect.signature(self.function).parameters[self.reads[setting]].default
        return value

    def settings(self, section: AlgoSection | CriticSection) -> dict[str, Any]:
        """The keywords that a recipe's section gives to this algorithm."""
        return {
            keyword: getattr(section, setting)
            for setting, keyword in self.reads.items()
            if setting in type(section).model_fields
        }


class Registry(dict[str, Algorithm[Facts]]):
    """Algorithms of one kind, by the name that recipes use.

    `setting`: the key of a recipe's [algo] that chooses one; `facts`: the dataclass of their facts.
    `keywords`: the settings that an algorithm of this kind may read, each with the parameters that
    it goes to. `absent`: the value of the key that chooses none, as in `correction = "none"`.
    `gradient`: False where results are weights or choices, through which no gradient may flow.
    `inputs`: the parameters that the trainer can fill, besides the settings; the first of them are
    passed by position, under any name. None: not known, so not checked.
    `former`: names of earlier versions, each with those that took its place.
    """

    def __init__(
        self,
        setting: str,
        facts: type[Facts],
        keywords: Mapping[str, tuple[str, ...]] | None = None,
        absent: str | None = None,
        gradient: bool = True,
        inputs: tuple[str, ...] | None = None,
        num_positional: int = 1,
    ) -> None:
        super().__init__()
        self.setting, self.facts, self.absent, self.gradient = setting, facts, absent, gradient
        self.keywords = keywords or {}
        self.inputs, self.num_positional = inputs, num_positional
        self.former: Mapping[str, tuple[str, ...]] = {}

    def __call__(self, name: str, **facts: Any) -> Callable[[Function], Function]:
        """Decorate a function to register it as `name`, with its facts. A name is given once."""
        assert name not in self, f"{name!r} is registered already, as {self[name].function}"
        stated = self.facts(**facts)

        def register(function: Function) -> Function:
            if not self.gradient:
                function = without_gradient(function)
            self.check_parameters(name, function)
            parameters = frozenset(inspect.signature(function).parameters)
            reads = {
                setting: keyword
                for setting, keywords in self.keywords.items()
                for keyword in keywords
                if keyword in parameters
            }
            self[name] = Algorithm(name, function, stated, reads, parameters)
            return function

        return register

    def check_parameters(self, name: str, function: Callable[..., Any]) -> None:
        """Raise ConfigError for a parameter that nobody will fill: such a function would fail in
        the first step of a run."""
        if self.inputs is None:
            return
        parameters = list(inspect.signature(function).parameters.values())
        known = {*self.inputs, *(word for words in self.keywords.values() for word in words)}
        what = f"the {self.setting} {name!r}"
        for parameter in parameters[self.num_positional :]:
            named = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            if named and parameter.default is parameter.empty and parameter.name not in known:
                raise ConfigError(
                    f"{what}, whose parameter {parameter.name!r} is never passed",
                    f"{self.num_positional} by position, then any of {', '.join(sorted(known))}",
                    f"rename {parameter.name!r}, or give it a default",
                )

    def __missing__(self, name: str) -> Algorithm[Facts]:
        # A recipe's names are checked by `pick`, before anything is looked up.
        raise AssertionError(f"no {self.setting} {name!r}")

    def pick(self, name: str) -> Algorithm[Facts]:
        """The algorithm of this name. Raises ConfigError where there is none, with the nearest."""
        if name not in self:
            near = self.former.get(name) or difflib.get_close_matches(name, self.choices, 1, 0.5)
            if self.absent and name in WORDS_FOR_NONE:
                near = [self.absent]
            raise ConfigError(
                f"algo.{self.setting} = {name!r}",
                f"one of {', '.join(self.choices)}",
                f"did you mean {' or '.join(map(repr, near))}?" if near else "",
            )
        return self[name]

    def chosen(self, name: str) -> Algorithm[Facts] | None:
        """As `pick`, but None for `absent`."""
        return None if name == self.absent else self.pick(name)

    @property
    def choices(self) -> list[str]:
        """Every value that a recipe may give to `algo.{setting}`."""
        return [*([] if self.absent is None else [self.absent]), *self]

    def readers(self, setting: str) -> list[str]:
        """Names of the algorithms that read a setting."""
        return [name for name, algorithm in self.items() if setting in algorithm.reads]


def without_gradient(function: Function) -> Function:
    """The same function under `torch.no_grad`."""

    @wraps(function)
    def inner(*tensors: Any, **settings: Any) -> Any:
        with torch.no_grad():
            return function(*tensors, **settings)

    return inner  # type: ignore[return-value]  # the same parameters and result


def load_outside() -> None:
    """Import what installed packages register under the entry point group `aha.algorithms`.

    Raises ConfigError for a package that cannot be imported, or takes a name that is taken.
    """
    for entry in entry_points(group="aha.algorithms"):
        try:
            entry.load()
        except Exception as error:  # whatever a stranger's module may raise
            package = entry.dist.name if entry.dist else entry.name
            raise ConfigError(
                f"the algorithms of the installed package {package!r}: "
                f"{type(error).__name__}: {error}",
                f"a module {entry.value!r} that can be imported",
                f"pip install --upgrade {package}, or pip uninstall {package}",
            ) from error
