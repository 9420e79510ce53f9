"""Which weights moved, from the bytes of two safetensors files. No torch, nothing is loaded.

Source of the layout: the safetensors format: 8 bytes of length, a JSON header, the data.
"""

import json
from importlib.resources import files
from pathlib import Path

import numpy as np

BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
WORDS = {8: np.uint64, 4: np.uint32, 2: np.uint16}
MAX_HEADER = 100_000_000
NAME = "model.safetensors"


def weight_files(run: Path, config: dict) -> tuple[Path, Path] | None:
    """(the base's weights, the newest of the run); None where one is missing or in shards."""
    name = str(config.get("model", {}).get("path", ""))
    bases = [Path(str(files("aha"))) / "models" / name / NAME, Path(name) / NAME]
    checkpoints = sorted(run.glob(f"checkpoints/step_*/{NAME}"), reverse=True)
    base = next((path for path in bases if name and path.is_file()), None)
    newest = next((path for path in (run / "model" / NAME, *checkpoints) if path.is_file()), None)
    return (base, newest) if base and newest else None


def changes(pair: tuple[Path, Path] | None) -> tuple[float, float] | None:
    """(share of the weights whose bits differ, norm of the difference against the norm of the
    base's weights); None where the two cannot be compared."""
    if pair is None:
        return None
    try:
        (old, old_data), (new, new_data) = map(opened, pair)
    except (OSError, ValueError, KeyError):
        return None
    changed = total = 0
    difference = norm = 0.0
    for name, where in old.items():
        other = new.get(name)
        if other is None or other["dtype"] != where["dtype"] or where["dtype"] not in BYTES:
            return None
        one, two = (numbers(data, at) for data, at in ((old_data, where), (new_data, other)))
        if one.shape != two.shape:
            return None
        changed += int((one != two).sum())
        total += one.size
        before, after = (values(bits, where["dtype"]) for bits in (one, two))
        difference += float(np.square(after - before).sum())
        norm += float(np.square(before).sum())
    return (changed / total, (difference / max(norm, 1e-30)) ** 0.5) if total else None


def opened(path: Path) -> tuple[dict, np.ndarray]:
    """The tensors' places, and the data as bytes mapped from the file."""
    with path.open("rb") as source:
        size = int.from_bytes(source.read(8), "little")
        if size > MAX_HEADER:
            raise ValueError(f"a header of {size} bytes")
        header = json.loads(source.read(size))
    header.pop("__metadata__", None)
    return header, np.memmap(path, np.uint8, "r", offset=8 + size)


def numbers(data: np.ndarray, where: dict) -> np.ndarray:
    """A tensor's bits as whole numbers: NaN equals itself here, and -0 is not 0."""
    first, last = where["data_offsets"]
    return np.frombuffer(data[first:last].tobytes(), WORDS[BYTES[where["dtype"]]])


def values(bits: np.ndarray, kind: str) -> np.ndarray:
    """The bits as the numbers they stand for, float64."""
    if kind == "BF16":  # the upper half of a float32
        return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return bits.view({8: np.float64, 4: np.float32, 2: np.float16}[BYTES[kind]]).astype(np.float64)
