"""Seeded activations in FP8, as the products of a layer read them."""

from typing import NamedTuple

import torch

from predecode.custom_kernels.layouts import GROUP
from tests.rivals.torch_layer import to_fp8


class QuantizedRows(NamedTuple):
    """``values`` float8 [..., rows, K] and ``scales`` float32 [..., rows, K / 128]."""

    values: torch.Tensor
    scales: torch.Tensor

    def dequantized(self) -> torch.Tensor:
        """float32 [..., rows, K]."""
        return (self.values.float().unflatten(-1, (-1, GROUP)) * self.scales[..., None]).flatten(-2)


def quantized_rows(*shape: int, seed: int, device: torch.device) -> QuantizedRows:
    """Normal noise [..., rows, K]."""
    groups = noise(*shape, seed=seed, device=device).unflatten(-1, (-1, GROUP))
    scales = groups.abs().amax(-1) / 448.0
    return QuantizedRows(to_fp8(groups / scales[..., None]).flatten(-2), scales)


def noise(*shape: int, seed: int, device: torch.device) -> torch.Tensor:
    """float32, the same on every device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)
