"""Uploads an exported model to the Hugging Face hub, or to another server with its interface.

The address is that of huggingface_hub's HF_ENDPOINT. The login is that of `hf auth login`, or the
token in HF_TOKEN: neither is read, kept or printed here.
"""

import os
import re
import shlex
from pathlib import Path
from typing import NamedTuple

from aha.core.errors import AhaError, ConfigError, MissingExtra, RunError

# One owner and one name, as the hub allows them.
PART = r"(?!.*(?:--|\.\.))[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
HUB_NAME = re.compile(f"{PART}/{PART}")
HUB = "https://huggingface.co"
LOGIN = "hf auth login, or HF_TOKEN=... with a token that may write"


class UploadFile(NamedTuple):
    """A file to upload: its name in the repository and its size in bytes."""

    name: str
    size: int


def check_hub_name(name: str) -> str:
    """The name, if a repository can have it; raises ConfigError otherwise."""
    if not all(map(re.compile(PART).fullmatch, name.split("/"))) or name.count("/") != 1:
        raise ConfigError(
            f"--push {name[:80]!r}",
            "OWNER/NAME: letters, digits, '-', '_' and '.', at most 96 of each",
            "--push my-name/my-model",
        )
    return name


def endpoint() -> str:
    """The address of the hub."""
    return os.environ.get("HF_ENDPOINT", HUB).rstrip("/")


def files_of(folder: Path) -> list[UploadFile]:
    """The files of an exported folder in order."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [UploadFile(str(path.relative_to(folder)), path.stat().st_size) for path in paths]


def push(folder: Path, name: str, private: bool) -> str:
    """Upload all files of a folder as one commit to the repository `name`, which is made where it
    is missing. Returns its address.

    Raises ConfigError for a name that no repository can have, RunError where the hub refuses, or
    cannot be reached; the folder stays.
    """
    check_hub_name(name)
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import (
            HfHubHTTPError,
            LocalTokenNotFoundError,
            OfflineModeIsEnabled,
        )
    except ImportError as error:
        raise MissingExtra("huggingface_hub", "hf") from error
    api = HfApi(endpoint=endpoint())
    try:
        api.create_repo(name, private=private, exist_ok=True, repo_type="model")
        api.upload_folder(
            repo_id=name, folder_path=folder, commit_message="Upload a model made with aha"
        )
    except LocalTokenNotFoundError as error:
        raise refused(folder, name, "no login", "one", LOGIN) from error
    except OfflineModeIsEnabled as error:
        raise refused(folder, name, "HF_HUB_OFFLINE is set", "a network", "unset it") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in (401, 403):
            words = (f"{endpoint()} says no ({status})", "a login that may write there", LOGIN)
            raise refused(folder, name, *words) from error
        raise refused(folder, name, first_line(error), "a hub that takes it", "later") from error
    except Exception as error:  # the hub, its client and the network fail in many ways
        network = "a network that reaches the hub"
        raise refused(folder, name, first_line(error), network, "the same later") from error
    return f"{endpoint()}/{name}"


def refused(folder: Path, name: str, got: str, expected: str, fix: str) -> AhaError:
    """The error of an upload that did not come about. What was exported is whole."""
    again = f"{fix}; then: hf upload {name} {shlex.quote(str(folder))}"
    return RunError(f"cannot push {folder} to {name}: {got}", expected, again)


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
