"""The result of a check, and lists of checks.

    checks = Checklist()

    @checks
    def memory(machine):
        if machine.free_bytes < 2e9:
            return warn("1.2 GB free", "close other programs")
        return ok("9 GB free")

    findings = checks.run(machine)

A check takes one subject and returns a `Finding`, or None where it does not apply. Its name is the
function's. Code from outside adds its checks to a list in the same way.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypedDict

from aha.core.errors import AhaError, RunStopped

Level = Literal["ok", "warn", "fail"]
WORST_FIRST: tuple[Level, ...] = ("fail", "warn", "ok")


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check: `message` says it with its numbers, `fix` what to do about it.

    An "ok" needs no fix. `check` is the name of the check that returned it.
    """

    level: Level
    message: str
    fix: str = ""
    check: str = ""


Check = Callable[[Any], Finding | None]


def ok(message: str, fix: str = "") -> Finding:
    """A finding without a fault."""
    return Finding("ok", message, fix)


def warn(message: str, fix: str) -> Finding:
    """A finding that may cost time or quality; the run can go on."""
    return Finding("warn", message, fix)


def fail(message: str, fix: str) -> Finding:
    """A finding that makes the result wrong or the run impossible."""
    return Finding("fail", message, fix)


def failure_of(error: AhaError) -> Finding:
    """An error that a user can mend, as a finding."""
    fix = error.fix or (f"wanted {error.wanted}" if error.wanted else "")
    return Finding("fail", error.got, fix, error.check if isinstance(error, RunStopped) else "")


class Checklist(dict[str, Check]):
    """Checks by name, in the order in which they were written."""

    def __call__(self, function: Check) -> Check:
        """Add a function to the list; used as a decorator. Each name is given once."""
        name = function.__name__
        assert name not in self, f"a check {name!r} is on the list already"
        self[name] = function
        return function

    def run(self, subject: Any) -> list[Finding]:
        """The finding of every check. A check that raises becomes a finding; the others still run.

        An `AhaError` is a "fail" with its own fix. Any other exception is a "warn", because a
        damaged record says nothing about what the check was written to find.
        """
        findings = []
        for name, check in self.items():
            try:
                finding = check(subject)
            except AhaError as error:
                finding = failure_of(error)
            except Exception as error:  # damaged records must not hide what the others can see
                text = (str(error) or "no reason given").splitlines()[0]
                message = f"could not look: {type(error).__name__}: {text}"
                fix = "nothing is known about this; see whether the input is whole"
                finding = warn(message, fix)
            if finding is not None:
                findings.append(replace(finding, check=name))
        return findings


def worst_level(findings: list[Finding]) -> Level:
    """The worst level among the findings; "ok" where there are none."""
    return next((level for level in WORST_FIRST if any(f.level == level for f in findings)), "ok")


class FindingRow(TypedDict):
    """A finding as JSON."""

    level: Level
    message: str
    fix: str
    check: str


class HealthReport(TypedDict):
    """Findings as JSON: `healthy` is False where a check failed, `level` the worst of all."""

    healthy: bool
    level: Level
    findings: list[FindingRow]


def health_report(findings: list[Finding]) -> HealthReport:
    """The findings for `--json`."""
    level = worst_level(findings)
    return HealthReport(
        healthy=level != "fail", level=level, findings=[finding_row(f) for f in findings]
    )


def finding_row(finding: Finding) -> FindingRow:
    """A finding for JSON."""
    level, message, fix, check = finding.level, finding.message, finding.fix, finding.check
    return FindingRow(level=level, message=message, fix=fix, check=check)
