"""One rank, two or four: the same problems, completions and losses; and a rank that is killed."""

import multiprocessing
import os
import shutil
import signal
from functools import partial
from pathlib import Path

import pytest
import torch

from aha.batching.batch import totals_of
from aha.core.config import RunConfig
from aha.core.errors import RunStopped
from aha.dist.local_ranks import LocalRanks, can_meet
from aha.dist.world import World
from aha.store.run_folder import read_rows
from aha.studies.resume_trial import differences_of
from aha.training.experiment import Experiment
from aha.training.outcome import Listener
from aha.training.rl import RLTrainer
from aha.training.rollouts import PhaseClock

from ..tiny import answering_folder
from .rank_steps import OTHERS, Steps, configs, take_steps, take_steps_on_device, trainer_of
from .test_experiment import config, timeless

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not can_meet(), reason="this torch has no gloo")


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """A started process has this one's sys.path."""
    monkeypatch.syspath_prepend(str(ROOT))


# -- steps ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone() -> dict[str, Steps]:
    return take_steps(World())


def test_every_recipe_has_something_to_share(alone):
    """Else the test below would compare steps in which nothing was computed."""
    for name, steps in alone.items():
        assert any(any(map(any, advantages)) for *_, advantages in steps) or name in (
            "nothing-counts",
            "ppo",
        ), name
    first, second = alone["twice"][0][1][:4], alone["twice"][0][1][4:8]
    assert first != second


def compare(together: dict[str, Steps], alone: dict[str, Steps]) -> None:
    for name, steps in together.items():
        for step, (ours, theirs) in enumerate(zip(steps, alone[name], strict=True)):
            where = f"{name}, step {step + 1}"
            assert ours[1] == theirs[1], f"other completions: {where}"
            assert ours[0].keys() == theirs[0].keys(), where
            for key, value in theirs[0].items():
                assert ours[0][key] == pytest.approx(value, rel=1e-3, abs=1e-5), (where, key)
                if key in ("loss", "value_loss"):
                    assert ours[0][key] == pytest.approx(value, rel=0, abs=1e-5), (where, key)
            for mine, other in zip(ours[2], theirs[2], strict=True):
                assert mine == pytest.approx(other, abs=1e-4), where


def test_two_ranks_take_the_steps_of_one(alone):
    with LocalRanks(2, take_steps) as world:
        together = take_steps(world)
    assert together.keys() == alone.keys()
    compare(together, alone)


def test_four_ranks_take_the_steps_of_one(alone):
    with LocalRanks(4, partial(take_steps, few=True)) as world:
        together = take_steps(world, few=True)
    assert together.keys() == {*OTHERS, "ppo"}
    compare(together, alone)


def test_gradients_that_a_device_adds_up_are_the_same(alone):
    with LocalRanks(2, take_steps_on_device) as world:
        compare(take_steps_on_device(world), alone)
        assert world.device_group.size() == 2


@pytest.mark.slow
def test_four_ranks_take_the_steps_of_one_in_every_recipe(alone):
    with LocalRanks(4, take_steps) as world:
        compare(take_steps(world), alone)


def test_averaging_what_each_rank_has_divided_itself_is_another_gradient():
    """The rank with few tokens would count for more."""
    raw = dict(configs())["grpo"].model_dump()
    raw["algo"]["aggregation"], raw["rollout"]["max_new_tokens"] = "token_mean", 20
    trainer = trainer_of(RunConfig.model_validate(raw), World())
    collected = trainer.rollout.collect(trainer.problems(), trainer.seeds, PhaseClock())
    estimate = trainer.advantages.estimate(collected.groups, collected.scores)
    rows = trainer.objective.begin_update(estimate.counted_rows(), 0)
    rows = sorted(rows, key=lambda row: len(row.graded.completion.tokens))
    halves = [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
    whole = gradient(trainer, rows, rows)
    added = sum(gradient(trainer, half, rows) for half in halves)
    averaged = sum(gradient(trainer, half, half) for half in halves) / 2
    scale = whole.abs().max()
    assert torch.allclose(whole / scale, added / scale, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(whole / scale, averaged / scale, rtol=1e-2, atol=1e-2)


def gradient(trainer: RLTrainer, rows, all_rows) -> torch.Tensor:
    """Of these rows, as their share of a step with all rows."""
    trainer.optimizer.clear()
    totals = totals_of(all_rows, trainer.cfg.rollout.max_new_tokens)
    trainer.objective.accumulate_gradient(rows, totals, trainer.tokenizer.pad_id, 100)
    return torch.cat([weight.grad.flatten() for weight in trainer.policy.trainable()])


# -- runs ----------------------------------------------------------------------------------------

STEPS = 4


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return answering_folder(tmp_path_factory.mktemp("models") / "tiny")


def small(model: Path):
    return config(model, steps=STEPS, checkpoint_every=1, eval={"every": 2, "problems": 3})


def rank_1() -> int:
    (process,) = multiprocessing.active_children()
    return process.pid


def send(number: int, step: int):
    """A listener's `step` that sends rank 1 a signal when a step is done."""

    def at(row: dict) -> None:
        if row["step"] == step:
            os.kill(rank_1(), number)

    return at


@pytest.fixture(scope="module")
def straight(model, tmp_path_factory) -> Path:
    """The run of two ranks that nobody interrupts."""
    path = tmp_path_factory.mktemp("runs") / "straight"
    outcome = Experiment.start(small(model), path, Listener(), ranks=2).run_all()
    assert outcome.summary["steps"] == STEPS and multiprocessing.active_children() == []
    return path


def close_rows(one: Path, other: Path) -> None:
    """The metrics and evaluations of two runs, equal but for the order of sums."""
    for name in ("metrics.jsonl", "evals.jsonl"):
        ours, theirs = timeless(one / name), timeless(other / name)
        assert len(ours) == len(theirs)
        for mine, its in zip(ours, theirs, strict=True):
            for key, value in its.items():
                if isinstance(value, float):
                    assert mine[key] == pytest.approx(value, rel=1e-3, abs=1e-5), (name, key)


def is_whole(path: Path, straight: Path) -> None:
    compared: dict[str, int] = {}
    assert list(differences_of(straight, path, compared)) == []
    assert compared["rows of metrics.jsonl"] == STEPS and compared["values of the last state"] > 50


def test_a_run_of_two_ranks_writes_what_one_writes(straight, model, tmp_path):
    path = tmp_path / "alone"
    Experiment.start(small(model), path, Listener()).run_all()
    alone, shared = (
        {str(file.relative_to(run)) for file in run.rglob("*")} for run in (path, straight)
    )
    assert shared - alone == {"ranks", "ranks/rank_1.log"} and alone <= shared
    close_rows(straight, path)
    for name in ("before", "after"):
        ours, theirs = (
            list(read_rows(run / f"completions/{name}.jsonl")) for run in (straight, path)
        )
        assert ours == theirs


def test_the_other_ranks_keep_a_log(straight):
    log = (straight / "ranks" / "rank_1.log").read_text()
    words = [line.split(" ", 2)[2].split(":")[0].split(",")[0] for line in log.splitlines()]
    steps = len(list(read_rows(straight / "metrics.jsonl")))
    assert words[:2] == ["rank 1 of 2", "begins after step 0"] and words[-1] == "the end"
    assert words.count("make_step") == steps and words.count("take_test") >= 2


def test_a_rank_that_is_killed_or_told_to_stop_changes_no_bit(straight, model, tmp_path):
    path, lines = tmp_path / "run", []
    told = Listener(step=send(signal.SIGKILL, 1), say=lines.append)
    with pytest.raises(RunStopped, match=r"rank 1 \(process \d+\) was ended by SIGKILL") as lost:
        Experiment.start(small(model), path, told, ranks=2).run_all()
    assert f"aha train --resume {path}" in lost.value.fix
    assert multiprocessing.active_children() == []
    assert "step 1 is saved" in lines[-1]
    (finding,) = read_rows(path / "findings.jsonl")
    assert finding["check"] == "ranks" and finding["step"] == 2
    # SIGTERM to rank 1 stops all after the next step, with a checkpoint.
    lines.clear()
    stopped = Listener(step=send(signal.SIGTERM, 2), say=lines.append)
    outcome = Experiment.resume(path, stopped).run_all()
    assert outcome.summary is None and "stopped" in lines[-1]
    assert [row["step"] for row in read_rows(path / "metrics.jsonl")] == [1, 2, 3]
    shutil.copytree(path, tmp_path / "alone")
    Experiment.resume(path, Listener()).run_all()
    is_whole(path, straight)
    # With another number of ranks it goes on, and that is said.
    lines.clear()
    Experiment.resume(tmp_path / "alone", Listener(say=lines.append), ranks=1).run_all()
    assert "changed since the run began: ranks 2 -> 1" in lines
    close_rows(tmp_path / "alone", straight)
