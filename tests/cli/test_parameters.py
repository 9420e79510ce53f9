"""Types that all commands share, and the help of their parameters."""

import inspect
from collections.abc import Iterator

import pytest
from cyclopts import App
from docstring_parser import parse

from aha.cli.main import app
from aha.cli.parameters import TASKS, whole
from aha.core.config import TaskSection
from aha.tasks.catalog import PACKAGED


def commands(parent: App = app) -> Iterator[App]:
    """Every command, those of groups too."""
    for name in parent:
        if not name.startswith("-"):
            command = parent[name]
            yield from [command] if command.default_command else commands(command)


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


def test_what_a_docstring_says_of_a_parameter_is_its_help():
    """A type with a help of its own would win, and the docstring's words be lost."""
    lost, read = [], 0
    for command in commands():
        text = inspect.getdoc(command.default_command)
        arguments = command.assemble_argument_collection(parse_docstring=True)
        helps = {one.field_info.name: one.parameter.help for one in arguments}
        for said in parse(text).params:
            read += 1
            if " ".join(said.description.split()) != " ".join(helps[said.arg_name].split()):
                lost.append(f"{command.name[0]} {said.arg_name}: {said.description}")
    assert read > 30 and lost == []


def test_the_first_line_of_a_commands_docstring_is_a_whole_sentence():
    """Lists of commands show it alone."""
    firsts = [inspect.getdoc(one.default_command).splitlines()[0] for one in commands()]
    assert len(firsts) > 30 and [line for line in firsts if not line.endswith(".")] == []


@pytest.mark.parametrize("text", [TASKS, TaskSection.model_fields["name"].description])
def test_the_help_names_every_packaged_task(text):
    assert [name for name in PACKAGED if name not in text.replace(",", "").split()] == []


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
