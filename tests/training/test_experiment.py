"""A whole run on a random model: its files, and that stopping it anywhere changes nothing."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from aha.core.config import RunConfig
from aha.core.errors import AhaError, ConfigError, DataError, ModelError, RunError
from aha.model.folders import resolve_model
from aha.model.weights import load_model
from aha.store.checkpoint import checkpoints, load_state
from aha.store.run_folder import read_rows
from aha.tasks.countdown import split_of
from aha.training.experiment import Experiment
from aha.training.outcome import Listener
from aha.training.watchers import Stopwatch

from ..tiny import answering_folder

STEPS = 6


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return answering_folder(tmp_path_factory.mktemp("models") / "tiny")


def config(model: Path, **changes) -> RunConfig:
    """A run whose rewards differ: TinyZero's verifier pays a tenth for any answer at all."""
    raw = {
        "steps": STEPS,
        "checkpoint_every": 2,
        "show_every": 2,
        "model": {"path": str(model)},
        "task": {"verifier": "tinyzero"},
        "rollout": {
            "prompts": 2,
            "group_size": 6,
            "max_new_tokens": 16,
            "max_rows": 12,
            "dtype": "float32",
        },
        "optim": {"lr": 1e-3, "warmup": 2, "dtype": "float32"},
        "eval": {"every": 3, "problems": 4, "final": 5},
    }
    for name, value in changes.items():
        raw[name] = raw.get(name, {}) | value if isinstance(value, dict) else value
    return RunConfig.model_validate(raw)


def go(cfg: RunConfig, path: Path, **listeners):
    return Experiment.start(cfg, path, Listener(**listeners)).run_all()


def stop_after(step: int):
    """A listener's `step` that asks the process to end, as a user or a scheduler would."""

    def stop(row: dict) -> None:
        if row["step"] == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return stop


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(folder).policy.state_dict()


def same_weights(one: Path, other: Path) -> bool:
    ours, theirs = tensors(one), tensors(other)
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def timeless(path: Path) -> list[dict]:
    """The rows of a file without what a clock says."""
    return [
        {
            key: value
            for key, value in row.items()
            if not key.endswith(("_s", "memory_gb", "seconds"))
        }
        for row in read_rows(path)
    ]


@pytest.fixture(scope="module")
def straight(model, tmp_path_factory):
    """The run that nobody interrupts."""
    return go(config(model), tmp_path_factory.mktemp("runs") / "straight")


# -- one whole run --------------------------------------------------------------------------


def test_a_run_leaves_what_the_design_promises(straight, model):
    run = straight.run
    names = {path.name for path in run.path.iterdir()}
    assert names >= {
        "config.json",
        "environment.json",
        "metrics.jsonl",
        "evals.jsonl",
        "completions",
        "checkpoints",
        "model",
        "summary.json",
    }
    assert [row["step"] for row in read_rows(run.metrics)] == list(range(1, STEPS + 1))
    assert [row["step"] for row in read_rows(run.path / "evals.jsonl")] == [3, 6]
    assert [path.name for path in checkpoints(run.checkpoints)] == ["step_000004", "step_000006"]
    written = {path.name for path in run.completions.iterdir()}
    looks = {f"eval_{step:06d}.jsonl" for step in (3, 6)}
    steps = {f"step_{step:06d}.jsonl" for step in range(1, STEPS + 1)}
    assert written == {"before.jsonl", "after.jsonl"} | looks | steps
    priced = config(model).model_copy(update={"usd_per_hour": 0.08, "watts": 30})  # a CPU's
    assert RunConfig.model_validate(run.read("config.json")) == priced


def test_every_step_had_something_to_learn(straight):
    """Else the tests of resuming below would compare runs in which nothing moved."""
    assert all(row["informative"] > 0 for row in straight.rows)
    assert all(row["grad_norm"] > 0 for row in straight.rows)


def test_the_summary_tells_the_run(straight):
    summary = straight.run.read("summary.json")
    assert summary == json.loads(json.dumps(straight.summary))
    assert {"before", "after", "steps", "seconds", "cost_usd", "seed", "commit"} <= summary.keys()
    assert (summary["steps"], summary["seed"]) == (STEPS, 0)
    for name in ("before", "after"):
        assert {"solve_rate", "interval", "mean_tokens", "truncated"} <= summary[name].keys()
        assert summary[name]["problems"] == 5
    # 8 cents and 30 W an hour
    assert summary["cost_usd"] == pytest.approx(summary["wall_s"] / 3600 * 0.08)
    assert summary["kwh"] == pytest.approx(summary["wall_s"] / 3600 * 0.030)
    assert summary["wall_s"] > summary["seconds"] > 0
    assert summary["base_cost_usd"] is None


def test_before_and_after_ask_the_same_problems_of_the_test_split(straight):
    rows = {
        name: list(read_rows(straight.run.completions / f"{name}.jsonl"))
        for name in ("before", "after")
    }
    asked = {name: [row["prompt"] for row in found] for name, found in rows.items()}
    assert asked["before"] == asked["after"] and len(set(asked["before"])) == 5
    for row in rows["before"]:
        assert split_of(tuple(row["numbers"]), row["target"]) == "test"


def test_training_problems_are_of_the_training_split_and_never_twice(straight):
    ids = []
    for step in range(1, STEPS + 1):
        rows = list(read_rows(straight.run.completions / f"step_{step:06d}.jsonl"))
        assert len(rows) == 12
        ids += {row["id"] for row in rows}
        for row in rows:
            assert split_of(tuple(row["numbers"]), row["target"]) == "train"
    assert len(set(ids)) == len(ids) == 2 * STEPS


def test_the_trained_model_is_the_last_checkpoint_and_not_the_base(straight, model):
    run = straight.run
    assert same_weights(run.model, run.checkpoints / "step_000006")
    assert not same_weights(run.model, model)
    assert resolve_model(str(run.path)) == run.model
    assert resolve_model(str(model)) == model


def test_the_listener_hears_everything(model, tmp_path):
    heard = {name: [] for name in ("stage", "progress", "tested", "step", "validation", "group")}
    go(
        config(model),
        tmp_path / "run",
        stage=heard["stage"].append,
        progress=lambda *where: heard["progress"].append(where),
        step=heard["step"].append,
        validation=heard["validation"].append,
        tested=lambda name, numbers: heard["tested"].append((name, numbers["problems"])),
        group=lambda version, *group: heard["group"].append((version, *map(len, group))),
    )
    assert [text.split()[0] for text in heard["stage"]] == ["before", "training", "after"]
    assert heard["progress"] == [(5, 5), (5, 5)]
    assert [row["step"] for row in heard["step"]] == list(range(1, STEPS + 1))
    assert [row["step"] for row in heard["validation"]] == [3, 6]
    assert heard["tested"] == [("before", 5), ("after", 5)]
    assert heard["group"] == [(2, 6, 6), (4, 6, 6), (6, 6, 6)]  # completions and advantages


def test_evaluations_can_be_left_out(model, tmp_path):
    outcome = go(config(model, eval={"every": 0, "final": 0}), tmp_path / "run")
    assert outcome.before is outcome.after is None
    assert outcome.summary["before"] is outcome.summary["after"] is None
    assert not (outcome.run.path / "evals.jsonl").exists()


def test_no_steps_leave_the_base(model, tmp_path):
    outcome = go(config(model, steps=0), tmp_path / "run")
    assert outcome.summary["steps"] == 0 and same_weights(outcome.run.model, model)


# -- resuming -------------------------------------------------------------------------------


def resumed_equals_straight(path: Path, straight) -> None:
    outcome = Experiment.resume(path, Listener()).run_all()
    assert outcome.summary["steps"] == STEPS
    assert same_weights(path / "model", straight.run.model)
    for name in ("metrics.jsonl", "evals.jsonl"):
        assert timeless(path / name) == timeless(straight.run.path / name)
    for written in straight.run.completions.iterdir():
        assert (path / "completions" / written.name).read_text() == written.read_text()
    for name in ("before", "after"):
        ours, theirs = dict(outcome.summary[name]), dict(straight.summary[name])
        ours.pop("seconds"), theirs.pop("seconds")
        assert ours == theirs


@pytest.mark.parametrize("step", [1, 3, 4])
def test_a_run_stopped_by_a_signal_and_resumed_is_bit_equal(model, tmp_path, straight, step):
    """SIGTERM arrives in the middle of a step's watchers: the step is finished and saved."""
    said, path = [], tmp_path / "run"
    outcome = go(config(model), path, step=stop_after(step), say=said.append)
    assert outcome.summary is None and len(outcome.rows) == step
    assert checkpoints(path / "checkpoints")[-1].name == f"step_{step:06d}"
    assert said[-1] == f"stopped; go on with: aha train --resume {path}"
    resumed_equals_straight(path, straight)


def test_a_stopped_run_with_a_critic_is_bit_equal_too(model, tmp_path):
    """PPO in the middle of a token budget: critic, its optimiser and the tokens spent go on."""
    cfg = config(
        model,
        algo={"advantage": "gae", "loss": "ppo_clip", "updates": 2, "kl": "reward"},
        critic={"lr": 1e-3, "warmup": 1},
        eval={"every": 0, "final": 0},
        tokens=900,
        steps=60,
    )
    whole = go(cfg, tmp_path / "whole")

    assert go(cfg, tmp_path / "cut", step=stop_after(3)).summary is None
    rest = Experiment.resume(tmp_path / "cut", Listener()).run_all()
    assert 3 < rest.summary["steps"] == whole.summary["steps"] < 60
    assert timeless(rest.run.metrics) == timeless(whole.run.metrics)
    assert same_weights(rest.run.model, whole.run.model)


@pytest.mark.parametrize("critic", [False, True])
def test_state_in_the_machines_memory_changes_not_one_bit_of_a_run(model, tmp_path, critic):
    """In float32 arithmetic; also when it is stopped and goes on."""
    algo = {"advantage": "gae", "loss": "ppo_clip", "kl": "loss"} if critic else {}
    runs = []
    for state in ("device", "cpu"):
        cfg = config(model, optim={"state": state}, algo=algo)
        runs.append(go(cfg, tmp_path / state))
    assert same_weights(*(outcome.run.model for outcome in runs))
    assert timeless(runs[0].run.metrics) == timeless(runs[1].run.metrics)

    go(cfg, tmp_path / "cut", step=stop_after(3))
    resumed_equals_straight(tmp_path / "cut", runs[0])


def test_a_run_of_rounded_weights_goes_on_from_those_that_were_not(model, tmp_path):
    """bf16 arithmetic: the checkpoint's model is rounded, the weights that learn are beside it."""
    bf16 = {"dtype": "bfloat16", "state": "cpu"}
    cfg = config(model, optim=bf16, rollout={"dtype": "bfloat16", "loop": "torch"})
    whole = go(cfg, tmp_path / "whole")

    go(cfg, tmp_path / "cut", step=stop_after(3))
    resumed_equals_straight(tmp_path / "cut", whole)
    learnt = load_state(checkpoints(tmp_path / "cut" / "checkpoints")[-1])["optimizer"]["weights"]
    assert any((weight != weight.bfloat16()).any() for weight in learnt)
    # What trains reads what generates: the same rounded weights from the first step on.
    assert all(row["mismatch"] < 0.05 for row in read_rows(whole.run.metrics))


def test_a_run_with_moments_of_eight_bits_goes_on_where_it_stopped(model, tmp_path):
    cfg = config(model, optim={"state": "8bit"})
    whole = go(cfg, tmp_path / "whole")

    go(cfg, tmp_path / "cut", step=stop_after(3))
    resumed_equals_straight(tmp_path / "cut", whole)


@pytest.mark.parametrize("scrap", ["", '{"step": 6, "rew'])
def test_a_run_that_crashed_between_checkpoints_and_is_resumed_is_bit_equal(
    model, tmp_path, straight, scrap
):
    """It had written the row of step 5, or half of another too; its last checkpoint is step 4."""

    def crash(row: dict) -> None:
        if row["step"] == 5:
            raise MemoryError

    path = tmp_path / "run"
    with pytest.raises(MemoryError):
        go(config(model), path, step=crash)
    with (path / "metrics.jsonl").open("a") as out:
        out.write(scrap)
    (path / "checkpoints" / ".partial_000006").mkdir()
    resumed_equals_straight(path, straight)


def test_elapsed_seconds_go_on(model, tmp_path):
    path = tmp_path / "run"
    go(config(model, eval={"every": 0, "final": 0}), path, step=stop_after(3))
    outcome = Experiment.resume(path, Listener()).run_all()
    elapsed = [row["elapsed_s"] for row in outcome.rows]
    assert elapsed == sorted(elapsed) and len(elapsed) == STEPS


def test_the_peak_memory_is_the_largest_of_all_processes_of_a_run(model, tmp_path):
    """A process before this one held more than this one ever will; the run remembers."""
    path, much = tmp_path / "run", 10**15
    experiment = Experiment.start(config(model, steps=2), path, Listener())
    experiment.memory.before = much
    experiment.train(Stopwatch())
    experiment.close()
    own = Experiment.start(config(model, steps=2), tmp_path / "other", Listener()).memory.bytes()
    assert 0 < own < much
    summary = Experiment.resume(path, Listener()).run_all().summary
    assert summary["plan"]["figures"]["peak_bytes"]["measured"] == much
    # And goes on remembering.
    assert load_state(checkpoints(path / "checkpoints")[-1])["peak_bytes"] == much


def test_a_finished_run_can_be_resumed_and_stays_what_it_was(model, tmp_path):
    path = tmp_path / "run"
    go(config(model), path)
    rows, before = (path / "metrics.jsonl").read_text(), tensors(path / "model")
    Experiment.resume(path, Listener()).run_all()
    assert (path / "metrics.jsonl").read_text() == rows
    assert all(
        torch.equal(before[name], tensor) for name, tensor in tensors(path / "model").items()
    )


def damage(path: Path, name: str, content: bytes) -> None:
    for found in path.rglob(name):
        found.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("trainer.pt", b"", RunError),
        ("trainer.pt", b"PK not a zip", RunError),
        ("model.safetensors", b"\0" * 100, RunError),
        ("SHA256SUMS", b"", RunError),
        ("config.json", b'{"steps": "many"}', AhaError),
    ],
)
def test_resuming_from_damage_is_one_clear_error(model, tmp_path, name, content, error):
    path = tmp_path / "run"
    go(config(model, steps=2, eval={"every": 0, "final": 0}), path)
    damage(path, name, content)
    with pytest.raises(error) as caught:
        Experiment.resume(path, Listener())
    assert "\n" not in str(caught.value) and name in str(caught.value)


def test_a_finished_run_without_a_checkpoint_is_not_begun_again(model, tmp_path):
    path = tmp_path / "run"
    run = go(config(model, steps=1, eval={"every": 0, "final": 0}), path).run
    shutil.rmtree(run.checkpoints)
    rows = run.metrics.read_bytes()
    with pytest.raises(RunError, match="no checkpoint"):
        Experiment.resume(path, Listener())
    assert run.metrics.read_bytes() == rows


# -- refused before anything is written -----------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"model": {"path": "nowhere"}}, ModelError, "no model called 'nowhere'"),
        ({"rollout": {"max_new_tokens": 150}}, ModelError, "--rollout.max_new_tokens"),
        ({"rollout": {"max_new_tokens": 500}}, ModelError, "160 positions"),
        ({"algo": {"advantage": "grop"}}, ConfigError, "dr_grpo, grpo"),
        ({"algo": {"loss": "ppo"}}, ConfigError, "pg, ratio, ppo_clip"),
        ({"task": {"data": "nowhere.jsonl"}}, DataError, "nowhere.jsonl is no file"),
    ],
)
def test_a_run_that_cannot_work_makes_no_folder(model, tmp_path, changes, error, words):
    raw = config(model).model_dump(mode="json")
    for name, section in changes.items():
        raw[name] |= section
    with pytest.raises(error, match=words):
        go(RunConfig.model_validate(raw), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_engine_that_cannot_be_made_leaves_no_folder(model, tmp_path, monkeypatch):
    def refuse(*unused: object) -> None:
        raise ModelError("an engine that does not load")

    monkeypatch.setattr("aha.training.experiment.make_trainer", refuse)
    with pytest.raises(ModelError, match="does not load"):
        go(config(model), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def one_puzzle(tmp_path: Path) -> Path:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"nums": [3, 7, 25], "target": 82}\n')
    return rows


def test_data_without_held_out_rows_is_refused_before_the_run(model, tmp_path):
    task = {"data": str(one_puzzle(tmp_path))}
    with pytest.raises(DataError, match="split 'validation'"):
        go(config(model, task=task), tmp_path / "run")
    with pytest.raises(DataError, match="split 'test'"):
        go(config(model, task=task, eval={"every": 0}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_without_held_out_rows_trains_where_none_are_wanted(model, tmp_path):
    task = {"data": str(one_puzzle(tmp_path))}
    cfg = config(model, task=task, steps=1, eval={"every": 0, "final": 0})
    assert go(cfg, tmp_path / "run").summary["steps"] == 1


def test_a_name_that_is_taken_is_refused_and_left_alone(model, tmp_path, straight):
    before = (straight.run.path / "metrics.jsonl").read_bytes()
    with pytest.raises(RunError, match="exists already"):
        go(config(model), straight.run.path)
    assert (straight.run.path / "metrics.jsonl").read_bytes() == before
