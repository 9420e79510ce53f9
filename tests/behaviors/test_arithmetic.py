"""Expressions taken apart: values against Python's own parser, limits, and odd spellings."""

import ast
import operator
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aha.behaviors.arithmetic import agrees, evaluate_expression, operate

PYTHON = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}


def python_value(node: ast.AST) -> Fraction:
    """The value by Python's grammar over Fractions: an oracle that shares no code with ours."""
    match node:
        case ast.Expression(body=body):
            return python_value(body)
        case ast.Constant(value=int(value)):
            return Fraction(value)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -python_value(operand)
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return python_value(left) / python_value(right)
        case ast.BinOp(left=left, op=op, right=right):
            return PYTHON[type(op)](python_value(left), python_value(right))
    raise AssertionError(ast.dump(node))


@st.composite
def expressions(draw, depth: int = 3) -> str:
    if depth == 0 or draw(st.booleans()):
        return str(draw(st.integers(0, 99)))
    left, right = draw(expressions(depth - 1)), draw(expressions(depth - 1))
    space = draw(st.sampled_from(["", " "]))
    made = f"{left}{space}{draw(st.sampled_from('+-*/'))}{space}{right}"
    return f"({made})" if draw(st.booleans()) else made


@given(expressions())
def test_values_and_numbers_are_those_of_python(text):
    tree = ast.parse(text, mode="eval")
    try:
        want = python_value(tree)
    except ZeroDivisionError:
        assert evaluate_expression(text) is None
        return
    made = evaluate_expression(text)
    assert made.value == want
    numbers = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    assert sorted(made.numbers) == sorted(numbers)
    assert len(made.steps) == len(numbers) - 1
    assert not made.steps or made.steps[-1][3] == want


@given(st.text(alphabet="0123456789+-*/() .x×÷", max_size=40))
def test_any_row_of_symbols_has_a_value_or_none(text):
    made = evaluate_expression(text)
    assert made is None or len(made.steps) == len(made.numbers) - 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3×7", 21),
        ("3 x 7", 21),
        ("3 X 7", 21),
        ("42÷2", 21),
        (r"3 \times 7", 21),
        ("30−9", 21),
        ("-13 + 78", 65),
        ("(-13+78)-11", 54),
        ("2.5*4", 10),
        ("11/7", Fraction(11, 7)),
        ("2-3-4", -5),
        ("12/3/2", 2),
    ],
)
def test_spellings(text, value):
    assert evaluate_expression(text).value == value


@pytest.mark.parametrize(
    "text",
    ["", " ", "()", "3 7", "3**2", "7//2", "3+", "(3+7", "3+7)", "1e5", "a+1", "1/0", "3(7)", "٣+٧"]
    + ["+".join(["1"] * 200), "(" * 300 + "1" + ")" * 300, "--3", "-(3-5)", "1\x00+1", "\ud800+1"],
)
def test_what_is_not_read(text):
    assert evaluate_expression(text) is None


def test_decimals_may_be_rounded_and_whole_numbers_may_not():
    assert agrees("1.5714", Fraction(11, 7))
    assert agrees("1.6", Fraction(11, 7))
    assert not agrees("1.56", Fraction(11, 7))
    assert not agrees("2", Fraction(11, 7))
    assert agrees("-4", -4)


def test_operate_is_exact():
    assert operate(operate(1, "/", 49), "*", 49) == 1
    assert type(operate(6, "/", 3)) is int
    assert operate(6, "/", 0) is None
