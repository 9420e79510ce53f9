"""The arithmetic that reading a completion needs: exact operations and small expressions.

Not the verifier, and shares no code with it: here an expression is taken apart into the operations
that its writer carried out, with the signs and decimals that a model may write.
"""

import re
from fractions import Fraction
from typing import NamedTuple

Number = int | Fraction
Step = tuple[Number, str, Number, Number]  # a, op, b, value

NUMBER = r"\d{1,9}+(?:\.\d{1,6}+)?+(?!\d)"
OPERATOR = r"(?:[-+*/x×÷−–·⋅]|\\times|\\div|\\cdot)"
MAX_CHARS = 256

_TOKEN = re.compile(rf"({NUMBER})|({OPERATOR})|[()]")
_SAME = {"x": "*", "×": "*", "·": "*", "⋅": "*", "÷": "/", "−": "-", "–": "-"}
_SAME |= {"\\times": "*", "\\cdot": "*", "\\div": "/"}
_BINDS = {"(": 0, "+": 1, "-": 1, "*": 2, "/": 2}


class Expression(NamedTuple):
    """What an expression comes to, its numbers in order, and its operations, innermost first."""

    value: Number
    numbers: tuple[Number, ...]
    steps: tuple[Step, ...]


def operator(sign: str) -> str:
    """The one spelling, out of + - * /, for any way of writing an operator."""
    return _SAME.get(sign.lower(), sign)


def number(text: str) -> Number:
    """An int, or a Fraction for a decimal: 0.1 is one tenth."""
    return int(text) if "." not in text else whole(Fraction(text))


def whole(value: Fraction) -> Number:
    """The same value, as an int where it is one."""
    return value.numerator if value.denominator == 1 else value


def operate(a: Number, op: str, b: Number) -> Number | None:
    """Exactly `a op b`, or None for a division by zero."""
    if op == "+":
        return a + b
    if op == "-":
        return a - b
    if op == "*":
        return a * b
    return whole(Fraction(a) / b) if b else None


def agrees(claimed: str, true: Number) -> bool:
    """Is `claimed` the true value, or its rounding to as many decimals as were written?

    1.571 is right for 11/7. To a whole number nothing is rounded: 67/13 = 5 is wrong.
    """
    decimals = len(claimed.partition(".")[2])
    slack = Fraction(1, 2 * 10**decimals) if decimals else 0
    return abs(Fraction(claimed) - true) <= slack


def take_apart(text: str) -> Expression | None:
    """Evaluate with the usual precedence; None for what is not an expression or has no value.

    Operators wait on a stack until a weaker one comes, so that no bracket makes it recurse.
    """
    if len(text) > MAX_CHARS:
        return None
    numbers: list[Number] = []
    values: list[Number] = []
    waiting: list[str] = []
    steps: list[Step] = []
    place, sign, operand_next = 0, 1, True
    while place < len(text):
        if text[place] in " \t\r\n":
            place += 1
            continue
        token = _TOKEN.match(text, place)
        if token is None:
            return None
        place = token.end()
        symbol = operator(token[0])
        if operand_next and token[1]:
            values.append(sign * number(symbol))
            numbers.append(values[-1])
            sign, operand_next = 1, False
        elif operand_next and symbol == "(" and sign == 1:
            waiting.append("(")
        elif operand_next and symbol == "-" and sign == 1:
            sign = -1
        elif operand_next or token[1] or symbol == "(":
            return None
        else:
            operand_next = symbol != ")"
            if not _settle(_BINDS.get(symbol, 1), values, waiting, steps):
                return None
            if symbol != ")":
                waiting.append(symbol)
            elif not waiting:
                return None
            else:
                waiting.pop()
    if operand_next or not _settle(1, values, waiting, steps) or waiting:
        return None
    return Expression(values[0], tuple(numbers), tuple(steps))


def _settle(binds: int, values: list[Number], waiting: list[str], steps: list[Step]) -> bool:
    """Carry out what waits and binds at least as strongly; False for a division by zero."""
    while waiting and _BINDS[waiting[-1]] >= binds:
        b, a, op = values.pop(), values.pop(), waiting.pop()
        value = operate(a, op, b)
        if value is None:
            return False
        steps.append((a, op, b, value))
        values.append(value)
    return True
