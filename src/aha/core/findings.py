"""What a check found, in plain words, and lists of checks.

    checks = Checklist()

    @checks
    def memory(machine): return warn("1.2 GB free", "close something") if ... else ok("9 GB free")

A check takes one thing to look at and returns a Finding, or None where it has nothing to say
about it. Its name is the function's. Checks from outside hang themselves on a list the same way.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from aha.core.errors import AhaError

Level = Literal["ok", "warn", "fail"]
WORST_FIRST = ("fail", "warn", "ok")


@dataclass(frozen=True, slots=True)
class Finding:
    """`saw` has the numbers, `fix` what to do about them; an "ok" needs no fix."""

    level: Level
    saw: str
    fix: str = ""
    check: str = ""


def ok(saw: str, fix: str = "") -> Finding:
    return Finding("ok", saw, fix)


def warn(saw: str, fix: str) -> Finding:
    return Finding("warn", saw, fix)


def fail(saw: str, fix: str) -> Finding:
    return Finding("fail", saw, fix)


def refused(error: AhaError) -> Finding:
    """An error that a user can mend, as a finding."""
    wanted = f"wanted {error.wanted}" if error.wanted else ""
    return fail(error.got, error.fix or wanted)


class Checklist(dict):
    """Checks by name, in the order in which they were written."""

    def __call__(self, function: Callable[[Any], Finding | None]) -> Callable:
        """Decorate a function to put it on the list. A name is given once."""
        name = function.__name__
        assert name not in self, f"a check {name!r} is on the list already"
        self[name] = function
        return function

    def run(self, subject: Any) -> list[Finding]:
        """Every check's finding. One that stumbles says so, and the others still look."""
        found = []
        for name, look in self.items():
            try:
                finding = look(subject)
            except AhaError as error:
                finding = refused(error)
            except Exception as error:  # damaged records must not hide what the others can see
                text = (str(error) or "no reason given").splitlines()[0]
                saw = f"could not look: {type(error).__name__}: {text}"
                finding = warn(saw, "nothing is known about this; see whether the input is whole")
            if finding is not None:
                found.append(replace(finding, check=name))
        return found


def worst(findings: list[Finding]) -> Level:
    """The level of the whole; "ok" where there is nothing."""
    return next((level for level in WORST_FIRST if any(f.level == level for f in findings)), "ok")


def as_object(findings: list[Finding]) -> dict:
    """For machines: `healthy` is False where a check failed."""
    level = worst(findings)
    return {
        "healthy": level != "fail",
        "level": level,
        "findings": [asdict(finding) for finding in findings],
    }
