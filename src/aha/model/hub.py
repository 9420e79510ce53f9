"""Models by their name on the Hugging Face hub, such as Qwen/Qwen2.5-0.5B.

A model on the disk is used without asking the network. Only a name that is not there is downloaded,
and of a model only the files that this project reads: never a pickle.
"""

from pathlib import Path
from typing import Any

from aha.core.errors import MissingExtra, ModelError

FILES: dict[str, Any] = {
    "allow_patterns": ["*.safetensors", "*.json", "*.jinja"],
    # The same weights once more, under other names.
    "ignore_patterns": ["consolidated*", "*/*"],
}


def looks_like_hub_name(name: str) -> bool:
    """Whether "owner/model" can only mean the hub: a path into a folder that exists does not, and
    runs/NAME is a run, even before the first."""
    parts = name.split("/")
    plain = len(parts) == 2 and all(part and not part.startswith((".", "~")) for part in parts)
    return plain and parts[0] != "runs" and not Path(parts[0]).exists()


def folder_of(name: str, **options: Any) -> Path:
    """The folder behind a path or a hub name. `options` go to huggingface_hub (`cache_dir`,
    `endpoint`). Raises `ModelError` where neither the disk nor the hub has it."""
    if Path(name).is_dir() or not looks_like_hub_name(name):
        return Path(name)
    cached = cached_folder(name, **options)
    if cached is not None:
        return cached
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, **FILES, **options))
    except Exception as error:  # the hub, its client and the network fail in many ways
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise ModelError(
            f"no folder {name!r}, and the hub gave no model of that name: {reason}",
            "a model folder, a run folder, or a name on the hub and a network",
            f"hf download {name}, where there is a network",
        ) from error


def cached_folder(name: str, **options: Any) -> Path | None:
    """The folder of a hub name in the hub's cache on this disk; None where it is not there."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError as error:
        raise MissingExtra("huggingface_hub", "hf") from error
    try:
        return Path(snapshot_download(name, local_files_only=True, **FILES, **options))
    except LocalEntryNotFoundError:
        return None


def name_of(folder: Path) -> str:
    """The hub's name of a folder in its cache; of any other folder the absolute path."""
    for parent in folder.resolve().parents:
        if parent.name.startswith("models--"):
            return parent.name.removeprefix("models--").replace("--", "/")
    return str(folder.resolve())
