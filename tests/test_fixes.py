"""What messages tell a user to type exists: every option and every command that a text names.

Read from the texts of the package itself, so that a new message is held as well.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from aha.algo.recipe import check_names
from aha.cli.main import app, config_app, study_app
from aha.cli.recipe_keys import toml_value
from aha.core.config import known_keys, validated
from aha.core.errors import ConfigError
from aha.core.recipe_layers import layered

ROOT = Path(__file__).resolve().parent.parent
AHA = ROOT / "src" / "aha"
# Of other programs, whose names come before them in the text.
TOOLS = "pip|git|apt|xcode-select|npm|hf|docker|uv|wandb|tensorboard|trackio"
OTHERS = re.compile(rf"\b(?:{TOOLS}) [^;,]*")
OPTION = re.compile(r"(?<![\w`-])`?(--[A-Za-z][\w.-]*\w)(?:[ =]('[^']*'|[^\s`,;)]+))?")
COMMAND = re.compile(r"(?:^|`|: |, |or |then |\n *)aha ([a-z][a-z-]+)((?: [^`,;]*)?)")
UNCHECKED = {
    "--section.key",
    "--help",
    "--version",
    "--porcelain",
    # Of git, and of WSL.
    "--binary",
    "--others",
    "--exclude-standard",
    "--no-index",
    "--install",
    # Of torchrun, Ray, llama.cpp and veRL.
    "--nnodes",
    "--nproc-per-node",
    "--rdzv-id",
    "--rdzv-endpoint",
    "--master-addr",
    "--standalone",
    "--head",
    "--address",
    "--temp",
    "--top-k",
    "--top-p",
    "--backend",
    "--target_dir",
    "--local_dir",
}
OWN_MODULE = {"new_task": "new-task", "show_config": "config", "run_in_terminal": "train"}
WITH_TASK = ("train", "doctor", "eval", "problems", "grade", "ask")
LOADING = {"tasks/files.py", "tasks/bad_rows.py", "tasks/file_splits.py", "tasks/question_rows.py"}
LOADING |= {"tasks/puzzle_rows.py", "tasks/math_files.py", "tasks/countdown.py"}


@cache
def options() -> dict[str, set[str]]:
    """The options of every command."""
    names = {name: [app[name]] for name in app if not name.startswith("-")}
    names |= {
        group: [one[name] for name in one if not name.startswith("-")]
        for group, one in (("config", config_app), ("study", study_app))
    }
    return {
        name: {
            option
            for command in commands
            for argument in command.assemble_argument_collection()
            for option in argument.names
        }
        for name, commands in names.items()
    }


@cache
def needs_a_word() -> set[str]:
    """The commands that do nothing without a first word, as `aha eval MODEL`."""
    return {
        name
        for name in app
        if not name.startswith("-")
        and (command := app[name]).default_command
        and any(one.required and one.index == 0 for one in command.assemble_argument_collection())
    }


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of every string of a module that is no docstring; what is filled in is VALUE."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    inner = {id(p) for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) for p in n.values}
    for node in ast.walk(tree):
        if id(node) in docstrings | inner:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
        elif isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(map(filled_in, node.values))


def filled_in(part: ast.expr) -> str:
    """A part of an f-string as `texts` writes it; the user's own way to call the command is aha."""
    if isinstance(part, ast.Constant):
        return str(part.value)
    assert isinstance(part, ast.FormattedValue)
    return "aha" if ast.unparse(part.value) in ("own_command()", "typed") else "VALUE"


def faults_in(text: str, own: str | None = None, everywhere: bool = False) -> list[str]:
    """What a text names that does not exist. `own`: the command whose module it is from;
    `everywhere`: options of tasks have to exist in each command that opens a task."""
    text = OTHERS.sub("", text)
    faults = []
    for command, rest in COMMAND.findall(text):
        if command in options():
            named = [option for option, _ in OPTION.findall(rest)]
            faults += [f"aha {command} {o}" for o in named if not is_option(o, {command})]
            if command in needs_a_word() and rest.strip().startswith("--"):
                faults.append(f"aha {command} without its first word")
        elif f"`aha {command}" in text:  # "aha does not take ..." is no command
            faults.append(f"aha {command}")
    for option, value in OPTION.findall(COMMAND.sub("", text)):
        commands = {own} if own in options() else set(options())
        if option in UNCHECKED or option.startswith("--task.options."):
            continue
        if "VALUE" not in option and not is_option(option, commands):
            faults.append(option)
        if everywhere and option.startswith("--task."):
            faults += [f"aha {c} {option}" for c in WITH_TASK if not is_option(option, {c})]
        faults += refused_value(option.removeprefix("--"), value.strip("'\""))
    return faults


def is_option(option: str, commands: set[str]) -> bool:
    return any({option, option.replace("_", "-")} & options()[command] for command in commands)


def refused_value(key: str, value: str) -> list[str]:
    """A value of a recipe key that a recipe would refuse for itself; words in capitals are for the
    user to fill in."""
    if key not in known_keys() or not value or value.isupper() or "VALUE" in value:
        return []
    try:
        check_names(validated(layered(None, {key: toml_value(value)})))
    except ConfigError as error:
        return [f"--{key} {value}: {error.got}"] if key in error.got else []
    return []


def modules() -> list[Path]:
    return sorted(AHA.rglob("*.py"))


@pytest.mark.parametrize("room", sorted({path.parent.name for path in modules()}))
def test_what_a_message_names_exists(room):
    faults = []
    for path in modules():
        if path.parent.name != room:
            continue
        name = path.relative_to(AHA).as_posix()
        own = OWN_MODULE.get(path.stem, path.stem) if room == "cli" else None
        for line, text in texts(path):
            faults += [f"{name}:{line}: {f}" for f in faults_in(text, own, name in LOADING)]
    assert not faults, "\n  ".join(["no such option, command or value:", *faults])


# By its name alone, or told to install it again, pip would take what an index has under that name.
FROM_INDEX = re.compile(r"pip install (?:--[\w-]+ )*'?aha(?![\w\[-])|pip install --[^,;]*'aha\[")


def test_no_message_installs_aha_from_an_index():
    assert FROM_INDEX.search("pip install aha") and not FROM_INDEX.search("pip install 'aha[hf]'")
    assert FROM_INDEX.search("pip install --force-reinstall 'aha[wandb]', or --log none")
    faults = [
        f"{path.relative_to(AHA)}:{line}: {text}"
        for path in modules()
        for line, text in texts(path)
        if FROM_INDEX.search(text)
    ]
    assert not faults, "\n  ".join(["Aha is on no index:", *faults])


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("--optim.lr 3e-4, or --steps 60", []),
        ("`aha doctor RECIPE` looks at it", []),
        ("pip install --upgrade torch", []),
        ("aha train --resume VALUE", []),
        ("--algo.kl_typo 3", ["--algo.kl_typo"]),
        ("`aha docter RECIPE`", ["aha docter"]),
        ("aha eval x --budget 2h", ["aha eval --budget"]),
        ("`aha eval --split all`", ["aha eval without its first word"]),
        ("`aha eval MODEL --split all`", []),
        ("--optim.lr fast", ["--optim.lr fast: optim.lr = 'fast'"]),
        ("--algo.loss nothing", ["--algo.loss nothing: algo.loss = 'nothing'"]),
    ],
)
def test_a_text_that_names_what_is_not_there_is_seen(text, faults):
    assert faults_in(text) == faults
