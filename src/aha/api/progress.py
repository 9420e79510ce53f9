"""What a Python call shows of a run during training: lines in a script, a picture in a notebook.

It also passes on the rows of the run to the callbacks, and the faults that it noticed to the user.
"""

import sys
from collections.abc import Sequence
from typing import Any

from aha.api.callbacks import Callbacks
from aha.api.display import LiveRun, notebook_publisher, telling_completions
from aha.api.python_words import in_python
from aha.core.config import RunConfig
from aha.core.control_characters import visible
from aha.core.findings import Finding
from aha.core.records import Graded
from aha.eval.suite import EvalNumbers, completion_row
from aha.store.run_folder import Run, resume_command
from aha.training.outcome import Listener

Row = dict[str, Any]


class Progress:
    """The listener of one run.

    `resume_line` is what to type to go on with it. With `show` False nothing is printed but faults
    and that line.
    """

    def __init__(self, cfg: RunConfig, run: Run, callbacks: Callbacks, show: bool, rewards: str):
        self.cfg, self.run, self.callbacks, self.show = cfg, run, callbacks, show
        again = f", reward={rewards}, data=..." if rewards else ""
        self.resume_line = f"aha.train(resume={str(run.path)!r}{again})"
        self.command = resume_command(run.path)  # in messages of the rooms below
        self.said_resume = False
        publish = notebook_publisher() if show else None
        self.live = LiveRun(f"aha: {run.path}", publish) if publish else None

    def listener(self) -> Listener:
        """The callbacks of an experiment."""
        return Listener(
            stage=self.stage,
            tested=self.tested,
            step=self.step,
            validation=self.validation,
            group=self.group,
            finding=self.finding,
            say=self.say,
        )

    def stage(self, text: str) -> None:
        """What begins."""
        if self.live:
            self.live.show(text, now=True)
        elif self.show:
            self.print(text)

    def tested(self, name: str, numbers: EvalNumbers) -> None:
        """A test is done: "before" or "after"."""
        last = self.live.rows[-1]["step"] if self.live and self.live.rows else 0
        self.held_out(name, last, dict(numbers))

    def held_out(self, name: str, step: int, numbers: Row) -> None:
        """Held-out problems are solved: a line, or a point of the picture."""
        low, high = numbers["interval"]
        line = f"{name}: solved {numbers['solve_rate']:.1%} [{low:.1%}, {high:.1%}]"
        if self.live:
            self.live.tests.append((step, numbers))
            self.live.show(line)
        elif self.show:
            self.print(f"  {line} of {numbers['problems']}")

    def step(self, row: Row) -> None:
        """A step is done: its line, then the callbacks."""
        line = step_line(row, self.cfg.steps)
        if self.live:
            self.live.step(row, line)
        elif self.show:
            self.print(line)
        self.callbacks.step(row, self.tell)

    def validation(self, row: Row) -> None:
        """A validation is done."""
        self.held_out("held-out", row["step"], row)
        self.callbacks.validation(row, self.tell)

    def group(self, version: int, group: Sequence[Graded], advantages: Sequence[float]) -> None:
        """The completions of one problem, for people to read: the best of them in a script."""
        rows = telling_completions([completion_row(graded) for graded in group])
        if self.live:
            self.live.completions = rows
        elif self.show:
            text = str(rows[0]["completion"]).strip()
            short = text if len(text) <= 600 else f"{text[:300]}\n...\n{text[-300:]}"
            self.print(f"  a completion of step {version}, reward {rows[0]['reward']:g}:")
            self.print("\n".join(f"    {line}" for line in short.splitlines()))

    def finding(self, finding: Finding) -> None:
        """A fault that the run noticed."""
        fix = f"; fix: {self.in_python(finding.fix)}" if finding.fix else ""
        self.print(f"aha: {finding.level}: {finding.message}{fix}", sys.stderr)

    def tell(self, step: int, finding: Finding) -> None:
        """A fault of a callback: into findings.jsonl, and to the user."""
        self.run.tell(step, finding)
        self.finding(finding)

    def say(self, text: str) -> None:
        """A line of the experiment. Who calls from Python goes on from Python."""
        self.said_resume = self.said_resume or self.command in text
        self.print(self.in_python(text), sys.stderr)

    def in_python(self, text: str) -> str:
        """The text with the call that goes on with this run in place of the command, and arguments
        in place of other options."""
        return in_python(text.replace(self.command, self.resume_line))

    def done(self) -> None:
        """The run has ended: the last picture of a notebook."""
        if self.live:
            self.live.show("", now=True)

    def stopped(self) -> None:
        """The run was interrupted: the resume line, where it has not been said."""
        if not self.said_resume:
            self.said_resume = True
            self.print(f"stopped; go on with: {self.resume_line}", sys.stderr)

    @staticmethod
    def print(text: str, file: Any = None) -> None:
        """A text for the screen; what the stream's encoding lacks becomes an escape."""
        stream = file or sys.stdout
        encoding = getattr(stream, "encoding", None) or "utf-8"
        line = visible(text).encode(encoding, "backslashreplace").decode(encoding)
        print(line, file=stream, flush=True)


def step_line(row: Row, steps: int) -> str:
    """A step in one line."""
    minutes, seconds = divmod(int(row["elapsed_s"]), 60)
    return (
        f"step {row['step']:>3}/{steps}  reward {row['reward']:.3f}  solved "
        f"{row['solve_rate']:.1%}  tokens {row['mean_tokens']:.0f}  {minutes}:{seconds:02d}"
    )
