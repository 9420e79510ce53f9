"""Models by name: the disk first, the network only for what is not there, and never a pickle."""

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError

from aha.core.errors import ModelError, RunError
from aha.model.folders import (
    PACKAGED,
    SHIPPED,
    folder_of,
    local_model_folder,
    looks_like_hub_name,
    no_model,
    resolve_model,
    run_of,
)
from aha.model.lora import add_lora
from aha.model.parents import name_of
from aha.model.weights import load_model, save_policy
from aha.store.checksums import write_checksums

from ..tiny import TOKENIZER, tiny_folder, tiny_transformer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path) -> Path:
    """A hub cache that holds owner/tiny, laid out as huggingface_hub does."""
    place = tmp_path / "cache" / "models--owner--tiny"
    tiny_folder(place / "snapshots" / COMMIT)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMIT)
    return tmp_path / "cache"


class Hub:
    """Stands for the network: what is asked of it, and what it gives."""

    def __init__(self, source: Path | None):
        self.source, self.asked = source, []

    def __call__(
        self, name, allow_patterns=(), ignore_patterns=(), local_files_only=False, **where
    ):
        self.asked.append("disk" if local_files_only else "network")
        if local_files_only:
            raise LocalEntryNotFoundError("not in the cache")
        if self.source is None:
            raise OSError("no route to host\nsecond line")
        names = [p.name for p in self.source.iterdir()]
        self.given = {
            n
            for n in names
            if any(fnmatch(n, p) for p in allow_patterns)
            and not any(fnmatch(n, p) for p in ignore_patterns)
        }
        return str(self.source)


def test_a_name_in_the_cache_is_found_without_a_network(cache, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *unused: pytest.fail("the network"))
    found = folder_of("owner/tiny", cache_dir=cache)
    assert load_model(found).policy.config == tiny_transformer().config
    assert name_of(found) == "owner/tiny"


def test_a_folder_is_used_whatever_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: pytest.fail("hub"))
    tiny_folder(tmp_path / "owner" / "tiny")
    assert folder_of("owner/tiny") == Path("owner/tiny")
    assert resolve_model("owner/tiny") == Path("owner/tiny")
    assert name_of(Path("owner/tiny")) == str(tmp_path / "owner" / "tiny")


def test_the_network_is_asked_last_and_gives_no_pickle(tmp_path, monkeypatch):
    source = tiny_folder(tmp_path / "source")
    names = ("pytorch_model.bin", "model.gguf", "modeling_evil.py", "consolidated.safetensors")
    for name in (*names, "chat_template.jinja"):
        (source / name).write_text("")
    hub = Hub(source)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    monkeypatch.chdir(tmp_path)
    assert resolve_model("owner/tiny") == source
    assert hub.asked == ["disk", "network"]
    wanted = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert hub.given == wanted | {"generation_config.json", "chat_template.jinja"}


def test_a_name_that_nobody_has_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", Hub(None))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="owner/nothing.*no route to host") as found:
        resolve_model("owner/nothing")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("name", "hub"),
    [
        ("Qwen/Qwen2.5-0.5B", True),
        ("runs/demo", False),
        ("aha-tiny", False),
        ("./model/x", False),
        ("../model", False),
        ("~/model", False),
        ("/abs/model", False),
        ("a/b/c", False),
        ("owner/", False),
    ],
)
def test_what_can_only_mean_the_hub(tmp_path, monkeypatch, name, hub):
    monkeypatch.chdir(tmp_path)
    assert looks_like_hub_name(name) == hub
    (tmp_path / "Qwen").mkdir()
    assert not looks_like_hub_name("Qwen/Qwen2.5-0.5B")


def test_an_adapter_names_its_base_by_the_hub_name(cache, tmp_path, monkeypatch):
    """So that it can be read on another machine, where the cache is elsewhere."""
    base = folder_of("owner/tiny", cache_dir=cache)
    policy = load_model(base).policy
    add_lora(policy, 2, 4.0, seed=0)
    save_policy(tmp_path / "adapter", policy, TOKENIZER, base)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "owner/tiny"
    monkeypatch.chdir(tmp_path)
    other = shutil.copytree(base, tmp_path / "owner" / "tiny")
    assert other.is_dir()
    tokens_BT = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        found = load_model(tmp_path / "adapter").policy(tokens_BT)
        torch.testing.assert_close(found, policy(tokens_BT))


def test_the_model_of_a_run_with_a_flipped_bit_is_refused_by_both_of_its_names(tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    tiny_folder(run / "model")
    write_checksums(run / "model")
    (run / "model" / "README.md").write_text("a note of the user is no damage")
    assert resolve_model(str(run)) == run / "model"
    weights = run / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    for name in (run, run / "model"):
        with pytest.raises(RunError, match="model.safetensors is not what was written") as error:
            resolve_model(str(name))
        assert "resume the run" in error.value.fix
    (run / "model" / "SHA256SUMS").unlink()  # runs of older versions, and the fix for own changes
    assert resolve_model(str(run)) == run / "model"


def test_an_installation_without_the_shipped_model_is_named():
    """The fix was "aha-tiny is packaged", where it was not."""
    error = no_model(SHIPPED)
    assert str(PACKAGED) in error.got and "aha pretrain" in error.fix
    assert no_model("aha-tyni").fix == "aha-tiny is packaged"
    assert no_model("runs/base-10m/model").fix == "aha pretrain --shape 10m"


def test_a_folder_is_found_on_the_disk_only(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = tiny_folder(tmp_path / "base")
    assert local_model_folder(str(folder)) == folder
    assert local_model_folder("aha-tiny").name == "aha-tiny"
    assert local_model_folder("nobody/has-this") is None and local_model_folder("nowhere") is None


def test_the_run_of_its_model_and_of_its_checkpoints_is_found(tmp_path):
    run = tmp_path / "own"
    for inner in ("model", "checkpoints/step_000020"):
        (run / inner).mkdir(parents=True)
    assert run_of(run / "model") == run_of(run / "checkpoints" / "step_000020") == run
    assert run_of(run) == run and run_of(run / "checkpoints") is None
    tiny_folder(tmp_path / "base" / "model")
    assert run_of(tmp_path / "base" / "model") is None
    # A checkpoint on its own, somewhere else, is a model like any other.
    (tmp_path / "else" / "checkpoints" / "step_000020").mkdir(parents=True)
    assert run_of(tmp_path / "else" / "step_000020") is None
