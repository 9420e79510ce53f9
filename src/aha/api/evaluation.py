"""The evaluation of a model as Python programs see it: `aha.evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from aha.api.display import run_html, shown_text, telling_completions
from aha.api.run_result import as_table, test_words
from aha.core.findings import Finding
from aha.store.guarded_files import number

if TYPE_CHECKING:
    from pandas import DataFrame

Row = dict[str, Any]


class EvalResult:
    """The numbers of an evaluation, and every graded completion in the order of the problems."""

    def __init__(self, numbers: Row, completions: list[Row], findings: list[Finding]):
        self.numbers, self.completions, self.findings = numbers, completions, findings

    @property
    def solve_rate(self) -> float | None:
        """The share of right completions; None where no grade came about."""
        return number(self.numbers.get("solve_rate"))

    @property
    def interval(self) -> tuple[float, float] | None:
        """Its 95 % interval over problems (`over_problems`), None as above."""
        ends = self.numbers.get("interval")
        return (float(ends[0]), float(ends[1])) if ends else None

    @property
    def mean_reward(self) -> float:
        """The mean reward of the completions."""
        return sum(float(row["reward"]) for row in self.completions) / len(self.completions)

    @property
    def metrics(self) -> "DataFrame":
        """The numbers as a DataFrame with one row. Raises `MissingExtra` without pandas."""
        return as_table([self.numbers])

    def report(self, out: str | Path = "evaluation.html") -> Path:
        """Write the numbers and some completions as an HTML file; returns its path."""
        title = shown_text(self._title())
        page = f"<!doctype html><meta charset=utf-8><title>{title}</title>{self._repr_html_()}"
        path = Path(out)
        path.write_text(page, encoding="utf-8", errors="replace")
        return path

    def _title(self) -> str:
        return f"aha: {self.numbers['model']} on {self.numbers['task']}"

    def _lines(self) -> list[str]:
        problems = self.numbers["problems"]
        solved = test_words(self.numbers) or "not known: every grade failed"
        faults = [f"{f.level}: {f.message}" for f in self.findings if f.level != "ok"]
        return [
            f"solve rate {solved} of {problems} problems",
            f"mean reward {self.mean_reward:.3f}, {self.numbers['mean_tokens']:.0f} tokens",
            *faults,
        ]

    def __repr__(self) -> str:
        return f"<evaluation: {'; '.join(self._lines())}>"

    def _repr_html_(self) -> str:
        shown = telling_completions(self.completions)
        return run_html(self._title(), [], [], self._lines(), shown)
