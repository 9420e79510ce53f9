"""Two models on the same held-out problems: before and after of a run, or the ends of two runs."""

from dataclasses import dataclass
from pathlib import Path

from aha.eval.statistics import paired_bootstrap, wilson
from aha.web.file_reader import all_rows
from aha.web.runs import RunFolder

# What differs between two runs and decides nothing about the result: the price is the machine's.
IDLE_KEYS = {"show_every", "checkpoint_every", "keep_last", "usd_per_hour", "watts"}


@dataclass(frozen=True)
class PairedComparison:
    """Right or wrong on the problems that both have answered, with the interval of the gain."""

    problems: int
    first_right: int
    second_right: int
    gain: float
    interval: tuple[float, float]
    pairs: list[tuple[dict, dict]]  # all of them, in the order of the first file
    won: list[tuple[dict, dict]]  # wrong in the first, right in the second
    lost: list[tuple[dict, dict]]
    unmatched: int  # problems that only one of the two has answered

    @property
    def verdict(self) -> str:
        low, high = self.interval
        if low > 0:
            return "better"
        return "worse" if high < 0 else "no evidence"

    def rates(self) -> tuple[float, float]:
        return self.first_right / self.problems, self.second_right / self.problems

    def intervals(self) -> tuple[tuple[float, float], tuple[float, float]]:
        return wilson(self.first_right, self.problems), wilson(self.second_right, self.problems)


def paired(first: Path | None, second: Path | None) -> PairedComparison | None:
    """Compare two files of completions problem by problem; None where no problem is in both.

    The first completion of a problem counts. Problems are the same when their ids are.
    """
    if first is None or second is None:
        return None
    left, right = by_problem(first), by_problem(second)
    shared = [problem for problem in left if problem in right]
    if not shared:
        return None
    pairs = [(left[problem], right[problem]) for problem in shared]
    before = [old.get("correct") is True for old, _ in pairs]
    after = [new.get("correct") is True for _, new in pairs]
    flags = list(zip(pairs, before, after, strict=True))
    return PairedComparison(
        len(shared),
        sum(before),
        sum(after),
        (sum(after) - sum(before)) / len(shared),
        paired_bootstrap(before, after),
        pairs,
        [pair for pair, was, now in flags if now and not was],
        [pair for pair, was, now in flags if was and not now],
        len(left) + len(right) - 2 * len(shared),
    )


def by_problem(path: Path) -> dict[str, dict]:
    """The first completion of each problem, in the file's order."""
    found: dict[str, dict] = {}
    for row in all_rows(path):
        if isinstance(row.get("id"), str):
            found.setdefault(row["id"], row)
    return found


def config_differences(first: dict, second: dict) -> list[tuple[str, object, object]]:
    """(dotted key, value here, value there) wherever two configs differ; None where it is unset."""
    left, right = flatten(first), flatten(second)
    keys = [*left, *(key for key in right if key not in left)]
    return [
        (key, left.get(key), right.get(key))
        for key in keys
        if left.get(key) != right.get(key) and key not in IDLE_KEYS
    ]


def flatten(config: dict, prefix: str = "") -> dict[str, object]:
    """{"optim.lr": 3e-4} from {"optim": {"lr": 3e-4}}."""
    flat: dict[str, object] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def compare_runs(first: RunFolder, second: RunFolder) -> PairedComparison | None:
    """The trained models of two runs on the held-out problems that both were tested on."""
    return paired(first.completion_file("after"), second.completion_file("after"))


def compare_before_after(run: RunFolder) -> PairedComparison | None:
    """The same held-out problems before and after one run's training."""
    return paired(run.completion_file("before"), run.completion_file("after"))
