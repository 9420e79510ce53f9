"""Errors of the disk, the memory and the system are one line; a fault of ours is not hidden."""

import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from aha.cli import main
from aha.cli.error_translation import SYSTEM, as_user_error
from aha.core.errors import AhaError, RunStopped


def raised(action) -> BaseException:
    with pytest.raises(BaseException) as error:
        action()
    return error.value


def write_to_full_disk() -> None:
    with open("/dev/full", "w") as out:
        out.write("x" * 100_000)


def use_up_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        while True:
            opened.append(open(os.devnull))
    finally:
        for file in opened:
            file.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def deep_json() -> None:
    json.loads("[" * 100_000)


def deep_loop(level: int = 0) -> None:
    deep_loop(level + 1)


REAL = {
    "full disk": (write_to_full_disk, "the disk is full"),
    "torch on a full disk": (
        lambda: torch.save({"a": torch.ones(9_000)}, "/dev/full"),
        "the disk is full",
    ),
    "descriptors": (use_up_descriptors, "too many open files"),
    "long name": (lambda: open("x" * 300), "a name that is too long"),
    "no file": (lambda: open("/no/where"), "/no/where: no such file"),
    "a folder": (lambda: open("/"), "/: a folder in the place of a file"),
    "memory": (lambda: torch.empty(1 << 50), "allocate memory"),
    "not UTF-8": (lambda: b"ab\xff".decode(), "bytes that are not utf-8: b'\\xff' at place 2"),
    "no character": (lambda: "\ud800".encode(), "a character that utf-8 cannot write: '\\ud800'"),
    "deep JSON": (deep_json, "nested too deeply"),
    "NUL": (lambda: open("a\0b"), "a name with a NUL"),
}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full and /proc")
@pytest.mark.parametrize("kind", REAL)
def test_a_real_error_of_the_system_has_got_wanted_and_fix(kind):
    action, words = REAL[kind]
    error = as_user_error(raised(action))
    assert isinstance(error, AhaError) and words in error.got
    assert error.wanted and error.fix and "\n" not in str(error)


@pytest.mark.parametrize("number", [*SYSTEM, errno.EIO, errno.ECONNREFUSED, errno.ETIMEDOUT])
def test_every_number_of_the_system_is_told_with_its_file(number):
    error = as_user_error(OSError(number, os.strerror(number), "/some/file"))
    assert error is not None and error.got.startswith("/some/file: ") and error.fix
    assert as_user_error(OSError(number, os.strerror(number))) is not None


def test_the_words_of_a_library_in_rust_are_understood():
    class SafetensorError(Exception):
        pass

    words = 'Error while serializing: I/O error: Not enough space (os error 28) at path "/x/y"'
    assert "the disk is full" in str(as_user_error(SafetensorError(words)))
    assert "/x/y" in str(as_user_error(SafetensorError(words)))


@pytest.mark.parametrize(
    "fault",
    [KeyError("x"), RuntimeError("shapes differ"), ValueError("x"), OSError(errno.EBADF, "bad")],
)
def test_a_fault_of_the_program_is_none_of_these(fault):
    assert as_user_error(fault) is None
    assert as_user_error(raised(deep_loop)) is None


@pytest.mark.parametrize("fault", [KeyError("x\x1b[31m"), RecursionError()])
def test_a_fault_of_the_program_keeps_its_traceback(aha, monkeypatch, fault):
    def app(*unused, **more):
        raise fault

    monkeypatch.setattr(main, "app", app)
    done = aha("train", "demo")
    assert done.code == 1 and "Traceback" in done.err and "in app" in done.err
    assert "please report it" in done.err and "\x1b" not in done.err


def test_exit_codes(aha, monkeypatch):
    for error, code in (
        (RunStopped("a broken grader"), 1),
        (AhaError("a wrong key"), 2),
        (OSError(errno.ENOSPC, "full", "runs/x/metrics.jsonl"), 2),
        (KeyboardInterrupt(), 130),
    ):

        def app(*unused, error=error, **more):
            raise error

        monkeypatch.setattr(main, "app", app)
        done = aha("train", "demo")
        assert done.code == code and done.err.startswith("aha: ") and done.err.count("\n") == 1


def test_a_pipe_that_is_not_the_output_is_told(aha, monkeypatch):
    def app(*unused, **more):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(main, "app", app)
    done = aha("train", "demo")
    assert done.code == 2 and "Broken pipe" in done.err


SMALL = ("train", "demo", "--steps", "0", "--eval.final", "0", "--eval.every", "0")


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "runs").write_text("")
    for action in (
        lambda: (tmp_path / "runs" / "x").mkdir(parents=True),
        lambda: (tmp_path / "runs" / "x" / "y").mkdir(parents=True),
        lambda: open(tmp_path / "runs" / "x", "w"),
    ):
        error = as_user_error(raised(action))
        assert error.got == f"{tmp_path / 'runs'}: a file in the place of a folder"


def test_runs_that_is_a_file_is_told_as_such(aha, model, tmp_path):
    (tmp_path / "runs").write_text("")
    words = (*SMALL, "--model.path", model, "--rollout.max_new_tokens", "20", "--name", "x")
    done = aha(*words)
    assert done.code == 2 and "runs is a file; wanted a folder" in done.err
    assert done.err.count("\n") == 1


def test_a_terminal_without_the_characters_gets_escapes(tmp_path):
    words = [sys.executable, "-m", "aha", "plan", "demo", "--help"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "0"}
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, env=environment)
    assert done.returncode == 0 and b"Traceback" not in done.stderr and b"Usage" in done.stdout
