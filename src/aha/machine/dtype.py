"""Number types: what a recipe asks for, and what this machine multiplies in hardware."""

import torch


def compute_dtype(name: str, device: torch.device) -> torch.dtype:
    """A recipe's `dtype` as torch's; "auto" is bf16 where the hardware multiplies it natively."""
    if name != "auto":
        return getattr(torch, name)
    fast = has_native_bf16() if device.type == "cpu" else device.type == "cuda"
    return torch.bfloat16 if fast else torch.float32


def has_native_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware; without that, bf16 is slower than float32."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in checks)
