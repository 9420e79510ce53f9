"""A run as Python programs see it: its numbers, its completions, its report. Read from its files,
so that a run of another process or another day is the same."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aha.api.display import run_html, telling_completions
from aha.core.errors import DataError, MissingExtra
from aha.store.guarded_files import GuardedFile, number, read_all_rows
from aha.store.run_folder import Run

if TYPE_CHECKING:
    from pandas import DataFrame

    from aha.api.text_model import TextModel

Row = dict[str, Any]


def as_table(rows: list[Row]) -> "DataFrame":
    """Rows as a DataFrame of pandas. Raises `MissingExtra` without pandas."""
    try:
        from pandas import DataFrame
    except ImportError as error:
        fix = "pip install pandas, or take the list of dicts: .rows in place of .metrics"
        raise MissingExtra("pandas", "pandas", fix) from error
    return DataFrame(rows)


class RunResult:
    """A run in its folder `path`, finished or not."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._run = Run.open(self.path)
        self.name = self._run.name

    # -- numbers ------------------------------------------------------------------------------

    @property
    def rows(self) -> list[Row]:
        """The rows of metrics.jsonl, one a step; docs/glossary.md says what each number is."""
        return self._rows("metrics.jsonl")

    @property
    def metrics(self) -> "DataFrame":
        """`rows` as a DataFrame of pandas. Raises `MissingExtra` without pandas."""
        return as_table(self.rows)

    @property
    def validations(self) -> list[Row]:
        """The rows of evals.jsonl, one a validation."""
        return self._rows("evals.jsonl")

    @property
    def findings(self) -> list[Row]:
        """The faults that the run noticed: step, level, check, message, fix."""
        return self._rows("findings.jsonl")

    @property
    def summary(self) -> Row | None:
        """summary.json: both tests, time and cost; None for a run that is not finished."""
        return self._object("summary.json")

    @property
    def finished(self) -> bool:
        """Whether all of its steps and its last test are done."""
        return self.summary is not None

    @property
    def config(self) -> Row:
        """The resolved recipe. Raises `RunError` where it cannot be read."""
        return self._run.read("config.json")

    @property
    def before(self) -> Row | None:
        """The numbers of the test before training; None where there was none."""
        return self._object("before.json")

    @property
    def after(self) -> Row | None:
        """The numbers of the test after training; None where there is none (yet)."""
        return self._object("after.json")

    # -- completions --------------------------------------------------------------------------

    @property
    def completions(self) -> list[Row]:
        """The newest graded completions: those of the test after training, else of the last
        step."""
        steps = sorted(self._run.completions.glob("step_*.jsonl"))
        path = self._run.completions / "after.jsonl"
        if self.finished and path.is_file():
            return self.completions_of("after")
        return self.completions_of(int(steps[-1].stem.removeprefix("step_"))) if steps else []

    def completions_of(self, name: str | int) -> list[Row]:
        """The completions of the test "before" or "after", or of a step by its number.

        Raises `DataError` where the run has none of that name.
        """
        stem = f"step_{name:06d}" if isinstance(name, int) else name
        path = self._run.completions / f"{stem}.jsonl"
        if stem != Path(stem).name or not path.is_file():
            stems = sorted(file.stem for file in self._run.completions.glob("*.jsonl"))
            raise DataError(
                f"no completions {name!r} in {self.path}",
                f"'before', 'after' or the number of a step; there are {', '.join(stems)[:200]}",
                "name one of them",
            )
        return self._rows(f"completions/{stem}.jsonl")

    # -- what can be made of it -----------------------------------------------------------------

    def report(self, out: str | Path | None = None) -> Path:
        """Write the run's report as one HTML file that needs no network; returns its path."""
        from aha.web.report_page import write_report
        from aha.web.runs import open_run

        path = Path(out) if out is not None else self.path / "report.html"
        write_report(open_run(self.path), path)
        return path

    def load(self) -> "TextModel":
        """The trained model; of an unfinished run that of its newest checkpoint."""
        from aha.api.text_model import load

        return load(self.path)

    # -- display --------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"<run {str(self.path)!r}: {'; '.join(self._lines())}>"

    def _repr_html_(self) -> str:
        rows = self.rows
        tests = [(float(row.get("step") or 0), row) for row in self.validations]
        before, after = self.before, self.after
        if before:
            tests.insert(0, (0.0, before))
        if self.finished and after and rows:
            tests.append((float(rows[-1]["step"]), after))
        shown = telling_completions(self.completions)
        return run_html(f"aha: {self.path}", rows, tests, self._lines(), shown)

    def _lines(self) -> list[str]:
        """A run in a few words: how far it is, its tests, its mean reward."""
        rows = self.rows
        done = int(number(rows[-1].get("step")) or 0) if rows else 0
        steps = self.config.get("steps")
        lines = [f"{done} steps" if self.finished else f"{done} of {steps} steps, not finished"]
        rates = [test_words(self.before), test_words(self.after if self.finished else None)]
        if any(rates):
            lines.append(f"solve rate {' -> '.join(filter(None, rates))}")
        return lines

    def _rows(self, name: str) -> list[Row]:
        """The rows of a file of the run; [] where it does not exist. Warns of damaged lines."""
        file = GuardedFile(self.path, name)
        rows, faults = read_all_rows(file) if file.exists() else ([], [])
        for fault in faults:
            warnings.warn(f"{self.path}: {fault}", RuntimeWarning, stacklevel=3)
        return rows

    def _object(self, name: str) -> Row | None:
        return self._run.read(name) if (self.path / name).exists() else None


def test_words(row: Row | None) -> str:
    """The solve rate of a held-out test with its interval; empty without one."""
    rate, ends = number((row or {}).get("solve_rate")), (row or {}).get("interval")
    if rate is None or not isinstance(ends, list) or len(ends) != 2:
        return ""
    return f"{rate:.3f} [{ends[0]:.3f}, {ends[1]:.3f}]"
