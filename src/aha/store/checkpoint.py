"""Checkpoints: written whole or not at all, with everything that the next step depends on.

A checkpoint is a folder `step_000020/` with the model in Hugging Face's layout (written by the
caller's `save`) and `trainer.pt`. It is written under another name, flushed to disk, and renamed:
a crash while it is written leaves the older checkpoints as they were. The rename itself is not
flushed, and an old checkpoint is deleted file by file.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from aha.core.errors import RunError


def save_checkpoint(
    folder: Path, step: int, state: dict[str, Any], save: Callable[[Path], None], keep_last: int
) -> Path:
    """Write the checkpoint of a step and remove all but the `keep_last` newest.

    `state` may hold tensors and plain values alone (see `load_state`). Returns the new folder.
    """
    final = folder / f"step_{step:06d}"
    partial = folder / f".partial_{step:06d}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save(partial)
    torch.save(state, partial / "trainer.pt")
    for path in partial.iterdir():
        with path.open("rb") as written:
            os.fsync(written.fileno())
    shutil.rmtree(final, ignore_errors=True)
    os.replace(partial, final)
    for old in checkpoints(folder)[:-keep_last]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def checkpoints(folder: Path) -> list[Path]:
    """All complete checkpoints, oldest first."""
    return sorted(path for path in folder.glob("step_*") if (path / "trainer.pt").is_file())


def latest_checkpoint(folder: Path) -> Path:
    """The newest complete checkpoint. Raises `RunError` where there is none."""
    complete = checkpoints(folder)
    if not complete:
        raise RunError(f"no checkpoint in {folder}", "a run that has saved one", "start it anew")
    return complete[-1]


def load_state(checkpoint: Path) -> dict[str, Any]:
    """The trainer's state: tensors and plain values alone, because other pickles could run code.

    Raises `RunError` for a damaged file.
    """
    try:
        state: dict[str, Any] = torch.load(
            checkpoint / "trainer.pt", map_location="cpu", weights_only=True
        )
        return state
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise RunError(f"{checkpoint / 'trainer.pt'}: {reason}", "a whole checkpoint") from error
