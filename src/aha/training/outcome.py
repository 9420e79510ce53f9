"""What a run tells while it goes on, and what it gives in the end."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aha.core.findings import Finding
from aha.core.records import Graded
from aha.eval.suite import EvalReport
from aha.store.run_folder import Run


def _ignore(*unused: object) -> None:
    pass


@dataclass
class Listener:
    """Callbacks of a front end; every one may be left out.

    `stage` names what begins, `progress` counts problems of a test (done, of), `step` and
    `validation` get the rows of metrics.jsonl and evals.jsonl, `completion` one completion of a
    step, `finding` a fault that the run noticed, `say` a line for the user. `end` is called last,
    however the run ends, while its lock is still held.
    """

    stage: Callable[[str], None] = _ignore
    progress: Callable[[int, int], None] = _ignore
    step: Callable[[dict[str, Any]], None] = _ignore
    validation: Callable[[dict[str, Any]], None] = _ignore
    completion: Callable[[int, Graded], None] = _ignore
    finding: Callable[[Finding], None] = _ignore
    say: Callable[[str], None] = _ignore
    end: Callable[[], None] = _ignore


@dataclass
class Outcome:
    """The result of a run. `summary` and `after` are None when it was stopped early."""

    run: Run
    summary: dict[str, Any] | None
    before: EvalReport | None
    after: EvalReport | None
    rows: list[dict[str, Any]] = field(default_factory=list)
