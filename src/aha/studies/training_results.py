"""The results of a study that trains: by condition and seed, as rates with intervals."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

import numpy as np

from aha.eval.statistics import over_seeds, pass_at_k, student_half
from aha.studies.cell_files import Result
from aha.studies.judgement import (
    Array,
    Measured,
    difference_apart,
    difference_over_seeds,
    mean,
)
from aha.studies.study_page import StudyTable
from aha.web.svg_curves import Figure, Line


class Outcomes:
    """The finished cells of the conditions of a study."""

    def __init__(self, conditions: Sequence[str], seeds: Sequence[int], done: Mapping[str, Result]):
        self.conditions, self.seeds = conditions, seeds
        self.by_condition = {
            condition: {
                seed: done[name] for seed in seeds if (name := f"{condition}-seed{seed}") in done
            }
            for condition in conditions
        }

    def results(self, condition: str) -> list[Result]:
        """The results of a condition's finished seeds."""
        return list(self.by_condition[condition].values())

    def seeds_of(self, *conditions: str) -> list[int]:
        """The seeds that all of these conditions have finished."""
        return [s for s in self.seeds if all(s in self.by_condition[c] for c in conditions)]

    def rates(self, condition: str, test: str, seeds: Sequence[int]) -> list[Array]:
        """The rate of every problem [n], for each of these seeds."""
        own = self.by_condition[condition]
        return [rates_of(test_of(own[seed], test)) for seed in seeds]

    def rate(self, condition: str, test: str = "after") -> Measured | None:
        """The solve rate over the finished seeds; None without any."""
        rates_SN = self.rates(condition, test, self.seeds_of(condition))
        if not rates_SN:
            return None
        means = [float(rates.mean()) for rates in rates_SN]
        return Measured(mean(means), over_seeds(means, len(rates_SN[0])))

    def gap(
        self, one: Sequence[str], other: Sequence[str], test: str = "after"
    ) -> tuple[Measured | None, int]:
        """(mean rate of some conditions less that of others, seeds that all have finished)."""
        seeds = self.seeds_of(*one, *other)
        if not seeds:
            return None, 0
        sides = [
            [mean_of([self.rates(c, test, [seed])[0] for c in side]) for seed in seeds]
            for side in (one, other)
        ]
        return difference_over_seeds(*sides), len(seeds)

    def gap_of_tests(self, condition: str, one: str, other: str) -> tuple[Measured | None, int]:
        """(rate in one test less that in another one on the same problems, seeds)."""
        seeds = self.seeds_of(condition)
        if not seeds:
            return None, 0
        pairs = [self.rates(condition, test, seeds) for test in (one, other)]
        return difference_over_seeds(*pairs), len(seeds)

    def gap_of_problems(self, condition: str, one: str, other: str) -> tuple[Measured | None, int]:
        """(rate in one test less that in another one on other problems, seeds)."""
        seeds = self.seeds_of(condition)
        if not seeds:
            return None, 0
        return (
            difference_apart(*(self.rates(condition, test, seeds) for test in (one, other))),
            len(seeds),
        )

    def over_results(
        self, condition: str, value_of: Callable[[Result], float | None]
    ) -> float | None:
        """The mean of a number over the finished seeds; None where one lacks it."""
        values = [value_of(result) for result in self.results(condition)]
        known = [value for value in values if value is not None]
        return mean(known) if known and len(known) == len(values) else None

    def summary(self) -> dict[str, Any]:
        """The rates in study.json: conditions by name, each test with value, interval and seeds."""
        return {"conditions": {c: self.summary_of(c) for c in self.conditions}}

    def summary_of(self, condition: str) -> dict[str, Any]:
        """The tests of a condition."""
        results = self.results(condition)
        if not results:
            return {}
        named = [name for name in ("before", "after") if name in results[0]]
        rows = {}
        for test in [*named, *results[0].get("tests", {})]:
            rate = self.rate(condition, test)
            assert rate is not None, "there are results"
            rows[test] = {"rate": rate.value, "interval": list(rate.interval)}
            rows[test]["by_seed"] = [float(rates_of(test_of(r, test)).mean()) for r in results]
        return {"seeds": self.seeds_of(condition), "tests": rows}


def test_of(result: Result, test: str) -> Result:
    """A test of a cell: "before" or "after" of its run, or one of its own by name; `NAME, before`
    is that of the model before RL."""
    chosen: Result = result[test] if test in ("before", "after") else result["tests"][test]
    return chosen


def rates_of(test: Result) -> Array:
    """The rate of every problem."""
    return np.asarray(np.array(test["right"], float) / test["completions"])


def mean_of(arrays: Sequence[Array]) -> Array:
    """The mean of arrays, element by element."""
    return np.asarray(np.mean(np.stack(arrays), axis=0))


def pass_rates(test: Result, k: int) -> Array:
    """pass@k of every problem, estimated without bias from its completions."""
    n = test["completions"]
    return np.array([pass_at_k(n, right, k) for right in test["right"]], float)


def behaviour(test: Result, name: str) -> float | None:
    """A number of the detector of a test; None where it has none."""
    value = test.get("behaviors", {}).get(name)
    return None if value is None else float(value)


# -- tables and figures -------------------------------------------------------------------------


def number_text(value: float | None, digits: int = 2) -> str:
    """`0.31`, - where nothing was measured."""
    return "-" if value is None else f"{value:.{digits}f}"


def rate_text(rate: Measured | None) -> str:
    """`0.842 [0.818, 0.863]`, - where nothing was measured."""
    return "-" if rate is None else rate.text()


def rates_table(outcomes: Outcomes, title: str, tests: Sequence[str]) -> StudyTable:
    """A row for each condition: seeds, and the rate in every test."""
    rows = [
        (
            condition,
            str(len(outcomes.seeds_of(condition))),
            *(rate_text(outcomes.rate(condition, test)) for test in tests),
        )
        for condition in outcomes.conditions
    ]
    return StudyTable(
        title, ("condition", "seeds", *tests), rows, "Solve rates with 95 % intervals."
    )


BEHAVIOURS = (
    ("checks", "checks"),
    ("backtracks", "going back"),
    ("subgoals", "subgoals"),
    ("backward_chains", "backward"),
    ("line_errors", "wrong lines"),
)


def behaviours_table(outcomes: Outcomes) -> StudyTable:
    """Counts of a completion before and after RL, means over seeds."""
    header = ("condition", *(word for _, word in BEHAVIOURS), "tokens", "truncated")
    rows = []
    for condition in outcomes.conditions:
        counts = [
            change_text(outcomes, condition, partial(behaviour, name=name))
            for name, _ in BEHAVIOURS
        ]
        tokens = change_text(outcomes, condition, itemgetter("mean_tokens"), 0)
        truncated = change_text(outcomes, condition, itemgetter("truncated"), 3)
        rows.append((condition, *counts, tokens, truncated))
    note = "Means of a completion in the test before and after RL, counted by the exact detector."
    return StudyTable("Behaviours, before -> after", header, rows, note)


def change_text(
    outcomes: Outcomes,
    condition: str,
    number_of: Callable[[Result], float | None],
    digits: int = 2,
    tests: tuple[str, str] = ("before", "after"),
) -> str:
    """`1.20 -> 3.40`: a number of two tests, means over the seeds."""

    def end(result: Result, when: str) -> float | None:
        return number_of(test_of(result, when))

    before, after = (outcomes.over_results(condition, partial(end, when=when)) for when in tests)
    return f"{number_text(before, digits)} -> {number_text(after, digits)}"


MOST_BANDS = 4  # lines of a figure; the bands of more hide each other


def mean_curve(outcomes: Outcomes, condition: str, key: str, band: bool = False) -> Line:
    """The mean over seeds of a number of the validations, by step; `band`: with the 95 % interval
    over the seeds, where there are several."""
    by_step: dict[float, list[float]] = {}
    results = outcomes.results(condition)
    for result in results:
        for row in result.get("curve", ()):
            if row.get(key) is not None:
                by_step.setdefault(row["step"], []).append(row[key])
    steps = sorted(step for step, values in by_step.items() if len(values) == len(results))
    values = [by_step[step] for step in steps]
    ends, most = [], 1.0 if key == "solve_rate" else float("inf")
    if band and len(results) > 1:
        halves = [(mean(one), student_half(one)) for one in values]
        ends = [(max(0.0, middle - half), min(most, middle + half)) for middle, half in halves]
    return Line(condition, steps, list(map(mean, values)), ends)


def measured_line(label: str, xs: Sequence[float], values: Sequence[Measured | None]) -> Line:
    """A line through measured values, with their intervals as its band."""
    ys = [None if one is None else one.value for one in values]
    return Line(label, xs, ys, [None if one is None else one.interval for one in values])


def learning_curves(outcomes: Outcomes, conditions: Sequence[str] | None = None) -> list[Figure]:
    """Solve rate and length of the validations by step, a line for each condition."""
    own = conditions or outcomes.conditions
    bands = len(own) <= MOST_BANDS and any(len(outcomes.results(c)) > 1 for c in own)
    note = "validation problems, mean over seeds" + (", with 95 % intervals" if bands else "")
    return [
        Figure(
            "Solve rate by step of RL",
            [mean_curve(outcomes, c, "solve_rate", bands) for c in own],
            rate=True,
            note=note,
        ),
        Figure(
            "Tokens of a completion by step",
            [mean_curve(outcomes, c, "mean_tokens", bands) for c in own],
            note=note,
        ),
    ]
