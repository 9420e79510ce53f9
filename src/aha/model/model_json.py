"""The JSON files of a model's folder. Needs no torch, so that a plan may open a tokenizer."""

import json
from pathlib import Path
from typing import Any

from aha.core.errors import ModelError

MAX_JSON_BYTES = 100_000_000  # a few MB hold the index of the largest models


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ModelError(f"{path} has {path.stat().st_size:,} bytes", "a JSON object")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}", "a readable file") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: {error}", "readable JSON") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} has no JSON object", "a JSON object")
    return content
