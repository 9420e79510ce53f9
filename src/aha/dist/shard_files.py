"""Tensors in shards as files: each rank writes its own part, and any number of ranks reads them.

The format is that of `torch.distributed.checkpoint` (DCP): a file for each rank, and `.metadata`,
which says where each part of each tensor lies. A reader takes the parts that it needs, so the
number of ranks may change from one process to the next. What is no tensor in shards stays in the
state as it is; in place of each such tensor the state has a note of its name, shape and type.
"""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed import ProcessGroup
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from aha.core.errors import RunError
from aha.dist.sharded_tensors import in_shards

NOTE = "in_shards"  # the key by which a note in a state is known
Place = Callable[[torch.Size, torch.dtype], torch.Tensor]


def without_shards(state: Any, name: str = "") -> tuple[Any, dict[str, torch.Tensor]]:
    """(the state with notes in place of tensors in shards, those tensors by name). States are dicts
    and lists of plain values and tensors, inside one another."""
    if isinstance(state, torch.Tensor) and in_shards(state):
        kind = str(state.dtype).removeprefix("torch.")
        return {NOTE: name, "shape": list(state.shape), "dtype": kind}, {name: state}
    if not isinstance(state, Mapping | list | tuple):
        return state, {}
    inner = state.items() if isinstance(state, Mapping) else enumerate(state)
    shards: dict[str, torch.Tensor] = {}
    light: dict[Any, Any] = {}
    for key, value in inner:
        light[key], more = without_shards(value, f"{name}/{key}" if name else str(key))
        shards |= more
    if not shards:
        return state, {}
    return (light if isinstance(state, Mapping) else list(light.values())), shards


def notes_of(state: Any) -> dict[str, Mapping[str, Any]]:
    """The notes in a state, by the names of their tensors."""
    if isinstance(state, Mapping) and NOTE in state:
        return {state[NOTE]: state}
    inner = state.values() if isinstance(state, Mapping) else state
    if not isinstance(state, Mapping | list | tuple):
        return {}
    return {name: note for value in inner for name, note in notes_of(value).items()}


def with_shards(state: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The inverse of `without_shards`."""
    if not notes_of(state):
        return state
    if not isinstance(state, Mapping):
        return [with_shards(value, tensors) for value in state]
    if NOTE in state:
        return tensors[state[NOTE]]
    return {key: with_shards(value, tensors) for key, value in state.items()}


def write_shards(shards: Mapping[str, torch.Tensor], folder: Path, group: ProcessGroup) -> None:
    """Write the parts of all ranks into the folder. All ranks call it together.

    Raises the error of the disk in all ranks where one of them could not write, and `RunError` in a
    rank that does not see the folder which holds it.
    """
    if not folder.parent.is_dir():
        raise RunError(
            f"rank {distributed_rank(group)} does not see {folder.parent}",
            "a run folder on a disk that all ranks share",
            "give the command in a folder of a shared disk (NFS, Lustre)",
        )
    writer = FileSystemWriter(folder, sync_files=True)
    try:
        save(dict(shards), storage_writer=writer, process_group=group)
    except CheckpointException as error:
        raise first_of(error) from error


def read_shards(
    state: Any, folder: Path, place: Place, group: ProcessGroup | None = None
) -> dict[str, torch.Tensor]:
    """The tensors of the notes in a state, by name, from the folder that `write_shards` has filled.

    `place` makes a tensor for a shape and a type: whole, or this rank's part, and then all ranks
    call it together, in the process group `group`. Raises `RunError` for a folder that cannot be
    read.
    """
    notes = notes_of(state)
    tensors = {
        name: place(torch.Size(note["shape"]), getattr(torch, note["dtype"]))
        for name, note in notes.items()
    }
    if not tensors:
        return {}
    reader = FileSystemReader(folder)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # it is meant
            load(tensors, storage_reader=reader, process_group=group, no_dist=group is None)
    except (CheckpointException, OSError, ValueError, KeyError) as error:
        cause = first_of(error) if isinstance(error, CheckpointException) else error
        reason = (str(cause).splitlines() or [type(cause).__name__])[0]
        raise RunError(
            f"{folder}: {reason}", "the shards of all ranks", "an older checkpoint"
        ) from error
    return tensors


def first_of(error: CheckpointException) -> BaseException:
    """What went wrong in the first rank in which something did."""
    failures = [failure[0] for failure in error.failures.values()]
    return failures[0] if failures else error


def distributed_rank(group: ProcessGroup) -> int:
    return torch.distributed.get_rank(group)
