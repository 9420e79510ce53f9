"""Faults that show in the report of one step: each is told once, and a failure ends the run.

    @step_checks
    def graders(report):
        if all_failed(report):
            return fail("no completion could be graded", "mend `grade`")

A check takes a `StepReport`. Code from outside adds its checks in the same way.
"""

from collections.abc import Callable

from aha.core.errors import RunStopped
from aha.core.findings import WORST_FIRST, Checklist, Finding, Level
from aha.core.records import StepReport
from aha.store.run_folder import Run

step_checks = Checklist()


class StepWatch:
    """Runs the checks on every step's report.

    The finding of a check is told when it is not ok: written into the run and handed to
    `on_finding`. It is told again only where its level has become worse. Raises `RunStopped` for a
    failure, which the run tells.
    """

    def __init__(self, run: Run, on_finding: Callable[[Finding], None]):
        self.run, self.on_finding = run, on_finding
        self.levels: dict[str, Level] = {}  # by check, the worst that was told

    def __call__(self, report: StepReport) -> None:
        for finding in step_checks.run(report):
            if finding.level == "fail":
                raise RunStopped(
                    finding.message, fix=finding.fix, check=finding.check, step=report.version
                )
            before = self.levels.get(finding.check, "ok")
            if WORST_FIRST.index(finding.level) < WORST_FIRST.index(before):
                self.levels[finding.check] = finding.level
                self.run.tell(report.version, finding)
                self.on_finding(finding)
