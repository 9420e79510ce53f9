"""The page of the study `thinking`: its figures, tables, verdicts, and the same as JSON."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from aha.studies.judgement import MIN_SEEDS, Measured
from aha.studies.study_page import StudyPage, StudyTable
from aha.studies.thinking_cells import SEARCHES, ThinkingGrid
from aha.studies.thinking_points import (
    PER_TOKENS,
    MethodMetrics,
    PairedDifference,
    SubjectResult,
    ThinkingPoint,
    point_row,
)
from aha.web.svg_curves import Figure, Line, Point

TITLE = "Thinking on a budget"
CLAIM = (
    "Published (s1): forcing keeps every budget (control 100 %), more tokens give better answers "
    "(scaling above 0), and rejecting long thoughts scales the other way."
)
SEQUENTIAL = ("maximum", "waits", "rejection")
PARALLEL = ("vote", "vote of short ones", "pass@k", "pass@k of short ones")
POINT_HEADER = (
    *("setting", "thinking tokens", "accuracy, 95 %", "control", "closed by the budget"),
    "tokens in all",
)
METRIC_HEADER = (
    *("method", "control", f"scaling: points over {PER_TOKENS:,} tokens, 95 %"),
    "performance: best accuracy, 95 %",
)
PAIR_HEADER = ("this", "less that", "difference of accuracy, 95 %", "verdict")


def page_of(grid: ThinkingGrid, results: Sequence[SubjectResult], notes: list[str]) -> StudyPage:
    """The page of these results."""
    figures, tables, verdicts = [overlay(results)], [], []
    for result in results:
        name = result.subject.label
        verdicts += [f"{name}: {line}" for line in verdict_lines(result)]
        figures += figures_of(result)
        tables += [
            StudyTable(
                f"{name}: control, scaling, performance", METRIC_HEADER, metric_rows(result)
            ),
            StudyTable(
                f"{name}: one thought under a budget",
                (
                    *POINT_HEADER,
                    *(f"{search} search" for search in SEARCHES if search in result.searches),
                ),
                point_rows(result, SEQUENTIAL),
                "Control: share of thoughts within their limits; of rejection the share of "
                "problems that have a thought so short. A search has perfect arithmetic and as "
                "many tokens in the mean as the whole completions of its row.",
            ),
            StudyTable(
                f"{name}: several thoughts side by side",
                POINT_HEADER,
                point_rows(result, PARALLEL),
                "Tokens of all thoughts of a problem together. pass@k knows which answer is right, "
                "as somebody does who can check answers; a vote does not.",
            ),
            StudyTable(
                f"{name}: paired differences",
                PAIR_HEADER,
                [pair_row(pair) for pair in pairs_of(result)],
                "The same problems on both sides. One thought at as many tokens as several: the "
                "curve of budgets, straight between its points; where several use more than the "
                "largest budget, its last point. Many pairs are compared: one in forty is apart by "
                "chance on either side.",
            ),
        ]
    return StudyPage(
        TITLE,
        CLAIM,
        about_lines(grid, results),
        notes,
        verdicts,
        figures,
        [table for table in tables if table.rows],
        {result.subject.label: subject_json(result) for result in results},
    )


def about_lines(grid: ThinkingGrid, results: Sequence[SubjectResult]) -> list[str]:
    """What was studied, as lines. A split may have fewer problems than were asked for."""
    tested = [len(result.methods["maximum"][0].accuracy_N) for result in results]
    problems = tested[0] if tested else grid.problems
    subjects = "; ".join(
        subject.models[0]
        if len(subject.models) == 1
        else f"{' '.join(subject.models)} (one a seed)"
        for subject in grid.subjects
    )
    settings = ", ".join(f"{key} {value}" for key, value in grid.task_settings.items())
    return [
        f"{subjects} on {grid.task}{f' ({settings})' if settings else ''}: {problems} "
        f"problems of the split {grid.split}, seeds {' '.join(map(str, grid.seeds))}",
        f"temperature 1, at most {grid.max_new_tokens} tokens a completion; budgets of "
        f"{' '.join(map(str, grid.budgets))} thinking tokens; "
        f"{' '.join(map(str, grid.waits)) or 'no'} waits; {grid.completions} completions of each "
        "problem without a budget",
    ]


# -- figures ----------------------------------------------------------------------------------


def line_of(label: str, points: Sequence[ThinkingPoint]) -> Line:
    """The points of a method as a line over thinking tokens."""
    ordered = sorted(points, key=lambda point: point.tokens)
    return Line(label, [p.tokens for p in ordered], [p.accuracy.value for p in ordered])


def search_line(result: SubjectResult, search: str) -> Line:
    """A search at the tokens of the budgets; drawn at their thinking tokens."""
    rows, maximum = result.searches[search], result.methods["maximum"]
    return Line(
        f"{search} search", [p.tokens for p in maximum], [row["solve_rate"] for row in rows]
    )


def intervals(points: Sequence[ThinkingPoint]) -> list[Point]:
    """The points with their intervals."""
    return [Point(p.tokens, p.accuracy.value, *p.accuracy.interval) for p in points]


def overlay(results: Sequence[SubjectResult]) -> Figure:
    """The curve of budgets of every subject, with the searches beside that of the last."""
    lines = [line_of(result.subject.label, result.methods["maximum"]) for result in results]
    if results:
        last = results[-1]
        lines += [search_line(last, search) for search in SEARCHES if search in last.searches]
    points = [point for result in results for point in intervals(result.methods["maximum"])]
    note = "over thinking tokens, in the mean; thoughts closed at their maximum"
    return Figure("Accuracy under a budget", lines, points, rate=True, note=note)


def figures_of(result: SubjectResult) -> list[Figure]:
    """The figures of one subject: sequential, and sequential against parallel."""
    name, methods = result.subject.label, result.methods
    sequential = [line_of(method, methods[method]) for method in SEQUENTIAL if methods[method]]
    sequential += [search_line(result, search) for search in SEARCHES if search in result.searches]
    several = [line_of("one thought", methods["maximum"])]
    several += [line_of(method, methods[method]) for method in PARALLEL if methods[method]]
    note = "over thinking tokens of a problem, in the mean"
    maximum = intervals(methods["maximum"])
    return [
        Figure(f"{name}: one thought", sequential, maximum, rate=True, note=note),
        Figure(f"{name}: one or several thoughts", several, maximum, rate=True, note=note),
    ]


# -- tables -----------------------------------------------------------------------------------


def metric_rows(result: SubjectResult) -> list[list[str]]:
    return [
        [
            name,
            f"{metrics.control:.1%}",
            "-" if metrics.scaling is None else metrics.scaling.text(1),
            metrics.performance.text(),
        ]
        for name, metrics in result.metrics.items()
    ]


def point_rows(result: SubjectResult, methods: Sequence[str]) -> list[list[str]]:
    """A row for each point; with the searches where there are any and the method is `maximum`."""
    with_searches = [search for search in SEARCHES if search in result.searches]
    rows = []
    for method in methods:
        for place, point in enumerate(result.methods[method]):
            row = [
                point.label,
                f"{point.tokens:.1f}",
                point.accuracy.text(),
                f"{point.control:.1%}",
                f"{point.closed:.1%}",
                f"{point.completion_tokens:.1f}",
            ]
            if methods is SEQUENTIAL:
                row += [search_text(result, name, method, place) for name in with_searches]
            rows.append(row)
    return rows


def search_text(result: SubjectResult, search: str, method: str, place: int) -> str:
    """A search at the tokens of a point, - where it was not compared."""
    if method != "maximum":
        return "-"
    row = result.searches[search][place]
    text = Measured(row["solve_rate"], tuple(row["interval"])).text()
    return f"{text} with {row['mean_tokens']:.0f} tokens" if row.get("uses_fewer") else text


def pairs_of(result: SubjectResult) -> list[PairedDifference]:
    """All paired differences of a subject."""
    return [*result.of_waits, *result.against_parallel, *result.falls]


def pair_row(pair: PairedDifference) -> list[str]:
    return [pair.one, pair.other, pair.difference.text(), pair.verdict or "-"]


def verdict_lines(result: SubjectResult) -> list[str]:
    """What the results say of the published claims; nothing where there are too few seeds."""
    if result.seeds < MIN_SEEDS:
        return []
    lines = []
    for name, metrics in result.metrics.items():
        lines.append(f"{name}: {scaling_words(metrics)}")
    rise = [pair for pair in result.falls if pair.verdict == "below"]
    for pair in rise:
        lines.append(f"accuracy falls from {pair.other} to {pair.one}, by {pair.difference.text()}")
    if not rise:
        lines.append("no step of the curve of budgets falls by more than chance explains")
    for pair in result.of_waits:
        lines.append(f"{pair.one} against {pair.other}: {pair.verdict}")
    lines.append(f"one thought at as many tokens as several: {one_or_several(result)}")
    return lines


def one_or_several(result: SubjectResult) -> str:
    """At how many points one thought is above or below several, by method."""
    pairs, texts = iter(result.against_parallel), []
    for method in PARALLEL:
        verdicts = Counter(next(pairs).verdict for _ in result.methods[method])
        several = f"{method}: " + ", ".join(
            f"{verdict} at {count}" for verdict, count in verdicts.items()
        )
        texts += [f"{several} of {verdicts.total()}"] if verdicts else []
    return "; ".join(texts) or "nothing to compare"


def scaling_words(metrics: MethodMetrics) -> str:
    """Control and the sign of scaling, in words."""
    control = f"control {metrics.control:.1%}"
    if metrics.scaling is None:
        return control
    low, high = metrics.scaling.interval
    way = "positive" if low > 0 else "negative" if high < 0 else "not told from 0"
    return f"{control}, scaling {way} ({metrics.scaling.text(1)})"


# -- JSON -------------------------------------------------------------------------------------


def subject_json(result: SubjectResult) -> dict[str, Any]:
    """A subject in study.json."""
    return {
        "models": list(result.subject.models),
        "seeds": result.seeds,
        "points": {name: list(map(point_row, points)) for name, points in result.methods.items()},
        "metrics": {name: asdict(metrics) for name, metrics in result.metrics.items()},
        "sequential_less_parallel": [asdict(pair) for pair in result.against_parallel],
        "waits_less_none": [asdict(pair) for pair in result.of_waits],
        "falls": [asdict(pair) for pair in result.falls],
        "searches": result.searches,
    }
