"""Rotary positions as tables of cosines and sines.

Shapes: S positions, D head size.
"""

import math

import torch

from aha.model.architecture import Llama3Scaling, ModelConfig


def rope_tables(
    config: ModelConfig, dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin [S, D/2] for all positions of the model, computed in float32: in bf16
    neighbouring numbers above 256 are 2 apart, so an angle would be off by a radian.

    Source: Su et al. 2021, RoFormer.
    """
    half = config.head_dim // 2
    steps = torch.arange(half, dtype=torch.float32, device=device) / half
    frequencies = config.rope_theta**-steps
    if config.rope_scaling:
        frequencies = stretch(frequencies, config.rope_scaling)
    positions = torch.arange(config.max_position_embeddings, dtype=torch.float32, device=device)
    angles_SD = torch.outer(positions, frequencies)
    return angles_SD.cos().to(dtype), angles_SD.sin().to(dtype)


def stretch(frequencies: torch.Tensor, scaling: Llama3Scaling) -> torch.Tensor:
    """Slow frequencies divided by `factor`, fast ones unchanged, linear interpolation between.

    `turns` are the full rotations of a frequency within the context of pre-training: above
    `high_freq_factor` it counts as fast, below `low_freq_factor` as slow.
    Source: Llama 3 (arXiv 2407.21783) as its reference code computes it.
    """
    turns = frequencies * scaling.original_max_position_embeddings / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    fast = ((turns - low) / (high - low)).clamp(0.0, 1.0)
    return frequencies * (fast + (1 - fast) / scaling.factor)
