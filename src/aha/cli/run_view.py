"""A run's events on a terminal: a line for each step, tests with a bar, a group of completions.

Needs torch: a command imports this module inside its function.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.markup import escape
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from aha.cli.own_command import as_typed_here
from aha.cli.report_card import clock, shortened
from aha.cli.share_bar import share_bar
from aha.cli.terminal_text import console
from aha.core.config import RunConfig
from aha.core.findings import Finding
from aha.core.records import Graded
from aha.doctor.run_checks import first_step_findings
from aha.eval.telling import telling_places
from aha.plan.machines import Cost
from aha.plan.time_left import TimeLeft, share_done
from aha.store.guarded_files import number
from aha.store.run_folder import Run, read_rows
from aha.training.builders import price_of_run
from aha.training.outcome import Listener
from aha.training.step_watch import step_checks
from aha.web.turn_view import WAY_WORDS

HEADER = (
    "[dim]       step  reward  solved  tokens  trunc.   tok/s  elapsed     left     cents[/dim]"
)
# Numbers of an update that a group is shown with: name, word, format.
UPDATE_NUMBERS = (
    ("groups_flat", "flat groups", ".1%"),
    ("reward_std", "deviation", ".2f"),
    ("entropy", "entropy", ".3f"),
    ("kl", "KL", ".4f"),
    ("clipped", "clipped", ".1%"),
    ("grad_norm", "gradient", ".2g"),
)
COUNTS = ("answer_blocks",)  # parts of a grade that are counted and not paid for
CLOCK_NUMBERS = ("step", "generated", "mean_tokens", "elapsed_s")  # of a row, for the time left
TWO_COLUMNS = 120  # characters of a terminal from which on completions stand side by side


class RunView:
    """Prints a run's events. Plain lines, so that a log file reads the same; a bar only where the
    output is a terminal."""

    def __init__(self, cfg: RunConfig):
        self.cfg = cfg
        self.header_due = True
        self.leading_way = ""  # a key of WAY_WORDS
        self.time_left: TimeLeft | None = None
        self.bar: Progress | None = None
        self.row: dict[str, Any] = {}  # of the last step

    def listener(self) -> Listener:
        return Listener(
            stage=lambda text: console.print(f"\n[bold]{text}[/bold]"),
            progress=self.progress,
            tested=self.tested,
            step=self.step,
            validation=self.validation,
            group=self.group,
            finding=print_step_finding,
            # Soft: a command to copy must not be broken over lines.
            say=lambda text: console.print(
                f"[yellow]{escape(as_typed_here(text))}[/yellow]", soft_wrap=True
            ),
        )

    def close(self) -> None:
        """Take away a bar that an error or Ctrl-C has left."""
        if self.bar:
            self.bar.stop()
            self.bar = None

    def progress(self, done: int, of: int) -> None:
        """A bar over the problems of a test, while it lasts."""
        if self.bar is None and console.is_terminal and done < of:
            columns = (TextColumn("      "), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self.bar = Progress(*columns, console=console, transient=True)
            self.bar.add_task("", total=of)
            self.bar.start()
        if self.bar:
            self.bar.update(self.bar.task_ids[0], completed=done)
        if done >= of:
            self.close()

    def tested(self, name: str, numbers: Mapping[str, Any]) -> None:
        """The result of a test, as soon as it is known."""
        self.close()
        low, high = numbers["interval"]
        console.print(
            f"       {name}: solved {numbers['solve_rate']:.1%} [{low:.1%}, {high:.1%}] of "
            f"{numbers['problems']:,}, {numbers['mean_tokens']:.0f} tokens each, in "
            f"{clock(numbers['seconds'])}",
            markup=False,
        )
        if name == "before":
            self.clock_of_run().add_test(numbers)

    def clock_of_run(self) -> TimeLeft:
        """Made at the first event: the recipe is complete only when the run has begun."""
        if self.time_left is None:
            self.time_left = TimeLeft(self.cfg)
        return self.time_left

    def go_on(self, run: Run) -> None:
        """Take up a resumed run: what is left is then told as if it had never stopped.

        The rows of a run may be of an older version: those without the numbers are left out.
        """
        time_left = self.clock_of_run()
        for row in read_rows(run.metrics):
            if has_numbers(row, CLOCK_NUMBERS):
                time_left.add(row)
        before = run.read_or_none("before.json") if self.cfg.eval.final else None
        if before and has_numbers(before, ("seconds", "mean_tokens")):
            time_left.add_test(before)

    def print_first_findings(self, row: dict[str, Any]) -> None:
        """Print the faults that the first step shows, so that nobody waits an hour for them."""
        for finding in first_step_findings(row, self.cfg.model_dump(mode="json")):
            # Those of `step_checks` are told by the run itself.
            if finding.level != "ok" and finding.check not in step_checks:
                print_step_finding(finding)

    def step(self, row: dict[str, Any]) -> None:
        if self.header_due:
            console.print(HEADER)
            self.header_due = False
        self.row = row
        time_left = self.clock_of_run()
        time_left.add(row)
        left = time_left.seconds()
        cost = Cost.of(row["elapsed_s"], *price_of_run(self.cfg))
        place = f"{row['step']}/{self.cfg.steps}"
        console.print(
            f"{place:>11}  {row['reward']:>6.3f}  {row['solve_rate']:>6.1%}  "
            f"{row['mean_tokens']:>6.0f}  {row['truncated']:>6.1%}  {row['tokens_per_s']:>6.0f}  "
            f"{clock(row['elapsed_s']):>7}  {'-' if left is None else clock(left):>7}  "
            f"{100 * cost.usd:>8.2f}"
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

    def group(self, version: int, group: Sequence[Graded], advantages: Sequence[float]) -> None:
        print_group(version, group, advantages)
        console.print(f"[dim]{update_words(self.row)}[/dim]", soft_wrap=True)
        self.header_due = True


def has_numbers(row: Mapping[str, Any], names: Sequence[str]) -> bool:
    """Whether all of these are there and finite."""
    return all(number(row.get(name)) is not None for name in names)


@contextmanager
def steps_bar(cfg: RunConfig) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A bar over a run of which no line is printed for each step; it gets the rows. Where the
    output is no terminal there is none."""
    with share_bar() as bar:
        yield lambda row: bar(share_done(row, cfg))


def print_step_finding(finding: Finding) -> None:
    """A fault of a step, below the line of that step."""
    message, fix = escape(finding.message), escape(as_typed_here(finding.fix))
    console.print(f"[yellow]       {message}; fix: {fix}[/yellow]", soft_wrap=True)


def update_words(row: Mapping[str, Any]) -> str:
    """The numbers of an update in one line; those that were not measured are left out."""
    known = [
        f"{word} {row[name]:{form}}"
        for name, word, form in UPDATE_NUMBERS
        if row.get(name) is not None
    ]
    return "update: " + ", ".join(known) if known else ""


# -- one problem and its completions ---------------------------------------------------------


def ranked(group: Sequence[Graded], advantages: Sequence[float]) -> list[tuple[str, int]]:
    """(best, median or worst; index) of the completions to show. One where all rewards are equal:
    nothing then tells them apart."""
    if len({graded.reward for graded in group}) == 1:
        return [("all alike", 0)] if len(group) > 1 else [("", 0)]
    order = sorted(range(len(group)), key=lambda i: (-group[i].reward, -advantages[i], i))
    return list(telling_places(order).items())


def print_group(version: int, group: Sequence[Graded], advantages: Sequence[float]) -> None:
    """One problem with its best, median and worst completion, and the numbers of the whole group;
    side by side where the terminal is wide."""
    question = group[0].completion.prompt.text.splitlines()[0]
    rewards = [graded.reward for graded in group]
    console.print(
        f"[bold]step {version}: {escape(question)}[/bold]  {sum(g.correct for g in group)} of "
        f"{len(group)} right, rewards {min(rewards):.2f} to {max(rewards):.2f}",
        soft_wrap=True,
    )
    shown = [(group[i], member_title(name, advantages[i])) for name, i in ranked(group, advantages)]
    if console.width >= TWO_COLUMNS and len(shown) > 1:
        grid = Table.grid(expand=False, padding=(0, 1, 0, 0))
        grid.add_row(*(member_panel(graded, title, 56) for graded, title in shown[:2]))
        console.print(grid)
        shown = shown[2:]
    for graded, title in shown:
        console.print(member_panel(graded, title, 72))


def member_title(name: str, advantage: float) -> str:
    return f"{name}, advantage {advantage:+.2f}".lstrip(", ")


def member_panel(graded: Graded, title: str, width: int, lines: int = 12) -> Panel:
    """A completion with its reward and its parts, as text and never as markup."""
    mark = "[green]right[/green]" if graded.correct else "[red]wrong[/red]"
    paid = {name: value for name, value in graded.parts.items() if name not in COUNTS}
    parts = "".join(f", {name} {value:.2f}" for name, value in paid.items())
    return Panel(
        escape(shortened(graded.completion.text, lines)),
        title=escape(title),
        subtitle=f"{mark}, reward {graded.reward:.2f}{escape(parts)}: {escape(graded.reason)}",
        title_align="left",
        subtitle_align="left",
        width=width,
    )
