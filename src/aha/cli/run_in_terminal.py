"""A run in the terminal: start or resume it, print each step, print the report card at the end.

Needs torch: a command imports this module inside its function.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from aha.api.logged_run import attach_loggers
from aha.behaviors.search_ways import LABELS, read_search
from aha.cli.plan import calibration_of
from aha.cli.terminal_text import console, say, say_json, say_line
from aha.core.config import RunConfig
from aha.core.errors import AhaError, ModelError
from aha.core.findings import Finding
from aha.core.records import Graded
from aha.doctor.run_checks import first_step_findings
from aha.eval.statistics import paired_bootstrap
from aha.eval.suite import EvalReport
from aha.eval.yardstick import place_lines
from aha.measure.probe import predicted_lines
from aha.model.folders import resolve_model
from aha.plan.calibration import Calibration
from aha.plan.machines import Cost, money
from aha.plan.prediction import lines_before, lines_of
from aha.plan.shapes import shape_of
from aha.store.run_folder import check_new
from aha.training.builders import task_of
from aha.training.experiment import Experiment
from aha.training.joint_work import check_setting
from aha.training.outcome import Listener, Outcome
from aha.training.step_watch import step_checks
from aha.web.runs import RunFolder
from aha.web.turn_view import WAY_WORDS, turn_words
from aha.web.ways_of_run import turn_of_run


@dataclass(frozen=True)
class RunOptions:
    """Options of a command that starts a run; none of them changes what is learnt.

    `dash` None: serve the dashboard only if the output is a terminal. `probe`, `calibration`: see
    `aha plan --probe`. `ranks` None: one, or at a resume as many as the run had.
    `loggers`: names of trackers that get a copy of the run.
    """

    budget: str | None = None
    dash: bool | None = None
    dry_run: bool = False
    probe: bool = False
    calibration: Path | None = None
    ranks: int | None = None
    loggers: Sequence[str] = ()


def start_run(cfg: RunConfig, path: Path, options: RunOptions) -> None:
    """A new run in the folder `path`; with `dry_run` only its config and plan are printed."""
    check_setting(options.ranks or 1, cfg)
    if options.dry_run:
        print_dry_run(cfg, options.budget)
        return
    check_new(path)  # before the machine is measured
    calibration = None
    if options.probe or options.calibration:
        shape = shape_of(str(resolve_model(cfg.model.path)))
        calibration = calibration_of(cfg, shape, options.probe, options.calibration)
    run_to_report_card(cfg, path, options, calibration)


def print_dry_run(cfg: RunConfig, budget: str | None) -> None:
    """The config on the output stream, the plan on the error stream, so that each can be piped."""
    task_of(cfg)
    say_json(cfg.model_dump(mode="json"), indent=2)
    try:
        say("\n".join(predicted_lines(cfg, budget)), file=sys.stderr)
    except ModelError as error:
        say_line(f"no plan: {error}", sys.stderr)


def run_to_report_card(
    cfg: RunConfig, path: Path, options: RunOptions, calibration: Calibration | None
) -> None:
    """Carry out a new run and print it, from the first line to the report card."""
    view = RunView(cfg)
    shared = (calibration, options.budget, options.ranks or 1)
    experiment = Experiment.start(cfg, path, view.listener(), *shared)
    view.cfg = cfg = experiment.cfg
    model = experiment.trainer.policy
    console.print(
        f"[bold]aha[/bold]  {escape(cfg.model.path)} with {model.num_parameters() / 1e6:.2f} M "
        f"parameters, seed {cfg.seed}; all files are in {escape(str(path))}"
    )
    if (path / "prediction.json").is_file():
        for line in lines_before(experiment.run.read("prediction.json"), experiment.budget_s):
            console.print(escape(line), soft_wrap=True)
    say_ranks(experiment)
    attach_loggers(experiment, options.loggers)
    with dashboard(path, options.dash):
        print_outcome(experiment.run_all(), cfg)


def say_ranks(experiment: Experiment) -> None:
    """A line where several processes share the work."""
    if experiment.ranks.size > 1:
        console.print(
            f"{experiment.ranks.size} ranks share the work; the time above is planned for one"
        )


def resume_run(path: Path, options: RunOptions, changes: dict[str, Any], accept: bool) -> None:
    """Go on with the run in `path` from its newest whole checkpoint.

    `changes`: keys of the recipe with new values, for more steps or tokens; with `accept` any.
    """
    view = RunView(RunConfig())
    shared = (changes, accept, options.budget, options.ranks)
    experiment = Experiment.resume(path, view.listener(), *shared)
    view.cfg = experiment.cfg
    step = experiment.trainer.version
    console.print(f"[bold]aha[/bold]  {escape(str(path))} resumes after step {step}")
    say_ranks(experiment)
    attach_loggers(experiment, options.loggers)
    with dashboard(path, options.dash):
        print_outcome(experiment.run_all(), experiment.cfg)


@contextmanager
def dashboard(path: Path, serve: bool | None) -> Iterator[None]:
    """Serve the dashboard during the run, or print the command that does.

    `serve` None: serve it if the output is a terminal. If the dashboard fails, the run goes on.
    """
    if serve is False or not (serve or console.is_terminal):
        hint = "watch it in a browser: run `aha dash` in another terminal"
        console.print(hint, soft_wrap=True)
        yield
        return
    from aha.web.server import BackgroundDashboard

    try:
        server = BackgroundDashboard(path)
    except (AhaError, OSError) as error:
        console.print(f"[yellow]no dashboard: {escape(str(error))}[/yellow]", soft_wrap=True)
        yield
        return
    with server:
        hint = f"watch it in a browser: {server.url} during the run, `aha dash` after it"
        console.print(escape(hint), soft_wrap=True)
        yield


# -- the steps ------------------------------------------------------------------------------


class RunView:
    """Prints a run's events. Plain lines, so that a log file reads the same."""

    def __init__(self, cfg: RunConfig):
        self.cfg = cfg
        self.header_due = True
        self.leading_way = ""  # a key of WAY_WORDS

    def listener(self) -> Listener:
        return Listener(
            stage=lambda text: console.print(f"\n[bold]{text}[/bold]"),
            step=self.step,
            validation=self.validation,
            completion=self.completion,
            finding=print_step_finding,
            # Soft: a command to copy must not be broken over lines.
            say=lambda text: console.print(f"[yellow]{escape(text)}[/yellow]", soft_wrap=True),
        )

    def print_first_findings(self, row: dict[str, Any]) -> None:
        """Print the faults that the first step shows, so that nobody waits an hour for them."""
        for finding in first_step_findings(row, self.cfg.model_dump(mode="json")):
            # Those of `step_checks` are told by the run itself.
            if finding.level != "ok" and finding.check not in step_checks:
                print_step_finding(finding)

    def step(self, row: dict[str, Any]) -> None:
        if self.header_due:
            console.print(
                "[dim] step  reward  solved  tokens  truncated   tok/s  elapsed     left"
                "         cost[/dim]"
            )
            self.header_due = False
        left = row["elapsed_s"] * (1 / share_done(row, self.cfg) - 1)
        cost = Cost.of(row["elapsed_s"], self.cfg.usd_per_hour, self.cfg.watts)
        console.print(
            f"{row['step']:>5}  {row['reward']:>6.3f}  {row['solve_rate']:>6.1%}  "
            f"{row['mean_tokens']:>6.0f}  {row['truncated']:>9.1%}  {row['tokens_per_s']:>6.0f}  "
            f"{clock(row['elapsed_s']):>7}  {clock(left):>7}  {money(cost.usd):>11}"
        )
        self.print_leading_way(row)
        if row["step"] == 1:
            self.print_first_findings(row)

    def print_leading_way(self, row: dict[str, Any]) -> None:
        """A line where more than half of the completions search in another way than they did
        before."""
        for key, label in WAY_WORDS.items():
            share = row.get(key, 0.0)
            if share > 0.5 and key != self.leading_way:
                self.leading_way = key
                console.print(f"[cyan]       search: now mostly {label} ({share:.0%})[/cyan]")

    def validation(self, row: dict[str, Any]) -> None:
        low, high = row["interval"]
        console.print(
            f"[cyan]       held-out: solved {row['solve_rate']:.1%} [{low:.1%}, {high:.1%}] of "
            f"{row['problems']}, {row['mean_tokens']:.0f} tokens[/cyan]"
        )

    def completion(self, version: int, graded: Graded) -> None:
        console.print(completion_panel(graded, f"step {version}"))
        self.header_due = True


def print_step_finding(finding: Finding) -> None:
    """A fault of a step, below the line of that step."""
    message, fix = escape(finding.message), escape(finding.fix)
    console.print(f"[yellow]       {message}; fix: {fix}[/yellow]", soft_wrap=True)


def share_done(row: dict[str, Any], cfg: RunConfig) -> float:
    """Share of the run that is done: the larger one of its share of steps and of tokens."""
    by_tokens: float = row["generated"] / cfg.tokens if cfg.tokens else 0.0
    by_steps: float = row["step"] / cfg.steps
    return min(1.0, max(by_steps, by_tokens))


def clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"


def completion_panel(graded: Graded, title: str, lines: int = 16) -> Panel:
    """A completion as text, never as markup; long completions are cut in the middle."""
    thought = graded.completion.text.splitlines()
    if len(thought) > lines:
        gone = len(thought) - lines
        thought = [*thought[: lines // 2], f"... {gone} more lines ...", *thought[-lines // 2 :]]
    question = graded.completion.prompt.text.splitlines()[0]
    mark = "[green]right[/green]" if graded.correct else "[red]wrong[/red]"
    return Panel(
        escape("\n".join(thought)),
        title=f"{escape(question)} ({title})",
        subtitle=f"{mark}: {escape(graded.reason)}",
        title_align="left",
        subtitle_align="left",
        width=72,
    )


# -- the report card ------------------------------------------------------------------------


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
    before, after = summary["before"], summary["after"]
    console.print()
    if before and after:
        table.add_column("held-out problems", style="bold")
        for name in ("before", "after"):
            table.add_column(name, justify="right")
        for name, cells in card_rows(before, after):
            table.add_row(name, *cells)
        console.print(table)
        low, high = paired_bootstrap(outcome.before.correct(), outcome.after.correct())
        verdict = "" if low > 0 else "  (no evidence of a gain: the interval contains 0)"
        console.print(
            f"\n  gain {after['solve_rate'] - before['solve_rate']:+.3f} "
            f"[{low:+.3f}, {high:+.3f}] on the same {after['problems']} problems{verdict}"
        )
    if opponents := summary.get("opponents"):
        place = "\n  ".join(place_lines(opponents, after))
        console.print(f"  {escape(place)}", soft_wrap=True)
    if words := turn_words(turn_of_run(RunFolder(outcome.run.path))):
        console.print(f"  search: {escape(words)}", soft_wrap=True)
    console.print(f"  {escape(closing_lines(summary, cfg))}", soft_wrap=True)
    console.print(f"  all files are in {escape(str(outcome.run.path))}", soft_wrap=True)


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
    lines += [f"{name}: {text}" for name, text in lines_of(summary["plan"])]
    return "\n  ".join(lines)
