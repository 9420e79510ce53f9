"""Comparisons on the same problems: of two runs, of before and after, of all evaluations of a run.

`PairedComparison` is for two files of completions, `history_page` for every evaluation of one run.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aha.core.control_characters import visible
from aha.eval.statistics import paired_bootstrap, wilson
from aha.store.guarded_files import GuardedFile, read_all_rows
from aha.web.completions import CompletionIndex, IndexCache, IndexEntry
from aha.web.curves import evenly_spaced
from aha.web.event_spans import Row, puzzle_of
from aha.web.runs import RunFolder, clipped

# Settings that do not change the result; the price is that of the machine.
IGNORED_KEYS = {"show_every", "checkpoint_every", "keep_last", "usd_per_hour", "watts"}

MAX_SETTINGS = 1_000  # of a config that are shown

VERDICTS = {
    "better": "Better: the whole interval is above 0.",
    "worse": "Worse: the whole interval is below 0.",
    "no evidence": "No evidence of a change: the interval contains 0.",
}

Pair = tuple[Row, Row]  # one problem's completion by the first model and by the second


# -- two files -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PairedComparison:
    """Verdicts on the problems that both models have answered, with the interval of the gain."""

    problems: int
    first_right: int
    second_right: int
    gain: float  # solve rate of the second less that of the first
    interval: tuple[float, float]  # 95 %, paired bootstrap
    pairs: list[Pair]  # in the order of the first file
    won: list[Pair]  # wrong in the first, right in the second
    lost: list[Pair]  # right in the first, wrong in the second
    unmatched: int  # problems that only one of the two has answered

    @property
    def verdict(self) -> str:
        """better or worse where the interval excludes 0, else "no evidence"."""
        low, high = self.interval
        if low > 0:
            return "better"
        return "worse" if high < 0 else "no evidence"

    def rates(self) -> tuple[float, float]:
        """Both solve rates on the shared problems."""
        return self.first_right / self.problems, self.second_right / self.problems

    def intervals(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Wilson's 95 % interval of each solve rate."""
        return wilson(self.first_right, self.problems), wilson(self.second_right, self.problems)


def compare_files(
    first: Path | GuardedFile | None,
    second: Path | GuardedFile | None,
    faults: list[str] | None = None,
) -> PairedComparison | None:
    """Compare two files of completions problem by problem; None where they share no problem.

    Problems are the same when their ids are. The first completion of a problem counts. What could
    not be read is appended to `faults`.
    """
    if first is None or second is None:
        return None
    (left, left_faults), (right, right_faults) = first_completions(first), first_completions(second)
    if faults is not None:
        faults += [*left_faults, *right_faults]
    shared = [problem for problem in left if problem in right]
    if not shared:
        return None
    pairs = [(left[problem], right[problem]) for problem in shared]
    before = [old.get("correct") is True for old, _ in pairs]
    after = [new.get("correct") is True for _, new in pairs]
    verdicts = list(zip(pairs, before, after, strict=True))
    return PairedComparison(
        problems=len(shared),
        first_right=sum(before),
        second_right=sum(after),
        gain=(sum(after) - sum(before)) / len(shared),
        interval=paired_bootstrap(before, after),
        pairs=pairs,
        won=[pair for pair, was, now in verdicts if now and not was],
        lost=[pair for pair, was, now in verdicts if was and not now],
        unmatched=len(left) + len(right) - 2 * len(shared),
    )


def first_completions(file: Path | GuardedFile) -> tuple[dict[str, Row], list[str]]:
    """(the first completion of each problem by the problem's id, what could not be read)."""
    first: dict[str, Row] = {}
    rows, faults = read_all_rows(file)
    for row in rows:
        if isinstance(row.get("id"), str):
            first.setdefault(row["id"], row)
    without = sum(not isinstance(row.get("id"), str) for row in rows)
    return first, [*faults, *rows_without_id(GuardedFile.of(file), without)]


def rows_without_id(file: GuardedFile, count: int) -> list[str]:
    """The fault of a file with so many rows that belong to no problem; [] where there are none."""
    return [f"{file.name}: {count} rows without a problem's id"] if count else []


def config_differences(first: Row, second: Row) -> list[tuple[str, object, object]]:
    """(dotted key, first value, second value) where two configs differ; None where it is unset."""
    left, right = flatten(first), flatten(second)
    keys = [*left, *(key for key in right if key not in left)]
    return [
        (key, left.get(key), right.get(key))
        for key in keys
        if left.get(key) != right.get(key) and key not in IGNORED_KEYS
    ]


def flatten(config: Row, prefix: str = "") -> dict[str, object]:
    """{"optim.lr": 3e-4} from {"optim": {"lr": 3e-4}}. An empty section is a value."""
    flat: dict[str, object] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def compare_runs(
    first: RunFolder, second: RunFolder, faults: list[str] | None = None
) -> PairedComparison | None:
    """The trained models of two runs on the held-out problems that both were tested on."""
    return compare_files(first.completion_file("after"), second.completion_file("after"), faults)


def compare_before_after(
    run: RunFolder, faults: list[str] | None = None
) -> PairedComparison | None:
    """One run's held-out problems before its training and after it."""
    return compare_files(run.completion_file("before"), run.completion_file("after"), faults)


def comparison_of(first: RunFolder, second: RunFolder) -> Row | None:
    """The second run against the first; None where they share no problem."""
    faults: list[str] = []
    comparison = compare_runs(first, second, faults)
    names = (f"in {visible(first.name)}", f"in {visible(second.name)}")
    return None if comparison is None else comparison_row(comparison, faults, names)


def settings_of(content: Row) -> list[tuple[str, str]]:
    """(dotted key, value as text) of a JSON file, at most MAX_SETTINGS of them."""
    flat = list(flatten(content).items())
    shown = [(clipped(key), setting_text(value)) for key, value in flat[:MAX_SETTINGS]]
    more = len(flat) - len(shown)
    return [*shown, ("...", f"{more} more")] if more else shown


def comparison_row(
    comparison: PairedComparison,
    faults: list[str],
    names: tuple[str, str] = ("before", "after"),
) -> Row:
    """A comparison without its completions; `faults` say what could not be read."""
    return {
        "faults": faults,
        "points": f"{100 * comparison.gain:+.1f} points",
        "text": comparison_words(comparison, names),
        "words": VERDICTS[comparison.verdict],
        "problems": comparison.problems,
        "rates": comparison.rates(),
        "intervals": comparison.intervals(),
        "gain": comparison.gain,
        "interval": comparison.interval,
        "verdict": comparison.verdict,
        "won": len(comparison.won),
        "lost": len(comparison.lost),
        "unmatched": comparison.unmatched,
    }


def comparison_words(comparison: PairedComparison, names: tuple[str, str]) -> str:
    """The interval of the gain, both solve rates with theirs, and how many were won and lost."""
    low, high = comparison.interval
    sides = [
        f"{100 * rate:.1f} % [{100 * ends[0]:.1f} %, {100 * ends[1]:.1f} %] {name}"
        for rate, ends, name in zip(comparison.rates(), comparison.intervals(), names, strict=True)
    ]
    return (
        f"[{100 * low:+.1f}, {100 * high:+.1f}] from {' to '.join(sides)}, on the same "
        f"{comparison.problems} held-out problems: {len(comparison.won)} won, "
        f"{len(comparison.lost)} lost."
    )


def setting_differences(configs: Sequence[Row]) -> list[tuple[str, ...]]:
    """(key, its value in each config as text) of all keys in which some of them differ."""
    first, *others = configs
    keys = dict.fromkeys(key for other in others for key, *_ in config_differences(first, other))
    flat = [flatten(config) for config in configs]
    return [
        (clipped(key), *(setting_text(config.get(key)) for config in flat))
        for key in list(keys)[:MAX_SETTINGS]
    ]


def setting_text(value: object) -> str:
    """A setting as JSON for a page; a dash where it is unset."""
    if value is None:
        return "–"
    return clipped(json.dumps(value, ensure_ascii=False))


# -- every evaluation of a run ------------------------------------------------------------------

FAMILIES = {"test": "test: before, after", "validation": "validation: every evaluation"}
ALL = "all"
CHANGES = {
    "learnt": "✗→✓ learnt",
    "lost": "✓→✗ lost",
    "always": "✓ always",
    "never": "✗ never",
    ALL: "all",
}
MAX_FILES = 12
PAGE_SIZE = 40

# A cell for each evaluation; None where it has not reached the problem.
Cells = list[IndexEntry | None]


def files_of(run: RunFolder, family: str) -> list[str]:
    """The completion files of a family in the order of steps, at most MAX_FILES of them."""
    names = run.completion_files()
    if family == "test":
        return [name for name in ("before", "after") if name in names]
    evals = sorted((name for name in names if name.startswith("eval_")), key=lambda n: int(n[5:]))
    return evenly_spaced(evals, MAX_FILES)


def history_page(run: RunFolder, cache: IndexCache, family: str, change: str, start: int) -> Row:
    """One page of problems, with a cell for each evaluation, for the dashboard.

    `change` is a key of CHANGES, and any other text stands for all problems; `start` is the first
    line.
    """
    files, indexes = [], []
    for name in files_of(run, family):
        path = run.completion_file(name)
        if path is not None:
            files.append(name)
            indexes.append(cache.index(path))
    columns = [_first_entries(index) for index in indexes]
    # A problem that one evaluation has not reached yet gets an empty cell there.
    problems = list(dict.fromkeys(problem for column in columns for problem in column))
    lines = [[column.get(problem) for column in columns] for problem in problems]
    every = change not in CHANGES or change == ALL
    matching = [cells for cells in lines if every or change == change_of(cells)]
    families = {name: label for name, label in FAMILIES.items() if files_of(run, name)}
    return {
        "family": family,
        "families": list((families or dict(list(FAMILIES.items())[:1])).items()),
        "changes": list(CHANGES.items()),
        "files": files,
        "faults": [fault for index in indexes for fault in _faults_of(index)],
        "problems": len(lines),
        "matching": len(matching),
        "start": start,
        "page": PAGE_SIZE,
        "lines": [_line(cells, indexes) for cells in matching[start : start + PAGE_SIZE]],
    }


def change_of(cells: Cells) -> str:
    """learnt, lost, always or never: the last verdict against the first."""
    verdicts = [cell.correct for cell in cells if cell is not None]
    if verdicts[0] != verdicts[-1]:
        return "learnt" if verdicts[-1] else "lost"
    return "always" if verdicts[0] else "never"


def _first_entries(index: CompletionIndex) -> dict[str, IndexEntry]:
    """The first completion of each problem, by the digest of its id; rows without one are left
    out."""
    entries: dict[str, IndexEntry] = {}
    for entry in index.entries:
        if entry.problem:
            entries.setdefault(entry.problem, entry)
    return entries


def _faults_of(index: CompletionIndex) -> list[str]:
    without = sum(not entry.problem for entry in index.entries)
    return [*index.faults(), *rows_without_id(index.file, without)]


def _line(cells: Cells, indexes: list[CompletionIndex]) -> Row:
    index, entry = next(
        (index, cell) for index, cell in zip(indexes, cells, strict=True) if cell is not None
    )
    row = index.rows([entry])[0]
    puzzle = puzzle_of(row)
    return {
        "puzzle": puzzle and {"numbers": puzzle[0], "target": puzzle[1]},
        "prompt": visible(str(row.get("prompt", ""))[:200]),
        "change": change_of(cells),
        "cells": [cell and [cell.place, cell.correct, cell.tokens] for cell in cells],
    }
