"""The records of a run as entries for a logger, read from its folder while it is written.

rows = RunRows(run)
for entry in rows.new():   # by step; of one step the row of metrics.jsonl comes first
    entry.numbers          # {"reward": 0.4, "train/reward": 0.4, ...}
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from aha.core.errors import RunError
from aha.loggers.trl_names import OF_A_STEP, OF_A_VALIDATION, second_names
from aha.store.guarded_files import GuardedFile, JsonLines, Row, number
from aha.store.run_folder import Run, read_rows

Kind = Literal["step", "validation", "before", "after"]
ORDER: tuple[Kind, ...] = ("before", "step", "validation", "after")
TESTS: tuple[Kind, ...] = ("before", "after")
COLUMNS = (
    *("step", "group", "prompt", "completion", "reward", "advantage"),
    *("correct", "tokens", "reason"),
)
TABLE_ROWS = 64  # completions of a step in a table; all of them are in the run folder
TEXT_CHARS = 4_000  # of a text in a table


@dataclass(frozen=True)
class Entry:
    """One record of a run: a step, a validation, or the test before or after training.

    `step` is that of the row, 0 for the test before training.
    """

    kind: Kind
    step: int
    row: Row
    run: Run

    @cached_property
    def numbers(self) -> dict[str, float]:
        """All numbers of the row by name: those of a step as in metrics.jsonl, all others below
        `validation/`, `test/before/` or `test/after/`; and under TRL's names."""
        own = numbers_of(self.row)
        if self.kind == "step":
            return own | second_names(own, OF_A_STEP)
        if self.kind == "validation":
            below = {f"validation/{name}": value for name, value in own.items()}
            return below | second_names(own, OF_A_VALIDATION)
        return {f"test/{self.kind}/{name}": value for name, value in own.items()}

    @cached_property
    def completions(self) -> list[Row]:
        """The completions of a step; [] for everything else, and where their file is missing."""
        if self.kind != "step":
            return []
        try:
            return list(read_rows(self.run.completions / f"step_{self.step:06d}.jsonl"))
        except RunError:
            return []

    def drop_completions(self) -> None:
        """Forget the completions that were read: they are the bulk of a run, and an entry may be
        held for a minute, or as one of all steps."""
        self.__dict__.pop("completions", None)

    @property
    def histograms(self) -> dict[str, list[float]]:
        """The reward and the length in tokens of every completion of a step."""
        columns = {"completion_rewards": "reward", "completion_tokens": "tokens"}
        values = {
            name: [value for row in self.completions if (value := number(row.get(key))) is not None]
            for name, key in columns.items()
        }
        return {name: column for name, column in values.items() if column}

    @property
    def table(self) -> list[list[Any]]:
        """Completions of a step in the columns of COLUMNS: the first groups, as many as fit whole
        into TABLE_ROWS rows, and one at least. Long texts are cut."""
        first = self.completions[:TABLE_ROWS]
        cut = self.completions[TABLE_ROWS:]
        if cut and first[-1].get("group") == cut[0].get("group") != first[0].get("group"):
            first = [row for row in first if row.get("group") != cut[0].get("group")]
        return [[cell(row.get(column)) for column in COLUMNS] for row in first]


def cell(value: object) -> object:
    """A value for a table: a number, a truth value, None, or a text that is not too long."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return number(value)
    text = value if isinstance(value, str) else str(value)
    # A lone surrogate has no UTF-8, which every tracker writes.
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= TEXT_CHARS else text[: TEXT_CHARS - 4] + " ..."


def numbers_of(row: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a row by name. An interval becomes two, those of `behaviors` stand
    below it; texts and other lists are left out."""
    numbers: dict[str, float] = {}
    for name, value in row.items():
        if name == "interval" and isinstance(value, list) and len(value) == 2:
            numbers |= numbers_of({"interval_low": value[0], "interval_high": value[1]})
        elif name == "behaviors" and isinstance(value, dict):
            numbers |= {f"{name}/{key}": inner for key, inner in numbers_of(value).items()}
        elif (known := number(value)) is not None:
            numbers[name] = known
    return numbers


class RunRows:
    """The new records of a run at each call of `new`; the first call has all that there are."""

    def __init__(self, run: Run):
        self.run = run
        self.files: dict[Kind, JsonLines] = {
            "step": JsonLines(GuardedFile(run.path, "metrics.jsonl")),
            "validation": JsonLines(GuardedFile(run.path, "evals.jsonl")),
        }
        self.tests: set[Kind] = set()
        self.last_step = 0

    def new(self) -> list[Entry]:
        """All entries that came since the last call, by step."""
        entries = []
        for kind, lines in self.files.items():
            for row in lines.read_all():
                step = number(row.get("step"))
                if step is not None:
                    self.last_step = max(self.last_step, int(step))
                    entries.append(Entry(kind, int(step), row, self.run))
        entries += [entry for kind in TESTS if (entry := self.new_test(kind))]
        return sorted(entries, key=lambda entry: (entry.step, ORDER.index(entry.kind)))

    def new_test(self, kind: Kind) -> Entry | None:
        """The test before or after training, once it is there; None after that."""
        row = None if kind in self.tests else self.run.read_or_none(f"{kind}.json")
        if row is None:
            return None
        self.tests.add(kind)
        return Entry(kind, 0 if kind == "before" else self.last_step, row, self.run)
