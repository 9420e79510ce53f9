"""Fixes of other rooms as they work here: in this shell, with the command that was typed.

Other rooms name the keys of a recipe. A command without recipe keys may have an option for the
same thing:

    --rollout.max_new_tokens 40     --max-new-tokens 40
    --task.template r1              --options 'template = "r1"'
"""

import json
import re
import shlex
import sys
from collections.abc import Collection

from aha.cli.own_command import as_typed_here
from aha.core.config import TASK_SETTINGS, known_keys
from aha.core.errors import AhaError

SECTIONS = "|".join(sorted({key.split(".")[0] for key in known_keys() if "." in key}))
# In training such a key is what it is.
OPTION = re.compile(
    rf"(?<![\w-])(?<!in training )--((?:{SECTIONS})\.[\w.]*\w)"
    r"(?: ('[^']*'|\[[^\]]*\]|[^\s,;:()`'\[]+))?"
)
LITERAL = re.compile(r"-?[\d.]+(?:e-?\d+)?|\[.*\]|true|false")
# Listed, because the last word of a key says too little: `--name` of a command names a run, and no
# task; `--lr` is no critic's, and the folder of `aha behaviors` no model.
SAME = {
    "model.path": "--model",
    "model.device": "--device",
    "task.name": "--task",
    "task.numbers": "--numbers",
    "task.data": "--task-data",
    "rollout.group_size": "--group-size",
    "rollout.max_new_tokens": "--max-new-tokens",
    "rollout.temperature": "--temperature",
    "optim.lr": "--lr",
    "eval.seed": "--seed",
}


def fix_here(fix: str) -> str:
    """A fix that works when it is pasted."""
    return as_typed_here(in_own_options(fix, typed_options()))


def message_here(error: AhaError) -> str:
    """The message of an error, with a fix that works when it is pasted."""
    return str(AhaError(error.got, error.wanted, fix_here(error.fix)))


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


def own_option(option: re.Match[str], names: Collection[str]) -> str:
    """One option of a text."""
    key, value = option[1], option[2]
    own, setting = option_for(key, names)
    if setting and value is not None:
        return f"{own} '{setting} = {as_toml(value)}'"
    if setting or not own:
        return option[0]
    return own if value is None else f"{own} {bare(value)}"


def own_spelling(key: str, value: object, names: Collection[str]) -> str:
    """How a key of a recipe, with the value that was typed after it, is typed where `names` are the
    options; empty where it cannot be. `value` None: there was none."""
    own, setting = option_for(key, names)
    if isinstance(value, dict) or (setting and value is None):
        return ""
    if setting:
        return shlex.join([own, f"{setting} = {as_json(value)}"])
    items = value if isinstance(value, list) else [] if value is None else [value]
    words = [item if isinstance(item, str) else as_json(item) for item in items]
    return shlex.join([own, *words]) if own else ""


def option_for(key: str, names: Collection[str]) -> tuple[str, str]:
    """(the option that says the same as a key, the setting in it where it takes several); two empty
    texts where there is none, or where the key itself is an option."""
    section, _, name = key.partition(".")
    if f"--{key}" in names:
        return "", ""
    if SAME.get(key) in names:
        return SAME[key], ""
    if section == "task" and "--options" in names:
        setting = name.removeprefix("options.")
        if setting != name or name in TASK_SETTINGS:
            return "--options", setting
    return "", ""


def bare(value: str) -> str:
    """A value of a recipe as a command has it: the items of a list one after the other."""
    inner = value.strip("'")
    return inner.strip("[]").replace(",", "") if inner.startswith("[") else value


def as_json(value: object) -> str:
    """A value as JSON, which TOML reads as well: a text, a number, true, false, a list of these."""
    return json.dumps(value, ensure_ascii=False, default=str)


def as_toml(value: str) -> str:
    """The value of an option as TOML; one in quotation marks of the shell is TOML within them."""
    if value.startswith("'"):
        return value[1:-1]
    return value if LITERAL.fullmatch(value) else f'"{value}"'
