"""Exact arithmetic for reading completions: operations and small expressions.

This is not the verifier and shares no code with it. Here an expression is split into its single
operations, and signs and decimals are accepted.
"""

import re
from fractions import Fraction
from typing import NamedTuple

Number = int | Fraction  # an int wherever the value is whole
Step = tuple[Number, str, Number, Number]  # a, op, b, value

NUMBER = r"[0-9]{1,9}+(?:\.[0-9]{1,6}+)?+(?![0-9])"
OPERATOR = r"(?:[-+*/xX×÷−–·⋅]|\\times|\\div|\\cdot)"
MAX_CHARS = 256

_TOKEN = re.compile(rf"({NUMBER})|({OPERATOR})|[()]")
_SAME = {"x": "*", "×": "*", "·": "*", "⋅": "*", "÷": "/", "−": "-", "–": "-"}
_SAME |= {"\\times": "*", "\\cdot": "*", "\\div": "/"}
_BINDS = {"(": 0, "+": 1, "-": 1, "*": 2, "/": 2}


class Evaluation(NamedTuple):
    """The value of an expression, its numbers in order, and its operations, innermost first."""

    value: Number
    numbers: tuple[Number, ...]
    steps: tuple[Step, ...]


def operator(sign: str) -> str:
    """The operator as one of + - * /, for any way of writing it."""
    return sign if sign in _BINDS else _SAME.get(sign.lower(), sign)


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
    if not b:
        return None
    return a // b if a % b == 0 else whole(Fraction(a) / b)


def agrees(claimed: str, true: Number) -> bool:
    """Is `claimed` the true value, or its rounding to as many decimals as were written?

    1.571 is right for 11/7. A whole number must be exact: 67/13 = 5 is wrong.
    """
    decimals = len(claimed.partition(".")[2])
    slack = Fraction(1, 2 * 10**decimals) if decimals else 0
    return abs(Fraction(claimed) - true) <= slack


def evaluate_expression(text: str) -> Evaluation | None:
    """Evaluate with the usual precedence; None for a text that is no expression or has no value."""
    if len(text) > MAX_CHARS:
        return None
    stack, end = _Stack(), 0
    for token in _TOKEN.finditer(text):
        # The pattern skips characters that it does not know; only space may be skipped.
        if text[end : token.start()].strip() or not stack.accept(token):
            return None
        end = token.end()
    if text[end:].strip() or stack.needs_operand or not stack.apply_down_to(1) or stack.waiting:
        return None
    return Evaluation(stack.values[0], tuple(stack.numbers), tuple(stack.steps))


class _Stack:
    """Operators wait on a stack until a weaker one follows. Without recursion, no text can exceed
    the depth of the call stack."""

    def __init__(self) -> None:
        self.values: list[Number] = []
        self.numbers: list[Number] = []
        self.waiting: list[str] = []
        self.steps: list[Step] = []
        self.needs_operand, self.sign = True, 1

    def accept(self, token: re.Match[str]) -> bool:
        """Read the next token; False if it is not allowed here."""
        is_number = token.lastindex == 1
        symbol = token[0] if is_number else operator(token[0])
        if self.needs_operand:
            return self.operand(symbol, is_number)
        if is_number or symbol == "(" or not self.apply_down_to(_BINDS.get(symbol, 1)):
            return False
        if symbol != ")":
            self.waiting.append(symbol)
            self.needs_operand = True
            return True
        return bool(self.waiting) and self.waiting.pop() == "("

    def operand(self, symbol: str, is_number: bool) -> bool:
        """A number, perhaps with a minus before it, or an opening bracket."""
        if is_number:
            self.values.append(self.sign * number(symbol))
            self.numbers.append(self.values[-1])
            self.sign, self.needs_operand = 1, False
        elif symbol == "-" and self.sign == 1:
            self.sign = -1
        elif symbol == "(" and self.sign == 1:
            self.waiting.append("(")
        else:
            return False
        return True

    def apply_down_to(self, binds: int) -> bool:
        """Apply the waiting operators of at least this precedence; False for a division by zero."""
        while self.waiting and _BINDS[self.waiting[-1]] >= binds:
            b, a, op = self.values.pop(), self.values.pop(), self.waiting.pop()
            value = operate(a, op, b)
            if value is None:
                return False
            self.steps.append((a, op, b, value))
            self.values.append(value)
        return True
