"""Printed commands work when they are pasted, wherever the program lies."""

import shlex
import sys
from pathlib import Path

import pytest

from aha.cli.first_steps import next_commands
from aha.cli.own_command import as_typed_here, own_command
from aha.core.errors import RunError
from aha.store.run_folder import check_new, resume_command


@pytest.fixture
def program(tmp_path, monkeypatch) -> Path:
    """A program at .venv/bin/aha, as make puts it, which is on no PATH."""
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("aha", "python"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(sys, "argv", [str(folder / "aha"), "demo"])
    return folder / "aha"


def test_a_program_that_is_on_no_path_is_named_by_its_own(program, tmp_path, monkeypatch):
    assert own_command() == ".venv/bin/aha"
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin")
    assert own_command() == "aha"
    monkeypatch.setenv("PATH", "/usr/bin")
    (tmp_path / "else where").mkdir()
    monkeypatch.chdir(tmp_path / "else where")
    assert own_command() == str(program)


def test_another_aha_on_the_path_is_not_this_one(program, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    (other / "aha").write_text("#!/bin/sh\n")
    (other / "aha").chmod(0o755)
    monkeypatch.setenv("PATH", str(other))
    assert own_command() == ".venv/bin/aha"


def test_python_dash_m_stays_that(program, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/x/aha/__main__.py", "demo"])
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
    assert own_command() == ".venv/bin/python -m aha"


def test_a_path_with_a_space_is_quoted(program, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "my tools" / "aha")])
    assert own_command() == "'my tools/aha'"


def test_a_line_of_another_room_gets_the_command_that_works(program):
    text = "stopped; go on with: aha train --resume runs/aha"
    assert as_typed_here(text) == "stopped; go on with: .venv/bin/aha train --resume runs/aha"


def test_the_path_of_a_run_is_one_word_of_the_shell(program, tmp_path, monkeypatch):
    """A run may be called "a b"."""
    here = ".venv/bin/aha train --resume 'runs/a b'"
    said = as_typed_here(f"stopped; go on with: {resume_command(Path('runs/a b'))}")
    assert said.endswith(here) and as_typed_here(said) == said
    run = tmp_path / "runs" / "a b"
    run.mkdir(parents=True)
    (run / "config.json").write_text("{}")
    assert next_commands(Path("runs/a b")) == [here]
    with pytest.raises(RunError) as error:
        check_new(Path("runs/a b"))
    typed = error.value.fix.partition("`")[2].partition("`")[0]
    assert shlex.split(typed)[-1] == "runs/a b" and "--name 'a b-2'" in error.value.fix
    (run / "summary.json").write_text("{}")
    assert shlex.split(next_commands(Path("runs/a b"))[0])[2:] == ["runs/a b"]


def test_every_command_in_a_text_works_here(program):
    text = "`aha plan RECIPE`, or aha ask 3 7; torchrun -m aha train demo; aha does not take it"
    here = "`.venv/bin/aha plan RECIPE`, or .venv/bin/aha ask 3 7; torchrun -m aha train demo; "
    assert as_typed_here(text) == f"{here}aha does not take it"
    assert as_typed_here(".venv/bin/aha chat") == ".venv/bin/aha chat"


def test_pip_is_that_of_the_python_that_runs_this_program(program, monkeypatch):
    """A `pip` of the system would refuse, or install into a Python that has no Aha."""
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
    text = "pip install 'aha[hf]', or python -m zipfile -e a.whl"
    own = ".venv/bin/python -m pip install 'aha[hf]', or .venv/bin/python -m zipfile -e a.whl"
    assert as_typed_here(text) == own
    assert as_typed_here(own) == own
    pip = program.with_name("pip")
    pip.write_text("#!/bin/sh\n")
    pip.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    assert as_typed_here(text) == text
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr("aha.cli.own_command.find_spec", lambda name: None)
    uv = "uv pip install --python .venv/bin/python 'aha[hf]'"
    assert as_typed_here("pip install 'aha[hf]'") == uv and as_typed_here(uv) == uv
