"""`aha report`: a run's evidence, curves and costs in one HTML file. No script, no network."""

import os
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from math import sqrt
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, StrictUndefined, Template

import aha
from aha.behaviors.detector import Behaviours
from aha.behaviors.search_ways import LABELS
from aha.behaviors.turn import NoTurn, Turn
from aha.core.control_characters import visible
from aha.core.errors import RunError
from aha.plan.machines import money
from aha.plan.prediction import lines_of
from aha.store.durable import disk_errors, partial_of, write_text
from aha.store.guarded_files import GuardedFile, number
from aha.store.run_folder import is_tuning
from aha.web.completions import PinnedRow, pinned_rows
from aha.web.curves import Curves, evenly_spaced
from aha.web.event_spans import EVENT_KINDS, Row, behaviours_of, puzzle_of, text_pieces
from aha.web.opponents_table import opponents_table
from aha.web.report_figures import figures_of
from aha.web.run_comparison import (
    VERDICTS,
    Pair,
    PairedComparison,
    compare_before_after,
    settings_of,
)
from aha.web.runs import (
    RunFolder,
    clipped,
    describe_task,
    rate_of,
    rate_text,
    section,
)
from aha.web.svg_curves import short
from aha.web.turn_view import telling_pair, turn_words, way_of
from aha.web.ways_of_run import turn_of_run

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)
ENDINGS = {
    "done": "",
    "stopped": "this run was ended by a fault (see what it noticed): there is nothing after it",
    "running": "this run is not done: the measurements after training are missing",
    "interrupted": "this run is not done and no process works on it: it was interrupted",
    "quiet": "this run is not done and writes nothing: it was interrupted, has crashed, or is slow",
}
TIME_TO_AHA = "time to aha (solve rate doubled, past one half)"
SIDES = ("before", "after")
SHOWN_LEARNT, SHOWN_LOST, SHOWN_CHARS = 4, 2, 3_000
Z95 = 1.96  # standard errors to each side of a normal 95 % interval


class Mean(NamedTuple):
    """One line of the report card: the mean of a number over completions."""

    name: str
    form: str  # of the mean, as `format` takes it
    value: Callable[[Row, Behaviours | None], float | None]


def _count(name: str, behaviour: str, form: str = ".2f") -> Mean:
    """The mean of one of the detector's counts; None for a completion without a puzzle."""
    return Mean(name, form, lambda _, counts: getattr(counts, behaviour, None))


MEANS = (
    Mean("tokens of a completion", ".1f", lambda row, _: number(row.get("tokens"))),
    Mean("truncated at the limit", ".1%", lambda row, _: float(row.get("finish") == "length")),
    _count("attempts", "attempts"),
    _count("checks", "checks"),
    _count("goes back to the start", "backtracks_root"),
    _count("goes back to an intermediate", "backtracks_intermediate"),
    _count("subgoals", "subgoals"),
    _count("backward chaining", "backward_chains"),
    _count("wrong arithmetic", "line_errors"),
    _count("repeated attempts", "repeats"),
    _count("solved it, did not answer it", "solution_seen_not_answered", ".1%"),
)


def write_report(run: RunFolder, out: Path, pins: Sequence[str] = ()) -> int:
    """Write the report of a run: the old file is there until the new one is. Returns its size in
    bytes.

    Raises RunError where the file cannot be written or is a link, DataError for a pin that
    names no completion.
    """
    with disk_errors(f"write {out}"):
        if out.is_dir() or not out.absolute().parent.is_dir():
            expected = "a file in a folder that exists"
            raise RunError(f"cannot write {out}", expected, "--out report.html")
        if out.absolute().parent == run.path:  # elsewhere, a link is the user's own
            for name in (out.name, partial_of(out).name):
                GuardedFile(run.path, name).check_writable()
    page = report_html(run, pins).encode("utf-8", "replace")
    with disk_errors(f"write {out}"):
        if out.exists() and not out.is_file():  # a pipe, or a device that must stay one
            out.write_bytes(page)
        else:
            write_text(Path(os.path.realpath(out)), page.decode())
    return len(page)


def report_html(run: RunFolder, pins: Sequence[str] = ()) -> str:
    """The report as HTML. For an unfinished run, the report says what is missing.

    `pins` are completions to show in addition, as `pinned_rows` reads them.
    """
    curves = Curves(run)
    curves.refresh()
    config, summary = run.read("config"), run.read("summary")
    faults: list[str] = []
    comparison = compare_before_after(run, faults)
    findings, damaged_findings = run.findings()
    turn = turn_of_run(run)
    figures = figures_of(run, curves, turn.step if isinstance(turn, Turn) else None, faults)
    notes = [*run.notes(), *curves.faults(), *faults, *damaged_findings, curves.grading_note()]
    notes.append(ENDINGS[run.status()])
    content = {
        # A page cannot set frame-ancestors: browsers take it from the HTTP header alone.
        "policy": POLICY.replace("; frame-ancestors 'self'", ""),
        "name": visible(run.name),
        "written": run.notes_of_people(),
        "version": aha.__version__,
        "task": visible(describe_task(config)),
        "model": clipped(section(config, "model").get("path", "?")),
        "steps": curves.rows,
        "seed": clipped(config.get("seed", "?")),
        "notes": list(dict.fromkeys(visible(note) for note in notes if note)),
        "findings": findings,
        "gain": comparison and gain_of(comparison),
        "card": card_of(run, comparison),
        "opponents": opponents_table(summary),
        "turn": turn_section(turn, comparison),
        "figures": [figure for figure in figures if not figure.empty],
        "pairs": pairs_of(comparison) if comparison else [],
        "pins": [pin_section(pin) for pin in pinned_rows(run, pins)],
        "kinds": {kind.key: kind for kind in EVENT_KINDS},
        "costs": costs_of(config, summary, curves),
        "config": settings_of(config),
        "environment": settings_of(run.read("environment")),
    }
    return template().render(content)


@cache
def template() -> Template:
    """The page's template; it escapes all text."""
    text = (files("aha.web") / "report.html.j2").read_text(encoding="utf-8")
    env = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return env.from_string(text)


# -- the card ----------------------------------------------------------------------------------


def gain_of(paired: PairedComparison) -> Row:
    """The change of the solve rate in percentage points, with interval and verdict, as text."""
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


def card_of(run: RunFolder, paired: PairedComparison | None) -> list[dict[str, str]]:
    """Lines of the report card: {name, before, after, difference with interval, evidence}."""
    lines: list[dict[str, str]] = []
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
        counts = [(behaviours_of(old), behaviours_of(new)) for old, new in pairs]
        for mean in MEANS:
            values = [
                (mean.value(old, old_counts), mean.value(new, new_counts))
                for (old, new), (old_counts, new_counts) in zip(pairs, counts, strict=True)
            ]
            lines += mean_line(mean.name, values, mean.form)
    return lines


def mean_line(
    name: str, pairs: list[tuple[float | None, float | None]], form: str
) -> list[dict[str, str]]:
    """A mean before and after, with the interval of the paired difference.

    The interval is the normal one: mean ± 1.96 standard errors of the differences. Pairs with a
    None are left out; no line where fewer than two are left.
    """
    values = [(float(old), float(new)) for old, new in pairs if old is not None and new is not None]
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


# -- completions and costs ---------------------------------------------------------------------


def turn_section(turn: Turn | NoTurn | None, paired: PairedComparison | None) -> Row:
    """The turn's sentence and, where there was one, the puzzle that shows it with its rule."""
    section: Row = {"words": turn_words(turn), "rule": "", "pair": None}
    if isinstance(turn, Turn) and paired:
        pair, section["rule"] = telling_pair(paired, turn)
        section["pair"] = pair and pair_section("", pair)
    return section


def pairs_of(paired: PairedComparison) -> list[Row]:
    """Some puzzles that were learnt and some that were lost, with both completions.

    Not selected by quality: evenly spaced over all such puzzles, ordered by the length of the new
    text.
    """
    sections = []
    kinds = (("learnt", paired.won, SHOWN_LEARNT), ("lost", paired.lost, SHOWN_LOST))
    for change, pairs, count in kinds:
        ordered = sorted(pairs, key=lambda pair: number(pair[1].get("tokens")) or 0.0)
        for pair in evenly_spaced(ordered, count):
            sections.append(pair_section(change, pair))
    return sections


def pair_section(change: str, pair: Pair) -> Row:
    """One puzzle before and after for the template."""
    sides = [side_of(f"{when} training", row) for when, row in zip(SIDES, pair, strict=True)]
    return {"change": change, "title": title_of(pair[1]), "sides": sides}


def pin_section(pin: PinnedRow) -> Row:
    """A pinned completion, in the form of a pair with one side."""
    side = side_of(f"{pin.file}:{pin.place}", pin.row)
    return {"change": "", "title": title_of(pin.row), "sides": [side]}


def title_of(row: Row) -> str:
    """The puzzle of a completion, or its problem's id where the task has no puzzles."""
    puzzle = puzzle_of(row)
    title = f"{' '.join(map(str, puzzle[0]))} → {puzzle[1]}" if puzzle else row.get("id", "")
    return visible(str(title))


def side_of(label: str, row: Row) -> Row:
    """One completion for the template: label, verdict, reason, tokens, pieces of text."""
    tokens, way = number(row.get("tokens")), way_of(row)
    return {
        "label": label,
        "way": way and LABELS[way],
        "correct": row.get("correct") is True,
        "reason": visible(str(row.get("reason", ""))[:400]),
        "tokens": "?" if tokens is None else f"{tokens:.0f}",
        "pieces": text_pieces(row, SHOWN_CHARS),
        "shortened": len(str(row.get("completion", ""))) > SHOWN_CHARS,
    }


def costs_of(config: Row, summary: Row, curves: Curves) -> list[tuple[str, str]]:
    """(name, value) of the costs of the run: time, money, energy; the base model has its own
    line."""
    last = curves.last()
    price, watts = number(config.get("usd_per_hour")), number(config.get("watts"))
    tokens, tuning = short(last.get("total_tokens") or 0), is_tuning(config)
    tested = not tuning or summary.get("after")
    lines = [
        ("training", _seconds(last.get("elapsed_s"))),
        *([("with both tests", _seconds(number(summary.get("wall_s"))))] if tested else []),
        ("this run", _money(number(summary.get("cost_usd")), number(summary.get("kwh")))),
        (
            "its base model, once for everybody",
            _money(number(summary.get("base_cost_usd")), number(summary.get("base_kwh"))),
        ),
        (f"tokens {'learnt' if tuning else 'written'} in training", tokens),
        *([] if tuning else [(TIME_TO_AHA, _time_to_aha(summary))]),
        ("price of the machine", "–" if price is None else f"${price:.2f} an hour"),
        ("its power", "–" if watts is None else f"{watts:.0f} W"),
    ]
    planned = lines_of(section(summary, "plan"))
    return lines + [(f"plan: {name}", visible(text)) for name, text in planned]


def _time_to_aha(summary: Row) -> str:
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
