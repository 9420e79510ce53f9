"""The study `thinking`: what does a model gain from more tokens of thinking, and from which?

Sequential: one thought under a budget, closed at its maximum or kept open by waits. Parallel:
several thoughts, by majority vote or by pass@k. Rejection: thoughts without a budget that happen to
be short. Beside all of them searches without a model, with the same number of tokens.

Source: s1 (arXiv 2501.19393), section 3.2 and its tables 3 and 4.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from aha.plan.speed import Card
from aha.studies.cell_files import Cell, Result
from aha.studies.judgement import MIN_SEEDS, too_few_seeds
from aha.studies.study_page import StudyPage
from aha.studies.thinking_cells import Subject, ThinkingGrid, cells_of, run_cell, seconds_of
from aha.studies.thinking_points import (
    Methods,
    SubjectResult,
    at_equal_tokens,
    falls,
    metrics_of,
    paired,
    parallel_point,
    point_of,
    rejection_point,
    search_curve,
)
from aha.studies.thinking_tables import page_of


class ThinkingStudy:
    """Implements `Study`."""

    name = "thinking"

    def __init__(self, grid: ThinkingGrid):
        self.grid = grid

    @cached_property
    def cells(self) -> list[Cell]:
        return cells_of(self.grid)

    def seconds_of(self, cell: Cell, card: Card) -> float:
        return seconds_of(cell, card)

    def run(self, cell: Cell, out: Path) -> Result:
        return run_cell(cell)

    def page(self, done: Mapping[str, Result]) -> StudyPage:
        results = self.results(done)
        notes = too_few_seeds({result.subject.label: result.seeds for result in results})
        return page_of(self.grid, results, [f"no verdict: {note}" for note in notes])

    # -- results -----------------------------------------------------------------------------

    def results(self, done: Mapping[str, Result]) -> list[SubjectResult]:
        """The results of every subject of which all cells of one seed at least are done."""
        whole = []
        for number, subject in enumerate(self.grid.subjects):
            kinds = self.results_by_kind(number, done)
            if kinds:
                whole.append(self.result_of(number, subject, kinds, done))
        return whole

    def results_by_kind(self, number: int, done: Mapping[str, Result]) -> dict[str, list[Result]]:
        """The results of a subject's cells by kind, over the seeds of which all cells are done: a
        mean over other seeds for one budget than for another would compare seeds."""
        by_seed: dict[int, dict[str, Cell]] = {}
        for cell in self.cells:
            if cell.varied["subject"] == number and "search" not in cell.varied:
                by_seed.setdefault(cell.varied["seed"], {})[cell.varied["kind"]] = cell
        kinds: dict[str, list[Result]] = {}
        for cells in by_seed.values():
            if all(cell.name in done for cell in cells.values()):
                for kind, cell in cells.items():
                    kinds.setdefault(kind, []).append(done[cell.name])
        return kinds

    def result_of(
        self,
        number: int,
        subject: Subject,
        kinds: Mapping[str, list[Result]],
        done: Mapping[str, Result],
    ) -> SubjectResult:
        """All points of a subject, and what is compared."""
        methods = self.methods_of(kinds)
        seeds = len(kinds["free"])
        decides = seeds >= MIN_SEEDS
        maximum = methods["maximum"]
        result = SubjectResult(subject, seeds, methods)
        compared = ("maximum", "waits", "rejection")
        result.metrics = {name: metrics_of(methods[name]) for name in compared if methods[name]}
        result.against_parallel = [
            paired(at_equal_tokens(maximum, point.tokens), point, decides)
            for name in ("vote", "vote of short ones", "pass@k", "pass@k of short ones")
            for point in methods[name]
        ]
        result.of_waits = [paired(point, maximum[-1], decides) for point in methods["waits"]]
        result.falls = falls(maximum, decides)
        for cell in self.cells:
            search = cell.varied.get("search")
            if search and cell.varied["subject"] == number and cell.name in done:
                curve = search_curve(done[cell.name])
                lengths = [point.completion_tokens for point in maximum]
                result.searches[search] = [curve.row_at_mean(length) for length in lengths]
        return result

    def methods_of(self, kinds: Mapping[str, list[Result]]) -> Methods:
        """The points of each method, in order of their tokens."""
        grid, free = self.grid, kinds["free"]
        methods: Methods = {
            "maximum": [
                point_of(f"at most {most}", kinds[f"max-{most}"], most) for most in grid.budgets
            ],
            "waits": [
                point_of(f"{waits} waits", kinds[f"waits-{waits}"], grid.most, waits)
                for waits in grid.waits
            ],
            "rejection": [
                point
                for most in grid.budgets
                if (point := rejection_point(f"no longer than {most}", free, most))
            ],
        }
        for name, by_vote in (("vote", True), ("pass@k", False)):
            methods[name] = [
                parallel_point(f"{name} of {k}", free, k, None, by_vote)
                for k in powers_of_two(grid.completions)
            ]
            methods[f"{name} of short ones"] = [
                parallel_point(
                    f"{name}, {grid.group_size(most)} of at most {most}",
                    kinds[f"max-{most}"],
                    grid.group_size(most),
                    most,
                    by_vote,
                )
                for most in reversed(grid.budgets)
                if grid.group_size(most) > 1
            ]
        return methods


def powers_of_two(most: int) -> list[int]:
    """1, 2, 4 ... up to `most`."""
    return [2**power for power in range(most.bit_length()) if 2**power <= most]
