"""The shell's completion, in a real shell."""

import os
import shutil
import subprocess
import sys

import pytest

COMPLETE = """\
source ./script
complete_line() {{ COMP_WORDS=($1); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMP_LINE=$1
    COMP_POINT=${{#1}}; _aha; echo "${{COMPREPLY[@]}}"; }}
aha() {{ {python} -m aha "$@"; }}
complete_line "aha rec"
complete_line "aha train lapt"
complete_line "aha train mi"
complete_line "aha train --optim.weight"
complete_line "aha chat runs/"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is what is tested")
def test_bash_completes_commands_options_recipes_and_runs(aha, tmp_path):
    (tmp_path / "script").write_text(aha("completion", "bash").out)
    (tmp_path / "mine.toml").write_text("")
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    (tmp_path / "runs" / "demo" / "config.json").write_text("{}")
    shell = ["bash", "--norc", "-c", COMPLETE.format(python=sys.executable)]
    done = subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True, env=os.environ)
    assert done.stdout.splitlines() == [
        "recipes",
        "laptop-3to4 laptop-8gb",
        "mine.toml",
        "--optim.weight_decay",
        "runs/demo",
    ], done.stdout + done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish", "powershell"])
def test_other_shells_get_a_script(aha, shell):
    done = aha("completion", shell)
    assert done.code == 0 and "aha" in done.out and len(done.out) > 1000
