"""The grammar of an answer: Python's parser over Fractions as oracle, and every limit."""

import ast
import operator
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aha.tasks.expression import MAX_CHARS, MAX_DEPTH, MAX_DIGITS, Unreadable, read_expression

PLAIN = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}


class NotPlain(Exception):
    """Python reads it, but it is more than integers and + - * / ( )."""


def oracle(node: ast.AST) -> Fraction:
    match node:
        case ast.Expression(body=body):
            return oracle(body)
        case ast.Constant(value=value) if type(value) is int:
            return Fraction(value)
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return oracle(left) / oracle(right)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in PLAIN:
            return PLAIN[type(op)](oracle(left), oracle(right))
    raise NotPlain


def python_reading(text: str) -> tuple[Fraction, list[int]] | None:
    """Value and numbers, or None where it is no plain expression."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
        value = oracle(tree)
    except (SyntaxError, NotPlain, ZeroDivisionError):
        return None
    return value, sorted(n.value for n in ast.walk(tree) if isinstance(n, ast.Constant))


def our_reading(text: str) -> tuple[Fraction, list[int]] | None:
    try:
        found = read_expression(text)
    except Unreadable as reason:
        assert str(reason)
        return None
    return found.value, sorted(found.numbers)


@st.composite
def expressions(draw, depth: int = 4) -> str:
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        return str(draw(st.integers(0, 120)))
    left, right = draw(expressions(depth - 1)), draw(expressions(depth - 1))
    made = draw(st.sampled_from(["", " "])).join((left, draw(st.sampled_from("+-*/")), right))
    return f"({made})" if draw(st.booleans()) else made


@settings(max_examples=300)
@given(expressions())
def test_a_random_expression_has_pythons_value(text):
    if len(text) <= MAX_CHARS:
        assert our_reading(text) == python_reading(text)


# "00" and "0 0" aside, where Python takes a row of zeros for 0.
SYMBOLS = st.text(alphabet="123456789+-*/() ", max_size=20)


@settings(max_examples=1000)
@given(SYMBOLS)
def test_any_row_of_symbols_reads_as_in_python_or_not_at_all(text):
    numbers = text.replace(" ", "+")  # for the digits alone
    if max(map(len, "".join(c if c.isdigit() else " " for c in numbers).split()), default=0) <= 9:
        assert our_reading(text) == python_reading(text)


@given(
    expressions(depth=2), st.integers(0, 30), st.sampled_from("+-*/()0129 x.^%=,!\x00\n٣²½\ud800")
)
def test_one_changed_character_is_judged_as_python_judges_it(text, place, char):
    place = min(place, len(text) - 1)
    changed = f"{text[:place]}{char}{text[place + 1 :]}"
    ours = our_reading(changed)
    if ours is not None and "\n" not in changed:  # a line break is space to us, an end to Python
        assert ours == python_reading(changed)


def test_values_are_exact():
    assert read_expression("1/49*49").value == 1  # a float makes 0.9999999999999999 of it
    assert read_expression("1/3+1/3+1/3").value == 1
    assert read_expression("999999999*999999999").value == 999999999**2
    assert read_expression("2-3").value == -1
    assert read_expression("8/3/2").value == Fraction(4, 3)
    assert read_expression("8-3-2").value == 3
    assert read_expression("2+3*4").value == 14
    assert read_expression("(2+3)*4").value == 20


def test_space_does_not_matter():
    assert read_expression(" ( 25 * 3 )\t+\r\n7 ").numbers == (25, 3, 7)


REASONS = {
    "": "the answer is empty",
    "  \n": "the answer is empty",
    "3+": "should stand where the end stands",
    "+3": "should stand where '+' stands",
    "-3": "should stand where '-' stands",
    "3--7": "should stand where '-' stands",
    "-(3-5)": "should stand where '-' stands",
    "()": "should stand where ')' stands",
    "3**2": "should stand where '*' stands",
    "7//2": "should stand where '/' stands",
    "3 7": "7 stands where an operator should",
    "3(7)": "'(' stands where an operator should",
    "(3)(7)": "'(' stands where an operator should",
    "3)": "')' stands where an operator should",
    "(3": "a bracket is not closed",
    "(3 7)": "a bracket is not closed",
    "1/0": "it divides by zero",
    "1/(3-3)": "it divides by zero",
    "03*8": "03 has a leading zero",
    "00": "00 has a leading zero",
    "1.5": "'.' is not part of an expression",
    "3.": "'.' is not part of an expression",
    "1e3": "'e' is not part of an expression",
    "1_0": "'_' is not part of an expression",
    "3×7": r"'\xd7' is not part of an expression",
    "3=3": "'=' is not part of an expression",
    "3,7": "',' is not part of an expression",
    "[3]": "'[' is not part of an expression",
    "٣+٤": r"'\u0663' is not part of an expression",
    "²": r"'\xb2' is not part of an expression",
    "3\u00a0+7": r"'\xa0' is not part of an expression",
    "3\x0b+7": r"'\x0b' is not part of an expression",
    "3\x00": r"'\x00' is not part of an expression",
    "\ud800": r"'\ud800' is not part of an expression",
    "1" * 10: "a number has more than 9 digits",
    "1+" * 128 + "1": "the answer is longer than 256 characters",
    "(" * 100_000: "the answer is longer than 256 characters",
    "(" * 33 + "1" + ")" * 33: "brackets are nested deeper than 32",
    "(" * 200: "brackets are nested deeper than 32",
}


@pytest.mark.parametrize("text", REASONS, ids=lambda text: ascii(text)[:20])
def test_reasons(text):
    with pytest.raises(Unreadable) as caught:
        read_expression(text)
    assert REASONS[text] in str(caught.value)
    str(caught.value).encode()  # can be printed and stored, whatever the text held


def test_limits_are_reached_before_they_are_passed():
    assert read_expression("(" * MAX_DEPTH + "7" + ")" * MAX_DEPTH).value == 7
    assert read_expression("9" * MAX_DIGITS).value == 999_999_999
    longest = "1+" * (MAX_CHARS // 2 - 1) + "11"
    assert len(longest) == MAX_CHARS
    assert read_expression(longest).value == 138
    # Depth is how many are open at once, not how many there are.
    assert read_expression("+".join(["(1)"] * 60)).value == 60


@given(st.text(max_size=300))
def test_any_text_reads_or_says_why_not(text):
    our_reading(text)
