"""How this program is called in the user's shell, so that a printed command works when it is
pasted.

`make` puts it at .venv/bin/aha, which is on no PATH: a message that says `aha chat` would then end
in "command not found".
"""

import os
import shlex
import shutil
import sys
from pathlib import Path

# After these words a text of another room has a command to paste.
BEFORE_COMMANDS = ("go on with: ",)


def own_command() -> str:
    """`aha` where the shell finds this program under that name, else the path that was typed, or
    `python -m aha`."""
    typed = Path(sys.argv[0])
    if typed.name == "__main__.py" and typed.parent.name == "aha":
        return f"{shlex.quote(shortest(Path(sys.executable), 'python'))} -m aha"
    if os.sep not in sys.argv[0] or typed.stem != "aha":  # a script that uses the package
        return "aha"
    return shlex.quote(shortest(typed, "aha"))


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
    """A text of another room, with the commands in it as they are typed here."""
    for words in BEFORE_COMMANDS:
        text = text.replace(f"{words}aha ", f"{words}{own_command()} ")
    return text
