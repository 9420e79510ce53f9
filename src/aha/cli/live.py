"""A run in the terminal: one line a step, a completion now and then, a report card at the end."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from aha.core.config import RunConfig
from aha.core.errors import AhaError
from aha.core.records import Graded
from aha.doctor.run_checks import first_step
from aha.eval.statistics import paired_bootstrap
from aha.eval.suite import EvalReport
from aha.plan.calibration import Calibration
from aha.plan.cost import Cost, budget_seconds, money
from aha.plan.prediction import lines_before, lines_of
from aha.train.experiment import Experiment, Listener, Outcome

console = Console(highlight=False)


class Screen:
    """Prints what a run tells. Plain lines, so that a log file reads the same."""

    def __init__(self, cfg: RunConfig):
        self.cfg = cfg
        self.header_due = True

    def listener(self) -> Listener:
        return Listener(
            stage=lambda text: console.print(f"\n[bold]{text}[/bold]"),
            step=self.step,
            validation=self.validation,
            completion=self.completion,
            # Soft: a command to copy must not be broken over lines.
            say=lambda text: console.print(f"[yellow]{escape(text)}[/yellow]", soft_wrap=True),
        )

    def first_look(self, row: dict) -> None:
        """What is off already, so that nobody waits an hour for it."""
        for finding in first_step(row, self.cfg.model_dump(mode="json")):
            if finding.level != "ok":
                saw, fix = escape(finding.message), escape(finding.fix)
                console.print(f"[yellow]       {saw}; fix: {fix}[/yellow]", soft_wrap=True)

    def step(self, row: dict) -> None:
        if self.header_due:
            console.print(
                "[dim] step  reward  solved  tokens  cut off   tok/s  elapsed      left"
                "     cost[/dim]"
            )
            self.header_due = False
        left = row["elapsed_s"] * (1 / share_done(row, self.cfg) - 1)
        cost = Cost.of(row["elapsed_s"], self.cfg.usd_per_hour, self.cfg.watts)
        console.print(
            f"{row['step']:>5}  {row['reward']:>6.3f}  {row['solve_rate']:>6.1%}  "
            f"{row['mean_tokens']:>6.0f}  {row['truncated']:>7.1%}  {row['tokens_per_s']:>6.0f}  "
            f"{clock(row['elapsed_s']):>7}  {clock(left):>8}  {money(cost.usd):>12}"
        )
        if row["step"] == 1:
            self.first_look(row)

    def validation(self, row: dict) -> None:
        low, high = row["interval"]
        console.print(
            f"[cyan]       held-out: solved {row['solve_rate']:.1%} [{low:.1%}, {high:.1%}] of "
            f"{row['problems']}, {row['mean_tokens']:.0f} tokens[/cyan]"
        )

    def completion(self, version: int, one: Graded) -> None:
        console.print(completion_panel(one, f"step {version}"))
        self.header_due = True


def share_done(row: dict, cfg: RunConfig) -> float:
    """How much of a run lies behind: of its steps or its tokens, whichever is nearer its end."""
    spent = row["generated"] / cfg.tokens if cfg.tokens else 0.0
    return min(1.0, max(row["step"] / cfg.steps, spent))


def clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"


def completion_panel(one: Graded, title: str, lines: int = 16) -> Panel:
    """A completion as text, never as markup; long thoughts are cut in the middle."""
    thought = one.completion.text.splitlines()
    if len(thought) > lines:
        gone = len(thought) - lines
        thought = [*thought[: lines // 2], f"... {gone} more lines ...", *thought[-lines // 2 :]]
    question = one.completion.prompt.text.splitlines()[0]
    mark = "[green]right[/green]" if one.correct else "[red]wrong[/red]"
    return Panel(
        escape("\n".join(thought)),
        title=f"{escape(question)} ({title})",
        subtitle=f"{mark}: {escape(one.reason)}",
        title_align="left",
        subtitle_align="left",
        width=72,
    )


@contextmanager
def watched(path: Path, wanted: bool | None) -> Iterator[None]:
    """Say where the run can be watched; with `wanted`, or in a terminal unless told otherwise,
    serve it there while it lasts. A run without a dashboard is still a run."""
    if wanted is False or not (wanted or console.is_terminal):
        hint = "watch it in a browser: run `aha dash` in another terminal"
        console.print(hint, soft_wrap=True)
        yield
        return
    from aha.web.background import Beside

    try:
        beside = Beside(path)
    except (AhaError, OSError) as error:
        console.print(f"[yellow]no dashboard: {escape(str(error))}[/yellow]", soft_wrap=True)
        yield
        return
    with beside:
        hint = f"watch it in a browser: {beside.url} while this lasts, with `aha dash` later"
        console.print(escape(hint), soft_wrap=True)
        yield


def start(
    cfg: RunConfig,
    path: Path,
    budget: str | None = None,
    dash: bool | None = None,
    calibration: Calibration | None = None,
) -> None:
    screen = Screen(cfg)
    experiment = Experiment.start(cfg, path, screen.listener(), calibration, budget)
    screen.cfg = cfg = experiment.cfg
    model = experiment.trainer.policy
    console.print(
        f"[bold]aha[/bold]  {escape(cfg.model.path)} with {model.num_parameters() / 1e6:.2f} M "
        f"parameters, seed {cfg.seed}; everything goes to {escape(str(path))}"
    )
    if (path / "prediction.json").is_file():
        for line in lines_before(experiment.run.read("prediction.json"), experiment.budget_s):
            console.print(escape(line), soft_wrap=True)
    with watched(path, dash):
        finish(experiment.run_all(), cfg)


def resume_run(path: Path, budget: str | None = None, dash: bool | None = None) -> None:
    cfg = RunConfig()
    screen = Screen(cfg)
    experiment = Experiment.resume(path, screen.listener())
    screen.cfg = experiment.cfg
    if budget:
        experiment.budget_s = budget_seconds(budget, experiment.cfg.usd_per_hour)
    step = experiment.trainer.version
    console.print(f"[bold]aha[/bold]  {escape(str(path))} goes on after step {step}")
    with watched(path, dash):
        finish(experiment.run_all(), experiment.cfg)


def finish(outcome: Outcome, cfg: RunConfig) -> None:
    if outcome.summary is None:
        return
    if outcome.before and outcome.after:
        compare_thinking(outcome.before, outcome.after)
    report_card(outcome, cfg)


# -- the report card ------------------------------------------------------------------------


def compare_thinking(before: EvalReport, after: EvalReport, count: int = 3) -> None:
    """The same puzzles before and after: those that the base got wrong and that now take the
    most thinking, so that there is something to see."""
    pairs = list(zip(before.graded, after.graded, strict=True))
    turned = [(b[0], a[0]) for b, a in pairs if a[0].correct and not b[0].correct]
    turned.sort(key=lambda pair: len(pair[1].completion.tokens))
    middle = turned[len(turned) // 2 :][:count]
    for old, new in middle:
        console.print(completion_panel(old, "before"))
        console.print(completion_panel(new, "after"))


def report_card(outcome: Outcome, cfg: RunConfig) -> None:
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
        verdict = "" if low > 0 else "  (no evidence of a gain: the interval holds 0)"
        console.print(
            f"\n  gain {after['solve_rate'] - before['solve_rate']:+.3f} "
            f"[{low:+.3f}, {high:+.3f}] on the same {after['problems']} problems{verdict}"
        )
    console.print(f"  {escape(closing_lines(summary, cfg))}", soft_wrap=True)
    console.print(f"  everything is in {escape(str(outcome.run.path))}", soft_wrap=True)


BEHAVIORS = (
    ("attempts", "attempts of a completion", ".1f"),
    ("checks", "checks of a completion", ".1f"),
    ("backtracks_intermediate", "goes back to a part result", ".2f"),
    ("line_accuracy", "lines with right arithmetic", ".1%"),
    ("verdict_truth", "checks that are true", ".1%"),
)


def card_rows(before: dict, after: dict):
    """(name, [before, after]) lines of the card; of behaviours those that one of the two has,
    which for another task than Countdown is none."""

    def both(show) -> list[str]:
        return [show(before), show(after)]

    def rate(report: dict) -> str:
        low, high = report["interval"]
        return f"{report['solve_rate']:.3f} [{low:.3f}, {high:.3f}]"

    def behavior(key: str, form: str):
        def show(report: dict) -> str:
            found = report["behaviors"].get(key)  # a ratio without a denominator is left out
            return "-" if found is None else format(found, form)

        return show

    yield "solve rate, 95 % interval", both(rate)
    yield "tokens of a completion", both(lambda report: f"{report['mean_tokens']:.0f}")
    yield "cut off at the limit", both(lambda report: f"{report['truncated']:.1%}")
    for key, name, form in BEHAVIORS:
        cells = both(behavior(key, form))
        if cells != ["-", "-"]:
            yield name, cells


def closing_lines(summary: dict, cfg: RunConfig) -> str:
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
