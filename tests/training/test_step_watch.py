"""A fault in a step's report is told once, and a failure ends the run with a checkpoint."""

import json
from dataclasses import replace

import pytest

from aha.core.config import RunConfig
from aha.core.errors import RunStopped
from aha.core.findings import Finding, fail, ok, warn
from aha.core.records import Completion, Graded, Problem, Prompt, StepReport
from aha.store.checkpoint import latest_checkpoint
from aha.store.run_folder import Run, read_rows
from aha.training.experiment import Experiment
from aha.training.outcome import Listener
from aha.training.step_watch import StepWatch, step_checks

from ..tiny import answering_folder

REPORT = StepReport(1, (), (), {}, {})


@pytest.fixture
def run(tmp_path) -> Run:
    return Run.create(tmp_path / "run", {})


def watch(run, monkeypatch, *findings: Finding) -> list[Finding]:
    """What a watch tells of steps whose only check returns these findings, one a step."""
    noticed: list[Finding] = []
    watcher, rest = StepWatch(run, noticed.append), iter(findings)
    for name in list(step_checks):
        monkeypatch.delitem(step_checks, name)
    monkeypatch.setitem(step_checks, "planted", lambda report: next(rest))
    for step in range(1, len(findings) + 1):
        watcher(replace(REPORT, version=step))
    return noticed


def test_a_warning_is_told_once(run, monkeypatch):
    told = watch(run, monkeypatch, ok("fine"), warn("odd", "look"), warn("odd", "look"), ok("fine"))
    assert [finding.message for finding in told] == ["odd"]
    row = {"step": 2, "level": "warn", "message": "odd", "fix": "look", "check": "planted"}
    assert list(read_rows(run.findings)) == [row]


def test_a_failure_ends_the_run(run, monkeypatch):
    with pytest.raises(RunStopped, match="broken") as stopped:
        watch(run, monkeypatch, warn("odd", "look"), fail("broken", "mend it"))
    assert (stopped.value.step, stopped.value.check) == (2, "planted")


def completion(prompt: str) -> Completion:
    problem = Problem(prompt, "planted", {})
    return Completion(Prompt(problem, prompt, (1,)), (1,), (0.0,), "text", "stop")


def step_with(run, failed: int, limit: float) -> list[Finding]:
    """What a watch tells of a step of four completions, some of whose grades failed."""
    noticed: list[Finding] = []
    rows = [Graded(0.0, False, "the grader raised KeyError", {"grade_error": 1.0})] * failed
    rows += [Graded(1.0, True, "right")] * (4 - failed)
    watcher = StepWatch(run, noticed.append, limit)
    rows = [replace(row, completion=completion(f"prompt {i // 2}")) for i, row in enumerate(rows)]
    watcher(replace(REPORT, groups=(tuple(rows[:2]), tuple(rows[2:]))))
    return noticed


def test_the_same_problems_in_every_step_are_told_once(run):
    """A task whose `problems` ignores its seed gives every step the same ones."""
    noticed: list[Finding] = []
    watcher = StepWatch(run, noticed.append)
    for step, prompts in enumerate(("ab", "cd", "dc", "cd"), 1):
        groups = tuple((Graded(0.0, False, "", completion=completion(p)),) for p in prompts)
        watcher(replace(REPORT, version=step, groups=groups))
    assert [finding.check for finding in noticed] == ["new_problems"]
    assert next(read_rows(run.findings))["step"] == 3


def test_failed_grades_are_told_and_too_many_end_the_run(run):
    assert step_with(run, 0, 0.5) == []
    (finding,) = step_with(run, 2, 0.5)
    assert (finding.level, finding.check) == ("warn", "grade_errors")
    assert "2 of 4 grades failed (50%): the grader raised KeyError (2)" in finding.message
    with pytest.raises(RunStopped, match="3 of 4 grades failed") as stopped:
        step_with(run, 3, 0.5)
    assert stopped.value.check == "grade_errors" and "task.max_grade_errors" in stopped.value.fix
    assert [finding.level for finding in step_with(run, 4, 1.0)] == ["warn"]


def test_a_run_that_a_fault_ended_keeps_its_last_step(monkeypatch, tmp_path):
    cfg = RunConfig.model_validate(
        {
            "steps": 3,
            "model": {"path": str(answering_folder(tmp_path / "model"))},
            "rollout": {"prompts": 2, "group_size": 2, "max_new_tokens": 8},
            "eval": {"every": 0, "final": 0},
        }
    )
    monkeypatch.setitem(
        step_checks,
        "planted",
        lambda report: fail("broken", "mend it") if report.version == 2 else ok("fine"),
    )
    experiment = Experiment.start(cfg, tmp_path / "run", Listener())
    with pytest.raises(RunStopped):
        experiment.run_all()
    run = experiment.run
    assert latest_checkpoint(run.checkpoints).name == "step_000002"
    assert [json.dumps(row) for row in read_rows(run.findings)] == [
        '{"step": 2, "level": "fail", "message": "broken", "fix": "mend it", "check": "planted"}'
    ]
    monkeypatch.delitem(step_checks, "planted")
    assert Experiment.resume(run.path, Listener()).run_all().summary["steps"] == cfg.steps
