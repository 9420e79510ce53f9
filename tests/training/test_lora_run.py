"""A whole run with adapters: what it keeps, what it leaves, and that it resumes bit for bit."""

import json

import pytest
import torch
from safetensors.torch import load_file

from aha.algo.recipe import load_recipe
from aha.core.config import RunConfig
from aha.core.errors import ConfigError
from aha.model.folders import resolve_model
from aha.model.weights import load_model
from aha.training.builders import open_policy
from aha.training.experiment import Experiment
from aha.training.outcome import Listener

from ..tiny import answering_folder
from .test_experiment import STEPS, config, go, timeless


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return answering_folder(tmp_path_factory.mktemp("models") / "tiny")


def with_lora(base, dtype: str = "float32") -> RunConfig:
    raw = config(base, optim={"lr": 1e-2, "dtype": dtype}).model_dump()
    raw["model"]["lora_rank"] = 4
    raw["algo"] |= {"kl": "loss", "kl_coef": 0.01}
    return RunConfig.model_validate(raw)


@pytest.fixture(scope="module")
def straight(base, tmp_path_factory):
    return go(with_lora(base), tmp_path_factory.mktemp("runs") / "straight")


def adapters(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def test_only_the_adapter_is_kept_and_it_names_its_base(straight, base):
    for folder in (straight.run.model, straight.run.checkpoints / f"step_{STEPS:06d}"):
        assert not (folder / "model.safetensors").exists()
        told = json.loads((folder / "adapter_config.json").read_text())
        assert told["base_model_name_or_path"] == str(base) and told["lora_alpha"] == 8.0
    trained = load_model(resolve_model(str(straight.run.path))).policy.weights()
    began = load_model(base).policy.weights()
    moved = {name for name in began if not torch.equal(trained[name], began[name])}
    assert moved == {name for name in began if "_proj.weight" in name}


def test_a_run_with_adapters_and_a_reference_resumes_bit_for_bit(base, tmp_path, straight):
    def crash(row: dict) -> None:
        if row["step"] == 3:  # the last checkpoint is step 2
            raise MemoryError

    path = tmp_path / "run"
    with pytest.raises(MemoryError):
        go(with_lora(base), path, step=crash)
    outcome = Experiment.resume(path, Listener()).run_all()
    for name, tensor in adapters(straight.run.model).items():
        assert torch.equal(adapters(path / "model")[name], tensor)
    assert timeless(path / "metrics.jsonl") == timeless(straight.run.metrics)
    assert outcome.summary["before"]["solve_rate"] == straight.summary["before"]["solve_rate"]
    state = torch.load(path / "checkpoints" / f"step_{STEPS:06d}" / "trainer.pt")
    assert len(state["reference"]) == 28 and all(".lora." in name for name in state["reference"])


def test_frozen_weights_take_the_type_of_the_arithmetic(base):
    for name in ("float32", "bfloat16"):
        policy = open_policy(with_lora(base, name)).policy
        assert policy.lm_head_weight.dtype == getattr(torch, name)
        assert all(parameter.dtype == torch.float32 for parameter in policy.trainable())


def test_strength_without_a_rank_is_refused():
    with pytest.raises(ConfigError, match="lora_alpha.*--model.lora_rank"):
        load_recipe(None, {"model.lora_alpha": 32})
