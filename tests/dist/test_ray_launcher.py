"""`--launcher ray`: without Ray one line; with it, on CPUs, whole runs and what ends their workers.

The slow tests start Ray itself on this machine, which takes a minute each.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aha.core.errors import AhaError, ConfigError, MissingExtra
from aha.dist.ray_launcher import lost, run_workers, takes_gpus
from aha.store.run_folder import read_rows
from aha.studies.resume_trial import differences_of

from ..tiny import answering_folder

ROOT = Path(__file__).resolve().parents[2]
HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed: pip install '.[ray]'")
STEPS = 6
WORDS = f"--steps {STEPS} --checkpoint_every 1 --rollout.prompts 2 --rollout.group_size 6 "
WORDS += "--rollout.max_new_tokens 16 --rollout.dtype float32 --optim.dtype float32 "
WORDS += "--eval.every 0 --eval.final 4 --task.verifier tinyzero --model.path"


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed")
def test_without_ray_the_install_line_is_said(tmp_path):
    with pytest.raises(MissingExtra, match=r"pip install 'aha\[ray\]'"):
        run_workers(len, 2, 0, tmp_path)
    assert list(tmp_path.iterdir()) == []


CORES = {"CPU": 4.0, "memory": 1e9}


def test_more_ranks_than_cores_are_refused_and_the_fix_works():
    with pytest.raises(ConfigError, match="--ranks 5 on a Ray cluster with 4 CPUs") as error:
        takes_gpus(CORES, 5, "none")
    assert error.value.fix.startswith("--ranks 4,")
    assert not takes_gpus(CORES, 4, "none")


def test_workers_have_a_gpu_each_or_none_of_them_has():
    two = CORES | {"GPU": 2.0}
    assert takes_gpus(two, 2, "each") and takes_gpus(two, 2, "any")
    assert not takes_gpus(two, 2, "none") and not takes_gpus(CORES, 2, "any")
    for gpus in ("each", "any"):
        with pytest.raises(ConfigError, match="--ranks 3 on a Ray cluster with 2 GPUs") as error:
            takes_gpus(two, 3, gpus)
        assert error.value.fix == "--ranks 2, more machines, or --model.device cpu"
    with pytest.raises(ConfigError, match="with 0 GPUs") as error:
        takes_gpus(CORES, 1, "each")
    assert error.value.fix == "--model.device cpu"


def test_the_error_of_a_run_that_failed_too_often_names_a_rank():
    class Failed(Exception):
        worker_failures = {1: AhaError("a fork", "a spoon")}

    words = str(lost(Failed(), 3, 2))
    assert words.startswith("rank 1 has failed, after 3 restarts at most: a fork; wanted a spoon")
    assert words.endswith("`aha train --launcher ray --ranks 2 --resume RUN`")
    words = str(lost(ValueError("no machine\nleft"), 3, 2))
    assert words.startswith("Ray cannot go on, after 3 restarts at most: no machine left")


# -- with Ray --------------------------------------------------------------------------------------


def launch(folder: Path, model: Path, *words: str, address: str = "") -> subprocess.Popen:
    command = [sys.executable, "-m", "aha", "train", "demo", "--name", "first", *words]
    env = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    env |= {"RAY_ADDRESS": address} if address else {}
    return subprocess.Popen(
        [*command, *WORDS.split(), str(model)],
        cwd=folder,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def end(process: subprocess.Popen, seconds: float = 1500.0) -> tuple[int, str]:
    output, _ = process.communicate(timeout=seconds)
    return process.returncode, output


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return answering_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def straight(tmp_path_factory, model) -> Path:
    """The run of two ranks of this machine that nobody disturbs."""
    folder = tmp_path_factory.mktemp("straight")
    code, output = end(launch(folder, model, "--ranks", "2"))
    assert code == 0, output[-3000:]
    return folder / "runs" / "first"


def is_whole(run: Path, straight: Path) -> None:
    assert list(differences_of(straight, run, {})) == []
    assert [row["step"] for row in read_rows(run / "metrics.jsonl")] == list(range(1, STEPS + 1))
    assert json.loads((run / "fingerprints.json").read_text())["ranks"] == 2
    assert [path.name for path in run.parents[1].glob(".ray-*")] == []


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_workers_make_the_run_that_local_ranks_make(tmp_path, model, straight):
    code, output = end(launch(tmp_path, model, "--launcher", "ray", "--ranks", "2"))
    assert code == 0, output[-3000:]
    is_whole(tmp_path / "runs" / "first", straight)
    # The name is taken now, which is said before Ray starts.
    code, output = end(launch(tmp_path, model, "--launcher", "ray", "--ranks", "2"))
    assert code == 2 and "exists already" in output
