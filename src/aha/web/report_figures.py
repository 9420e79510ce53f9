"""The figures of a report: its curves over the steps, with the turn of the way of search marked."""

from collections.abc import Callable

from aha.store.guarded_files import number, read_all_rows
from aha.store.run_folder import is_tuning
from aha.web.curves import BehaviorCurves, Curves
from aha.web.runs import RunFolder, interval_of
from aha.web.svg_curves import Figure, Line, Point
from aha.web.turn_view import WAY_WORDS

CURVE_POINTS, BEHAVIOR_POINTS, BEHAVIOR_SECONDS = 160, 40, 30.0


def figures_of(run: RunFolder, curves: Curves, turn: int | None, faults: list[str]) -> list[Figure]:
    """All figures of the report, also those without a number.

    `turn`: the step at which the way of search turns; `faults` gets what could not be read.
    """
    thinned = curves.thinned(curves.names(), CURVE_POINTS)
    behaviors = BehaviorCurves(run).count(BEHAVIOR_POINTS, BEHAVIOR_SECONDS)
    if behaviors["waiting"]:
        faults.append(
            f"behaviours of {behaviors['waiting']} steps were not counted within "
            f"{BEHAVIOR_SECONDS:.0f} s: their points are missing; on a machine with less to do, "
            "`aha report` counts more"
        )
    note = f"counted in at most {behaviors['per_step']} completions of a step"
    if behaviors["damaged"]:
        faults.append(f"completions of {behaviors['damaged']} steps could not be read whole")

    def line(label: str, name: str) -> Line:
        curve = thinned.get(name, {})
        return Line(label, curve.get("step", []), curve.get("value", []))

    def behavior(label: str, name: str) -> Line:
        return Line(label, behaviors["step"], behaviors[name])

    def measured(label: str, name: str) -> Line:
        """From the metrics; for a run from before they had it, counted in the completions."""
        return line(label, name) if name in thinned else behavior(label, name)

    return [
        Figure(
            "Solve rate",
            [line("training puzzles", "solve_rate")],
            evaluation_points(run, curves, faults),
            rate=True,
            note="diamonds: held-out, with 95 % intervals",
            turn=turn,
        ),
        Figure("Reward", [line("mean reward", "reward")]),
        *(example_figures(line) if is_tuning(run.read("config")) else []),
        Figure("Tokens of a completion", [line("tokens", "mean_tokens")], turn=turn),
        *search_figures(measured, turn),
        *behavior_figures(behavior, note),
        Figure("Truncated at the limit", [line("share", "truncated")], rate=True),
        *grading_errors(line("share of completions", "grade_error_share")),
        Figure("Entropy, nats a token", [line("entropy", "entropy")]),
        Figure("Gradient norm", [line("before clipping", "grad_norm")]),
        Figure("Tokens a second", [line("tokens a second", "tokens_per_s")]),
    ]


def example_figures(line: Callable[[str, str], Line]) -> list[Figure]:
    """How examples are learnt, or preference pairs."""
    return [
        Figure("Loss", [line("of an update", "loss")]),
        Figure("Margin of the pairs", [line("chosen less rejected", "margin")]),
        Figure("Pairs ranked rightly", [line("chosen above rejected", "ranked")], rate=True),
    ]


def search_figures(line: Callable[[str, str], Line], turn: int | None) -> list[Figure]:
    """How the run searches: shares by way, the first attempt, and what a right answer takes.

    `line` makes a curve of a label and a column's name. Ways that no completion goes are left out.
    """
    ways = [line(label, name) for name, label in WAY_WORDS.items()]
    first = line("of all completions", "first_attempt_rate")
    attempts = line("attempts", "attempts_per_solve")
    tokens = line("tokens", "tokens_per_solve")
    return [
        Figure(
            "Ways of search",
            [way for way in ways if any(way.ys)],
            rate=True,
            note="shares of a step's completions",
            turn=turn,
        ),
        Figure("Right at the first attempt", [first], rate=True, turn=turn),
        Figure("Attempts for each right answer", [attempts], turn=turn),
        Figure("Tokens for each right answer", [tokens], turn=turn),
    ]


def behavior_figures(line: Callable[[str, str], Line], note: str) -> list[Figure]:
    """The four behaviours and their truth; `line` as in `search_figures`."""
    start, middle = "backtracks_root", "backtracks_intermediate"
    return [
        Figure(
            "Attempts and checks",
            [line("attempts", "attempts"), line("checks", "checks")],
            note=note,
        ),
        Figure("Going back", [line("to the start", start), line("to an intermediate", middle)]),
        Figure(
            "Subgoals and backward chaining",
            [line("subgoals", "subgoals"), line("backward chaining", "backward_chains")],
        ),
        Figure(
            "Truth",
            [
                line("right arithmetic", "line_accuracy"),
                line("true checks", "verdict_truth"),
            ],
            rate=True,
        ),
    ]


def grading_errors(line: Line) -> list[Figure]:
    """The share of completions that could not be graded, where there were any."""
    failed = any(value for value in line.ys)
    return [Figure("Could not be graded", [line], rate=True)] if failed else []


def evaluation_points(run: RunFolder, curves: Curves, faults: list[str]) -> list[Point]:
    """Every held-out measurement: before at step 0, the evaluations, after at the last step."""
    evals, damaged = read_all_rows(run.evals)
    faults += damaged
    rows = [(number(row.get("step")), row) for row in evals]
    rows = [(0.0, run.read("before")), *rows, (curves.last().get("step"), run.read("after"))]
    points = []
    for step, row in rows:
        rate, ends = number(row.get("solve_rate")), interval_of(row)
        if step is not None and rate is not None and ends is not None:
            points.append(Point(step, rate, *ends))
    return points
