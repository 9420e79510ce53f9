"""The decoder: Qwen2's architecture, small enough to read, used for training and for generation.

Grouped-query attention, rotary positions, SwiGLU, RMSNorm, biases on q, k and v alone, tied or
untied output head. Parameter names are Hugging Face's, so that weights need no mapping.
Source: Qwen2 technical report (arXiv 2407.10671); the oracle is `transformers` (see tests).

Shapes: B rows, T tokens, V vocabulary, L layers, H heads, K key-value heads, D head size,
C hidden size. `dtype` is the type of the arithmetic; the parameters stay float32.
"""

import math
from dataclasses import asdict, dataclass, fields

import torch
from torch import nn
from torch.nn import functional as F

from aha.core.errors import ConfigError, ModelError
from aha.model import ops

SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)
# What a config.json means that leaves these out: other writers follow `Qwen2Config`, not us.
HF_DEFAULTS = {"tie_word_embeddings": False, "max_position_embeddings": 32_768}


@dataclass(frozen=True)
class ModelConfig:
    """The numbers of Hugging Face's `Qwen2Config`, under its names."""

    vocab_size: int
    hidden_size: int = 128
    intermediate_size: int = 512
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    max_position_embeddings: int = 1280
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = True

    def __post_init__(self) -> None:
        for name in (*SIZES, "num_key_value_heads", "max_position_embeddings"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} {getattr(self, name)}", "at least 1")
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"hidden_size {self.hidden_size} with {self.num_attention_heads} heads",
                "a hidden_size that the heads divide",
                f"use {self.num_attention_heads * 32}",
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"{self.num_attention_heads} heads on {self.num_key_value_heads} key-value heads",
                "a number of heads that the key-value heads divide",
            )

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @classmethod
    def from_hf(cls, raw: dict) -> "ModelConfig":
        """From the content of a `config.json`; refuses what this decoder would compute wrongly."""
        if raw.get("model_type") != "qwen2":
            raise ModelError(
                f"model_type {raw.get('model_type')!r}", "a Qwen2 model folder", "convert it first"
            )
        rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
        if rope.get("rope_type", rope.get("type", "default")) != "default":
            raise ModelError(f"rope scaling {rope}", "plain rotary positions")
        if raw.get("use_sliding_window"):
            raise ModelError("use_sliding_window true", "full attention")
        if raw.get("hidden_act", "silu") != "silu":
            raise ModelError(f"hidden_act {raw['hidden_act']!r}", "'silu'")
        known = {f.name for f in fields(cls)}
        given = {"rope_theta": rope.get("rope_theta"), **raw}
        found = {key: value for key, value in given.items() if key in known and value is not None}
        missing = [key for key in SIZES if not isinstance(found.get(key), int)]
        if missing:
            raise ModelError(f"config.json without {', '.join(missing)}", "whole numbers for them")
        found.setdefault("num_key_value_heads", found["num_attention_heads"])
        return cls(**(HF_DEFAULTS | found))

    def to_hf(self) -> dict:
        """The content of `config.json`."""
        return {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "hidden_act": "silu",
            "attention_dropout": 0.0,
            "use_sliding_window": False,
            "torch_dtype": "float32",
            **asdict(self),
        }


class Attention(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        width, kv_width = config.hidden_size, config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, kv_width)
        self.v_proj = nn.Linear(width, kv_width)
        self.o_proj = nn.Linear(width, width, bias=False)

    def fused_weights(self, norm, dtype):
        """One matrix for q, k and v with the norm's weight folded in; 1/sqrt(D) goes into q.

        All of it is differentiable, and tiny beside the products that it serves.
        """
        scale = self.config.head_dim**-0.5
        weight = torch.cat([self.q_proj.weight * scale, self.k_proj.weight, self.v_proj.weight])
        bias = torch.cat([self.q_proj.bias * scale, self.k_proj.bias, self.v_proj.bias])
        return (weight * norm).to(dtype), bias.to(dtype), self.o_proj.weight.to(dtype)


class MLP(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def fused_weights(self, norm, dtype):
        gate_up = torch.cat([self.gate_proj.weight, self.up_proj.weight])
        return (gate_up * norm).to(dtype), self.down_proj.weight.to(dtype)


class RMSNorm(nn.Module):
    """Holds the weight; the normalisation is `ops.rms_normalise`, the weight is folded onward."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))


class Layer(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size)
        self.mlp = MLP(config)

    def fused_weights(self, dtype):
        return (
            *self.self_attn.fused_weights(self.input_layernorm.weight, dtype),
            *self.mlp.fused_weights(self.post_attention_layernorm.weight, dtype),
        )


class Body(nn.Module):
    """Everything but the output head; named `model` inside the decoder as Hugging Face does."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size)


class Decoder(nn.Module):
    """A causal language model. `forward` trains on whole rows; `weights_for` serves the engine."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.model = Body(config)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self._rope: dict = {}

    def initialise(self, generator: torch.Generator) -> "Decoder":
        """Normal(0, 0.02) weights, residual outputs scaled down by sqrt(2L), zero biases.

        Source: GPT-2 (Radford et al. 2019); wider start for the narrow model as in Qwen2.
        """
        residual = 0.02 / math.sqrt(2 * self.config.num_hidden_layers)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif name.endswith("norm.weight"):
                nn.init.ones_(parameter)
            elif parameter.ndim == 2:
                output = name.endswith(("o_proj.weight", "down_proj.weight"))
                std = residual if output else 0.02
                nn.init.normal_(parameter, std=std, generator=generator)
        return self

    @property
    def head_weight(self):
        tied = self.config.tie_word_embeddings
        return self.model.embed_tokens.weight if tied else self.lm_head.weight

    @property
    def device(self):
        return self.model.embed_tokens.weight.device

    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def rope_tables(self, dtype):
        """cos and sin [max positions, D/2], computed in float32, kept per dtype."""
        key = (dtype, self.device)
        if key not in self._rope:
            half = self.config.head_dim // 2
            steps = torch.arange(half, dtype=torch.float32, device=self.device) / half
            positions = torch.arange(
                self.config.max_position_embeddings, dtype=torch.float32, device=self.device
            )
            angles = torch.outer(positions, self.config.rope_theta**-steps)
            self._rope[key] = (angles.cos().to(dtype), angles.sin().to(dtype))
        return self._rope[key]

    def hidden(self, tokens_BT, dtype=torch.float32):
        """The normalised output of the last layer [B, T, C], before the final norm's weight.

        Rows start at position 0 and are padded on the right: with a causal mask no real token
        ever sees the padding, so no padding mask is needed.
        """
        cos, sin = (table[: tokens_BT.shape[1]] for table in self.rope_tables(torch.float32))
        eps = self.config.rms_norm_eps
        x = F.embedding(tokens_BT, self.model.embed_tokens.weight).to(dtype)
        for layer in self.model.layers:
            qkv_weight, qkv_bias, out, gate_up, down = layer.fused_weights(dtype)
            qkv = F.linear(ops.rms_normalise(x, eps), qkv_weight, qkv_bias)
            x = x + F.linear(self.attend(qkv, cos, sin), out)
            x = x + F.linear(ops.swiglu(F.linear(ops.rms_normalise(x, eps), gate_up)), down)
        return ops.rms_normalise(x, eps)

    def attend(self, qkv, cos, sin):
        """Rotate, attend, and lay the heads side by side again: [B, T, H * D]."""
        config = self.config
        B, T, _ = qkv.shape
        H, K, D = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        q, k, v = ops.split_heads(qkv, H, K, cos, sin)
        # Queries of the heads that share a key are stacked, so that keys are never copied.
        q, k, v = q.view(B * K, H // K, T, D), k.view(B * K, T, D), v.view(B * K, T, D)
        mixed = ops.causal_attention(q, k, v).view(B, H, T, D)
        return mixed.transpose(1, 2).reshape(B, T, H * D)

    def head(self, dtype=torch.float32):
        """The output matrix [V, C] with the final norm's weight folded in."""
        return (self.head_weight * self.model.norm.weight).to(dtype)

    def forward(self, tokens_BT, dtype=torch.float32):
        """Logits [B, T, V] in float32."""
        return F.linear(self.hidden(tokens_BT, dtype), self.head(dtype)).float()

    def token_logprobs(self, tokens_BT, start: int = 1, dtype=torch.float32, temperature=1.0):
        """log p(tokens[t] | tokens[<t]) for t >= start: [B, T - start], float32, nats."""
        logits = self.logits(tokens_BT, start, dtype, temperature)
        return ops.token_logprobs(logits, tokens_BT[:, start:])

    def logits(self, tokens_BT, start: int = 1, dtype=torch.float32, temperature=1.0):
        """What decides about the tokens from `start` on: [B, T - start, V].

        They are computed only where they are needed: at positions start-1 .. T-2.
        """
        hidden = self.hidden(tokens_BT[:, :-1], dtype)[:, start - 1 :]
        logits = F.linear(hidden, self.head(dtype))
        if temperature != 1.0:
            logits = logits / temperature
        return logits
