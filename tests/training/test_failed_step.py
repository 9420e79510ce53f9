"""A run that a number ends: what stays, and how it goes on when the fault is mended."""

import json
from pathlib import Path

import pytest
import torch

from aha.core.errors import RunStopped
from aha.core.records import Graded
from aha.doctor.run_checks import diagnose
from aha.model.weights import load_model
from aha.store.checkpoint import checkpoints
from aha.store.run_folder import read_rows
from aha.tasks.countdown import Countdown
from aha.training.experiment import Experiment
from aha.training.outcome import Listener

from ..tiny import answering_folder
from .test_experiment import config, same_weights


class Odd(Countdown):
    """Pays for a completion of an odd number of characters; from the `last` grade on `after`."""

    def __init__(self, last: int = 10**9, after: float = 0.0):
        super().__init__((3,))
        self.grades, self.last, self.after = 0, last, after

    def grade(self, problem, text):
        self.grades += 1
        reward = float(len(text) % 2) if self.grades < self.last else self.after
        return Graded(reward, reward == 1.0, "odd" if reward == 1.0 else "not odd")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return answering_folder(tmp_path_factory.mktemp("models") / "tiny")


def begin(cfg, path: Path, task: Odd) -> Experiment:
    experiment = Experiment.start(cfg, path, Listener())
    experiment.trainer.rollout.task = task
    return experiment


def whole(model: Path, steps: int = 6):
    # 12 completions a step.
    return config(model, steps=steps, eval={"every": 0, "final": 0})


def test_the_run_ends_with_its_last_whole_step_and_goes_on_from_there(model, tmp_path):
    unbroken, path = tmp_path / "unbroken", tmp_path / "run"
    begin(whole(model), unbroken, Odd()).run_all()
    with pytest.raises(RunStopped, match="reward of 1e\\+39") as caught:
        begin(whole(model), path, Odd(last=4 * 12 + 3, after=1e39)).run_all()
    assert caught.value.step == 5
    assert [row["step"] for row in read_rows(path / "metrics.jsonl")] == [1, 2, 3, 4]
    assert [row["check"] for row in read_rows(path / "findings.jsonl")] == ["reward"]
    folders = checkpoints(path / "checkpoints")
    assert [folder.name for folder in folders] == ["step_000002", "step_000004"]
    policy = load_model(folders[-1]).policy
    assert all(torch.isfinite(tensor).all() for tensor in policy.state_dict().values())
    kept = [json.loads(line) for line in (path / "failed_step/step_000005.jsonl").open()]
    assert len(kept) == 12 and {row["reward"] for row in kept} > {1e39}
    experiment = Experiment.resume(path, Listener())
    experiment.trainer.rollout.task = Odd()
    experiment.run_all()
    assert same_weights(path / "model", unbroken / "model")


def test_no_checkpoint_is_made_of_a_step_that_had_changed_weights(model, tmp_path):
    cfg = whole(model).model_copy(update={"checkpoint_every": 0})
    experiment = begin(cfg, tmp_path / "run", Odd())
    update = experiment.trainer.optimizer.update

    def breaks(rate: float) -> float:
        return update(1e39 if experiment.trainer.version == 3 else rate)

    experiment.trainer.optimizer.update = breaks
    with pytest.raises(RunStopped, match="weights that are not finite"):
        experiment.run_all()
    assert experiment.trainer.mid_step and experiment.trainer.version == 3
    assert not checkpoints(tmp_path / "run" / "checkpoints")
    assert (tmp_path / "run" / "failed_step" / "step_000004.jsonl").is_file()


def test_steps_without_a_group_that_teaches_have_no_mismatch_and_get_the_right_diagnosis(
    model, tmp_path
):
    """Groups teach for some steps; afterwards every completion earns 0. Nothing else changes."""
    cfg = whole(model, 16)
    cfg = cfg.model_copy(update={"optim": cfg.optim.model_copy(update={"lr": 1e-9})})
    begin(cfg, tmp_path / "run", Odd(last=6 * 12)).run_all()
    rows = list(read_rows(tmp_path / "run" / "metrics.jsonl"))
    assert all("mismatch" in row for row in rows[:5])
    assert not any("mismatch" in row for row in rows[7:])
    assert all(row["entropy"] > 1 for row in rows)
    findings = {finding.check: finding for finding in diagnose(tmp_path / "run")}
    assert "its grader has changed" in findings["none_solved"].message
    assert findings["entropy"].level == "ok"
    assert "informative" not in findings
