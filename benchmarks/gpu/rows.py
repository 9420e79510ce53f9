"""A row of results/gpu: one item on one card, with all that is needed to measure it again."""

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from aha.core.errors import DataError

Scale = Literal["full", "quick", "tiny"]
KEYS = frozenset(
    ("item", "scale", "date", "command", "commit", "card", "driver", "versions", "machine")
    + ("seconds", "numbers", "checks", "error")
)


@dataclass(frozen=True)
class Check:
    """A number that was promised: what it must be, what it should be, and what it is.

    `at_least`: larger is better. None where nothing is asked, or where nothing was measured.
    """

    what: str
    must: float | None
    aim: float | None
    at_least: bool
    measured: float | None

    @property
    def met(self) -> str:
        if self.measured is None:
            return "not measured"
        for name, bound in (("aim", self.aim), ("must", self.must)):
            if bound is not None and self.reaches(bound):
                return name
        return "-" if self.must is None else "NO"

    def reaches(self, bound: float) -> bool:
        return self.measured >= bound if self.at_least else self.measured <= bound


CHECK_KEYS = frozenset(asdict(Check("", None, None, True, None))) | {"met"}


def as_row(check: Check) -> dict:
    return asdict(check) | {"met": check.met}


def file_of(row: dict) -> str:
    """One file for an item, a card and a scale: a new measurement takes the place of the old."""
    card = re.sub(r"[^a-z0-9]+", "-", row["card"]["name"].lower()).strip("-")
    scale = "" if row["scale"] == "full" else f".{row['scale']}"
    return f"{row['item']}.{card}{scale}.json"


def write_row(path: Path, row: dict) -> None:
    """Whole or not at all: whoever writes it may be killed meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def read_row(path: Path) -> dict:
    """Raises `DataError` for a file that is no row: a key too few or too many, a verdict that its
    numbers do not bear out."""
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
        odd = KEYS ^ row.keys()
        for check in row["checks"]:
            odd |= CHECK_KEYS ^ check.keys()
        if odd:
            raise DataError(f"{path}: keys {', '.join(sorted(odd))}", "exactly those of a row")
        for check in row["checks"]:
            if as_row(Check(**{key: check[key] for key in CHECK_KEYS - {"met"}})) != check:
                raise DataError(
                    f"{path}: {check['what']} is called {check['met']!r}", "its verdict"
                )
        return row
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: {type(error).__name__} {error}", "a row of results/gpu") from None


def table(rows: list[dict]) -> str:
    """Every number that was promised: what, must, aim, measured, met or not."""

    def show(value: float | None) -> str:
        return "-" if value is None else f"{value:.3g}"

    lines = [f"{'number':<58}{'must':>9}{'aim':>9}{'measured':>11}  met"]
    for row in rows:
        for check in row["checks"]:
            sign = ">=" if check["at_least"] else "<="
            bounds = [
                f"{sign} {show(check[key])}" if check[key] is not None else "-"
                for key in ("must", "aim")
            ]
            measured = show(check["measured"])
            what = f"{row['item']}: {check['what']}"
            lines.append(f"{what:<58}{bounds[0]:>9}{bounds[1]:>9}{measured:>11}  {check['met']}")
    return "\n".join(lines)
