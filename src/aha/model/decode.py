"""The decoder one token at a time: the same weights and maths as `Decoder.hidden`, over a cache.

`InferenceWeights` fuses and casts the weights once per version; `prefill` reads prompts, `step`
adds one token to every row. Which rows exist, and when they end, is the engine's business.

Shapes: B rows, P prompts, T tokens, S cache positions, L layers, H heads, K key-value heads,
D head size, C hidden size, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from aha.model import ops
from aha.model.transformer import Decoder, ModelConfig


@dataclass
class InferenceWeights:
    """A frozen copy of a decoder in the type and shape that generation wants."""

    config: ModelConfig
    embedding: torch.Tensor
    layers: list[tuple[torch.Tensor | None, ...]]  # as Layer.fused_weights; no bias is None
    head_norms: list[torch.Tensor | None]  # [H + K, D], of queries and keys
    head: torch.Tensor
    cos: torch.Tensor
    sin: torch.Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, decoder: Decoder, dtype: torch.dtype) -> "InferenceWeights":
        cos, sin = decoder.rope_tables(dtype)
        # Cloned: where the type is the same already, `.to` hands over the parameter itself, and
        # an optimiser step would reach into a copy that is meant to be a version behind.
        body = decoder.model
        fused = (layer.fused_weights(dtype, merged=True) for layer in body.layers)
        layers = [tuple(w if w is None else w.clone() for w in layer) for layer in fused]
        norms = [layer.self_attn.head_norms(dtype) for layer in body.layers]
        embedding = body.embed_tokens.weight.to(dtype, copy=True)
        return cls(decoder.config, embedding, layers, norms, decoder.head(dtype), cos, sin)

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
    for index, (qkv_weight, qkv_bias, out, gate_up, down) in enumerate(weights.layers):
        qkv = F.linear(ops.rms_normalise(x, eps), qkv_weight, qkv_bias)
        qk, v = qkv.view(P, T, -1, D).split([H + K, K], 2)
        q, k = normed_heads(weights, index, qk).transpose(1, 2).split([H, K], 1)
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
        x = x + F.linear(mixed, out)
        x = x + F.linear(ops.swiglu(F.linear(ops.rms_normalise(x, eps), gate_up)), down)
    last = x[torch.arange(P, device=device), lengths - 1]
    return F.linear(ops.rms_normalise(last, eps), weights.head).float(), cache


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
    for index, (qkv_weight, qkv_bias, out, gate_up, down) in enumerate(weights.layers):
        qkv = F.linear(ops.rms_normalise(x, eps), qkv_weight, qkv_bias).view(B, -1, D)
        qk = ops.rotate(normed_heads(weights, index, qkv[:, : H + K]), cos, sin)
        keys, values = cache.keys[index], cache.values[index]
        keys[rows, :, lengths] = qk[:, H:]
        values[rows, :, lengths] = qkv[:, H + K :]
        q = qk[:, :H].reshape(B, K, H // K, D)
        scores = torch.matmul(q, keys[:B].transpose(2, 3)).add_(mask)
        mixed = torch.matmul(torch.softmax(scores, -1), values[:B]).view(B, H * D)
        x = x + F.linear(mixed, out)
        x = x + F.linear(ops.swiglu(F.linear(ops.rms_normalise(x, eps), gate_up)), down)
    cache.lengths[:B] += 1
    return F.linear(ops.rms_normalise(x, eps), weights.head).float()


def normed_heads(weights: InferenceWeights, index: int, qk: torch.Tensor) -> torch.Tensor:
    """Queries and keys [..., H + K, D] after the norms of layer `index`, if it has any."""
    norms = weights.head_norms[index]
    if norms is None:
        return qk
    return ops.rms_normalise(qk, weights.config.rms_norm_eps) * norms


def length_mask(lengths: torch.Tensor, S: int, dtype: torch.dtype) -> torch.Tensor:
    """[B, 1, 1, S]: 0 up to and including position `lengths[b]`, a huge negative beyond."""
    beyond = torch.arange(S, device=lengths.device) > lengths.unsqueeze(1)
    mask = torch.zeros(beyond.shape, dtype=dtype, device=lengths.device)
    return mask.masked_fill_(beyond, torch.finfo(dtype).min / 2)[:, None, None]
