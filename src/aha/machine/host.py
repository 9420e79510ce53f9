"""What the operating system says of this machine: processor, cores, memory. No torch."""

import ctypes
import math
import os
import platform
import resource
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

# Parameters: below, starting the work of a layer takes a GPU longer than doing it.
SMALL_MODEL = 5_000_000
CGROUP = Path("/sys/fs/cgroup")  # of this process, as Linux shows it inside a container


class Memory(NamedTuple):
    """Bytes of memory."""

    free: int
    total: int


def cpu_name() -> str:
    """The processor's name, where the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def cpu_features() -> str:
    """The processor's model and instruction sets: two machines with equal text run the same
    machine code."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return " ".join(os.uname()) if hasattr(os, "uname") else ""
    return "\n".join(sorted({x for x in lines if x.startswith(("model name", "flags", "Feat"))}))


def loaded_gpu_name() -> str | None:
    """The name of the first CUDA GPU. None without one, and in a process that has not loaded torch:
    loading it takes seconds, too much for a name."""
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None


def system_name() -> str:
    """Linux, Darwin ...; empty where Python cannot tell."""
    return platform.system()


def platform_name() -> str:
    """System, release, processor kind and C library in one line."""
    return platform.platform()


def memory_bytes() -> Memory:
    """Memory of this machine, or of the container that the process runs in."""
    try:
        rows = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free, total = (int(rows[k].split()[0]) * 1024 for k in ("MemAvailable", "MemTotal"))
    except (OSError, KeyError, ValueError):
        names = ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES")
        known = [os.sysconf(n) if n in getattr(os, "sysconf_names", {}) else 0 for n in names]
        free, total = (pages * os.sysconf("SC_PAGE_SIZE") if pages else 0 for pages in known)
        free = free or total
    limit = first_number(CGROUP / "memory.max")
    if limit and limit < total:
        return Memory(min(free, int(limit - held_by_container())), int(limit))
    return Memory(free, total)


def held_by_container(group: Path = CGROUP) -> float:
    """Bytes that the system cannot take back. Without files that were read: they fill what is left
    of a container's memory, and are dropped as soon as somebody needs it."""
    held = first_number(group / "memory.current")
    try:
        rows = (group / "memory.stat").read_text().splitlines()
    except OSError:
        return held
    cached = dict(row.split() for row in rows)
    return held - sum(int(cached.get(key, 0)) for key in ("inactive_file", "active_file"))


def first_number(path: Path) -> float:
    """The number at the start of a file; 0 where there is none."""
    try:
        return float(path.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0.0


def process_bytes() -> int:
    """Bytes of memory that this process holds now."""
    return status_bytes("VmRSS")


def status_bytes(key: str) -> int:
    """A line of /proc/self/status in bytes: VmRSS, what the process holds, or VmHWM, its peak.
    Without /proc the peak that getrusage reports, whatever the key."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # macOS counts bytes, Linux kilobytes.
        return peak if sys.platform == "darwin" else 1024 * peak


def num_cores() -> int | None:
    """Cores of the whole machine, whether this process may use them or not."""
    return os.cpu_count()


def usable_cores(group: Path = CGROUP) -> int:
    """Cores that this process may use: its affinity, and the share that a container has."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else num_cores()
    return max(1, int(min(cores or 1, container_cores(group))))


def container_cores(group: Path) -> float:
    """Cores whose time a container has, such as 0.5; infinity where nothing limits it."""
    try:
        quota, period = (group / "cpu.max").read_text().split()  # microseconds of each period
        return math.inf if quota == "max" else float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf


def load_average() -> float:
    """Processes that wanted to run in the last minute, on average; 0 where the system has no such
    count."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


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
