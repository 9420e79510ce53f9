"""File what `teach_study.py` has done in results/teaching, and print it with verdicts.

    python scripts/teach_table.py        # where teach_study.py has run; elsewhere it prints alone

results/teaching/STUDY.jsonl has a row for each way and seed. Means over seeds with 95 % intervals;
a verdict where the intervals part.
"""

import json
from itertools import combinations
from pathlib import Path
from typing import Any

from teach_study import ROOT, ROWS

from aha.eval.statistics import over_seeds
from aha.store.run_folder import read_rows
from aha.studies.judgement import MIN_SEEDS, compared

RESULTS = ROOT / "results" / "teaching"
Row = dict[str, Any]


def file_rows() -> None:
    """Gather the rows of each study that lie here."""
    for folder in sorted({path.parent for path in ROWS.glob("*/*_seed_*.json")}):
        RESULTS.mkdir(parents=True, exist_ok=True)
        rows = [json.loads(path.read_text()) for path in sorted(folder.glob("*_seed_*.json"))]
        lines = [json.dumps(row) + "\n" for row in rows]
        (RESULTS / f"{folder.name}.jsonl").write_text("".join(lines))


def show_table(path: Path) -> None:
    """A row for each way, and what follows."""
    by_way: dict[str, list[Row]] = {}
    for row in read_rows(path):
        by_way.setdefault(row["way"], []).append(row)
    print(f"\n{path.stem}\n\n| way | seeds | before | after, 95 % | tokens | cents |")
    print("|---|---|---|---|---|---|")
    for way, own in by_way.items():
        low, high = interval_of(own)
        print(
            f"| {way} | {len(own)} | {text_of(mean_of(own, 'before', 'solve_rate'), 3)} | "
            f"{text_of(mean_of(own, 'after', 'solve_rate'), 3)} [{low:.3f}, {high:.3f}] | "
            f"{text_of(mean_of(own, 'before', 'mean_tokens'), 1)} -> "
            f"{text_of(mean_of(own, 'after', 'mean_tokens'), 1)} | {text_of(cents_of(own), 2)} |"
        )
    for line in verdicts(by_way):
        print(line)


def verdicts(by_way: dict[str, list[Row]]) -> list[str]:
    """Which way is above which; and the share of the teacher's rate, where there is one."""
    lines = []
    for one, other in combinations(by_way, 2):
        if min(len(by_way[one]), len(by_way[other])) < MIN_SEEDS:
            lines.append(f"{one}, {other}: fewer than {MIN_SEEDS} seeds, no verdict")
        else:
            where = compared(interval_of(by_way[one]), interval_of(by_way[other]))
            lines.append(f"{one}, {other}: {where}")
    for way, own in by_way.items():
        teachers = [row["teacher_rate"]["solve_rate"] for row in own if "teacher_rate" in row]
        rate = mean_of(own, "after", "solve_rate")
        if teachers and rate is not None:
            share = rate * len(teachers) / sum(teachers)
            lines.append(f"{way}: {share:.2f} of the teacher's rate")
        ends = [mean_of(own, when, "mean_tokens") for when in ("before", "after")]
        before = mean_of(own, "before", "solve_rate")
        if None not in (*ends, before, rate):
            shorter = ends[1] / ends[0] - 1  # type: ignore[operator]  # none of them is None
            gained = rate - before  # type: ignore[operator]
            lines.append(f"{way}: tokens {shorter:+.0%}, solve rate {gained:+.3f}")
    return lines


def interval_of(rows: list[Row]) -> tuple[float, float]:
    """Of the rates after training."""
    rates = [row["after"]["solve_rate"] for row in rows]
    return over_seeds(rates, rows[0]["after"]["problems"])


def mean_of(rows: list[Row], when: str, key: str) -> float | None:
    """A number of the tests, mean over the seeds; None where it was not measured."""
    values = [row.get(when, {}).get(key) for row in rows]
    return None if None in values else sum(values) / len(values)


def cents_of(rows: list[Row]) -> float | None:
    """What a seed has cost, in the mean; None where one is not known."""
    usd = [row["usd"] for row in rows]
    return None if None in usd else 100 * sum(usd) / len(usd)


def text_of(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    file_rows()
    for study in sorted(RESULTS.glob("*.jsonl")):
        show_table(study)
