"""LoRA: the weights stay frozen, and each linear map gets a low-rank addition that trains.

y = W x + (alpha / rank) B A x. Training never builds B A; the engine gets one version merged into
its weights, so that generation costs nothing more. Files are in the layout of PEFT, which reads
and writes the same ones.
Source: Hu et al. 2021 (arXiv 2106.09685); all linear maps of the layers, the head left alone.

Shapes: N inputs, R rank, M outputs of a map.
"""

import copy
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from aha.core.errors import ModelError
from aha.model.hf_policy import refuse_hf_policy
from aha.model.policy import Policy
from aha.model.tensors import TensorFiles, read_object
from aha.model.transformer import Layer, Transformer

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # of PEFT's names


class LayerAdapter(nn.Module):
    """The additions to one layer's linear maps: A [R, N] and B [M, R] of each, by its name."""

    def __init__(self, layer: Layer, rank: int, alpha: float):
        super().__init__()
        self.scale = alpha / rank
        shapes = {name: linear.weight.shape for name, linear in layer.linears().items()}
        self.A = nn.ParameterDict({n: torch.zeros(rank, N) for n, (_, N) in shapes.items()})
        self.B = nn.ParameterDict({n: torch.zeros(M, rank) for n, (M, _) in shapes.items()})

    def delta(self, name: str) -> torch.Tensor:
        """What the addition amounts to in the weight, [M, N]."""
        return self.scale * (self.B[name] @ self.A[name])

    def apart(self, names: list[str], x, norm=None, first_scale: float = 1.0):
        """The additions of maps that read the same x, side by side. `norm` is the weight of the
        norm before them; `first_scale` goes to the first map alone."""
        A = torch.cat([self.A[name] for name in names])
        down = F.linear(x, (A if norm is None else A * norm).to(x.dtype))
        scales = [self.scale * first_scale] + [self.scale] * (len(names) - 1)
        return torch.cat(
            [
                F.linear(part, (self.B[name] * scale).to(x.dtype))
                for name, scale, part in zip(names, scales, down.chunk(len(names), -1), strict=True)
            ],
            -1,
        )

    def qkv(self, x, layer: Layer):
        names = ["q_proj", "k_proj", "v_proj"]
        return self.apart(names, x, layer.input_layernorm.weight, layer.self_attn.query_scale)

    def gate_up(self, x, layer: Layer):
        return self.apart(["gate_proj", "up_proj"], x, layer.post_attention_layernorm.weight)


def add_lora(policy: Transformer, rank: int, alpha: float, seed: int) -> None:
    """Freeze the decoder and give every layer an adapter that changes nothing yet (B is 0)."""
    refuse_hf_policy(policy, "adapters (model.lora_rank)", "--model.lora_rank 0")
    assert policy.adapter is None, "an adapter on an adapter"
    generator = torch.Generator().manual_seed(seed)
    policy.requires_grad_(False)
    for layer in policy.model.layers:
        adapter = LayerAdapter(layer, rank, alpha)
        for A in adapter.A.values():
            # As wide as torch's own linear maps start, and as PEFT's do.
            nn.init.kaiming_uniform_(A, a=math.sqrt(5), generator=generator)
        layer.lora = adapter.to(policy.device)


def merge_lora(policy: Transformer) -> None:
    """Add the adapters to the weights, which train again, and take the adapters away."""
    with torch.no_grad():
        for layer in policy.model.layers:
            for name, linear in layer.linears().items():
                linear.weight.add_(layer.lora.delta(name).to(linear.weight.dtype))
            layer.lora = None
    policy.requires_grad_(True)


@torch.no_grad()
def merged_weights(policy: Policy) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of the model under Hugging Face's names, what the adapters add included, one
    after the other: never a second model in memory."""
    places = {}
    for name, module in policy.named_modules() if policy.adapter is not None else ():
        if isinstance(module, Layer):
            for part, home in module.named_modules():
                if isinstance(home, nn.Linear):
                    places[f"{name}.{part}.weight"] = module.lora, part.split(".")[-1]
    for name, tensor in policy.weights().items():
        if name in places:
            adapter, part = places[name]
            tensor = tensor + adapter.delta(part).to(tensor.dtype)
        yield name, tensor.detach()


def copy_sharing_frozen(policy: Transformer) -> Transformer:
    """A second policy with the same weights. What is frozen is shared, not copied: beside LoRA it
    costs the adapters alone."""
    shared = {id(p): p for p in policy.parameters() if not p.requires_grad}
    return copy.deepcopy(policy, shared)


def frozen_copy(policy: Transformer) -> Transformer:
    """A copy that no update reaches."""
    return copy_sharing_frozen(policy).requires_grad_(False)


# -- files ----------------------------------------------------------------------------------


def peft_names(policy: Transformer) -> dict[str, nn.Parameter]:
    """The adapters' parameters under the names of PEFT."""
    found = {}
    for index, layer in enumerate(policy.model.layers):
        for room in ("self_attn", "mlp"):
            for name in (n for n in layer.linears() if hasattr(getattr(layer, room), n)):
                place = f"{PREFIX}model.layers.{index}.{room}.{name}"
                found[f"{place}.lora_A.weight"] = layer.lora.A[name]
                found[f"{place}.lora_B.weight"] = layer.lora.B[name]
    return found


def save_adapter(folder: Path, policy: Transformer, base: str) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors`; `base` is where the frozen
    weights are, a folder or a hub name."""
    folder.mkdir(parents=True, exist_ok=True)
    adapter = policy.adapter
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
        "target_modules": sorted(adapter.A),
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    tensors = {
        name: parameter.detach().to("cpu", torch.float32).contiguous()
        for name, parameter in peft_names(policy).items()
    }
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    # safetensors makes its file private; the adapter is as public as the rest of the folder.
    shutil.copymode(folder / CONFIG, folder / WEIGHTS)


def read_adapter_config(folder: Path) -> dict:
    """`adapter_config.json`, refused where it asks for what `LayerAdapter` does not compute."""
    config = read_object(folder / CONFIG)
    wanted = {
        "peft_type": ("LORA",),
        "bias": ("none",),
        "use_dora": (False, None),
        "use_rslora": (False, None),
        "fan_in_fan_out": (False, None),
        "modules_to_save": (None, []),
        "rank_pattern": (None, {}),
        "alpha_pattern": (None, {}),
    }
    for key, values in wanted.items():
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


def load_adapter(policy: Transformer, folder: Path) -> None:
    """Fill the decoder's adapters from a folder; names and shapes must match."""
    config = read_adapter_config(folder)
    for layer in policy.model.layers:
        layer.lora.scale = config["lora_alpha"] / config["r"]
    TensorFiles([folder / WEIGHTS]).fill(peft_names(policy), folder)
