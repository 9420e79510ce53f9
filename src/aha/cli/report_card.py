"""The end of a run in the terminal: puzzles before and after, the report card, what comes next.

Needs torch: a command imports this module inside its function.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from aha.behaviors.search_ways import LABELS, read_search
from aha.behaviors.turn import DOING, Turn
from aha.cli.first_steps import next_commands
from aha.cli.terminal_text import console
from aha.core.config import RunConfig
from aha.core.records import Graded
from aha.eval.statistics import paired_bootstrap
from aha.eval.suite import EvalReport
from aha.eval.yardstick import place_lines
from aha.plan.machines import money
from aha.store.checkpoint import checkpoints, step_of
from aha.store.run_folder import Run
from aha.training.outcome import Outcome
from aha.training.watchers import best_checkpoint
from aha.web.runs import RunFolder
from aha.web.turn_view import WAY_WORDS, turn_words
from aha.web.ways_of_run import turn_of_run

MB = 1e6


def clock(seconds: float) -> str:
    """Minutes and seconds, as 2:05."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"


def shortened(text: str, lines: int) -> str:
    """The text, or where it is longer than `lines` its two ends."""
    rows = text.splitlines()
    if len(rows) > lines:
        gone = len(rows) - lines
        rows = [*rows[: lines // 2], f"... {gone} more lines ...", *rows[-lines // 2 :]]
    return "\n".join(rows)


def completion_panel(graded: Graded, title: str, lines: int = 16) -> Panel:
    """A completion as text, never as markup; long completions are cut in the middle."""
    question = graded.completion.prompt.text.splitlines()[0]
    mark = "[green]right[/green]" if graded.correct else "[red]wrong[/red]"
    return Panel(
        escape(shortened(graded.completion.text, lines)),
        title=f"{escape(question)} ({title})",
        subtitle=f"{mark}: {escape(graded.reason)}",
        title_align="left",
        subtitle_align="left",
        width=72,
    )


def print_outcome(outcome: Outcome, cfg: RunConfig) -> None:
    """Print what training changed; nothing for a run that was stopped early."""
    if outcome.summary is None:
        return
    if outcome.before and outcome.after:
        print_changed_completions(outcome.before, outcome.after)
    print_report_card(outcome, cfg)


def print_changed_completions(before: EvalReport, after: EvalReport, count: int = 3) -> None:
    """Print `count` problems that were wrong before and are right after, with both completions.

    Those of middle length, because the shortest show no thinking.
    """
    pairs = list(zip(before.graded, after.graded, strict=True))
    changed = [(b[0], a[0]) for b, a in pairs if a[0].correct and not b[0].correct]
    changed.sort(key=lambda pair: len(pair[1].completion.tokens))
    for old, new in changed[len(changed) // 2 :][:count]:
        console.print(completion_panel(old, f"before{way_words(old)}"))
        console.print(completion_panel(new, f"after{way_words(new)}"))


def way_words(graded: Graded) -> str:
    """The way of search of a completion, for its title; empty where the task has no puzzles."""
    assert graded.completion is not None, "`Graded.of` ties a grade to its completion"
    given = graded.completion.prompt.problem.given
    if not {"numbers", "target"} <= given.keys():
        return ""
    search = read_search(graded.completion.text, given["numbers"], given["target"])
    return f": {LABELS[search.way]}"


def print_report_card(outcome: Outcome, cfg: RunConfig) -> None:
    summary, table = outcome.summary, Table(box=None, padding=(0, 2))
    assert summary is not None, "a run that was stopped has no report card"
    before, after = summary["before"], summary["after"]
    turn = turn_of_run(RunFolder(outcome.run.path))
    console.print()
    gain = None
    if before and after:
        table.add_column("held-out problems", style="bold")
        for name in ("before", "after"):
            table.add_column(name, justify="right")
        for name, cells in card_rows(before, after):
            table.add_row(name, *cells)
        console.print(table)
        assert outcome.before and outcome.after, "a summary of tests that were not made"
        gain = paired_bootstrap(outcome.before.correct(), outcome.after.correct())
    if opponents := summary.get("opponents"):
        place = "\n  ".join(place_lines(opponents, after))
        console.print(f"\n  {escape(place)}", soft_wrap=True)
    if words := turn_words(turn):
        console.print(f"  search: {escape(words)}", soft_wrap=True)
    console.print(f"  {escape(closing_lines(summary, cfg))}", soft_wrap=True)
    for line in kept_lines(outcome.run):
        console.print(f"  {escape(line)}", soft_wrap=True)
    console.print(f"\n{escape(plain_sentences(summary, gain, turn))}", soft_wrap=True)
    print_next(outcome.run.path)


def print_next(path: Path) -> None:
    """The commands that a user may want next, each on a line of its own to copy."""
    console.print("\nNext:")
    for line in next_commands(path):
        console.print(f"  {escape(line)}", soft_wrap=True)


BEHAVIORS = (
    ("attempts", "attempts of a completion", ".1f"),
    ("checks", "checks of a completion", ".1f"),
    ("backtracks_intermediate", "goes back to an intermediate result", ".2f"),
    ("line_accuracy", "lines with right arithmetic", ".1%"),
    ("verdict_truth", "checks that are true", ".1%"),
    ("first_attempt_rate", "right at the first attempt", ".1%"),
    ("attempts_per_solve", "attempts for each right answer", ".1f"),
    ("tokens_per_solve", "tokens for each right answer", ".0f"),
)


def card_rows(before: dict[str, Any], after: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """(name, [before, after]) for each line of the card.

    Of the behaviours those that one of the two has, of the ways of search those with a completion;
    a task other than Countdown has none.
    """

    def both(show: Callable[[dict[str, Any]], str]) -> list[str]:
        return [show(before), show(after)]

    def rate(report: dict[str, Any]) -> str:
        low, high = report["interval"]
        return f"{report['solve_rate']:.3f} [{low:.3f}, {high:.3f}]"

    def behavior(key: str, form: str) -> Callable[[dict[str, Any]], str]:
        def show(report: dict[str, Any]) -> str:
            value = report["behaviors"].get(key)  # a ratio without a denominator is left out
            return "-" if value is None else format(value, form)

        return show

    yield "solve rate, 95 % interval", both(rate)
    yield "tokens of a completion", both(lambda report: f"{report['mean_tokens']:.0f}")
    yield "truncated at the limit", both(lambda report: f"{report['truncated']:.1%}")
    for key, name, form in BEHAVIORS:
        cells = both(behavior(key, form))
        if cells != ["-", "-"]:
            yield name, cells
    for key, label in WAY_WORDS.items():
        if before["behaviors"].get(key) or after["behaviors"].get(key):
            yield f"search: {label}", both(behavior(key, ".1%"))


def closing_lines(summary: dict[str, Any], cfg: RunConfig) -> str:
    """When the solve rate had doubled, and what the run has cost. What was planned stands beside
    what was measured in the report."""
    aha = summary["time_to_aha_s"]
    reached = f"{clock(aha)} after the start of training" if aha else "not reached"
    base, kwh = summary["base_cost_usd"], summary["base_kwh"]
    lines = [
        f"aha (solve rate doubled and past one half): {reached}",
        f"training {clock(summary['seconds'])} for {summary['steps']} steps, with both tests "
        f"{clock(summary['wall_s'])}",
        f"this run: {money(summary['cost_usd'])} at ${cfg.usd_per_hour:.2f} an hour, "
        f"{1000 * summary['kwh']:.1f} Wh at {cfg.watts:.0f} W",
    ]
    if base is not None:
        lines.append(f"its base model, once for everybody: {money(base)}, {1000 * kwh:.0f} Wh")
    else:
        lines.append(f"{cfg.model.path}: its makers' pre-training is not in this")
    return "\n  ".join(lines)


def kept_lines(run: Run) -> list[str]:
    """What the run takes on the disk, and where its best checkpoint is, if that is not the last."""
    sizes = {path: path.stat().st_size for path in run.path.rglob("*") if path.is_file()}
    in_checkpoints = sum(size for path, size in sizes.items() if run.checkpoints in path.parents)
    lines = [
        f"on the disk: {sum(sizes.values()) / MB:,.1f} MB in {run.path}, of these "
        f"{in_checkpoints / MB:,.1f} MB checkpoints"
    ]
    saved = checkpoints(run.checkpoints)
    for step, rate in best_checkpoint(run).items():
        if step != step_of(saved[-1]):
            lines.append(
                f"of the checkpoints, that of step {step} had the best validation ({rate:.1%}): "
                f"{run.checkpoints / f'step_{step:06d}'} is kept"
            )
    return lines


# -- three sentences ------------------------------------------------------------------------


def plain_sentences(summary: dict[str, Any], gain: tuple[float, float] | None, turn: object) -> str:
    """The run in three sentences for a reader who knows none of the words above: the result, how
    it came about, what it cost. `gain`: the 95 % interval of the paired difference."""
    return "\n".join(
        (result_sentence(summary, gain), change_sentence(summary, turn), cost_sentence(summary))
    )


def result_sentence(summary: dict[str, Any], gain: tuple[float, float] | None) -> str:
    """Both rates, and whether the difference is more than chance."""
    before, after = summary["before"], summary["after"]
    if not before or not after or gain is None:
        return (
            "The model was not tested before and after training, so nobody knows what it learned."
        )
    low, high = gain
    rates = (
        f"Of {after['problems']:,} problems that it never trained on, the model solved "
        f"{before['solve_rate']:.1%} before training and {after['solve_rate']:.1%} after it"
    )
    change = f"{100 * (after['solve_rate'] - before['solve_rate']):+.1f} points"
    interval = f"[{100 * low:+.1f}, {100 * high:+.1f}]"
    if low > 0:
        return f"{rates}: it has learned ({change} {interval})."
    if high < 0:
        return f"{rates}: it has got worse ({change} {interval})."
    return f"{rates}: no evidence that it learned ({change} {interval} contains 0)."


def change_sentence(summary: dict[str, Any], turn: object) -> str:
    """The turn of the search where there was one, else how the length changed."""
    if isinstance(turn, Turn):
        return (
            f"It changed from {DOING[turn.before]} to {DOING[turn.way]} at step {turn.step} of "
            f"{summary['steps']}."
        )
    before, after = summary["before"], summary["after"]
    if not before or not after:
        return f"It was trained for {summary['steps']} steps."
    return (
        f"Its completions have {after['mean_tokens']:.0f} tokens on average; before training they "
        f"had {before['mean_tokens']:.0f}."
    )


def cost_sentence(summary: dict[str, Any]) -> str:
    return (
        f"That took {clock(summary['wall_s'])} minutes and {money(summary['cost_usd'])} on this "
        "machine."
    )
