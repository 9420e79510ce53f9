"""The command line inside this process, for the tests of this room."""

import io
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from aha.cli.main import run

from ..tiny import tiny_folder


@dataclass
class Done:
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def aha(tmp_path, monkeypatch, capsys):
    """Runs a command inside this process, in an empty folder; the doctor's looks are short."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("aha.doctor.problem_checks.SECONDS", 0.2)

    def call(*words: object, stdin: bytes = b"") -> Done:
        monkeypatch.setattr(sys, "argv", ["aha", *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = 0
        try:
            run()
        except SystemExit as exit:
            code = exit.code or 0
        return Done(code, *capsys.readouterr())

    return call
