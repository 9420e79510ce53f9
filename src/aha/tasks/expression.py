"""Exact arithmetic over `+ - * / ( )` and plain integers. No `eval`, no floats.

    expression = product  { ("+" | "-") product }
    product    = factor   { ("*" | "/") factor }
    factor     = integer | "(" expression ")"

No sign in front of a number, no power, no floor division, no decimals, no leading zeros. Values
are Fractions: 1/49*49 is 1, where floats give 0.9999999999999999.
"""

from dataclasses import dataclass
from fractions import Fraction

MAX_CHARS = 256
MAX_DEPTH = 32
MAX_DIGITS = 9

_SPACE = " \t\r\n"
_DIGITS = "0123456789"
_SYMBOLS = "+-*/()"


class Unreadable(Exception):
    """A text that is not an expression; the message becomes part of a grade's reason."""


@dataclass(frozen=True, slots=True)
class Expression:
    """The exact value of an expression, and its numbers in order."""

    value: Fraction
    numbers: tuple[int, ...]


def tokenize(text: str) -> list[int | str]:
    """Integers and symbols. Raises `Unreadable` for anything else."""
    if len(text) > MAX_CHARS:
        raise Unreadable(f"the answer is longer than {MAX_CHARS} characters")
    tokens: list[int | str] = []
    start = 0
    while start < len(text):
        char = text[start]
        if char in _SPACE:
            start += 1
        elif char in _SYMBOLS:
            tokens.append(char)
            start += 1
        elif char in _DIGITS:
            end = start
            while end < len(text) and text[end] in _DIGITS:
                end += 1
            digits = text[start:end]
            if len(digits) > MAX_DIGITS:
                raise Unreadable(f"a number has more than {MAX_DIGITS} digits")
            if len(digits) > 1 and digits[0] == "0":
                raise Unreadable(f"{digits} has a leading zero")
            tokens.append(int(digits))
            start = end
        else:
            raise Unreadable(f"{char!a} is not part of an expression")
    return tokens


class _Parser:
    """Recursive descent: one method for each rule of the grammar above."""

    def __init__(self, tokens: list[int | str]):
        self.tokens, self.position, self.depth = tokens, 0, 0

    def peek(self) -> int | str | None:
        return self.tokens[self.position] if self.position < len(self.tokens) else None

    def next_token(self) -> int | str | None:
        token = self.peek()
        self.position += 1
        return token

    def expression(self) -> Fraction:
        value = self.product()
        while self.peek() in ("+", "-"):
            value = value + self.product() if self.next_token() == "+" else value - self.product()
        return value

    def product(self) -> Fraction:
        value = self.factor()
        while self.peek() in ("*", "/"):
            op, right = self.next_token(), self.factor()
            if op == "/" and right == 0:
                raise Unreadable("it divides by zero")
            value = value * right if op == "*" else value / right
        return value

    def factor(self) -> Fraction:
        token = self.next_token()
        if isinstance(token, int):
            return Fraction(token)
        if token != "(":
            got = "the end" if token is None else repr(token)
            raise Unreadable(f"a number or '(' should stand where {got} stands")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable(f"brackets are nested deeper than {MAX_DEPTH}")
        value = self.expression()
        if self.next_token() != ")":
            raise Unreadable("a bracket is not closed")
        self.depth -= 1
        return value


def read_expression(text: str) -> Expression:
    """Parse and evaluate. Raises `Unreadable` with the reason; never anything else.

    The cost is bounded by MAX_CHARS, MAX_DEPTH and MAX_DIGITS: well under a millisecond.
    """
    tokens = tokenize(text)
    if not tokens:
        raise Unreadable("the answer is empty")
    parser = _Parser(tokens)
    value = parser.expression()
    if parser.peek() is not None:
        raise Unreadable(f"{parser.peek()!r} stands where an operator should")
    return Expression(value, tuple(token for token in tokens if isinstance(token, int)))
