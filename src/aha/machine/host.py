"""The host: processor, memory that is free, memory that this process holds. No torch."""

import ctypes
import os
import platform
import resource
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

# Parameters: below, starting the work of a layer takes a GPU longer than doing it.
SMALL_MODEL = 5_000_000


def cpu_name() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def gpu_name() -> str | None:
    """CUDA's first. Where torch is not in use it is not loaded for that."""
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None


def memory_bytes() -> tuple[int, int]:
    """(free, total) of this machine, or of the container that it is."""
    try:
        rows = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free, total = (int(rows[k].split()[0]) * 1024 for k in ("MemAvailable", "MemTotal"))
    except (OSError, KeyError, ValueError):
        names = ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES")
        known = [os.sysconf(n) if n in getattr(os, "sysconf_names", {}) else 0 for n in names]
        free, total = (pages * os.sysconf("SC_PAGE_SIZE") if pages else 0 for pages in known)
        free = free or total
    limit = number_in("/sys/fs/cgroup/memory.max")
    if limit and limit < total:
        return min(free, int(limit - held_by_container())), int(limit)
    return free, total


def held_by_container(group: Path = Path("/sys/fs/cgroup")) -> float:
    """Bytes that the system cannot take back: files that were read fill what is left otherwise."""
    held = number_in(str(group / "memory.current"))
    try:
        rows = (group / "memory.stat").read_text().splitlines()
    except OSError:
        return held
    cached = dict(row.split() for row in rows)
    return held - sum(int(cached.get(key, 0)) for key in ("inactive_file", "active_file"))


def number_in(path: str) -> float:
    """The first number of a file; 0 where there is none."""
    try:
        return float(Path(path).read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0.0


def held_now() -> int:
    """Bytes that this process holds."""
    return of_process("VmRSS")


def of_process(key: str) -> int:
    """A line of /proc/self/status in bytes; elsewhere the peak as getrusage has it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak


def usable_cores() -> int:
    """Cores this process may use: its affinity, and what a container is allowed."""
    ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = number_in("/sys/fs/cgroup/cpu.max")  # microseconds of every 100,000
    return max(1, min(ours or 1, int(quota / 100_000) or ours or 1) if quota else ours or 1)


@lru_cache
def trimmer() -> Callable[[int], int] | None:
    """glibc's `malloc_trim`; None where the C library has no such thing."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None


def trim_heap() -> None:
    """Hand back to the system what lies free between the tensors of a CPU process.

    No two micro-batches have tensors of the same size, so the heap's gaps fit none of the next and
    add up: without this a demo of 120 steps held 4.4 GB, of which a tenth was tensors.
    """
    trim = trimmer()
    if trim:
        trim(0)
