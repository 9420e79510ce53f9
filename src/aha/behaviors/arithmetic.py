"""The arithmetic that reading a completion needs: exact operations and small expressions.

Not the verifier, and shares no code with it: here an expression is taken apart into the operations
that its writer carried out, with the signs and decimals that a model may write.
"""

import re
from fractions import Fraction
from typing import NamedTuple

Number = int | Fraction
Step = tuple[Number, str, Number, Number]  # a, op, b, value

NUMBER = r"[0-9]{1,9}+(?:\.[0-9]{1,6}+)?+(?![0-9])"
OPERATOR = r"(?:[-+*/xX×÷−–·⋅]|\\times|\\div|\\cdot)"
MAX_CHARS = 256

_TOKEN = re.compile(rf"({NUMBER})|({OPERATOR})|[()]")
_SAME = {"x": "*", "×": "*", "·": "*", "⋅": "*", "÷": "/", "−": "-", "–": "-"}
_SAME |= {"\\times": "*", "\\cdot": "*", "\\div": "/"}
_BINDS = {"(": 0, "+": 1, "-": 1, "*": 2, "/": 2}


class Evaluation(NamedTuple):
    """What an expression comes to, its numbers in order, and its operations, innermost first."""

    value: Number
    numbers: tuple[Number, ...]
    steps: tuple[Step, ...]


def operator(sign: str) -> str:
    """The one spelling, out of + - * /, for any way of writing an operator."""
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

    1.571 is right for 11/7. To a whole number nothing is rounded: 67/13 = 5 is wrong.
    """
    decimals = len(claimed.partition(".")[2])
    slack = Fraction(1, 2 * 10**decimals) if decimals else 0
    return abs(Fraction(claimed) - true) <= slack


def evaluate_expression(text: str) -> Evaluation | None:
    """Evaluate with the usual precedence; None for what is not an expression or has no value."""
    if len(text) > MAX_CHARS:
        return None
    reading, place = _Reading(), 0
    for token in _TOKEN.finditer(text):
        # The pattern passes over what it does not know; only space may be passed over.
        if text[place : token.start()].strip() or not reading.take(token):
            return None
        place = token.end()
    if text[place:].strip() or reading.wants_operand or not reading.settle(1) or reading.waiting:
        return None
    return Evaluation(reading.values[0], tuple(reading.numbers), tuple(reading.steps))


class _Reading:
    """Operators wait on a stack until a weaker one comes, so that no bracket makes it recurse."""

    def __init__(self):
        self.values: list[Number] = []
        self.numbers: list[Number] = []
        self.waiting: list[str] = []
        self.steps: list[Step] = []
        self.wants_operand, self.sign = True, 1

    def take(self, token: re.Match) -> bool:
        """One token further; False where it cannot stand."""
        is_number = token.lastindex == 1
        symbol = token[0] if is_number else operator(token[0])
        if self.wants_operand:
            return self.operand(symbol, is_number)
        if is_number or symbol == "(" or not self.settle(_BINDS.get(symbol, 1)):
            return False
        if symbol != ")":
            self.waiting.append(symbol)
            self.wants_operand = True
            return True
        return bool(self.waiting) and self.waiting.pop() == "("

    def operand(self, symbol: str, is_number: bool) -> bool:
        """A number, perhaps behind a minus, or an opening bracket."""
        if is_number:
            self.values.append(self.sign * number(symbol))
            self.numbers.append(self.values[-1])
            self.sign, self.wants_operand = 1, False
        elif symbol == "-" and self.sign == 1:
            self.sign = -1
        elif symbol == "(" and self.sign == 1:
            self.waiting.append("(")
        else:
            return False
        return True

    def settle(self, binds: int) -> bool:
        """Carry out what waits and binds at least as much; False for a division by zero."""
        while self.waiting and _BINDS[self.waiting[-1]] >= binds:
            b, a, op = self.values.pop(), self.values.pop(), self.waiting.pop()
            value = operate(a, op, b)
            if value is None:
                return False
            self.steps.append((a, op, b, value))
            self.values.append(value)
        return True
