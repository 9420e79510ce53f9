"""The charts of the overview: headings, titles, and the columns that each shows; the page draws.

A chart is a JSON object: `title`, `series` as [label, column, colour], and where it has them
`note`, `rate` (0 to 1, in per cent), `turn` (the turn of the search is marked), `points` (held-out
tests are drawn in), `stack` (series on top of each other), `optional` (left out while it is 0
or not measured everywhere), `counted` (from the completions, not the metrics; left out where none
of them can be counted), `scale` (a factor), `money`.
"""

from collections.abc import Iterator
from typing import Any

from aha.store.guarded_files import Row
from aha.web.turn_view import WAY_WORDS

Series = list[str | int]
COLOURS = 6

PHASES = (
    ("generation", "rollout_s"),
    ("grading", "grade_s"),
    ("critic", "judge_s"),
    ("update", "train_s"),
    ("publishing", "publish_s"),
)


def chart(title: str, *series: Series, note: str = "", **more: object) -> Row:
    """One chart; what is empty or false is left out."""
    options = {"note": note, **more}
    kept = {name: value for name, value in options.items() if value}
    return {"title": title, "series": list(series), **kept}


def line(label: str, column: str, colour: int = 0) -> Series:
    return [label, column, colour]


SHARE: dict[str, Any] = {"rate": True, "optional": True}
TURNING: dict[str, Any] = {"turn": True, "optional": True}


def charts_of(usd_per_hour: float | None, tuning: bool = False) -> list[tuple[str, list[Row]]]:
    """(heading, charts) in the order of the page, for a run of RL or a fine-tuning. Without a price
    there is no chart of the cost."""
    if tuning:
        last = [("Training", training()), ("Operations", operations(usd_per_hour))]
        return [("Learning", examples()), *last]
    return [
        ("Learning", learning()),
        ("Search", search()),
        ("Behaviour", behaviour()),
        ("Completions", completions()),
        ("Training", training()),
        ("Operations", operations(usd_per_hour)),
    ]


def learning() -> list[Row]:
    """What is rewarded, and what teaches nothing."""
    return [
        chart(
            "Solve rate",
            line("training puzzles", "solve_rate"),
            note="◆ held-out, with 95 % intervals",
            rate=True,
            turn=True,
            points=True,
        ),
        chart("Reward", line("mean reward", "reward")),
        chart(
            "Groups all wrong or all right",
            line("none solved", "groups_none_solved", 3),
            line("all solved", "groups_all_solved", 2),
            note="they teach nothing where answers alone are rewarded and groups are compared",
            rate=True,
        ),
    ]


def examples() -> list[Row]:
    """How examples are learnt, or preference pairs."""
    return [
        chart("Loss", line("of an update", "loss", 5)),
        chart("Margin of the pairs", line("chosen less rejected", "margin", 2), optional=True),
        chart("Pairs ranked rightly", line("chosen above rejected", "ranked", 2), **SHARE),
    ]


def search() -> list[Row]:
    """How completions search, from the metrics; of an older run as counted in its completions."""
    ways = [line(label, name, n % COLOURS) for n, (name, label) in enumerate(WAY_WORDS.items())]
    first = line("of all completions", "first_attempt_rate")
    return [
        chart("Ways of search", *ways, note="shares of a step's completions", turn=True, **SHARE),
        chart("Right at the first attempt", first, turn=True, **SHARE),
        chart("Attempts for each right answer", line("attempts", "attempts_per_solve"), **TURNING),
        chart("Tokens for each right answer", line("tokens", "tokens_per_solve"), **TURNING),
    ]


def behaviour() -> list[Row]:
    """What is counted in the completions of some steps."""
    return [
        chart(
            "Attempts and checks",
            line("attempts", "attempts"),
            line("checks", "checks", 2),
            counted=True,
        ),
        chart(
            "Going back",
            line("to the start", "backtracks_root", 4),
            line("to an intermediate result", "backtracks_intermediate", 1),
            counted=True,
        ),
        chart(
            "Truth",
            line("lines with right arithmetic", "line_accuracy"),
            line("checks that are true", "verdict_truth", 2),
            rate=True,
            counted=True,
        ),
    ]


def completions() -> list[Row]:
    """Their length and how they ended."""
    share = "share of completions"
    return [
        chart("Length", line("tokens of a completion", "mean_tokens"), turn=True),
        chart(
            "Could not be graded",
            line(share, "grade_error_share", 3),
            note="the grader failed: a reward of 0 that says nothing",
            **SHARE,
        ),
        chart("Truncated at the limit", line(share, "truncated", 3), rate=True),
        chart("Entropy", line("entropy", "entropy", 4), note="of the policy, nats a token"),
    ]


def training() -> list[Row]:
    """The update."""
    return [
        chart("Gradient norm", line("before clipping", "grad_norm", 5)),
        chart("Clipped tokens", line("share of an update's tokens", "clipped", 3), **SHARE),
        chart("KL to the reference", line("nats a token", "kl", 1), optional=True),
    ]


def operations(usd_per_hour: float | None) -> list[Row]:
    """Time, memory and money."""
    phases = [line(label, column, n) for n, (label, column) in enumerate(PHASES)]
    charts = [
        chart("Seconds of a step", *phases, note="on top of each other", stack=True),
        chart("Tokens a second", line("tokens a second", "tokens_per_s")),
        chart(
            "Memory",
            line("gigabytes", "memory_gb", 2),
            note="the peak so far: of rank 0's process, on a GPU of its tensors",
            optional=True,
        ),
    ]
    if usd_per_hour is None:
        return charts
    cost = line("so far", "elapsed_s", 1)
    return [*charts, chart("Cost", cost, scale=usd_per_hour / 3600, money=True)]


def columns() -> Iterator[str]:
    """The columns of the metrics that the charts of any run show, but for those of a stack."""
    for _, charts in (*charts_of(0.0), *charts_of(0.0, tuning=True)):
        for one in charts:
            if not one.get("counted") and not one.get("stack"):
                yield from (str(column) for _, column, _ in one["series"])
