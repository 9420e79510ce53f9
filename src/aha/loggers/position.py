"""What of a run a logger has received, and the id of its run there: loggers.json of the run."""

import re
import secrets
from dataclasses import asdict, dataclass, field
from typing import Any

from aha.loggers.run_rows import Entry
from aha.store.guarded_files import Row
from aha.store.run_folder import Run

NAME = "loggers.json"
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass
class Position:
    """`step` and `validation` are the last ones that the logger has, -1 for none; `tests` names
    the tests that it has. `id` names the logger's own run."""

    id: str
    step: int = -1
    validation: int = -1
    tests: list[str] = field(default_factory=list)

    @classmethod
    def new(cls) -> "Position":
        """Of a logger that has nothing yet."""
        return cls(secrets.token_hex(4))

    @classmethod
    def of(cls, stored: object) -> "Position | None":
        """From loggers.json; None for what is no position."""
        if not isinstance(stored, dict):
            return None
        steps = [stored.get("step"), stored.get("validation")]
        tests = stored.get("tests")
        if not (
            isinstance(stored.get("id"), str)
            and ID.fullmatch(stored["id"])
            and all(isinstance(step, int) and not isinstance(step, bool) for step in steps)
            and isinstance(tests, list)
        ):
            return None
        known = [name for name in ("before", "after") if name in tests]
        return cls(stored["id"], stored["step"], stored["validation"], known)

    def has(self, entry: Entry) -> bool:
        """Whether the logger has received an entry."""
        if entry.kind in ("before", "after"):
            return entry.kind in self.tests
        return entry.step <= (self.step if entry.kind == "step" else self.validation)

    def add(self, entry: Entry) -> None:
        """Note that the logger has received an entry."""
        if entry.kind == "step":
            self.step = entry.step
        elif entry.kind == "validation":
            self.validation = entry.step
        else:
            self.tests.append(entry.kind)

    def go_back_to(self, step: int) -> None:
        """Forget all steps after `step`: the run trains them again."""
        self.step, self.validation = min(self.step, step), min(self.validation, step)


def stored_positions(run: Run) -> tuple[dict[str, Position], bool]:
    """(positions by the logger's name, whether loggers.json is damaged); {} where there is none."""
    path = run.path / NAME
    if not path.exists():
        return {}, False
    content: Row = run.read_or_none(NAME) or {}
    positions = {name: Position.of(value) for name, value in content.items()}
    whole = {name: position for name, position in positions.items() if position}
    return whole, len(whole) < max(1, len(positions))


def write_positions(run: Run, positions: dict[str, Position]) -> None:
    """Replace loggers.json."""
    content: dict[str, Any] = {name: asdict(position) for name, position in positions.items()}
    run.write(NAME, content)
