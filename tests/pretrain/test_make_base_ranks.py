"""A base made by several processes: the same bits each time, and an end whatever happens."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from aha.cli.main import run
from aha.dist.local_ranks import can_meet
from aha.pretrain.make_base import PretrainMachine, pretrain_base
from aha.pretrain.settings import make_job
from aha.store.checkpoint import checkpoints

pytestmark = pytest.mark.skipif(not can_meet(), reason="this torch has no gloo")

# A hundred updates: a signal at the fiftieth leaves as many to do.
TOKENS = 150_000
SIZES = {"hidden_size": 48, "intermediate_size": 48, "num_hidden_layers": 1}
CHANGES = {"batch_tokens": 1_500, "shard_documents": 100}
OPTIONS = ("--hidden", "48", "--mlp", "48", "--layers", "1", "--device", "cpu")
OPTIONS += ("--batch-tokens", "1500", "--shard-documents", "100")


def make(out: Path, ranks: int, tokens: int = 45_000) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the card, the weights) of a small base."""
    job = make_job("tiny", out, SIZES, CHANGES | {"tokens": tokens})
    pretrain_base(job, PretrainMachine.of("cpu", 0, 0.0, 0.0, ranks), lambda line: None)
    card = json.loads((out / "model" / "pretraining.json").read_text())
    return card, load_file(out / "model" / "model.safetensors")


def equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in theirs)


def test_two_ranks_are_bit_equal_again_and_near_one(tmp_path):
    """Over several shards, and with twice the share of writing."""
    card, first = make(tmp_path / "first", 2)
    assert card["ranks"] == [2] and card["threads"] == 1
    again, second = make(tmp_path / "second", 2)
    assert equal(first, second)
    alone, third = make(tmp_path / "third", 1)
    assert alone["ranks"] == [1]
    counts = [(row["tokens"], row["steps"]) for row in (card, again, alone)]
    assert counts[0] == counts[1] == counts[2]
    for name, weight in third.items():
        # Thirty updates of bf16 or float32: the order of sums is all that differs.
        assert torch.allclose(first[name], weight, atol=0.02), name
    assert not equal(first, third)


class Command:
    """`aha pretrain` in a process group of its own."""

    def __init__(self, folder: Path, *words: str):
        root = Path(__file__).resolve().parents[2]
        path = os.pathsep.join(filter(None, [str(root / "src"), *sys.path]))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "aha", "pretrain", *words, *OPTIONS],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Heard wherever the tests were started: a background shell has it ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def until_it_trains(self) -> list[psutil.Process]:
        """Wait for the first fifty updates; returns rank 1, 2 ..."""
        assert any(" loss " in line for line in self.process.stdout), self.process.stderr.read()
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]

    def end(self) -> tuple[int, str, float]:
        """(exit code, standard error, seconds until then); no process of its group is left."""
        start = time.monotonic()
        _, said = self.process.communicate(timeout=240)
        seconds = time.monotonic() - start
        deadline = time.monotonic() + 30  # multiprocessing's own helper goes last
        while group_of(self.process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert group_of(self.process.pid) == []
        return self.process.returncode, said, seconds


def group_of(number: int) -> list[psutil.Process]:
    members = []
    for process in psutil.process_iter(["status"]):
        try:
            same = os.getpgid(process.pid) == number
        except ProcessLookupError:
            continue
        if same and process.info["status"] != psutil.STATUS_ZOMBIE:
            members.append(process)
    return members


def test_ctrl_c_stops_all_after_the_same_update_and_the_rest_is_bit_equal(tmp_path):
    command = Command(tmp_path, "stopped", "--ranks", "2", "--tokens", str(TOKENS))
    command.until_it_trains()
    os.killpg(command.process.pid, signal.SIGINT)
    code, said, _ = command.end()
    assert code == 130, said
    assert "Traceback" not in said and said.count("stopping after this step") == 1
    (saved,) = checkpoints(tmp_path / "stopped" / "checkpoints")
    assert int(saved.name.removeprefix("step_")) >= 50
    assert not (tmp_path / "stopped" / "model").exists()  # there was more to do
    card, ours = make(tmp_path / "stopped", 2, TOKENS)
    _, theirs = make(tmp_path / "straight", 2, TOKENS)
    assert card["ranks"] == [2] and equal(ours, theirs)


def test_sigterm_to_any_rank_stops_all_and_another_number_goes_on(tmp_path):
    command = Command(tmp_path, "base", "--ranks", "2", "--tokens", str(TOKENS))
    (rank,) = command.until_it_trains()
    rank.terminate()
    code, said, _ = command.end()
    assert (code, said) == (143, "")
    assert len(checkpoints(tmp_path / "base" / "checkpoints")) == 1
    assert not (tmp_path / "base" / "model").exists()
    card, _ = make(tmp_path / "base", 1, TOKENS)
    assert card["ranks"] == [2, 1] and card["tokens"] >= TOKENS


def test_a_rank_that_is_killed_ends_the_command(tmp_path):
    command = Command(tmp_path, "base", "--ranks", "3", "--tokens", "100000000")
    ranks = command.until_it_trains()
    assert len(ranks) == 2
    ranks[1].kill()
    code, said, seconds = command.end()
    assert code == 1 and seconds < 60
    assert f"(process {ranks[1].pid}) was ended by SIGKILL" in said and "fix: " in said
    assert "Traceback" not in said and len(said.splitlines()) == 1
    assert not (tmp_path / "base" / "owner.json").exists()


def test_numbers_that_cannot_work_leave_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ("aha", "pretrain", "base", *OPTIONS, "--ranks", "10000")
    monkeypatch.setattr(sys, "argv", [*words])
    with pytest.raises(SystemExit) as end:
        run()
    said = capsys.readouterr().err
    assert end.value.code == 2 and "--ranks 10000 on" in said and "fix: --ranks auto" in said
    assert list(tmp_path.iterdir()) == []
