"""torch, imported at its first use; `lazy import torch` will say so from Python 3.15 on (PEP 810).

The registries hold facts, which `aha plan`, `--help` and the check of a recipe need, and functions,
which those never call. torch takes a second or two to import: they go without it.

    from aha.algo.lazy_torch import torch
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["torch"]

if TYPE_CHECKING:
    import torch
else:

    class LazyModule:
        """A module that is imported when an attribute of it is first read."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, attribute: str) -> Any:
            if attribute == "_name":  # of a copy that is not filled yet: it would ask for ever
                raise AttributeError(attribute)
            value = getattr(import_module(self._name), attribute)
            setattr(self, attribute, value)  # so that this method is not called for it again
            return value

    torch = LazyModule("torch")
