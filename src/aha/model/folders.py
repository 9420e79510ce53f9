"""The folder of a model: packaged, of a run, any folder, or from the hub. And a base's cost.

`resolve_model` takes every kind of name. Importing this module imports no torch: a plan asks it.
"""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from textwrap import shorten
from typing import Any

from aha.core.errors import AhaError, MissingExtra, ModelError, RunError
from aha.corpus.bases import command_for
from aha.model.model_json import read_object
from aha.model.parents import CHECKPOINTS, chain_of, cost_of_chain
from aha.store.checksums import NAME as CHECKSUMS
from aha.store.checksums import damage_of

PACKAGED = Path(str(files("aha"))) / "models"
SHIPPED = "aha-tiny"
ADAPTER = "adapter_config.json"  # of a folder with an adapter
FILES: dict[str, Any] = {
    "allow_patterns": ["*.safetensors", "*.json", "*.jinja"],
    # The same weights once more, under other names.
    "ignore_patterns": ["consolidated*", "*/*"],
}


def looks_like_hub_name(name: str) -> bool:
    """Whether a name has the form owner/model of the hub.

    False if `owner` is a folder here, and for runs/NAME, even if there are no runs yet.
    """
    parts = name.split("/")
    plain = len(parts) == 2 and all(part and not part.startswith((".", "~")) for part in parts)
    return plain and parts[0] != "runs" and not Path(parts[0]).exists()


def folder_of(name: str, **options: Any) -> Path:
    """The folder of a path or of a hub name, which is downloaded if it is not in the cache.

    `options` go to huggingface_hub (`cache_dir`, `endpoint`). Raises `ModelError` if the hub does
    not give the model.
    """
    if Path(name).is_dir() or not looks_like_hub_name(name):
        return Path(name)
    cached = cached_folder(name, **options)
    if cached is not None:
        return cached
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, **FILES, **options))
    except Exception as error:  # the hub, its client and the network fail in many ways
        reason = (
            shorten(str(error), 160, placeholder=" ...", break_on_hyphens=False)
            or type(error).__name__
        )
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


def is_run(folder: Path) -> bool:
    """Whether it is the folder of a run of training or pre-training."""
    return (folder / "metrics.jsonl").is_file() or (folder / CHECKPOINTS).is_dir()


def run_of(path: Path) -> Path | None:
    """The run that a model's path belongs to: the run itself, its model or one of its checkpoints;
    None for any other."""
    owner = path
    if path.name == "model":
        owner = path.parent
    elif path.parent.name == CHECKPOINTS:
        owner = path.parent.parent
    return next((run for run in (path, owner) if is_run(run)), None)


def check_whole(trained: Path) -> Path:
    """The model of a finished run, as its checksums say it was written.

    Raises `RunError` for another one. Runs of older versions have no checksums of their model.
    """
    if (trained / CHECKSUMS).is_file() and (damage := damage_of(trained, added=True)):
        raise RunError(
            f"{trained}: {damage}",
            "the model as training wrote it",
            f"move {trained} away and resume the run, which writes it anew from its checkpoint; "
            f"if you have changed it yourself: delete {trained / CHECKSUMS}",
        )
    return trained


def is_packaged(name: str) -> bool:
    """Whether it is the name of a model of this package."""
    # A bare name only: joined to an absolute path, the left side is dropped.
    return Path(name).name == name and (PACKAGED / name / "config.json").is_file()


def goes_on(run: Path) -> bool:
    """Whether a run that was finished goes on for longer: its model is that of its old end."""
    return not (run / "summary.json").is_file() and any(run.glob("summary_*.json"))


def resolve_model(name: str) -> Path:
    """The folder of a packaged model, a run, a model folder or a model on the hub. Of a run it is
    the model of its end, or before that the newest checkpoint.

    Raises `ModelError` where there is no such model, `RunError` for a run without a checkpoint and
    for a run's model that has changed since it was written.
    """
    folder = Path(name)
    if is_packaged(name):
        return PACKAGED / name
    if is_run(folder):
        trained = folder / "model"
        if trained.is_dir() and not goes_on(folder):
            return check_whole(trained)
        from aha.store.checkpoint import latest_checkpoint  # imports torch

        return latest_checkpoint(folder / CHECKPOINTS)
    if folder.name == "model" and is_run(folder.parent):
        return check_whole(folder)
    model = folder_of(name)
    if not model.is_dir():
        raise no_model(name)
    return model


def local_model_folder(name: str) -> Path | None:
    """The folder of a model that is on this disk, else None; nothing is downloaded."""
    try:
        return cached_folder(name) if looks_like_hub_name(name) else resolve_model(name)
    except AhaError:
        return None


@dataclass(frozen=True)
class PlannedModel:
    """What a plan asks of a model that it does not load. `shaped`: the folder with its config.json,
    or the name of a model that is not on this disk. `tokenizer`: the folder with its tokenizer,
    None where that is not on this disk."""

    shaped: str
    tokenizer: Path | None

    @classmethod
    def named(cls, name: str) -> "PlannedModel":
        """Of any name that `resolve_model` takes. Nothing is downloaded."""
        folder = local_model_folder(name)
        return cls(name, None) if folder is None else cls.of(folder)

    @classmethod
    def of(cls, folder: Path) -> "PlannedModel":
        """Of a model's folder. An adapter, which is all that a run with LoRA keeps, has the shape
        of its base, and the tokenizer too where it has none of its own. Raises `ModelError` for an
        adapter that names no base, or a folder where none is."""
        name = ""
        base: Path | None = folder
        tokenizer: Path | None = None
        above: list[Path] = []  # adapters may name each other in a circle
        while base is not None and base not in above:
            above.append(base)
            if tokenizer is None and (base / "tokenizer.json").is_file():
                tokenizer = base
            if (base / "config.json").is_file() or not (base / ADAPTER).is_file():
                return cls(str(base), tokenizer)
            name = base_name(base)
            base = local_model_folder(name)
        if base is not None or not (looks_like_hub_name(name) or Path(name).name == name):
            raise no_base(above[-1], Path(name))
        return cls(name, tokenizer)


def base_name(adapter: Path) -> str:
    """The folder or hub name of the base that an adapter's folder names."""
    name = read_object(adapter / ADAPTER).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise ModelError(
            f"{adapter / ADAPTER} names no base",
            "the folder or hub name of the model that the adapter was trained on",
            "write it into base_model_name_or_path",
        )
    return name


def no_base(adapter: Path, base: Path) -> ModelError:
    """The error for an adapter whose base is not where its folder says."""
    return ModelError(
        f"{adapter / ADAPTER} names the base {str(base)!r}, where no model is",
        "the folder or hub name of the model that the adapter was trained on",
        "put it there, or change base_model_name_or_path",
    )


def no_model(name: str) -> ModelError:
    """The error for a name that stands for no model; a package may have been built without its
    own."""
    if name == SHIPPED:
        return ModelError(
            f"{name} is missing in {PACKAGED}",
            "an installation with its model",
            "install a whole wheel again, or make the model, in an hour of two cores: "
            "`aha pretrain`, then --model.path runs/pretrain/model",
        )
    return ModelError(
        f"no model called {name!r}",
        "a packaged model, a run folder, a Hugging Face model folder or owner/model on the hub",
        command_for(name) or f"{SHIPPED} is packaged",
    )


def base_cost(model: Path) -> dict[str, float]:
    """cost_usd and kwh of a base, with those of all models that it descends from.

    Empty if nothing is recorded of them.
    """
    return cost_of_chain(chain_of(model))
