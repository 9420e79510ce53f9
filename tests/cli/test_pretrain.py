"""`aha pretrain`, from nothing to a base that a recipe starts from."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from aha.core.recipe_layers import flattened
from aha.corpus.bases import BASES
from aha.model.folders import base_cost
from aha.plan.machines import Cost
from aha.pretrain.make_base import PretrainMachine, ProgressWatcher, plan_here
from aha.pretrain.settings import make_job
from aha.store.checkpoint import checkpoints
from aha.store.run_lock import RunLock

from ..tiny import tiny_folder

SMALL = ("--layers", 1, "--hidden", 48, "--mlp", 48, "--shard-documents", 300)


def facts_of(folder: Path) -> dict:
    return json.loads((folder / "model" / "pretraining.json").read_text())


def test_a_base_that_can_be_evaluated(aha, tmp_path):
    words = ("pretrain", "base", "--tokens", 60_000, *SMALL)
    done = aha(*words, "--usd-per-hour", 3600, "--watts", 1000)
    assert done.code == 0, done.err
    facts, seconds = facts_of(tmp_path / "base"), facts_of(tmp_path / "base")["hours"] * 3600
    assert facts["tokens"] >= 60_000 and facts["pretraining"]["shard_documents"] == 300
    # At a dollar a second and a kilowatt.
    assert facts["cost_usd"] == pytest.approx(seconds)
    assert facts["kwh"] == pytest.approx(facts["hours"])
    assert facts["planned"]["usd"] == pytest.approx(facts["planned"]["seconds"])
    assert facts["device"] and facts["writers"] == 0 and facts["peak_bytes"] > 1e7
    assert "planned on" in done.out and "the model is in base/model" in done.out
    row = json.loads(aha("eval", "base/model", "--n", 4, "--max-new-tokens", 20, "--json").out)
    assert row["problems"] == 4
    # Done is done: asked again, it changes nothing.
    before = (tmp_path / "base" / "model" / "model.safetensors").read_bytes()
    assert aha(*words).code == 0
    # Other settings would silently be those of before: refused.
    refused = aha(*words, "--seed", 1)
    assert refused.code == 2 and "pretraining.seed 1" in refused.err
    assert (tmp_path / "base" / "model" / "model.safetensors").read_bytes() == before


def test_weights_to_start_from(aha, tmp_path):
    start = tiny_folder(
        tmp_path / "start", max_position_embeddings=1280, vocab_size=BASES["tiny"].shape.V
    )
    assert base_cost(start) == {}
    (start / "pretraining.json").write_text('{"cost_usd": 1.5, "kwh": 0.25}')
    shape = ("--layers", 2, "--hidden", 32, "--mlp", 48, "--shard-documents", 30)
    words = ("pretrain", "base", *shape, "--tokens", 1, "--lr", 0, "--start", "start")
    assert aha(*words).code == 0
    ours = load_file(tmp_path / "base" / "model" / "model.safetensors")
    theirs = load_file(start / "model.safetensors")
    matrices = [name for name in theirs if name.endswith("_proj.weight")]
    # Muon's rate is 0; AdamW's is not, and moves the rest a little.
    assert matrices and all(torch.equal(ours[name], theirs[name]) for name in matrices)
    facts = facts_of(tmp_path / "base")
    assert facts["start"] == "start"
    # What the first has cost is part of what the second has.
    told = base_cost(tmp_path / "base" / "model")
    assert told == {"cost_usd": 1.5 + facts["cost_usd"], "kwh": 0.25 + facts["kwh"]}


def test_a_base_has_one_writer_and_whole_checkpoints(aha, tmp_path):
    shape = ("--layers", 1, "--hidden", 32, "--mlp", 48, "--shard-documents", 30)
    words = ("pretrain", "base", *shape, "--tokens", 1)
    assert aha(*words).code == 0
    out = tmp_path / "base"
    lock = RunLock(out)
    refused = aha(*words)
    assert refused.code == 2 and f"in use by process {os.getpid()}" in refused.err
    lock.release()
    (newest,) = checkpoints(out / "checkpoints")
    shutil.copytree(newest, newest.with_name("step_000009"))
    (newest.with_name("step_000009") / "trainer.pt").write_bytes(b"")
    done = aha(*words)
    assert done.code == 0 and "a damaged checkpoint" in done.out and newest.name in done.out
    (newest / "trainer.pt").write_bytes(b"")
    assert "trainer.pt is not what was written" in aha(*words).err
    (out / "settings.json").write_text("{")
    assert "settings.json is damaged" in aha(*words).err


def test_a_start_that_is_not_there_leaves_no_folder(aha, tmp_path):
    done = aha("pretrain", "base", "--start", "typo", "--tokens", 1)
    assert done.code == 2 and "typo" in done.err and list(tmp_path.iterdir()) == []


def test_a_start_of_other_sizes_leaves_no_folder(aha, tmp_path):
    """A base of the first edition had 112 tokens."""
    tiny_folder(tmp_path / "start", max_position_embeddings=1280, vocab_size=BASES["tiny"].shape.V)
    config = tmp_path / "start" / "config.json"
    config.write_text(config.read_text().replace('"vocab_size": 202', '"vocab_size": 112'))
    shape = ("--layers", 2, "--hidden", 32, "--mlp", 48)
    done = aha("pretrain", "base", *shape, "--start", "start", "--tokens", 1)
    assert done.code == 2 and "vocab_size 112; wanted vocab_size 202" in done.err
    done = aha("pretrain", "base", *shape[2:], "--start", "start", "--tokens", 1)
    assert done.code == 2 and "fix: start from a base of this shape" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["start"]


# -- the machine and its price ---------------------------------------------------------------


def test_a_cpu_is_two_cores_in_a_cloud_unless_one_says_otherwise():
    machine = PretrainMachine.of("cpu", None, None, None)
    assert (machine.usd_per_hour, machine.watts, machine.writers) == (0.08, 30.0, 0)
    plan, row = plan_here(make_job("tiny"), machine)
    assert plan.cost.usd == pytest.approx(plan.cost.seconds / 3600 * 0.08) and "cpu-2-cores" in row
    own = PretrainMachine.of("cpu", 3, 0.0, 65.0)
    assert (own.usd_per_hour, own.watts, own.writers) == (0.0, 65.0, 3)
    plan, _ = plan_here(make_job("tiny"), own)
    assert plan.cost.usd == 0 and plan.cost.kwh == pytest.approx(plan.cost.seconds / 3600 * 0.065)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_an_error(aha, tmp_path):
    done = aha("pretrain", "out", "--device", "cuda")
    assert done.code == 2 and "fix: --device cpu" in done.err
    assert list(tmp_path.iterdir()) == []


def test_what_was_spent_elsewhere_is_carried_along(tmp_path):
    machine = PretrainMachine.of("cpu", 0, 3600.0, 3600.0)
    progress = ProgressWatcher(None, tmp_path, machine, Cost(100.0, 5.0, 7.0))
    cost = progress.cost
    own = cost.seconds - 100.0
    assert (
        own > 0
        and cost.usd == pytest.approx(5.0 + own)
        and cost.kwh == pytest.approx(7.0 + own / 1000)
    )
    assert Cost(**asdict(cost)) == cost


def test_settings_are_told_apart_by_their_dotted_names():
    found = flattened(make_job("tiny").settings)
    assert found["pretraining.mix.search"] == 0.24 and found["model.hidden_size"] == 128


# -- with writers ------------------------------------------------------------------------------

TEN = ("--shape", "10m", *SMALL, "--batch-tokens", 1_500)


def test_from_nothing_to_rl_with_the_recipe(aha, tmp_path):
    """`aha pretrain --shape 10m`, then `aha train scratch-10m`, in everything but size."""
    made = aha("pretrain", *TEN, "--tokens", 40_000, "--writers", 2)
    assert made.code == 0, made.err
    base = tmp_path / "runs" / "base-10m"
    assert facts_of(base)["writers"] == 2
    words = ("train", "scratch-10m", "--steps", 2, "--rollout.prompts", 4)
    words += ("--rollout.max_new_tokens", 48, "--eval.final", 8, "--eval.every", 0)
    trained = aha(*words, "--task.verifier", "tinyzero", "--no-dash")
    assert trained.code == 0, trained.err
    run = tmp_path / "runs" / "scratch-10m"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["steps"] == 2 and summary["base_cost_usd"] == facts_of(base)["cost_usd"]
    config = json.loads((run / "model" / "config.json").read_text())
    assert config["hidden_size"] == 48 and config["num_attention_heads"] == 6
    doctor = aha("doctor", "scratch-10m", "--json", "--rollout.max_new_tokens", 8)
    checks = {one["check"]: one["level"] for one in json.loads(doctor.out)["findings"]}
    assert checks["base_weights"] == "ok" and "mask" in checks


def alive_in(group: int) -> list[str]:
    """The processes of a group, those left out that have ended and that nobody has asked about."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, rest = path.read_text().rsplit(")", 1)
        except OSError:  # ended just now
            continue
        state, _, its_group = rest.split()[:3]
        if int(its_group) == group and state != "Z":
            found.append(name)
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_ctrl_c_ends_the_writers_and_the_rest_is_bit_equal(aha, tmp_path):
    """Stopped by Ctrl-C for all of a terminal's processes, and gone on with without writers."""
    words = [*TEN, "--tokens", 100_000, "--device", "cpu"]
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "aha", "pretrain", "stopped", *words, "--writers", "2"]
    process = subprocess.Popen(
        list(map(str, command)),
        cwd=tmp_path,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Heard wherever the tests were started: a background shell has it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    for line in process.stdout:
        if " loss " in line:  # the first fifty updates
            break
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 130 and "stopping after this step" in said
    assert "Error" not in said and "Traceback" not in said
    deadline = time.monotonic() + 30  # multiprocessing's own helper goes last
    while (left := alive_in(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []
    (saved,) = checkpoints(tmp_path / "stopped" / "checkpoints")
    assert int(saved.name.removeprefix("step_")) >= 50
    assert not (tmp_path / "stopped" / "model").exists()

    assert aha("pretrain", "stopped", *words).code == 0
    assert aha("pretrain", "straight", *words).code == 0
    ours, theirs = (
        load_file(tmp_path / name / "model" / "model.safetensors")
        for name in ("stopped", "straight")
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
