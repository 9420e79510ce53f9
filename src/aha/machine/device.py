"""Device, number type, memory and threads of this machine, as torch reports them.

Other rooms ask these functions instead of `torch.cuda`, so that a question about the machine has
one answer. What needs no torch is in `aha.machine.host`.
"""

from pathlib import Path

import torch

from aha.core.errors import ConfigError
from aha.core.sizes import GB
from aha.machine.host import SMALL_MODEL, Memory, cpu_name, memory_bytes, status_bytes

AMPERE = 8  # the first number of the compute capability of NVIDIA's first GPUs with bf16


def has_cuda() -> bool:
    """Whether torch can use a CUDA GPU here."""
    return torch.cuda.is_available()


def has_mps() -> bool:
    """Whether torch can use the GPU of an Apple chip here."""
    return torch.backends.mps.is_available()


def choose_device(name: str, parameters: int, key: str = "model.device") -> torch.device:
    """The device for the value `name` of the config key `key`.

    "auto" is a GPU if there is one, CUDA before Apple, but the CPU for a model with fewer than
    `SMALL_MODEL` parameters: the C loop runs such a model faster than a GPU does.

    Raises `ConfigError` for a GPU by name if torch has none of that kind.
    """
    available = {"cuda": has_cuda(), "mps": has_mps()}
    if not available.get(name, True):
        raise ConfigError(f"{key} {name!r}, and torch sees no such GPU", "one", f"--{key} cpu")
    if name != "auto":
        return torch.device(name)
    kinds = [kind for kind, usable in available.items() if usable and parameters >= SMALL_MODEL]
    return torch.device(kinds[0] if kinds else "cpu")


def gpu_name(device: torch.device) -> str | None:
    """The name of a CUDA device; None for a CPU and for an Apple GPU, which reports none."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def num_gpus() -> int:
    """How many CUDA GPUs torch sees in this process, which may be fewer than the machine has."""
    return torch.cuda.device_count()


def gpu_id(number: int) -> str:
    """A name that no other CUDA GPU has, whatever its number is in another process."""
    return str(torch.cuda.get_device_properties(number).uuid)


def device_name(device: torch.device) -> str:
    """The name of a CUDA device; elsewhere that of the processor."""
    return gpu_name(device) or cpu_name()


def device_memory(device: torch.device) -> Memory:
    """Free and total bytes where the tensors of `device` live: on the GPU, or of the host.

    Memory that torch keeps for later counts as used; see `empty_cache`.
    """
    return Memory(*torch.cuda.mem_get_info(device)) if device.type == "cuda" else memory_bytes()


def accelerator() -> tuple[str, Memory | None]:
    """Name and memory of the GPU that torch can use; ("", None) without one, and no memory for an
    Apple GPU, which shares that of the host."""
    if has_cuda():
        first = torch.device("cuda")
        return torch.cuda.get_device_name(first), device_memory(first)
    return ("Apple GPU" if has_mps() else "", None)


def empty_cache(device: torch.device) -> None:
    """Give the memory that torch keeps for later tensors back to the GPU's driver."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done all its work. It works asynchronously, so a time that is measured
    without this is too short."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def num_threads() -> int:
    """Threads that torch, and our C code with it, compute with on a CPU."""
    return torch.get_num_threads()


class PeakMemory:
    """The largest memory in bytes since this object was made: on a GPU what tensors held, on a CPU
    the whole process, with its libraries and the gaps of the allocator. `before` is the peak of
    earlier processes of the same run."""

    def __init__(self, device: torch.device):
        self.device, self.before = device, 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        try:  # Linux: reset the peak of earlier work in this process
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            pass

    def bytes(self) -> int:
        """0 where nobody says it: see `peak_bytes`."""
        return max(self.before, peak_bytes(self.device))

    def numbers(self) -> dict[str, float]:
        """The column of a row of metrics, where the peak is known."""
        peak = self.bytes()
        return {"memory_gb": round(peak / GB, 4)} if peak else {}


def peak_bytes(device: torch.device) -> int:
    """The largest memory of this process so far: of the tensors on a GPU, else all of it. 0 for an
    Apple GPU, whose tensors no figure contains."""
    if device.type == "mps":
        return 0
    on_gpu = device.type == "cuda"
    return torch.cuda.max_memory_allocated(device) if on_gpu else status_bytes("VmHWM")


def compute_dtype(name: str, device: torch.device) -> torch.dtype:
    """The torch type for a recipe's `dtype`.

    "auto" is bf16 if the hardware can multiply it, else float32.
    """
    if name != "auto":
        dtype = getattr(torch, name)
        assert isinstance(dtype, torch.dtype), name
        return dtype
    return torch.bfloat16 if multiplies_bf16(device) else torch.float32


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the hardware of a device multiplies bf16.

    NVIDIA's GPUs before Ampere, such as a T4 or an RTX 2080, do not. On them torch says that bf16
    is supported and emulates it, which takes longer than float32 does.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= AMPERE
    return device.type == "cpu" and has_native_bf16()


def has_native_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware; without that, bf16 is slower than float32."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in checks)
