"""Checkpoints: written whole or not at all, with everything that the next step depends on.

A checkpoint is a folder `step_000020/` with the model in Hugging Face's layout (written by the
caller's `save`), `trainer.pt`, and the checksums of all files in `SHA256SUMS`. It is written under
another name, flushed and renamed (`store.durable`), so a crash leaves the older checkpoints as they
were. Whoever loads one reads its checksums first; a damaged one is passed over for an older one,
and that is told.
"""

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from aha.core.errors import RunError
from aha.store.checksums import NAME as CHECKSUMS
from aha.store.checksums import damage_of, write_checksums
from aha.store.durable import (
    DAMAGED,
    clear_leftovers,
    disk_errors,
    recover,
    remove_folder,
    replace_folder,
)

STATE = "trainer.pt"
# In a state: its checkpoint has checksums, so that one without them is damaged and not old.
HAS_CHECKSUMS = "has_checksums"


def save_checkpoint(
    folder: Path,
    step: int,
    state: dict[str, Any],
    save: Callable[[Path], None],
    keep_last: int,
    keep: Collection[int] = (),
) -> Path:
    """Write the checkpoint of a step and remove all but the `keep_last` newest and the steps
    `keep`; `keep_last` 0 keeps all.

    `state` may hold tensors and plain values alone (see `load_state`). Returns the new folder.
    Raises `RunError` where the disk does not take it: then the older ones are as they were.
    """
    final = folder / f"step_{step:06d}"

    def write(partial: Path) -> None:
        save(partial)
        # Through a file of our own: torch hides what the system says when it opens the file itself.
        with (partial / STATE).open("wb") as out:
            torch.save(state | {HAS_CHECKSUMS: True}, out)
        write_checksums(partial)

    whole = "the older checkpoints are whole"
    with disk_errors(f"save the checkpoint of step {step} in {folder}", whole):
        folder.mkdir(exist_ok=True)  # not its parents: a run that was removed is not begun anew
        replace_folder(final, write)
        prune(folder, keep_last, keep)
    return final


def prune(folder: Path, keep_last: int, keep: Collection[int] = ()) -> None:
    """Remove all but the `keep_last` newest checkpoints (0 keeps all) and those of the steps
    `keep`, damaged ones that were put aside, and what processes left that died while they saved or
    removed one."""
    for old in checkpoints(folder)[:-keep_last] if keep_last else []:
        if step_of(old) not in keep:
            remove_folder(old)
    for damaged in folder.glob(f"{DAMAGED}*"):
        remove_folder(damaged)
    clear_leftovers(folder)


def checkpoints(folder: Path) -> list[Path]:
    """All checkpoints, oldest first; whether they are whole is not looked at."""
    named = (path for path in folder.glob("step_*") if path.name.removeprefix("step_").isdecimal())
    return sorted((path for path in named if (path / STATE).is_file()), key=step_of)


def no_checkpoint(folder: Path) -> RunError:
    return RunError(f"no checkpoint in {folder}", "a run that has saved one", "start it anew")


def latest_checkpoint(folder: Path) -> Path:
    """The newest checkpoint, for readers of its model.

    Raises `RunError` where there is none, and where a file of the newest is damaged: a reader must
    not take an older model for it without a word.
    """
    complete = checkpoints(folder)
    if not complete:
        raise no_checkpoint(folder)
    newest = complete[-1]
    if (newest / CHECKSUMS).is_file() and (damage := damage_of(newest, skip=(STATE,))):
        whole = [path for path in complete[:-1] if not damage_of(path, skip=(STATE,))]
        fix = f"{whole[-1]}, which is whole" if whole else "start the run anew"
        raise RunError(f"{newest}: {damage}", "a whole checkpoint", fix)
    return newest


@dataclass(frozen=True)
class SavedState:
    """A checkpoint that is whole: its folder and the trainer's state.

    `damaged` are newer ones that were passed over, each with its fault in words.
    """

    path: Path
    state: dict[str, Any]
    damaged: list[tuple[Path, str]]

    @property
    def step(self) -> int:
        return step_of(self.path)


def step_of(checkpoint: Path) -> int:
    """The step of a checkpoint, from its name."""
    return int(checkpoint.name.removeprefix("step_"))


def newest_whole(folder: Path) -> SavedState | None:
    """The newest checkpoint that is whole; None where there is no checkpoint at all.

    For the process that owns the run: damaged newer ones are put aside under another name, and
    removed when the next checkpoint has been saved. Raises `RunError` where all are damaged.
    """
    if folder.is_dir():
        recover(folder)
    damaged: list[tuple[Path, str]] = []
    for path in reversed(checkpoints(folder)):
        try:
            state = load_state(path)
        except RunError as error:
            damaged.append((path, error.got))
            continue
        for other, _ in damaged:
            os.rename(other, other.with_name(f"{DAMAGED}{other.name}"))
        return SavedState(path, state, damaged)
    if damaged:
        reasons = "; ".join(reason for _, reason in damaged)
        raise RunError(reasons, "a whole checkpoint", "start the run anew under another name")
    return None


def load_state(checkpoint: Path) -> dict[str, Any]:
    """The trainer's state: tensors and plain values alone, because other pickles could run code.

    Raises `RunError` for a checkpoint with a damaged file, whichever it is. Those of older versions
    have no checksums: of them only this file is looked at.
    """
    has_checksums = (checkpoint / CHECKSUMS).is_file()
    if has_checksums and (damage := damage_of(checkpoint)):
        raise RunError(f"{checkpoint}: {damage}", "a whole checkpoint")
    path = checkpoint / STATE
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise RunError(f"{path}: {reason}", "a whole checkpoint") from error
    if state.pop(HAS_CHECKSUMS, False) and not has_checksums:
        raise RunError(f"{checkpoint}: {CHECKSUMS} is missing", "a whole checkpoint")
    return state
