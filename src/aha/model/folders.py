"""Models by name: packaged ones, runs, folders and the hub; and the cost of a base model."""

import json
from importlib.resources import files
from pathlib import Path

from aha.core.errors import ModelError
from aha.corpus.bases import command_for
from aha.model.hub import folder_of
from aha.store.checkpoint import latest_checkpoint


def resolve_model(name: str) -> Path:
    """The folder behind a packaged model's name, a run, a model folder or a name on the hub."""
    folder = Path(name)
    packaged = Path(str(files("aha"))) / "models" / name
    # A bare name only: joined to an absolute path, the left side is dropped.
    if folder.name == name and (packaged / "config.json").is_file():
        return packaged
    if (folder / "metrics.jsonl").is_file() or (folder / "checkpoints").is_dir():
        trained = folder / "model"
        return trained if trained.is_dir() else latest_checkpoint(folder / "checkpoints")
    model = folder_of(name)
    if not model.is_dir():
        raise ModelError(
            f"no model called {name!r}",
            "a packaged model, a run folder, a Hugging Face model folder or owner/model on the hub",
            command_for(name) or "aha-tiny is packaged",
        )
    return model


def base_cost(model: Path) -> dict[str, float]:
    """The cost_usd and kwh of a base, those of the base that it started from included; empty where
    its folder has no record of them."""
    card = model / "pretraining.json"
    facts = json.loads(card.read_text()) if card.is_file() else {}
    before = facts.get("start_cost", {})
    known = [key for key in ("cost_usd", "kwh") if key in facts]
    return {key: facts[key] + before.get(key, 0.0) for key in known}
