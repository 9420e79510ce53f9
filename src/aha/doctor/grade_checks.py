"""The check of a run's failed grades. A completion whose grading failed has a reward of 0, whatever
it says, so what other checks read from rewards is then of the grader, not of the model."""

import math
from typing import Any

from aha.core.findings import Finding, fail, ok, warn
from aha.doctor.run_files import RunRecords

FAULTY = 0.1  # share of failed grades from which on the solve rate says nothing


def failed_grades(rows: list[dict[str, Any]]) -> float:
    """Share of the completions of these steps whose grade failed; NaN for none.

    A row has no number of completions; it is the tokens over their mean.
    """
    rows = [row for row in rows if row.get("tokens") and row.get("mean_tokens")]
    failed = sum(row.get("grade_errors", 0) for row in rows)
    completions = sum(row["tokens"] / row["mean_tokens"] for row in rows)
    return failed / completions if completions else math.nan


def grading(run: RunRecords) -> Finding | None:
    """Every completion gets a grade."""
    share = failed_grades(run.metrics)
    noticed = [row for row in run.findings if row.get("check") == "grade_errors"]
    reports = [report for report in run.evaluations if report.get("grade_errors")]
    if not noticed and not reports and not share > 0:
        return None if math.isnan(share) else ok("every completion got a grade")
    reasons = [
        str(reason) for report in reports for reason in report.get("grade_error_reasons", {})
    ]
    reasons += [str(row.get("message", "")) for row in noticed]
    where = (
        f"{share:.1%} of the grades in training failed" if share > 0 else "grades failed in a test"
    )
    message = f"{where}: {reasons[-1] if reasons else 'completions/ has the reasons'}"
    broken = share > FAULTY or any(row.get("level") == "fail" for row in noticed)
    fix = "mend the task's `grade`; `aha doctor RECIPE` tries it on many texts"
    return (fail if broken else warn)(message, fix)
