"""The native engine's loop in C, for CPUs: whole batches without coming back to Python.

Without a compiler, or on a shape it does not hold, the torch loop does the same work more slowly.
Completions are the same in float32 up to rounding, and here bit for bit independent of what runs
beside them in both types.

Shapes: P prompts, B rows, N outputs and K inputs of a matrix.
"""

import ctypes
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from aha.machine.c_build import LANES, NotCompiled, load_code
from aha.machine.device import num_threads
from aha.model.decode import FusedLayer, InferenceWeights
from aha.rollout.engine import Sampling

SOURCE = Path(str(files("aha"))) / "rollout" / "native_c" / "generate.c"


class _Model(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in "hidden heads kv_heads head_dim mlp".split()),
        *((name, ctypes.c_int32) for name in "layers vocab".split()),
        ("eps", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in "embedding cos sin matrices biases".split()),
    ]


class _Job(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in "prompts rows max_new longest_prompt".split()),
        *((name, ctypes.c_int32) for name in "stops threads".split()),
        ("temperature", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in "prompt_tokens prompt_ends stop_tokens".split()),
        *((name, ctypes.c_void_p) for name in "prompt_of seeds tokens counts".split()),
        *((name, ctypes.c_void_p) for name in "logprobs entropies".split()),
    ]


class CompiledLoop:
    """One version of the weights, packed for the C loop."""

    def __init__(self, weights: InferenceWeights):
        config = weights.config
        bf16 = weights.dtype == torch.bfloat16
        odd = [
            n for n in (config.hidden_size, config.intermediate_size, config.head_dim) if n % LANES
        ]
        if (
            weights.device.type != "cpu"
            or weights.dtype not in (torch.float32, torch.bfloat16)
            or odd
        ):
            raise NotCompiled(f"made for CPUs, and for sizes that {LANES} divides")
        if config.family.qk_norm:
            raise NotCompiled(f"it has no norms on queries and keys, as {config.model_type} wants")
        self.code = load_code(SOURCE, bf16)
        tile = self.code.aha_tile()
        order = [(at.qkv, at.out, at.gate_up, at.down) for at in weights.layers]
        self.matrices = [pack(matrix, tile) for matrix in (*sum(order, ()), weights.head)]
        self.biases = [bias_of(layer).float().contiguous() for layer in weights.layers]
        self.tables = [
            t.float().contiguous() for t in (weights.embedding, weights.cos, weights.sin)
        ]
        self.pointers = [pointers(self.matrices), pointers(self.biases)]
        self.model = _Model(
            config.hidden_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
            config.intermediate_size,
            config.num_hidden_layers,
            config.vocab_size,
            config.rms_norm_eps,
            *(table.data_ptr() for table in self.tables),
            *map(ctypes.addressof, self.pointers),
        )

    def generate(
        self, prompts: list[tuple[int, ...]], seeds: list[list[int]], stop: list[int], s: Sampling
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """One row for every seed of every prompt: tokens, their log-probs and the entropies of
        what they were drawn from [B, max_new_tokens], and how many of them are real [B]."""
        rows = sum(map(len, seeds))
        given = {
            "prompt_tokens": np.array([t for prompt in prompts for t in prompt], np.int32),
            "prompt_ends": np.cumsum([len(prompt) for prompt in prompts], dtype=np.int32),
            "stop_tokens": np.array(stop, np.int32),
            "prompt_of": np.repeat(np.arange(len(prompts), dtype=np.int32), [*map(len, seeds)]),
            "seeds": np.array([seed for group in seeds for seed in group], np.uint64),
            "tokens": np.zeros((rows, s.max_new_tokens), np.int32),
            "counts": np.zeros(rows, np.int32),
            "logprobs": np.zeros((rows, s.max_new_tokens), np.float32),
            "entropies": np.zeros((rows, s.max_new_tokens), np.float32),
        }
        job = _Job(
            len(prompts),
            rows,
            s.max_new_tokens,
            max(map(len, prompts)),
            len(stop),
            max(1, min(num_threads(), rows)),
            s.temperature,
            *(array.ctypes.data for array in given.values()),
        )
        if self.code.aha_generate(ctypes.byref(self.model), ctypes.byref(job)):
            raise MemoryError("no memory for the keys and values of the rows")
        return given["tokens"], given["logprobs"], given["entropies"], given["counts"]


def bias_of(layer: FusedLayer) -> torch.Tensor:
    """The bias of q, k and v; zeros in a model without one."""
    return layer.qkv.new_zeros(len(layer.qkv)) if layer.bias is None else layer.bias


def pack(matrix: torch.Tensor, tile: int) -> torch.Tensor:
    """[N, K] as [N / tile][K][tile], or in bf16 [N / tile][K / 2][tile][2]; N is padded with 0."""
    N, K = matrix.shape
    blocks = F.pad(matrix, (0, 0, 0, -N % tile)).view(-1, tile, K)
    if matrix.dtype == torch.bfloat16:
        return blocks.view(-1, tile, K // 2, 2).permute(0, 2, 1, 3).contiguous()
    return blocks.transpose(1, 2).contiguous()


def pointers(tensors: list[torch.Tensor]) -> ctypes.Array:
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))
