"""Safetensors files read one tensor at a time, names and shapes checked before any is.

Only safetensors: a pickle can run code when it is opened.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from aha.core.errors import ModelError

PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl")


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}", "a readable file") from error
    except ValueError as error:
        raise ModelError(f"{path}: {error}", "readable JSON") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} has no JSON object", "a JSON object")
    return content


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder; with an index, exactly those that it names."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        file_of = read_object(index).get("weight_map")
        if not isinstance(file_of, dict) or not all(isinstance(n, str) for n in file_of.values()):
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
    whole = folder / "model.safetensors"
    if whole.is_file():  # other files may hold the same weights in another layout
        return [whole]
    files = sorted(folder.glob("*.safetensors"))
    files = [path for path in files if path.name != "adapter_model.safetensors"]
    if not files:
        pickles = [path for pattern in PICKLES for path in folder.glob(pattern)]
        got = f"{pickles[0].name}, a pickle that could run code" if pickles else "no weights"
        raise ModelError(f"{folder}: {got}", "model.safetensors", "save it with save_pretrained")
    return files


class TensorFiles:
    """The tensors of several files as one set, read when they are asked for."""

    def __init__(self, paths: list[Path]):
        self.file_of: dict[str, Any] = {}  # an open file for each tensor's name
        for path in paths:
            try:
                opened = safe_open(path, framework="pt")
            except (SafetensorError, OSError) as error:
                raise ModelError(f"{path}: {error}", "a whole safetensors file") from error
            self.file_of |= {name: opened for name in opened.keys()}  # noqa: SIM118

    def fill(self, targets: Mapping[str, torch.Tensor], folder: Path) -> None:
        """Copy each tensor of the files into the target of its name, whatever type it has there.

        Names, shapes and types are checked first: either all can be filled, or none is.
        Raises `ModelError` where they do not match, or where a number is NaN or infinite.
        """
        missing, extra = targets.keys() - self.file_of.keys(), self.file_of.keys() - targets.keys()
        if missing or extra:
            names = ", ".join(sorted(missing or extra)[:3])
            raise ModelError(
                f"the weights in {folder} {'lack' if missing else 'have unknown'} {names}",
                f"the {len(targets)} tensors that its configuration describes",
                "check that all shards are there and that the configuration is theirs",
            )
        for name, tensor in targets.items():
            saved = self.file_of[name].get_slice(name)
            if list(saved.get_shape()) != list(tensor.shape):
                raise ModelError(
                    f"{name} has shape {saved.get_shape()} in {folder}",
                    f"{list(tensor.shape)}, as its configuration says",
                )
            if saved.get_dtype() not in ("F64", "F32", "F16", "BF16"):
                raise ModelError(
                    f"{name} in {folder} is {saved.get_dtype()}",
                    "float32, bfloat16 or float16: quantised weights cannot be trained here",
                )
        with torch.no_grad():
            for name, tensor in targets.items():
                tensor.copy_(self.file_of[name].get_tensor(name))
                # A sum of numbers with NaN or infinity is not finite, and needs no second tensor.
                if not torch.isfinite(tensor.sum(dtype=torch.float32)):
                    raise ModelError(
                        f"{name} in {folder} holds what is no number (NaN or infinite)",
                        "finite weights",
                        "another copy of the model, or an earlier checkpoint of the run",
                    )
