"""One file made of our own definitions: what it takes with it, and what it refuses."""

import ast

import pytest

from aha.export import own_source
from aha.export.own_source import needed, own_module, standing_alone

BELOW = '''
"""A module below."""
import math as maths
from fractions import Fraction

LIMIT = 3  # a comment beside it
TABLE = {"a": 1}
TABLE |= {"b": 2}
WORDS = set()
WORDS.add("x")
UNUSED = 7


# Why it is so:
# two lines of it.
def halved(number: int) -> Fraction:
    """Half of it."""
    return Fraction(number, 2) if number < LIMIT else Fraction(maths.floor(number), 2)
'''
ABOVE = """
from aha.below import TABLE, WORDS, halved
from aha.other import LIMIT as OTHER_LIMIT

def both() -> object:
    return halved(TABLE["b"]), WORDS
"""


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Modules of a small package called aha, in place of the real one."""

    def make(**texts):
        for name, text in texts.items():
            (tmp_path / f"{name}.py").write_text(text)
        origins = {f"aha.{name}": tmp_path / f"{name}.py" for name in texts}

        class Spec:
            def __init__(self, name):
                self.origin = str(origins[name])

        monkeypatch.setattr(own_source, "find_spec", Spec)
        own_module.cache_clear()

    yield make
    own_module.cache_clear()


def test_what_a_function_needs_comes_with_it_word_by_word(modules):
    modules(below=BELOW, above=ABOVE.replace("from aha.other import LIMIT as OTHER_LIMIT\n", ""))
    text = standing_alone([("aha.above", "both")])
    assert "UNUSED" not in text and "from aha" not in text
    assert "# Why it is so:\n# two lines of it.\ndef halved" in text
    assert "LIMIT = 3  # a comment beside it" in text
    assert text.index("TABLE = ") < text.index("TABLE |= ") < text.index("def both")
    namespace = {}
    exec(compile(text, "alone", "exec"), namespace)
    assert namespace["both"]() == (1, {"x"})


def test_a_name_that_an_import_changes_is_refused(modules):
    modules(below=BELOW, above=ABOVE, other="LIMIT = 9\n")
    with pytest.raises(AssertionError, match="renames LIMIT"):
        standing_alone([("aha.above", "both")])


def test_one_name_of_two_modules_is_refused(modules):
    above = "from aha.below import halved\nLIMIT = 1\ndef both(): return halved(LIMIT)\n"
    modules(below=BELOW, above=above)
    with pytest.raises(AssertionError, match=r"LIMIT of aha\.above and of aha\.below"):
        standing_alone([("aha.above", "both")])


def test_an_import_of_ours_within_a_function_is_refused(modules):
    modules(above="def both():\n    from aha.below import halved\n    return halved(1)\n")
    with pytest.raises(AssertionError, match="imports within a function"):
        needed([("aha.above", "both")])


def test_our_own_modules_are_read_as_python_reads_them():
    own_module.cache_clear()
    source = own_module("aha.tasks.tags")
    ast.parse("\n".join(source.text_of(s) for s in source.statements["grade_answer"]))
    assert source.ours["Graded"] == ("aha.core.records", "Graded")
