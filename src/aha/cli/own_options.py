"""Fixes of other rooms as they work here: in this shell, with the command that was typed.

Other rooms name the keys of a recipe. A command without recipe keys may have an option for the
same thing:

    --rollout.max_new_tokens 40     --max-new-tokens 40
    --task.template r1              --options 'template = "r1"'
"""

import json
import re
import sys
from collections.abc import Collection

from aha.cli.own_command import as_typed_here
from aha.core.config import known_keys

SECTIONS = "|".join(sorted({key.split(".")[0] for key in known_keys() if "." in key}))
OPTION = re.compile(
    rf"(?<![\w-])--((?:{SECTIONS})\.[\w.]*\w)(?: ('[^']*'|\[[^\]]*\]|[^\s,;:()`'\[]+))?"
)
LITERAL = re.compile(r"-?[\d.]+(?:e-?\d+)?|\[.*\]|true|false")
PLAIN = re.compile(r"[\w.+-]+")  # what a shell and TOML's reader here take as it stands
TASK = "task."  # a key whose setting `--options` takes, in a command that has it


def fix_here(fix: str) -> str:
    """A fix that works when it is pasted."""
    return as_typed_here(in_own_options(fix, typed_options()))


def typed_options() -> set[str]:
    """The options of the command that was typed; none where that is no command."""
    from aha.cli.main import app  # imports this module

    try:
        command = app.parse_commands(sys.argv[1:])[1][-1]
        if not command.default_command:
            return set()
        return {name for one in command.assemble_argument_collection() for name in one.names}
    except Exception:  # the fault that is being told may be one of the command itself
        return set()


def in_own_options(text: str, names: Collection[str]) -> str:
    """The text with the options `names` in place of recipe keys; a key without one stays."""
    return OPTION.sub(lambda option: own_option(option, names), text)


def own_spelling(key: str, value: object, names: Collection[str]) -> str:
    """How a key of a recipe is typed where `names` are the options; empty where it cannot be."""
    text = (
        value
        if isinstance(value, str) and PLAIN.fullmatch(value)
        else json.dumps(value, default=str)
    )
    quoted = text if PLAIN.fullmatch(text) else f"'{text}'"
    typed = f"--{key}" if value is None else f"--{key} {quoted}"
    own = in_own_options(typed, names)
    return own if own != typed else ""


def own_option(option: re.Match[str], names: Collection[str]) -> str:
    """One option. A value in capitals is for the user to fill in, and is about a recipe."""
    key, value = option[1], option[2]
    short = f"--{key.rpartition('.')[2].replace('_', '-')}"
    if f"--{key}" in names or (value or "").isupper():
        return option[0]
    if short in names:
        return short if value is None else f"{short} {bare(value)}"
    if key.startswith(TASK) and "--options" in names and value is not None:
        setting = key.removeprefix(TASK).removeprefix("options.")
        return f"--options '{setting} = {as_toml(value)}'"
    return option[0]


def bare(value: str) -> str:
    """A value of a recipe as a command has it: the items of a list one after the other."""
    inner = value.strip("'")
    return inner.strip("[]").replace(",", "") if inner.startswith("[") else value


def as_toml(value: str) -> str:
    """The value of an option as TOML; one in quotation marks of the shell is TOML within them."""
    if value.startswith("'"):
        return value[1:-1]
    return value if LITERAL.fullmatch(value) else f'"{value}"'
