"""C on the user's machine: built once, whole or not at all, and never an error."""

import pytest

from aha.machine import c_build
from aha.machine.c_build import NotCompiled, code_or_reason, load_code
from aha.model import fused

from ..tiny import needs_compiler


@pytest.fixture(autouse=True)
def fresh():
    """`load_code` remembers what it has loaded; another test may have another cache."""
    code_or_reason.cache_clear()
    yield
    code_or_reason.cache_clear()


def test_without_a_compiler_the_reason_is_told(monkeypatch):
    monkeypatch.setattr(c_build, "COMPILERS", ("no-such-compiler",))
    with pytest.raises(NotCompiled, match="no C compiler"):
        load_code(fused.SOURCES[0], False)


def test_a_compiler_that_fails_is_told_in_its_own_words(monkeypatch, tmp_path):
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\n[ $1 = --version ] || { echo out of luck >&2; exit 1; }\n")
    broken.chmod(0o755)
    monkeypatch.setenv("AHA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(c_build, "COMPILERS", (str(broken),))
    with pytest.raises(NotCompiled, match="out of luck"):
        load_code(fused.SOURCES[0], False)
    assert not list((tmp_path / "cache").iterdir()), "half a build is left behind"


def test_a_compiler_that_fails_is_asked_once(monkeypatch, tmp_path):
    """A run loads the code at each new version of its weights."""
    broken, asked = tmp_path / "cc", tmp_path / "asked"
    broken.write_text(f"#!/bin/sh\necho x >> '{asked}'\n[ $1 = --version ] || exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("AHA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(c_build, "COMPILERS", (str(broken),))
    calls = []
    for _ in range(3):
        with pytest.raises(NotCompiled, match="no reason given"):
            load_code(fused.SOURCES[0], False)
        calls.append(asked.read_text().count("x"))
    assert calls == [calls[0]] * 3 and calls[0] > 1


def test_a_cache_that_cannot_be_written_is_a_reason(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AHA_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(NotCompiled, match="cannot write"):
        load_code(fused.SOURCES[0], False)


def test_it_can_be_turned_off(monkeypatch):
    monkeypatch.setenv("AHA_C", "0")
    with pytest.raises(NotCompiled, match="AHA_C=0"):
        load_code(fused.SOURCES[0], False)


@needs_compiler
def test_it_is_built_once(monkeypatch, tmp_path):
    monkeypatch.setenv("AHA_CACHE", str(tmp_path))
    load_code(fused.SOURCES[0], False)
    (built,) = tmp_path.iterdir()
    before = built.stat().st_mtime_ns
    code_or_reason.cache_clear()
    load_code(fused.SOURCES[0], False)
    assert built.stat().st_mtime_ns == before and list(tmp_path.iterdir()) == [built]


@needs_compiler
def test_another_source_is_another_build(monkeypatch, tmp_path):
    """An edited header must not be served the old code."""
    monkeypatch.setenv("AHA_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "one.c"
    source.write_text('#include "part.h"\nint aha_number(void) { return NUMBER; }\n')
    for number in (3, 4):
        (tmp_path / "part.h").write_text(f"enum {{ NUMBER = {number} }};\n")
        code_or_reason.cache_clear()
        assert load_code(source, False).aha_number() == number
