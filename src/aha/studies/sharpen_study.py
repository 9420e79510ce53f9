"""The study `sharpen`: does RL add what a model could not do, or make likelier what it could?

pass@1 to pass@64 of the same problems before and after RL, for a base that has read searches and
for one that has read guesses alone, and by difficulty. Sources: Yue et al., arXiv 2504.13837;
the two bases as in Kempner's Backtrack, arXiv 2504.07052.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from aha.corpus.bases import GUESSES
from aha.studies.cell_files import Result
from aha.studies.judgement import (
    Array,
    Measured,
    difference_over_seeds,
    rate_over_seeds,
    ratio_over_seeds,
)
from aha.studies.study_bases import guesser
from aha.studies.study_page import StudyTable
from aha.studies.training_cells import Chain, Scale
from aha.studies.training_results import (
    Outcomes,
    learning_curves,
    measured_line,
    pass_rates,
    rate_text,
    test_of,
)
from aha.studies.training_stages import HeldOutTest
from aha.studies.training_study import Claim, TrainingStudy
from aha.web.svg_curves import Figure

FULL = Scale(tokens=0, steps=100, limit=320, final=0)
QUICK = Scale(100_000, steps=2, prompts=4, group_size=4, limit=96, every=0, final=0)
KS = (1, 2, 4, 8, 16, 32, 64)
# Difficulties by the number of different solutions of a puzzle.
LEVELS = {"one": range(1, 2), "more": range(2, 10_000)}
TEST, BEFORE = "problems", "problems, before"
LENGTHS = {"search": 70.0, "direct": 20.0}


class SharpenStudy(TrainingStudy):
    """Implements `Study`."""

    name = "sharpen"
    title = "Sharpen or add: what does RL change in pass@k?"
    claim = (
        "If RL sharpens, pass@1 rises and pass@64 does not, and hardly a problem is solved after "
        "it alone. If it adds, pass@64 rises as well."
    )
    varies = ("base",)

    @property
    def scale(self) -> Scale:
        return QUICK if self.quick else FULL

    @property
    def conditions(self) -> tuple[str, ...]:
        return tuple(LENGTHS)

    def chain(self, condition: str, seed: int) -> Chain:
        scale = self.scale
        n, k = (12, 8) if self.quick else (250, 64)
        test = HeldOutTest(TEST, n=n, completions=k, max_new_tokens=scale.limit)
        direct = scale.base("base-direct", 0, GUESSES) if self.quick else guesser()
        base = direct if condition == "direct" else "aha-tiny"
        return Chain(base, None, scale.recipe(seed), (test,), True, LENGTHS[condition])

    def claims(self, outcomes: Outcomes) -> list[Claim]:
        direct_1 = compared_after(outcomes, "direct", 1, ratio_over_seeds)
        direct_32 = compared_after(outcomes, "direct", 32, difference_over_seeds)
        search_1 = compared_after(outcomes, "search", 1, difference_over_seeds)
        search_64 = compared_after(outcomes, "search", 64, difference_over_seeds)
        direct, search = (len(outcomes.seeds_of(c)) for c in ("direct", "search"))
        return [
            Claim(13, "direct: pass@1 after RL over before", "8.5 -> 33", direct_1, direct, 2.0),
            Claim(13, "direct: change of pass@32", "69.5 -> 42.5", direct_32, direct, most=0.0),
            Claim(19, "search: change of pass@1", "rises", search_1, search, 0.0),
            Claim(19, "search: change of pass@64", "falls", search_64, search, most=0.0),
        ]

    def tables(self, outcomes: Outcomes) -> list[StudyTable]:
        return [pass_table(outcomes), levels_table(outcomes), only_table(outcomes)]

    def figures(self, outcomes: Outcomes) -> list[Figure]:
        return [
            *(pass_figure(outcomes, c) for c in outcomes.conditions),
            *learning_curves(outcomes),
        ]


def over(
    outcomes: Outcomes, condition: str, value_of: Callable[[Result], Array]
) -> Measured | None:
    """A rate of every problem, over the finished seeds; None without a problem."""
    values = [value_of(result) for result in outcomes.results(condition)]
    return rate_over_seeds(values) if values and all(map(len, values)) else None


def most_k(outcomes: Outcomes) -> list[int]:
    """The k for which there are enough completions."""
    counts = [
        test_of(result, TEST)["completions"]
        for condition in outcomes.conditions
        for result in outcomes.results(condition)
    ]
    return [k for k in KS if counts and k <= min(counts)]


def compared_after(
    outcomes: Outcomes,
    condition: str,
    k: int,
    compare: Callable[[Sequence[Array], Sequence[Array]], Measured | None],
) -> Measured | None:
    """pass@k after RL beside that before; None without a finished seed or enough completions."""
    results = outcomes.results(condition)
    if not results or k not in most_k(outcomes):
        return None
    after, before = ([passed(r, test, k) for r in results] for test in (TEST, BEFORE))
    return compare(after, before)


def passed(result: Result, test: str, k: int) -> Array:
    """pass@k of every problem of a test."""
    return pass_rates(test_of(result, test), k)


def pass_table(outcomes: Outcomes) -> StudyTable:
    """pass@k before and after."""
    ks, rows = most_k(outcomes), []
    for condition in outcomes.conditions:
        for when, test in (("before", BEFORE), ("after", TEST)):
            cells = [
                rate_text(over(outcomes, condition, partial(passed, test=test, k=k))) for k in ks
            ]
            rows.append((condition, when, *cells))
    return StudyTable("pass@k", ("base", "RL", *(f"pass@{k}" for k in ks)), rows)


def levels_table(outcomes: Outcomes) -> StudyTable:
    """pass@1 and the largest pass@k by difficulty."""
    ks, rows = most_k(outcomes), []
    for condition in outcomes.conditions:
        for level, ways in LEVELS.items():
            for k in (ks[0], ks[-1]) if ks else ():
                cells = [
                    rate_text(over(outcomes, condition, partial(at_level, test=t, k=k, ways=ways)))
                    for t in (BEFORE, TEST)
                ]
                rows.append((condition, level, f"pass@{k}", *cells))
    header = ("base", "solutions of a puzzle", "", "before", "after")
    return StudyTable("By difficulty", header, rows)


def at_level(result: Result, test: str, k: int, ways: range) -> Array:
    """pass@k of the problems of a difficulty."""
    one = test_of(result, test)
    chosen = np.array([count in ways for count in one["ways"]])
    return np.asarray(pass_rates(one, k)[chosen])


def only_table(outcomes: Outcomes) -> StudyTable:
    """Problems that the model solves only before, only after, in both, in neither."""
    rows = []
    for condition in outcomes.conditions:
        cells = [
            rate_text(over(outcomes, condition, partial(solved_in, before=b, after=a)))
            for b, a in ((True, True), (True, False), (False, True), (False, False))
        ]
        rows.append((condition, *cells))
    header = ("base", "both", "only before", "only after", "neither")
    note = "A problem is solved where at least one of its completions is right."
    return StudyTable("Problems solved before and after RL", header, rows, note)


def solved_in(result: Result, before: bool, after: bool) -> Array:
    """1 for every problem that is solved or not solved in these two tests."""
    solved = [np.array(test_of(result, t)["right"]) > 0 for t in (BEFORE, TEST)]
    return np.asarray((solved[0] == before) & (solved[1] == after), float)


def pass_figure(outcomes: Outcomes, condition: str) -> Figure:
    """pass@k against k."""
    ks, lines = most_k(outcomes), []
    for when, test in (("before RL", BEFORE), ("after RL", TEST)):
        rates = [over(outcomes, condition, partial(passed, test=test, k=k)) for k in ks]
        lines.append(measured_line(when, [float(np.log2(k)) for k in ks], rates))
    return Figure(
        f"{condition}: pass@k by k",
        lines,
        rate=True,
        note="test problems, with 95 % intervals",
        names={float(np.log2(k)): str(k) for k in ks},
    )
