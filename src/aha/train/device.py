"""Where a model is computed, and how much memory that takes."""

import resource
import sys
from pathlib import Path

import torch

from aha.core.errors import ConfigError

SMALL = (
    5_000_000  # parameters: below, starting the work of a layer takes a GPU longer than doing it
)


def choose_device(name: str, parameters: int) -> torch.device:
    """The device of `model.device`. "auto" is a CUDA GPU where there is one, but the CPU for a
    model as small as aha-tiny, which its loop in C serves quicker.

    Raises `ConfigError` for "cuda" where torch sees none.
    """
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise ConfigError(
            "model.device 'cuda', and torch sees no CUDA GPU", "one", "--model.device cpu"
        )
    wanted = there and (name == "cuda" or (name == "auto" and parameters >= SMALL))
    return torch.device("cuda" if wanted else "cpu")


class PeakMemory:
    """The most memory that was held since this was made, in bytes: on a GPU what tensors held, on
    a CPU the whole process, libraries and the allocator's gaps included. `before`: that of earlier
    processes of the same run."""

    def __init__(self, device: torch.device):
        self.device, self.before = device, 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        try:  # Linux: forget the peak of what ran before in this process
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            pass

    def bytes(self) -> int:
        on_gpu = self.device.type == "cuda"
        own = torch.cuda.max_memory_allocated(self.device) if on_gpu else of_process("VmHWM")
        return max(self.before, own)


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
