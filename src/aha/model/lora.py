"""LoRA: the weights stay frozen, and each linear map gets a low-rank addition that trains.

y = W x + (alpha / rank) B A x. Training never computes the product B A: R is small, so A x and then
B (A x) cost R (N + M) multiplications a token instead of N M. The engine gets each version with
scale B A added to W (`delta`), so that generation costs no more than without an adapter. Files are
in the layout of PEFT, which reads and writes the same ones.
Source: Hu et al. 2021 (arXiv 2106.09685); all linear maps of the layers, the head left alone.

Shapes: N inputs, R rank, M outputs of a map.
"""

import copy
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from aha.core.errors import ModelError
from aha.model.folders import ADAPTER
from aha.model.hf_policy import refuse_hf_policy
from aha.model.model_json import read_object
from aha.model.policy import Policy
from aha.model.tensors import TensorFiles
from aha.model.transformer import Layer, Transformer

CONFIG, WEIGHTS = ADAPTER, "adapter_model.safetensors"
PREFIX = "base_model.model."  # of PEFT's names
ADAPTERS = "adapters (model.lora_rank)"


class LowRank(NamedTuple):
    """The additions of maps with the same input, as they are multiplied: A of all of them one above
    the other [maps R, N], and each one's B [M, R], in the type of the arithmetic."""

    A: torch.Tensor
    Bs: tuple[torch.Tensor, ...]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[..., N] -> the additions side by side. All A are one product, whose output is cut into a
        piece of R for each B."""
        pieces = F.linear(x, self.A).chunk(len(self.Bs), -1)
        return torch.cat([F.linear(piece, B) for piece, B in zip(pieces, self.Bs, strict=True)], -1)


class LayerAdapter(nn.Module):
    """The additions to one layer's linear maps: A [R, N] and B [M, R] of each, by its name.

    `LayerAdapter` has no forward: `Layer` calls the parts where its own products are.
    """

    def __init__(self, layer: Layer, rank: int, alpha: float):
        super().__init__()
        self.scale = alpha / rank
        shapes = {name: linear.weight.shape for name, linear in layer.linears().items()}
        self.A = nn.ParameterDict({n: torch.zeros(rank, N) for n, (_, N) in shapes.items()})
        self.B = nn.ParameterDict({n: torch.zeros(M, rank) for n, (M, _) in shapes.items()})

    def delta(self, name: str) -> torch.Tensor:
        """The addition as a weight, [M, N]: scale B A."""
        product: torch.Tensor = self.B[name] @ self.A[name]
        return self.scale * product

    def folded(
        self,
        names: list[str],
        dtype: torch.dtype,
        norm: torch.Tensor | None = None,
        first_scale: float = 1.0,
    ) -> LowRank:
        """The additions of maps with the same input, which go side by side.

        The frozen weights have two factors folded in, so the additions need them too: `norm`, the
        weight of the norm before the maps, multiplies the columns of A, and `first_scale`, q's
        1/sqrt(D), the first map alone.
        """
        A = torch.cat([self.A[name] for name in names])
        scales = [self.scale * first_scale] + [self.scale] * (len(names) - 1)
        pairs = zip(names, scales, strict=True)
        Bs = tuple((self.B[name] * scale).to(dtype) for name, scale in pairs)
        return LowRank((A if norm is None else A * norm).to(dtype), Bs)

    def qkv(self, layer: Layer, dtype: torch.dtype) -> LowRank:
        """For q, k and v, whose input is the norm's output without its weight."""
        names = ["q_proj", "k_proj", "v_proj"]
        norm, scale = layer.input_layernorm.weight, layer.self_attn.query_scale
        return self.folded(names, dtype, norm, scale)

    def gate_up(self, layer: Layer, dtype: torch.dtype) -> LowRank:
        """For gate and up; the input as that of `qkv`."""
        norm = layer.post_attention_layernorm.weight
        return self.folded(["gate_proj", "up_proj"], dtype, norm)


def as_transformer(policy: Policy) -> Transformer:
    """Only a `Transformer` has adapters: `add_lora` refuses every other policy."""
    assert isinstance(policy, Transformer), type(policy)
    return policy


def adapter_of(layer: Layer) -> LayerAdapter:
    """The layer's adapter, where there must be one."""
    assert layer.lora is not None, "no adapter"
    return layer.lora


def add_lora(policy: Policy, rank: int, alpha: float, seed: int) -> None:
    """Freeze the weights and give every layer an adapter that changes nothing yet (B is 0).

    Raises `ModelError` for a model that runs in `transformers`.
    """
    refuse_hf_policy(policy, ADAPTERS, "--model.lora_rank 0 --model.lora_alpha none")
    policy = as_transformer(policy)
    assert policy.adapter is None, "an adapter on an adapter"
    generator = torch.Generator().manual_seed(seed)
    policy.requires_grad_(False)
    for layer in policy.model.layers:
        adapter = LayerAdapter(layer, rank, alpha)
        for A in adapter.A.values():
            # The initialisation of torch's own linear maps, and of PEFT.
            nn.init.kaiming_uniform_(A, a=math.sqrt(5), generator=generator)
        layer.lora = adapter.to(policy.device)


def merge_lora(policy: Policy) -> None:
    """Add the adapters to the weights, which train again, and remove the adapters.

    B A is computed in float32 and rounded to the weight's type once, then added to it. In bf16 that
    sum is rounded again: a change that is below half of the weight's last digit is lost.
    """
    policy = as_transformer(policy)
    with torch.no_grad():
        for layer in policy.model.layers:
            adapter = adapter_of(layer)
            for name, linear in layer.linears().items():
                linear.weight.add_(adapter.delta(name).to(linear.weight.dtype))
            layer.lora = None
    policy.requires_grad_(True)


@torch.no_grad()
def merged_weights(policy: Policy) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of the model under Hugging Face's names, with the adapters' additions, one after
    the other: there is never a second model in memory."""
    adapters: dict[str, tuple[LayerAdapter, str]] = {}
    if policy.adapter is not None:
        for index, layer in enumerate(as_transformer(policy).model.layers):
            for path, module in layer.named_modules():
                if isinstance(module, nn.Linear):
                    name = f"model.layers.{index}.{path}.weight"
                    adapters[name] = adapter_of(layer), path.split(".")[-1]
    for name, tensor in policy.weights().items():
        if name in adapters:
            adapter, linear = adapters[name]
            tensor = tensor + adapter.delta(linear).to(tensor.dtype)
        yield name, tensor.detach()


AnyPolicy = TypeVar("AnyPolicy", bound=Policy)


def copy_sharing_frozen(policy: AnyPolicy) -> AnyPolicy:
    """A second policy with the same weights. Frozen parameters are shared, not copied: with LoRA it
    takes the memory of the adapters alone."""
    shared = {id(p): p for p in policy.parameters() if not p.requires_grad}
    return copy.deepcopy(policy, shared)


def frozen_copy(policy: AnyPolicy) -> AnyPolicy:
    """A copy that no update changes."""
    copied = copy_sharing_frozen(policy)
    for parameter in copied.parameters():
        parameter.requires_grad_(False)
    return copied


# -- files ----------------------------------------------------------------------------------


def peft_names(policy: Transformer) -> dict[str, nn.Parameter]:
    """The adapters' parameters under the names of PEFT."""
    parameters = {}
    for index, layer in enumerate(policy.model.layers):
        adapter = adapter_of(layer)
        for parent in ("self_attn", "mlp"):
            for name in (n for n in layer.linears() if hasattr(getattr(layer, parent), n)):
                path = f"{PREFIX}model.layers.{index}.{parent}.{name}"
                parameters[f"{path}.lora_A.weight"] = adapter.A[name]
                parameters[f"{path}.lora_B.weight"] = adapter.B[name]
    return parameters


def save_adapter(folder: Path, policy: Policy, base: str) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors`; `base` is where the frozen
    weights are, a folder or a hub name."""
    folder.mkdir(parents=True, exist_ok=True)
    policy = as_transformer(policy)
    adapter = adapter_of(policy.model.layers[0])
    rank = next(iter(adapter.A.values())).shape[0]
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": adapter.scale * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": sorted(adapter.A.keys()),
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    tensors = {
        name: parameter.detach().to("cpu", torch.float32).contiguous()
        for name, parameter in peft_names(policy).items()
    }
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    # safetensors makes its file private; the adapter is as public as the rest of the folder.
    shutil.copymode(folder / CONFIG, folder / WEIGHTS)


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """The content of `adapter_config.json`. Raises `ModelError` where it describes what
    `LayerAdapter` does not compute."""
    config = read_object(folder / CONFIG)
    supported: dict[str, tuple[object, ...]] = {
        "peft_type": ("LORA",),
        "bias": ("none",),
        "use_dora": (False, None),
        "use_rslora": (False, None),
        "fan_in_fan_out": (False, None),
        "modules_to_save": (None, []),
        "rank_pattern": (None, {}),
        "alpha_pattern": (None, {}),
    }
    for key, values in supported.items():
        if config.get(key, values[0]) not in values:
            raise ModelError(
                f"{folder / CONFIG}: {key} {config[key]!r}", f"{values[0]!r}, plain LoRA"
            )
    if not isinstance(config.get("r"), int) or config["r"] < 1:
        raise ModelError(f"{folder / CONFIG}: r {config.get('r')!r}", "a rank of at least 1")
    alpha = config.setdefault("lora_alpha", 8)  # as PEFT has it
    if type(alpha) not in (int, float):
        raise ModelError(f"{folder / CONFIG}: lora_alpha {alpha!r}", "a number")
    return config


def load_adapter(policy: Policy, folder: Path) -> None:
    """Fill the policy's adapters from a folder; names and shapes must match."""
    config = read_adapter_config(folder)
    policy = as_transformer(policy)
    for layer in policy.model.layers:
        adapter_of(layer).scale = config["lora_alpha"] / config["r"]
    TensorFiles([folder / WEIGHTS]).fill(peft_names(policy), folder)
