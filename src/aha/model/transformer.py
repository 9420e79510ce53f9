"""A decoder-only transformer: the architecture of Qwen2 and its relatives, for training and for
generation.

Grouped-query attention, rotary positions (RoPE), SwiGLU, RMSNorm; biases on q, k and v in Qwen2
alone, norms on q and k in Qwen3 alone; tied or untied lm_head. Parameter names are those of Hugging
Face, so weights are read and written without a mapping.
Source: Qwen2 (arXiv 2407.10671), Qwen3 (arXiv 2505.09388), Llama 3 (arXiv 2407.21783); the tests
compare with `transformers`.

The class is called `Transformer`, as in the reference code of Llama. Not "decoder": that is half of
an encoder-decoder, and "decode" means here to generate token by token (aha.model.decode). Not
"policy" either: that is the part it plays in training, and other classes play it too
(aha.model.policy).

Shapes: B rows, T tokens, N flat tokens, M tokens with a log-prob, V vocabulary, L layers, H heads,
K key-value heads, D head size, C hidden size, I intermediate size, F = (H + 2 K) D. `dtype` is the
type of the arithmetic; parameters that train stay float32.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from aha.batching.layout import Layout
from aha.model import fused, ops
from aha.model.architecture import ModelConfig
from aha.model.attention import flat_attention
from aha.model.logprobs import logits_of, logprobs_and_entropy
from aha.model.ops import rope_tables

if TYPE_CHECKING:
    from aha.model.lora import LayerAdapter

# The weights of one layer with the norms folded in: qkv [F, C] and its bias [F], o [C, H D],
# gate and up [2 I, C], down [C, I].
FusedWeights = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor, torch.Tensor]


class Attention(nn.Module):
    """The four maps of self-attention. `forward` is what lies between them."""

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
        """The 1/sqrt(D) of attention, as a factor of q_proj; 1 for a model with a norm on q, which
        would undo such a factor: there it goes into the norm's weight (`head_norms`)."""
        return 1.0 if self.config.family.qk_norm else self.config.head_dim**-0.5

    def fused_weights(
        self, weights: Mapping[str, torch.Tensor], norm: torch.Tensor, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """(qkv [F, C], its bias [F] or None, o [C, H D]): one matrix for q, k and v.

        Folded norm: RMSNorm gives x̂ * w, and a linear map A of it is (x̂ * w) Aᵀ = x̂ (A * w)ᵀ,
        where w multiplies the columns of A. So w goes into A once per step instead of into every
        token; 1/sqrt(D) goes into the rows of q for the same reason. Example: A = [[1, 2], [3, 4]],
        w = [10, 1]: A * w = [[10, 2], [30, 4]]. Products and sums are float32 and rounded to
        `dtype` last, so bf16 rounds each weight once. Autograd sees all of it, so A and w get their
        own gradients.
        """
        weight = torch.cat(
            [weights["q_proj"] * self.query_scale, weights["k_proj"], weights["v_proj"]]
        )
        bias = None
        if self.q_proj.bias is not None:
            q_bias = self.q_proj.bias * self.query_scale
            bias = torch.cat([q_bias, self.k_proj.bias, self.v_proj.bias]).to(dtype)
        return (weight * norm).to(dtype), bias, weights["o_proj"].to(dtype)

    def head_norms(self, dtype: torch.dtype) -> torch.Tensor | None:
        """The weights [H + K, D] of the norms on queries and keys; None without such norms."""
        if not self.config.family.qk_norm:
            return None
        H, K, D = (
            self.config.num_attention_heads,
            self.config.num_key_value_heads,
            self.config.head_dim,
        )
        q_norm = (self.q_norm.weight * D**-0.5).expand(H, D)
        return torch.cat([q_norm, self.k_norm.weight.expand(K, D)]).to(dtype)

    def forward(
        self, qkv_NF: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, layout: Layout
    ) -> torch.Tensor:
        """Norms of q and k where there are some, rotation, attention: [N, F] -> [N, H D]."""
        config = self.config
        H, K, D = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        norms = self.head_norms(qkv_NF.dtype)
        if norms is not None:
            qk, v = qkv_NF.unflatten(1, (-1, D)).split([H + K, K], 1)
            qk = ops.rms_normalise(qk, config.rms_norm_eps) * norms
            qkv_NF = torch.cat([qk, v], 1).flatten(1)
        return flat_attention(qkv_NF, H, K, cos, sin, layout)


class MLP(nn.Module):
    """The three maps of the SwiGLU block; `Layer` applies them."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def fused_weights(
        self, weights: Mapping[str, torch.Tensor], norm: torch.Tensor, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(gate and up [2 I, C] with the norm's weight folded in, down [C, I])."""
        gate_up = torch.cat([weights["gate_proj"], weights["up_proj"]])
        return (gate_up * norm).to(dtype), weights["down_proj"].to(dtype)


class RMSNorm(nn.Module):
    """Holds a norm's weight. `ops.rms_normalise` normalises, and the weight is folded into the
    linear map that follows."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))


class Layer(nn.Module):
    """One block: attention and MLP, each after a norm and added to the residual stream."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.eps = config.rms_norm_eps
        self.input_layernorm = RMSNorm(config.hidden_size)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size)
        self.mlp = MLP(config)
        self.lora: LayerAdapter | None = None

    def linears(self) -> dict[str, nn.Linear]:
        """The seven linear maps by name."""
        return {
            name: module
            for parent in (self.self_attn, self.mlp)
            for name, module in parent.named_children()
            if isinstance(module, nn.Linear)
        }

    def fused_weights(self, dtype: torch.dtype, merged: bool = False) -> FusedWeights:
        """The weights as `forward` multiplies them; `merged` with the adapter's part added."""
        weights: dict[str, torch.Tensor] = {
            n: linear.weight for n, linear in self.linears().items()
        }
        if merged and self.lora is not None:
            weights = {name: weight + self.lora.delta(name) for name, weight in weights.items()}
        return (
            *self.self_attn.fused_weights(weights, self.input_layernorm.weight, dtype),
            *self.mlp.fused_weights(weights, self.post_attention_layernorm.weight, dtype),
        )

    def forward(
        self,
        x: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        layout: Layout,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        """The residual stream [N, C] after this layer, in the type of x. The products are computed
        in `dtype`."""
        qkv_weight, qkv_bias, o_weight, gate_up_weight, down_weight = self.fused_weights(dtype)
        normed = ops.rms_normalise(x, self.eps, dtype)
        qkv = F.linear(normed, qkv_weight, qkv_bias)
        if self.lora is not None:
            qkv = qkv + self.lora.qkv(self, dtype)(normed)
        attended = self.self_attn(qkv, cos, sin, layout)
        x = x + F.linear(attended, o_weight)
        if self.lora is not None:
            x = x + self.lora.folded(["o_proj"], dtype)(attended)
        normed = ops.rms_normalise(x, self.eps, dtype)
        gate_up = F.linear(normed, gate_up_weight)
        if self.lora is not None:
            gate_up = gate_up + self.lora.gate_up(self, dtype)(normed)
        activated = ops.swiglu(gate_up)
        x = x + F.linear(activated, down_weight)
        return x if self.lora is None else x + self.lora.folded(["down_proj"], dtype)(activated)


class Backbone(nn.Module):
    """Everything but lm_head. Inside `Transformer` it is called `model`, as in Hugging Face's
    files."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        # A ModuleList forgets the type of its elements.
        self.layers = cast(Sequence[Layer], layers)
        self.norm = RMSNorm(config.hidden_size)


class Transformer(nn.Module):
    """A causal language model: log-probs of rows that are padded, or of rows in a layout, where
    each prompt is computed once."""

    supports_layout = True

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.model = Backbone(config)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.recompute = False  # activations of a layer again in the backward pass: less memory
        self._rope: dict[tuple[torch.dtype, torch.device], tuple[torch.Tensor, torch.Tensor]] = {}

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
                to_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
                std = residual if to_residual else 0.02
                nn.init.normal_(parameter, std=std, generator=generator)
        return self

    @property
    def lm_head_weight(self) -> torch.Tensor:
        """[V, C]; with tied embeddings the embedding itself."""
        tied = self.config.tie_word_embeddings
        return self.model.embed_tokens.weight if tied else self.lm_head.weight

    @property
    def device(self) -> torch.device:
        return self.model.embed_tokens.weight.device

    @property
    def adapter(self) -> "LayerAdapter | None":
        """The first layer's LoRA adapter: None where the whole model trains."""
        return self.model.layers[0].lora

    def weights(self) -> dict[str, torch.Tensor]:
        """The tensors of the model itself, without adapters, under Hugging Face's names."""
        return {name: t for name, t in self.state_dict().items() if ".lora." not in name}

    def trainable(self) -> list[nn.Parameter]:
        """The parameters for an optimiser: with LoRA those of the adapters alone."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def rope_tables(self, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """cos and sin [max positions, D/2], kept per dtype and device."""
        key = (dtype, self.device)
        if key not in self._rope:
            self._rope[key] = rope_tables(self.config, dtype, self.device)
        return self._rope[key]

    def hidden_states(
        self, tokens_BT: torch.Tensor, dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        """The normalised output of the last layer [B, T, C], before the final norm's weight.

        Rows start at position 0 and are padded on the right: with a causal mask no token attends to
        the padding after it, so no padding mask is needed.
        """
        B, T = tokens_BT.shape
        layout = Layout.whole(B, T, tokens_BT.device)
        return self.flat_hidden_states(tokens_BT.flatten(), layout, dtype).view(B, T, -1)

    def flat_hidden_states(
        self, tokens_N: torch.Tensor, layout: Layout, dtype: torch.dtype
    ) -> torch.Tensor:
        """`hidden_states` of the flat tokens of a layout, [N, C]."""
        cos, sin = (table[layout.positions_N] for table in self.rope_tables(torch.float32))
        x = F.embedding(tokens_N, self.model.embed_tokens.weight).to(dtype)
        if fused.keeps_float32(x):
            x = x.float()
        recompute = self.recompute and torch.is_grad_enabled()
        for layer in self.model.layers:
            if recompute:
                inputs = (x, cos, sin, layout, dtype)
                x = checkpoint(layer, *inputs, use_reentrant=False, preserve_rng_state=False)
            else:
                x = layer(x, cos, sin, layout, dtype)
        return ops.rms_normalise(x, self.config.rms_norm_eps, dtype)

    def folded_lm_head(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """The unembedding matrix [V, C] with the final norm's weight folded in."""
        return (self.lm_head_weight * self.model.norm.weight).to(dtype)

    def forward(self, tokens_BT: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Logits [B, T, V] in float32."""
        hidden_BTC = self.hidden_states(tokens_BT, dtype)
        return logits_of(hidden_BTC, self.folded_lm_head(dtype), 1.0).float()

    def token_logprobs(
        self,
        tokens_BT: torch.Tensor,
        start: int = 1,
        dtype: torch.dtype = torch.float32,
        temperature: float = 1.0,
        layout: Layout | None = None,
    ) -> torch.Tensor:
        """log p(tokens[t] | tokens[<t]) for t >= start: [B, T - start], float32, nats.

        With a `layout` of these rows each prompt is computed once and padding is not: then only the
        completions' own tokens have a log-prob, and the rest is 0.
        """
        return self.logprobs_and_entropy(tokens_BT, start, dtype, temperature, layout=layout)[0]

    def logprobs_and_entropy(
        self,
        tokens_BT: torch.Tensor,
        start: int = 1,
        dtype: torch.dtype = torch.float32,
        temperature: float = 1.0,
        entropy: bool = False,
        layout: Layout | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """`token_logprobs`, and the entropy [B, T - start] of each token's distribution, or None if
        `entropy` is False.

        However large the vocabulary, [B, T, V] never exists as a whole (see aha.model.logprobs).
        """
        hidden = self.hidden_states_before(tokens_BT, start, dtype, layout)
        targets = tokens_BT[:, start:]
        if layout is not None:
            targets = targets.flatten()[layout.columns_M]
        lm_head_VC = self.folded_lm_head(dtype)
        logprobs, entropies = logprobs_and_entropy(
            hidden, lm_head_VC, targets, temperature, entropy
        )
        if layout is None:
            return logprobs, entropies
        return layout.scatter(logprobs), None if entropies is None else layout.scatter(entropies)

    def logits(
        self,
        tokens_BT: torch.Tensor,
        start: int = 1,
        dtype: torch.dtype = torch.float32,
        temperature: float = 1.0,
    ) -> torch.Tensor:
        """The logits that predict the tokens from `start` on: [B, T - start, V]."""
        hidden = self.hidden_states_before(tokens_BT, start, dtype)
        return logits_of(hidden, self.folded_lm_head(dtype), temperature)

    def hidden_states_before(
        self,
        tokens_BT: torch.Tensor,
        start: int,
        dtype: torch.dtype,
        layout: Layout | None = None,
    ) -> torch.Tensor:
        """The hidden states that predict the tokens from `start` on: [B, T - start, C], of the
        positions start-1 .. T-2. With a layout those that predict its M tokens, [M, C].

        A token is predicted one position earlier. With a layout the first token of a completion is
        predicted by the last token of its prompt, which the rows of a group share: its state is
        repeated for each of them. A completion's other tokens are predicted by its own.
        """
        if layout is None:
            return self.hidden_states(tokens_BT[:, :-1], dtype)[:, start - 1 :]
        hidden_NC = self.flat_hidden_states(tokens_BT.flatten()[layout.tokens_N], layout, dtype)
        first_BC = ops.repeat_by_prompt(hidden_NC[layout.last_P], layout.prompt_B)
        return torch.cat([first_BC, hidden_NC[layout.num_prompt_tokens :]])
