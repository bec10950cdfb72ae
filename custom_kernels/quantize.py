"""Group quantisation in plain torch: the arithmetic shared by the references of the quantising ops."""

import torch

from predecode.custom_kernels.formats import ElementFormat, group_scale
from predecode.custom_kernels.layouts import GROUP

ACTIVATION_SCALE_FLOOR = 1e-10
"""Smallest amax an activation group's scale is computed from (aiter `fused_rms_fp8_group_quant`)."""


def quantize_groups(x: torch.Tensor, element_format: ElementFormat) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise ``x`` float32 [rows, columns] in groups of 128 columns; columns is a multiple of 128.

    Returns values [rows, columns] in the format and float32 scales [rows, columns / 128]:
    ``scale = max(amax, 1e-10) / maximum``, ``value = round(clamp(x * (1 / scale)))``.
    """
    rows, columns = x.shape
    groups = x.float().reshape(rows, columns // GROUP, GROUP)
    scales = group_scale(groups.abs().amax(-1), ACTIVATION_SCALE_FLOOR, element_format.maximum)
    values = element_format.encode(groups * (1.0 / scales)[..., None])
    return values.reshape(rows, columns), scales


def dequantize_groups(values: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """float32 [rows, columns] from values [rows, columns] and scales [rows, columns / 128]."""
    rows, columns = values.shape
    groups = values.float().reshape(rows, columns // GROUP, GROUP)
    return (groups * scales[..., None]).reshape(rows, columns)


def dequantize_blocks(values: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """float32 [..., N, K] from row-major values [..., N, K] and scales [..., ceil(N/128), ceil(K/128)]."""
    rows, columns = values.shape[-2:]
    expanded = scales.repeat_interleave(GROUP, -2)[..., :rows, :].repeat_interleave(GROUP, -1)[..., :columns]
    return values.float() * expanded
