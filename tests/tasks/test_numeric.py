"""Numbers as people and models write them, and what is not clearly one number."""

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aha.tasks.numeric import read_number, read_quantity

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
        "The answer is 42.",
        "**42**",
        "¥42",
        "42 dollars per day",
        "$42/day",
        "Rs. 42",
        "42~\\text{cm}",
        "= 42",
        "4.2e1",
        "4.2 × 10^1",
    ],
    Fraction(-1234): [
        "-1234",
        "-1,234",
        "\u22121234",
        "- 1234",
        "-1 234",
        "$-1234",
        "-1{,}234",
        "-\\$1,234",
    ],
    Fraction(1, 2): [
        "1/2",
        ".5",
        "0.50",
        "\\frac{1}{2}",
        "\\dfrac12",
        "\\tfrac{2}{4}",
        "3/6",
        "½",
        "\\frac{1.5}{3}",
    ],
    Fraction(-1, 2): ["-\\frac{1}{2}", "\\frac{-1}{2}", "-.5", "-1/2", "\\frac{1}{-2}", "-½"],
    Fraction(5, 2): ["2 1/2", "2\\frac{1}{2}", "2.5", "x=2.5", "x = \\frac{5}{2}", "(5/2)", "2½"],
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
    Fraction(1_000_000): [
        "1,000,000",
        "1000000",
        "1{,}000{,}000",
        "1 000 000",
        "1\\,000\\,000",
        "1e6",
    ],
}


@pytest.mark.parametrize(("value", "text"), [(v, t) for v, texts in SAME.items() for t in texts])
def test_one_number_many_writings(value, text):
    assert read_number(text) == value


NONE = ["", " ", ".", "-", "abc", "5x", "5 x", "x", "3 or 4", "3 and 4", "1,5", "1,00", "12,34,567"]
NONE += ["2 million", "2 dozen", "2\\pi", "2 pi", "\\sqrt{2}", "3\\sqrt{2}", "1/0", "\\frac{1}{0}"]
NONE += ["1/2/3", "5-3", "5 - 3", "(1,2)", "[1, 2]", "3:4", "12:30 pm", "10^5", "x^2", "5i"]
NONE += ["٣", "²", "0.5.3", "--5", "1 2", "9" * 300, "5!", "5?", "1/x", "nan", "inf", "\\frac"]
# Words and signs that change the number, or may.
NONE += [
    f"7{ending}"
    for ending in (
        " dozens| dozen| thirds| halves| factorial| percent points| pairs| squared| cubed| K|K|k|M"
        "|m|B| M| B|bn| mil| mn|MM| grand| score| gross| decades| couple| double| twice| tenths"
        "| hundredths| hundred| thousand dollars| lakh| crore| googol| mod three| choose two| less"
        "| more than twelve| fewer| times| fold|x| a| an| of| per|th|st|!|!!|²|³|^2|^{2}|^{th}|_8"
        "| base 8| or so|ish|+|-| to 9|-9|±1| feet 6 inches| hours 30 minutes| cm mm|\u200b"
        "| or 8| and 8| if even else five| unless seven| is wrong| wrong| divided by two|?|...|…"
        "|..|,"
        "| in 10| out of 10|:1|//1|/1/1| \\text{ dozen}|\\text{K}|e|e1000|e2.5|,0|.000.000| 00"
        "| three| percent of 10|‰| basis points|'|'6| cups flour"
    ).split("|")
]
NONE += [
    beginning + "7"
    for beginning in (
        "not |~|≈|about |±|\\pm |<|>|≤|at least |x>|x≠|2x=|-x=|==|twice |minus |negative |+-|--|, "
        "|1 less than |The answer is not |the answer is twice |x=7=|$5 $|U$|0x|0b|per |#|@|- -"
    ).split("|")
]
NONE += [
    "seven",
    "VII",
    "７",
    "⑦",
    "(1,234)",
    "{1,2}",
    "\\{7\\}",
    "[7]",
    "|7|",
    "$7k",
    "$7M",
    "$7 m",
]
NONE += ["1 234/500", "3\\frac{5}{4}", "\\frac{1}{2}{3}", "0,500", "1,000 000", "∞", "1'234", "-"]
NONE += ["7 9" + "0" * 180, "3x=5", "= 5 = 6", "5 = 6", "5\n6", "\\boxed{5}", "\0", "\ud800"]


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
    # Of microseconds. A full collection of garbage is half a second, and not the reader's.
    assert time.thread_time() - started < 5.0


@given(st.integers(-(10**9), 10**9), st.integers(-30, 30))
def test_powers_of_ten_are_exact(digits, exponent):
    value = digits * Fraction(10) ** exponent
    assert read_number(f"{digits}e{exponent}") == value
    assert read_number(f"{digits} \\times 10^{{{exponent}}}") == value


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        *(("7 km", "7 kilometres", True), ("7 km", "7 m", False), ("7 km", "7", True)),
        *(("$7", "7 dollars", True), ("\\$7", "USD 7", True), ("$7", "7 cents", False)),
        *(("7 cm^2", "7 square centimeters", True), ("7 cm^2", "7 cm", False)),
        *(("7\\text{ cm}^2", "7 cm²", True), ("7 cm^3", "7 cm^2", False)),
        *(("7 mph", "7 miles per hour", True), ("7 km/h", "7 kilometers an hour", True)),
        *(("7 hours", "7 minutes", False), ("7 am", "7 p.m.", False), ("7°", "7 degrees", True)),
        *(("7 °C", "7 degrees Celsius", True), ("7°C", "7°F", False), ("50%", "50 percent", True)),
        *(("7 lbs", "7 pounds", True), ("£7", "7 pounds", True), ("£7", "7 lb", False)),
        *(("7 apples", "7 apple", True), ("7 apples", "7 oranges", False)),
        *(("x = 7", "7", True), ("x = 7", "y = 7", False), ("18 dollars a day", "$18", False)),
    ],
)
def test_units_and_names_may_not_differ(first, second, same):
    one, other = read_quantity(first), read_quantity(second)
    assert one is not None and other is not None
    assert one.equals(other) is other.equals(one) is same


def test_what_the_question_counts_is_a_unit_too():
    assert read_number("7 gizmos") is None
    assert read_quantity("7 red gizmos", frozenset({"gizmo", "red"})).value == 7
    assert read_quantity("7 dozens", frozenset({"dozen"})) is None
