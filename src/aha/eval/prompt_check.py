"""Problems whose prompt a model cannot read: refused, left out or skipped, and always told.

A prompt can be read when the task writes it, the model's tokenizer holds all of its text, and the
model has the positions for it and for a completion after it.

A file of problems is checked whole, once: every row of every split, before anything is trained or
graded. What the check has seen is remembered in the user's cache folder under a hash of the file,
the tokenizer and the lengths. Problems that are only drawn (a generator's, another author's task)
are checked when they are drawn, and a bad one is skipped: which one is a function of the problem
alone, so the next one of the same stream takes its place in a resumed run as well.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from aha.core.errors import DataError, ModelError, RunStopped
from aha.core.findings import Finding, warn
from aha.core.records import Graded, Problem
from aha.eval.file_check import FileCheck, files_of, remembered_rows
from aha.eval.prompt_limits import PromptFault, PromptLimits
from aha.tasks.catalog import PACKAGED
from aha.tasks.files import read_rows
from aha.tasks.protocol import Task

RowRule = Literal["refuse", "drop"]
DRAWN_BEFORE = 16  # problems of each split of a generator that are looked at before anything begins
MAX_SKIPS = 1_000  # bad problems one after another, after which there is no next one to wait for
NAMED = 3  # ids in a finding


# -- problems that are drawn ----------------------------------------------------------------


class ReadableProblems(Iterator[Problem]):
    """The problems of a stream whose prompts can be read, in the stream's order.

    Raises `RunStopped` where MAX_SKIPS in a row cannot, or all of a stream that ends.
    """

    def __init__(
        self,
        problems: Iterator[Problem],
        fault_of: Callable[[Problem], PromptFault | None],
        on_skip: Callable[[PromptFault], None],
    ):
        self.inner, self.fault_of, self.on_skip = problems, fault_of, on_skip
        self.given, self.skipped = 0, 0

    def __next__(self) -> Problem:
        fault = None
        for _ in range(MAX_SKIPS):
            problem = next(self.inner, None)
            if problem is None:
                break
            fault = self.fault_of(problem)
            if fault is None:
                self.given += 1
                return problem
            self.skipped += 1
            self.on_skip(fault)
        else:
            raise no_readable(fault, f"{MAX_SKIPS:,} problems one after another")
        if self.given or fault is None:
            raise StopIteration
        raise no_readable(fault, f"all {self.skipped:,} problems")

    def take_skipped(self) -> int:
        """How many were skipped since this was last called."""
        count, self.skipped = self.skipped, 0
        return count


def no_readable(fault: PromptFault | None, which: str) -> RunStopped:
    assert fault is not None, "a problem was skipped without a reason"
    return RunStopped(
        f"{which} with a prompt that the model cannot read, such as {fault.problem}: "
        f"{fault.reason}",
        fault.expected,
        fault.fix or "another task or model",
        check="skipped_problems",
    )


OnSkip = Callable[[str, PromptFault], object]


def ignore_skip(*unused: object) -> None:
    pass


class ReadableTask:
    """A task without the problems whose prompts the model cannot read.

    `bad` are the ids of a file's bad rows, which are left out; None for problems that are drawn,
    each of which is checked. `on_first_skip` gets the split and the fault when a drawn problem of
    that split is skipped for the first time; `skipped` counts them by split.
    """

    def __init__(
        self,
        inner: Task,
        limits: PromptLimits,
        bad: frozenset[str] | None,
        on_first_skip: OnSkip = ignore_skip,
    ):
        self.inner, self.limits, self.bad = inner, limits, bad
        self.name, self.on_first_skip = inner.name, on_first_skip
        self.skipped: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        """What a task may have besides, such as `notes` or `solve`."""
        if name == "inner":  # of a copy that is being made
            raise AttributeError(name)
        return getattr(self.inner, name)

    def problems(self, split: str, seed: int) -> Iterator[Problem]:
        """Those of the task that can be read, in its order."""
        problems = self.inner.problems(split, seed)
        if self.bad is not None:
            bad = self.bad
            return (problem for problem in problems if problem.id not in bad) if bad else problems

        def skip(fault: PromptFault) -> None:
            self.skipped[split] = self.skipped.get(split, 0) + 1
            if self.skipped[split] == 1:
                self.on_first_skip(split, fault)

        return ReadableProblems(problems, lambda p: self.limits.fault(p, self.inner), skip)

    def ask(self, problem: Problem) -> str:
        return self.inner.ask(problem)

    def grade(self, problem: Problem, text: str) -> Graded:
        return self.inner.grade(problem, text)


def skipped_problems(split: str, fault: PromptFault) -> Finding:
    """The finding for the first problem of a split that is skipped."""
    return warn(
        f"a problem of the split {split!r} is skipped, {fault.problem}: {fault.reason}; "
        "others like it will be, too",
        fault.fix or "nothing, where they are few: the metric `skipped` counts those of a step",
    )


# -- a task as a whole ----------------------------------------------------------------------


def readable(
    task: Task,
    limits: PromptLimits,
    settings: Mapping[str, Any],
    splits: tuple[str, ...],
    bad_rows: RowRule = "refuse",
    on_first_skip: OnSkip = ignore_skip,
) -> tuple[ReadableTask, list[Finding]]:
    """The task without what the model cannot read, and what there is to tell about it now; see
    `ReadableTask` for `on_first_skip`.

    `settings` are the task's, with its files under their keys if it has some; `splits` those that
    will be read: each must have a problem. Raises `DataError` or `ModelError` for a file with bad
    rows under "refuse", for a split of which nothing can be read, and for a generator most of whose
    prompts do not fit.
    """
    data = files_of(settings)
    bad: frozenset[str] | None
    if data and task.name in PACKAGED:
        check = remembered_rows(task, limits, settings)
        bad = frozenset(fault.problem for fault in check.faults)
        findings = told_of_file(check, limits, data, bad_rows)
    else:
        bad = None
        findings = told_of_draws(task, limits, splits)
    for split in splits:
        if next(ReadableTask(task, limits, bad).problems(split, 0), None) is None:
            dropped = ", all of whose rows are dropped" if findings else ""
            got = f"no problems in the split {split!r}{dropped}"
            fix = (
                "more rows (a hash parts a file); all for a test: `aha eval MODEL --split all`, or "
                "in training --task.test_data FILE"
            )
            raise DataError(got, "at least one", fix)
    return ReadableTask(task, limits, bad, on_first_skip), findings


def told_of_file(
    check: FileCheck, limits: PromptLimits, data: list[Path], bad_rows: RowRule
) -> list[Finding]:
    """What there is to tell about a file's bad rows. Raises as `readable` does."""
    faults = check.faults
    if not faults:
        return []
    first, longest = faults[0], max(fault.tokens for fault in faults)
    # Where all are too long, a shorter completion may be all that is missing.
    shorter = limits.shorter(longest) if all(fault.tokens for fault in faults) else ""
    files = " and ".join(map(str, data))
    if len(faults) == check.total:
        fix = shorter or first.fix or "another model"
        raise ModelError(f"{files}, every row: {first.reason}", first.expected, fix)
    named = ", ".join(place_in_file(fault, data) for fault in faults[:NAMED])
    more = f" and {len(faults) - NAMED:,} more" if len(faults) > NAMED else ""
    count = f"{len(faults):,} of {check.total:,} rows"
    if bad_rows == "refuse":
        fixes = (f"{limits.drop} (to leave them out)", shorter)
        raise DataError(
            f"{files}: {count} with a prompt that {limits.model} cannot read ({named}{more}); "
            f"the first: {first.reason}",
            first.expected,
            " or ".join(filter(None, fixes)),
        )
    return [
        Finding(
            "warn",
            f"{count} of {files} are dropped ({named}{more}); the first: {first.reason}",
            shorter or "mend them, or nothing, where they are few",
            "dropped_rows",
        )
    ]


def place_in_file(fault: PromptFault, data: list[Path]) -> str:
    """The number of a bad row, where its text is in one; and its id."""
    for path in data if fault.text else ():
        for number, row in read_rows(path, "problems"):
            cells = row.values() if isinstance(row, dict) else ()
            if any(fault.text in str(cell) for cell in cells):
                return f"row {number}, {fault.problem}"
    return fault.problem


def told_of_draws(task: Task, limits: PromptLimits, splits: tuple[str, ...]) -> list[Finding]:
    """What the first problems of each split say of a generator. Raises as `readable` does."""
    faults, looked_at = [], 0
    for split in splits:
        for problem in islice(task.problems(split, 0), DRAWN_BEFORE):
            looked_at += 1
            fault = limits.fault(problem, task)
            if fault:
                faults.append(fault)
    if not faults:
        return []
    longest = max(fault.tokens for fault in faults)
    shorter = limits.shorter(longest) if all(fault.tokens for fault in faults) else ""
    if 2 * len(faults) > looked_at:
        fix = shorter or faults[0].fix or "another model"
        raise ModelError(faults[0].reason, faults[0].expected, fix)
    message = f"of {looked_at} problems {len(faults)} will be skipped, such as {faults[0].problem}"
    fix = shorter or faults[0].fix or "nothing, where they are few"
    return [Finding("warn", f"{message}: {faults[0].reason}", fix, "skipped_problems")]
