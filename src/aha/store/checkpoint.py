"""Checkpoints: whole or not at all, and everything that the next step depends on.

A checkpoint is a folder `step_000020/` with the model in Hugging Face's layout (written by the
caller's `save`) and `trainer.pt`. It is written beside its place, flushed to disk, and renamed.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from aha.core.errors import RunError


def save_checkpoint(
    folder: Path, step: int, state: dict, save: Callable[[Path], None], keep_last: int
) -> Path:
    """Write the checkpoint of a step and drop all but the `keep_last` newest."""
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
    found = checkpoints(folder)
    if not found:
        raise RunError(f"no checkpoint in {folder}", "a run that has saved one", "start it anew")
    return found[-1]


def load_state(checkpoint: Path) -> dict:
    """The trainer's state; tensors and plain values only, no code is run."""
    try:
        return torch.load(checkpoint / "trainer.pt", map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise RunError(f"{checkpoint / 'trainer.pt'}: {reason}", "a whole checkpoint") from error
