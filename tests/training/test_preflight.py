"""What is foreseen on this machine, and that too little memory is said before anything happens."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from safetensors.torch import save_file

from aha.algo.algorithms import method_of
from aha.core.config import RunConfig
from aha.core.errors import ConfigError
from aha.machine.device import has_native_bf16
from aha.machine.host import Memory
from aha.model.weights import load_model
from aha.plan.cluster import Cluster
from aha.plan.prediction import predict
from aha.plan.shapes import Shape
from aha.plan.speed import TaskSizes, Workload
from aha.training import preflight
from aha.training.experiment import Experiment
from aha.training.outcome import Listener
from aha.training.preflight import (
    check_memory,
    needs_shards,
    predict_run,
    refuse_weights,
    shape_in_folder,
    shape_of_config,
    with_machine_price,
)

from ..plan.test_calibration import CPU as MACHINE
from ..plan.test_calibration import measured_on
from ..tiny import tiny_folder

CPU = torch.device("cpu")


@pytest.fixture
def cfg(tmp_path) -> RunConfig:
    folder = tiny_folder(tmp_path / "base")
    rollout = {"prompts": 2, "group_size": 2, "max_new_tokens": 16}
    raw = {"model": {"path": str(folder)}, "rollout": rollout, "eval": {"final": 2, "every": 0}}
    return RunConfig.model_validate(raw)


def with_memory(monkeypatch, free: float) -> None:
    monkeypatch.setattr(preflight, "memory_bytes", lambda: Memory(int(free), int(free)))


def test_a_shape_is_the_same_before_and_after_the_weights_are_read(cfg, tmp_path):
    folder = tmp_path / "base"
    found = shape_in_folder(folder)
    assert isinstance(found, Shape) and found == shape_of_config(load_model(folder).policy.config)
    assert shape_in_folder(tmp_path) is None
    (tmp_path / "adapter").mkdir()
    names = f'{{"base_model_name_or_path": "{folder}"}}'
    (tmp_path / "adapter" / "adapter_config.json").write_text(names)
    assert shape_in_folder(tmp_path / "adapter") == found


@pytest.fixture
def cores(monkeypatch):
    """Set the threads of torch, on a machine with as many cores."""
    before = torch.get_num_threads()

    def of(count: int) -> None:
        torch.set_num_threads(count)
        monkeypatch.setattr(preflight, "usable_cores", lambda: count)

    yield of
    torch.set_num_threads(before)


def test_a_prediction_names_the_machine_and_is_that_of_its_cores(cfg, tmp_path, cores):
    """A row of the table is one of two cores: one was planned as two."""
    cfg, shape = with_machine_price(cfg, CPU), shape_in_folder(tmp_path / "base")
    row = "cpu-2-cores" if has_native_bf16() else "cpu-2-cores-avx2"
    cores(2)
    both = predict_run(cfg, shape, CPU)
    assert both["machine"] == row and both["mean_tokens"] == 8 and both["seconds"] > 0
    cores(1)
    one = predict_run(cfg, shape, CPU)
    assert one["machine"] == f"one core of {row}" and one["cost_usd"] > both["cost_usd"]
    # A thread alone is 1.22 times as fast as one of two (results/bench/ranks.jsonl).
    assert one["seconds"] / both["seconds"] == pytest.approx(2 / 1.22)
    cores(8)
    many = predict_run(cfg, shape, CPU)
    assert many["machine"] == f"{row} (8 cores here)" and many["seconds"] == both["seconds"]


def test_ranks_with_a_thread_each_use_as_many_cores(cfg, tmp_path, cores, monkeypatch):
    cfg, shape = with_machine_price(cfg, CPU), shape_in_folder(tmp_path / "base")
    cores(2)
    both = predict_run(cfg, shape, CPU, cluster=Cluster(2))
    torch.set_num_threads(1)  # as torchrun starts them
    assert predict_run(cfg, shape, CPU, cluster=Cluster(2)) == both
    alone = predict_run(cfg, shape, CPU, cluster=Cluster(1, 2))  # on a machine each
    assert alone["machine"].startswith("one core of") and alone["seconds"] > 0
    cores(1)
    assert "(1 core here)" in predict_run(cfg, shape, CPU, cluster=Cluster(2))["machine"]


def test_a_calibration_with_other_threads_says_so(cfg, tmp_path, cores):
    cfg, shape = with_machine_price(cfg, CPU), shape_in_folder(tmp_path / "base")
    measured = measured_on(MACHINE)  # with one thread
    cores(1)
    assert predict_run(cfg, shape, CPU, measured)["machine"] == "a simulated machine"
    cores(2)
    told = predict_run(cfg, shape, CPU, measured)["machine"]
    assert told == "a simulated machine, measured with 1 thread"


def test_less_than_the_weights_need_is_an_error_with_a_fix_and_no_run(cfg, tmp_path, monkeypatch):
    with_memory(monkeypatch, 50e6)
    with pytest.raises(ConfigError, match=r"GB planned for .*, 0\.05 GB free") as caught:
        Experiment.start(cfg, tmp_path / "run", Listener())
    assert "no setting fits" in str(caught.value) and not (tmp_path / "run").exists()


def test_what_smaller_parts_mend_is_said_and_no_error(cfg, tmp_path, monkeypatch):
    shape, said = shape_in_folder(tmp_path / "base"), []
    with_memory(monkeypatch, 101e6)
    check_memory(cfg, shape, CPU, said.append)
    assert len(said) == 1 and "0.10 GB free" in said[0]
    with_memory(monkeypatch, 4e9)
    check_memory(cfg, shape, CPU, said.append)
    with_memory(monkeypatch, 0)  # a system that does not tell
    check_memory(cfg, shape, CPU, said.append)
    assert len(said) == 1


def test_a_gpu_that_multiplies_no_bf16_needs_the_memory_of_float32(cfg, tmp_path, monkeypatch):
    """Also where the table has no row for it, as for Apple's."""
    shape, counted = shape_in_folder(tmp_path / "base"), []
    with_memory(monkeypatch, 4e9)
    monkeypatch.setattr(
        preflight, "shortage", lambda load, free, host, float32, shards: counted.append(float32)
    )
    for native in (False, True):
        monkeypatch.setattr("aha.machine.device.has_native_bf16", lambda native=native: native)
        check_memory(cfg, shape, CPU, print)
        check_memory(cfg, shape, torch.device("mps"), print)
    assert counted == [True, True, False, True]
    cfg = with_machine_price(cfg, CPU)
    narrow = predict(Workload(cfg, method_of(cfg), shape), None, "a GPU", False, 0.0)["memory"]
    for calibration in (None, replace(measured_on(MACHINE), device="mps")):
        apple = predict_run(cfg, shape, torch.device("mps"), calibration)["memory"]
        assert apple["activations"] == 2 * narrow["activations"] > 0


def test_the_memory_is_that_of_the_prompts_that_the_task_has(cfg, tmp_path, monkeypatch):
    """Too little for long ones is said, where their template alone would let them pass."""
    shape, said = shape_in_folder(tmp_path / "base"), []
    cfg = cfg.model_copy(update={"rollout": cfg.rollout.model_copy(update={"prompts": 64})})
    with_memory(monkeypatch, 200e6)
    check_memory(cfg, shape, CPU, said.append)
    assert not said
    check_memory(cfg, shape, CPU, said.append, sizes=TaskSizes(2_000.0))
    assert len(said) == 1 and "0.20 GB free" in said[0]


def test_a_model_without_a_shape_that_does_not_fit_is_refused_before_it_is_read(
    tmp_path, monkeypatch
):
    """Such as one of `transformers` alone: its files say how many weights it has."""
    numbers = {"wte.weight": torch.zeros(1_000, 64), "h.weight": torch.zeros(64)}
    save_file(numbers, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_embd": 64}')
    cfg = RunConfig.model_validate({"model": {"path": str(tmp_path)}})
    assert shape_in_folder(tmp_path) is None
    with_memory(monkeypatch, 1.1e6)
    refuse_weights(cfg, tmp_path)  # 64,064 weights of 16 bytes
    with_memory(monkeypatch, 1.0e6)
    with pytest.raises(ConfigError, match="0.00 GB needed for the 0 million weights"):
        refuse_weights(cfg, tmp_path)
    smaller = {"optim": cfg.optim.model_copy(update={"state": "8bit"})}
    refuse_weights(cfg.model_copy(update=smaller), tmp_path)


def test_where_a_rank_cannot_have_everything_it_gets_shards(cfg, tmp_path, monkeypatch):
    small, said = shape_in_folder(tmp_path / "base"), []
    large = replace(small, C=2048, I=8192, L=30, H=16, D=128)  # 1.8 billion weights
    cfg = cfg.model_copy(update={"rollout": cfg.rollout.model_copy(update={"prompts": 8})})
    with_memory(monkeypatch, 120e9)  # for four ranks: 30 GB each
    ask = partial(check_memory, cfg, large, CPU, said.append)
    with pytest.raises(ConfigError, match=r"30\.00 GB free for each of 4 ranks") as refused:
        ask(4, "off")
    assert refused.value.fix == "--ranks 1"  # which fits alone
    assert ask(4, "auto") and ask(4, "on")
    assert not ask(1, "auto") and not ask(1, "on")
    assert not check_memory(cfg, small, CPU, said.append, 4, "auto")
    assert check_memory(cfg, small, CPU, said.append, 4, "on")
    with_memory(monkeypatch, 60e9)
    with pytest.raises(ConfigError, match="ranks") as refused:
        ask(2, "off")
    # An optimiser with its state elsewhere is not cut: what is missing stays missing.
    elsewhere = cfg.model_copy(update={"optim": cfg.optim.model_copy(update={"state": "cpu"})})
    with_memory(monkeypatch, 100e9)
    with pytest.raises(ConfigError, match="for each of 4 ranks;"):
        check_memory(elsewhere, large, CPU, said.append, 4, "auto")
    # A resumed run is not refused: it has fitted before.
    assert not needs_shards(elsewhere, None, 4, "auto")
    assert needs_shards(elsewhere, None, 4, "on") and not needs_shards(cfg, None, 1, "on")


def test_more_completions_than_memory_holds_are_refused_by_their_keys(cfg, tmp_path, monkeypatch):
    shape = shape_in_folder(tmp_path / "base")
    with_memory(monkeypatch, 2e9)
    rollout = cfg.rollout.model_copy(update={"prompts": 1_000, "group_size": 1_000})
    rollout = rollout.model_copy(update={"max_new_tokens": 100})
    large = cfg.model_copy(update={"rollout": rollout})
    with pytest.raises(ConfigError, match="rollout.group_size 1,000 completions of 50") as error:
        check_memory(large, shape, CPU, print)
    fits = int(error.value.fix.removeprefix("--rollout.group_size "))
    smaller = large.rollout.model_copy(update={"group_size": fits})
    preflight.check_completions(large.model_copy(update={"rollout": smaller}), 2e9)
