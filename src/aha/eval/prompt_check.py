"""Problems whose prompt a model cannot read: refused, left out or skipped, and always told.

A prompt can be read when the task writes it, the model's tokenizer holds all of its text, and the
model has the positions for it and for a completion after it.

A file of problems is checked whole, once: every row of every split, before anything is trained or
graded. What the check has seen is remembered in the user's cache folder under a hash of the file,
the tokenizer and the lengths. Problems that are only drawn (a generator's, another author's task)
are checked when they are drawn, and a bad one is skipped: which one is a function of the problem
alone, so the next one of the same stream takes its place in a resumed run as well.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import aha
from aha.core.errors import AhaError, ConfigError, DataError, ModelError, RunStopped
from aha.core.findings import Finding, warn
from aha.core.records import Graded, Problem, Prompt
from aha.machine.c_build import cache_folder
from aha.model.tokenizer import Tokenizer
from aha.tasks.catalog import PACKAGED
from aha.tasks.files import read_rows
from aha.tasks.protocol import Task

BadRows = Literal["refuse", "drop"]
SPLITS = ("train", "validation", "test", "test_targets")
DRAWN_BEFORE = 16  # problems of each split of a generator that are looked at before anything begins
MAX_SKIPS = 1_000  # bad problems one after another, after which there is no next one to wait for
CACHE_VERSION = 1  # raise it where a change here finds other faults
NAMED = 3  # ids in a finding
RECOGNISED = 200  # characters of a row's text: enough to recognise it


@dataclass(frozen=True)
class PromptLimits:
    """What a prompt has to fit: a tokenizer, and `positions` less the tokens of a completion.

    The others are for errors: the model's name, and how its user types the token limit and the rule
    for bad rows.
    """

    tokenizer: Tokenizer
    positions: int
    max_new_tokens: int
    model: str
    option: str = "--rollout.max_new_tokens"
    drop: str = "--task.bad_rows drop"

    def fault(self, problem: Problem, task: Task) -> "PromptFault | None":
        """What is wrong with a problem's prompt; None where the model can read it."""
        try:
            tokens = len(Prompt.of(problem, task, self.tokenizer).tokens)
        except AhaError as error:
            faulty = (error.got, 0, error.wanted, error.fix, text_of(problem))
            return PromptFault(problem.id, *faulty)
        if not tokens:
            return PromptFault(problem.id, "an empty prompt", 0, "at least one token", "mend `ask`")
        if tokens + self.max_new_tokens > self.positions:
            reason = f"{self.option[2:]} {self.max_new_tokens} after a prompt of {tokens} tokens"
            expected = f"at most the {self.positions} positions of {self.model} together"
            return PromptFault(problem.id, reason, tokens, expected, "", text_of(problem))
        return None

    def shorter(self, longest: int) -> str:
        """The option with which prompts of up to `longest` tokens fit; empty where none does."""
        left = self.positions - longest
        return f"{self.option} {left}" if left > 0 else ""


@dataclass(frozen=True)
class PromptFault:
    """A problem whose prompt cannot be read, and why. `tokens` is 0 unless it is too long; `text`
    is the beginning of the problem's own text, by which its row can be recognised."""

    problem: str
    reason: str
    tokens: int = 0
    expected: str = "a prompt that the model can read"
    fix: str = ""
    text: str = ""


def text_of(problem: Problem) -> str:
    """The beginning of the first text that a problem was given; empty where there is none."""
    texts = (value for value in problem.given.values() if isinstance(value, str))
    return next(texts, "")[:RECOGNISED]


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


def _ignore(*unused: object) -> None:
    pass


class ReadableTask:
    """A task without the problems whose prompts the model cannot read.

    `bad` are the ids of a file's bad rows, which are left out; None for problems that are drawn,
    each of which is checked. `on_first_skip` gets the split and the fault when a drawn problem of
    that split is skipped for the first time; `skipped` counts them by split.
    """

    def __init__(self, inner: Task, limits: PromptLimits, bad: frozenset[str] | None):
        self.inner, self.limits, self.bad = inner, limits, bad
        self.name = inner.name
        self.on_first_skip: Callable[[str, PromptFault], object] = _ignore
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


# -- problems of a file ---------------------------------------------------------------------


@dataclass(frozen=True)
class FileCheck:
    """The rows of a file of problems: how many each split has, and which cannot be read."""

    rows: Mapping[str, int]
    faults: list[PromptFault]

    @property
    def total(self) -> int:
        return sum(self.rows.values())


def check_rows(task: Task, limits: PromptLimits) -> FileCheck:
    """Look at the prompt of every problem that a task has in its file."""
    rows: dict[str, int] = {}
    faults = []
    for split in SPLITS:
        with suppress(ConfigError):  # a task without that split
            for problem in task.problems(split, 0):
                rows[split] = rows.get(split, 0) + 1
                fault = limits.fault(problem, task)
                if fault:
                    faults.append(fault)
    return FileCheck(rows, faults)


def remembered_rows(task: Task, limits: PromptLimits, settings: Mapping[str, Any]) -> FileCheck:
    """`check_rows`, once for each file, tokenizer, form of the prompt and lengths."""
    name = f"{key_of(task, limits, settings)}.json"
    if name not in _checked:
        path = cache_folder() / "prompts" / name
        check = read_check(path)
        if check is None:
            check = check_rows(task, limits)
            write_check(path, check)
        _checked[name] = check
    return _checked[name]


_checked: dict[str, FileCheck] = {}  # of this process, where the cache folder cannot be written


def files_of(settings: Mapping[str, Any]) -> list[Path]:
    """The files of problems among a task's settings."""
    return [Path(settings[key]) for key in ("data", "test_data") if settings.get(key)]


def key_of(task: Task, limits: PromptLimits, settings: Mapping[str, Any]) -> str:
    """A hash of all that the faults of a file depend on. Some prompts are part of it: they change
    with the code that writes them."""
    tokenizer = limits.tokenizer
    prompts = []
    for split in SPLITS:
        with suppress(AhaError):
            prompts += [task.ask(problem) for problem in islice(task.problems(split, 0), 1)]
    parts = (
        *(CACHE_VERSION, aha.__version__, task.name, sorted(settings.items()), prompts),
        *(limits.positions, limits.max_new_tokens, limits.model, limits.option),
        *(tokenizer.template, tokenizer.settings, tokenizer.stop_ids),
    )
    digest = hashlib.blake2b(repr(parts).encode(errors="surrogatepass"), digest_size=16)
    digest.update(tokenizer.fast.to_str().encode())
    for path in files_of(settings):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()


def read_check(path: Path) -> FileCheck | None:
    """What was remembered; None where nothing was, or where it is damaged."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        rows = {str(split): int(count) for split, count in raw["rows"].items()}
        return FileCheck(rows, [PromptFault(**fault) for fault in raw["faults"]])
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def write_check(path: Path, check: FileCheck) -> None:
    """Remember it, complete or not at all; without a word where the folder cannot be written."""
    content = json.dumps({"rows": check.rows, "faults": [asdict(f) for f in check.faults]})
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as out:
                out.write(content)
            os.replace(partial, path)
        except OSError:  # a full disk
            os.unlink(partial)


# -- both ------------------------------------------------------------------------------------


def readable(
    task: Task,
    limits: PromptLimits,
    settings: Mapping[str, Any],
    splits: tuple[str, ...],
    bad_rows: BadRows = "refuse",
) -> tuple[ReadableTask, list[Finding]]:
    """The task without what the model cannot read, and what there is to tell about it.

    `settings` are the task's, with its files under their keys if it has some; `splits` those that
    will be read: each must have a problem. Raises `DataError` or `ModelError` for a file with bad
    rows under "refuse", for a split of which nothing can be read, and for a generator most of whose
    prompts do not fit.
    """
    data = files_of(settings)
    if data and task.name in PACKAGED:
        check = remembered_rows(task, limits, settings)
        readable_task = ReadableTask(task, limits, frozenset(f.problem for f in check.faults))
        findings = told_of_file(check, limits, data, bad_rows)
    else:
        readable_task = ReadableTask(task, limits, None)
        findings = told_of_draws(task, limits, splits)
    for split in splits:
        if next(iter(readable_task.problems(split, 0)), None) is None:
            dropped = ", all of whose rows are dropped" if findings else ""
            got = f"no problems in the split {split!r}{dropped}"
            fix = "more rows (a hash parts a file); all for a test: `aha eval --split all`, or in "
            raise DataError(got, "at least one", fix + "training --task.test_data FILE")
    readable_task.skipped.clear()
    return readable_task, findings


def told_of_file(
    check: FileCheck, limits: PromptLimits, data: list[Path], bad_rows: BadRows
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
