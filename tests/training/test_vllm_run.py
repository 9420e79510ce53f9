"""A whole run with vLLM's engine, its stand-in below: order, correction and what is measured."""

import sys

import pytest

from aha.rollout.vllm import VllmEngine
from aha.store.run_folder import read_rows
from aha.training.experiment import Experiment
from aha.training.outcome import Listener

from ..rollout import fake_vllm
from ..tiny import answering_folder
from .test_experiment import config, go, same_weights

TIS = {"rollout": {"engine": "vllm"}, "algo": {"correction": "token_tis"}}


@pytest.fixture(autouse=True)
def vllm(monkeypatch):
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    monkeypatch.setitem(sys.modules, "vllm", fake_vllm.module())


def test_a_run_with_vllm_goes_to_its_end_and_can_be_resumed(tmp_path):
    base = answering_folder(tmp_path / "base")
    cfg = config(base, steps=3, eval={"every": 2, "problems": 2, "final": 2}, **TIS)

    def crash(row: dict) -> None:
        if row["step"] == 3:  # the last checkpoint is step 2
            raise MemoryError

    with pytest.raises(MemoryError):
        go(cfg, tmp_path / "run", step=crash)
    experiment = Experiment.resume(tmp_path / "run", Listener())
    assert isinstance(experiment.trainer.engine, VllmEngine)
    outcome = experiment.run_all()
    assert outcome.summary["steps"] == 3 and not experiment.trainer.engine.llm.awake
    rows = list(read_rows(outcome.run.metrics))
    # The stand-in computes in float32, as the trainer does.
    assert len(rows) == 3 and all(row["mismatch"] < 1e-4 for row in rows)
    assert all(row["mismatch_kl"] == pytest.approx(0, abs=1e-6) for row in rows)
    assert all(row["mismatch_ess"] == pytest.approx(1, abs=1e-4) for row in rows)
    # The same seeds and the same maths, so the same weights as with our own engine but rounding.
    native = config(base, steps=3, eval={"every": 2, "problems": 2, "final": 2})
    done = go(native, tmp_path / "native")
    assert not same_weights(done.run.model, base)
    assert not any("mismatch_kl" in row for row in read_rows(done.run.metrics))
