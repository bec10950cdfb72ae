"""Cosines and sines of every position, computed once at export."""

import math

import torch

from predecode.export.rope_parameters import RopeParameters


def inverse_frequencies(parameters: RopeParameters, rope_dim: int) -> torch.Tensor:
    """float32 [rope_dim / 2]: radians per position of each rotated pair.

    Without scaling ``theta ** (-2 i / rope_dim)``. YaRN divides the slow pairs by ``factor``, leaves the fast
    ones, and blends linearly between the pairs that turn ``beta_fast`` and ``beta_slow`` times within the
    original context. All in float32, as the models were trained: at far positions the last bit matters.
    """
    pairs = rope_dim // 2
    base = parameters.rope_theta
    wavelengths = base ** (torch.arange(0, rope_dim, 2, dtype=torch.float32) / rope_dim)
    if parameters.rope_type == "default":
        return 1.0 / wavelengths

    def pair_turning(turns: float) -> float:
        wavelength = parameters.original_max_position_embeddings / (turns * 2 * math.pi)
        return rope_dim * math.log(wavelength) / (2 * math.log(base))

    first = max(math.floor(pair_turning(parameters.beta_fast)), 0)
    last = min(math.ceil(pair_turning(parameters.beta_slow)), rope_dim - 1)
    width = last - first if last != first else 0.001
    fast = 1 - ((torch.arange(pairs, dtype=torch.float32) - first) / width).clamp(0, 1)
    return 1.0 / (parameters.factor * wavelengths) * (1 - fast) + 1.0 / wavelengths * fast


def rope_table(parameters: RopeParameters, rope_dim: int, max_context: int) -> torch.Tensor:
    """float32 [max_context, rope_dim]: cosines of the pairs in the first half, sines in the second."""
    positions = torch.arange(max_context, dtype=torch.float32)
    angles = positions[:, None] * inverse_frequencies(parameters, rope_dim)
    return torch.cat([angles.cos(), angles.sin()], -1) * parameters.table_magnitude
