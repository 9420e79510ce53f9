"""Numbers on the table, each with the expression that made it, and the operations on them."""

from dataclasses import dataclass

from aha.tasks.solver import apply


@dataclass(frozen=True, slots=True)
class TableNumber:
    """A number on the table with the expression that made it.

    `key` is the expression with the operands of + and * in order: two ways to write one attempt
    have the same key.
    """

    value: int
    text: str
    key: str

    @classmethod
    def given(cls, number: int) -> "TableNumber":
        """A number of the puzzle."""
        return cls(number, str(number), str(number))

    @classmethod
    def made(cls, value: int, a: "TableNumber", op: str, b: "TableNumber") -> "TableNumber":
        """The number `value` that `a op b` is taken for."""
        first, second = sorted((a.key, b.key)) if op in "+*" else (a.key, b.key)
        return cls(value, f"{a.nested}{op}{b.nested}", f"({first}{op}{second})")

    @property
    def nested(self) -> str:
        """The expression as part of a larger one: in brackets unless it is a plain number."""
        return f"({self.text})" if not self.text.isdigit() else self.text


Table = tuple[TableNumber, ...]
# a, operator, b, result. A division that is not whole has no result.
Move = tuple[TableNumber, str, TableNumber, TableNumber]
OpenMove = tuple[TableNumber, str, TableNumber, TableNumber | None]


def join(a: TableNumber, op: str, b: TableNumber) -> TableNumber | None:
    """The term `a op b`, or None if the result is not a non-negative integer."""
    value = apply(op, a.value, b.value)
    return None if value is None else TableNumber.made(value, a, op, b)


def line(a: TableNumber, op: str, b: TableNumber, result: TableNumber) -> str:
    """A move as a line of the corpus, such as `25+7=32`."""
    return f"{a.value}{op}{b.value}={result.value}"


def without(terms: Table, *used: TableNumber) -> Table:
    """The terms that are left when `used` are taken off the table."""
    left = list(terms)
    for term in used:
        left.remove(term)
    return tuple(left)
