"""Models in shards: the steps of whole ones, and runs that go on with another number of ranks."""

import multiprocessing
from functools import partial
from pathlib import Path

import pytest
import torch

from aha.core.errors import ConfigError
from aha.dist.local_ranks import LocalRanks, can_meet
from aha.model.weights import load_model
from aha.store.checkpoint import checkpoints, load_state
from aha.store.run_folder import read_rows
from aha.training.experiment import Experiment
from aha.training.joint_work import check_setting
from aha.training.outcome import Listener

from ..tiny import answering_folder
from .sharded_steps import LONG, take_both
from .test_experiment import config, timeless

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
    for name, (whole_steps, sharded_steps, held, _) in taken.items():
        for step, pair in enumerate(zip(sharded_steps, whole_steps, strict=True)):
            close(*pair, f"{name}, step {step + 1}")
        if "lora" not in name and name != "nothing-counts":
            assert held[1] < 0.6 * held[0], (name, held)


@needs_gloo
def test_two_ranks_in_shards_take_the_steps_of_whole_ones():
    with LocalRanks(2, take_both) as world:
        taken = take_both(world)
    compare(taken)
    steps = taken[LONG][1]
    assert len(steps) == 20
    # Completions of many lengths: generation that gathered weights would wait for ever.
    assert all(len({len(tokens) for tokens in step[1]}) > 1 for step in steps)


@needs_gloo
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("size", [2, 4])
def test_every_recipe_takes_the_same_steps_in_shards(size):
    with LocalRanks(size, partial(take_both, every=True)) as world:
        compare(take_both(world, every=True))


# -- runs ------------------------------------------------------------------------------------------

STEPS = 6


def small(model: Path, **changes):
    changes = {"keep_last": 0, "optim": {"micro_batch_tokens": 120}} | changes
    cfg = config(model, steps=STEPS, eval={"every": 0, "final": 2}, **changes)
    raw = cfg.model_dump()
    raw["rollout"]["prompts"] = 4
    return type(cfg).model_validate(raw)


def stop_after(step: int, experiments: list):
    """A listener's `step` that ends the process after that step, as its budget would."""

    def at(row: dict) -> None:
        if row["step"] == step:
            experiments[0].budget_s = 0.0
            experiments[0].trainer.world.requests["stop"] = lambda: True

    return at


def live(path: Path, until: int, cfg=None, **how):
    experiments: list[Experiment] = []
    listener = Listener(step=stop_after(until, experiments))
    if cfg is not None:
        experiments.append(Experiment.start(cfg, path, listener, **how))
    else:
        experiments.append(Experiment.resume(path, listener, **how))
    outcome = experiments[0].run_all()
    assert multiprocessing.active_children() == []
    return outcome


@needs_gloo
def test_a_run_in_shards_goes_on_with_one_rank_and_with_four(tmp_path):
    model = answering_folder(tmp_path / "tiny")
    cfg = small(
        model, critic={"warmup": 1}, algo={"advantage": "gae", "kl": "loss", "kl_coef": 0.1}
    )
    Experiment.start(cfg, tmp_path / "straight", Listener()).run_all()
    path = tmp_path / "run"
    assert live(path, 2, cfg, ranks=2, shard="on").summary is None
    saved = checkpoints(path / "checkpoints")[-1]
    assert len(list((saved / "shards").glob("__*"))) == 2  # each rank has written its own
    notes = load_state(saved)["optimizer"]["state"][0]["exp_avg"]
    assert notes["in_shards"] == "optimizer/state/0/exp_avg"
    assert live(path, 4, ranks=1).summary is None
    assert not (checkpoints(path / "checkpoints")[-1] / "shards").exists()
    outcome = live(path, STEPS, ranks=4)
    assert outcome.summary["steps"] == STEPS
    ours, theirs = (timeless(run / "metrics.jsonl") for run in (path, tmp_path / "straight"))
    assert len(ours) == len(theirs) == STEPS
    for mine, its in zip(ours, theirs, strict=True):
        for key, value in its.items():
            if isinstance(value, float):
                assert mine[key] == pytest.approx(value, rel=1e-3, abs=1e-5), (mine["step"], key)
        assert abs(mine["loss"] - its["loss"]) <= 1e-5
    # The model is the same Hugging Face folder.
    names = [
        sorted(file.name for file in (run / "model").iterdir())
        for run in (path, tmp_path / "straight")
    ]
    assert names[0] == names[1]
    pair = [load_model(run / "model").policy.weights() for run in (path, tmp_path / "straight")]
    for name, tensor in pair[0].items():
        assert torch.allclose(tensor, pair[1][name], atol=2e-4), name
    rows = list(read_rows(path / "findings.jsonl"))
    assert [row for row in rows if row["level"] == "fail"] == []


def test_what_shards_cannot_do_is_refused_by_name(tmp_path):
    cfg = config(tmp_path, optim={"state": "cpu"})
    with pytest.raises(ConfigError, match="--shard on with --optim.state cpu") as refused:
        check_setting(2, cfg, "on")
    assert "--optim.state device" in refused.value.fix
    check_setting(1, cfg, "on")
    check_setting(2, cfg, "off")
