"""Attention, norms, SwiGLU, softmax and logits of a training step in C, called by `ops`,
`attention` and `logprobs`.

`can_read` and `can_compute` say whether a tensor can be handed over; the caller checks first. Same
maths as the torch expression given for each call; sums are float32.

Shapes: N flat tokens, H heads, K key-value heads, D head size, F = (H + 2 K) D, C hidden size,
V vocabulary.
"""

import ctypes
from dataclasses import dataclass
from functools import lru_cache

import torch

from aha.batching.layout import Layout
from aha.machine.c_build import HEADERS, LANES, Argument, CFunction, CType, NotCompiled, load_code
from aha.machine.device import num_threads

SOURCES = tuple(HEADERS / name for name in ("elementwise.c", "attention.c", "logits.c"))
TYPES = (torch.float32, torch.bfloat16)
# From this hidden size on, see `keeps_float32`.
WIDE = 256


def _parameters(pointers: str, sizes: str, floats: str = "") -> dict[str, CType]:
    """Names and types in the order that all functions have: pointers, int64, float, threads."""
    kinds: tuple[tuple[str, CType], ...] = (
        (pointers, ctypes.c_void_p),
        (sizes, ctypes.c_int64),
        (floats, ctypes.c_float),
        ("threads", ctypes.c_int),
    )
    return {name: kind for names, kind in kinds for name in names.split()}


_SIZES = "tokens prompts H K D widest"
PARAMETERS = {
    "normalise": _parameters("x y scale", "rows width", "eps"),
    "normalise_back": _parameters("grad y scale out", "rows width"),
    "normalise_wide": _parameters("x y scale", "rows width", "eps"),
    "normalise_wide_back": _parameters("grad y scale out", "rows width"),
    "swiglu": _parameters("gate_up out", "rows width"),
    "swiglu_back": _parameters("grad gate_up out", "rows width"),
    "softmax": _parameters("scores", "rows width size"),
    "softmax_back": _parameters("weights grad", "rows width size"),
    "logits": _parameters("x head out scratch", "rows outputs width"),
    "attend": _parameters("qkv cos sin edges order bounds out lse scratch", _SIZES),
    "attend_back": _parameters("grad qkv cos sin edges order bounds out lse scratch", _SIZES),
}


@lru_cache
def libraries(bf16: bool) -> tuple[ctypes.CDLL, ...] | None:
    """The compiled sources; None where there is no compiler or no bf16 arithmetic."""
    try:
        return tuple(load_code(source, bf16) for source in SOURCES)
    except NotCompiled:
        return None


@lru_cache
def c_function(name: str, bf16: bool) -> CFunction:
    """`aha_NAME` for one number type."""
    loaded = libraries(bf16)
    assert loaded is not None, "can_read() comes first"
    symbol = f"aha_{name}"
    library = next(library for library in loaded if hasattr(library, symbol))
    return CFunction(symbol, getattr(library, symbol), PARAMETERS[name])


def can_read(x: torch.Tensor) -> bool:
    """Whether the C functions can use this tensor's memory: on a CPU, contiguous, of their
    types."""
    return (
        x.device.type == "cpu"
        and x.dtype in TYPES
        and x.is_contiguous()
        and libraries(x.dtype == torch.bfloat16) is not None
    )


def can_compute(x: torch.Tensor) -> bool:
    """`can_read`, and of a width that `LANES` divides: all but the softmax need that."""
    return x.shape[-1] % LANES == 0 and can_read(x)


def keeps_float32(x: torch.Tensor) -> bool:
    """Whether what leaves the layers of a bf16 pass stays float32: the residual stream, and the
    logits. `x` is a hidden state [..., C].

    The loop in C generates so, and the trainer's log-probs are to be those of what was generated:
    SmolLM2-135M's were .034 nats a token apart, and are .017 with it (docs/log.md). Small bases,
    where the gap is .004, compute as they did when the runs in `results/` were made.
    """
    return x.dtype == torch.bfloat16 and x.shape[-1] >= WIDE and can_compute(x)


def call(name: str, like: torch.Tensor, **values: Argument) -> None:
    """`aha_NAME` for the number type of `like`, with torch's number of threads."""
    c_function(name, like.dtype == torch.bfloat16)(**values, threads=num_threads())


def normalise(x: torch.Tensor, eps: float, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """(x / rms in this type, 1 / rms in float32 [rows])."""
    width = x.shape[-1]
    rows = x.numel() // width
    y, scale = torch.empty_like(x, dtype=dtype), torch.empty(rows)
    name = "normalise" if dtype == x.dtype else "normalise_wide"
    call(name, y, x=x, y=y, scale=scale, rows=rows, width=width, eps=eps)
    return y, scale


def normalise_back(
    grad: torch.Tensor, y: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """The gradient of x in its type, from that of y and what `normalise` returned."""
    out, width, grad = torch.empty_like(y, dtype=dtype), y.shape[-1], grad.contiguous()
    rows = y.numel() // width
    name = "normalise_back" if dtype == y.dtype else "normalise_wide_back"
    call(name, y, grad=grad, y=y, scale=scale, out=out, rows=rows, width=width)
    return out


def logits(hidden: torch.Tensor, lm_head_VC: torch.Tensor) -> torch.Tensor:
    """hidden [..., C] times lm_headᵀ: [..., V] in float32, whatever the type of both."""
    x, lm_head_VC = hidden.contiguous(), lm_head_VC.contiguous()
    outputs, width = lm_head_VC.shape
    rows = x.numel() // width
    loaded = libraries(x.dtype == torch.bfloat16)
    assert loaded is not None, "can_compute() comes first"
    tile = loaded[2].aha_logits_tile()
    out = torch.empty(rows, -(-outputs // tile) * tile)
    scratch = x.new_empty(num_threads() * width * tile)
    inputs = {"x": x, "head": lm_head_VC, "out": out, "scratch": scratch}
    call("logits", x, **inputs, rows=rows, outputs=outputs, width=width)
    return out[:, :outputs].view(*hidden.shape[:-1], outputs)


def swiglu(gate_up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up [..., I] of [..., 2 I]."""
    width = gate_up.shape[-1] // 2
    out = gate_up.new_empty((*gate_up.shape[:-1], width))
    call("swiglu", gate_up, gate_up=gate_up, out=out, rows=out.numel() // width, width=width)
    return out


def swiglu_back(grad: torch.Tensor, gate_up: torch.Tensor) -> torch.Tensor:
    """The gradient of gate and up [..., 2 I]."""
    out, width, grad = torch.empty_like(gate_up), gate_up.shape[-1] // 2, grad.contiguous()
    rows = grad.numel() // width
    call("swiglu_back", gate_up, grad=grad, gate_up=gate_up, out=out, rows=rows, width=width)
    return out


@dataclass(frozen=True)
class AttentionInputs:
    """What both passes of attention read. The tensors are contiguous."""

    qkv_NF: torch.Tensor
    H: int
    K: int
    cos_ND: torch.Tensor
    sin_ND: torch.Tensor
    layout: Layout

    @property
    def D(self) -> int:
        return self.qkv_NF.shape[1] // (self.H + 2 * self.K)

    def arguments(self) -> dict[str, Argument]:
        """For C, with scratch memory for each thread."""
        layout = self.layout
        widest = max(table.index_RW.shape[1] for table in (layout.prompts, layout.rows))
        loaded = libraries(self.qkv_NF.dtype == torch.bfloat16)
        assert loaded is not None, "can_attend() comes first"
        scratch_floats = loaded[1].aha_scratch_floats
        scratch_floats.restype = ctypes.c_int64
        sizes = map(ctypes.c_int64, (self.H, self.K, self.D, widest))
        return {
            "qkv": self.qkv_NF,
            "cos": self.cos_ND,
            "sin": self.sin_ND,
            "edges": layout.edges,
            "order": layout.order_B,
            "bounds": layout.bounds_P,
            "scratch": torch.empty(num_threads() * scratch_floats(*sizes)),
            "tokens": layout.tokens,
            "prompts": len(layout.prompts.ends),
            "H": self.H,
            "K": self.K,
            "D": self.D,
            "widest": widest,
        }


def can_attend(qkv_NF: torch.Tensor, H: int, K: int) -> bool:
    """Whether `attend` can use these heads: `can_compute`, and LANES divides their size."""
    return can_compute(qkv_NF) and qkv_NF.shape[1] // (H + 2 * K) % LANES == 0


def attend(inputs: AttentionInputs) -> tuple[torch.Tensor, torch.Tensor]:
    """The output of attention [N, H D], and the log of each query's sum of exp(scores) [N, H]."""
    qkv = inputs.qkv_NF
    out, lse = qkv.new_empty(len(qkv), inputs.H * inputs.D), torch.empty(len(qkv), inputs.H)
    call("attend", qkv, **inputs.arguments(), out=out, lse=lse)
    return out, lse


def attend_back(grad: torch.Tensor, inputs: AttentionInputs, lse_NH: torch.Tensor) -> torch.Tensor:
    """The gradient of qkv [N, F], from that of the output [N, H D] and the `lse` of `attend`."""
    out, grad = torch.empty_like(inputs.qkv_NF), grad.contiguous()
    call("attend_back", out, **inputs.arguments(), grad=grad, out=out, lse=lse_NH)
    return out


def softmax_(scores: torch.Tensor, size: int) -> torch.Tensor:
    """In place over the last dimension. Row n is query `n % size` of its block, and attends to
    `width - size + n % size + 1` keys; the rest becomes 0."""
    width = scores.shape[-1]
    call("softmax", scores, scores=scores, rows=scores.numel() // width, width=width, size=size)
    return scores


def softmax_back_(weights: torch.Tensor, grad: torch.Tensor, size: int) -> torch.Tensor:
    """The gradient of the scores, in place of `grad`, that of the weights."""
    width = weights.shape[-1]
    rows = weights.numel() // width
    call("softmax_back", weights, weights=weights, grad=grad, rows=rows, width=width, size=size)
    return grad
