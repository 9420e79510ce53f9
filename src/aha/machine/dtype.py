"""The number type of the arithmetic: from the recipe, or the best that this machine multiplies."""

import torch


def compute_dtype(name: str, device: torch.device) -> torch.dtype:
    """A recipe's `dtype` as torch's; "auto" is bf16 where the hardware multiplies it,
    else float32."""
    if name != "auto":
        dtype = getattr(torch, name)
        assert isinstance(dtype, torch.dtype), name
        return dtype
    native = has_native_bf16() if device.type == "cpu" else device.type == "cuda"
    return torch.bfloat16 if native else torch.float32


def has_native_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware; without that, bf16 is slower than float32."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in checks)
