"""A fork: the run up to a step, bit-equal from there on, and the other run untouched."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from aha.core.config import RunConfig
from aha.core.errors import ConfigError, RunError
from aha.model.weights import load_model
from aha.store.run_folder import Run, read_rows
from aha.training.experiment import Experiment
from aha.training.outcome import Listener
from aha.training.run_fork import fork_run, run_and_step

from ..tiny import answering_folder

RECIPE = {
    "steps": 6,
    "checkpoint_every": 2,
    "keep_last": 3,
    "task": {"verifier": "tinyzero"},
    "rollout": {"prompts": 2, "group_size": 4, "max_new_tokens": 16, "dtype": "float32"},
    "optim": {"lr": 1e-3, "warmup": 2, "dtype": "float32"},
    "eval": {"every": 3, "problems": 4, "final": 5},
}


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """A finished run of six steps with checkpoints of steps 2, 4 and 6."""
    folder = tmp_path_factory.mktemp("forks")
    model = answering_folder(folder / "tiny")
    cfg = RunConfig.model_validate(RECIPE | {"model": {"path": str(model)}})
    Experiment.start(cfg, folder / "run", Listener()).run_all()
    (folder / "run" / "loggers.json").write_text("{}")
    return folder / "run"


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_model(run / "model").policy.state_dict()


def timeless(path: Path) -> list[dict]:
    return [
        {k: v for k, v in row.items() if not k.endswith(("_s", "memory_gb"))}
        for row in read_rows(path / "metrics.jsonl")
    ]


def test_a_fork_goes_on_bit_equal_and_leaves_the_run_as_it_is(done):
    before, notes = contents(done), []
    fork = done.parent / "fork"
    assert fork_run(done, 4, fork, notes.append) == 4 and notes == []
    assert contents(done) == before
    kept = set(contents(fork))
    assert {"before.json", "completions/before.jsonl", "completions/eval_000003.jsonl"} <= kept
    assert not {"after.json", "summary.json", "model/config.json", ".lock", "loggers.json"} & kept
    assert not [name for name in kept if "000005" in name or "000006" in name]
    assert [row["step"] for row in read_rows(fork / "metrics.jsonl")] == [1, 2, 3, 4]
    record = json.loads((fork / "fork.json").read_text())
    assert record == {"run": str(done.resolve()), "step": 4}
    outcome = Experiment.resume(fork, Listener()).run_all()
    assert outcome.summary["steps"] == 6 and timeless(fork) == timeless(done)
    ours, theirs = weights(fork), weights(done)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_without_a_step_it_is_the_newest(done):
    assert fork_run(done, None, done.parent / "newest", print) == 6


@pytest.mark.parametrize("step", [0, 3, 7])
def test_a_step_without_a_checkpoint_is_refused_with_the_nearest(done, step):
    with pytest.raises(RunError, match=f"no checkpoint of step {step}") as error:
        fork_run(done, step, done.parent / "none", print)
    nearest = run_and_step(Path(error.value.fix))
    assert nearest[0] == done and nearest[1] in (2, 4, 6)
    assert not (done.parent / "none").exists()


def test_a_damaged_checkpoint_and_a_taken_name_are_refused(done, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(done, copy)
    state = copy / "checkpoints/step_000002/trainer.pt"
    state.write_bytes(state.read_bytes()[:-1] + b"x")
    with pytest.raises(RunError, match=r"trainer\.pt"):
        fork_run(copy, 2, tmp_path / "fork", print)
    with pytest.raises(RunError, match="exists already"):
        fork_run(copy, 4, copy, print)
    with pytest.raises(ConfigError, match="within"):
        fork_run(copy, 4, copy / "inside", print)
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_a_fork_does_not_write_into_the_loggers_of_the_run(done, tmp_path):
    source, made = tmp_path / "run", tmp_path / "fork"
    shutil.copytree(done, source)
    (source / "loggers.json").write_text("{}")
    (source / "tensorboard").mkdir()
    fork_run(source, 4, made, print)
    assert (source / "loggers.json").is_file() and (source / "tensorboard").is_dir()
    assert not (made / "loggers.json").exists() and not (made / "tensorboard").exists()


def test_what_is_there_is_no_step(tmp_path):
    (tmp_path / "run@3").mkdir()
    assert run_and_step(tmp_path / "run@3") == (tmp_path / "run@3", None)
    assert run_and_step(Path("runs/a@20")) == (Path("runs/a"), 20)
    assert run_and_step(Path("runs/a@b")) == (Path("runs/a@b"), None)
    assert run_and_step(Path("runs/a")) == (Path("runs/a"), None)


def test_resume_at_a_step_takes_a_copy_and_at_the_newest_the_run_itself(done, aha_at):
    runs = aha_at(done)
    assert runs.at_step(Path("runs/run@6")) == Path("runs/run")
    assert runs.at_step(Path("runs/run")) == Path("runs/run")
    assert runs.at_step(Path("runs/run@2")) == Path("runs/run-from-2")
    assert runs.at_step(Path("runs/run@2")) == Path("runs/run-from-2-2")
    assert len(list(Run.open(Path("runs/run-from-2")).checkpoints.iterdir())) == 1


@pytest.fixture
def aha_at(tmp_path, monkeypatch):
    """The command's module, in a folder that has the run in runs/."""

    def place(run: Path):
        (tmp_path / "runs").mkdir()
        shutil.copytree(run, tmp_path / "runs" / "run")
        monkeypatch.chdir(tmp_path)
        import aha.cli.fork as module

        return module

    return place
