"""The records of a run for the doctor: its JSON files, and how its weights differ from the base's.

Reads config.json, metrics.jsonl, evals.jsonl, findings.jsonl, before.json, after.json, and the
weight files, the latter without torch.
"""

import json
import math
import os
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from aha.core.errors import RunError
from aha.core.findings import WORST_FIRST
from aha.store.guarded_files import GuardedFile, read_all_rows
from aha.store.run_folder import Run, read_rows
from aha.web.run_comparison import PairedComparison, compare_before_after
from aha.web.runs import RunFolder

NUM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
UNSIGNED = {8: np.uint64, 4: np.uint32, 2: np.uint16}
FLOATS = {8: np.float64, 4: np.float32, 2: np.float16}
MAX_HEADER_BYTES = 100_000_000
NAME = "model.safetensors"

Array = npt.NDArray[Any]


# -- weight files --------------------------------------------------------------------------------


class FileDifference(NamedTuple):
    """How the weights of two files differ."""

    share: float  # of all weights, those whose bits differ
    distance: float  # norm of the difference against the norm of the first file's weights


def weight_files(run: Path, config: dict[str, Any]) -> tuple[Path, Path] | None:
    """(the base model's weights, the run's newest); None where one is missing or in shards."""
    model = config.get("model")
    name = str(model.get("path", "")) if isinstance(model, dict) else ""
    bases = [Path(str(files("aha"))) / "models" / name / NAME, Path(name) / NAME]
    checkpoints = sorted(run.glob(f"checkpoints/step_*/{NAME}"), reverse=True)
    # os.path: a damaged config may hold a name that the file system refuses, and Path raises.
    base = next((path for path in bases if name and os.path.isfile(path)), None)
    own = (GuardedFile(run, str(p.relative_to(run))) for p in (run / "model" / NAME, *checkpoints))
    newest = next((file.path for file in own if file.stat()), None)
    return (base, newest) if base and newest else None


def compare_weight_files(pair: tuple[Path, Path] | None) -> FileDifference | None:
    """The difference of (old, new); None where the two cannot be read or have other tensors."""
    if pair is None:
        return None
    try:
        return difference_of(*pair)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def difference_of(first: Path, second: Path) -> FileDifference | None:
    """As `compare_weight_files`; a damaged file raises any of many errors."""
    (old, old_data), (new, new_data) = read_header(first), read_header(second)
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
    """The numbers that these bits represent."""
    if dtype == "BF16":  # the upper half of a float32
        return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return bits.view(FLOATS[NUM_BYTES[dtype]]).astype(np.float64)


# -- records -------------------------------------------------------------------------------------

FEW = 5  # steps that count as the start; a run with fewer than twice as many is too short
COLLAPSED = 0.2  # share of the entropy at the start
SOLVED = 0.9  # with so many groups or completions solved, a signal that fades means success
LOOKED_AT = 6  # steps whose completions are read


@dataclass(frozen=True)
class RunRecords:
    """The records of a run. `metrics` and `evals` are rows in the order of the steps."""

    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    evals: list[dict[str, Any]]
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    finished: bool = False
    changed_share: float | None = None  # of the weights, those that differ from the base model's
    distance: float | None = None  # norm of their difference against the norm of the base's weights
    findings: list[dict[str, Any]] = field(default_factory=list)  # that the run told while it went
    gain: PairedComparison | None = None  # problem by problem, where both tests have completions
    # The different prompts of some steps, spread over the run.
    prompts_by_step: list[frozenset[str]] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> "RunRecords":
        """The records in a run folder. Raises RunError where there is no run."""
        run = Run.open(path)
        if not run.metrics.exists() and not run.completions.is_dir():
            raise RunError(f"{path} is no run", "a folder with metrics.jsonl", "see `ls runs`")
        config = run.read("config.json")
        metrics, evals = (list(read_rows(file)) for file in (run.metrics, path / "evals.jsonl"))
        before, after = (
            run.read(f"{name}.json") if (path / f"{name}.json").exists() else None
            for name in ("before", "after")
        )
        share, distance = compare_weight_files(weight_files(path, config)) or (None, None)
        return cls(
            config,
            metrics,
            evals,
            before,
            after,
            finished=(path / "summary.json").exists(),
            changed_share=share,
            distance=distance,
            findings=[row for row in read_rows(run.findings) if is_finding(row)],
            gain=compare_before_after(RunFolder(path.absolute())),
            prompts_by_step=read_prompts(run),
        )

    def setting(self, section: str, key: str, default: Any) -> Any:
        """A setting of the run's config; the default where the config does not have it."""
        return self.config.get(section, {}).get(key, default)

    def column(self, key: str) -> list[float]:
        """The numbers of one metric; rows without a number are left out."""
        return [row[key] for row in self.metrics if isinstance(row.get(key), int | float)]

    def start(self, key: str) -> float:
        """Mean of a column over the first FEW steps; NaN without any."""
        return mean(self.column(key)[:FEW])

    def end(self, key: str) -> float:
        """Mean of a column over the last quarter of the steps, at least FEW; NaN without any."""
        column = self.column(key)
        return mean(column[-max(FEW, len(column) // 4) :])

    @cached_property
    def evaluations(self) -> list[dict[str, Any]]:
        """All held-out evaluations: the test before, those of the training, the test after."""
        return [report for report in (self.before, *self.evals, self.after) if report]

    def first_and_last(self, key: str) -> tuple[float, float] | None:
        """A behaviour in the first and the last evaluation that has it; None for fewer than two."""
        values = [e["behaviors"][key] for e in self.evaluations if key in e.get("behaviors", {})]
        return (values[0], values[-1]) if len(values) > 1 else None

    @property
    def solve_rates(self) -> tuple[float, float]:
        """The solve rate before and after: of the two tests, or without them of the training."""
        if self.before and self.after:
            return self.before["solve_rate"], self.after["solve_rate"]
        return self.start("solve_rate"), self.end("solve_rate")


def is_finding(row: Any) -> bool:
    """Whether a row of findings.jsonl has all that is printed of it."""
    keys = ("level", "check", "message", "fix", "step")
    return isinstance(row, dict) and all(key in row for key in keys) and row["level"] in WORST_FIRST


def read_prompts(run: Run) -> list[frozenset[str]]:
    """The different prompts of at most LOOKED_AT steps, spread evenly over the run."""
    paths = sorted(run.completions.glob("step_*.jsonl"))
    places = range(0, len(paths), max(1, -(-len(paths) // LOOKED_AT)))
    steps = []
    for place in places:
        # What leads out of the run, or is no file, is told by `damaged_files`.
        rows, _ = read_all_rows(GuardedFile(run.path, f"completions/{paths[place].name}"))
        prompts = frozenset(row["prompt"] for row in rows if isinstance(row.get("prompt"), str))
        steps += [prompts] if prompts else []
    return steps


def mean(values: list[float]) -> float:
    """The arithmetic mean; NaN for no values."""
    return sum(values) / len(values) if values else math.nan


def median(values: list[float]) -> float:
    """The median; the upper of two middle values. Needs at least one value."""
    return sorted(values)[len(values) // 2]
