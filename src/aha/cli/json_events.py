"""A run's events as JSON lines on the output, one object each, for programs: `aha train --json`.

Every object has `event`: start, stage, progress, test, step, validation, group, finding, note, end.
The keys of step and validation are those of metrics.jsonl and evals.jsonl. The last event is always
`end`, with the exit code; where an error has ended the run it has `error`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aha.cli.error_translation import as_user_error
from aha.cli.exit_codes import code_of
from aha.cli.terminal_text import OutputClosed, say_json
from aha.core.config import RunConfig
from aha.core.findings import Finding
from aha.core.records import Graded
from aha.eval.suite import completion_row
from aha.training.outcome import Listener, Outcome


def emit(event: str, **content: Any) -> None:
    """One line."""
    say_json({"event": event, **content})


@contextmanager
def end_at_a_fault(run: Path) -> Iterator[None]:
    """An error within ends the events with an `end` that has the exit code to come and the error,
    as the error stream will say it."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if not isinstance(error, OutputClosed):  # there is nobody to read it
            known = as_user_error(error)
            words = {"kind": type(known or error).__name__, "message": str(known or error)}
            if known:
                words |= {"got": known.got, "wanted": known.wanted, "fix": known.fix}
            emit("end", run=str(run), exit_code=code_of(error), summary=None, error=words)
        raise


class JsonEvents:
    """Writes a run's events; the counterpart of `RunView`."""

    def __init__(self, cfg: RunConfig):
        self.cfg = cfg

    def listener(self) -> Listener:
        return Listener(
            stage=lambda text: emit("stage", text=text),
            progress=lambda done, of: emit("progress", done=done, of=of),
            tested=self.tested,
            step=lambda row: emit("step", of=self.cfg.steps, **row),
            validation=lambda row: emit("validation", **row),
            group=self.group,
            finding=self.finding,
            say=lambda text: emit("note", text=text),
        )

    def close(self) -> None:
        """Nothing is open."""

    def begin(self, path: Path, parameters: int, lines: Sequence[str]) -> None:
        """The run's folder, its model, and what was planned."""
        emit(
            "start",
            run=str(path),
            model=self.cfg.model.path,
            parameters=parameters,
            seed=self.cfg.seed,
            notes=list(lines),
        )

    def tested(self, name: str, numbers: Mapping[str, Any]) -> None:
        emit("test", name=name, **numbers)

    def group(self, version: int, group: Sequence[Graded], advantages: Sequence[float]) -> None:
        """One problem with all its completions."""
        rows = [
            completion_row(graded) | {"parts": dict(graded.parts), "advantage": advantage}
            for graded, advantage in zip(group, advantages, strict=True)
        ]
        emit("group", step=version, completions=rows)

    def finding(self, finding: Finding) -> None:
        emit("finding", **asdict(finding))

    def end(self, outcome: Outcome, code: int) -> None:
        """The summary, null for a run that was stopped, with the exit code to come."""
        emit("end", run=str(outcome.run.path), exit_code=code, summary=outcome.summary)
