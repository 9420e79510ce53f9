"""Countdown puzzles from a file: TinyZero's columns and ours, and which rows can be used.

{"nums": [3, 7, 25], "target": 82}             Countdown-Tasks-3to4
{"numbers": [3, 7, 25], "target": 82}          as `aha problems` writes it
{"reward_model": {"ground_truth": {"numbers": [3, 7, 25], "target": 82}}}   veRL, TinyZero
{"reward_model": {"ground_truth": "{\\"numbers\\": [3, 7, 25], ...}"}}          the same as JSON
"""

import re
from pathlib import Path

from aha.core.findings import Finding, warn
from aha.tasks.bad_rows import BadRows
from aha.tasks.expression import MAX_DIGITS
from aha.tasks.files import UnreadableRow, read_rows, verl_truth
from aha.tasks.solver import unsolvable

Row = tuple[tuple[int, ...], int]  # numbers, target

_ROW = '{"nums": [3, 7, 25], "target": 82}'
EXPECTED = f"JSON lines or Parquet with 'nums' and 'target', as in {_ROW}"
COLUMNS = ("nums", "numbers", "target", "reward_model")
# As numpy and Python print a list of numbers.
_LIST = re.compile(r"[\[(]?\s*(\d{1,18}(?:(?:\s*,\s*|\s+)\d{1,18})*)\s*,?\s*[\])]?", re.ASCII)


def problem_key(numbers: tuple[int, ...], target: int) -> str:
    """The same for two puzzles that are the same: the sorted numbers and the target."""
    return f"{','.join(map(str, sorted(numbers)))}={target}"


def load_puzzles(path: Path, rule: str = "refuse") -> tuple[list[Row], list[Finding]]:
    """The puzzles of a file, each once, and notes on rows that were left out.

    A row that is no puzzle is bad, and so is a puzzle that nobody can solve. Raises `DataError` for
    a bad row where `rule` refuses it, with its number, and for a file without any.
    """
    bad = BadRows(path, rule)
    rows: dict[str, tuple[int, Row]] = {}
    for number, row in read_rows(path, EXPECTED, COLUMNS):
        puzzle = as_puzzle(row)
        if isinstance(puzzle, str):
            bad.add(number, puzzle)
        elif rows.setdefault(problem_key(*puzzle), (number, puzzle))[0] != number:
            bad.repeat(number)
    every = list(rows.values())
    hopeless, unexamined = unsolvable([puzzle for _, puzzle in every])
    for place in hopeless:
        number, (numbers, target) = every[place]
        bad.add(number, f"{list(numbers)} cannot make {target}")
    kept = [puzzle for number, puzzle in every if number not in bad.reasons]
    notes = bad.settle(len(kept), EXPECTED)
    if unexamined:
        message = f"{unexamined:,} puzzles of {path.name} were not examined for a solution"
        notes.append(
            warn(
                f"{message}: it takes too long", "nothing, or a file of puzzles with fewer numbers"
            )
        )
    return kept, notes


def as_puzzle(row: object) -> Row | str:
    """The puzzle of a row, or the reason why it is none."""
    if isinstance(row, UnreadableRow):
        return row.reason
    cells = row if isinstance(row, dict) else {}
    truth = verl_truth(cells)
    if isinstance(truth, dict):
        cells = {**truth, **{name: cell for name, cell in cells.items() if cell is not None}}
    numbers, target = cells.get("nums", cells.get("numbers")), cells.get("target")
    if isinstance(numbers, str) and (match := _LIST.fullmatch(numbers.strip())):
        numbers = [int(digits) for digits in re.findall(r"\d+", match[1])]
    values = [*numbers, target] if isinstance(numbers, list) else []
    if not 3 <= len(values) <= 7 or not all(type(n) is int and n > 0 for n in values):
        return f"{str(row)[:80]} is not 2 to 6 positive integers and a positive target"
    if max(values[:-1]) >= 10**MAX_DIGITS:
        return f"{str(row)[:80]} has a number of more than {MAX_DIGITS} digits"
    return tuple(values[:-1]), values[-1]
