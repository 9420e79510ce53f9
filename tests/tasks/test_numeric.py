"""Numbers as people and models write them, and what is not clearly one number."""

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aha.tasks.numeric import after_hashes, last_boxed, plain, read_number

SAME = {
    Fraction(42): [
        "42",
        " 42 ",
        "42.",
        "42.0",
        "+42",
        "042",
        "$42$",
        "\\$42",
        "$42",
        "42%",
        "42\\%",
    ],
    Fraction(-1234): ["-1234", "-1,234", "\u22121234", "- 1234", "-1{,}234", "-\\$1,234"],
    Fraction(1, 2): ["1/2", ".5", "0.50", "\\frac{1}{2}", "\\dfrac12", "\\tfrac{2}{4}", "3/6"],
    Fraction(-1, 2): ["-\\frac{1}{2}", "\\frac{-1}{2}", "-.5", "-1/2"],
    Fraction(5, 2): ["2 1/2", "2\\frac{1}{2}", "2.5", "x=2.5", "x = \\frac{5}{2}", "(5/2)"],
    Fraction(-5, 2): ["-2\\frac12", "-2 1/2"],
    Fraction(7): [
        "7 apples",
        "7\\text{ cm}",
        "7\\ \\text{cm}",
        "7 cm^2",
        "7cm",
        "7 km/h",
        "7^\\circ",
    ]
    + ["7\\,\\mathrm{kg}", "7 square feet", "{7}", "\\left(7\\right)", "7 hours.", "7°", "€7"],
    Fraction(1_000_000): ["1,000,000", "1000000", "1{,}000{,}000"],
}


@pytest.mark.parametrize(("value", "text"), [(v, t) for v, texts in SAME.items() for t in texts])
def test_one_number_many_writings(value, text):
    assert read_number(text) == value


NONE = ["", " ", ".", "-", "abc", "5x", "5 x", "x", "3 or 4", "3 and 4", "1,5", "1,00", "12,34,567"]
NONE += ["2 million", "2 dozen", "2\\pi", "2 pi", "\\sqrt{2}", "3\\sqrt{2}", "1/0", "\\frac{1}{0}"]
NONE += ["1/2/3", "5-3", "5 - 3", "(1,2)", "[1, 2]", "3:4", "12:30 pm", "1e5", "10^5", "x^2", "5i"]
NONE += ["٣", "½", "²", "0.5.3", "--5", "1 2", "9" * 300, "5!", "5?", "1/x", "nan", "inf", "\\frac"]
NONE += ["3x=5", "= 5 = 6", "5 = 6", "5\n6", "\\boxed{5}", "\0", "\ud800"]


@pytest.mark.parametrize("text", NONE)
def test_what_is_not_clearly_one_number_is_none(text):
    assert read_number(text) is None


@given(st.fractions(max_denominator=10**6))
def test_every_fraction_comes_back(value):
    assert read_number(str(value)) == value
    sign = "-" if value < 0 else ""
    latex = f"{sign}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"
    assert read_number(latex) == value


@given(st.integers(-(10**15), 10**15))
def test_commas_between_thousands_do_not_matter(value):
    assert read_number(f"{value:,}") == read_number(f"\\${value:,}.00") == value


@given(st.text(alphabet="0123456789,./- \\frac{}$%ab()", max_size=200))
def test_any_text_is_read_at_once(text):
    started = time.thread_time()
    read_number(text)
    assert time.thread_time() - started < 0.05


def test_boxed_content_has_balanced_braces():
    assert last_boxed(r"so \boxed{1} or \boxed{\frac{1}{2}}.") == r"\frac{1}{2}"
    assert last_boxed(r"\boxed{1") is None and last_boxed("boxed{1}") is None


def test_what_follows_the_hashes_is_on_their_line():
    assert after_hashes("3+4=7\n#### 7\nmore") == "7" and after_hashes("7") is None
    assert after_hashes("#### 1 #### 2") == "2"


def test_other_answers_are_compared_without_decoration():
    assert plain("$(1, 2)$") == plain("(1,2)") and plain("\\text{Yes}.") == plain("yes")
    assert plain("x+1") != plain("x+2")
