"""Faults that show in the report of one step: each is told once, and a failure ends the run.

    @step_checks
    def graders(report):
        if all_failed(report):
            return fail("no completion could be graded", "mend `grade`")

A check takes a `StepReport`. Code from outside adds its checks in the same way.
"""

from collections.abc import Callable

from aha.core.errors import RunStopped
from aha.core.findings import WORST_FIRST, Checklist, Finding, Level, warn
from aha.core.records import StepReport
from aha.eval.grade_errors import GO_ON, GradeErrors
from aha.store.run_folder import Run

step_checks = Checklist()


class StepWatch:
    """Runs the checks on every step's report.

    The finding of a check is told when it is not ok: written into the run and handed to
    `on_finding`. It is told again only where its level has become worse. Raises `RunStopped` for a
    failure, which the run tells. `max_grade_errors`: the share of failed grades that is no failure.
    """

    def __init__(
        self, run: Run, on_finding: Callable[[Finding], None], max_grade_errors: float = 0.5
    ):
        self.run, self.on_finding, self.max_grade_errors = run, on_finding, max_grade_errors
        self.levels: dict[str, Level] = {}  # by check, the worst that was told
        self.prompts: frozenset[str] = frozenset()  # of the step before

    def grade_errors(self, report: StepReport) -> Finding | None:
        """The grades of the step that failed."""
        graded = (row for group in report.groups for row in group)
        return GradeErrors.of(graded).finding(self.max_grade_errors, GO_ON)

    def new_problems(self, report: StepReport) -> Finding | None:
        """Whether a step has other problems than the one before it: a task may ignore its seed."""
        prompts = frozenset(group[0].completion.prompt.text for group in report.groups)
        before, self.prompts = self.prompts, prompts
        if not prompts or prompts != before:
            return None
        return warn(
            f"the {len(prompts)} problems of the step before once more: they are learnt by heart",
            "`problems` has to draw by its seed, which every step has its own of; or more data",
        )

    def __call__(self, report: StepReport) -> None:
        own = {"grade_errors": self.grade_errors, "new_problems": self.new_problems}
        for finding in Checklist(**own, **step_checks).run(report):
            if finding.level == "fail":
                raise RunStopped(
                    finding.message, fix=finding.fix, check=finding.check, step=report.version
                )
            before = self.levels.get(finding.check, "ok")
            if WORST_FIRST.index(finding.level) < WORST_FIRST.index(before):
                self.levels[finding.check] = finding.level
                self.run.tell(report.version, finding)
                self.on_finding(finding)
