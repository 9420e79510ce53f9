import os

import pytest
import torch

from aha.core.errors import AhaError, ModelError, RunError
from aha.serve.open_models import ModelCache

from ..tiny import tiny_folder, tiny_transformer


def checkpoint(run, step: int, seed: int):
    folder = tiny_folder(run / "checkpoints" / f"step_{step:06d}", seed=seed)
    (folder / "trainer.pt").write_bytes(b"")
    return folder


def test_a_run_that_goes_on_answers_from_its_newest_checkpoint_and_then_from_its_end(tmp_path):
    models, run = ModelCache(), tmp_path / "run"
    checkpoint(run, 2, seed=2)
    first = models.get(str(run))
    assert first.origin == "checkpoint of step 2" and models.get(str(run)) is first
    checkpoint(run, 10, seed=10)
    second = models.get(str(run))
    assert second.origin == "checkpoint of step 10"
    embedding = tiny_transformer(10).model.embed_tokens.weight
    assert torch.equal(second.engine.weights.embedding, embedding.to(second.engine.dtype))
    tiny_folder(run / "model", seed=3)
    assert models.get(str(run)).origin == "trained to the end"
    assert second.positions == 160


def test_other_models_are_called_what_they_are_called(tmp_path):
    assert ModelCache().get(str(tiny_folder(tmp_path / "mine"))).origin == "mine"


def test_only_those_used_last_are_kept(tmp_path):
    names = [str(tiny_folder(tmp_path / name, seed=i)) for i, name in enumerate("abc")]
    models = ModelCache(max_open=2)
    first, second = models.get(names[0]), models.get(names[1])
    assert models.get(names[0]) is first
    models.get(names[2])
    assert models.get(names[0]) is first and models.get(names[1]) is not second


@pytest.mark.parametrize("name", ["none", "runs/none"])
def test_what_is_not_there_is_an_error_in_one_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AhaError):
        ModelCache().get(name)


def test_a_run_without_a_checkpoint_says_so(tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(RunError, match="no checkpoint in"):
        ModelCache().get(str(tmp_path / "run"))


class Dropping(ModelCache):
    """Loses the race with a training that keeps only its newest checkpoints."""

    def _get(self, name):
        raise FileNotFoundError(2, "No such file or directory", "step_000002/config.json")


def test_a_checkpoint_that_is_dropped_while_it_is_read_is_an_error_with_a_fix():
    with pytest.raises(RunError, match="step_000002/config.json was deleted.*ask again"):
        Dropping().get("run")


def test_without_the_network_a_model_must_be_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="'nobody/nothing' is not on this disk"):
        ModelCache(network=False).get("nobody/nothing")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_the_model_of_a_run_is_read_from_the_run_alone(tmp_path, name):
    folder = tiny_folder(tmp_path / "run" / "model")
    secret = tmp_path / name
    (folder / name).rename(secret)
    (folder / name).symlink_to(secret)
    (tmp_path / "run" / "metrics.jsonl").touch()
    with pytest.raises(ModelError, match=f"{name} is a link out of its run"):
        ModelCache().get(str(tmp_path / "run"))
    # A folder that the user names may have links: the cache of the hub consists of them.
    assert ModelCache().get(str(folder)).origin == "trained to the end"


def test_a_fifo_in_a_models_folder_is_no_hang(tmp_path):
    folder = tiny_folder(tmp_path / "mine")
    (folder / "generation_config.json").unlink(missing_ok=True)
    os.mkfifo(folder / "generation_config.json")
    with pytest.raises(ModelError, match="generation_config.json is a link out"):
        ModelCache().get(str(folder))
