"""The items, and how one of them becomes a row."""

import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import torch

from aha.store.run_folder import environment

from . import decode, devices, ranks, steps, training
from .bench import Bench
from .rows import Check, as_row

# In the order of what matters most, should time run out.
ITEMS: dict[str, Callable[[Bench], tuple[dict, list[Check]]]] = {
    "decode": decode.decode,
    "training": training.training,
    "memory-8gb": steps.memory_8gb,
    "memory-24gb": steps.memory_24gb,
    "same-losses": devices.same_losses,
    "plan": steps.plan,
    "transformers": decode.transformers,
    "loops": decode.loops,
    "small": devices.small,
    "ranks": ranks.ranks,
}


def measure(item: str, bench: Bench) -> dict:
    """The item's row. What went wrong is in `error`, and the row is there all the same."""
    start = time.perf_counter()
    row = beginning(item, bench)
    try:
        numbers, checks = ITEMS[item](bench)
        row |= {"numbers": numbers, "checks": [as_row(check) for check in checks]}
        row["error"] = "; ".join(bench.failures) or None
    except Exception as error:  # the row tells it
        traceback.print_exc()
        row |= {"numbers": {"cases": bench.cases}, "error": f"{type(error).__name__}: {error}"}
    return row | {"seconds": round(time.perf_counter() - start, 1)}


def beginning(item: str, bench: Bench) -> dict:
    """All of a row that is known before anything is measured: what a crash leaves behind."""
    where = environment()
    flags = {"full": "", "quick": " --quick", "tiny": f" --tiny --device {bench.device.type}"}
    return {
        "item": item,
        "scale": bench.scale,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": f"python -m benchmarks.gpu --only {item}{flags[bench.scale]}",
        "commit": where["commit"],
        "card": card_of(bench, where["machine"]),
        "driver": driver() if bench.on_gpu else None,
        "versions": versions(where),
        "machine": {key: where[key] for key in ("machine", "cores", "platform")},
        "seconds": None,
        "numbers": {},
        "checks": [],
        "error": "it ended without a word: see what it printed",
    }


def card_of(bench: Bench, cpu: str) -> dict:
    if not bench.on_gpu:
        return {"name": cpu, "memory_gb": None}
    facts = torch.cuda.get_device_properties(bench.device)
    return {"name": facts.name, "memory_gb": facts.total_memory / 1e9}


def versions(where: dict) -> dict[str, str | None]:
    packages = {"python": where["python"], "cuda": torch.version.cuda, **where["packages"]}
    for package in ("transformers", "triton"):
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            packages[package] = None
    return packages


def driver() -> str | None:
    """The NVIDIA driver's version; None where its own tool is not to be had."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        return result.stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        print(f"no driver version: {error}", file=sys.stderr)
        return None
