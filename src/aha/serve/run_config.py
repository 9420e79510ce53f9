"""The recipe of a run whose model is opened, read without trusting the file."""

import json
from pathlib import Path
from typing import Any


def run_config(name: str) -> dict[str, Any]:
    """config.json of the run folder `name`; empty for a model that is no run, and for a file that
    is damaged."""
    folder = Path(name)
    if not (folder / "metrics.jsonl").is_file() and not (folder / "checkpoints").is_dir():
        return {}
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}
