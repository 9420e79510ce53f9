"""Failed grades: how many there are, why, and when they are too many.

A grade fails where the task's `grade` raises, hangs, crashes or returns no grade. The completion
then has a reward of 0, whatever it says: the number that is made of such rewards says nothing about
the model.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from aha.core.errors import RunStopped
from aha.core.findings import Finding
from aha.core.records import Graded
from aha.tasks.reward_function import BY_FUNCTION

SHOWN = 3  # reasons
VARYING = re.compile(r"0x[0-9a-f]+|\d+")  # numbers, and where objects lie in memory
CHECK = "grade_errors"  # the name of the check in a finding
GO_ON = "--task.max_grade_errors 1"


@dataclass(frozen=True)
class GradeErrors:
    """The failed grades among `graded` completions.

    `late` of them took too long; `untried` were not tried, because the grader had been given up.
    `reasons` has the most frequent ones with their counts; those that differ in numbers alone are
    one.
    """

    graded: int
    failed: int
    late: int
    untried: int
    reasons: dict[str, int]

    @classmethod
    def of(cls, graded: Iterable[Graded]) -> "GradeErrors":
        rows = list(graded)
        bad = [row for row in rows if row.parts.get("grade_error", 0.0) > 0]
        counts: Counter[str] = Counter()
        first: dict[str, str] = {}
        for row in bad:
            kind = VARYING.sub("#", row.reason)
            counts[kind] += 1
            first.setdefault(kind, row.reason)
        reasons = {first[kind]: count for kind, count in counts.most_common(SHOWN)}
        late, untried = (
            sum(row.parts.get(part, 0.0) > 0 for row in bad)
            for part in ("grade_timeout", "grade_untried")
        )
        return cls(len(rows), len(bad), late, untried, reasons)

    @property
    def share(self) -> float:
        """Of the completions, those whose grade failed; 0 where there are none."""
        return self.failed / max(1, self.graded)

    def check(self, limit: float) -> None:
        """Raises `RunStopped` for a larger share than `limit`."""
        finding = self.finding(limit, GO_ON)
        if finding and self.share > limit:
            raise RunStopped(finding.message, fix=finding.fix, check=CHECK)

    def finding(self, limit: float, go_on: str = "") -> Finding | None:
        """None without failed grades; a failure for a larger share than `limit`, and for a grader
        that was given up. `go_on` is the option that allows any share."""
        if not self.failed:
            return None
        reasons = "; ".join(f"{reason} ({count})" for reason, count in self.reasons.items())
        message = f"{self.failed} of {self.graded} grades failed ({self.share:.0%}): {reasons}"
        if self.untried:
            message += f"; {self.untried} of them were not tried any more"
        mend = "mend the task's `grade`; `aha doctor RECIPE` tries it on many texts"
        if all(reason.startswith(BY_FUNCTION) for reason in self.reasons):
            mend = "mend the function: a number for every text, whatever is in it"
        if self.late:
            mend = f"{mend}; if it needs more time: a higher task.grade_seconds"
        if self.untried:
            return Finding("fail", message, mend, CHECK)
        if self.share > limit:
            fix = mend + (f"; to train all the same: {go_on}" if go_on else "")
            return Finding("fail", message, fix, CHECK)
        fix = f"{mend}; these completions got a reward of 0, whatever they say"
        return Finding("warn", message, fix, CHECK)
