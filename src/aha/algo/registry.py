"""The two registries: a decorated function is a new algorithm, from inside or outside the package.

    @advantage("mine")
    def mine(rewards_PG): ...

A function names in its signature what it needs beyond the first tensors; nothing else is passed.
"""

import inspect
from collections.abc import Callable


class Registry(dict):
    """Functions by the name that recipes use."""

    def __call__(self, name: str) -> Callable:
        """Decorate a function to register it as `name`. A name is given once."""
        assert name not in self, f"{name!r} is registered already, as {self[name].__module__}"

        def register(function: Callable) -> Callable:
            self[name] = function
            return function

        return register


def call(function: Callable, *tensors, **offered):
    """`function(*tensors)` with those of the offered keywords that it names.

    None stands for "as the method's paper has it": the function's own default.
    """
    wanted = inspect.signature(function).parameters
    return function(*tensors, **{k: v for k, v in offered.items() if k in wanted and v is not None})
