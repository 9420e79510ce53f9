"""Uploads to a hub of this machine; no test leaves it."""

import os
import shlex
import subprocess
import sys

import pytest

from aha.core.errors import ConfigError, RunError
from aha.export.hub_push import check_hub_name, endpoint, files_of, push

from .fake_hub import TOKEN, FakeHub

SCRIPT = """
import sys
from pathlib import Path
from aha.core.errors import AhaError
from aha.export.hub_push import push
for name in sys.argv[2:]:
    try:
        print(push(Path(sys.argv[1]), name, private=True))
    except AhaError as error:
        print(error)
"""


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 40)
    return folder


def push_elsewhere(hub: str, folder, home, *names: str, token: str = TOKEN) -> list[str]:
    """In a process of its own: huggingface_hub reads its environment once, when it is imported."""
    own = {"HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0", "HF_HOME": str(home), "HF_TOKEN": token}
    # Its other way of uploading speaks with servers of the hub that have no place here.
    own |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    words = [sys.executable, "-c", SCRIPT, str(folder), *names]
    done = subprocess.run(words, env=os.environ | own, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_folder_goes_to_the_hub_as_one_commit(folder, tmp_path):
    with FakeHub() as hub:
        lines = push_elsewhere(hub.url, folder, tmp_path, "my-lab/my-model", "my-lab/my-model")
        assert lines == [f"{hub.url}/my-lab/my-model"] * 2
        assert hub.repositories == {"my-lab/my-model": True}
        assert hub.files == {path.name: path.read_bytes() for path in folder.iterdir()}
        assert hub.commits[0] == "Upload a model made with aha"


def test_what_the_hub_refuses_is_said_and_the_folder_stays(folder, tmp_path):
    with FakeHub() as hub:
        (line,) = push_elsewhere(hub.url, folder, tmp_path, "my-lab/my-model", token="hf_wrong")
        assert f"{hub.url} says no (401)" in line and "hf auth login" in line
        assert f"hf upload my-lab/my-model {folder}" in line and hub.commits == []
    (line,) = push_elsewhere(hub.url, folder, tmp_path, "my-lab/my-model")
    assert "cannot push" in line and "a network that reaches the hub" in line
    assert len(files_of(folder)) == 3


def test_without_a_network_it_is_said_at_once(folder):
    with pytest.raises(RunError, match="HF_HUB_OFFLINE is set.*unset it; then: hf upload me/it"):
        push(folder, "me/it", private=False)


def test_the_command_to_repeat_it_can_be_pasted(folder):
    folder = folder.rename(folder.parent / "my model")
    with pytest.raises(RunError) as caught:
        push(folder, "me/it", private=False)
    words = shlex.split(caught.value.fix.partition("then: ")[2])
    assert words == ["hf", "upload", "me/it", str(folder)]


@pytest.mark.parametrize(
    "name",
    ["model", "a/b/c", "/b", "a/", "a/-b", "a/b-", "a/b--c", "a/b..c", "ä/b", "a/b c", "../b"],
)
def test_a_name_that_no_repository_can_have_is_refused(name, folder):
    with pytest.raises(ConfigError, match="OWNER/NAME"):
        check_hub_name(name)
    with pytest.raises(ConfigError, match="--push my-name/my-model"):
        push(folder, name, private=False)


def test_names_and_address(monkeypatch):
    for name in ("me/aha-tiny", "My_Lab/model.v2", "a/b", "a1/b-c_d.e"):
        assert check_hub_name(name) == name
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    assert endpoint() == "https://huggingface.co"
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9/")
    assert endpoint() == "http://127.0.0.1:9"
