"""Types that all commands share."""

import pytest

from aha.cli.main import app
from aha.cli.parameters import whole


def arguments():
    """(command, argument) of every command."""
    for name in app:
        command = app[name]
        if name.startswith("-") or not command.default_command:
            continue
        for argument in command.assemble_argument_collection():
            yield name, argument


def test_no_command_rounds_a_number_that_is_to_be_whole():
    rounding = [
        f"{name} {argument.name}"
        for name, argument in arguments()
        if int in (argument.resolved_hint, *getattr(argument.resolved_hint, "__args__", ()))
        and argument.parameter.converter is not whole
    ]
    assert rounding == []


@pytest.mark.parametrize(
    "words",
    [
        ("ask", "3.5", "7", "--target", "10"),
        ("ask", "3", "7", "--target", "10.5"),
        ("problems", "--n", "2.5"),
        ("problems", "--numbers", "3", "3.5"),
        ("baseline", "--numbers", "3.5"),
        ("eval", "aha-tiny", "--group-size", "1.5"),
    ],
)
def test_a_half_is_refused(aha, words):
    done = aha(*words)
    assert done.code == 2 and "wanted a whole number" in done.err and done.out == ""
