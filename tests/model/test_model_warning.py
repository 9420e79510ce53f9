"""What is told about a model: once, in one line, with nothing in it that moves a terminal."""

import warnings

import pytest

from aha.core.findings import warn
from aha.model.model_warning import ModelWarning, show_as_notes, warn_of


def test_a_note_is_one_line_and_comes_once(monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    show_as_notes()
    text = "a name\x1b[31m with\na line; fix: delete it"
    shown = [warnings.formatwarning(text, ModelWarning, "file", 1) for _ in range(3)]
    assert shown == ["note: a name\\x1b[31m with\\na line; fix: delete it\n", "", ""]
    assert "file:1: UserWarning: other" in warnings.formatwarning("other", UserWarning, "file", 1)


def test_a_finding_without_a_fix_is_its_message():
    with pytest.warns(ModelWarning, match=r"^so it is$"):
        warn_of(warn("so it is", ""))
