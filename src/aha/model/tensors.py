"""Safetensors files read one tensor at a time, names and shapes checked before any is.

Which files of a folder are read is what `transformers` reads: model.safetensors, else those that
the index names. Only safetensors: a pickle can run code when it is opened.
"""

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from aha.core.errors import ModelError
from aha.core.sizes import GB
from aha.machine.host import memory_bytes
from aha.model.model_json import read_object
from aha.model.tensor_names import refuse_names

PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl")
INDEX, ADAPTER_FILE = "model.safetensors.index.json", "adapter_model.safetensors"
SHARD = re.compile(r"model-\d{5}-of-(\d{5})\.safetensors$")
WEIGHTS = ("*.safetensors", INDEX, "pytorch_model*.bin", "consolidated*.pth")
LFS = b"version https://git-lfs"


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder, in the order of precedence of `transformers`:
    model.safetensors, else those that the index names; else shards that are all there.
    """
    whole, index = folder / "model.safetensors", folder / INDEX
    if whole.is_file():
        return [whole]
    if index.is_file():
        return indexed_files(folder, index)
    shards = sorted(path for path in folder.glob("model-*.safetensors") if SHARD.match(path.name))
    if shards:
        number = int(SHARD.match(shards[0].name)[1])  # type: ignore[index]
        names = [f"model-{i + 1:05d}-of-{number:05d}.safetensors" for i in range(len(shards))]
        if [path.name for path in shards] != names or len(shards) != number:
            raise ModelError(
                f"{folder}: {len(shards)} of {number} shards, and no {INDEX}",
                "all of them",
                "download the folder again, to the end",
            )
        return shards
    if whole.exists():
        raise ModelError(f"{whole} is no file", "model.safetensors, a file", f"rm -r {whole}")
    others = [path for path in sorted(folder.glob("*.safetensors")) if path.name != ADAPTER_FILE]
    if others:
        raise ModelError(
            f"{folder}: {others[0].name}, which transformers does not read either",
            "model.safetensors",
            f"mv {others[0].name} model.safetensors, if it holds the whole model",
        )
    pickles = [path for pattern in PICKLES for path in folder.glob(pattern)]
    got = f"{pickles[0].name}, a pickle that could run code" if pickles else "no weights"
    raise ModelError(f"{folder}: {got}", "model.safetensors", "save it with save_pretrained")


def refuse_size(path: Path, numbers: int, copies: int = 1) -> None:
    """Raise `ModelError` for a model of so many numbers that this machine's memory does not hold in
    float32, `copies` times, before it is read."""
    needed, free = 4 * copies * numbers, memory_bytes().free
    if free and needed > free:
        raise ModelError(
            f"{path}: {numbers / 1e6:,.0f} million weights, {needed / GB:.1f} GB while they are "
            f"{'written' if copies > 1 else 'read'} in float32",
            f"at most the {free / GB:.1f} GB of memory that are free",
            f"a machine with {needed / GB:.0f} GB, or a smaller model",
        )


def indexed_files(folder: Path, index: Path) -> list[Path]:
    """The files that an index names. Raises `ModelError` where one of them is not there."""
    file_of = read_object(index).get("weight_map")
    named = isinstance(file_of, dict) and all(isinstance(n, str) for n in file_of.values())
    if not isinstance(file_of, dict) or not named or not file_of:
        raise ModelError(f"{index} without a weight_map", "a file name for every tensor")
    names = sorted(set(file_of.values()))
    inside = [name for name in names if Path(name).name == name]
    missing = [name for name in inside if not (folder / name).is_file()]
    if missing or len(inside) < len(names):
        raise ModelError(
            f"{folder}: {missing[0] if missing else names[0]} is missing, one of {len(names)} "
            f"files that {index.name} names",
            "all of them",
            "download the folder again, to the end",
        )
    return [folder / name for name in names]


def unread_weights(folder: Path, read: Collection[Path]) -> list[str]:
    """Other files of weights, and an index that was not followed: perhaps left by another save."""
    known = {path.name for path in read} | {ADAPTER_FILE}
    files = {path.name for pattern in WEIGHTS for path in folder.glob(pattern)}
    if (folder / "model.safetensors") not in read:
        files.discard(INDEX)
    return sorted(files - known)


class TensorFiles:
    """The tensors of several files as one set, read when they are asked for."""

    def __init__(self, paths: list[Path]):
        # An open file for each tensor, and its name there: names here may be changed.
        self.place_of: dict[str, tuple[Any, str]] = {}
        for path in paths:
            try:
                opened = safe_open(path, framework="pt")
            except (SafetensorError, OSError) as error:
                raise unreadable(path, error) from error
            self.place_of |= {name: (opened, name) for name in opened.keys()}  # noqa: SIM118

    def rename(self, old: str, new: str) -> None:
        self.place_of[new] = self.place_of.pop(old)

    def keep(self, inner: Callable[[str], str | None]) -> None:
        """Each tensor under the name that this function gives it; without those it gives none."""
        named = [(inner(name), place) for name, place in self.place_of.items()]
        self.place_of = {name: place for name, place in named if name is not None}

    def tensor(self, name: str) -> torch.Tensor:
        opened, stored = self.place_of[name]
        tensor: torch.Tensor = opened.get_tensor(stored)
        return tensor

    def numbers(self) -> int:
        """How many numbers all tensors have together."""
        return sum(math.prod(file.get_slice(name).get_shape()) for file, name in self)

    def __iter__(self) -> Iterator[tuple[Any, str]]:
        return iter(self.place_of.values())

    def check(self, shapes: Mapping[str, Sequence[int]], folder: Path, left_out: str = "") -> None:
        """Raise `ModelError` where names, shapes or types are not the expected ones. `left_out`:
        what config.json leaves out, for the message."""
        refuse_names(self.place_of, shapes, folder)
        for name, shape in shapes.items():
            opened, stored = self.place_of[name]
            saved = opened.get_slice(stored)
            if list(saved.get_shape()) != list(shape):
                raise ModelError(
                    f"{name} has shape {saved.get_shape()} in {folder}",
                    f"{list(shape)}, as its configuration says",
                    f"check that config.json belongs to these weights{left_out}",
                )
            if saved.get_dtype() not in ("F64", "F32", "F16", "BF16"):
                raise ModelError(
                    f"{name} in {folder} is {saved.get_dtype()}",
                    "float32, bfloat16 or float16: quantised weights cannot be trained here",
                    "use the model that it was made from",
                )

    @torch.no_grad()
    def fill(self, targets: Mapping[str, torch.Tensor], folder: Path) -> None:
        """Copy each tensor of the files into the target of its name, whatever type it has there.

        Names, shapes and types are checked first: either all can be filled, or none is.
        Raises `ModelError` where they do not match, or where a number is NaN or infinite.
        """
        self.check({name: tensor.shape for name, tensor in targets.items()}, folder)
        for name, tensor in targets.items():
            tensor.copy_(self.tensor(name))
            # A sum of numbers with NaN or infinity is not finite, and needs no second tensor.
            if not torch.isfinite(tensor.sum(dtype=torch.float32)):
                raise ModelError(
                    f"{name} in {folder} holds what is no number (NaN or infinite)",
                    "finite weights",
                    "another copy of the model, or an earlier checkpoint of the run",
                )


def unreadable(path: Path, error: Exception) -> ModelError:
    """Why a safetensors file cannot be opened."""
    try:
        with path.open("rb") as file:
            pointer = file.read(len(LFS)) == LFS
    except OSError:
        pointer = False
    if pointer:
        return ModelError(
            f"{path} is a pointer of Git LFS and not the weights",
            "the file that it points to",
            f"git lfs pull, in {path.parent}",
        )
    return ModelError(
        f"{path}: {error}", "a whole safetensors file", "download it again, to the end"
    )
