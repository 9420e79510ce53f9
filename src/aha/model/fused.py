"""The elementwise pieces of a training step in C, one pass over memory each, for `ops` to call.

`fits` says whether a tensor can be handed over; whoever calls checks it first. Same maths as the
torch expressions beside each call in `ops`; sums are float32. Shapes are those of `ops`.
"""

import ctypes
from functools import lru_cache

import torch

from aha.model.compiled import HEADERS, LANES, NotCompiled, load_code

SOURCE = HEADERS / "elementwise.c"
TYPES = (torch.float32, torch.bfloat16)
WIDEST_HEAD = 512  # of aha_split
_SIZE, _POINTER = ctypes.c_int64, ctypes.c_void_p


@lru_cache
def code(bf16: bool) -> ctypes.CDLL | None:
    """The compiled functions, or None where there is no compiler or no bf16 arithmetic."""
    try:
        return load_code(SOURCE, bf16)
    except NotCompiled:
        return None


def ready(x: torch.Tensor) -> bool:
    """Whether the C functions take this tensor's memory: a CPU's, contiguous, of their types."""
    return (
        x.device.type == "cpu"
        and x.dtype in TYPES
        and x.is_contiguous()
        and code(x.dtype == torch.bfloat16) is not None
    )


def fits(x: torch.Tensor) -> bool:
    """`ready`, and of a width that 16 divides, which all but the softmax need."""
    return x.shape[-1] % LANES == 0 and ready(x)


def call(name: str, x: torch.Tensor, *arguments) -> None:
    """`aha_NAME` of x's type. Tensors go as addresses, whole numbers as int64, others as float."""
    given = []
    for one in arguments:
        if isinstance(one, torch.Tensor):
            given.append(_POINTER(one.data_ptr()))
        else:
            given.append(_SIZE(one) if isinstance(one, int) else ctypes.c_float(one))
    threads = ctypes.c_int(torch.get_num_threads())
    getattr(code(x.dtype == torch.bfloat16), f"aha_{name}")(*given, threads)


def normalise(x: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(x / rms, 1 / rms in float32 [rows])."""
    width = x.shape[-1]
    y, scale = torch.empty_like(x), torch.empty(x.numel() // width)
    call("normalise", x, x, y, scale, x.numel() // width, width, eps)
    return y, scale


def normalise_back(grad: torch.Tensor, y: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    out, width = torch.empty_like(y), y.shape[-1]
    call("normalise_back", y, grad.contiguous(), y, scale, out, y.numel() // width, width)
    return out


def swiglu(gate_up: torch.Tensor) -> torch.Tensor:
    width = gate_up.shape[-1] // 2
    out = gate_up.new_empty((*gate_up.shape[:-1], width))
    call("swiglu", gate_up, gate_up, out, out.numel() // width, width)
    return out


def swiglu_back(grad: torch.Tensor, gate_up: torch.Tensor) -> torch.Tensor:
    out, width = torch.empty_like(gate_up), gate_up.shape[-1] // 2
    call("swiglu_back", gate_up, grad.contiguous(), gate_up, out, grad.numel() // width, width)
    return out


def split(qkv_BTF: torch.Tensor, H: int, K: int, cos_TD, sin_TD) -> tuple[torch.Tensor, ...]:
    B, T, width = qkv_BTF.shape
    D = width // (H + 2 * K)
    q, k, v = (qkv_BTF.new_empty((B, heads, T, D)) for heads in (H, K, K))
    call("split", qkv_BTF, qkv_BTF, q, k, v, cos_TD, sin_TD, B, T, H, K, D)
    return q, k, v


def merge(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cos_TD, sin_TD) -> torch.Tensor:
    """The way back of `split`: gradients of q, k, v as one of qkv."""
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    B, H, T, D = q.shape
    K = k.shape[1]
    out = q.new_empty((B, T, (H + 2 * K) * D))
    call("merge", q, q, k, v, out, cos_TD, sin_TD, B, T, H, K, D)
    return out


def softmax_(scores: torch.Tensor, size: int) -> torch.Tensor:
    """In place over the last dimension; row n is query `n % size` of its block, and sees
    `width - size + n % size + 1` keys."""
    width = scores.shape[-1]
    call("softmax", scores, scores, scores.numel() // width, width, size)
    return scores


def softmax_back_(weights: torch.Tensor, grad: torch.Tensor, size: int) -> torch.Tensor:
    width = weights.shape[-1]
    call("softmax_back", weights, weights, grad, weights.numel() // width, width, size)
    return grad
