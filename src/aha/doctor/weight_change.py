"""How far a run's weights moved, from the bytes of two safetensors files. No torch; files are
mapped.

Source of the file layout: the safetensors format: 8 bytes of length, a JSON header, the data.
"""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

NUM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
UNSIGNED = {8: np.uint64, 4: np.uint32, 2: np.uint16}
FLOATS = {8: np.float64, 4: np.float32, 2: np.float16}
MAX_HEADER_BYTES = 100_000_000
NAME = "model.safetensors"

Array = npt.NDArray[Any]


class FileDifference(NamedTuple):
    """How the weights of two files differ."""

    share: float  # of all weights, those whose bits differ
    distance: float  # norm of the difference against the norm of the first file's weights


def weight_files(run: Path, config: dict[str, Any]) -> tuple[Path, Path] | None:
    """(the base model's weights, the run's newest); None where one is missing or in shards."""
    name = str(config.get("model", {}).get("path", ""))
    bases = [Path(str(files("aha"))) / "models" / name / NAME, Path(name) / NAME]
    checkpoints = sorted(run.glob(f"checkpoints/step_*/{NAME}"), reverse=True)
    base = next((path for path in bases if name and path.is_file()), None)
    newest = next((path for path in (run / "model" / NAME, *checkpoints) if path.is_file()), None)
    return (base, newest) if base and newest else None


def compare_weight_files(pair: tuple[Path, Path] | None) -> FileDifference | None:
    """The difference of (old, new); None where the two cannot be read or have other tensors."""
    if pair is None:
        return None
    try:
        (old, old_data), (new, new_data) = map(read_header, pair)
    except (OSError, ValueError, KeyError):
        return None
    changed = total = 0
    difference = norm = 0.0
    for name, entry in old.items():
        other = new.get(name)
        dtype = entry["dtype"]
        if other is None or other["dtype"] != dtype or dtype not in NUM_BYTES:
            return None
        old_bits, new_bits = bits_of(old_data, entry), bits_of(new_data, other)
        if old_bits.shape != new_bits.shape:
            return None
        changed += int((old_bits != new_bits).sum())
        total += old_bits.size
        before, after = (as_float64(bits, dtype) for bits in (old_bits, new_bits))
        difference += float(np.square(after - before).sum())
        norm += float(np.square(before).sum())
    if not total:
        return None
    return FileDifference(changed / total, (difference / max(norm, 1e-30)) ** 0.5)


def read_header(path: Path) -> tuple[dict[str, Any], Array]:
    """(each tensor's entry in the header, the data as bytes mapped from the file).

    Raises ValueError for a header that is too large or no JSON.
    """
    with path.open("rb") as source:
        size = int.from_bytes(source.read(8), "little")
        if size > MAX_HEADER_BYTES:
            raise ValueError(f"a header of {size} bytes")
        header = json.loads(source.read(size))
    header.pop("__metadata__", None)
    return header, np.memmap(path, np.uint8, "r", offset=8 + size)


def bits_of(data: Array, entry: dict[str, Any]) -> Array:
    """A tensor's bits as whole numbers: compared so, NaN equals itself and -0 differs from 0."""
    first, last = entry["data_offsets"]
    return np.frombuffer(data[first:last].tobytes(), UNSIGNED[NUM_BYTES[entry["dtype"]]])


def as_float64(bits: Array, dtype: str) -> Array:
    """The numbers that the bits stand for."""
    if dtype == "BF16":  # the upper half of a float32
        return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return bits.view(FLOATS[NUM_BYTES[dtype]]).astype(np.float64)
