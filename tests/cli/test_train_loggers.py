"""`--log`: what it refuses, and a real run that TensorBoard follows over a stop and a resume."""

import json
from importlib.util import find_spec

import pytest

from aha.api.logged_run import attach_loggers, loggers_of
from aha.core.config import RunConfig
from aha.core.errors import MissingExtra
from aha.loggers.run_loggers import LOGGERS
from aha.training.experiment import Experiment
from aha.training.outcome import Listener

from ..tiny import answering_folder
from ..training.test_experiment import stop_after

RECIPE = {
    "steps": 4,
    "checkpoint_every": 0,
    "token_groups": 0,
    "show_every": 0,
    "task": {"verifier": "tinyzero"},
    "rollout": {"prompts": 2, "group_size": 4, "max_new_tokens": 8, "dtype": "float32"},
    "optim": {"lr": 1e-3, "dtype": "float32"},
    "eval": {"every": 2, "problems": 4, "final": 4},
}
needs_tensorboard = pytest.mark.skipif(
    find_spec("tensorboard") is None, reason="pip install 'aha[tensorboard]'"
)


@pytest.mark.parametrize("command", [("train", "demo"), ("demo",), ("train", "--resume", "mine")])
def test_an_unknown_logger_is_refused_before_anything_is_written(aha, tmp_path, command):
    done = aha(*command, "--log", "wandbb,tensorboard")
    assert done.code == 2 and done.out == "" and done.err.count("\n") == 1
    assert "wanted wandb, tensorboard, trackio" in done.err and "fix: --log wandb" in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", LOGGERS)
def test_a_missing_package_is_refused_before_anything_is_written(aha, tmp_path, name):
    if find_spec(name) is not None:
        pytest.skip(f"{name} is installed here: what is missing is another logger's test")
    done = aha("train", "demo", "--log", name)
    assert done.code == 2 and f"pip install 'aha[{name}]'" in done.err and done.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_run_asks_for_the_packages_of_its_loggers(tmp_path, monkeypatch):
    stored = {"id": "a", "step": 3, "validation": -1, "tests": []}
    monkeypatch.setitem(LOGGERS, "aha_tracker", ("aha.loggers.none", "None"))
    (tmp_path / "loggers.json").write_text(json.dumps({"aha_tracker": stored}))
    with pytest.raises(MissingExtra, match="or --log none"):
        loggers_of(None, tmp_path)
    assert loggers_of("none", tmp_path) == []
    assert loggers_of(None, tmp_path / "no_run") == loggers_of(None) == []


@needs_tensorboard
def test_a_run_is_followed_to_its_end_over_a_resume(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    model = answering_folder(tmp_path / "base")
    cfg = RunConfig.model_validate(RECIPE | {"model": {"path": str(model)}})
    path, rows, said = tmp_path / "runs" / "first", [], []

    def step(row: dict) -> None:
        rows.append(row)
        stop_after(2)(row)

    experiment = Experiment.start(cfg, path, Listener(step=step, say=said.append))
    attach_loggers(experiment, ["tensorboard"])
    assert experiment.run_all().summary is None
    assert said[0] == f"tensorboard: tensorboard --logdir {path.parent}"

    listener = Listener(step=rows.append)
    experiment = Experiment.resume(path, listener)
    attach_loggers(experiment, loggers_of(None, path))
    summary = experiment.run_all().summary
    events = EventAccumulator(str(path / "tensorboard"))
    events.Reload()
    for name in ("reward", "train/reward"):
        assert [(event.step, pytest.approx(event.value)) for event in events.Scalars(name)] == [
            (row["step"], row["reward"]) for row in rows
        ]
    assert [event.step for event in events.Scalars("validation/solve_rate")] == [2, 4]
    (after,) = events.Scalars("test/after/solve_rate")
    assert after.step == 4 and after.value == pytest.approx(summary["after"]["solve_rate"])
    (before,) = events.Scalars("test/before/solve_rate")
    assert before.step == 0


def test_without_loggers_a_run_has_none(tmp_path):
    model = answering_folder(tmp_path / "base")
    cfg = RunConfig.model_validate(RECIPE | {"steps": 1, "model": {"path": str(model)}})
    experiment = Experiment.start(cfg, tmp_path / "first", Listener())
    attach_loggers(experiment, loggers_of(None))
    experiment.run_all()
    assert not (tmp_path / "first" / "loggers.json").exists()
