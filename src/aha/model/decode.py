"""The transformer one token at a time over a cache, with the maths of `Transformer.hidden_states`.

`InferenceWeights` fuses and casts the weights once per version, or shares those that are frozen
beside adapters; `prefill` reads prompts, `step` adds one token to every row. Which rows exist, and
when they end, is the engine's business.

Shapes: B rows, P prompts, T tokens, S cache positions, L layers, H heads, K key-value heads,
D head size, C hidden size, V vocabulary.
"""

import copy
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from aha.model import ops
from aha.model.transformer import Layer, ModelConfig, Transformer


@dataclass
class FusedLayer:
    """One layer's matrices, the norms before them and the adapter's part in them."""

    qkv: torch.Tensor
    bias: torch.Tensor | None
    out: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor
    head_norms: torch.Tensor | None  # [H + K, D], of queries and keys

    @classmethod
    def of(cls, layer: Layer, dtype: torch.dtype) -> "FusedLayer":
        # Cloned: where the type is the same already, `.to` hands over the parameter itself, and
        # an optimiser step would reach into a copy that is meant to be a version behind.
        fused = layer.fused_weights(dtype, merged=True)
        own = [weight if weight is None else weight.clone() for weight in fused]
        return cls(*own, layer.self_attn.head_norms(dtype))

    def read(self, normed):
        """q, k and v side by side."""
        return F.linear(normed, self.qkv, self.bias)

    def mix(self, mixed):
        return F.linear(mixed, self.out)

    def think(self, normed):
        return F.linear(ops.swiglu(F.linear(normed, self.gate_up)), self.down)


class ApartLayer:
    """The same of a layer whose weights are frozen beside an adapter: they are shared, not copied,
    and the adapter, which is copied, adds its part as it does in training."""

    def __init__(self, layer: Layer, dtype: torch.dtype):
        self.layer, self.lora = layer, copy.deepcopy(layer.lora)
        self.head_norms = layer.self_attn.head_norms(dtype)

    def read(self, normed):
        attention = self.layer.self_attn
        read = normed * self.layer.input_layernorm.weight
        q = attention.q_proj(read) * attention.query_scale
        plain = torch.cat([q, attention.k_proj(read), attention.v_proj(read)], -1)
        return plain + self.lora.qkv(normed, self.layer)

    def mix(self, mixed):
        return self.layer.self_attn.o_proj(mixed) + self.lora.apart(["o_proj"], mixed)

    def think(self, normed):
        mlp, read = self.layer.mlp, normed * self.layer.post_attention_layernorm.weight
        wide = torch.cat([mlp.gate_proj(read), mlp.up_proj(read)], -1)
        narrow = ops.swiglu(wide + self.lora.gate_up(normed, self.layer))
        return mlp.down_proj(narrow) + self.lora.apart(["down_proj"], narrow)


@dataclass
class InferenceWeights:
    """A decoder in the type and shape that generation wants; no update reaches it."""

    config: ModelConfig
    embedding: torch.Tensor
    layers: list[FusedLayer] | list[ApartLayer]
    head: torch.Tensor
    norm: torch.Tensor | None  # before the head, where it is not in the head
    cos: torch.Tensor
    sin: torch.Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, policy: Transformer, dtype: torch.dtype, share: bool = False) -> "InferenceWeights":
        """`share`: what is frozen beside adapters is not copied, if it has this type."""
        config, body, (cos, sin) = policy.config, policy.model, policy.rope_tables(dtype)
        embedding = body.embed_tokens.weight
        if share and policy.adapter is not None and embedding.dtype == dtype:
            layers = [ApartLayer(layer, dtype) for layer in body.layers]
            return cls(config, embedding, layers, policy.lm_head_weight, body.norm.weight, cos, sin)
        layers = [FusedLayer.of(layer, dtype) for layer in body.layers]
        embedding = embedding.to(dtype, copy=True)
        return cls(config, embedding, layers, policy.folded_lm_head(dtype), None, cos, sin)

    def logits(self, x):
        """[..., C] after the last layer -> [..., V] in float32."""
        read = ops.rms_normalise(x, self.config.rms_norm_eps)
        return F.linear(read if self.norm is None else read * self.norm, self.head).float()

    @property
    def dtype(self) -> torch.dtype:
        return self.embedding.dtype

    @property
    def device(self) -> torch.device:
        return self.embedding.device


BLOCK = 64  # positions by which a cache grows


class KVCache:
    """Keys and values of B rows with room for S positions each, one pair of tensors a layer.

    Row b has `lengths[b]` valid positions; whatever lies behind them is masked. The cache grows
    in blocks and attention always runs over all of S: the matrix products then see contiguous
    memory, where a slice of a larger cache would be copied at every token.
    """

    block = BLOCK

    def __init__(self, weights: InferenceWeights, rows: int, capacity: int):
        config = weights.config
        shape = (rows, config.num_key_value_heads, capacity, config.head_dim)
        make = {"dtype": weights.dtype, "device": weights.device}
        self.keys = [torch.zeros(shape, **make) for _ in range(config.num_hidden_layers)]
        self.values = [torch.zeros(shape, **make) for _ in range(config.num_hidden_layers)]
        self.lengths = torch.zeros(rows, dtype=torch.long, device=weights.device)

    @property
    def capacity(self) -> int:
        return self.keys[0].shape[2]

    def reserve(self, positions: int) -> None:
        """Make room for rows of that length, if there is none yet."""
        if positions > self.capacity:
            more = -(-positions // self.block) * self.block - self.capacity
            # One after the other: two whole caches at a time would be the peak of a rollout.
            for cached in (self.keys, self.values):
                for index in range(len(cached)):
                    cached[index] = F.pad(cached[index], (0, 0, 0, more))

    def keep(self, rows: torch.Tensor) -> None:
        """Close the gaps: row i becomes what row `rows[i]` was; `rows` is increasing."""
        count = rows.shape[0]
        for cached in (*self.keys, *self.values):
            cached[:count] = cached[rows]
        self.lengths[:count] = self.lengths[rows]

    def place(self, first: int, source: "KVCache", rows: torch.Tensor) -> None:
        """Copy rows of a prompt cache, repeated as `rows` says, to the places from `first` on."""
        last, width = first + rows.shape[0], source.capacity
        self.reserve(width)
        pairs = zip((*self.keys, *self.values), (*source.keys, *source.values), strict=True)
        for mine, theirs in pairs:
            mine[first:last, :, :width] = theirs[rows]
        self.lengths[first:last] = source.lengths[rows]


@torch.no_grad()
def prefill(weights: InferenceWeights, prompts: list[tuple[int, ...]]) -> tuple:
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
        qkv = layer.read(ops.rms_normalise(x, eps))
        qk, v = qkv.view(P, T, -1, D).split([H + K, K], 2)
        q, k = normed_heads(layer, qk, eps).transpose(1, 2).split([H, K], 1)
        v = v.transpose(1, 2)
        cache.keys[index].copy_(ops.rotate(k, cos, sin))
        cache.values[index].copy_(v)
        q = ops.rotate(q, cos, sin).reshape(P * K, H // K, T, D)
        keys, values = (c[index].view(P * K, T, D) for c in (cache.keys, cache.values))
        mixed = (
            ops.causal_attention(q, keys, values)
            .view(P, H, T, D)
            .transpose(1, 2)
            .reshape(P, T, H * D)
        )
        x = x + layer.mix(mixed)
        x = x + layer.think(ops.rms_normalise(x, eps))
    last = x[torch.arange(P, device=device), lengths - 1]
    return weights.logits(last), cache


@torch.no_grad()
def step(weights: InferenceWeights, cache: KVCache, tokens_B: torch.Tensor) -> torch.Tensor:
    """Append one token to each of the first B rows and return the next logits [B, V], float32.

    The cache must have room for one more position in every row (`KVCache.reserve`).
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
        qkv = layer.read(ops.rms_normalise(x, eps)).view(B, -1, D)
        qk = ops.rotate(normed_heads(layer, qkv[:, : H + K], eps), cos, sin)
        keys, values = cache.keys[index], cache.values[index]
        keys[rows, :, lengths] = qk[:, H:]
        values[rows, :, lengths] = qkv[:, H + K :]
        q = qk[:, :H].reshape(B, K, H // K, D)
        scores = torch.matmul(q, keys[:B].transpose(2, 3)).add_(mask)
        mixed = torch.matmul(torch.softmax(scores, -1), values[:B]).view(B, H * D)
        x = x + layer.mix(mixed)
        x = x + layer.think(ops.rms_normalise(x, eps))
    cache.lengths[:B] += 1
    return weights.logits(x)


def normed_heads(layer: FusedLayer | ApartLayer, qk: torch.Tensor, eps: float) -> torch.Tensor:
    """Queries and keys [..., H + K, D] after the layer's norms, if it has any."""
    return qk if layer.head_norms is None else ops.rms_normalise(qk, eps) * layer.head_norms


def length_mask(lengths: torch.Tensor, S: int, dtype: torch.dtype) -> torch.Tensor:
    """[B, 1, 1, S]: 0 up to and including position `lengths[b]`, a huge negative beyond."""
    beyond = torch.arange(S, device=lengths.device) > lengths.unsqueeze(1)
    mask = torch.zeros(beyond.shape, dtype=dtype, device=lengths.device)
    return mask.masked_fill_(beyond, torch.finfo(dtype).min / 2)[:, None, None]
