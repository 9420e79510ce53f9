"""`aha report`: one HTML file with all that a run can be judged by. No script, no network."""

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from math import sqrt
from pathlib import Path

from jinja2 import Environment, StrictUndefined

import aha
from aha.core.errors import RunError
from aha.plan.cost import money
from aha.plan.prediction import lines_of
from aha.web.behavior_curves import BehaviorCurves, spread
from aha.web.curves import Curves
from aha.web.event_spans import KINDS, behaviours_of, pieces_of, puzzle_of, visible
from aha.web.file_reader import all_rows, number
from aha.web.pins import pinned
from aha.web.run_comparison import PairedComparison, compare_before_after, flatten
from aha.web.runs import RunFolder, describe_task, interval_of, rate_of, rate_text, section
from aha.web.svg_curves import Figure, Line, Point, short

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)
CURVE_POINTS, HABIT_POINTS, HABIT_SECONDS = 160, 40, 30.0
LEARNT, LOST, TEXT_CHARS = 4, 2, 3_000
Z95 = 1.96

VERDICTS = {
    "better": "Better: the whole interval lies above 0.",
    "worse": "Worse: the whole interval lies below 0.",
    "no evidence": "No evidence of a change: the interval holds 0.",
}
MEANS = (
    ("tokens of a completion", lambda row, _: number(row.get("tokens")), ".1f"),
    ("cut off at the limit", lambda row, _: float(row.get("finish") == "length"), ".1%"),
    ("attempts", lambda _, seen: seen and seen.attempts, ".2f"),
    ("checks", lambda _, seen: seen and seen.checks, ".2f"),
    ("goes back to the start", lambda _, seen: seen and seen.backtracks_root, ".2f"),
    ("goes back to an intermediate", lambda _, seen: seen and seen.backtracks_intermediate, ".2f"),
    ("subgoals", lambda _, seen: seen and seen.subgoals, ".2f"),
    ("backward chaining", lambda _, seen: seen and seen.backward_chains, ".2f"),
    ("wrong arithmetic", lambda _, seen: seen and seen.line_errors, ".2f"),
    ("repeated attempts", lambda _, seen: seen and seen.repeats, ".2f"),
    ("found it, did not say it", lambda _, seen: seen and seen.solution_seen_not_answered, ".1%"),
)


def write_report(run: RunFolder, out: Path, pins: Sequence[str] = ()) -> int:
    """Write the report of a run; its size in bytes."""
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise RunError(f"cannot write {out}", "a file in a folder that exists", "--out report.html")
    page = report_html(run, pins).encode("utf-8", "replace")
    out.write_bytes(page)
    return len(page)


def report_html(run: RunFolder, pins: Sequence[str] = ()) -> str:
    """The report as it stands: a run that is not done gives one with gaps, and says so.

    `pins` are completions to show besides, as `pins.pinned` reads them.
    """
    curves = Curves(run)
    curves.refresh()
    config, summary = run.read("config"), run.read("summary")
    paired = compare_before_after(run)
    notes = run.notes()
    if run.status() != "done":
        notes.append("this run is not done: what comes after training is not here")
    content = {
        "policy": POLICY.replace("; frame-ancestors 'self'", ""),  # no page may set that one
        "name": visible(run.name),
        "version": aha.__version__,
        "task": visible(describe_task(config)),
        "model": visible(str(section(config, "model").get("path", "?"))),
        "steps": curves.rows,
        "seed": config.get("seed", "?"),
        "notes": [visible(note) for note in notes],
        "gain": paired and gain_of(paired),
        "card": card_of(run, paired),
        "figures": [f for f in figures_of(run, curves) if not f.empty],
        "pairs": pairs_of(paired) if paired else [],
        "pins": [pin_of(*pin) for pin in pinned(run, pins)],
        "kinds": {kind.key: kind for kind in KINDS},
        "costs": costs_of(config, summary, curves),
        "config": facts(config),
        "environment": facts(run.read("environment")),
    }
    return template().render(content)


@cache
def template():
    text = (files("aha.web") / "report.html.j2").read_text(encoding="utf-8")
    env = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return env.from_string(text)


# -- the card -------------------------------------------------------------------------------


def gain_of(paired: PairedComparison) -> dict:
    """The one number of the run, in words."""
    low, high = paired.interval
    return {
        "verdict": paired.verdict,
        "words": VERDICTS[paired.verdict],
        "points": f"{100 * paired.gain:+.1f}",
        "interval": f"[{100 * low:+.1f}, {100 * high:+.1f}]",
        "problems": paired.problems,
        "won": len(paired.won),
        "lost": len(paired.lost),
    }


def card_of(run: RunFolder, paired: PairedComparison | None) -> list[dict]:
    """Lines of the card: name, before, after, difference with interval, evidence."""
    lines = []
    before = rate_of(run.read("before") or run.read("summary").get("before"))
    after = rate_of(run.read("after") or run.read("summary").get("after"))
    gain = gain_of(paired) if paired else None
    if before or after:
        lines.append(
            {
                "name": "solve rate",
                "before": rate_text(before, "–"),
                "after": rate_text(after, "–"),
                "difference": f"{gain['points']} points {gain['interval']}" if gain else "–",
                "evidence": gain["verdict"] if gain else "–",
            }
        )
    if paired:
        pairs = paired.pairs
        seen = [(behaviours_of(old), behaviours_of(new)) for old, new in pairs]
        for name, value_of, form in MEANS:
            values = [
                (value_of(old, old_seen), value_of(new, new_seen))
                for (old, new), (old_seen, new_seen) in zip(pairs, seen, strict=True)
            ]
            lines += mean_line(name, values, form)
    return lines


def mean_line(name: str, values: list[tuple], form: str) -> list[dict]:
    """A mean before and after, with the interval of the paired difference.

    The interval is the normal one: mean ± 1.96 standard errors of the differences.
    """
    values = [
        (float(old), float(new)) for old, new in values if old is not None and new is not None
    ]
    n = len(values)
    if n < 2:
        return []
    changes = [new - old for old, new in values]
    mean = sum(changes) / n
    error = Z95 * sqrt(sum((change - mean) ** 2 for change in changes) / (n - 1) / n)
    sign = f"+{form}" if form[0] != "+" else form
    evidence = (
        "no evidence" if mean - error <= 0 <= mean + error else "more" if mean > 0 else "less"
    )
    return [
        {
            "name": name,
            "before": format(sum(old for old, _ in values) / n, form),
            "after": format(sum(new for _, new in values) / n, form),
            "difference": f"{mean:{sign}} [{mean - error:{sign}}, {mean + error:{sign}}]",
            "evidence": evidence,
        }
    ]


# -- the curves ------------------------------------------------------------------------------


def figures_of(run: RunFolder, curves: Curves) -> list[Figure]:
    found = curves.thinned(curves.names(), CURVE_POINTS)
    habits = BehaviorCurves(run).count(HABIT_POINTS, HABIT_SECONDS)
    note = f"counted in at most {habits['per_step']} completions of a step"

    def line(label: str, name: str) -> Line:
        curve = found.get(name, {})
        return Line(label, curve.get("step", []), curve.get("value", []))

    def habit(label: str, name: str) -> Line:
        return Line(label, habits["step"], habits[name])

    back, middle = "backtracks_root", "backtracks_intermediate"
    return [
        Figure(
            "Solve rate",
            [line("training puzzles", "solve_rate")],
            points_of(run, curves),
            rate=True,
            note="diamonds: held-out, with 95 % intervals",
        ),
        Figure("Reward", [line("mean reward", "reward")]),
        Figure("Tokens of a completion", [line("tokens", "mean_tokens")]),
        Figure(
            "Attempts and checks",
            [habit("attempts", "attempts"), habit("checks", "checks")],
            note=note,
        ),
        Figure("Going back", [habit("to the start", back), habit("to an intermediate", middle)]),
        Figure(
            "Subgoals and backward chaining",
            [habit("subgoals", "subgoals"), habit("backward chaining", "backward_chains")],
        ),
        Figure(
            "Truth",
            [habit("right arithmetic", "line_accuracy"), habit("true checks", "verdict_truth")],
            rate=True,
        ),
        Figure("Cut off at the limit", [line("share", "truncated")], rate=True),
        Figure("Entropy, nats a token", [line("entropy", "entropy")]),
        Figure("Gradient norm", [line("before clipping", "grad_norm")]),
        Figure("Tokens a second", [line("tokens a second", "tokens_per_s")]),
    ]


def points_of(run: RunFolder, curves: Curves) -> list[Point]:
    """Every held-out measurement: before at 0, the looks on the way, after at the end."""
    rows = [(number(row.get("step")), row) for row in all_rows(run.evals)]
    rows = [(0.0, run.read("before")), *rows, (curves.last().get("step"), run.read("after"))]
    points = []
    for step, row in rows:
        rate, ends = number(row.get("solve_rate")), interval_of(row)
        if step is not None and rate is not None and ends is not None:
            points.append(Point(step, rate, *ends))
    return points


# -- the rest --------------------------------------------------------------------------------


def pairs_of(paired: PairedComparison) -> list[dict]:
    """Some puzzles that were learnt and some that were lost, with both texts.

    Not the finest ones: evenly spaced over all of their kind, by the length of the new text.
    """
    found = []
    for change, pairs, count in (("learnt", paired.won, LEARNT), ("lost", paired.lost, LOST)):
        ordered = sorted(pairs, key=lambda pair: number(pair[1].get("tokens")) or 0.0)
        for old, new in spread(ordered, count):
            sides = [side_of("before training", old), side_of("after training", new)]
            found.append({"change": change, "title": title_of(new), "sides": sides})
    return found


def pin_of(file: str, place: int, row: dict) -> dict:
    """A completion that a reader has picked, in the form of a pair with one side."""
    return {"change": "", "title": title_of(row), "sides": [side_of(f"{file}:{place}", row)]}


def title_of(row: dict) -> str:
    puzzle = puzzle_of(row)
    title = f"{' '.join(map(str, puzzle[0]))} → {puzzle[1]}" if puzzle else row.get("id", "")
    return visible(str(title))


def side_of(when: str, row: dict) -> dict:
    tokens = number(row.get("tokens"))
    return {
        "when": when,
        "correct": row.get("correct") is True,
        "reason": visible(str(row.get("reason", ""))[:400]),
        "tokens": "?" if tokens is None else f"{tokens:.0f}",
        "pieces": pieces_of(row, TEXT_CHARS),
        "cut": len(str(row.get("completion", ""))) > TEXT_CHARS,
    }


def costs_of(config: dict, summary: dict, curves: Curves) -> list[tuple[str, str]]:
    """What the run took, the base model's share on a line of its own."""
    last = curves.last()
    price, watts = number(config.get("usd_per_hour")), number(config.get("watts"))
    lines = [
        ("training", _seconds(last.get("elapsed_s"))),
        ("with both tests", _seconds(number(summary.get("wall_s")))),
        ("this run", _money(number(summary.get("cost_usd")), number(summary.get("kwh")))),
        (
            "its base model, once for everybody",
            _money(number(summary.get("base_cost_usd")), number(summary.get("base_kwh"))),
        ),
        ("tokens written in training", short(last.get("total_tokens") or 0)),
        ("time to aha (solve rate doubled, past one half)", _aha(summary)),
        ("price of the machine", "–" if price is None else f"${price:.2f} an hour"),
        ("its power", "–" if watts is None else f"{watts:.0f} W"),
    ]
    told = lines_of(section(summary, "plan"))
    return lines + [(f"plan: {name}", visible(text)) for name, text in told]


def _aha(summary: dict) -> str:
    seconds = number(summary.get("time_to_aha_s"))
    return "not reached" if seconds is None else _seconds(seconds)


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def _money(usd: float | None, kwh: float | None) -> str:
    parts = [] if usd is None else [money(usd)]
    parts += [] if kwh is None else [f"{1000 * kwh:.1f} Wh"]
    return ", ".join(parts) or "not known"


def facts(content: dict) -> list[tuple[str, str]]:
    return [(visible(k), visible(str(v))) for k, v in flatten(content).items()]
