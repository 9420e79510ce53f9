"""The decoder: Qwen2's architecture and its relatives, small enough to read, used for training and
for generation.

Grouped-query attention, rotary positions, SwiGLU, RMSNorm; biases on q, k and v in Qwen2 alone,
norms on q and k in Qwen3 alone; tied or untied output head. Parameter names are Hugging Face's, so
that weights need no mapping.
Source: Qwen2 (arXiv 2407.10671), Qwen3 (arXiv 2505.09388), Llama 3 (arXiv 2407.21783); the oracle
is `transformers` (see tests).

Shapes: B rows, T tokens, N flat tokens, M tokens that are decided about, V vocabulary, L layers,
H heads, K key-value heads, D head size, C hidden size. `dtype` is the type of the arithmetic; the
parameters that train stay float32.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from aha.batching.layout import Layout
from aha.model import ops
from aha.model.architecture import ModelConfig
from aha.model.logprobs import logits_of, logprobs_and_entropy
from aha.model.rope import rope_tables


class Attention(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        C, D, bias = config.hidden_size, config.head_dim, config.family.qkv_bias
        self.q_proj = nn.Linear(C, config.num_attention_heads * D, bias=bias)
        self.k_proj = nn.Linear(C, config.num_key_value_heads * D, bias=bias)
        self.v_proj = nn.Linear(C, config.num_key_value_heads * D, bias=bias)
        self.o_proj = nn.Linear(config.num_attention_heads * D, C, bias=False)
        if config.family.qk_norm:
            self.q_norm, self.k_norm = RMSNorm(D), RMSNorm(D)

    @property
    def query_scale(self) -> float:
        """1/sqrt(D) goes into q's map, or into its norm where one would undo that."""
        return 1.0 if self.config.family.qk_norm else self.config.head_dim**-0.5

    def fused_weights(self, weights, norm, dtype):
        """One matrix for q, k and v with the norm's weight folded in; the scale goes into q.

        All of it is differentiable, and tiny beside the products that it serves.
        """
        weight = torch.cat(
            [weights["q_proj"] * self.query_scale, weights["k_proj"], weights["v_proj"]]
        )
        bias = None
        if self.q_proj.bias is not None:
            q_bias = self.q_proj.bias * self.query_scale
            bias = torch.cat([q_bias, self.k_proj.bias, self.v_proj.bias]).to(dtype)
        return (weight * norm).to(dtype), bias, weights["o_proj"].to(dtype)

    def head_norms(self, dtype):
        """The weights [H + K, D] of the norms on queries and keys, or None without such norms."""
        if not self.config.family.qk_norm:
            return None
        H, K, D = (
            self.config.num_attention_heads,
            self.config.num_key_value_heads,
            self.config.head_dim,
        )
        q_norm = (self.q_norm.weight * D**-0.5).expand(H, D)
        return torch.cat([q_norm, self.k_norm.weight.expand(K, D)]).to(dtype)

    def forward(self, qkv, cos, sin, layout: Layout):
        """Rotate, attend, and lay the heads side by side again: [N, H * D]."""
        config = self.config
        H, K, D = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        norms = self.head_norms(qkv.dtype)
        if norms is not None:
            qk, v = qkv.unflatten(1, (-1, D)).split([H + K, K], 1)
            qk = ops.rms_normalise(qk, config.rms_norm_eps) * norms
            qkv = torch.cat([qk, v], 1).flatten(1)
        return ops.attention(qkv, H, K, cos, sin, layout)


class MLP(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def fused_weights(self, weights, norm, dtype):
        gate_up = torch.cat([weights["gate_proj"], weights["up_proj"]])
        return (gate_up * norm).to(dtype), weights["down_proj"].to(dtype)


class RMSNorm(nn.Module):
    """Holds the weight; the normalisation is `ops.rms_normalise`, the weight is folded onward."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))


class Layer(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.eps = config.rms_norm_eps
        self.input_layernorm = RMSNorm(config.hidden_size)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size)
        self.mlp = MLP(config)
        self.lora: nn.Module | None = None  # a LayerAdapter, see aha.model.lora

    def linears(self) -> dict[str, nn.Linear]:
        """The seven linear maps by name."""
        rooms = (self.self_attn, self.mlp)
        return {n: m for room in rooms for n, m in room.named_children() if n.endswith("_proj")}

    def fused_weights(self, dtype, merged: bool = False):
        """(qkv, its bias, out, gate and up, down); `merged` with the adapter's part in them."""
        weights = {name: linear.weight for name, linear in self.linears().items()}
        if merged and self.lora is not None:
            weights = {name: weight + self.lora.delta(name) for name, weight in weights.items()}
        return (
            *self.self_attn.fused_weights(weights, self.input_layernorm.weight, dtype),
            *self.mlp.fused_weights(weights, self.post_attention_layernorm.weight, dtype),
        )

    def forward(self, x, cos, sin, layout: Layout):
        """[N, C] -> [N, C]."""
        qkv_weight, qkv_bias, out, gate_up, down = self.fused_weights(x.dtype)
        read = ops.rms_normalise(x, self.eps)
        qkv = F.linear(read, qkv_weight, qkv_bias)
        if self.lora is not None:
            qkv = qkv + self.lora.qkv(read, self)
        mixed = self.self_attn(qkv, cos, sin, layout)
        x = x + F.linear(mixed, out)
        if self.lora is not None:
            x = x + self.lora.apart(["o_proj"], mixed)
        read = ops.rms_normalise(x, self.eps)
        wide = F.linear(read, gate_up)
        if self.lora is not None:
            wide = wide + self.lora.gate_up(read, self)
        narrow = ops.swiglu(wide)
        x = x + F.linear(narrow, down)
        return x if self.lora is None else x + self.lora.apart(["down_proj"], narrow)


class Backbone(nn.Module):
    """Everything but the output head; named `model` inside the decoder as Hugging Face does."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size)


class Transformer(nn.Module):
    """A causal language model: log-probs of whole rows, or of rows that share their prompts."""

    supports_layout = True

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.model = Backbone(config)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.recompute = False  # a layer's activations again in the backward pass: less memory
        self._rope: dict = {}

    def initialise(self, generator: torch.Generator) -> "Transformer":
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
    def lm_head_weight(self):
        tied = self.config.tie_word_embeddings
        return self.model.embed_tokens.weight if tied else self.lm_head.weight

    @property
    def device(self):
        return self.model.embed_tokens.weight.device

    @property
    def adapter(self) -> nn.Module | None:
        """The first layer's LoRA adapter: None where the whole decoder trains."""
        return self.model.layers[0].lora

    def weights(self) -> dict[str, torch.Tensor]:
        """The tensors of the model itself, without adapters, under Hugging Face's names."""
        return {name: t for name, t in self.state_dict().items() if ".lora." not in name}

    def trainable(self) -> list[nn.Parameter]:
        """What an optimiser holds: with LoRA the adapters alone."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def rope_tables(self, dtype):
        """cos and sin [max positions, D/2], kept per dtype."""
        key = (dtype, self.device)
        if key not in self._rope:
            self._rope[key] = rope_tables(self.config, dtype, self.device)
        return self._rope[key]

    def hidden_states(self, tokens_BT, dtype=torch.float32):
        """The normalised output of the last layer [B, T, C], before the final norm's weight.

        Rows start at position 0 and are padded on the right: with a causal mask no real token
        ever sees the padding, so no padding mask is needed.
        """
        B, T = tokens_BT.shape
        layout = Layout.whole(B, T, tokens_BT.device)
        return self.flat_hidden_states(tokens_BT.flatten(), layout, dtype).view(B, T, -1)

    def flat_hidden_states(self, tokens_N, layout: Layout, dtype):
        """`hidden` of the tokens of a layout, [N, C]."""
        cos, sin = (table[layout.positions_N] for table in self.rope_tables(torch.float32))
        x = F.embedding(tokens_N, self.model.embed_tokens.weight).to(dtype)
        given = (cos, sin, layout)
        again = self.recompute and torch.is_grad_enabled()
        for layer in self.model.layers:
            if again:
                x = checkpoint(layer, x, *given, use_reentrant=False, preserve_rng_state=False)
            else:
                x = layer(x, *given)
        return ops.rms_normalise(x, self.config.rms_norm_eps)

    def folded_lm_head(self, dtype=torch.float32):
        """The output matrix [V, C] with the final norm's weight folded in."""
        return (self.lm_head_weight * self.model.norm.weight).to(dtype)

    def forward(self, tokens_BT, dtype=torch.float32):
        """Logits [B, T, V] in float32."""
        return F.linear(self.hidden_states(tokens_BT, dtype), self.folded_lm_head(dtype)).float()

    def token_logprobs(
        self, tokens_BT, start: int = 1, dtype=torch.float32, temperature=1.0, layout=None
    ):
        """log p(tokens[t] | tokens[<t]) for t >= start: [B, T - start], float32, nats.

        With a `layout` of these rows, prompts are computed once and padding is not: then of the
        completions' own tokens alone, and 0 elsewhere.
        """
        return self.logprobs_and_entropy(tokens_BT, start, dtype, temperature, layout=layout)[0]

    def logprobs_and_entropy(
        self,
        tokens_BT,
        start: int = 1,
        dtype=torch.float32,
        temperature=1.0,
        entropy=False,
        layout: Layout | None = None,
    ):
        """`token_logprobs`, and the entropy [B, T - start] of each choice, or None if not wanted.

        However large the vocabulary, [B, T, V] is never held (see aha.model.logprobs).
        """
        hidden = self.hidden_states_before(tokens_BT, start, dtype, layout)
        targets = tokens_BT[:, start:]
        if layout is not None:
            targets = targets.flatten()[layout.columns_M]
        lm_head_VC = self.folded_lm_head(dtype)
        found = logprobs_and_entropy(hidden, lm_head_VC, targets, temperature, entropy)
        if layout is None:
            return found
        return tuple(values if values is None else layout.spread(values) for values in found)

    def logits(self, tokens_BT, start: int = 1, dtype=torch.float32, temperature=1.0):
        """What decides about the tokens from `start` on: [B, T - start, V]."""
        hidden = self.hidden_states_before(tokens_BT, start, dtype)
        return logits_of(hidden, self.folded_lm_head(dtype), temperature)

    def hidden_states_before(self, tokens_BT, start: int, dtype, layout: Layout | None = None):
        """The hidden states that decide about the tokens from `start` on: [B, T - start, C], at
        positions start-1 .. T-2; with a layout those of its M tokens, [M, C]. Logits are computed
        only where they are needed."""
        if layout is None:
            return self.hidden_states(tokens_BT[:, :-1], dtype)[:, start - 1 :]
        hidden_NC = self.flat_hidden_states(tokens_BT.flatten()[layout.tokens_N], layout, dtype)
        first_BC = ops.repeated(hidden_NC[layout.last_P], layout.prompt_B)
        return torch.cat([first_BC, hidden_NC[layout.shared :]])
