"""Errors in the words of a Python call: rooms below name options of the command line in their
fixes, and here an option is an argument.

    --optim.lr 3e-4               optim={'lr': 3e-4}
    --task.data FILE              data=FILE
    aha train --resume runs/a     aha.train(resume='runs/a', ...)
"""

import functools
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from aha.core.errors import AhaError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

RESUME = re.compile(r"aha train --resume ('[^']*'|[^\s;,`]+)((?: --accept-changes)?)")
OPTION = re.compile(r"(?<![\w-])--([a-z][\w.-]*\w|n)(?:[ =]('[^']*'|\[[^\]]*\]|[^\s,;:()`]+))?")
SPLIT = re.compile(r"`aha eval MODEL --split (\w+)`")
LITERAL = re.compile(r"-?[\d.]+(?:e-?\d+)?|\[.*\]|'.*'|[A-Z_]+")
# Arguments of their own, whose keys are in a section of the recipe.
OWN = {
    "task.data": "data",
    "task.test_data": "test_data",
    "data": "data",
    "task.name": "task",
    "model.path": "model",
}


def in_python(text: str) -> str:
    """The text with arguments in place of options."""
    text = RESUME.sub(resumed, text)
    text = SPLIT.sub(r"aha.evaluate(..., split='\1')", text)
    return OPTION.sub(argument_of, text)


def resumed(command: re.Match[str]) -> str:
    """`aha train --resume RUN` as a call; a path in quotation marks of the shell without them."""
    path, accept = command[1].strip("'"), "accept_changes=True, " if command[2] else ""
    return f"aha.train(resume={path!r}, {accept}...)"


def argument_of(option: re.Match[str]) -> str:
    """One option as an argument."""
    key, text = option[1], option[2]
    value = "True" if text is None else text if LITERAL.fullmatch(text) else repr(text)
    # 'none' stays a text: that of a choice, and for a key that may be left out the same as None.
    value = {"'true'": "True", "'false'": "False"}.get(value, value)
    section, _, inner = key.partition(".")
    if key in OWN or not inner:
        return f"{OWN.get(key, key.replace('-', '_'))}={value}"
    return f"{section}={{{inner!r}: {value}}}"


def errors_in_python(call: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The call, whose errors say what to change in a Python program."""

    @functools.wraps(call)
    def called(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return call(*args, **kwargs)
        except AhaError as error:
            # The same error: its type and what a subclass adds stay.
            AhaError.__init__(error, *map(in_python, (error.got, error.wanted, error.fix)))
            raise

    return called
