"""Where a model is computed, and how much memory that takes."""

from pathlib import Path

import torch

from aha.core.errors import ConfigError
from aha.machine.host import SMALL_MODEL, of_process


def choose_device(name: str, parameters: int, key: str = "model.device") -> torch.device:
    """The device of `key`. "auto" is a GPU where there is one, CUDA's before Apple's, but the CPU
    for a model as small as aha-tiny, which its loop in C serves quicker.

    Raises `ConfigError` for a GPU by name where torch sees none of that kind.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(name, True):
        raise ConfigError(f"{key} {name!r}, and torch sees no such GPU", "one", f"--{key} cpu")
    if name != "auto":
        return torch.device(name)
    found = [kind for kind, seen in there.items() if seen and parameters >= SMALL_MODEL]
    return torch.device(found[0] if found else "cpu")


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
