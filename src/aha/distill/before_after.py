"""The test of a model before and after a training, on the same held-out problems."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aha.core.findings import Finding
from aha.distill.stages import read_object
from aha.eval.statistics import paired_bootstrap
from aha.eval.suite import EvalNumbers, EvalSettings, evaluate_model
from aha.store.durable import to_json, write_text
from aha.store.run_folder import read_rows

Row = dict[str, Any]
NAMES = ("before", "after")


def held_out_test(
    folder: Path,
    name: str,
    model: str,
    settings: EvalSettings,
    on_finding: Callable[[Finding], object],
) -> Row:
    """The test `name` of a model: made once, then read from the folder, where its completions are
    too. A test that was stopped is made again."""
    record, completions = folder / f"{name}.json", folder / f"{name}.jsonl"
    known = read_object(record)
    if known is not None:
        return known
    completions.unlink(missing_ok=True)
    row = evaluate_model(model, settings, completions, on_finding)
    write_text(record, to_json(row, indent=2) + "\n")
    return row


@dataclass(frozen=True)
class Change:
    """What a training has changed, by two tests on the same problems.

    `gained` is the difference of the solve rates with its 95 % interval, by a paired bootstrap;
    None where a test has no solve rate.
    """

    before: Row
    after: Row
    gained: tuple[float, float, float] | None

    @property
    def shorter(self) -> float:
        """The change of the mean length of a completion, as a share: -0.3 is 30 % shorter."""
        return float(self.after["mean_tokens"] / self.before["mean_tokens"] - 1.0)

    @property
    def seconds(self) -> float:
        """Of both tests."""
        return float(self.before["seconds"] + self.after["seconds"])

    def as_row(self) -> Row:
        """The numbers as JSON."""
        return {
            "before": self.before,
            "after": self.after,
            "gained": self.gained and list(self.gained),
            "length_change": self.shorter,
        }

    def lines(self) -> list[str]:
        """The change for people."""
        lines = []
        if self.gained is None:
            lines.append("solve rate: a grader failed, so nothing is known of it")
        else:
            gain, low, high = self.gained
            verdict = "" if low > 0 or high < 0 else ": no evidence of a change"
            lines.append(
                f"solve rate {self.before['solve_rate']:.3f} -> {self.after['solve_rate']:.3f} "
                f"({gain:+.3f} [{low:+.3f}, {high:+.3f}] on the same "
                f"{self.before['problems']:,} problems{verdict})"
            )
        lines.append(
            f"tokens of a completion {self.before['mean_tokens']:.1f} -> "
            f"{self.after['mean_tokens']:.1f} ({self.shorter:+.0%}), truncated "
            f"{self.before['truncated']:.1%} -> {self.after['truncated']:.1%}"
        )
        return lines


def change_of(folder: Path, before: Row, after: Row) -> Change:
    """The change between the two tests of a folder."""
    if before["solve_rate"] is None or after["solve_rate"] is None:
        return Change(before, after, None)
    first, last = (first_correct(folder / f"{name}.jsonl") for name in NAMES)
    gain = after["solve_rate"] - before["solve_rate"]
    return Change(before, after, (gain, *paired_bootstrap(first, last)))


def first_correct(path: Path) -> list[bool]:
    """Whether the first completion of each problem is right, in problem order."""
    first: dict[str, bool] = {}
    for row in read_rows(path):
        first.setdefault(row["id"], bool(row["correct"]))
    return list(first.values())


def numbers_of(row: Row) -> Row:
    """The numbers of a test as a run keeps them."""
    return {key: row[key] for key in EvalNumbers.__annotations__ if key in row}
