"""Calls into C by keyword: structures and arguments are filled by name, never by position.

ctypes fills both in the order of their declaration and checks nothing: swap two pointers and C
reads the wrong memory without a word. Here a missing, unknown or doubled name is a TypeError before
C sees anything. That the names and their order are those of the C sources is a test
(tests/machine/test_c_calls.py).
"""

import ctypes
from collections.abc import Callable, Iterable, Mapping

import torch

CType = type[ctypes.c_void_p | ctypes.c_int | ctypes.c_int64 | ctypes.c_float]
Argument = torch.Tensor | int | float


def check_names(where: str, given: Iterable[str], declared: Iterable[str]) -> None:
    """Raise TypeError unless both are the same names, whatever their order."""
    missing, unknown = {*declared} - {*given}, {*given} - {*declared}
    if missing or unknown:
        raise TypeError(
            f"{where}: missing {', '.join(sorted(missing)) or 'nothing'}, "
            f"unknown {', '.join(sorted(unknown)) or 'nothing'}"
        )


class CStruct(ctypes.Structure):
    """A C structure that is made with all its fields by keyword. Pointers are addresses: the memory
    behind them has to live as long as the structure is used."""

    def __init__(self, **values: int | float) -> None:
        check_names(type(self).__name__, values, [field[0] for field in self._fields_])
        super().__init__(**values)


class CFunction:
    """A C function that returns nothing, called with all its parameters by keyword.

    `parameters` are their names and types in C's order. Tensors go as the addresses of their
    memory, so they have to be contiguous.
    """

    def __init__(self, name: str, function: Callable[..., object], parameters: Mapping[str, CType]):
        self.name, self.function, self.parameters = name, function, parameters
        function.argtypes = list(parameters.values())  # type: ignore[attr-defined]
        function.restype = None  # type: ignore[attr-defined]

    def __call__(self, **values: Argument) -> None:
        if values.keys() != self.parameters.keys():
            check_names(self.name, values, self.parameters)
        arguments = [values[name] for name in self.parameters]
        self.function(*(x.data_ptr() if isinstance(x, torch.Tensor) else x for x in arguments))
