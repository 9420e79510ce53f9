"""Attention and the elementwise pieces of a training step in C, for `ops` to call.

`fits` says whether a tensor can be handed over; whoever calls checks it first. Same maths as the
torch expressions beside each call in `ops`; sums are float32. Shapes are those of `ops`.
"""

import ctypes
from functools import lru_cache

import torch

from aha.batching.layout import Layout
from aha.machine.c_build import HEADERS, LANES, NotCompiled, load_code
from aha.machine.device import num_threads

SOURCES = (HEADERS / "elementwise.c", HEADERS / "attention.c")
TYPES = (torch.float32, torch.bfloat16)
_SIZE, _POINTER = ctypes.c_int64, ctypes.c_void_p


@lru_cache
def code(bf16: bool) -> list[ctypes.CDLL] | None:
    """The compiled functions, or None where there is no compiler or no bf16 arithmetic."""
    try:
        return [load_code(source, bf16) for source in SOURCES]
    except NotCompiled:
        return None


@lru_cache
def function(name: str, bf16: bool):
    """`aha_NAME`, from where it is."""
    return next(getattr(part, f"aha_{name}") for part in code(bf16) if hasattr(part, f"aha_{name}"))


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
    threads = ctypes.c_int(num_threads())
    function(name, x.dtype == torch.bfloat16)(*given, threads)


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


def attends(qkv_NF: torch.Tensor, H: int, K: int) -> bool:
    """Whether `attend` takes these heads."""
    return fits(qkv_NF) and qkv_NF.shape[1] // (H + 2 * K) % LANES == 0


def attend(qkv_NF, H: int, K: int, cos_ND, sin_ND, layout: Layout) -> tuple[torch.Tensor, ...]:
    """What attention mixes [N, H * D], and the log of each query's sum of weights [N, H]."""
    sizes = benches(qkv_NF, H, K, layout)
    D = qkv_NF.shape[1] // (H + 2 * K)
    mixed, sums = qkv_NF.new_empty(len(qkv_NF), H * D), torch.empty(len(qkv_NF), H)
    given = (qkv_NF, cos_ND, sin_ND, layout.edges, layout.order_B, layout.bounds_P, mixed, sums)
    call("attend", qkv_NF, *given, *sizes)
    return mixed, sums


def attend_back(grad, saved: tuple, H: int, K: int, layout: Layout) -> torch.Tensor:
    """The gradient of qkv, of what `attend` was given and the sums that it returned."""
    qkv_NF, cos_ND, sin_ND, sums_NH = saved
    sizes, out = benches(qkv_NF, H, K, layout), torch.empty_like(qkv_NF)
    given = (qkv_NF, cos_ND, sin_ND, layout.edges, layout.order_B, layout.bounds_P, out, sums_NH)
    call("attend_back", qkv_NF, grad.contiguous(), *given, *sizes)
    return out


def benches(qkv_NF, H: int, K: int, layout: Layout) -> tuple:
    """Room for each thread's work, and the sizes, as both functions end their arguments."""
    widest = max(table.index_RW.shape[1] for table in (layout.prompts, layout.rows))
    D = qkv_NF.shape[1] // (H + 2 * K)
    size = function("bench", qkv_NF.dtype == torch.bfloat16)
    size.restype = _SIZE
    scratch = torch.empty(num_threads() * size(*map(_SIZE, (H, K, D, widest))))
    return scratch, layout.tokens, len(layout.prompts.ends), H, K, D, widest


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
