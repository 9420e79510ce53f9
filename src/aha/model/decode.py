"""Inference with a transformer, one token at a time over a KV cache: same weights, same maths as
`Transformer.hidden_states`.

`InferenceWeights` fuses and casts the weights once per version, or shares those that are frozen
under adapters; `prefill` reads prompts, `decode_step` adds one token to every row. The engine
decides which rows there are and when they end (aha.rollout).

Shapes: B rows, P prompts, T tokens, S cache positions, L layers, H heads, K key-value heads,
D head size, C hidden size, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch.nn import functional as F

from aha.dist.sharded_tensors import in_shards, own_tensors_whole
from aha.model import ops
from aha.model.architecture import ModelConfig
from aha.model.attention import causal_attention
from aha.model.transformer import Layer, Transformer


class InferenceLayer(Protocol):
    """The linear maps of one layer. `normed` is the output of the norm before the map, without the
    norm's weight."""

    @property
    def head_norms(self) -> torch.Tensor | None:
        """The weights [H + K, D] of the norms on queries and keys, where there are some."""

    def qkv_proj(self, normed: torch.Tensor) -> torch.Tensor:
        """q, k and v side by side [..., (H + 2 K) D], q scaled by 1/sqrt(D)."""

    def o_proj(self, attended: torch.Tensor) -> torch.Tensor:
        """[..., H D] -> [..., C]."""

    def mlp(self, normed: torch.Tensor) -> torch.Tensor:
        """[..., C] -> [..., C]."""


@dataclass
class FusedLayer:
    """One layer's matrices with its norms, and its adapter where there is one, folded in."""

    qkv_weight: torch.Tensor
    qkv_bias: torch.Tensor | None
    o_weight: torch.Tensor
    gate_up_weight: torch.Tensor
    down_weight: torch.Tensor
    head_norms: torch.Tensor | None

    @classmethod
    def of(cls, layer: Layer, dtype: torch.dtype) -> "FusedLayer":
        # Cloned: where the type is the same already, `.to` returns the parameter itself, and an
        # optimiser step would change weights that have to stay those of their version.
        with own_tensors_whole(layer):
            qkv, bias, o, gate_up, down = layer.fused_weights(dtype, merged=True)
            bias = None if bias is None else bias.clone()
            norms = layer.self_attn.head_norms(dtype)
            return cls(qkv.clone(), bias, o.clone(), gate_up.clone(), down.clone(), norms)

    def qkv_proj(self, normed: torch.Tensor) -> torch.Tensor:
        return F.linear(normed, self.qkv_weight, self.qkv_bias)

    def o_proj(self, attended: torch.Tensor) -> torch.Tensor:
        return F.linear(attended, self.o_weight)

    def mlp(self, normed: torch.Tensor) -> torch.Tensor:
        return F.linear(ops.swiglu(F.linear(normed, self.gate_up_weight)), self.down_weight)


class AdapterLayer:
    """One layer whose weights are frozen under an adapter: the weights are shared with the policy,
    not copied. The adapter is folded once a version, and adds its part as it does in training."""

    def __init__(self, layer: Layer, dtype: torch.dtype):
        assert layer.lora is not None
        self.layer, self.head_norms = layer, layer.self_attn.head_norms(dtype)
        self.qkv, self.gate_up = layer.lora.qkv(layer, dtype), layer.lora.gate_up(layer, dtype)
        self.o, self.down = (layer.lora.folded([n], dtype) for n in ("o_proj", "down_proj"))

    def qkv_proj(self, normed: torch.Tensor) -> torch.Tensor:
        attention = self.layer.self_attn
        x = normed * self.layer.input_layernorm.weight
        q = attention.q_proj(x) * attention.query_scale
        return torch.cat([q, attention.k_proj(x), attention.v_proj(x)], -1) + self.qkv(normed)

    def o_proj(self, attended: torch.Tensor) -> torch.Tensor:
        base: torch.Tensor = self.layer.self_attn.o_proj(attended)
        return base + self.o(attended)

    def mlp(self, normed: torch.Tensor) -> torch.Tensor:
        mlp, x = self.layer.mlp, normed * self.layer.post_attention_layernorm.weight
        gate_up = torch.cat([mlp.gate_proj(x), mlp.up_proj(x)], -1)
        activated = ops.swiglu(gate_up + self.gate_up(normed))
        base: torch.Tensor = mlp.down_proj(activated)
        return base + self.down(activated)


@dataclass
class InferenceWeights:
    """The weights of one version in the type and form that generation needs; no update of the
    policy changes them."""

    config: ModelConfig
    embedding: torch.Tensor
    layers: Sequence[InferenceLayer]
    lm_head: torch.Tensor
    norm: torch.Tensor | None  # before lm_head, where it is not folded into it
    cos: torch.Tensor
    sin: torch.Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, policy: Transformer, dtype: torch.dtype, share: bool = False) -> "InferenceWeights":
        """`share`: do not copy weights that are frozen under adapters, if they have this type.

        Of a policy in shards this gathers one layer at a time, and shares nothing. Nothing is
        gathered while tokens are generated: ranks whose completions are not equally long would wait
        for each other for ever.
        """
        config, body, (cos, sin) = policy.config, policy.model, policy.rope_tables(dtype)
        embedding: torch.Tensor = body.embed_tokens.weight
        layers: Sequence[InferenceLayer]
        share = share and not in_shards(embedding)
        if share and policy.adapter is not None and embedding.dtype == dtype:
            layers = [AdapterLayer(layer, dtype) for layer in body.layers]
            norm = body.norm.weight
            return cls(config, embedding, layers, policy.lm_head_weight, norm, cos, sin)
        layers = [FusedLayer.of(layer, dtype) for layer in body.layers]
        with own_tensors_whole(policy):
            embedding = body.embed_tokens.weight.to(dtype, copy=True)
            head = policy.folded_lm_head(dtype)
        return cls(config, embedding, layers, head, None, cos, sin)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """[..., C] after the last layer -> [..., V] in float32."""
        normed = ops.rms_normalise(x, self.config.rms_norm_eps)
        return F.linear(normed if self.norm is None else normed * self.norm, self.lm_head).float()

    @property
    def dtype(self) -> torch.dtype:
        return self.embedding.dtype

    @property
    def device(self) -> torch.device:
        return self.embedding.device


BLOCK = 64  # positions by which a cache grows


class KVCache:
    """Keys and values of B rows, up to S positions each: one pair of tensors [B, K, S, D] a layer.

    Row b has `lengths[b]` valid positions; the rest is masked. The cache grows in blocks, and
    attention always runs over all of S: the matrix products then read contiguous memory, where a
    slice of a larger cache would be copied at every token.
    """

    block = BLOCK

    def __init__(self, weights: InferenceWeights, rows: int, capacity: int):
        config = weights.config
        shape = (rows, config.num_key_value_heads, capacity, config.head_dim)
        like, layers = weights.embedding, range(config.num_hidden_layers)
        self.keys = [like.new_zeros(shape) for _ in layers]
        self.values = [like.new_zeros(shape) for _ in layers]
        self.lengths = torch.zeros(rows, dtype=torch.long, device=weights.device)

    @property
    def capacity(self) -> int:
        return self.keys[0].shape[2]

    def reserve(self, positions: int) -> None:
        """Grow to a multiple of `block` that is at least `positions`, if S is smaller.

        Example: capacity 64, 100 positions, blocks of 64: ceil(100 / 64) * 64 - 64 = 64 more.
        """
        if positions > self.capacity:
            more = -(-positions // self.block) * self.block - self.capacity
            # Tensor by tensor: two whole caches at a time would be the memory peak of a rollout.
            for cached in (self.keys, self.values):
                for index in range(len(cached)):
                    cached[index] = F.pad(cached[index], (0, 0, 0, more))

    def compact(self, rows: torch.Tensor) -> None:
        """Keep these rows alone, without gaps: row i becomes row `rows[i]`, where `rows` increases.
        Example: rows = [0, 3, 4] moves row 3 to row 1 and row 4 to row 2. Indexing makes a copy
        first, so no row is overwritten before it has been read."""
        count = rows.shape[0]
        for cached in (*self.keys, *self.values):
            cached[:count] = cached[rows]
        self.lengths[:count] = self.lengths[rows]

    def rewind(self, first: int, counts_B: torch.Tensor) -> None:
        """Forget the last `counts_B[i]` positions of row first + i; new ones overwrite them."""
        self.lengths[first : first + counts_B.shape[0]] -= counts_B

    def copy_prompts(self, first: int, source: "KVCache", rows: torch.Tensor) -> None:
        """Row first + i becomes row `rows[i]` of a cache of prompts: each row of a group gets a
        copy of the one prompt that was read for all of them."""
        last, width = first + rows.shape[0], source.capacity
        self.reserve(width)
        pairs = zip((*self.keys, *self.values), (*source.keys, *source.values), strict=True)
        for target, prompts in pairs:
            target[first:last, :, :width] = prompts[rows]
        self.lengths[first:last] = source.lengths[rows]


@torch.no_grad()
def prefill(
    weights: InferenceWeights, prompts: list[tuple[int, ...]]
) -> tuple[torch.Tensor, KVCache]:
    """Read P prompts side by side: (logits [P, V] after each one's last token, their cache)."""
    config, device = weights.config, weights.device
    H, K, D = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    P, T = len(prompts), int(lengths.max())
    tokens_PT = torch.zeros((P, T), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        tokens_PT[row, : len(prompt)] = torch.tensor(prompt)
    cache = KVCache(weights, P, T)
    cache.lengths = lengths
    cos, sin = weights.cos[:T], weights.sin[:T]
    eps = config.rms_norm_eps
    x = F.embedding(tokens_PT.to(device), weights.embedding)
    for index, layer in enumerate(weights.layers):
        qkv = layer.qkv_proj(ops.rms_normalise(x, eps))
        qk, v = qkv.view(P, T, -1, D).split([H + K, K], 2)
        q, k = normed_heads(layer, qk, eps).transpose(1, 2).split([H, K], 1)
        v = v.transpose(1, 2)
        cache.keys[index].copy_(ops.rotate(k, cos, sin))
        cache.values[index].copy_(v)
        q = ops.rotate(q, cos, sin).reshape(P * K, H // K, T, D)
        keys, values = (c[index].view(P * K, T, D) for c in (cache.keys, cache.values))
        heads = causal_attention(q, keys, values).view(P, H, T, D)
        x = x + layer.o_proj(heads.transpose(1, 2).reshape(P, T, H * D))
        x = x + layer.mlp(ops.rms_normalise(x, eps))
    last = x[torch.arange(P, device=device), lengths - 1]
    return weights.logits(last), cache


@torch.no_grad()
def decode_step(weights: InferenceWeights, cache: KVCache, tokens_B: torch.Tensor) -> torch.Tensor:
    """Append one token to each of the first B rows and return the next logits [B, V], float32.

    The cache must have space for one more position in every row (`KVCache.reserve`).
    """
    config = weights.config
    H, K, D = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    B, eps = tokens_B.shape[0], config.rms_norm_eps
    lengths = cache.lengths[:B]
    rows = torch.arange(B, device=weights.device)
    cos, sin = weights.cos[lengths].unsqueeze(1), weights.sin[lengths].unsqueeze(1)
    mask = length_mask(lengths, cache.capacity, weights.dtype)
    x = F.embedding(tokens_B, weights.embedding)
    for index, layer in enumerate(weights.layers):
        qkv = layer.qkv_proj(ops.rms_normalise(x, eps)).view(B, -1, D)
        qk = ops.rotate(normed_heads(layer, qkv[:, : H + K], eps), cos, sin)
        keys, values = cache.keys[index], cache.values[index]
        keys[rows, :, lengths] = qk[:, H:]
        values[rows, :, lengths] = qkv[:, H + K :]
        q = qk[:, :H].reshape(B, K, H // K, D)
        scores = torch.matmul(q, keys[:B].transpose(2, 3)).add_(mask)
        attended = torch.matmul(torch.softmax(scores, -1), values[:B]).view(B, H * D)
        x = x + layer.o_proj(attended)
        x = x + layer.mlp(ops.rms_normalise(x, eps))
    cache.lengths[:B] += 1
    return weights.logits(x)


def normed_heads(layer: InferenceLayer, qk: torch.Tensor, eps: float) -> torch.Tensor:
    """Queries and keys [..., H + K, D] after the layer's norms, if it has any."""
    return qk if layer.head_norms is None else ops.rms_normalise(qk, eps) * layer.head_norms


def length_mask(lengths: torch.Tensor, S: int, dtype: torch.dtype) -> torch.Tensor:
    """[B, 1, 1, S]: 0 up to and including position `lengths[b]`, a huge negative beyond."""
    beyond = torch.arange(S, device=lengths.device) > lengths.unsqueeze(1)
    mask = torch.zeros(beyond.shape, dtype=dtype, device=lengths.device)
    return mask.masked_fill_(beyond, torch.finfo(dtype).min / 2)[:, None, None]
