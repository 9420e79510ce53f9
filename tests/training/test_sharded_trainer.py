"""Models in shards: the steps of whole ones, and runs that go on with another number of ranks."""

import multiprocessing
import os
import signal
from functools import partial
from pathlib import Path

import pytest
import torch

from aha.core.errors import ConfigError, RunStopped
from aha.dist.local_ranks import LocalRanks, can_meet
from aha.model.weights import load_model
from aha.store.checkpoint import checkpoints, load_state
from aha.store.run_folder import read_rows
from aha.studies.resume_trial import differences_of
from aha.training.experiment import Experiment
from aha.training.joint_work import check_setting
from aha.training.outcome import Listener

from ..tiny import answering_folder
from .sharded_steps import FEW, LONG, take_both, take_both_on_device
from .test_experiment import config, stop_after, timeless

ROOT = Path(__file__).resolve().parents[2]
needs_gloo = pytest.mark.skipif(not can_meet(), reason="this torch has no gloo")


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """A started process has this one's sys.path."""
    monkeypatch.syspath_prepend(str(ROOT))


def close(ours, theirs, where) -> None:
    """Two steps that differ in the order of sums alone."""
    assert ours[1] == theirs[1], f"other completions: {where}"
    assert ours[0].keys() == theirs[0].keys(), where
    for key, value in theirs[0].items():
        assert ours[0][key] == pytest.approx(value, rel=1e-3, abs=1e-5), (where, key)
        if key in ("loss", "value_loss"):
            assert ours[0][key] == pytest.approx(value, rel=0, abs=1e-5), (where, key)


def compare(taken) -> None:
    for name, (whole_steps, sharded_steps, held) in taken.items():
        for step, pair in enumerate(zip(sharded_steps, whole_steps, strict=True)):
            close(*pair, f"{name}, step {step + 1}")
        assert not held or held[1] < 0.6 * held[0], (name, held)


@needs_gloo
def test_two_ranks_in_shards_take_the_steps_of_whole_ones():
    with LocalRanks(2, take_both) as world:
        taken = take_both(world)
    compare(taken)
    steps = taken[LONG][1]
    assert len(steps) == 20
    # Not equally long: a generation that gathered weights would wait for ever.
    assert sum(len({len(tokens) for tokens in step[1]}) > 1 for step in steps) > 10


@needs_gloo
def test_shards_that_meet_in_the_group_of_a_device_take_them_too():
    with LocalRanks(2, take_both_on_device) as world:
        taken = take_both_on_device(world)
    assert taken.keys() == set(FEW)
    compare(taken)


@needs_gloo
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("size", [2, 4])
def test_every_recipe_takes_the_same_steps_in_shards(size):
    with LocalRanks(size, partial(take_both, names=())) as world:
        compare(take_both(world, names=()))


# -- runs ------------------------------------------------------------------------------------------

STEPS = 6


def small(model: Path, **changes):
    changes = {"keep_last": 9, "optim": {"micro_batch_tokens": 120}} | changes
    cfg = config(model, steps=STEPS, eval={"every": 0, "final": 2}, **changes)
    raw = cfg.model_dump()
    raw["rollout"]["prompts"] = 4
    return type(cfg).model_validate(raw)


def live(path: Path, until: int, cfg=None, **how):
    """Start or resume the run, which is told to stop after a step."""
    listener = Listener(step=stop_after(until) if until < STEPS else lambda row: None)
    if cfg is not None:
        experiment = Experiment.start(cfg, path, listener, **how)
    else:
        experiment = Experiment.resume(path, listener, **how)
    assert experiment.in_shards == (experiment.ranks.size > 1)
    outcome = experiment.run_all()
    assert multiprocessing.active_children() == []
    return outcome


@needs_gloo
@pytest.mark.parametrize(
    "later", [(1,), pytest.param((1, 4), marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_a_run_in_shards_goes_on_with_other_ranks(tmp_path, later):
    """From 2 ranks to 1, whole; and from there to 4, in shards again."""
    model = answering_folder(tmp_path / "tiny")
    algo = {"advantage": "gae", "kl": "loss", "kl_coef": 0.1, "reference_reset": 3}
    cfg = small(model, critic={"warmup": 1}, algo=algo)
    straight, path = tmp_path / "straight", tmp_path / "run"
    Experiment.start(cfg, straight, Listener()).run_all()
    assert live(path, 2, cfg, ranks=2, shard="on").summary is None
    saved = checkpoints(path / "checkpoints")[-1]
    assert len(list((saved / "shards").glob("__*"))) == 2  # each rank has written its own
    note = load_state(saved)["optimizer"]["state"][0]["exp_avg"]
    assert note["in_shards"] == "optimizer/state/0/exp_avg"
    ends = [4, STEPS] if len(later) > 1 else [STEPS]
    for ranks, end in zip(later, ends, strict=True):
        outcome = live(path, end, ranks=ranks)
        last = checkpoints(path / "checkpoints")[-1]
        assert (last / "shards").exists() == (ranks > 1)
    assert outcome.summary["steps"] == STEPS
    compare_runs(path, straight)


def compare_runs(path: Path, straight: Path) -> None:
    """Rows and models of two runs, equal but for the order of sums."""
    ours, theirs = (timeless(run / "metrics.jsonl") for run in (path, straight))
    assert len(ours) == len(theirs) == STEPS
    for mine, its in zip(ours, theirs, strict=True):
        for key, value in its.items():
            if isinstance(value, float):
                assert mine[key] == pytest.approx(value, rel=1e-3, abs=1e-5), (mine["step"], key)
        for key in {"loss", "value_loss"} & its.keys():
            assert abs(mine[key] - its[key]) <= 1e-5, (mine["step"], key)
    assert all("loss" in row for row in theirs[1:])
    # The model is the same Hugging Face folder.
    names = [sorted(file.name for file in (run / "model").iterdir()) for run in (path, straight)]
    assert names[0] == names[1]
    pair = [load_model(run / "model").policy.weights() for run in (path, straight)]
    for name, tensor in pair[0].items():
        assert torch.allclose(tensor, pair[1][name], atol=2e-4), name
    rows = list(read_rows(path / "findings.jsonl"))
    assert [row for row in rows if row["level"] == "fail"] == []


@needs_gloo
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_rank_in_shards_that_is_killed_costs_no_bit(tmp_path):
    model = answering_folder(tmp_path / "tiny")
    cfg = small(model, checkpoint_every=1)
    straight, path, lines = tmp_path / "straight", tmp_path / "run", []
    live(straight, STEPS, cfg, ranks=2, shard="on")

    def kill(row: dict) -> None:
        if row["step"] == 3:
            (other,) = multiprocessing.active_children()
            os.kill(other.pid, signal.SIGKILL)

    with pytest.raises(RunStopped, match=r"rank 1 \(process \d+\) was ended by SIGKILL"):
        told = Listener(step=kill, say=lines.append)
        Experiment.start(cfg, path, told, ranks=2, shard="on").run_all()
    assert multiprocessing.active_children() == []
    assert any("is not saved, which would take the shards of all ranks" in line for line in lines)
    assert live(path, STEPS).summary["steps"] == STEPS
    assert list(differences_of(straight, path, {})) == []


BREAKING = """
from pathlib import Path
from aha.tasks.countdown import Countdown

game = Countdown((3,), verifier="tinyzero")
problems, ask = game.problems, game.ask


def grade(problem, text):
    if Path({flag!r}).exists():
        raise ValueError("broken")
    return game.grade(problem, text)
"""


@needs_gloo
def test_a_fault_that_all_ranks_have_leaves_a_checkpoint(tmp_path):
    """A grader that fails from the second step on."""
    model, flag = answering_folder(tmp_path / "tiny"), tmp_path / "broken"
    (tmp_path / "mine.py").write_text(BREAKING.format(flag=str(flag)))
    cfg = small(model, task={"name": str(tmp_path / "mine.py"), "verifier": "strict"})
    cfg = cfg.model_copy(update={"checkpoint_every": 0})
    path, lines = tmp_path / "run", []
    told = Listener(step=lambda row: flag.touch(), say=lines.append)
    experiment = Experiment.start(cfg, path, told, ranks=2, shard="on")
    with pytest.raises(RunStopped) as fault:
        experiment.run_all()
    assert fault.value.step == 2 and multiprocessing.active_children() == []
    assert any("; step 1 is saved" in line for line in lines), lines
    (saved,) = checkpoints(path / "checkpoints")
    assert len(list((saved / "shards").glob("__*"))) == 2
    log = (path / "ranks" / "rank_1.log").read_text()
    assert log.index("a fault that all ranks have") < log.index("write_own_shards")


def test_what_shards_cannot_do_is_refused_by_name(tmp_path):
    cfg = config(tmp_path, optim={"state": "cpu"})
    with pytest.raises(ConfigError, match="--shard on with --optim.state cpu") as refused:
        check_setting(2, cfg, "on")
    assert "--optim.state device" in refused.value.fix
    check_setting(1, cfg, "on")
    check_setting(2, cfg, "off")
