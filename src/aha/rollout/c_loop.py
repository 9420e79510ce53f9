"""The generation loop in C, for CPUs: a whole batch in one call.

Without a compiler, or for a shape that it does not support, the loop in torch does the same work
more slowly. Completions are those of the torch loop in float32 up to rounding, and bit for bit
independent of what else is in the batch, in both types.

Shapes: P prompts, B rows, N outputs and K inputs of a matrix, T new tokens.
"""

import ctypes
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from aha.machine.c_build import LANES, CStruct, NotCompiled, load_code
from aha.machine.device import num_threads
from aha.model.decode import FusedLayer, InferenceWeights
from aha.rollout.engine import Sampling
from aha.rollout.forcing import ForcingTables

SOURCE = Path(str(files("aha"))) / "rollout" / "native_c" / "generate.c"
# Bytes of packed weights from which on all threads work on the same rows: more than the near caches
# of a core hold, so that each thread would wait for the memory for rows of its own.
ONE_TEAM = 16 * 2**20
NO_MEMORY = 1  # of the results of aha_generate


class ModelStruct(CStruct):
    """`Model` of native_c/job.h."""

    _fields_ = [
        ("hidden_size", ctypes.c_int32),
        ("num_heads", ctypes.c_int32),
        ("num_kv_heads", ctypes.c_int32),
        ("head_dim", ctypes.c_int32),
        ("intermediate_size", ctypes.c_int32),
        ("num_layers", ctypes.c_int32),
        ("vocab_size", ctypes.c_int32),
        ("rms_norm_eps", ctypes.c_float),
        ("embedding", ctypes.c_void_p),
        ("cos", ctypes.c_void_p),
        ("sin", ctypes.c_void_p),
        ("matrices", ctypes.c_void_p),
        ("biases", ctypes.c_void_p),
        ("head_norms", ctypes.c_void_p),
    ]


class BudgetStruct(CStruct):
    """`Budget` of native_c/forcing.h."""

    _fields_ = [
        ("steps", ctypes.c_void_p),
        ("ends_line", ctypes.c_void_p),
        ("stops", ctypes.c_void_p),
        ("texts", ctypes.c_void_p),
        ("next", ctypes.c_void_p),
        ("close_starts", ctypes.c_void_p),
        ("wait_start", ctypes.c_int32),
        ("wait_size", ctypes.c_int32),
        ("max_tokens", ctypes.c_int32),
        ("min_tokens", ctypes.c_int32),
        ("waits", ctypes.c_int32),
    ]


class JobStruct(CStruct):
    """`Job` of native_c/job.h."""

    _fields_ = [
        ("num_prompts", ctypes.c_int32),
        ("num_rows", ctypes.c_int32),
        ("max_new_tokens", ctypes.c_int32),
        ("longest_prompt", ctypes.c_int32),
        ("num_stop_tokens", ctypes.c_int32),
        ("teams", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("temperature", ctypes.c_float),
        ("prompt_tokens", ctypes.c_void_p),
        ("prompt_ends", ctypes.c_void_p),
        ("stop_tokens", ctypes.c_void_p),
        ("prompt_of", ctypes.c_void_p),
        ("seeds", ctypes.c_void_p),
        ("budget", ctypes.c_void_p),
        ("at_line", ctypes.c_void_p),
        ("stopped", ctypes.c_void_p),
        ("tokens", ctypes.c_void_p),
        ("counts", ctypes.c_void_p),
        ("logprobs", ctypes.c_void_p),
        ("entropies", ctypes.c_void_p),
        ("forced", ctypes.c_void_p),
    ]


@dataclass(frozen=True)
class GeneratedRows:
    """Of B rows: tokens, their log-probs, the entropies of their distributions, and which of them
    are forced [B, T], of which the first counts[b] are filled; `forced` is [B, 0] without a budget.
    """

    tokens: npt.NDArray[np.int32]
    logprobs: npt.NDArray[np.float32]
    entropies: npt.NDArray[np.float32]
    counts: npt.NDArray[np.int32]
    forced: npt.NDArray[np.uint8]


class CompiledLoop:
    """One version of the weights, packed for the C loop.

    From `one_team` bytes of weights on, all threads work on the same rows; below, each has its own.

    Raises `NotCompiled` where there is no compiler, or for a model that the loop does not support.
    """

    def __init__(self, weights: InferenceWeights, one_team: int = ONE_TEAM):
        self.config, self.dtype, self.device = weights.config, weights.dtype, weights.device
        config = self.config
        bf16 = weights.dtype == torch.bfloat16
        sizes = (config.hidden_size, config.intermediate_size, config.head_dim)
        if (
            weights.device.type != "cpu"
            or weights.dtype not in (torch.float32, torch.bfloat16)
            or any(size % LANES for size in sizes)
        ):
            raise NotCompiled(f"made for CPUs, and for sizes that {LANES} divides")
        self.code = load_code(SOURCE, bf16)
        tile = self.code.aha_tile()
        # On a CPU weights are never shared, see NativeEngine.load.
        layers = [layer for layer in weights.layers if isinstance(layer, FusedLayer)]
        assert len(layers) == len(weights.layers), "weights of the C loop with an adapter"
        matrices = [matrix for layer in layers for matrix in matrices_of(layer)]
        matrices.append(weights.lm_head)
        self.num_outputs = [len(matrix) for matrix in matrices]
        # C gets addresses alone: these lists keep their memory alive.
        self.matrices = [pack(matrix, tile) for matrix in matrices]
        self.biases = [bias_of(layer).float().contiguous() for layer in layers]
        norms = [layer.head_norms for layer in layers if layer.head_norms is not None]
        self.head_norms = [norm.float().contiguous() for norm in norms]
        self.in_one_team = sum(matrix.nbytes for matrix in self.matrices) >= one_team
        self.embedding = weights.embedding.contiguous()
        self.cos, self.sin = (t.float().contiguous() for t in (weights.cos, weights.sin))
        self.matrix_pointers, self.bias_pointers = pointers(self.matrices), pointers(self.biases)
        self.norm_pointers = pointers(self.head_norms)
        self.model = ModelStruct(
            hidden_size=config.hidden_size,
            num_heads=config.num_attention_heads,
            num_kv_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            intermediate_size=config.intermediate_size,
            num_layers=config.num_hidden_layers,
            vocab_size=config.vocab_size,
            rms_norm_eps=config.rms_norm_eps,
            embedding=self.embedding.data_ptr(),
            cos=self.cos.data_ptr(),
            sin=self.sin.data_ptr(),
            matrices=ctypes.addressof(self.matrix_pointers),
            biases=ctypes.addressof(self.bias_pointers),
            head_norms=ctypes.addressof(self.norm_pointers) if self.head_norms else 0,
        )

    def unpacked(self) -> InferenceWeights:
        """The same weights for the loop in torch; number for number those that were packed."""
        pairs = zip(self.matrices, self.num_outputs, strict=True)
        matrices = [unpack(packed, N) for packed, N in pairs]
        layers = []
        for index in range(self.config.num_hidden_layers):
            qkv, o, gate_up, down = matrices[4 * index : 4 * index + 4]
            bias = self.biases[index].to(self.dtype) if self.config.family.qkv_bias else None
            norms = self.head_norms[index].to(self.dtype) if self.head_norms else None
            layers.append(FusedLayer(qkv, bias, o, gate_up, down, norms))
        cos, sin = self.cos.to(self.dtype), self.sin.to(self.dtype)
        return InferenceWeights(self.config, self.embedding, layers, matrices[-1], None, cos, sin)

    def generate(
        self,
        prompts: list[tuple[int, ...]],
        seeds: list[list[int]],
        stop_tokens: list[int],
        sampling: Sampling,
        tables: ForcingTables | None = None,
    ) -> GeneratedRows:
        """One row for every seed of every prompt, in that order.

        Raises MemoryError where there is too little for keys and values. A signal whose handler
        raises, such as Ctrl-C, ends the work after the token or the piece of a prompt that is
        being computed.
        """
        budget = BudgetInC(tables)
        counts_P = [len(group) for group in seeds]
        B, T = sum(counts_P), sampling.max_new_tokens
        prompt_tokens = np.array([token for prompt in prompts for token in prompt], np.int32)
        prompt_ends = np.cumsum([len(prompt) for prompt in prompts], dtype=np.int32)
        stops = np.array(stop_tokens, np.int32)
        prompt_of = np.repeat(np.arange(len(prompts), dtype=np.int32), counts_P)
        all_seeds = np.array([seed for group in seeds for seed in group], np.uint64)
        rows = GeneratedRows(
            tokens=np.zeros((B, T), np.int32),
            logprobs=np.zeros((B, T), np.float32),
            entropies=np.zeros((B, T), np.float32),
            counts=np.zeros(B, np.int32),
            forced=np.zeros((B, T if tables else 0), np.uint8),
        )
        at_line = np.array([budget.ends_line(prompt[-1]) for prompt in prompts], np.uint8)
        stopped = ctypes.c_int32(0)
        threads = num_threads() if self.in_one_team else max(1, min(num_threads(), B))
        job = JobStruct(
            num_prompts=len(prompts),
            num_rows=B,
            max_new_tokens=T,
            longest_prompt=max(map(len, prompts)),
            num_stop_tokens=len(stop_tokens),
            teams=1 if self.in_one_team else threads,
            threads=threads,
            temperature=sampling.temperature,
            prompt_tokens=prompt_tokens.ctypes.data,
            prompt_ends=prompt_ends.ctypes.data,
            stop_tokens=stops.ctypes.data,
            prompt_of=prompt_of.ctypes.data,
            seeds=all_seeds.ctypes.data,
            budget=ctypes.addressof(budget.struct),
            at_line=at_line.ctypes.data,
            stopped=ctypes.addressof(stopped),
            tokens=rows.tokens.ctypes.data,
            counts=rows.counts.ctypes.data,
            logprobs=rows.logprobs.ctypes.data,
            entropies=rows.entropies.ctypes.data,
            forced=rows.forced.ctypes.data,
        )
        inputs = (prompt_tokens, prompt_ends, stops, prompt_of, all_seeds, budget, at_line)
        if self.run(job, stopped, (rows, *inputs)) == NO_MEMORY:
            raise MemoryError("no memory for the keys and values of the rows")
        return rows

    def run(self, job: JobStruct, stopped: ctypes.c_int32, held: tuple[object, ...]) -> int:
        """The result of aha_generate, called in a thread of its own: Python handles a signal in the
        main thread, and only between two of its own instructions. `held` is what C reads and writes
        by address: the thread keeps it, even if this one leaves early."""
        results: list[int] = []
        done = threading.Event()  # an interrupted Thread.join() may not be asked again (3.11)

        def call(*unused: object) -> None:
            try:
                model = ctypes.byref(self.model)
                results.append(self.code.aha_generate(model, ctypes.byref(job)))
            finally:
                done.set()

        thread = threading.Thread(target=call, args=(*held, stopped), name="aha_generate")
        try:
            thread.start()
            done.wait()
        except BaseException:
            stopped.value = 1
            if thread.ident is not None:
                done.wait()
            raise
        return results[0]


class BudgetInC:
    """A thinking budget for the C loop; without one the struct is empty. Keeps its arrays alive."""

    def __init__(self, tables: ForcingTables | None):
        self.tables = tables
        if tables is None:
            self.struct = BudgetStruct(**{field[0]: 0 for field in BudgetStruct._fields_})
            return
        self.arrays: dict[str, npt.NDArray[Any]] = {
            "steps": tables.steps_SV,
            "ends_line": tables.ends_line_V.astype(np.uint8),
            "stops": tables.stops_V.astype(np.uint8),
        }
        numbers_by_name: dict[str, Sequence[int]] = {
            "texts": tables.texts.tokens_F,
            "next": tables.texts.next_F,
            "close_starts": tables.close_starts,
        }
        for name, numbers in numbers_by_name.items():
            self.arrays[name] = np.array(numbers, np.int32)
        self.struct = BudgetStruct(
            **{name: array.ctypes.data for name, array in self.arrays.items()},
            wait_start=tables.wait_start,
            wait_size=tables.wait_size,
            max_tokens=tables.max_tokens,
            min_tokens=tables.min_tokens,
            waits=tables.waits,
        )

    def ends_line(self, token: int) -> bool:
        """Whether the token ends with a line break; of no interest without a budget."""
        return self.tables is not None and bool(self.tables.ends_line_V[token])


def matrices_of(layer: FusedLayer) -> tuple[torch.Tensor, ...]:
    """In the order in which decode.h multiplies by them."""
    return layer.qkv_weight, layer.o_weight, layer.gate_up_weight, layer.down_weight


def bias_of(layer: FusedLayer) -> torch.Tensor:
    """The bias of q, k and v; zeros in a model without one."""
    if layer.qkv_bias is None:
        return layer.qkv_weight.new_zeros(len(layer.qkv_weight))
    return layer.qkv_bias


def pack(matrix: torch.Tensor, tile: int) -> torch.Tensor:
    """[N, K] as [N / tile][K][tile], or in bf16 as [N / tile][K / 2][tile][2]; N is padded with 0.

    C computes `tile` outputs at once and walks through K: the weights that it needs next are the
    next in memory. bf16's dot instruction takes two neighbouring k of each output, so these stand
    together. Example: with tile 32, weight (n = 37, k = 5) of K = 128 is in tile 37 // 32 = 1, at
    1 * 128 * 32 + 5 * 32 + 5 = 4261; in bf16 at 1 * 128 * 32 + (5 // 2) * 64 + 5 * 2 + 1 = 4235.
    """
    N, K = matrix.shape
    blocks = F.pad(matrix, (0, 0, 0, -N % tile)).view(-1, tile, K)
    if matrix.dtype == torch.bfloat16:
        return blocks.view(-1, tile, K // 2, 2).permute(0, 2, 1, 3).contiguous()
    return blocks.transpose(1, 2).contiguous()


def unpack(packed: torch.Tensor, N: int) -> torch.Tensor:
    """The matrix [N, K] that `pack` has packed."""
    if packed.dtype == torch.bfloat16:
        return packed.permute(0, 2, 1, 3).flatten(0, 1).flatten(1)[:N].contiguous()
    return packed.transpose(1, 2).flatten(0, 1)[:N].contiguous()


def pointers(tensors: list[torch.Tensor]) -> "ctypes.Array[Any]":
    """The addresses of these tensors, as a C array."""
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))
