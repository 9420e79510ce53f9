"""One process or two: the same gradient.

The project trains in one process. What is proven here is what several would rest on: the
denominators are those of the whole step, so that gradients of any share of the rows add up.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from aha.batching.batch import totals_of

from .one_rank import WAYS, gradient, make, rows_of

ROOT = Path(__file__).resolve().parents[2]


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    scale = one.abs().max()
    return torch.allclose(one / scale, other / scale, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed")
def test_two_processes_have_the_gradient_of_one(tmp_path):
    words = [sys.executable, "-m", "tests.training.one_rank"]
    # The loopback: a machine without a name for itself would not find the other process.
    where = os.environ | {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else os.environ
    ranks = [
        subprocess.Popen([*words, str(rank), str(tmp_path)], cwd=ROOT, env=where)
        for rank in range(2)
    ]
    assert [rank.wait(timeout=280) for rank in ranks] == [0, 0]
    shared = torch.load(tmp_path / "gradients.pt", weights_only=True)
    for way, found in zip(WAYS, shared, strict=True):
        trainer = make(*way)
        rows = rows_of(trainer)
        whole = gradient(trainer, rows, totals_of(rows, 12))
        assert whole.abs().max() > 0 and close(whole, found), way


def test_averaging_what_each_process_has_divided_itself_is_another_gradient():
    """The process with few tokens would count for more."""
    trainer = make("token_mean", "none")
    rows = sorted(rows_of(trainer), key=lambda row: len(row.graded.completion.tokens))
    halves = [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
    whole = gradient(trainer, rows, totals_of(rows, 12))
    averaged = sum(gradient(trainer, half, totals_of(half, 12)) for half in halves) / 2
    assert not close(whole, averaged)
