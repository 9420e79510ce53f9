"""How this program is called in the user's shell, so that a printed command works when it is
pasted.

`make` puts it at .venv/bin/aha, which is on no PATH: a message that says `aha chat` would then end
in "command not found", and one that says `pip install` would install into another Python.
"""

import os
import re
import shlex
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

# Not behind -m, as in `torchrun ... -m aha train`, nor as the end of a path.
COMMAND = re.compile(r"(?<![\w./-])(?<!-m )aha (?=([a-z][a-z-]*))")
PIP = re.compile(r"(?<![\w./-])(?<!-m )(?<!uv )pip (install|uninstall|download)(?= )")
PYTHON = re.compile(r"(?<![\w./-])python (?=-m )")


def own_command() -> str:
    """`aha` where the shell finds this program under that name, else the path that was typed, or
    `python -m aha`."""
    typed = Path(sys.argv[0])
    if typed.name == "__main__.py" and typed.parent.name == "aha":
        return f"{own_python()} -m aha"
    if os.sep not in sys.argv[0] or typed.stem != "aha":  # a script that uses the package
        return "aha"
    return shlex.quote(shortest(typed, "aha"))


def own_python() -> str:
    """The Python that runs this program, as it is called in the user's shell."""
    return shlex.quote(shortest(Path(sys.executable), "python"))


def shortest(program: Path, name: str) -> str:
    """`name` if the shell finds the program so, else its path, from this folder if it is below."""
    on_path = shutil.which(name)
    if on_path and Path(on_path).absolute() == program.absolute():
        return name
    try:
        return str(program.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(program.absolute())


def as_typed_here(text: str) -> str:
    """A text of another room, with the commands in it as they are typed here: those of this
    program, of Python and of pip. "aha does not" names no command, and stays."""
    from aha.cli.main import COMMAND_NAMES  # imports this module

    typed = own_command()
    text = COMMAND.sub(lambda match: f"{typed} " if match[1] in COMMAND_NAMES else match[0], text)
    text = PYTHON.sub(lambda match: f"{own_python()} ", text)
    return PIP.sub(lambda match: pip_here(match[1]), text)


def pip_here(verb: str) -> str:
    """`pip install`, or another verb, for the Python that runs this program: by the pip beside it,
    else by its own, else by uv, which makes environments without pip and only installs."""
    beside = shutil.which("pip")
    if beside and Path(beside).parent == Path(sys.executable).parent:
        return f"pip {verb}"
    if find_spec("pip"):
        return f"{own_python()} -m pip {verb}"
    return "pip download" if verb == "download" else f"uv pip {verb} --python {own_python()}"
