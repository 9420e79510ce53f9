"""The two registries: a decorated function is a new algorithm, from inside or outside the package.

    @advantage("mine")
    def mine(rewards_PG): ...

A package registers its own by naming its module under the entry point group `aha.algorithms`.
A function names in its signature what it needs beyond the first tensors; nothing else is passed.
"""

import inspect
from collections.abc import Callable
from importlib.metadata import entry_points


class Registry(dict):
    """Functions by the name that recipes use."""

    def __call__(self, name: str, every_row: bool = False) -> Callable:
        """Decorate a function to register it as `name`. A name is given once.

        `every_row`: a loss that moves something where the advantage is 0, so that rows without
        credit may not be skipped.
        """
        assert name not in self, f"{name!r} is registered already, as {self[name].__module__}"

        def register(function: Callable) -> Callable:
            function.every_row = every_row
            self[name] = function
            return function

        return register


def call(function: Callable, *tensors, **offered):
    """`function(*tensors)` with those of the offered keywords that it names.

    None stands for "as the method's paper has it": the function's own default.
    """
    wanted = inspect.signature(function).parameters
    return function(*tensors, **{k: v for k, v in offered.items() if k in wanted and v is not None})


def load_outside() -> None:
    """Import what installed packages register under the entry point group `aha.algorithms`."""
    for entry in entry_points(group="aha.algorithms"):
        entry.load()
